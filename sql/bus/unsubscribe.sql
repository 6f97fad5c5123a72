-- Removing a subscription, with all that waits for it.

CREATE FUNCTION meal_planner.end_deliveries(subscription text, as_letters boolean) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    moment timestamptz := meal_planner.clock();
BEGIN
    -- Each delivery before its letter, as who runs it has them.
    WITH gone AS (
        DELETE FROM meal_planner.delivery d
         WHERE d.subscription = $1 AND NOT EXISTS (SELECT FROM meal_planner.subscription s WHERE s.name = $1)
        RETURNING d.*),
    died AS (
        INSERT INTO meal_planner.dead_letter
               (account, id, subscription, position, event_id, error_type, reason, "sqlstate", error_message,
                error_detail, error_hint, error_context, retry_count, status, first_failed_at, dead_at,
                corrected_detail, history)
        SELECT g.account, meal_planner.next_position(), $1, g.position, g.event_id, 'transient', 'unsubscribed',
               g."sqlstate", g.error_message, g.error_detail, g.error_hint, g.error_context,
               greatest(g.attempt - 1, 0), 'dead', coalesce(g.first_failed_at, moment), moment, g.detail, g.history
          FROM gone g
         WHERE $2
        ON CONFLICT (account, subscription, position) DO NOTHING),
    -- It was dead before, and that is settled: now it is for this.
    died_again AS (
        UPDATE meal_planner.dead_letter l
           SET error_type = 'transient', reason = 'unsubscribed', "sqlstate" = g."sqlstate",
               error_message = g.error_message, error_detail = g.error_detail, error_hint = g.error_hint,
               error_context = g.error_context, retry_count = greatest(g.attempt - 1, 0), status = 'dead',
               dead_at = moment, corrected_detail = coalesce(g.detail, l.corrected_detail), settled_at = NULL,
               discard_reason = NULL, alert_id = NULL,
               history = meal_planner.join_history(l.history, meal_planner.stamp_history(g.history, l.replay_count))
          FROM gone g
         WHERE $2 AND l.account = g.account AND l.subscription = $1 AND l.position = g.position
           AND l.status IN ('resolved', 'discarded'))
    UPDATE meal_planner.dead_letter l
       SET history = meal_planner.join_history(l.history, meal_planner.stamp_history(g.history, l.replay_count))
      FROM gone g
     WHERE l.account = g.account AND l.subscription = $1 AND l.position = g.position
       AND l.status IN ('dead', 'replaying');
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
