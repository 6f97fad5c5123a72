-- Idempotent operations: under one (account, operation, key) an effect happens
-- once and everybody gets the same answer.  Who begins and completes in one
-- transaction needs no lease: others wait for the end of the transaction.  Who
-- commits in between holds a lease, and a token that fences off what comes from
-- an owner that has been replaced.
--
-- A key is remembered until expires_at, which every reader checks.  Purging only
-- tidies up, by whole buckets: purge.sql.  Which bucket: src/core/bucket.h.

CREATE TABLE meal_planner.operation (
    account       text        NOT NULL,
    operation     text        NOT NULL,
    key           text        NOT NULL,
    bucket        int         NOT NULL,
    fingerprint   bytea       NOT NULL,
    request       jsonb,
    on_owner_lost text        NOT NULL CHECK (on_owner_lost IN ('retry', 'block', 'verify')),
    attempt       int         NOT NULL,
    token         uuid,
    ttl           float8      NOT NULL,
    begun_at      timestamptz NOT NULL,
    lease_until   timestamptz,
    completed_at  timestamptz,
    result        jsonb,
    expires_at    timestamptz NOT NULL,
    PRIMARY KEY (account, operation, key, bucket),
    CHECK ((lease_until IS NULL) = (completed_at IS NOT NULL))
) PARTITION BY LIST (bucket);
COMMENT ON TABLE meal_planner.operation IS
'keys of mp_begin_operation and mp_mark_processed with their results; expired rows are as good as absent';
COMMENT ON COLUMN meal_planner.operation.bucket IS
'operation_bucket of the expiry: three rings of four for keys kept up to 1, 30 and 366 days, and one for what does not expire';
COMMENT ON COLUMN meal_planner.operation.fingerprint IS 'SHA-256 of the request as text; of nothing for NULL';
COMMENT ON COLUMN meal_planner.operation.request IS 'kept until the operation is completed';
COMMENT ON COLUMN meal_planner.operation.token IS 'of the last owner; NULL for what mp_mark_processed made';
COMMENT ON COLUMN meal_planner.operation.expires_at IS
'ttl seconds after it was begun, when completed after that; infinity while an operation with on_owner_lost block or verify is not completed';
CREATE INDEX operation_token ON meal_planner.operation (token) WHERE token IS NOT NULL;

DO $$
BEGIN
    FOR bucket IN 0 .. 12 LOOP
        EXECUTE format('CREATE TABLE meal_planner.operation_%1$s PARTITION OF meal_planner.operation FOR VALUES IN (%1$s)', bucket);
        EXECUTE format('COMMENT ON TABLE meal_planner.operation_%s IS %L', bucket,
                       CASE WHEN bucket < 12 THEN 'operations that expire in the same stretch of time, emptied as a whole'
                            ELSE 'operations that do not expire until they are completed or released' END);
        PERFORM pg_extension_config_dump(format('meal_planner.operation_%s', bucket)::regclass, '');
    END LOOP;
END
$$;

CREATE FUNCTION meal_planner.operation_lock(account text, operation text, key text, wait boolean) RETURNS boolean
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_sql_operation_lock';
COMMENT ON FUNCTION meal_planner.operation_lock(text, text, text, boolean) IS
'the lock of a key, to the end of the transaction; look after taking it. False when another transaction has it and wait is false';

CREATE FUNCTION meal_planner.operation_of_key(account text, operation text, key text, moment timestamptz)
RETURNS meal_planner.operation
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_sql_operation_of_key';
COMMENT ON FUNCTION meal_planner.operation_of_key(text, text, text, timestamptz) IS
'what is committed of a key now and has not expired at that moment; 40001 when a REPEATABLE READ or SERIALIZABLE transaction cannot see it';

CREATE FUNCTION meal_planner.operation_of_token(token uuid, moment timestamptz) RETURNS meal_planner.operation
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_sql_operation_of_token';
COMMENT ON FUNCTION meal_planner.operation_of_token(uuid, timestamptz) IS
'the operation that a token owns or has completed, as operation_of_key';

