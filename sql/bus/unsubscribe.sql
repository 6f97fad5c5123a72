-- Removing a subscription, with all that waits for it.

CREATE FUNCTION @extschema@.mp_unsubscribe(name text, deliveries text DEFAULT 'dead_letter') RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    moment timestamptz := meal_planner.clock();
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
    DELETE FROM meal_planner.replay r WHERE r.subscription = mp_unsubscribe.name;
    DELETE FROM meal_planner.worker_batch b WHERE b.subscription = name;
    DELETE FROM meal_planner.replay_cursor c WHERE c.subscription = name;
    DELETE FROM meal_planner.subscription_cursor c WHERE c.subscription = name;
    -- Nobody goes on with a replay; its letter must not wait for one for ever,
    -- nor block a subscription that takes the name later.
    UPDATE meal_planner.dead_letter l
       SET status = CASE WHEN l.status = 'replaying' THEN 'dead' ELSE l.status END, order_key = NULL,
           history = meal_planner.join_history(
                         l.history,
                         coalesce((SELECT meal_planner.stamp_history(d.history, l.replay_count)
                                     FROM meal_planner.delivery d
                                    WHERE d.account = l.account AND d.subscription = l.subscription
                                      AND d.position = l.position), '[]'))
     WHERE l.subscription = name AND (l.status = 'replaying' OR l.order_key IS NOT NULL);
    WITH gone AS (
        DELETE FROM meal_planner.delivery d WHERE d.subscription = name RETURNING *)
    INSERT INTO meal_planner.dead_letter
           (account, id, subscription, position, event_id, error_type, reason, "sqlstate", error_message,
            error_detail, error_hint, error_context, retry_count, status, first_failed_at, dead_at,
            corrected_detail, history)
    SELECT g.account, meal_planner.next_position(), g.subscription, g.position, g.event_id, 'transient',
           'unsubscribed', g."sqlstate", g.error_message, g.error_detail, g.error_hint, g.error_context,
           greatest(g.attempt - 1, 0), 'dead', coalesce(g.first_failed_at, moment), moment, g.detail,
           g.history
      FROM gone g
     WHERE deliveries IS DISTINCT FROM 'discard'
    ON CONFLICT DO NOTHING; -- that of a replay is dead again
    DELETE FROM meal_planner.subscription s WHERE s.name = mp_unsubscribe.name;
END
$$;
COMMENT ON FUNCTION @extschema@.mp_unsubscribe(text, text) IS
'removes a subscription with its cursors; its dead letters stay.
deliveries: what becomes of its live deliveries: dead_letter (they become dead letters with reason unsubscribed, without an alert), discard (they are dropped) or refuse (MP409 if there are any).
MP400, MP404, MP409 for one that the extension ships';
