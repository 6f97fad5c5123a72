-- Sagas: distributed transactions with compensation.  The log says what has
-- happened; an entry commits with the effect it tells of.  The row of a saga
-- sums it up for those who go on with it.  Steps that are not over at once have
-- a row each meanwhile, see saga_step.sql.
--
-- Whoever writes anything of a saga holds the lock of its row.

CREATE TABLE meal_planner.saga (
    account         text        NOT NULL,
    id              uuid        NOT NULL,
    name            text        NOT NULL,
    version         int         NOT NULL,
    input           jsonb       NOT NULL,
    idempotency_key text,
    hops            smallint    NOT NULL,
    state           text        NOT NULL DEFAULT 'running'
                    CHECK (state IN ('running', 'compensating', 'completed', 'compensated', 'stuck', 'cancelled')),
    progress        text,
    error           jsonb,
    started_at      timestamptz NOT NULL,
    due_at          timestamptz,
    alone           boolean     NOT NULL DEFAULT false,
    blocked         boolean     NOT NULL DEFAULT false,
    ended_at        timestamptz,
    PRIMARY KEY (account, id),
    CHECK ((ended_at IS NOT NULL) = (state IN ('completed', 'compensated', 'cancelled'))),
    CHECK (ended_at IS NULL OR due_at IS NULL)
);
COMMENT ON TABLE meal_planner.saga IS 'sagas that run, and those that have ended until they are purged; mp_sagas shows them';
COMMENT ON COLUMN meal_planner.saga.hops IS 'how many handlers stand between it and a client, as for events';
COMMENT ON COLUMN meal_planner.saga.progress IS
'where it and each of its steps stand, in the words of src/core/saga_text.c; what the log says, for who goes on with it. NULL: nothing has begun';
COMMENT ON COLUMN meal_planner.saga.error IS 'the first error, {"step", "type", "message"}: why it had to go back, or what somebody has to see to';
COMMENT ON COLUMN meal_planner.saga.due_at IS
'when the sweep is to look at it; NULL: it has ended, or waits for somebody who makes it due';
COMMENT ON COLUMN meal_planner.saga.alone IS
'a worker died that had it in hand: one step of it is run at a time, and nothing else with it';
COMMENT ON COLUMN meal_planner.saga.blocked IS 'it waits for a name that another saga holds, see saga_lock';
CREATE INDEX saga_due ON meal_planner.saga (account, due_at) WHERE due_at IS NOT NULL;
CREATE UNIQUE INDEX saga_key ON meal_planner.saga (account, name, idempotency_key) WHERE idempotency_key IS NOT NULL;
SELECT pg_extension_config_dump('meal_planner.saga', '');

CREATE TABLE meal_planner.saga_log (
    account   text        NOT NULL,
    saga_id   uuid        NOT NULL,
    seq       bigint      NOT NULL,
    entry     text        NOT NULL,
    step      text,
    direction text        CHECK (direction IN ('forward', 'compensate')),
    attempt   int,
    at        timestamptz NOT NULL,
    result    jsonb,
    detail    jsonb,
    PRIMARY KEY (account, saga_id, seq)
);
COMMENT ON TABLE meal_planner.saga_log IS
'what has happened in each saga, in the order of seq; entries are only appended, with the effect they tell of';
COMMENT ON COLUMN meal_planner.saga_log.seq IS 'a number of the position clock';
COMMENT ON COLUMN meal_planner.saga_log.result IS 'what a step returned';
COMMENT ON COLUMN meal_planner.saga_log.detail IS 'an error, when it is tried again, who did it and why';
SELECT pg_extension_config_dump('meal_planner.saga_log', '');

CREATE TABLE meal_planner.saga_batch (
    account text   NOT NULL,
    token   bigint NOT NULL,
    sagas   uuid[] NOT NULL,
    PRIMARY KEY (account, token)
);
COMMENT ON TABLE meal_planner.saga_batch IS
'sagas that a worker has in hand right now; token: of the worker, which holds a lock of that number for as long as it lives';
SELECT pg_extension_config_dump('meal_planner.saga_batch', '');

CREATE FUNCTION @extschema@.mp_start_saga(
    name text, input jsonb, idempotency_key text DEFAULT NULL, account text DEFAULT 'local')
RETURNS uuid
LANGUAGE c VOLATILE SECURITY DEFINER PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_start_saga';
COMMENT ON FUNCTION @extschema@.mp_start_saga(text, jsonb, text, text) IS
'starts a saga and returns its id; it runs once the transaction has committed. The same name, idempotency_key and input: the id of the first, nothing is started.
Errors: MP400, MP404 when nothing of that name is defined, MP422 for the same key with another input, MP503; 40001 (retry the transaction) when a REPEATABLE READ or SERIALIZABLE transaction cannot see the first.';

-- ------------------------------------------------------------------------
-- Work for the sweep
-- ------------------------------------------------------------------------

