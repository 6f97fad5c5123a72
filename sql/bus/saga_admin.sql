-- Sagas for operators: cancelled, tried again, skipped, looked at, purged.

CREATE FUNCTION meal_planner.raise_saga_alert(
    account text, saga_id uuid, name text, step text, error text, message text, parked boolean)
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    -- What is missing holds up every saga that comes there: one entry an hour.
    IF NOT $7 AND EXISTS (SELECT FROM meal_planner.alert a
                           WHERE a.account = $1 AND a.kind = 'saga' AND a.subscription = $3 AND a.error = $5
                             AND a.id > meal_planner.position_at(meal_planner.clock() - interval '1 hour')) THEN
        RETURN;
    END IF;
    PERFORM meal_planner.raise_alert($1, meal_planner.next_position(), 'saga', $3, $5,
        format(CASE WHEN $7 THEN 'saga "%s": step "%s" is parked: %s' ELSE 'saga "%s": step "%s" cannot run: %s' END, $3, $4, $6),
        NULL, $2);
END
$$;
COMMENT ON FUNCTION meal_planner.raise_saga_alert(text, uuid, text, text, text, text, boolean) IS
'an alert for a step of a saga that somebody has to see to: it is parked, or (once an hour) it cannot run';

CREATE FUNCTION @extschema@.mp_cancel_saga(saga_id uuid, reason text, account text DEFAULT 'local') RETURNS text
LANGUAGE c VOLATILE SECURITY DEFINER PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_cancel_saga';
COMMENT ON FUNCTION @extschema@.mp_cancel_saga(uuid, text, text) IS
'turns a saga back: what it has done is compensated, then it is cancelled. Returns its state; running while the pivot is out, which decides. Cancelling a saga whose pivot is parked, because nobody knows how it ended, says that it has had no effect. MP400, MP404, MP409 once the pivot has succeeded or the saga has ended';

CREATE FUNCTION @extschema@.mp_retry_saga(saga_id uuid, account text DEFAULT 'local') RETURNS text
LANGUAGE c VOLATILE SECURITY DEFINER PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_retry_saga';
COMMENT ON FUNCTION @extschema@.mp_retry_saga(uuid, text) IS
'steps of a saga that are parked begin again, with all attempts of their policy, and those that wait for their next attempt are due at once. Returns its state. MP404, MP409 when it has ended';

CREATE FUNCTION @extschema@.mp_skip_saga_step(saga_id uuid, step text, reason text, account text DEFAULT 'local') RETURNS text
LANGUAGE c VOLATILE SECURITY DEFINER PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_skip_saga_step';
COMMENT ON FUNCTION @extschema@.mp_skip_saga_step(uuid, text, text, text) IS
'a step counts as done without a result, or as undone while the saga goes back. Skipping a parked pivot says that it has had its effect. Returns the state of the saga. MP400, MP404, MP409 while it is running or when it is done already';

CREATE FUNCTION @extschema@.mp_migrate_saga(saga_id uuid, version int, account text DEFAULT 'local') RETURNS text
LANGUAGE c VOLATILE SECURITY DEFINER PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_migrate_saga';
COMMENT ON FUNCTION @extschema@.mp_migrate_saga(uuid, int, text) IS
'moves a saga to another version of its definition, while none of its steps is running. What has begun must be there under its name, of the same kind, and nothing that comes before it may be new; the names that it holds must be the same. Returns its state. MP404, MP409 naming what does not fit';

CREATE FUNCTION @extschema@.mp_drop_saga(name text, version int) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '2s' -- who starts a saga queues behind us
AS $$
#variable_conflict use_column
BEGIN
    -- An older snapshot would not see who has started one since.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'MP409: a saga can only be dropped in a READ COMMITTED transaction'
            USING ERRCODE = 'MP409', HINT = 'retry=no. Call mp_drop_saga in a transaction of its own.';
    END IF;
    LOCK TABLE meal_planner.saga IN SHARE MODE; -- nobody starts one meanwhile
    IF EXISTS (SELECT FROM meal_planner.saga s WHERE s.name = $1 AND s.version = $2 AND s.ended_at IS NULL) THEN
        RAISE EXCEPTION 'MP409: sagas of version % of "%" are running', $2, $1
            USING ERRCODE = 'MP409', HINT = 'retry=yes. Wait for their end, or move them to another version with mp_migrate_saga.';
    END IF;
    IF EXISTS (SELECT FROM meal_planner.saga_definition d WHERE d.name = $1 AND d.version = $2 AND d.builtin) THEN
        RAISE EXCEPTION 'MP409: version % of "%" is shipped with the extension', $2, $1
            USING ERRCODE = 'MP409', HINT = 'retry=no. Define another one: new sagas get the highest version.';
    END IF;
    DELETE FROM meal_planner.saga_definition d WHERE d.name = $1 AND d.version = $2;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'MP404: saga "%" has no version %', $1, $2
            USING ERRCODE = 'MP404', HINT = 'retry=no. See meal_planner.saga_definition.';
    END IF;
