-- What workers do: deliveries that are due, and stretches of the log for worker
-- subscriptions and replays.  Every unit of work is two transactions: the first
-- claims it (so that the attempt is on disk before a handler starts), the second
-- runs it.  A claim carries the token of its worker, and the worker holds a lock
-- of that number: whoever finds the lock free knows at once that the worker is
-- dead, without any time-out.

CREATE TABLE meal_planner.worker_batch (
    account        text   NOT NULL,
    subscription   text   NOT NULL,
    after_position bigint NOT NULL,
    up_to          bigint NOT NULL,
    token          bigint NOT NULL,
    replay         bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (account, subscription, replay, after_position)
);
COMMENT ON TABLE meal_planner.worker_batch IS
'stretches of the log that a worker is running right now; the key keeps two workers from the same stretch';
COMMENT ON COLUMN meal_planner.worker_batch.replay IS 'the replay that it is a stretch of; 0: it is new in the log';
SELECT pg_extension_config_dump('meal_planner.worker_batch', '');

CREATE TYPE meal_planner.claim AS (
    account      text,
    subscription text,
    position     bigint,
    up_to        bigint,
    replay       bigint
);
COMMENT ON TYPE meal_planner.claim IS
'a unit of work: a delivery (up_to NULL), the stretch of the log after position up to up_to (replay 0 for one that is new), or the sagas of meal_planner.saga_batch (subscription NULL)';

CREATE FUNCTION meal_planner.worker_is_dead(token bigint) RETURNS boolean
LANGUAGE c VOLATILE SECURITY DEFINER PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_worker_is_dead';
COMMENT ON FUNCTION meal_planner.worker_is_dead(bigint) IS
'true when nobody holds the lock of that token; the lock is then held to the end of this transaction';

CREATE FUNCTION meal_planner.run_batch(
    account text, subscription text, after_position bigint, up_to bigint, replay bigint DEFAULT 0)
RETURNS void
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_run_batch';
COMMENT ON FUNCTION meal_planner.run_batch(text, text, bigint, bigint, bigint) IS
'runs the handler of a worker subscription, or that of any for a replay, for a stretch of the log; failures become deliveries';

-- What dead workers left behind.  A delivery that was running counts a crash.
-- A batch does not tell which of its events killed the worker: it is taken
-- apart into deliveries, whose attempts are counted one by one; a batch of one
-- event tells, and counts.
CREATE FUNCTION meal_planner.reap_dead_workers() RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_bitmapscan = off SET enable_seqscan = off SET jit = off -- few rows run, many may wait: by the index
AS $$
DECLARE
    dead     bigint;
    orphan   meal_planner.delivery;
    batch    meal_planner.worker_batch;
    isolated bigint[];