CREATE FUNCTION meal_planner.operation_token() RETURNS uuid
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_sql_operation_token';
COMMENT ON FUNCTION meal_planner.operation_token() IS 'a new token: a UUIDv7 of the position clock';

CREATE FUNCTION meal_planner.operation_step(
    known boolean, completed boolean, same_request boolean, lease_over boolean, owner_wants text, caller_wants text)
RETURNS text
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'mp_sql_operation_step';
COMMENT ON FUNCTION meal_planner.operation_step(boolean, boolean, boolean, boolean, text, text) IS
'what a caller gets: start, take_over, verify, completed, in_progress, blocked or other_request. Of two wishes for a lost owner (on_owner_lost) the stricter counts';

CREATE FUNCTION meal_planner.operation_bucket(expires_at timestamptz, kept_for float8) RETURNS int
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'mp_sql_operation_bucket';
COMMENT ON FUNCTION meal_planner.operation_bucket(timestamptz, float8) IS
'the bucket of a key that is written now, kept for that many seconds';

CREATE FUNCTION meal_planner.operation_spare(level int, moment timestamptz) RETURNS int
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'mp_sql_operation_spare';
COMMENT ON FUNCTION meal_planner.operation_spare(int, timestamptz) IS
'the bucket of a level (0 to 2) that holds nothing but what has expired';

CREATE FUNCTION meal_planner.check_operation(
    account text, operation text, key text, key_name text, ttl_seconds float8, lease_seconds float8, if_busy text)
RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    wrong text := CASE
        WHEN char_length($1) NOT BETWEEN 1 AND 128 THEN 'account must have 1 to 128 characters'
        WHEN $2 IS NULL OR char_length($2) NOT BETWEEN 1 AND 255 THEN 'operation must have 1 to 255 characters'
        WHEN $3 IS NULL OR char_length($3) NOT BETWEEN 1 AND 255 THEN $4 || ' must have 1 to 255 characters'
        WHEN NOT ($5 > 0 AND $5 <= 366 * 86400) THEN 'ttl_seconds must be above 0 and at most 31622400 (366 days)'
        WHEN NOT ($6 >= 0 AND $6 <= 86400) THEN 'lease_seconds must be between 0 and 86400'
        WHEN $7 NOT IN ('wait', 'fail', 'skip') THEN 'if_busy must be wait, fail or skip' END;
BEGIN
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'MP400: %', wrong USING ERRCODE = 'MP400', HINT = 'retry=no. Correct the argument.';
    END IF;
END
$$;
COMMENT ON FUNCTION meal_planner.check_operation(text, text, text, text, float8, float8, text) IS
'MP400 naming the argument that is wrong';

-- The lock first, the clock second: the wait may have been long.
CREATE FUNCTION meal_planner.enter_operation(account text, operation text, key text, if_busy text) RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF meal_planner.operation_lock($1, $2, $3, $4 = 'wait') THEN
        RETURN true;
    ELSIF $4 = 'fail' THEN
        RAISE EXCEPTION 'MP409: operation "%" with key "%" is running in another transaction', $2, $3
            USING ERRCODE = 'MP409', HINT = 'retry=yes. Try again when that transaction has ended.';
    END IF;
    RETURN false;
END
$$;
COMMENT ON FUNCTION meal_planner.enter_operation(text, text, text, text) IS
'takes the lock of a key; when another transaction has it: waits, raises MP409 (fail) or returns false (skip)';