EXCEPTION
    WHEN lock_not_available OR deadlock_detected THEN
        RAISE EXCEPTION 'MP409: sagas are being started'
            USING ERRCODE = 'MP409', HINT = 'retry=yes. Try again at a quieter moment.';
END
$$;
COMMENT ON FUNCTION @extschema@.mp_drop_saga(text, int) IS
'drops a version of a definition; new sagas get the highest that is left. MP404, MP409 while sagas of that version run and for one that is shipped';

-- ------------------------------------------------------------------------
-- Looking
-- ------------------------------------------------------------------------

CREATE FUNCTION meal_planner.saga_steps(name text, version int, progress text)
RETURNS TABLE (step text, kind text, state text, attempt int)
LANGUAGE c STABLE SECURITY DEFINER PARALLEL UNSAFE ROWS 5
AS 'MODULE_PATHNAME', 'mp_sql_saga_steps';
COMMENT ON FUNCTION meal_planner.saga_steps(text, int, text) IS
'where the steps of a saga stand, in the order of its definition; no row when that is gone';

CREATE FUNCTION meal_planner.saga_graph(name text, version int, is_instance boolean, progress text) RETURNS text
LANGUAGE c STABLE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_sql_saga_graph';
COMMENT ON FUNCTION meal_planner.saga_graph(text, int, boolean, text) IS 'what mp_saga_graph answers';

CREATE FUNCTION @extschema@.mp_saga(saga_id uuid, account text DEFAULT 'local') RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT jsonb_build_object(
               'saga_id', s.id, 'name', s.name, 'version', s.version, 'state', s.state, 'input', s.input,
               'idempotency_key', s.idempotency_key, 'error', s.error,
               'started_at', s.started_at, 'due_at', s.due_at, 'ended_at', s.ended_at,
               'steps', (SELECT coalesce(jsonb_agg(jsonb_build_object(
                                    'step', t.step, 'kind', t.kind, 'state', t.state, 'attempt', t.attempt) ORDER BY t.ordinality), '[]')
                           FROM meal_planner.saga_steps(s.name, s.version, s.progress) WITH ORDINALITY t),
               'locks', (SELECT coalesce(jsonb_agg(jsonb_build_object('name', k.name, 'state', k.state) ORDER BY k.name), '[]')
                           FROM meal_planner.saga_lock k WHERE k.account = s.account AND k.saga_id = s.id),
               'out', (SELECT coalesce(jsonb_agg(jsonb_build_object(
                                  'step', o.step, 'direction', o.direction, 'service', o.service, 'attempt', o.attempt,
                                  'due_at', o.due_at, 'lease_until', o.lease_until) ORDER BY o.step), '[]')
                         FROM meal_planner.saga_step o WHERE o.account = s.account AND o.saga_id = s.id),
               'log', (SELECT coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
                                  'at', l.at, 'entry', l.entry, 'step', l.step, 'direction', l.direction,
                                  'attempt', l.attempt, 'result', l.result, 'detail', l.detail)) ORDER BY l.seq), '[]')
                         FROM meal_planner.saga_log l WHERE l.account = s.account AND l.saga_id = s.id))
      FROM meal_planner.saga s
     WHERE s.account = coalesce($2, 'local') AND s.id = $1
$$;
COMMENT ON FUNCTION @extschema@.mp_saga(uuid, text) IS
'all about a saga: its state, the first error, its steps, those that are out or wait (with the time), the names that it holds or waits for, and its whole log; NULL when there is none';