BEGIN
    FOR dead IN
        SELECT d.token FROM meal_planner.delivery d
         WHERE d.token IS NOT NULL
           -- a consumer's claim has a lease instead of a worker
           AND NOT EXISTS (SELECT FROM meal_planner.consumer_claim c
                            WHERE c.account = d.account AND c.subscription = d.subscription AND c.number = d.token)
        UNION
        SELECT b.token FROM meal_planner.worker_batch b
    LOOP
        CONTINUE WHEN NOT meal_planner.worker_is_dead(dead);
        -- The order lock may be held by a transaction that takes its time: what
        -- needs it is left to a later look.
        FOR orphan IN
            SELECT * FROM meal_planner.delivery d
             WHERE d.token = dead AND (d.order_key IS NULL OR meal_planner.try_order_lock(d.account, d.subscription))
               FOR UPDATE SKIP LOCKED
        LOOP
            PERFORM meal_planner.fail_delivery(orphan.account, orphan.subscription, orphan.position, true,
                                               NULL, 'the worker died while the handler ran');
        END LOOP;
        FOR batch IN
            DELETE FROM meal_planner.worker_batch b
             WHERE b.token = dead AND NOT meal_planner.is_broken(b.subscription)
               AND (NOT EXISTS (SELECT FROM meal_planner.subscription s
                                 WHERE s.name = b.subscription AND s.options ? 'order_key')
                    OR meal_planner.try_order_lock(b.account, b.subscription))
            RETURNING *
        LOOP
            WITH taken AS (
                INSERT INTO meal_planner.delivery AS d (account, subscription, position, event_id, next_attempt_at,
                                                        order_key, replay_name)
                SELECT e.account, batch.subscription, e.position, e.id,
                       greatest(meal_planner.clock(), e.deliver_after),
                       meal_planner.order_key(s.options ->> 'order_key', e), r.name
                  FROM meal_planner.event e
                  JOIN meal_planner.subscription s ON s.name = batch.subscription
                  LEFT JOIN meal_planner.replay r ON r.account = batch.account
                                                 AND r.subscription = batch.subscription AND r.id = batch.replay
                 WHERE e.account = batch.account AND e.position > batch.after_position AND e.position <= batch.up_to
                   AND meal_planner.matches(s.pattern, e) AND coalesce(meal_planner.matches(r.pattern, e), true)
                ON CONFLICT DO NOTHING
                RETURNING d.position, d.next_attempt_at)
            -- a delayed event was not run
            SELECT array_agg(t.position) INTO isolated FROM taken t WHERE t.next_attempt_at <= meal_planner.clock();
            IF batch.replay = 0 THEN
                PERFORM meal_planner.move_cursor(batch.account, batch.subscription, batch.after_position, batch.up_to);
            ELSE
                PERFORM meal_planner.move_replay(batch.account, batch.subscription, batch.replay,
                                                 batch.after_position, batch.up_to,
                                                 coalesce(cardinality(isolated), 0));
            END IF;
            IF cardinality(isolated) = 1 THEN
                UPDATE meal_planner.delivery d
                   SET attempt = 1
                 WHERE d.account = batch.account AND d.subscription = batch.subscription
                   AND d.position = isolated[1];
                PERFORM meal_planner.fail_delivery(batch.account, batch.subscription, isolated[1], true,
                                                   NULL, 'the worker died while the handler ran');
            END IF;
        END LOOP;
    END LOOP;
END
$$;
COMMENT ON FUNCTION meal_planner.reap_dead_workers() IS
'takes back what workers held that are no longer there';

CREATE FUNCTION meal_planner.matches(pattern jsonb, e meal_planner.event) RETURNS boolean
LANGUAGE c STABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'mp_matches_event';
COMMENT ON FUNCTION meal_planner.matches(jsonb, meal_planner.event) IS 'does the event pattern match a row of the log';

CREATE FUNCTION meal_planner.accounts(after_position bigint) RETURNS SETOF text
LANGUAGE plpgsql STABLE SECURITY DEFINER -- not SQL: its plan is kept
SET search_path = pg_catalog, pg_temp
SET enable_sort = off SET enable_bitmapscan = off SET enable_seqscan = off SET jit = off -- by the index
AS $$
#variable_conflict use_column
BEGIN
    -- Two index probes per account and partition, however many events there
    -- are.  The position is asked for account by account: as a condition of the
    -- first probe it would walk through all that an account has before it.
    RETURN QUERY
    WITH RECURSIVE known (account) AS (
        SELECT (SELECT e.account FROM meal_planner.event e ORDER BY e.account LIMIT 1)
        UNION ALL
        SELECT (SELECT e.account FROM meal_planner.event e
                 WHERE e.account > k.account ORDER BY e.account LIMIT 1)
          FROM known k
         WHERE k.account IS NOT NULL)
    SELECT k.account
      FROM known k
     WHERE (SELECT e.position FROM meal_planner.event e
             WHERE e.account = k.account AND e.position > $1
             ORDER BY e.account, e.position LIMIT 1) IS NOT NULL;
