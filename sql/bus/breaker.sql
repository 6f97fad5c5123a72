-- Circuit breakers.  They count and decide in shared memory, outside of any
-- transaction; these tables say how one is configured, where it stands and how
-- it came there, so that a crash, a restart, a promotion or a restore does not
-- close an open one.

CREATE TABLE meal_planner.breaker (
    name    text   NOT NULL PRIMARY KEY,
    options jsonb  NOT NULL DEFAULT '{}',
    version bigint NOT NULL
);
COMMENT ON TABLE meal_planner.breaker IS
'how circuit breakers are configured; change it with mp_breaker_configure. One without a row has the defaults';
COMMENT ON COLUMN meal_planner.breaker.version IS 'grows with every change: of two at once the later one holds';
SELECT pg_extension_config_dump('meal_planner.breaker', '');

CREATE TABLE meal_planner.breaker_state (
    name          text        NOT NULL PRIMARY KEY,
    epoch         bigint      NOT NULL DEFAULT 0,
    state         text        NOT NULL DEFAULT 'closed' CHECK (state IN ('closed', 'open', 'half-open')),
    changed_at    timestamptz,
    opened_at     timestamptz,
    open_until    timestamptz,
    open_seconds  float8      NOT NULL DEFAULT 0,
    open_count    int         NOT NULL DEFAULT 0,
    forced        text        CHECK (forced IN ('open', 'closed')),
    forced_until  timestamptz,
    forced_by     text,
    forced_reason text
);
COMMENT ON TABLE meal_planner.breaker_state IS
'where circuit breakers stood when they last changed; shared memory is ahead of it, mp_breakers shows that';
COMMENT ON COLUMN meal_planner.breaker_state.open_seconds IS 'how long it is open, this time or the last';
COMMENT ON COLUMN meal_planner.breaker_state.open_count IS 'openings in a row, by which the open time grows';
SELECT pg_extension_config_dump('meal_planner.breaker_state', '');

CREATE TABLE meal_planner.breaker_history (
    name       text        NOT NULL,
    epoch      bigint      NOT NULL,
    reason     text        NOT NULL,
    at         timestamptz NOT NULL,
    from_state text        NOT NULL,
    to_state   text        NOT NULL,
    by_role    text,
    note       text,
    event_id   uuid,
    PRIMARY KEY (name, epoch, reason)
);
COMMENT ON TABLE meal_planner.breaker_history IS
'changes of state of circuit breakers, and who forced them; reason would_open: one that only measures would have opened';
COMMENT ON COLUMN meal_planner.breaker_history.event_id IS 'the event that told of it; NULL: the next sweep emits it';
CREATE INDEX breaker_history_news ON meal_planner.breaker_history (at) WHERE event_id IS NULL;
CREATE INDEX breaker_history_old ON meal_planner.breaker_history (at) WHERE event_id IS NOT NULL;
SELECT pg_extension_config_dump('meal_planner.breaker_history', '');

CREATE FUNCTION meal_planner.breakers(
    only_name text DEFAULT NULL,
    OUT name text, OUT state text, OUT consecutive_failures int, OUT opened_at timestamptz, OUT retry_at timestamptz,
    OUT epoch bigint, OUT permits int, OUT changed_at timestamptz, OUT open_seconds float8, OUT open_count int,
    OUT forced text, OUT forced_until timestamptz, OUT forced_by text, OUT forced_reason text,
    OUT metrics_only boolean, OUT stored boolean,
    OUT window_calls int, OUT window_failures int, OUT window_slow int,
    OUT successes bigint, OUT failures bigint, OUT slow bigint, OUT ignored bigint, OUT late bigint,
    OUT rejected bigint, OUT probes bigint)
RETURNS SETOF record
LANGUAGE c VOLATILE SECURITY DEFINER PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_breakers';
COMMENT ON FUNCTION meal_planner.breakers(text) IS
'circuit breakers as they stand in shared memory; on a standby, as they were stored. With a name, without letting anything end that is over';

CREATE FUNCTION meal_planner.breaker_changes(
    name text,
    OUT epoch bigint, OUT at timestamptz, OUT from_state text, OUT to_state text, OUT reason text,
    OUT by_role text, OUT note text)
RETURNS SETOF record
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_breaker_changes';
COMMENT ON FUNCTION meal_planner.breaker_changes(text) IS
'changes of a circuit breaker that wait to be stored; when this transaction commits, they count as stored';