CREATE FUNCTION meal_planner.saga_queues(OUT account text, OUT due timestamptz) RETURNS SETOF record
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_sort = off SET enable_bitmapscan = off SET enable_seqscan = off SET jit = off -- in the order of the index
AS $$
#variable_conflict use_column
BEGIN
    -- two index probes for each account that has any
    RETURN QUERY
    WITH RECURSIVE queue (account) AS (
        (SELECT s.account FROM meal_planner.saga s WHERE s.due_at IS NOT NULL ORDER BY s.account LIMIT 1)
        UNION ALL
        SELECT n.account
          FROM queue q,
               LATERAL (SELECT s.account FROM meal_planner.saga s
                         WHERE s.due_at IS NOT NULL AND s.account > q.account
                         ORDER BY s.account LIMIT 1) n)
    SELECT q.account, first.due_at
      FROM queue q,
           LATERAL (SELECT s.due_at FROM meal_planner.saga s
                     WHERE s.account = q.account AND s.due_at IS NOT NULL
                     ORDER BY s.account, s.due_at LIMIT 1) first;
END
$$;
COMMENT ON FUNCTION meal_planner.saga_queues() IS 'accounts that have sagas for the sweep, and when the first of each is due';

CREATE FUNCTION meal_planner.saga_claim_lock(account text) RETURNS void
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_sql_saga_claim_lock';
COMMENT ON FUNCTION meal_planner.saga_claim_lock(text) IS
'lets workers take sagas of an account one after the other, to the end of the transaction; look after taking it';

CREATE FUNCTION meal_planner.saga_claim_unlock(account text) RETURNS void
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_sql_saga_claim_unlock';
COMMENT ON FUNCTION meal_planner.saga_claim_unlock(text) IS 'gives the lock of saga_claim_lock back, when nothing was taken under it';

CREATE FUNCTION meal_planner.saga_batch_size() RETURNS int
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_saga_batch_size';
COMMENT ON FUNCTION meal_planner.saga_batch_size() IS
'how many sagas this session''s next batch holds: more while their steps are fast and do not fail';

CREATE FUNCTION meal_planner.claim_sagas(token bigint, max_sagas int DEFAULT NULL) RETURNS meal_planner.claim
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_sort = off SET enable_bitmapscan = off SET enable_seqscan = off SET jit = off -- in the order of the index
AS $$
#variable_conflict use_column
DECLARE
    moment timestamptz := meal_planner.clock();
    source text;
    taken  uuid[];
BEGIN
    FOR source IN SELECT q.account FROM meal_planner.saga_queues() q WHERE q.due <= moment ORDER BY q.due LOOP
        PERFORM meal_planner.saga_claim_lock(source);
        -- One that is to be alone comes alone, and the others without it.
        SELECT CASE WHEN (array_agg(p.alone))[1] THEN (array_agg(p.id))[1:1]
                    ELSE array_agg(p.id) FILTER (WHERE NOT p.alone) END
          INTO taken
          FROM (SELECT s.id, s.alone
                  FROM meal_planner.saga s
                 WHERE s.account = source AND s.due_at <= moment
                   AND s.id NOT IN (SELECT unnest(b.sagas) FROM meal_planner.saga_batch b WHERE b.account = source)
                 ORDER BY s.account, s.due_at
                 LIMIT coalesce($2, meal_planner.saga_batch_size())
                   FOR UPDATE SKIP LOCKED) p; -- somebody else is at it
        IF taken IS NULL THEN
            -- Never two at once: the next worker may go through the accounts in another order.
            PERFORM meal_planner.saga_claim_unlock(source);
            CONTINUE;
        END IF;
        INSERT INTO meal_planner.saga_batch (account, token, sagas) VALUES (source, $1, taken);
        RETURN (source, NULL::text, NULL::bigint, NULL::bigint, NULL::bigint);
    END LOOP;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION meal_planner.claim_sagas(bigint, int) IS
'claims sagas of one account that are due; its subscription is NULL. NULL when none is due';

CREATE FUNCTION meal_planner.run_sagas(account text, token bigint) RETURNS void
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_run_sagas';
COMMENT ON FUNCTION meal_planner.run_sagas(text, bigint) IS
'goes on with the sagas that a worker has claimed: runs database steps, hands external ones out, ends what has come to its end; all in this transaction';

CREATE FUNCTION meal_planner.saga_crashed(account text, id uuid) RETURNS void
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_saga_crashed';
COMMENT ON FUNCTION meal_planner.saga_crashed(text, uuid) IS
'records that a worker died while it ran a step of a saga that was alone';

CREATE FUNCTION meal_planner.reap_dead_sagas() RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_bitmapscan = off SET enable_seqscan = off SET jit = off -- by the key
AS $$
DECLARE
    batch   meal_planner.saga_batch;
    culprit uuid;
BEGIN
    FOR batch IN SELECT * FROM meal_planner.saga_batch b LOOP
        CONTINUE WHEN NOT meal_planner.worker_is_dead(batch.token);
        DELETE FROM meal_planner.saga_batch b WHERE b.account = batch.account AND b.token = batch.token;
        CONTINUE WHEN NOT FOUND;
        -- Of several it does not tell which one it was: they go on one by one.
        SELECT s.id INTO culprit
          FROM meal_planner.saga s
         WHERE s.account = batch.account AND s.id = batch.sagas[1] AND s.alone;
        IF FOUND THEN
            PERFORM meal_planner.saga_crashed(batch.account, culprit);
        ELSE
            UPDATE meal_planner.saga s
               SET alone = true
             WHERE s.account = batch.account AND s.id = ANY (batch.sagas) AND s.due_at IS NOT NULL;
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION meal_planner.reap_dead_sagas() IS 'takes back the sagas that workers held that are no longer there';