END
$$;
COMMENT ON FUNCTION meal_planner.accounts(bigint) IS 'accounts that have events after a position';

CREATE FUNCTION meal_planner.cursor_position(account text, subscription text) RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT c.position FROM meal_planner.subscription_cursor c
     WHERE c.account = $1 AND c.subscription = $2
     ORDER BY c.account DESC, c.subscription DESC, c.position DESC
     LIMIT 1
$$;
COMMENT ON FUNCTION meal_planner.cursor_position(text, text) IS
'how far a subscription has come in an account; NULL before its first batch there';

CREATE FUNCTION meal_planner.move_cursor(account text, subscription text, after_position bigint, up_to bigint)
RETURNS void
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO meal_planner.subscription_cursor (account, subscription, position) VALUES ($1, $2, $4);
    DELETE FROM meal_planner.subscription_cursor c
     WHERE c.account = $1 AND c.subscription = $2 AND c.position = $3;
    DELETE FROM meal_planner.worker_batch b
     WHERE b.account = $1 AND b.subscription = $2 AND b.replay = 0 AND b.after_position = $3;
$$;
COMMENT ON FUNCTION meal_planner.move_cursor(text, text, bigint, bigint) IS
'ends a batch: the cursor moves from after_position to up_to';

-- A look for work goes through all accounts and subscriptions.  What it finds is
-- a round of this session's sweep, which does a unit of work of each before it
-- looks again: src/bus/sweep_round.c.

CREATE FUNCTION meal_planner.sweep_round_begin(kind text, began timestamptz, accounts text[], subscriptions text[]) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_sweep_round_begin';
COMMENT ON FUNCTION meal_planner.sweep_round_begin(text, timestamptz, text[], text[]) IS
'what a look that began then has found, for work of a kind (delivery, batch); NULL: nothing, or nothing that could be claimed';

CREATE FUNCTION meal_planner.sweep_round_next(kind text, OUT account text, OUT subscription text) RETURNS record
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_sweep_round_next';
COMMENT ON FUNCTION meal_planner.sweep_round_next(text) IS 'where to look next; NULL when the round is over';

CREATE FUNCTION meal_planner.sweep_round_wanted(kind text, believed timestamptz) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_sweep_round_wanted';
COMMENT ON FUNCTION meal_planner.sweep_round_wanted(text, timestamptz) IS
'whether to look for work of a kind: not when the last look was in vain and began after that moment; NULL: always';

CREATE FUNCTION meal_planner.delivery_queues(OUT account text, OUT subscription text, OUT due timestamptz)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_sort = off SET enable_bitmapscan = off SET enable_seqscan = off -- in the order of the index
SET jit = off -- the few rows that are left seem costly enough to be compiled
AS $$
#variable_conflict use_column
BEGIN
    -- Asked across accounts, by two index probes for each account and
    -- subscription that has any, however many deliveries wait.
    RETURN QUERY
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
    SELECT q.account, q.subscription, due.at
      FROM queue q
      JOIN meal_planner.subscription s ON s.name = q.subscription AND s.paused_at IS NULL AND s.mode <> 'pull'
      CROSS JOIN LATERAL (
           SELECT d.next_attempt_at FROM meal_planner.delivery d
            WHERE d.account = q.account AND d.subscription = q.subscription AND d.token IS NULL
            ORDER BY d.next_attempt_at LIMIT 1) first
      CROSS JOIN LATERAL (
           SELECT CASE WHEN s.options ? 'retry_budget' THEN meal_planner.retry_ready_at(s.name) END AS at) token
      LEFT JOIN LATERAL (
           SELECT d.next_attempt_at FROM meal_planner.delivery d
            WHERE d.account = q.account AND d.subscription = q.subscription AND d.token IS NULL AND d.attempt = 0
              AND token.at IS NOT NULL
            ORDER BY d.next_attempt_at LIMIT 1) fresh ON true
      -- What waits for an open breaker is due: when it closes early nobody has to look for it.
      CROSS JOIN LATERAL (
           SELECT greatest(least(fresh.next_attempt_at, greatest(first.next_attempt_at, token.at)),
                           meal_planner.breaker_retry_at(s.options ->> 'breaker')) AS at) due
     WHERE due.at < 'infinity';