CREATE FUNCTION meal_planner.breakers_unstored(OUT name text, OUT changes int) RETURNS SETOF record
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_breakers_unstored';
COMMENT ON FUNCTION meal_planner.breakers_unstored() IS 'circuit breakers with changes that wait to be stored';

CREATE FUNCTION meal_planner.breaker_retry_at(name text) RETURNS timestamptz
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_breaker_retry_at_call';
COMMENT ON FUNCTION meal_planner.breaker_retry_at(text) IS
'when that circuit breaker may be tried again (infinity: when somebody releases it); NULL: now. It asks without taking a permit';

CREATE FUNCTION meal_planner.store_breaker(name text) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- The row first, shared memory second: who comes last writes the newest.
    INSERT INTO meal_planner.breaker_state (name) VALUES (store_breaker.name) ON CONFLICT DO NOTHING;
    PERFORM FROM meal_planner.breaker_state s WHERE s.name = store_breaker.name FOR UPDATE;
    INSERT INTO meal_planner.breaker_history (name, epoch, reason, at, from_state, to_state, by_role, note)
    SELECT store_breaker.name, c.epoch, c.reason, c.at, c.from_state, c.to_state, c.by_role, c.note
      FROM meal_planner.breaker_changes(store_breaker.name) c
    ON CONFLICT DO NOTHING;
    UPDATE meal_planner.breaker_state s
       SET epoch = b.epoch, state = b.state, changed_at = b.changed_at, opened_at = b.opened_at,
           open_until = CASE WHEN b.state = 'open' AND b.forced IS NULL THEN b.retry_at END,
           open_seconds = b.open_seconds, open_count = b.open_count,
           forced = b.forced, forced_until = b.forced_until, forced_by = b.forced_by,
           forced_reason = b.forced_reason
      FROM meal_planner.breakers(store_breaker.name) b
     WHERE s.name = store_breaker.name AND b.epoch > s.epoch;
END
$$;
COMMENT ON FUNCTION meal_planner.store_breaker(text) IS
'writes where a circuit breaker stands, and the changes that led there';

CREATE FUNCTION meal_planner.save_breaker(name text, options jsonb) RETURNS void
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO meal_planner.breaker AS b (name, options, version)
    VALUES ($1, $2, meal_planner.next_position())
    ON CONFLICT (name) DO UPDATE
       SET options = excluded.options, version = greatest(excluded.version, b.version + 1)
$$;
COMMENT ON FUNCTION meal_planner.save_breaker(text, jsonb) IS
'stores a configuration that mp_breaker_configure has checked';

CREATE FUNCTION @extschema@.mp_breaker_configure(name text, options jsonb) RETURNS void
LANGUAGE c VOLATILE SECURITY DEFINER PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_breaker_configure_call';
COMMENT ON FUNCTION @extschema@.mp_breaker_configure(text, jsonb) IS
'configures a circuit breaker, at once and whatever becomes of the transaction; what is not given has its default.
options: failure_threshold 5 (failures in a row; 0: none), open_seconds 30, growth 1, max_open_seconds 3600, jitter 0..1, decay_seconds 300 (closed so long takes one step of growth back), success_threshold 1, half_open_permits 1, permit_seconds 60, window count|time, window_size 100 (calls or seconds), minimum_calls 10, failure_rate 0..1, slow_call_seconds, slow_rate 0..1, metrics_only false.
Errors: MP400 naming the option, MP503.';

CREATE FUNCTION @extschema@.mp_breaker_acquire(name text) RETURNS jsonb
LANGUAGE c VOLATILE SECURITY DEFINER PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_breaker_acquire_call';
COMMENT ON FUNCTION @extschema@.mp_breaker_acquire(text) IS
'asks whether a service may be called: {"allowed": true, "state", "permit"}, to be followed by mp_breaker_report with the permit, or {"allowed": false, "state", "retry_after"} (seconds; null: until somebody releases it). A closed breaker is only read. MP400, MP503';

