-- Circuit breakers around handlers: what is deferred costs no attempt, failures
-- count although they are rolled back, successes only once they are committed.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS meal_planner CASCADE;
CREATE EXTENSION meal_planner;
RESET client_min_messages;
\set SHOW_CONTEXT never

CREATE TABLE weather (service text PRIMARY KEY, code text);
INSERT INTO weather VALUES ('service', NULL);
CREATE TABLE seen (n serial, event int);
-- Fails with the code of the weather; a detail may have one of its own.
CREATE FUNCTION on_e(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    failure text := coalesce(e.detail ->> 'code', (SELECT code FROM weather));
BEGIN
    IF failure IS NOT NULL THEN
        RAISE EXCEPTION 'service: %', failure USING ERRCODE = failure;
    END IF;
    INSERT INTO seen (event) VALUES ((e.detail ->> 'n')::int);
END $$;
CREATE FUNCTION emit(low int, high int) RETURNS bigint LANGUAGE sql
AS $$ SELECT count(mp_emit_event('E', jsonb_build_object('n', n))) FROM generate_series(low, high) n $$;
CREATE VIEW state AS
SELECT b.state, b.consecutive_failures AS failures, b.permits, s.retrying, s.dead,
       (SELECT string_agg(d.attempt::text, ' ' ORDER BY d.position) FROM meal_planner.delivery d) AS attempts,
       (SELECT count(*) FROM seen) AS seen
  FROM mp_breakers b, mp_subscriptions s WHERE s.name = 's';

SELECT mp_subscribe('s', '{"detail-type": ["E"]}', 'on_e(meal_planner.event)', options => '{"breaker": "b"}');
SELECT emit(1, 2);
SELECT * FROM state;

-- Failures count one by one; those of a transaction that rolls back, too.
UPDATE weather SET code = 'MPT01';
SELECT emit(3, 5);
BEGIN;
SELECT emit(6, 6);
ROLLBACK;
SELECT * FROM state;
-- The data's own errors, contention and what is not deployed say nothing of the service.
SELECT mp_emit_event('E', '{"code": "22012"}') IS NOT NULL AS permanent, mp_emit_event('E', '{"code": "40P01"}') IS NOT NULL AS contention;
SELECT * FROM state;
DELETE FROM meal_planner.delivery WHERE sqlstate = '40P01';
SELECT emit(7, 7);
SELECT * FROM state;
-- Open: deferred, with no attempt and no call.
SELECT calls AS calls FROM mp_handler_stats WHERE subscription = 's' \gset
SELECT emit(8, 9);
SELECT mp_put_events('[{"Source": "x", "DetailType": "E", "Detail": {"n": 10}}, {"Source": "x", "DetailType": "E", "Detail": {"n": 11}}]') -> 'FailedEntryCount' AS failed;
SELECT * FROM state;
SELECT q.due = b.retry_at AS when_it_may_be_tried FROM meal_planner.delivery_queues() q, mp_breakers b;
-- An hour of outage: probes fail, nothing else is called, nothing dies.
\set ECHO none
SELECT format('SET meal_planner.clock_offset = %s', n * 34), 'CALL mp_sweep()' FROM generate_series(1, 100) n \gexec
\set ECHO all
SELECT state, retrying, dead, attempts FROM state;
SELECT calls - :calls <= 101 AS only_probes FROM mp_handler_stats WHERE subscription = 's';
-- It is over: one probe, and then all the others.
UPDATE weather SET code = NULL;
SET meal_planner.clock_offset = 3500;
CALL mp_sweep();
SET meal_planner.clock_offset = 3600;
CALL mp_sweep();
SELECT * FROM state;
SELECT array_agg(event ORDER BY event) FROM seen;
SELECT count(*) FILTER (WHERE event ->> 'detail-type' = 'CircuitOpened') > 60 AS opened,
       count(*) FILTER (WHERE event ->> 'detail-type' = 'CircuitClosed') AS closed
  FROM mp_read_events(max_events => 10000);

-- A probe's success is none before its transaction commits.
SELECT mp_breaker_configure('b', '{"failure_threshold": 1, "open_seconds": 0.001}');
UPDATE weather SET code = 'MPT01';
SELECT emit(20, 20);
UPDATE weather SET code = NULL;
SELECT pg_sleep(0.01);
BEGIN;
SELECT emit(21, 21);
SELECT state, permits FROM state;
ROLLBACK;
SELECT state, permits FROM state;
BEGIN;
SAVEPOINT s;
SELECT emit(22, 22);
ROLLBACK TO s;
SELECT state, permits FROM state;
SELECT emit(23, 23);
-- the permit is out until then: this one has to wait
SELECT emit(24, 24);
COMMIT;
SELECT state, permits FROM state;
SELECT event FROM seen WHERE event > 11 ORDER BY n;
SET meal_planner.clock_offset = 3700;
CALL mp_sweep();
SELECT event FROM seen WHERE event > 11 ORDER BY event;
SELECT * FROM state;

-- A worker's cursor stays where it is while the breaker is open.
SELECT mp_subscribe('s', '{"detail-type": ["E"]}', 'on_e(meal_planner.event)', 'worker', '{"breaker": "b"}');
SELECT mp_breaker_configure('b', '{"failure_threshold": 2}');
UPDATE weather SET code = 'MPT01';
SELECT emit(30, 49);
CALL mp_sweep();
SELECT state, retrying, dead, attempts FROM state;
SELECT lag_events FROM mp_subscriptions WHERE name = 's';
UPDATE weather SET code = NULL;
CALL mp_sweep();
SELECT lag_events FROM mp_subscriptions WHERE name = 's';
SET meal_planner.clock_offset = 3800;
CALL mp_sweep();
CALL mp_sweep();
SET meal_planner.clock_offset = 3900;
CALL mp_sweep();
SELECT * FROM state;
SELECT lag_events FROM mp_subscriptions WHERE name = 's';
SELECT array_agg(event ORDER BY event) FROM seen WHERE event >= 30;

-- By force, for ever: until it is released.
SELECT mp_breaker_force('b', 'open');
SELECT mp_subscribe('s', '{"detail-type": ["E"]}', 'on_e(meal_planner.event)', options => '{"breaker": "b"}');
SELECT emit(60, 60);
SELECT attempt FROM meal_planner.delivery;
SELECT count(*) AS due FROM meal_planner.delivery_queues();
SET meal_planner.clock_offset = 3950;
CALL mp_sweep();
SELECT * FROM state;
SELECT mp_breaker_force('b', 'auto');
SET meal_planner.clock_offset = 4000;
CALL mp_sweep();
SELECT * FROM state;

-- Closed early by force, for a while: what waits is due at once, however long it was to be open.
SELECT mp_breaker_configure('b', '{"failure_threshold": 1, "open_seconds": 3600}');
UPDATE weather SET code = 'MPT01';
SELECT emit(70, 70);
UPDATE weather SET code = NULL;
SELECT emit(71, 79);
CALL mp_sweep();
SELECT * FROM state;
SELECT mp_breaker_force('b', 'closed', meal_planner.clock() + interval '1 minute');
CALL mp_sweep();
SELECT * FROM state;
-- the one that had failed has its retry, as any other
SET meal_planner.clock_offset = 4030;
CALL mp_sweep();
SELECT * FROM state;
-- Closed early by a probe: that of somebody else, who knows.
SET meal_planner.clock_offset = 4100;
UPDATE weather SET code = 'MPT01';
SELECT emit(80, 80);
UPDATE weather SET code = NULL;
SELECT emit(81, 85);
SET meal_planner.clock_offset = 7800;
SELECT mp_breaker_acquire('b') ->> 'permit' AS permit \gset
CALL mp_sweep();
SELECT state, retrying, dead, attempts, seen FROM state;
SELECT mp_breaker_report('b', :permit, 'success');
CALL mp_sweep();
SELECT * FROM state;
-- As many probes as there are permits, no more, however much is due; each that succeeds lets others in.
SELECT mp_breaker_configure('b', '{"failure_threshold": 1, "open_seconds": 10, "half_open_permits": 2, "success_threshold": 3}');
UPDATE weather SET code = 'MPT01';
SELECT emit(90, 90);
SELECT emit(91, 95);
SELECT calls AS calls FROM mp_handler_stats WHERE subscription = 's' \gset
SET meal_planner.clock_offset = 7815;
CALL mp_sweep();
SELECT calls - :calls AS calls FROM mp_handler_stats WHERE subscription = 's';
UPDATE weather SET code = NULL;
SET meal_planner.clock_offset = 8000;
CALL mp_sweep();
SELECT * FROM state;

-- A change that came with a commit is stored by a sweep; one that was rolled back, to a savepoint perhaps, has stored nothing.
SELECT mp_breaker_configure('b', '{"failure_threshold": 1, "open_seconds": 10, "window": "count"}');
SELECT mp_breaker_report('b', (mp_breaker_acquire('b') ->> 'permit')::bigint, 'failure');
SET meal_planner.clock_offset = 8020;
SELECT emit(100, 100);
SELECT * FROM meal_planner.breakers_unstored();
BEGIN;
SAVEPOINT before;
SELECT meal_planner.sweep_breakers();
ROLLBACK TO before;
COMMIT;
SELECT * FROM meal_planner.breakers_unstored();
SELECT meal_planner.sweep_breakers();
SELECT * FROM meal_planner.breakers_unstored();
-- What succeeded in many subtransactions is one count.
CREATE PROCEDURE emit_apart(n int) LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1 .. n LOOP
        BEGIN
            PERFORM mp_emit_event('E', '{"n": 101}');
        EXCEPTION WHEN division_by_zero THEN
        END;
    END LOOP;
END $$;
SELECT (counters -> 'successes')::int AS successes FROM mp_breakers WHERE name = 'b' \gset
BEGIN;
CALL emit_apart(50);
SELECT used_bytes FROM pg_backend_memory_contexts WHERE name = 'TopTransactionContext' \gset
CALL emit_apart(200);
SELECT used_bytes - :used_bytes < 200 * 40 AS nothing_is_kept_of_each FROM pg_backend_memory_contexts WHERE name = 'TopTransactionContext';
COMMIT;
SELECT (counters -> 'successes')::int - :successes AS successes FROM mp_breakers WHERE name = 'b';

-- Somebody has taken all places for breakers before a subscription needed one, after a restart perhaps: it waits, all else goes on.
CREATE FUNCTION on_crowd(e meal_planner.event) RETURNS void LANGUAGE sql AS '';
SELECT mp_subscribe(name, '{"detail-type": ["Crowd"]}', 'on_crowd(meal_planner.event)', 'worker') FROM unnest('{late,other}'::text[]) name;
CALL mp_sweep();
DO $$
BEGIN
    FOR n IN 1 .. 300 LOOP
        PERFORM mp_breaker_acquire('crowd ' || n);
    END LOOP;
EXCEPTION WHEN SQLSTATE 'MP503' THEN
    RAISE NOTICE '%', SQLERRM;
END $$;
UPDATE meal_planner.subscription SET options = options || '{"breaker": "late"}' WHERE name = 'late';
SELECT mp_emit_event('Crowd', '{}') IS NOT NULL AS emitted;
CALL mp_sweep();
SELECT name, lag_events, retrying FROM mp_subscriptions WHERE name IN ('late', 'other') ORDER BY name;
-- it waits as behind an open one
SELECT due > meal_planner.clock() + interval '20 s' AS waits FROM (SELECT meal_planner.breaker_retry_at('late') AS due) b;
UPDATE meal_planner.subscription SET mode = 'inline' WHERE name = 'late';
SELECT mp_emit_event('Crowd', '{}') IS NOT NULL AS emitted;
SELECT d.attempt, q.due > meal_planner.clock() + interval '20 s' AS waits
  FROM meal_planner.delivery d JOIN meal_planner.delivery_queues() q USING (account, subscription) WHERE subscription = 'late';
SELECT mp_breaker_acquire('late');
INSERT INTO meal_planner.breaker (name, version) VALUES ('late', 1);
SELECT count(*) AS breakers, count(*) FILTER (WHERE name = 'late') AS late FROM mp_breakers;
DELETE FROM meal_planner.breaker WHERE name = 'late';
SELECT mp_unsubscribe(name, 'discard') FROM unnest('{late,other}'::text[]) name;
DROP FUNCTION on_crowd(meal_planner.event);

-- What is wrong.
SELECT mp_subscribe('x', '{"detail-type": ["E"]}', mode => 'pull', options => '{"breaker": "b"}');
SELECT mp_subscribe('x', '{"detail-type": ["E"]}', 'on_e(meal_planner.event)', options => '{"breaker": ""}');
SELECT mp_subscribe('x', '{"detail-type": ["E"]}', 'on_e(meal_planner.event)', options => '{"breaker": {"open_seconds": 3}}');