END
$$;
COMMENT ON FUNCTION meal_planner.delivery_queues() IS
'accounts and subscriptions that have deliveries for the sweep, and when the next of each is due: not before its circuit breaker may be tried, nor a retry before there is budget for one; not those that are paused or where all is blocked';

CREATE FUNCTION meal_planner.claim_delivery(token bigint, believed timestamptz DEFAULT NULL) RETURNS meal_planner.claim
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_sort = off SET enable_bitmapscan = off SET enable_seqscan = off -- in the order of the index
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    moment     timestamptz := meal_planner.clock();
    looked     boolean := false;
    began      timestamptz;
    source     record;
    has_budget boolean;
    has_order  boolean;
    due        record;
    far        timestamptz;
BEGIN
    LOOP
        source := meal_planner.sweep_round_next('delivery');
        IF source.account IS NULL THEN
            EXIT WHEN looked OR NOT meal_planner.sweep_round_wanted('delivery', believed);
            looked := true;
            began := clock_timestamp();
            PERFORM meal_planner.sweep_round_begin('delivery', began, array_agg(q.account ORDER BY q.due),
                                                   array_agg(q.subscription ORDER BY q.due))
               FROM meal_planner.delivery_queues() q
              WHERE q.due <= moment;
            CONTINUE;
        END IF;
        -- It may have been paused meanwhile, or its circuit breaker has opened.
        SELECT s.options ? 'retry_budget', s.options ? 'order_key' INTO has_budget, has_order
          FROM meal_planner.subscription s
         WHERE s.name = source.subscription AND s.paused_at IS NULL AND s.mode <> 'pull'
           AND coalesce(meal_planner.breaker_retry_at(s.options ->> 'breaker') <= moment, true);
        CONTINUE WHEN NOT FOUND;
        -- The order lock of a subscription may be held by a transaction that
        -- takes its time: its ordered deliveries wait then, we do not, and one
        -- without a key is looked for among the first thousand.
        far := moment;
        IF has_order AND NOT meal_planner.try_order_lock(source.account, source.subscription) THEN
            SELECT d.next_attempt_at INTO far
              FROM meal_planner.delivery d
             WHERE d.account = source.account AND d.subscription = source.subscription
               AND d.token IS NULL AND d.next_attempt_at <= moment
             ORDER BY d.next_attempt_at, d.position
             LIMIT 1 OFFSET 999;
            far := coalesce(far, moment);
        END IF;
        LOOP
            IF has_budget AND meal_planner.retry_ready_at(source.subscription) IS NOT NULL THEN
                SELECT d.position, d.order_key, d.attempt INTO due
                  FROM meal_planner.delivery d
                 WHERE d.account = source.account AND d.subscription = source.subscription
                   AND d.token IS NULL AND d.attempt = 0 AND d.next_attempt_at <= far
                   AND (d.order_key IS NULL OR meal_planner.try_order_lock(source.account, source.subscription))
                 ORDER BY d.next_attempt_at, d.position
                 LIMIT 1
                   FOR UPDATE SKIP LOCKED;
            ELSE
                SELECT d.position, d.order_key, d.attempt INTO due
                  FROM meal_planner.delivery d
                 WHERE d.account = source.account AND d.subscription = source.subscription
                   AND d.token IS NULL AND d.next_attempt_at <= far
                   AND (d.order_key IS NULL OR meal_planner.try_order_lock(source.account, source.subscription))
                 ORDER BY d.next_attempt_at, d.position
                 LIMIT 1
                   FOR UPDATE SKIP LOCKED;
            END IF;
            EXIT WHEN NOT FOUND;
            IF due.order_key IS NOT NULL
               AND meal_planner.must_wait(source.account, source.subscription, due.order_key, due.position) THEN
                PERFORM meal_planner.block_delivery(source.account, source.subscription, due.order_key, due.position);
                CONTINUE;
            END IF;
            -- another sweep may have taken the last token meanwhile
            CONTINUE WHEN has_budget AND due.attempt > 0 AND NOT meal_planner.take_retry(source.subscription);
            UPDATE meal_planner.delivery u
               SET token = $1, attempt = u.attempt + 1
             WHERE u.account = source.account AND u.subscription = source.subscription AND u.position = due.position;
            RETURN (source.account, source.subscription, due.position, NULL::bigint, 0::bigint);
        END LOOP;
    END LOOP;
    IF looked THEN
        PERFORM meal_planner.sweep_round_begin('delivery', began, NULL, NULL);
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION meal_planner.claim_delivery(bigint, timestamptz) IS
'claims one delivery that is due, counting the attempt, of one account and subscription after the other; NULL when there is none. believed: a look in vain that began after that moment is not repeated';