CREATE FUNCTION @extschema@.mp_breaker_report(name text, permit bigint, outcome text, duration_ms float8 DEFAULT NULL) RETURNS text
LANGUAGE c VOLATILE SECURITY DEFINER PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_breaker_report_call';
COMMENT ON FUNCTION @extschema@.mp_breaker_report(text, bigint, text, float8) IS
'tells how a call ended: success, failure or ignored (it says nothing of the service; a probe''s permit goes back). It counts at once and is not undone by ROLLBACK; a late result, with a permit of an older epoch, changes nothing. Returns the state: closed, open or half-open. MP400, MP503';

CREATE FUNCTION @extschema@.mp_breaker_force(name text, state text, until timestamptz DEFAULT NULL, reason text DEFAULT NULL)
RETURNS void
LANGUAGE c VOLATILE SECURITY DEFINER PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_breaker_force_call';
COMMENT ON FUNCTION @extschema@.mp_breaker_force(text, text, timestamptz, text) IS
'holds a circuit breaker open or closed, until a time or until it is released with auto; at once, and recorded with role and reason in meal_planner.breaker_history whatever becomes of the transaction. After open the next call is a probe; after closed it counts anew. MP400, MP503';

CREATE VIEW @extschema@.mp_breakers AS
SELECT b.name, b.state, b.consecutive_failures, b.opened_at, b.retry_at, b.epoch, b.permits,
       jsonb_build_object('successes', b.successes, 'failures', b.failures, 'slow', b.slow, 'ignored', b.ignored,
                          'late', b.late, 'rejected', b.rejected, 'probes', b.probes,
                          'window_calls', b.window_calls, 'window_failures', b.window_failures,
                          'window_slow', b.window_slow) AS counters,
       b.changed_at, b.open_seconds, b.open_count, b.forced, b.forced_until, b.forced_by, b.forced_reason,
       b.metrics_only, b.stored, c.options
  FROM meal_planner.breakers() b
  LEFT JOIN meal_planner.breaker c ON c.name = b.name;
COMMENT ON VIEW @extschema@.mp_breakers IS
'circuit breakers of this database: state (closed, open, half-open), when it may be tried (retry_at), its epoch, probes out (permits), counters since the server started, whether somebody forces it (until, by, reason), whether its last change is stored, and its options';

CREATE FUNCTION meal_planner.sweep_breakers_moved() RETURNS boolean
LANGUAGE c VOLATILE SECURITY DEFINER PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_breakers_moved';
COMMENT ON FUNCTION meal_planner.sweep_breakers_moved() IS
'whether any circuit breaker of the server changed since this session asked last, or a second ago; a sweep then looks closer';

-- Before the events of changes: what handlers of those do takes its time.
CREATE FUNCTION meal_planner.sweep_breakers() RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    waiting record;
BEGIN
    FOR waiting IN SELECT b.name FROM meal_planner.breakers_unstored() b ORDER BY b.name LOOP
        PERFORM meal_planner.store_breaker(waiting.name);
    END LOOP;
END
$$;
COMMENT ON FUNCTION meal_planner.sweep_breakers() IS
'stores changes of circuit breakers that nobody could store when they happened, and lets leases of probes end';

CREATE FUNCTION meal_planner.sweep_breaker_events() RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    news meal_planner.breaker_history;
BEGIN
    FOR news IN
        SELECT * FROM meal_planner.breaker_history h
         WHERE h.event_id IS NULL
         ORDER BY h.at, h.name, h.epoch
         LIMIT 100
           FOR UPDATE SKIP LOCKED
    LOOP
        UPDATE meal_planner.breaker_history h
           SET event_id = @extschema@.mp_emit_event(
                   CASE WHEN news.reason = 'would_open' THEN 'CircuitWouldOpen'
                        ELSE CASE news.to_state WHEN 'open' THEN 'CircuitOpened'
                                                WHEN 'closed' THEN 'CircuitClosed'
                                                ELSE 'CircuitHalfOpened' END END,
                   jsonb_strip_nulls(jsonb_build_object(
                       'breaker', news.name, 'from', news.from_state, 'to', news.to_state, 'reason', news.reason,
                       'epoch', news.epoch, 'at', news.at, 'by', news.by_role, 'note', news.note)),
                   event_time => news.at)
         WHERE h.name = news.name AND h.epoch = news.epoch AND h.reason = news.reason;
    END LOOP;
END
$$;
COMMENT ON FUNCTION meal_planner.sweep_breaker_events() IS
'emits CircuitOpened, CircuitHalfOpened, CircuitClosed and CircuitWouldOpen for changes of circuit breakers that were stored, once each';
