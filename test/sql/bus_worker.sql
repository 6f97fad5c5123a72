-- Worker subscriptions: the sweep runs them from a cursor, effects and cursor together.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS meal_planner CASCADE;
CREATE EXTENSION meal_planner;
RESET client_min_messages;
\set SHOW_CONTEXT never

CREATE TABLE seen (n serial, subscription text, account text, event int);
CREATE TABLE broken (event int, sqlstate text);
CREATE FUNCTION work(name text, e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    fault text := (SELECT b.sqlstate FROM broken b WHERE b.event = (e.detail ->> 'n')::int);
BEGIN
    INSERT INTO seen (subscription, account, event) VALUES (name, e.account, (e.detail ->> 'n')::int);
    IF fault IS NOT NULL THEN
        RAISE EXCEPTION 'event % is broken', e.detail ->> 'n' USING ERRCODE = fault;
    END IF;
END $$;
CREATE FUNCTION on_w(e meal_planner.event) RETURNS void LANGUAGE sql AS $$ SELECT work('w', e) $$;
CREATE FUNCTION on_v(e meal_planner.event) RETURNS void LANGUAGE sql AS $$ SELECT work('v', e) $$;
CREATE FUNCTION emit(low int, high int, account text DEFAULT 'local', type text DEFAULT 'Work') RETURNS bigint LANGUAGE sql
AS $$ SELECT count(mp_emit_event(type, jsonb_build_object('n', n), account => account)) FROM generate_series(low, high) n $$;
CREATE FUNCTION summary(name text) RETURNS TABLE (account text, events bigint, in_order boolean, once boolean) LANGUAGE sql AS $$
    SELECT s.account, count(*), bool_and(s.ok), count(*) = count(DISTINCT s.event)
      FROM (SELECT account, event, event > lag(event, 1, -1) OVER (PARTITION BY account ORDER BY n) AS ok
              FROM seen WHERE subscription = name) s
     GROUP BY s.account ORDER BY s.account
$$;

-- Starts: latest gets what comes, earliest all there is, a time what came since.
SELECT emit(1, 10);
SELECT pg_sleep(0.002);
SELECT meal_planner.position_time(meal_planner.next_position()) AS since \gset
SELECT emit(11, 15);
SELECT mp_subscribe('w', '{"detail-type": ["Work"]}', 'on_w(meal_planner.event)', 'worker'),
       mp_subscribe('v', '{"detail-type": ["Work"]}', 'on_v(meal_planner.event)', 'worker', '{"start": "earliest"}');
SELECT mp_subscribe('since', '{"detail-type": ["Work"]}', 'on_v(meal_planner.event)', 'worker', jsonb_build_object('start', :'since'));
SELECT emit(16, 16);
-- Nothing is handled by the emitter.
SELECT count(*) AS seen FROM seen;
SELECT name, cursor > 0 AS started, lag_events, lag_seconds IS NOT NULL AS late FROM mp_subscriptions WHERE NOT builtin ORDER BY name;
CALL mp_sweep();
SELECT array_agg(event ORDER BY n) AS latest FROM seen WHERE subscription = 'w';
SELECT event, count(*) FROM seen WHERE subscription = 'v' GROUP BY event ORDER BY event;
SELECT name, lag_events, in_flight FROM mp_subscriptions WHERE NOT builtin ORDER BY name;
-- A second sweep has nothing to do.
CALL mp_sweep();
SELECT count(*) AS seen FROM seen;
SELECT mp_unsubscribe('since'), mp_unsubscribe('v');
TRUNCATE seen;

-- Many accounts, several batches: each in order, everything once; the cursor is one row per account.
SELECT emit(100, 299), emit(100, 219, 'smith'), emit(1, 1, 'jones'), emit(1, 120, 'other types', 'Play');
CALL mp_sweep();
SELECT * FROM summary('w');
SELECT account, count(*) AS rows,
       max(position) = (SELECT max(e.position) FROM meal_planner.event e WHERE e.account = c.account) AS at_the_end
  FROM meal_planner.subscription_cursor c WHERE subscription = 'w' GROUP BY account ORDER BY account;
SELECT count(*) AS batches_left FROM meal_planner.worker_batch;

-- A failure in the middle of a batch: the others go through, each once, and the broken one is retried alone.
TRUNCATE seen;
INSERT INTO broken VALUES (310, 'MPT01'), (320, '22000'), (330, 'MPT01');
SELECT emit(301, 340);
CALL mp_sweep();
SELECT * FROM summary('w');
SELECT e.detail ->> 'n' AS event, d.attempt, d.sqlstate, d.error_message
  FROM meal_planner.delivery d JOIN meal_planner.event e USING (account, position) ORDER BY 1;
SELECT event -> 'detail' ->> 'n' AS event, reason, sqlstate FROM mp_dlq;
SELECT lag_events, retrying, dead FROM mp_subscriptions WHERE name = 'w';
DELETE FROM broken WHERE event = 310;
SET meal_planner.clock_offset = 1000;
CALL mp_sweep();
RESET meal_planner.clock_offset;
SELECT event FROM seen WHERE event IN (310, 320, 330);
SELECT e.detail ->> 'n' AS event, d.attempt
  FROM meal_planner.delivery d JOIN meal_planner.event e USING (account, position) ORDER BY 1;
TRUNCATE broken;
SET meal_planner.clock_offset = 2000;
CALL mp_sweep();
RESET meal_planner.clock_offset;
SELECT count(*) AS left FROM meal_planner.delivery;

-- The cursor and the effects are one: a batch whose transaction dies has neither.
TRUNCATE seen;
CREATE FUNCTION on_cancel(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM work('w', e);
    IF e.detail ->> 'n' = '403' AND current_setting('mp_test.cancel', true) = 'on' THEN
        PERFORM pg_cancel_backend(pg_backend_pid());
        PERFORM pg_sleep(60);
    END IF;
END $$;
SELECT mp_subscribe('w', '{"detail-type": ["Work"]}', 'on_cancel(meal_planner.event)', 'worker');
SELECT emit(401, 405);
SET mp_test.cancel = on;
CALL mp_sweep();
SELECT count(*) AS seen FROM seen;
SELECT lag_events FROM mp_subscriptions WHERE name = 'w';
SET mp_test.cancel = off;
-- The stretch is taken apart, since nobody knows which event it was; nothing is lost, nothing twice.
CALL mp_sweep();
SELECT * FROM summary('w');
SELECT count(*) AS left FROM meal_planner.delivery;
SELECT count(*) AS batches_left FROM meal_planner.worker_batch;
-- One event alone tells: its delivery counts a crash.
SELECT emit(403, 403);
SET mp_test.cancel = on;
CALL mp_sweep();
SET mp_test.cancel = off;
CALL mp_sweep();
SELECT attempt, crashes, error_message FROM meal_planner.delivery;
SET meal_planner.clock_offset = 1000;
CALL mp_sweep();
RESET meal_planner.clock_offset;
SELECT count(*) AS left FROM meal_planner.delivery;
SELECT event, count(*) FROM seen WHERE event = 403 GROUP BY event;
-- Two crashes are enough: dead, with the reason and an alert.
SELECT emit(403, 403);
SET mp_test.cancel = on;
CALL mp_sweep();
CALL mp_sweep();
SET meal_planner.clock_offset = 1000;
CALL mp_sweep();
CALL mp_sweep();
RESET meal_planner.clock_offset;
SET mp_test.cancel = off;
SELECT subscription, error_type, reason, error_message, retry_count, status FROM mp_dlq WHERE reason = 'crash';
SELECT count(*) AS alerts FROM mp_alerts a JOIN mp_dlq l ON l.id = a.dead_letter_id WHERE l.reason = 'crash';
SELECT count(*) AS left FROM meal_planner.delivery;

-- Paused: it keeps its place.
TRUNCATE seen;
SELECT mp_subscribe('w', '{"detail-type": ["Work"]}', 'on_w(meal_planner.event)', 'worker');
SELECT mp_pause_subscription('w', 'test');
SELECT emit(501, 503);
CALL mp_sweep();
SELECT count(*) AS seen FROM seen;
SELECT mp_resume_subscription('w');
CALL mp_sweep();
SELECT * FROM summary('w');

-- Replaced: a new pattern and handler, the same cursor.
TRUNCATE seen;
SELECT emit(511, 513);
SELECT mp_subscribe('w', '{"detail-type": ["Work"], "detail": {"n": [{"numeric": [">", 511]}]}}', 'on_w(meal_planner.event)', 'worker',
                    '{"start": "earliest"}');
CALL mp_sweep();
SELECT array_agg(event ORDER BY n) FROM seen;
-- To inline and back: what was handled inline is not handled again.
TRUNCATE seen;
SELECT mp_subscribe('w', '{"detail-type": ["Work"]}', 'on_w(meal_planner.event)', 'inline');
SELECT emit(521, 523);
SELECT mp_subscribe('w', '{"detail-type": ["Work"]}', 'on_w(meal_planner.event)', 'worker');
CALL mp_sweep();
SELECT emit(524, 525);
CALL mp_sweep();
SELECT * FROM summary('w');
SELECT mp_unsubscribe('w');
SELECT count(*) AS cursors FROM meal_planner.subscription_cursor;
-- Subscribed anew under the old name: no memory of the old cursor.
TRUNCATE seen;
SELECT mp_subscribe('w', '{"detail-type": ["Work"]}', 'on_w(meal_planner.event)', 'worker', '{"start": "earliest"}');
CALL mp_sweep();
SELECT count(*) = (SELECT count(*) FROM meal_planner.event WHERE detail_type = 'Work') AS all_again FROM seen;
TRUNCATE seen;

-- deliver_after: recorded at once, delivered then, inline and by the worker.
SELECT mp_subscribe('inline', '{"detail-type": ["Work"]}', 'on_v(meal_planner.event)');
SELECT mp_emit_event('Work', '{"n": 601}', deliver_after => meal_planner.clock() + interval '1 hour') IS NOT NULL
   AND mp_emit_event('Work', '{"n": 602}', deliver_after => meal_planner.clock() - interval '1 hour') IS NOT NULL
   AND mp_emit_event('Work', '{"n": 603}') IS NOT NULL AS emitted;
CALL mp_sweep();
SELECT subscription, array_agg(event ORDER BY n) FROM seen GROUP BY subscription ORDER BY subscription;
SELECT count(*) AS readable FROM mp_read_events(pattern => '{"detail": {"n": [601]}}');
SELECT subscription, attempt, sqlstate IS NULL AS no_failure FROM meal_planner.delivery ORDER BY 1;
SELECT name, retrying, lag_events FROM mp_subscriptions WHERE name IN ('w', 'inline') ORDER BY name;
SET meal_planner.clock_offset = 1800;
CALL mp_sweep();
SELECT count(*) AS too_early FROM seen WHERE event = 601;
SET meal_planner.clock_offset = 3601;
CALL mp_sweep();
RESET meal_planner.clock_offset;
SELECT subscription, count(*) FROM seen WHERE event = 601 GROUP BY subscription ORDER BY subscription;
SELECT count(*) AS left FROM meal_planner.delivery;
SELECT mp_unsubscribe('inline');

-- A handler that emits: hops are counted, and a worker that feeds itself comes to an end.
TRUNCATE seen;
CREATE FUNCTION on_loop(e meal_planner.event) RETURNS void LANGUAGE sql AS $$
    SELECT mp_emit_event('Loop', jsonb_build_object('n', (e.detail ->> 'n')::int + 1), account => 'loop')
$$;
SELECT mp_subscribe('loop', '{"detail-type": ["Loop"]}', 'on_loop(meal_planner.event)', 'worker');
SELECT emit(0, 0, 'loop', 'Loop');
CALL mp_sweep();
SELECT count(*) AS events, max(hops) AS hops FROM meal_planner.event WHERE account = 'loop';
SELECT sqlstate, event -> 'detail' AS detail FROM mp_dlq WHERE account = 'loop';
SELECT mp_unsubscribe('loop');

-- Batches begin with few events and grow while the handler is fast, but where
-- one fails no more than 50 share its transaction.
CREATE TABLE batch (xid xid8, event int);
CREATE FUNCTION on_batch(e meal_planner.event) RETURNS void LANGUAGE sql
AS $$ INSERT INTO batch VALUES (pg_current_xact_id(), (e.detail ->> 'n')::int);
      SELECT 1 / ((e.detail ->> 'n')::int - 1997) $$; -- one fails
SELECT mp_subscribe('batch', '{"detail-type": ["Batch"]}', 'on_batch(meal_planner.event)', 'worker');
SELECT emit(1, 3000, 'batch', 'Batch');
CALL mp_sweep();
SELECT count(*), count(DISTINCT event) AS events FROM batch;
SELECT (array_agg(n ORDER BY first))[1] AS first_batch, max(n) <= 1000 AS not_too_large
  FROM (SELECT count(*) AS n, min(event) AS first FROM batch GROUP BY xid) b;
SELECT count(*) BETWEEN 0 AND 49 AS few
  FROM batch b, meal_planner.dead_letter l
 WHERE l.subscription = 'batch' AND b.xid::text = l.xmin::text;
SELECT mp_discard_dlq(id, 'test') FROM mp_dlq WHERE subscription = 'batch';
SELECT mp_unsubscribe('batch'), mp_unsubscribe('w');

-- Very many deliveries are due: what else there is comes among them, and not after the last.
CREATE TABLE course (n serial, what text);
CREATE FUNCTION on_course(e meal_planner.event) RETURNS void LANGUAGE sql AS $$ INSERT INTO course (what) VALUES (e.detail_type) $$;
CREATE FUNCTION step_course(s jsonb) RETURNS void LANGUAGE sql AS $$ INSERT INTO course (what) VALUES ('saga') $$;
SELECT mp_subscribe('late', '{"detail-type": ["late"]}', 'on_course(meal_planner.event)'), mp_pause_subscription('late');
SELECT count(mp_emit_event('late', '{}')) FROM generate_series(1, 30);
SELECT mp_resume_subscription('late');
SELECT mp_subscribe('new', '{"detail-type": ["new"]}', 'on_course(meal_planner.event)', 'worker');
SELECT mp_emit_event('new', '{}') IS NOT NULL AS emitted;
SELECT mp_define_saga('course', '{"steps": [{"name": "a", "kind": "pivot", "run": "step_course(jsonb)"}]}');
SELECT mp_start_saga('course', '{}') IS NOT NULL AS started;
CALL mp_sweep();
SELECT what, count(*), min(n) FROM course GROUP BY what ORDER BY what;
SELECT mp_unsubscribe('late'), mp_unsubscribe('new');
DROP TABLE course;
DROP FUNCTION on_course, step_course;

-- Sweeps by hand: not within a transaction, and with sensible arguments.
BEGIN;
CALL mp_sweep();
ROLLBACK;
CREATE FUNCTION sweep_inside() RETURNS void LANGUAGE plpgsql AS $$ BEGIN CALL mp_sweep(); END $$;
SELECT sweep_inside();
-- Nor in a handler; what ends a transaction there is wrong however often it is tried.
CREATE FUNCTION commits(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN COMMIT; END $$;
CREATE FUNCTION sweeps(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN CALL mp_sweep(); END $$;
SELECT mp_subscribe('commits', '{"detail-type": ["Inside"]}', 'commits(meal_planner.event)'),
       mp_subscribe('sweeps', '{"detail-type": ["Inside"]}', 'sweeps(meal_planner.event)');
SELECT mp_emit_event('Inside', '{}') IS NOT NULL AS emitted;
SELECT subscription, reason, "sqlstate", error_message FROM mp_dlq WHERE detail_type = 'Inside';
SELECT subscription, "sqlstate", error_message FROM meal_planner.delivery WHERE subscription = 'sweeps';
SELECT mp_unsubscribe('commits'), mp_unsubscribe('sweeps');
DROP FUNCTION commits, sweeps;
CALL mp_sweep(-1);
CALL mp_sweep('NaN');
CALL mp_sweep(86401);
CALL mp_sweep(NULL);
CALL mp_sweep(0.01);
SELECT count(*) AS tokens_held FROM pg_locks WHERE locktype = 'object' AND pid = pg_backend_pid();

DROP TABLE seen, broken, batch;
DROP FUNCTION work, on_w, on_v, emit, summary, on_cancel, on_loop, on_batch, sweep_inside;
