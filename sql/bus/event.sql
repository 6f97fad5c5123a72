-- The log.  It is range-partitioned on position, so its partitions are slices
-- of time.  The parent has no index: each partition has its own primary key,
-- made when the partition is made.  A parent's index would make pg_dump and
-- ATTACH create the key of a restored partition twice; position ranges do not
-- overlap, so the keys of the partitions are together as strong as one.
-- Partitions are not members of the extension: pg_dump carries them along and
-- retention may drop them.

CREATE TABLE meal_planner.event (
    account         text        NOT NULL,
    position        bigint      NOT NULL,
    id              uuid        NOT NULL,
    detail_type     text        NOT NULL,
    source          text        NOT NULL,
    "time"          timestamptz NOT NULL,
    region          text        NOT NULL,
    resources       text[]      NOT NULL,
    detail          jsonb       NOT NULL,
    stream          text,
    version         bigint,
    deliver_after   timestamptz,
    idempotency_key text,
    hops            smallint    NOT NULL
) PARTITION BY RANGE (position);
COMMENT ON TABLE meal_planner.event IS
'the event log, in position order; append with mp_emit_event, read with mp_read_events';
COMMENT ON COLUMN meal_planner.event.position IS
'order of the log: microseconds since 2024-01-01 UTC, then the node id in the low ten bits';
COMMENT ON COLUMN meal_planner.event.id IS 'UUIDv7 made of the same tick and node as position';
COMMENT ON COLUMN meal_planner.event.version IS 'place in its stream, from 1 without gaps; NULL outside streams';
COMMENT ON COLUMN meal_planner.event.deliver_after IS 'subscriptions get the event only then; readers see it at once';
COMMENT ON COLUMN meal_planner.event.hops IS 'how many handlers stand between this event and one that a client emitted';

-- Where an event goes when its partition could not be made in time.  The
-- sweep and the emitters make partitions ahead, so it stays empty; rows that
-- land here are moved when the partition of their time is made.
-- Whoever reads an event reads its detail: one of some 2 KB stays in its row, two
-- of the largest to a page, which costs less than to compress it or move it out.
CREATE TABLE meal_planner.event_default PARTITION OF meal_planner.event DEFAULT WITH (toast_tuple_target = 4080);
ALTER TABLE meal_planner.event_default ADD CONSTRAINT event_default_pkey PRIMARY KEY (account, position);
CREATE UNIQUE INDEX event_default_stream ON meal_planner.event_default (account, stream, version)
    WHERE stream IS NOT NULL;
SELECT pg_extension_config_dump('meal_planner.event_default', '');

CREATE VIEW meal_planner.event_partition AS
SELECT partition, (bound)[1]::bigint AS lower, (bound)[2]::bigint AS upper
  FROM (SELECT c.oid::regclass AS partition,
               regexp_match(pg_get_expr(c.relpartbound, c.oid),
                            'FROM \(''(\d+)''\) TO \(''(\d+)''\)') AS bound
          FROM pg_inherits i
          JOIN pg_class c ON c.oid = i.inhrelid
         WHERE i.inhparent = 'meal_planner.event'::regclass) p
 WHERE bound IS NOT NULL;
COMMENT ON VIEW meal_planner.event_partition IS
'partitions of the log with their bounds: lower <= position < upper';