CREATE FUNCTION meal_planner.put_operation(was_bucket int, o meal_planner.operation) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off -- by the key
AS $$
BEGIN
    IF was_bucket <> o.bucket THEN
        DELETE FROM meal_planner.operation p
         WHERE p.account = o.account AND p.operation = o.operation AND p.key = o.key AND p.bucket = was_bucket;
    END IF;
    -- an INSERT goes to the one bucket; an UPDATE would open them all
    INSERT INTO meal_planner.operation AS p VALUES (o.*)
    ON CONFLICT (account, operation, key, bucket) DO UPDATE
       SET fingerprint = excluded.fingerprint, request = excluded.request, on_owner_lost = excluded.on_owner_lost,
           attempt = excluded.attempt, token = excluded.token, ttl = excluded.ttl, begun_at = excluded.begun_at,
           lease_until = excluded.lease_until, completed_at = excluded.completed_at, result = excluded.result,
           expires_at = excluded.expires_at;
END
$$;
COMMENT ON FUNCTION meal_planner.put_operation(int, meal_planner.operation) IS
'writes a row in place of the one in was_bucket (NULL: there is none) or of one that has expired; under operation_lock';

CREATE FUNCTION @extschema@.mp_begin_operation(
    operation text, key text, request jsonb DEFAULT NULL, ttl_seconds float8 DEFAULT 86400,
    lease_seconds float8 DEFAULT 60, on_owner_lost text DEFAULT 'retry', account text DEFAULT 'local',
    if_busy text DEFAULT 'wait')
RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    account text   := coalesce($7, 'local');
    ttl     float8 := coalesce($4, 86400);
    lease   float8 := coalesce($5, 60);
    wish    text   := coalesce($6, 'retry');
    busy    text   := coalesce($8, 'wait');
    print   bytea  := sha256(coalesce(convert_to($3::text, 'UTF8'), ''));
    moment  timestamptz;
    was     meal_planner.operation;
    step    text;
    own     meal_planner.operation;
BEGIN
    PERFORM meal_planner.check_operation(account, $1, $2, 'key', ttl, lease, busy);
    PERFORM meal_planner.operation_step(false, false, false, false, wish, wish); -- knows the words
    IF NOT meal_planner.enter_operation(account, $1, $2, busy) THEN
        RETURN '{"status": "in_progress", "retry_after": 1}';
    END IF;
    moment := meal_planner.clock();
    was := meal_planner.operation_of_key(account, $1, $2, moment);
    step := meal_planner.operation_step(was.key IS NOT NULL, was.completed_at IS NOT NULL,
                                        coalesce(was.fingerprint = print, false), coalesce(was.lease_until <= moment, false),
                                        coalesce(was.on_owner_lost, wish), wish);
    CASE step
        WHEN 'other_request' THEN
            RAISE EXCEPTION 'MP422: key "%" of operation "%" was used for another request', $2, $1
                USING ERRCODE = 'MP422', HINT = 'retry=no. Use a new key for a new request.';
        WHEN 'completed' THEN
            RETURN jsonb_build_object('status', step, 'result', was.result);
        WHEN 'in_progress' THEN
            RETURN jsonb_build_object('status', step, 'retry_after',
                                      extract(epoch FROM was.lease_until - moment));
        WHEN 'blocked' THEN
            RAISE EXCEPTION 'MP409: the owner of operation "%" with key "%" is lost', $1, $2
                USING ERRCODE = 'MP409',
                      HINT = 'retry=no. An operator finds its token in mp_operations, sees whether it took effect, and completes or releases it.';
        ELSE NULL;
    END CASE;

    -- What its first owner wanted to be done for a lost one is not lost with the next.
    IF step = 'verify' THEN
        wish := step;
    END IF;
    own := (account, $1, $2, NULL, print, $3, wish, coalesce(was.attempt, 0) + 1, meal_planner.operation_token(), ttl,
            coalesce(was.begun_at, moment), moment + make_interval(secs => lease), NULL, NULL, NULL);
    -- A lease may be longer than the result is remembered.
    own.expires_at := CASE WHEN wish = 'retry' THEN moment + make_interval(secs => greatest(ttl, lease)) ELSE 'infinity' END;
    own.bucket := meal_planner.operation_bucket(own.expires_at, greatest(ttl, lease));
    PERFORM meal_planner.put_operation(was.bucket, own);
    IF step = 'verify' THEN
        RETURN jsonb_build_object('status', step, 'token', own.token, 'attempt', own.attempt, 'request', was.request,
                                  'begun_at', was.begun_at, 'lost_at', was.lease_until);
    END IF;
    RETURN jsonb_build_object('status', 'started', 'token', own.token, 'attempt', own.attempt);
