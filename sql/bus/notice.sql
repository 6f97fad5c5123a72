-- NOTIFY for consumers that are outside the server and do not want to poll.  The
-- sweeps send it, never the transactions that emit.

CREATE FUNCTION meal_planner.begin_notice(idle boolean) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_begin_notice';
COMMENT ON FUNCTION meal_planner.begin_notice(boolean) IS
'whether this sweep may look now for what consumers are to be told; idle: it has found nothing else to do';

CREATE FUNCTION meal_planner.end_notice() RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_end_notice';
COMMENT ON FUNCTION meal_planner.end_notice() IS 'ends a look; the next one waits ten times as long as it took';

CREATE FUNCTION meal_planner.noticed(account text, subscription text) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_noticed';
COMMENT ON FUNCTION meal_planner.noticed(text, text) IS
'the position up to which the consumers of a subscription have been told; 0 when a reminder is due, NULL when it is too early for more';

CREATE FUNCTION meal_planner.notice(
    account text, subscription text, "position" bigint, due timestamptz, matched boolean) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_notice';
COMMENT ON FUNCTION meal_planner.notice(text, text, bigint, timestamptz, boolean) IS
'notes that the log of an account has been looked through up to a position, and whether its consumers are to be told: something matched, or a delivery is due, that they have not been told of';

CREATE FUNCTION meal_planner.notify_consumers(idle boolean) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_sort = off SET enable_bitmapscan = off SET enable_seqscan = off -- in the order of the index
SET jit = off
AS $$
DECLARE
    page    CONSTANT int := 100;
    moment  timestamptz := meal_planner.clock();
    source  record;
    queue   record;
    newest  bigint;
    known   bigint;
    waiting timestamptz;
    matched boolean;
BEGIN
    IF NOT meal_planner.begin_notice(idle) THEN
        RETURN;
    END IF;
    FOR source IN
        SELECT a.account, meal_planner.read_bound(a.account) AS bound
          FROM meal_planner.accounts(0) a (account)
         WHERE EXISTS (SELECT FROM meal_planner.subscription s WHERE s.mode = 'pull' AND s.paused_at IS NULL)
    LOOP
        SELECT e.position INTO newest
          FROM meal_planner.event e
         WHERE e.account = source.account AND e.position <= source.bound
         ORDER BY e.account DESC, e.position DESC
         LIMIT 1;
        FOR queue IN
            SELECT s.name, s.pattern,
                   greatest(meal_planner.cursor_position(source.account, s.name), s.start_position) AS cursor,
                   least(CASE WHEN s.options ? 'retry_budget' AND meal_planner.retry_ready_at(s.name) IS NOT NULL THEN
                             -- its retries cannot be claimed yet
                             (SELECT d.next_attempt_at FROM meal_planner.delivery d
                               WHERE d.account = source.account AND d.subscription = s.name AND d.token IS NULL
                                 AND d.attempt = 0
                               ORDER BY d.account, d.subscription, d.next_attempt_at LIMIT 1)
                         ELSE
                             (SELECT d.next_attempt_at FROM meal_planner.delivery d
                               WHERE d.account = source.account AND d.subscription = s.name AND d.token IS NULL
                               ORDER BY d.account, d.subscription, d.next_attempt_at LIMIT 1) END,
                         (SELECT c.due FROM meal_planner.replay_cursor c
                           WHERE c.account = source.account AND c.subscription = s.name
                           ORDER BY c.account, c.subscription, c.replay LIMIT 1)) AS due
              FROM meal_planner.subscription s
             WHERE s.mode = 'pull' AND s.paused_at IS NULL AND NOT meal_planner.is_broken(s.name)
        LOOP
            waiting := CASE WHEN queue.due <= moment THEN queue.due END;
            CONTINUE WHEN waiting IS NULL AND (newest IS NULL OR newest <= queue.cursor);
            known := meal_planner.noticed(source.account, queue.name);
            CONTINUE WHEN known IS NULL;
            known := greatest(known, queue.cursor);
            -- a long page is not looked through: the consumers will
            SELECT count(*) = page OR coalesce(bool_or(meal_planner.matches(queue.pattern, p.event)), false) INTO matched
              FROM (SELECT e AS event
                      FROM meal_planner.event e
                     WHERE e.account = source.account AND e.position > known AND e.position <= newest
                     ORDER BY e.account, e.position
                     LIMIT page) p;
            IF meal_planner.notice(source.account, queue.name, newest, waiting, matched) THEN
                PERFORM pg_notify('mp_claim', jsonb_build_object('subscription', queue.name, 'account', source.account)::text);
            END IF;
        END LOOP;
    END LOOP;
    PERFORM meal_planner.end_notice();
END
$$;
COMMENT ON FUNCTION meal_planner.notify_consumers(boolean) IS
'sends NOTIFY mp_claim for pull subscriptions that have something new to be claimed: once for all that came since the last time, at most every 50 ms, and every 10 seconds while it lies unclaimed';