CREATE FUNCTION meal_planner.ensure_partition(at_position bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '500ms' -- whoever comes after us waits as long
AS $$
DECLARE
    span      bigint := (current_setting('meal_planner.partition_days')::bigint * 86400 * 1000000) << 10;
    aligned   bigint := at_position - at_position % span;
    low       bigint;
    high      bigint;
    partition text;
BEGIN
    IF EXISTS (SELECT FROM meal_planner.event_partition p
                WHERE p.lower <= at_position AND at_position < p.upper) THEN
        RETURN true;
    END IF;
    -- Conflicts with itself, not with emitters or readers.
    LOCK TABLE ONLY meal_planner.event IN SHARE UPDATE EXCLUSIVE MODE;
    IF EXISTS (SELECT FROM meal_planner.event_partition p
                WHERE p.lower <= at_position AND at_position < p.upper) THEN
        RETURN true;
    END IF;

    -- Fit between the neighbours: the setting may have changed since.
    SELECT greatest(aligned, max(p.upper)) INTO low
      FROM meal_planner.event_partition p WHERE p.upper <= at_position;
    SELECT least(aligned + span, min(p.lower)) INTO high
      FROM meal_planner.event_partition p WHERE p.lower > at_position;
    partition := 'event_' || to_char(meal_planner.position_time(low) AT TIME ZONE 'UTC', 'YYYYMMDD_HH24MISS');

    EXECUTE format('CREATE TABLE meal_planner.%I (LIKE meal_planner.event INCLUDING ALL) WITH (toast_tuple_target = 4080)',
                   partition);
    -- Lock order: parent, then default, as ATTACH takes them.  Readers of the
    -- log share the default.
    LOCK TABLE meal_planner.event_default IN ACCESS EXCLUSIVE MODE;
    EXECUTE format('WITH moved AS (DELETE FROM meal_planner.event_default
                                    WHERE position >= %s AND position < %s RETURNING *)
                    INSERT INTO meal_planner.%I SELECT * FROM moved', low, high, partition);
    EXECUTE format('ALTER TABLE meal_planner.%I ADD CONSTRAINT %I PRIMARY KEY (account, position)',
                   partition, partition || '_pkey');
    EXECUTE format('CREATE UNIQUE INDEX %I ON meal_planner.%I (account, stream, version) WHERE stream IS NOT NULL',
                   partition || '_stream', partition);
    EXECUTE format('ALTER TABLE meal_planner.event ATTACH PARTITION meal_planner.%I FOR VALUES FROM (%s) TO (%s)',
                   partition, low, high);
    RETURN true;
EXCEPTION
    -- Somebody holds a lock on the log: the default partition takes the rows
    -- until a later call succeeds.  Or the snapshot of this transaction is too
    -- old to see what has to be moved, or that the partition is there already.
    WHEN object_in_use OR lock_not_available OR deadlock_detected OR duplicate_table
      OR check_violation OR serialization_failure THEN
        RETURN false;
END
$$;
COMMENT ON FUNCTION meal_planner.ensure_partition(bigint) IS
'makes the partition of that position unless it exists; false when it could not get the locks in half a second';

CREATE FUNCTION meal_planner.envelope(e meal_planner.event) RETURNS jsonb
LANGUAGE c STABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'mp_envelope';
COMMENT ON FUNCTION meal_planner.envelope(meal_planner.event) IS
'the envelope of an event as sent on the wire; NULL for NULL';

CREATE FUNCTION @extschema@.mp_emit_event(
    detail_type text, detail jsonb, source text DEFAULT 'meal-planner', resources text[] DEFAULT '{}',
    account text DEFAULT 'local', region text DEFAULT 'us-east-1', event_time timestamptz DEFAULT NULL,
    idempotency_key text DEFAULT NULL, stream text DEFAULT NULL, expected_version bigint DEFAULT NULL,
    deliver_after timestamptz DEFAULT NULL)
RETURNS uuid
LANGUAGE c VOLATILE SECURITY DEFINER PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_emit_event';
COMMENT ON FUNCTION @extschema@.mp_emit_event(text, jsonb, text, text[], text, text, timestamptz, text, text, bigint, timestamptz) IS
'appends one event and runs its inline subscriptions; returns its id (UUIDv7).
idempotency_key: the same (account, source, key) with the same content returns the first id and writes nothing; other content: MP422.
stream, expected_version: appends to a stream; MP409 unless its version is the expected one (0: the stream must not exist; NULL: any).
deliver_after: recorded now, handed to subscriptions then.
Errors: MP400 naming the field, MP409, MP422, MP503 without shared_preload_libraries, MP508 after too many hops.';

CREATE FUNCTION @extschema@.mp_put_events(entries jsonb, account text DEFAULT 'local')
RETURNS jsonb
LANGUAGE c VOLATILE SECURITY DEFINER PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_put_events';
COMMENT ON FUNCTION @extschema@.mp_put_events(jsonb, text) IS
'PutEvents: an array of {"Source","DetailType","Detail" (object or JSON text),"Resources","Time","IdempotencyKey","Stream"}.
Returns {"FailedEntryCount":n,"Entries":[{"EventId"}|{"ErrorCode","ErrorMessage"}]}, same length and order; a bad entry does not fail the others.
Inline subscriptions get their events together; what the subtransactions of a transaction (50) do not suffice for is left to the sweep. MP400 when entries is no array.';

-- C: rows for mp_put_events' own INSERT; none for anybody else.
CREATE FUNCTION meal_planner.batch_rows() RETURNS SETOF meal_planner.event
LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1000
AS 'MODULE_PATHNAME', 'mp_batch_rows';
COMMENT ON FUNCTION meal_planner.batch_rows() IS
'the events that the running mp_put_events is about to insert';

CREATE FUNCTION @extschema@.mp_event(event_id uuid, account text DEFAULT 'local')
RETURNS jsonb
LANGUAGE sql VOLATILE -- sees what the same statement has emitted
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT meal_planner.envelope(e)
      FROM meal_planner.event e
     WHERE e.account = coalesce($2, 'local')
       AND e.position = meal_planner.event_position($1)
       AND e.id = $1
$$;
COMMENT ON FUNCTION @extschema@.mp_event(uuid, text) IS
'the envelope of an event as sent on the wire: version, id, detail-type, source, account, time, region, resources, detail; NULL when there is none';

CREATE FUNCTION @extschema@.mp_read_events(
    after_position bigint DEFAULT 0, max_events int DEFAULT 1000, pattern jsonb DEFAULT NULL,
    account text DEFAULT 'local')
RETURNS TABLE ("position" bigint, event jsonb)
LANGUAGE c VOLATILE SECURITY DEFINER PARALLEL UNSAFE ROWS 1000
AS 'MODULE_PATHNAME', 'mp_read_events';
COMMENT ON FUNCTION @extschema@.mp_read_events(bigint, int, jsonb, text) IS
'the log of an account after a position, in position order, at most max_events; never past an event that is still in flight, so a reader that goes on from the last position it got misses nothing.
pattern: only events it matches (then the last position returned may lie behind the last one read).
Errors: MP400 for a bad pattern, MP503 without shared_preload_libraries, MP409 in a REPEATABLE READ or SERIALIZABLE transaction.';

CREATE FUNCTION @extschema@.mp_read_stream(
    stream text, from_version bigint DEFAULT 1, max_events int DEFAULT 1000, account text DEFAULT 'local')
RETURNS TABLE ("position" bigint, version bigint, event jsonb)
LANGUAGE sql VOLATILE SECURITY DEFINER ROWS 1000
SET search_path = pg_catalog, pg_temp
SET enable_sort = off SET enable_bitmapscan = off SET enable_seqscan = off SET jit = off -- in the order of the index
AS $$
    SELECT e.position, e.version, meal_planner.envelope(e)
      FROM meal_planner.event e
     WHERE e.account = coalesce($4, 'local') AND e.stream = $1 AND e.version >= coalesce($2, 1)
     ORDER BY e.version
     LIMIT greatest(coalesce($3, 1000), 0)
$$;
COMMENT ON FUNCTION @extschema@.mp_read_stream(text, bigint, int, text) IS
'one stream in version order, from a version, at most max_events';

CREATE FUNCTION @extschema@.mp_match(pattern jsonb, event jsonb)
RETURNS boolean
LANGUAGE c IMMUTABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'mp_match';
COMMENT ON FUNCTION @extschema@.mp_match(jsonb, jsonb) IS
'does the event pattern match the event (an envelope as mp_event gives it); MP400 naming the path for an invalid pattern, NULL when an argument is NULL';

CREATE FUNCTION meal_planner.in_flight(OUT pid int, OUT account text, OUT bound bigint, OUT since timestamptz)
RETURNS SETOF record
LANGUAGE c VOLATILE SECURITY DEFINER PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_in_flight';
COMMENT ON FUNCTION meal_planner.in_flight() IS
'transactions of this database that have appended and not ended: readers stop at the lowest bound of their account; since: the first append';

CREATE VIEW @extschema@.mp_in_flight AS
SELECT f.pid, f.account, f.since, f.bound AS read_position,
       a.usename, a.application_name, a.state, a.query,
       clock_timestamp() - f.since AS age, a.xact_start
  FROM meal_planner.in_flight() f
  LEFT JOIN pg_stat_activity a ON a.pid = f.pid;
COMMENT ON VIEW @extschema@.mp_in_flight IS
'which backend holds the read position back, and since when (its first append); account NULL: it appended to several';

CREATE FUNCTION meal_planner.end_stale_appends() RETURNS int
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    longest interval := current_setting('meal_planner.in_flight_limit')::interval;
    stale   record;
    ended   int := 0;
BEGIN
    IF longest = interval '0' THEN
        RETURN 0;
    END IF;
    FOR stale IN
        SELECT f.pid, f.since
          FROM meal_planner.in_flight() f
         WHERE f.since < clock_timestamp() - longest AND f.pid <> pg_backend_pid()
    LOOP
        -- The server decides whether the owner of the extension may: a
        -- superuser's session is only a superuser's to end.
        BEGIN
            IF pg_terminate_backend(stale.pid) THEN
                ended := ended + 1;
                RAISE LOG 'ended the session of process %, which has appended events at % and not ended its transaction',
                          stale.pid, stale.since;
            END IF;
        EXCEPTION
            WHEN insufficient_privilege THEN
                RAISE WARNING 'could not end the session of process %, which has appended events at % and not ended its transaction: %',
                              stale.pid, stale.since, SQLERRM;
        END;
    END LOOP;
    RETURN ended;
END
$$;
COMMENT ON FUNCTION meal_planner.end_stale_appends() IS
'ends the sessions of transactions that have appended longer than meal_planner.in_flight_limit ago, with the rights of the owner of the extension; how many';