END
$$;
COMMENT ON FUNCTION @extschema@.mp_begin_operation(text, text, jsonb, float8, float8, text, text, text) IS
'asks to run an operation once under a key. {"status":"started","token","attempt"}: the caller runs it and says so with mp_complete_operation. {"status":"completed","result"}: it has run, this was its result. {"status":"in_progress","retry_after"}: somebody else holds it for that many seconds.
In one transaction with the effect and mp_complete_operation no lease is needed: another caller waits for the end of the transaction (if_busy wait), gets MP409 at once (fail) or in_progress (skip). Committed before the effect, the caller holds it for lease_seconds; once they are over, on_owner_lost says what becomes of it: retry (the next caller starts), verify (the next caller gets {"status":"verify","token","attempt","request","begun_at","lost_at"}: it owns the operation and has to see whether it took effect, then completes or runs it), block (MP409 until an operator completes or releases it). The stricter of what the owner and the caller ask for counts.
The key is remembered ttl_seconds after completion; unfinished ones that long after they were begun, with verify and block until they end.
Errors: MP400, MP409, MP422 for the same key with another request, MP503; 40001 (retry the transaction) when a REPEATABLE READ or SERIALIZABLE transaction cannot see the answer.';

CREATE FUNCTION @extschema@.mp_complete_operation(token uuid, result jsonb) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    moment timestamptz;
    was    meal_planner.operation;
    done   meal_planner.operation;
BEGIN
    was := meal_planner.operation_of_token($1, meal_planner.clock());
    IF was.key IS NULL THEN
        RETURN false;
    END IF;
    PERFORM meal_planner.operation_lock(was.account, was.operation, was.key, true);
    moment := meal_planner.clock();
    was := meal_planner.operation_of_key(was.account, was.operation, was.key, moment);
    IF was.token IS DISTINCT FROM $1 THEN
        RETURN false;
    ELSIF was.completed_at IS NOT NULL THEN
        RETURN was.result IS NOT DISTINCT FROM $2;
    END IF;
    done := was;
    done.request := NULL;
    done.lease_until := NULL;
    done.completed_at := moment;
    done.result := $2;
    done.expires_at := moment + make_interval(secs => was.ttl);
    done.bucket := meal_planner.operation_bucket(done.expires_at, was.ttl);
    PERFORM meal_planner.put_operation(was.bucket, done);
    RETURN true;
END
$$;
COMMENT ON FUNCTION @extschema@.mp_complete_operation(uuid, jsonb) IS
'the operation has run: its result is what everybody gets from now on. False when the token was fenced off (somebody took the operation over, it was released or has expired) or has completed it with another result: nothing is changed. Completing twice with the same result is harmless; so is completing after the lease, unless somebody was faster. 40001: retry the transaction';

CREATE FUNCTION @extschema@.mp_release_operation(token uuid) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off -- by the key
AS $$
#variable_conflict use_column
DECLARE
    was meal_planner.operation;
BEGIN
    was := meal_planner.operation_of_token($1, meal_planner.clock());
    IF was.key IS NULL THEN
        RETURN false;
    END IF;
    PERFORM meal_planner.operation_lock(was.account, was.operation, was.key, true);
    was := meal_planner.operation_of_key(was.account, was.operation, was.key, meal_planner.clock());
    IF was.token IS DISTINCT FROM $1 OR was.completed_at IS NOT NULL THEN
        RETURN false;
    END IF;
    DELETE FROM meal_planner.operation o
     WHERE o.account = was.account AND o.operation = was.operation AND o.key = was.key AND o.bucket = was.bucket;
    RETURN true;
