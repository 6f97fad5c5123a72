-- Removing a subscription, with all that waits for it.

CREATE FUNCTION meal_planner.end_deliveries(subscription text, as_letters boolean) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    moment timestamptz := meal_planner.clock();
    gone   meal_planner.delivery;
BEGIN
    -- All deliveries before their letters, as who runs one has them.
    FOR gone IN
        DELETE FROM meal_planner.delivery d
         WHERE d.subscription = $1 AND NOT EXISTS (SELECT FROM meal_planner.subscription s WHERE s.name = $1)
        RETURNING d.*
    LOOP
        IF $2 THEN
            INSERT INTO meal_planner.dead_letter
                   (account, id, subscription, position, event_id, error_type, reason, "sqlstate", error_message,
                    error_detail, error_hint, error_context, retry_count, status, first_failed_at, dead_at,
                    corrected_detail, history)
            VALUES (gone.account, meal_planner.next_position(), $1, gone.position, gone.event_id, 'transient',
                    'unsubscribed', gone."sqlstate", gone.error_message, gone.error_detail, gone.error_hint,
                    gone.error_context, greatest(gone.attempt - 1, 0), 'dead', coalesce(gone.first_failed_at, moment),
                    moment, gone.detail, gone.history)
            ON CONFLICT (account, subscription, position) DO NOTHING;
            CONTINUE WHEN FOUND;
            -- It was dead before, and that is settled: now it is for this.
            UPDATE meal_planner.dead_letter l
               SET error_type = 'transient', reason = 'unsubscribed', "sqlstate" = gone."sqlstate",
                   error_message = gone.error_message, error_detail = gone.error_detail, error_hint = gone.error_hint,
                   error_context = gone.error_context, retry_count = greatest(gone.attempt - 1, 0), status = 'dead',
                   dead_at = moment, corrected_detail = coalesce(gone.detail, l.corrected_detail), settled_at = NULL,
                   discard_reason = NULL, alert_id = NULL
             WHERE l.account = gone.account AND l.subscription = $1 AND l.position = gone.position
               AND l.status IN ('resolved', 'discarded');
        END IF;
        UPDATE meal_planner.dead_letter l
           SET history = meal_planner.join_history(l.history, meal_planner.stamp_history(gone.history, l.replay_count))
         WHERE l.account = gone.account AND l.subscription = $1 AND l.position = gone.position
           AND l.status IN ('dead', 'replaying');
    END LOOP;
    -- Nobody goes on with a replay; its letter must not wait for one for ever,
    -- nor block a subscription that takes the name later.
    UPDATE meal_planner.dead_letter l
       SET status = CASE WHEN l.status = 'replaying' THEN 'dead' ELSE l.status END, order_key = NULL
     WHERE l.subscription = $1 AND (l.status = 'replaying' OR l.order_key IS NOT NULL)
       AND NOT EXISTS (SELECT FROM meal_planner.subscription s WHERE s.name = $1);
END
$$;
COMMENT ON FUNCTION meal_planner.end_deliveries(text, boolean) IS
'ends the deliveries of a subscription that is gone: as_letters, as dead letters with reason unsubscribed, else they are dropped; and its dead letters are no longer replayed, nor block a key';

-- Who was emitting, or made a dead letter a delivery, while a subscription was
-- removed did not know of it, and neither waited for the other.
CREATE FUNCTION meal_planner.end_unsubscribed() RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_sort = off SET enable_bitmapscan = off SET enable_seqscan = off SET jit = off -- in the order of the index
AS $$
DECLARE
    gone text;
