-- The sweep does what is due: retries, delayed events, worker subscriptions,
-- sagas, partitions ahead, expired keys.  It is a worker, see there, that chooses the
-- next unit of work, keeps house and sleeps in between.

CREATE FUNCTION meal_planner.sweep_begin(max_seconds float8) RETURNS bigint
LANGUAGE c VOLATILE SECURITY DEFINER PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_sweep_begin';
COMMENT ON FUNCTION meal_planner.sweep_begin(float8) IS
'makes this session a worker until its sweep ends: takes a token and the lock of that number';

CREATE FUNCTION meal_planner.sweep_end() RETURNS void
LANGUAGE c VOLATILE SECURITY DEFINER PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_sweep_end';
COMMENT ON FUNCTION meal_planner.sweep_end() IS 'gives the token of this session up';

CREATE FUNCTION meal_planner.sweep_token() RETURNS bigint
LANGUAGE c VOLATILE SECURITY DEFINER PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_sweep_token';
COMMENT ON FUNCTION meal_planner.sweep_token() IS 'the token of this session''s sweep; NULL when it has none';

CREATE FUNCTION meal_planner.sweep_time_left() RETURNS boolean
LANGUAGE c VOLATILE SECURITY DEFINER PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_sweep_time_left';
COMMENT ON FUNCTION meal_planner.sweep_time_left() IS
'whether the sweep of this session may begin another unit of work; always with max_seconds 0';

CREATE FUNCTION meal_planner.sweep_announce() RETURNS boolean
LANGUAGE c VOLATILE SECURITY DEFINER PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_sweep_announce';
COMMENT ON FUNCTION meal_planner.sweep_announce() IS
'announces a sleep: look for work once more, so that nothing committed in between is missed; false when that was done already or the sweep''s time is up';

CREATE FUNCTION meal_planner.sweep_sleep(due timestamptz) RETURNS boolean
LANGUAGE c VOLATILE SECURITY DEFINER PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_sweep_sleep';
COMMENT ON FUNCTION meal_planner.sweep_sleep(timestamptz) IS
'sleeps until then, until an event is committed, for meal_planner.longest_sleep at most; false, at once, when the sweep''s time is up';

CREATE FUNCTION meal_planner.waiting(OUT waiters int, OUT woken bigint)
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_waiting';
COMMENT ON FUNCTION meal_planner.waiting() IS
'how many sweeps and consumers of this server wait for an event right now, and how often one was woken since the server started';

CREATE FUNCTION meal_planner.sweep_turn() RETURNS int
LANGUAGE c VOLATILE SECURITY DEFINER PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_sweep_turn';
COMMENT ON FUNCTION meal_planner.sweep_turn() IS
'counts the calls of this session''s sweep: kinds of work that are there at the same time take turns';

CREATE FUNCTION meal_planner.sweep_chores_due() RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_sweep_chores_due';
COMMENT ON FUNCTION meal_planner.sweep_chores_due() IS
'whether to look for dead workers and the like: at the start of a sweep, then once a second';

CREATE FUNCTION meal_planner.sweep_claim(token bigint) RETURNS meal_planner.claim
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    began    timestamptz := clock_timestamp();
    believed timestamptz := began - interval '100 ms';
    claimed  meal_planner.claim;
    turn     int;
    let_on   boolean;