END
$$;
COMMENT ON FUNCTION @extschema@.mp_release_operation(uuid) IS
'gives the operation up without an effect: the key is as if it had never been used. False when the token was fenced off or has completed it: nothing is changed. 40001: retry the transaction';

-- The simple face: an event id is the key, and there is no request.

CREATE FUNCTION @extschema@.mp_check_processed(event_id text, operation text, account text DEFAULT 'local') RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    was meal_planner.operation;
BEGIN
    PERFORM meal_planner.check_operation(coalesce($3, 'local'), $2, $1, 'event_id', 1, 0, 'wait');
    was := meal_planner.operation_of_key(coalesce($3, 'local'), $2, $1, meal_planner.clock());
    RETURN was.completed_at IS NOT NULL;
END
$$;
COMMENT ON FUNCTION @extschema@.mp_check_processed(text, text, text) IS
'was the event marked as processed by the operation, and is that still remembered. It waits for nobody: only mp_mark_processed decides between two that ask at the same time. MP400; 40001 when a REPEATABLE READ or SERIALIZABLE transaction cannot see the mark';

CREATE FUNCTION @extschema@.mp_mark_processed(
    event_id text, operation text, ttl_seconds float8 DEFAULT 86400, result jsonb DEFAULT NULL,
    account text DEFAULT 'local', if_busy text DEFAULT 'wait')
RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    account text   := coalesce($5, 'local');
    ttl     float8 := coalesce($3, 86400);
    busy    text   := coalesce($6, 'wait');
    moment  timestamptz;
    was     meal_planner.operation;
    own     meal_planner.operation;
BEGIN
    PERFORM meal_planner.check_operation(account, $2, $1, 'event_id', ttl, 0, busy);
    IF NOT meal_planner.enter_operation(account, $2, $1, busy) THEN
        RETURN NULL;
    END IF;
    moment := meal_planner.clock();
    was := meal_planner.operation_of_key(account, $2, $1, moment);
    IF was.completed_at IS NOT NULL THEN
        RETURN false;
    ELSIF was.lease_until > moment OR was.on_owner_lost <> 'retry' THEN
        RAISE EXCEPTION 'MP409: operation "%" with key "%" was begun and has not ended', $2, $1
            USING ERRCODE = 'MP409', HINT = 'retry=yes. It ends with mp_complete_operation or mp_release_operation; mp_operations shows it.';
    END IF;
    own := (account, $2, $1, NULL, sha256(''), NULL, 'retry', coalesce(was.attempt, 0) + 1, NULL, ttl,
            moment, NULL, moment, $4, moment + make_interval(secs => ttl));
    own.bucket := meal_planner.operation_bucket(own.expires_at, ttl);
    PERFORM meal_planner.put_operation(was.bucket, own);
    RETURN true;
END
$$;
COMMENT ON FUNCTION @extschema@.mp_mark_processed(text, text, float8, jsonb, text, text) IS
'marks an event as processed by an operation, for ttl_seconds; call it in the transaction of the effect, before it. True: marked now, go on. False: it was marked already, do nothing. While another transaction is marking it: waits for its end (if_busy wait), MP409 (fail) or NULL (skip). Committed with the effect or not at all; the result is what mp_begin_operation(operation, event_id) gives.
Errors: MP400, MP409 when mp_begin_operation holds it; 40001 (retry the transaction) when a REPEATABLE READ or SERIALIZABLE transaction cannot see the mark';

CREATE VIEW @extschema@.mp_operations AS
SELECT o.account, o.operation, o.key, CASE WHEN o.lease_until > c.moment THEN 'running' ELSE 'lost' END AS state,
       o.on_owner_lost, o.attempt, o.begun_at, o.lease_until, o.token, o.request
  FROM (SELECT meal_planner.clock() AS moment) c
  JOIN meal_planner.operation o ON o.completed_at IS NULL AND o.expires_at > c.moment;
COMMENT ON VIEW @extschema@.mp_operations IS
'operations that were begun and have not ended; lost: the lease of the owner is over. With the token an operator completes or releases one';
