-- What has gone wrong, attempt by attempt, and how long that is kept.

CREATE VIEW @extschema@.mp_attempts AS
SELECT h.account, nullif(h.subscription, '') AS subscription, h.event_id, h.dlq_id,
       coalesce(a.replay, h.replay_count) AS replay, a.attempt, a.counted,
       a.at AS failed_at, a.seconds, a."sqlstate", a.message AS error_message, a.detail AS error_detail,
       a.hint AS error_hint, a.context AS error_context, a.verdict, a.worker, a.pid, a.replay_name,
       h.live, a.number
  FROM (SELECT l.account, l.subscription, l.event_id, l.id AS dlq_id, 0 AS replay_count, l.history, false AS live
          FROM meal_planner.dead_letter l
         UNION ALL
        SELECT d.account, d.subscription, d.event_id, l.id, coalesce(l.replay_count, 0), d.history, true
          FROM meal_planner.delivery d
          LEFT JOIN meal_planner.dead_letter l
            ON l.account = d.account AND l.subscription = d.subscription AND l.position = d.position) h,
       LATERAL ROWS FROM (jsonb_to_recordset(h.history) AS (
           replay int, attempt int, counted boolean, at timestamptz, seconds float8, "sqlstate" text, message text,
           detail text, hint text, context text, verdict text, worker text, pid int, replay_name text))
       WITH ORDINALITY AS a (replay, attempt, counted, at, seconds, "sqlstate", message, detail, hint, context,
                             verdict, worker, pid, replay_name, number);
COMMENT ON VIEW @extschema@.mp_attempts IS
'failed attempts of what is being retried (live) and of dead letters: which attempt it was after which replay, whether it counted, when it failed, how long it took, its error, and what followed (verdict: retry, probe, deploy, sent, or the reason of the dead letter). An event that succeeds in the end and was never dead leaves none';

CREATE FUNCTION @extschema@.mp_dlq_attempts(dlq_id bigint)
RETURNS TABLE (
    replay int, attempt int, counted boolean, failed_at timestamptz, seconds float8, "sqlstate" text,
    error_message text, error_detail text, error_hint text, error_context text, verdict text,
    worker text, pid int, replay_name text)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off -- by the keys
AS $$
#variable_conflict use_column
BEGIN
    PERFORM FROM meal_planner.dead_letter l WHERE l.id = $1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'MP404: dead letter % does not exist', $1
            USING ERRCODE = 'MP404', HINT = 'retry=no. See the view mp_dlq.';
    END IF;
    RETURN QUERY
    SELECT a.replay, a.attempt, a.counted, a.failed_at, a.seconds, a."sqlstate",
           a.error_message, a.error_detail, a.error_hint, a.error_context, a.verdict,
           a.worker, a.pid, a.replay_name
      FROM @extschema@.mp_attempts a
     WHERE a.dlq_id = $1
     ORDER BY a.live, a.number;
END
$$;
COMMENT ON FUNCTION @extschema@.mp_dlq_attempts(bigint) IS
'the failed attempts of a dead letter, the oldest first, those of a replay that is on its way included: at most 100 (the first and the last 99). See mp_attempts. MP404';

CREATE FUNCTION meal_planner.sweep_history() RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off -- a few rows, by the index
AS $$
DECLARE
    many     int := 1000;
    found    int := 0;
    horizon  timestamptz := meal_planner.clock() - make_interval(secs => 86400 * coalesce(
                                (SELECT r.days FROM meal_planner.retention r WHERE r.scope = 'history'), 90));
    settled  record;
BEGIN
    -- What somebody is reopening is locked, and is settled no more.
    FOR settled IN
        SELECT l.account, l.id FROM meal_planner.dead_letter l
         WHERE l.status IN ('resolved', 'discarded') AND l.settled_at < horizon
         ORDER BY l.settled_at
         LIMIT many
           FOR UPDATE SKIP LOCKED
    LOOP
        DELETE FROM meal_planner.alert a
         WHERE a.account = settled.account AND a.dead_letter_id = settled.id;
        DELETE FROM meal_planner.dead_letter l
         WHERE l.account = settled.account AND l.id = settled.id;
        found := found + 1;
    END LOOP;
    FOR settled IN
        SELECT a.account, a.id FROM meal_planner.alert a
         WHERE a.dead_letter_id IS NULL AND a.saga_id IS NULL AND a.raised_at < horizon
         ORDER BY a.raised_at
         LIMIT many
    LOOP
        DELETE FROM meal_planner.alert a WHERE a.account = settled.account AND a.id = settled.id;
        found := found + 1;
    END LOOP;
    FOR settled IN
        SELECT k.account, k.kind, k.subscription, k.error, k.since FROM meal_planner.acknowledgement k
         WHERE k.at < horizon
           AND NOT EXISTS (SELECT FROM meal_planner.alert a
                            WHERE a.account = k.account AND a.kind = k.kind AND a.subscription = k.subscription
                              AND a.error = k.error AND a.since = k.since)
         ORDER BY k.at
         LIMIT many
    LOOP
        DELETE FROM meal_planner.acknowledgement k
         WHERE k.account = settled.account AND k.kind = settled.kind AND k.subscription = settled.subscription
           AND k.error = settled.error AND k.since = settled.since;
        found := found + 1;
    END LOOP;
    FOR settled IN
        SELECT h.name, h.epoch, h.reason FROM meal_planner.breaker_history h
         WHERE h.event_id IS NOT NULL AND h.at < horizon
         ORDER BY h.at
         LIMIT many
    LOOP
        DELETE FROM meal_planner.breaker_history h
         WHERE h.name = settled.name AND h.epoch = settled.epoch AND h.reason = settled.reason;
        found := found + 1;
    END LOOP;
    FOR settled IN
        SELECT r.id FROM meal_planner.redrive r
         WHERE r.ended_at < horizon
         ORDER BY r.id
         LIMIT many
    LOOP
        DELETE FROM meal_planner.redrive r WHERE r.id = settled.id;
        found := found + 1;
    END LOOP;
    RETURN found >= many;
END
$$;
COMMENT ON FUNCTION meal_planner.sweep_history() IS
'removes what was settled longer ago than mp_set_retention keeps history: dead letters that are resolved or discarded, with their alerts; alerts of pauses; changes of circuit breakers; redrives that have ended. True: there may be more';