CREATE FUNCTION meal_planner.batch_size(subscription text) RETURNS int
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_batch_size';
COMMENT ON FUNCTION meal_planner.batch_size(text) IS
'how many events this session''s next batch of a subscription holds: more while its handler is fast and does not fail';

CREATE FUNCTION meal_planner.batch_sources(OUT account text, OUT subscription text) RETURNS SETOF record
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_bitmapscan = off SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off -- by the indexes
SET jit = off
AS $$
#variable_conflict use_column
BEGIN
    -- An index probe for each account and partition, and two for each account
    -- and subscription, however many events there are.
    RETURN QUERY
    WITH RECURSIVE worker AS MATERIALIZED (
        SELECT s.name, s.start_position
          FROM meal_planner.subscription s
         WHERE s.mode = 'worker' AND s.paused_at IS NULL AND NOT meal_planner.is_broken(s.name)
           AND meal_planner.breaker_retry_at(s.options ->> 'breaker') IS NULL),
    known (account) AS (
        SELECT (SELECT e.account FROM meal_planner.event e ORDER BY e.account LIMIT 1)
         WHERE EXISTS (SELECT FROM worker)
        UNION ALL
        SELECT (SELECT e.account FROM meal_planner.event e
                 WHERE e.account > k.account ORDER BY e.account LIMIT 1)
          FROM known k
         WHERE k.account IS NOT NULL)
    SELECT k.account, w.name
      FROM known k
      JOIN worker w ON k.account IS NOT NULL
      LEFT JOIN LATERAL (
           SELECT c.position FROM meal_planner.subscription_cursor c
            WHERE c.account = k.account AND c.subscription = w.name
            ORDER BY c.account DESC, c.subscription DESC, c.position DESC
            LIMIT 1) moved ON true
      CROSS JOIN LATERAL (SELECT greatest(moved.position, w.start_position) AS position) cursor
     WHERE (SELECT e.position FROM meal_planner.event e
             WHERE e.account = k.account AND e.position > cursor.position
             ORDER BY e.account, e.position LIMIT 1) IS NOT NULL
       AND NOT EXISTS (SELECT FROM meal_planner.worker_batch b
                        WHERE b.account = k.account AND b.subscription = w.name AND b.replay = 0
                          AND b.after_position = cursor.position)
     ORDER BY cursor.position;
END
$$;
COMMENT ON FUNCTION meal_planner.batch_sources() IS
'accounts and worker subscriptions for which there are events behind the cursor, the furthest behind first; not those that a worker is running';

CREATE FUNCTION meal_planner.claim_batch(token bigint, max_events int DEFAULT NULL, believed timestamptz DEFAULT NULL)
RETURNS meal_planner.claim
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_sort = off SET enable_bitmapscan = off SET enable_seqscan = off -- in the order of the index
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    looked  boolean := false;
    began   timestamptz;
    place   record;
    source  record;
    bound   bigint;
    last    bigint;
    far     bigint;
    hit     bigint;
    matched boolean;