BEGIN
    PERFORM meal_planner.read_committed_only();
    IF NOT meal_planner.sweep_time_left() THEN
        RETURN NULL;
    END IF;
    IF meal_planner.sweep_chores_due() THEN
        PERFORM meal_planner.end_stale_appends();
        PERFORM meal_planner.reap_dead_workers();
        PERFORM meal_planner.reap_dead_sagas();
    END IF;
    let_on := meal_planner.release_saga_locks();
    -- Deliveries first, as they have waited already; but one time in eight the
    -- others, of which none keeps another one waiting for ever, nor do deliveries.
    turn := meal_planner.sweep_turn();
    IF turn % 8 <> 0 THEN
        claimed := meal_planner.claim_delivery(token, believed);
    END IF;
    FOR n IN 0 .. 3 LOOP
        EXIT WHEN claimed.account IS NOT NULL;
        CASE (turn + turn / 8 + n) % 4
            WHEN 0 THEN claimed := meal_planner.claim_redrive();
            WHEN 1 THEN claimed := meal_planner.claim_batch(token, believed => believed);
            WHEN 2 THEN claimed := meal_planner.claim_replay(token);
            ELSE claimed := meal_planner.claim_sagas(token);
        END CASE;
    END LOOP;
    -- With nothing else to do, what was looked for in vain before this call is looked for again.
    IF claimed.account IS NULL THEN
        claimed := meal_planner.claim_delivery(token, began);
    END IF;
    IF claimed.account IS NULL THEN
        claimed := meal_planner.claim_batch(token, believed => began);
    END IF;
    PERFORM meal_planner.notify_consumers(claimed.account IS NULL);
    IF claimed.account IS NULL AND let_on THEN
        -- there may be more names
        RETURN (''::text, ''::text, 0::bigint, 0::bigint, 0::bigint);
    END IF;
    RETURN claimed;
END
$$;
COMMENT ON FUNCTION meal_planner.sweep_claim(bigint) IS 'claims the next unit of work; NULL when nothing is due';

CREATE FUNCTION meal_planner.sweep_run(claimed meal_planner.claim) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM meal_planner.read_committed_only();
    -- Only what this session has claimed and still holds: the argument may come
    -- from anybody, and the subscription may be another one by now.
    IF claimed.subscription IS NULL THEN
        PERFORM meal_planner.run_sagas(claimed.account, meal_planner.sweep_token());
    ELSIF claimed.up_to IS NULL THEN
        PERFORM FROM meal_planner.delivery d
          WHERE d.account = claimed.account AND d.subscription = claimed.subscription
            AND d.position = claimed.position AND d.token = meal_planner.sweep_token()
            FOR UPDATE;
        IF FOUND THEN
            PERFORM meal_planner.attempt_delivery(claimed.account, claimed.subscription, claimed.position);
        END IF;
    ELSIF claimed.up_to > claimed.position THEN
        PERFORM FROM meal_planner.worker_batch b
          WHERE b.account = claimed.account AND b.subscription = claimed.subscription
            AND b.replay = coalesce(claimed.replay, 0) AND b.after_position = claimed.position
            AND b.up_to = claimed.up_to
            AND b.token = meal_planner.sweep_token()
            FOR UPDATE;
        IF FOUND THEN
            PERFORM meal_planner.run_batch(claimed.account, claimed.subscription, claimed.position, claimed.up_to,
                                           coalesce(claimed.replay, 0));
        END IF;
    END IF;
END
$$;
COMMENT ON FUNCTION meal_planner.sweep_run(meal_planner.claim) IS 'runs what sweep_claim claimed';

CREATE FUNCTION meal_planner.sweep_maintain() RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    moment timestamptz := meal_planner.clock();
    ahead  interval := make_interval(days => current_setting('meal_planner.partition_days')::int);
    stray  bigint;
    over   record;
BEGIN
    -- A consumer ends leases when it claims; where none claims any more, this does.
    -- So who has the order lock, and may take its time, is not waited for.
    FOR over IN
        SELECT DISTINCT c.account, c.subscription FROM meal_planner.consumer_claim c WHERE c.lease_until <= moment
    LOOP
        CONTINUE WHEN NOT meal_planner.try_order_lock(over.account, over.subscription);
        PERFORM meal_planner.expire_claims(over.account, over.subscription);
    END LOOP;
    PERFORM meal_planner.end_unsubscribed();
    PERFORM meal_planner.release_orphans();
    PERFORM meal_planner.check_memory_of_keys();
    -- last, since it locks the default partition to the end of the transaction
    FOR n IN 0 .. 2 LOOP
        EXIT WHEN NOT meal_planner.ensure_partition(meal_planner.position_at(moment + n * ahead));
    END LOOP;
    -- Rows that found no partition get one of their own time, a few times a sweep.
    FOR n IN 1 .. 10 LOOP
        SELECT min(d.position) INTO stray FROM meal_planner.event_default d;
        EXIT WHEN stray IS NULL OR NOT meal_planner.ensure_partition(stray);
    END LOOP;
