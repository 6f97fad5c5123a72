-- Keys of events: under one (account, source, key) an event happens once and
-- everybody gets its id.  Written in the event's transaction by
-- src/bus/idempotency.c.  Which bucket: src/core/bucket.h; how a bucket is
-- emptied: purge.sql.

CREATE TABLE meal_planner.idempotency_key (
    account     text        NOT NULL,
    scope       text        NOT NULL,
    key         text        NOT NULL,
    bucket      int         NOT NULL,
    fingerprint bytea       NOT NULL,
    event_id    uuid        NOT NULL,
    expires_at  timestamptz NOT NULL,
    PRIMARY KEY (account, scope, key, bucket)
) PARTITION BY LIST (bucket);
COMMENT ON TABLE meal_planner.idempotency_key IS
'keys given to mp_emit_event: scope is the source, fingerprint the SHA-256 of the content, event_id the answer; expired rows are as good as absent, and of a key at most one row has not expired';
COMMENT ON COLUMN meal_planner.idempotency_key.bucket IS
'meal_planner.key_bucket of the expiry: stretches of time as long as keys are remembered, in a ring of three';

DO $$
BEGIN
    FOR bucket IN 0 .. 2 LOOP
        EXECUTE format('CREATE TABLE meal_planner.idempotency_key_%1$s PARTITION OF meal_planner.idempotency_key FOR VALUES IN (%1$s)', bucket);
        EXECUTE format('COMMENT ON TABLE meal_planner.idempotency_key_%s IS %L', bucket,
                       'keys of events that expire in the same stretch of time, emptied as a whole');
        PERFORM pg_extension_config_dump(format('meal_planner.idempotency_key_%s', bucket)::regclass, '');
    END LOOP;
END
$$;

CREATE FUNCTION meal_planner.key_bucket(expires_at timestamptz) RETURNS int
LANGUAGE c STABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'mp_sql_key_bucket';
COMMENT ON FUNCTION meal_planner.key_bucket(timestamptz) IS
'the bucket of an event''s key that is written now, by meal_planner.idempotency_ttl';

CREATE FUNCTION meal_planner.key_spare(moment timestamptz) RETURNS int
LANGUAGE c STABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'mp_sql_key_spare';
COMMENT ON FUNCTION meal_planner.key_spare(timestamptz) IS
'the bucket of events'' keys that holds nothing but what has expired, unless meal_planner.idempotency_ttl was changed';

-- mp_subscribe refuses a redrive_window as long as keys are remembered; the
-- setting can be lowered afterwards.
CREATE FUNCTION meal_planner.check_memory_of_keys() RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    ttl   numeric := extract(epoch FROM current_setting('meal_planner.idempotency_ttl')::interval);
    short record;
BEGIN
    FOR short IN
        SELECT s.name, format('redrive_window %s s, idempotency_ttl %s s', s.options ->> 'redrive_window', trim_scale(ttl)) AS error
          FROM meal_planner.subscription s
         WHERE jsonb_typeof(s.options -> 'redrive_window') = 'number' AND (s.options ->> 'redrive_window')::numeric >= ttl
    LOOP
        CONTINUE WHEN EXISTS (SELECT FROM meal_planner.alert a
                               WHERE a.account = 'local' AND a.kind = 'idempotency_ttl' AND a.subscription = short.name
                                 AND a.error = short.error);
        PERFORM meal_planner.raise_alert('local', meal_planner.next_position(), 'idempotency_ttl', short.name, short.error,
            format('subscription "%s" may be redriven when keys of its events are no longer remembered: what is emitted again meanwhile takes effect twice',
                   short.name));
    END LOOP;
END
$$;
COMMENT ON FUNCTION meal_planner.check_memory_of_keys() IS
'one alert for every subscription whose redrive_window is not shorter than meal_planner.idempotency_ttl by now';