BEGIN
    LOOP
        place := meal_planner.sweep_round_next('batch');
        IF place.account IS NULL THEN
            EXIT WHEN looked OR NOT meal_planner.sweep_round_wanted('batch', believed);
            looked := true;
            began := clock_timestamp();
            PERFORM meal_planner.sweep_round_begin('batch', began, array_agg(b.account ORDER BY b.n), array_agg(b.subscription ORDER BY b.n))
               FROM meal_planner.batch_sources() WITH ORDINALITY AS b (account, subscription, n);
            CONTINUE;
        END IF;
        SELECT place.account AS account, s.name, s.pattern,
               greatest(meal_planner.cursor_position(place.account, s.name), s.start_position) AS cursor
          INTO source
          FROM meal_planner.subscription s
         WHERE s.name = place.subscription
           AND s.mode = 'worker' AND s.paused_at IS NULL AND NOT meal_planner.is_broken(s.name)
           AND meal_planner.breaker_retry_at(s.options ->> 'breaker') IS NULL;
        CONTINUE WHEN NOT FOUND;
        -- The bound first, the snapshot of the next statement second.
        bound := meal_planner.read_bound(source.account);
        SELECT max(page.position) INTO last
          FROM (SELECT e.position
                  FROM meal_planner.event e
                 WHERE e.account = source.account AND e.position > source.cursor AND e.position <= bound
                 ORDER BY e.account, e.position
                 LIMIT coalesce(max_events, meal_planner.batch_size(source.name))) page;
        CONTINUE WHEN last IS NULL;
        matched := EXISTS (SELECT FROM meal_planner.event e
                            WHERE e.account = source.account AND e.position > source.cursor AND e.position <= last
                              AND meal_planner.matches(source.pattern, e));
        -- What does not concern it is passed a thousand at a time.
        IF NOT matched THEN
            SELECT max(page.position) INTO far
              FROM (SELECT e.position
                      FROM meal_planner.event e
                     WHERE e.account = source.account AND e.position > last AND e.position <= bound
                     ORDER BY e.account, e.position
                     LIMIT 1000) page;
            SELECT e.position INTO hit
              FROM meal_planner.event e
             WHERE e.account = source.account AND e.position > last AND e.position <= far
               AND meal_planner.matches(source.pattern, e)
             ORDER BY e.account, e.position
             LIMIT 1;
            last := coalesce(hit - 1, far, last);
        END IF;

        -- The key keeps a second worker out; its claim means "not mine".
        INSERT INTO meal_planner.worker_batch (account, subscription, after_position, up_to, token)
        VALUES (source.account, source.name, source.cursor, last, token)
        ON CONFLICT DO NOTHING;
        CONTINUE WHEN NOT FOUND;
        -- The cursor may have moved between the reading and the claim.
        IF greatest(meal_planner.cursor_position(source.account, source.name), source.cursor) <> source.cursor THEN
            DELETE FROM meal_planner.worker_batch b
             WHERE b.account = source.account AND b.subscription = source.name
               AND b.replay = 0 AND b.after_position = source.cursor;
            CONTINUE;
        END IF;
        IF NOT matched THEN
            PERFORM meal_planner.move_cursor(source.account, source.name, source.cursor, last);
        END IF;
        RETURN (source.account, source.name, source.cursor, CASE WHEN matched THEN last ELSE source.cursor END,
                0::bigint);
    END LOOP;
    IF looked THEN
        PERFORM meal_planner.sweep_round_begin('batch', began, NULL, NULL);
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION meal_planner.claim_batch(bigint, int, timestamptz) IS
'claims the next events of a worker subscription in an account, of one after the other, the furthest behind first; at most max_events (NULL: batch_size); up_to equal to position: they matched nothing and are passed already. believed: as for claim_delivery';