END
$$;
COMMENT ON FUNCTION meal_planner.sweep_maintain() IS 'makes the next partitions, empties the default one, ends leases of consumers that are over, sees to deliveries whose subscription is gone and to orphans of an order, and that keys are remembered long enough';

CREATE FUNCTION meal_planner.next_due() RETURNS timestamptz
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT least((SELECT min(d.due) FROM meal_planner.delivery_queues() d),
                 (SELECT min(r.due) FROM meal_planner.replay_queues() r),
                 (SELECT min(s.due) FROM meal_planner.saga_queues() s),
                 meal_planner.redrives_due(),
                 (SELECT min(meal_planner.breaker_retry_at(s.options ->> 'breaker'))
                    FROM meal_planner.subscription s
                   WHERE s.mode = 'worker' AND s.paused_at IS NULL AND s.options ? 'breaker'))
$$;
COMMENT ON FUNCTION meal_planner.next_due() IS 'when the next delivery, stretch of a replay, letter of a redrive or saga is due, or a circuit breaker before a worker subscription may be tried';

-- No SET clause and no SECURITY DEFINER: either would forbid COMMIT.  Hence no
-- operator and nothing unqualified in the body.
CREATE PROCEDURE @extschema@.mp_sweep(max_seconds float8 DEFAULT 0)
LANGUAGE plpgsql
AS $$
DECLARE
    token   pg_catalog.int8;
    more    pg_catalog.bool;
    claimed meal_planner.claim;
BEGIN
    token := meal_planner.sweep_begin(max_seconds);
    COMMIT;
    -- A snapshot is to be newer than the bound it is used with, whatever the
    -- session's default is.  The chain keeps what is set here to the end.
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE;
    PERFORM meal_planner.sweep_maintain();
    COMMIT AND CHAIN;
    FOR n IN 1 .. 10 LOOP
        more := meal_planner.sweep_purge();
        COMMIT AND CHAIN;
        EXIT WHEN NOT more;
    END LOOP;
    FOR n IN 1 .. 10 LOOP
        more := meal_planner.sweep_history();
        COMMIT AND CHAIN;
        EXIT WHEN NOT more;
    END LOOP;
    FOR n IN 1 .. 10 LOOP
        EXIT WHEN NOT meal_planner.sweep_retain();
        COMMIT AND CHAIN;
    END LOOP;
    LOOP
        IF meal_planner.sweep_breakers_moved() THEN
            PERFORM meal_planner.sweep_breakers();
            COMMIT AND CHAIN;
            PERFORM meal_planner.sweep_breaker_events();
            COMMIT AND CHAIN;
        END IF;
        claimed := meal_planner.sweep_claim(token);
        COMMIT AND CHAIN;
        IF claimed.account IS NOT NULL THEN
            PERFORM meal_planner.sweep_run(claimed);
            COMMIT AND CHAIN;
        ELSIF NOT meal_planner.sweep_announce() THEN
            EXIT WHEN NOT meal_planner.sweep_sleep(meal_planner.next_due());
            COMMIT AND CHAIN;
        END IF;
    END LOOP;
    PERFORM meal_planner.sweep_end();
END
$$;
COMMENT ON PROCEDURE @extschema@.mp_sweep(float8) IS
'does all that is due now; with max_seconds it keeps going that long, waking when the next thing is due or an event is committed. Several sweeps at once are harmless. MP400, MP409 inside a transaction block, MP503 without shared_preload_libraries';