CREATE FUNCTION @extschema@.mp_saga_graph(name text DEFAULT NULL, saga_id uuid DEFAULT NULL, account text DEFAULT 'local')
RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    graph text;
BEGIN
    IF (name IS NULL) = (saga_id IS NULL) THEN
        RAISE EXCEPTION 'MP400: give either name or saga_id'
            USING ERRCODE = 'MP400', HINT = 'retry=no. Correct the arguments.';
    ELSIF $2 IS NOT NULL THEN
        SELECT meal_planner.saga_graph(s.name, s.version, true, s.progress) INTO graph
          FROM meal_planner.saga s WHERE s.account = coalesce($3, 'local') AND s.id = $2;
    ELSE
        SELECT meal_planner.saga_graph(d.name, d.version, false, NULL) INTO graph
          FROM meal_planner.saga_definition d WHERE d.name = $1 ORDER BY d.version DESC LIMIT 1;
    END IF;
    IF graph IS NULL THEN
        RAISE EXCEPTION 'MP404: there is no such saga'
            USING ERRCODE = 'MP404', HINT = 'retry=no. See mp_sagas.';
    END IF;
    RETURN graph;
END
$$;
COMMENT ON FUNCTION @extschema@.mp_saga_graph(text, uuid, text) IS
'a Mermaid flowchart: of the newest version of a definition (name), or of a saga with its states (saga_id). MP400, MP404';

CREATE VIEW @extschema@.mp_sagas AS
SELECT s.account, s.id AS saga_id, s.name, s.version, s.state,
       CASE WHEN s.ended_at IS NULL THEN
           (SELECT string_agg(t.step, ', ' ORDER BY t.ordinality)
              FROM meal_planner.saga_steps(s.name, s.version, s.progress) WITH ORDINALITY t
             WHERE t.state NOT IN ('pending', 'succeeded', 'failed', 'skipped', 'undone', 'undo_skipped'))
       END AS at_steps,
       s.blocked, s.error ->> 'step' AS error_step, s.error ->> 'message' AS error_message,
       s.started_at, s.due_at, s.ended_at
  FROM meal_planner.saga s;
COMMENT ON VIEW @extschema@.mp_sagas IS
'sagas that run, and those that have ended until they are purged; at_steps: what is running, waits for its next attempt or is parked; blocked: it has not begun, since another saga holds one of its names';

-- ------------------------------------------------------------------------
-- Purging
-- ------------------------------------------------------------------------

CREATE FUNCTION meal_planner.purge_sagas(max_sagas int) RETURNS int
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_sort = off SET enable_bitmapscan = off SET enable_seqscan = off SET jit = off -- in the order of the index
AS $$
DECLARE
    kept_from timestamptz := meal_planner.clock() - make_interval(secs => 86400 * coalesce(
        (SELECT r.days FROM meal_planner.retention r WHERE r.scope = 'saga'), 30));
    -- ids begin with the milliseconds at which they were made
    before    uuid := rpad(lpad(to_hex((extract(epoch FROM greatest(kept_from, 'epoch')) * 1000)::bigint), 12, '0'), 32, '0');
    source    text;
    gone      uuid[];
    purged    int := 0;
BEGIN
    FOR source IN
        WITH RECURSIVE known (account) AS (
            SELECT (SELECT s.account FROM meal_planner.saga s ORDER BY s.account LIMIT 1)
            UNION ALL
            SELECT (SELECT s.account FROM meal_planner.saga s WHERE s.account > k.account ORDER BY s.account LIMIT 1)
              FROM known k
             WHERE k.account IS NOT NULL)
        SELECT k.account FROM known k WHERE k.account IS NOT NULL
    LOOP
        SELECT array_agg(o.id) INTO gone
          FROM (SELECT s.id FROM meal_planner.saga s
                 WHERE s.account = source AND s.id < before AND s.ended_at < kept_from
                 ORDER BY s.account, s.id
                 LIMIT max_sagas - purged
                   FOR UPDATE SKIP LOCKED) o;
        CONTINUE WHEN gone IS NULL;
        DELETE FROM meal_planner.alert a WHERE a.account = source AND a.saga_id = ANY (gone);
        DELETE FROM meal_planner.saga_log l WHERE l.account = source AND l.saga_id = ANY (gone);
        DELETE FROM meal_planner.saga s WHERE s.account = source AND s.id = ANY (gone);
        purged := purged + cardinality(gone);
        EXIT WHEN purged >= max_sagas;
    END LOOP;
    RETURN purged;
END
$$;
COMMENT ON FUNCTION meal_planner.purge_sagas(int) IS
'removes up to so many sagas that ended longer ago than they are kept, with their logs and alerts, and returns how many';