CREATE FUNCTION meal_planner.replay_queues(OUT account text, OUT subscription text, OUT replay bigint, OUT due timestamptz)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT r.account, r.subscription, r.id,
           greatest(cursor.due, meal_planner.breaker_retry_at(s.options ->> 'breaker'))
      FROM (SELECT DISTINCT ON (p.account, p.subscription) p.account, p.subscription, p.id
              FROM meal_planner.replay p
             ORDER BY p.account, p.subscription, p.id) r
      JOIN meal_planner.subscription s ON s.name = r.subscription AND s.paused_at IS NULL AND s.mode <> 'pull'
                                      AND NOT meal_planner.is_broken(s.name),
           LATERAL (SELECT c.position, c.due FROM meal_planner.replay_cursor c
                     WHERE c.account = r.account AND c.subscription = r.subscription AND c.replay = r.id
                     ORDER BY c.account DESC, c.subscription DESC, c.replay DESC, c.position DESC
                     LIMIT 1) cursor
     WHERE NOT EXISTS (SELECT FROM meal_planner.worker_batch b
                        WHERE b.account = r.account AND b.subscription = r.subscription AND b.replay = r.id
                          AND b.after_position = cursor.position);
END
$$;
COMMENT ON FUNCTION meal_planner.replay_queues() IS
'replays for the sweep, the first of each subscription in an account, and when the next stretch of each is due; not those that a worker is running';

CREATE FUNCTION meal_planner.claim_replay(token bigint, max_events int DEFAULT 50) RETURNS meal_planner.claim
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    source  record;
    stretch meal_planner.replay_stretch;
BEGIN
    FOR source IN
        SELECT q.account, q.subscription, q.replay FROM meal_planner.replay_queues() q
         WHERE q.due <= meal_planner.clock()
         ORDER BY q.due, q.replay
    LOOP
        CONTINUE WHEN NOT meal_planner.lock_replay(source.account, source.subscription, source.replay);
        stretch := meal_planner.next_stretch(source.account, source.subscription, source.replay, max_events);
        INSERT INTO meal_planner.worker_batch (account, subscription, replay, after_position, up_to, token)
        VALUES (source.account, source.subscription, source.replay, stretch.after_position,
                coalesce(stretch.up_to, stretch.after_position), $1)
        ON CONFLICT DO NOTHING;
        CONTINUE WHEN NOT FOUND;
        -- It may have been run and passed between the reading and the claim.
        IF NOT EXISTS (SELECT FROM meal_planner.replay_cursor c
                        WHERE c.account = source.account AND c.subscription = source.subscription
                          AND c.replay = source.replay AND c.position = stretch.after_position) THEN
            DELETE FROM meal_planner.worker_batch b
             WHERE b.account = source.account AND b.subscription = source.subscription
               AND b.replay = source.replay AND b.after_position = stretch.after_position;
            CONTINUE;
        END IF;
        IF stretch.up_to IS NOT NULL AND stretch.events = 0 THEN
            PERFORM meal_planner.move_replay(source.account, source.subscription, source.replay,
                                             stretch.after_position, stretch.up_to, 0);
        ELSIF stretch.up_to IS NULL THEN
            DELETE FROM meal_planner.worker_batch b
             WHERE b.account = source.account AND b.subscription = source.subscription
               AND b.replay = source.replay AND b.after_position = stretch.after_position;
            PERFORM meal_planner.end_replay(source.account, source.subscription, source.replay);
        END IF;
        RETURN (source.account, source.subscription, stretch.after_position,
                CASE WHEN stretch.events > 0 THEN stretch.up_to ELSE stretch.after_position END, source.replay);
    END LOOP;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION meal_planner.claim_replay(bigint, int) IS
'claims the next stretch of the replay that has waited longest, or ends one; up_to equal to position: there is nothing to run';