BEGIN
    -- One probe for each account and subscription that has deliveries.
    FOR gone IN
        WITH RECURSIVE queue (account, subscription) AS (
            (SELECT d.account, d.subscription FROM meal_planner.delivery d
              WHERE d.token IS NULL
              ORDER BY d.account, d.subscription LIMIT 1)
            UNION ALL
            SELECT n.account, n.subscription
              FROM queue q,
                   LATERAL (SELECT d.account, d.subscription FROM meal_planner.delivery d
                             WHERE d.token IS NULL AND (d.account, d.subscription) > (q.account, q.subscription)
                             ORDER BY d.account, d.subscription LIMIT 1) n)
        SELECT DISTINCT q.subscription
          FROM queue q
         WHERE NOT EXISTS (SELECT FROM meal_planner.subscription s WHERE s.name = q.subscription)
    LOOP
        PERFORM meal_planner.end_deliveries(gone, true);
    END LOOP;
    -- A consumer may acknowledge what it has claimed meanwhile.
    DELETE FROM meal_planner.consumer_claim c
     USING (SELECT o.account, o.subscription, o.number FROM meal_planner.consumer_claim o
             WHERE o.lease_until <= meal_planner.clock()
               AND NOT EXISTS (SELECT FROM meal_planner.subscription s WHERE s.name = o.subscription)
               FOR UPDATE SKIP LOCKED) over
     WHERE c.account = over.account AND c.subscription = over.subscription AND c.number = over.number;
END
$$;
COMMENT ON FUNCTION meal_planner.end_unsubscribed() IS
'makes deliveries dead letters whose subscription was removed while they were made, and ends claims that were, once their leases have ended';

CREATE FUNCTION meal_planner.forget_cursors(subscription text) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    DELETE FROM meal_planner.replay r WHERE r.subscription = $1;
    DELETE FROM meal_planner.worker_batch b WHERE b.subscription = $1;
    DELETE FROM meal_planner.replay_cursor c WHERE c.subscription = $1;
    DELETE FROM meal_planner.subscription_cursor c WHERE c.subscription = $1;
END
$$;
COMMENT ON FUNCTION meal_planner.forget_cursors(text) IS
'removes how far a subscription and its replays have come, and what workers have in hand';

CREATE FUNCTION @extschema@.mp_unsubscribe(name text, deliveries text DEFAULT 'dead_letter') RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF coalesce(deliveries, 'dead_letter') NOT IN ('dead_letter', 'discard', 'refuse') THEN
        RAISE EXCEPTION 'MP400: deliveries must be dead_letter, discard or refuse'
            USING ERRCODE = 'MP400', HINT = 'retry=no. Correct the argument.';
    END IF;
    PERFORM meal_planner.require_subscription(name);
    IF EXISTS (SELECT FROM meal_planner.shipped_subscription s WHERE s.name = mp_unsubscribe.name) THEN
        RAISE EXCEPTION 'MP409: subscription "%" belongs to the extension', name
            USING ERRCODE = 'MP409', HINT = 'retry=no. Pause it with mp_pause_subscription.';
    END IF;
    IF deliveries = 'refuse'
       AND (EXISTS (SELECT FROM meal_planner.delivery d WHERE d.subscription = name)
            OR EXISTS (SELECT FROM meal_planner.consumer_claim c WHERE c.subscription = name)) THEN
        RAISE EXCEPTION 'MP409: subscription "%" has live deliveries', name
            USING ERRCODE = 'MP409', HINT = 'retry=yes. Let the sweep or the consumers finish them, or say dead_letter or discard.';
    END IF;
    IF deliveries IS DISTINCT FROM 'discard' THEN
        -- what consumers hold are deliveries, too
        PERFORM meal_planner.expire_claim(c.account, c.subscription, c.number, 0, false)
           FROM meal_planner.consumer_claim c
          WHERE c.subscription = name;
    END IF;
    DELETE FROM meal_planner.consumer_claim c WHERE c.subscription = name;
    -- after the order lock of the claims, which a consumer has when it moves a replay
    PERFORM meal_planner.forget_cursors(name);
    DELETE FROM meal_planner.subscription s WHERE s.name = mp_unsubscribe.name;
    PERFORM meal_planner.end_deliveries(name, deliveries IS DISTINCT FROM 'discard');
END
$$;
COMMENT ON FUNCTION @extschema@.mp_unsubscribe(text, text) IS
'removes a subscription with its cursors; its dead letters stay.
deliveries: what becomes of its live deliveries: dead_letter (they become dead letters with reason unsubscribed, without an alert), discard (they are dropped) or refuse (MP409 if there are any).
MP400, MP404, MP409 for one that the extension ships';
