-- A handler that takes longer than its timeout fails; a cancel is still a cancel.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS meal_planner CASCADE;
CREATE EXTENSION meal_planner;
RESET client_min_messages;
\set SHOW_CONTEXT never

CREATE TABLE seen (n serial, handler text, event int);
CREATE FUNCTION slow(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF e.detail ? 'sleep' AND current_setting('mp_test.slow', true) = 'on' THEN
        PERFORM pg_sleep((e.detail ->> 'sleep')::float8);
    END IF;
    INSERT INTO seen (handler, event) VALUES ('slow', (e.detail ->> 'n')::int);
END $$;
CREATE FUNCTION quick(e meal_planner.event) RETURNS void LANGUAGE sql AS $$ INSERT INTO seen (handler, event) VALUES ('quick', (e.detail ->> 'n')::int) $$;
CREATE FUNCTION pg_temp.emit(n int, sleep float8 DEFAULT NULL, type text DEFAULT 'E') RETURNS boolean LANGUAGE sql AS $$
    SELECT mp_emit_event(type, jsonb_strip_nulls(jsonb_build_object('n', n, 'sleep', sleep))) IS NOT NULL
$$;
CREATE VIEW outcome AS
SELECT d.subscription, e.detail ->> 'n' AS event, d.attempt, d.sqlstate, d.error_message
  FROM meal_planner.delivery d JOIN meal_planner.event e USING (account, position) ORDER BY 1, 2;
SET mp_test.slow = on;

SELECT mp_subscribe('s', '{"detail-type": ["E"]}', 'slow(meal_planner.event)', options => '{"timeout": 0}');
SELECT mp_subscribe('s', '{"detail-type": ["E"]}', 'slow(meal_planner.event)', options => '{"timeout": "1 s"}');
SELECT mp_backoff(2, '{"timeout": 1}');
SELECT mp_subscribe('s', '{"detail-type": ["E"]}', 'slow(meal_planner.event)', options => '{"timeout": 1}'),
       mp_subscribe('t', '{"detail-type": ["E"]}', 'quick(meal_planner.event)', options => '{"timeout": 60}');

-- Inline: it fails and is undone, and neither its emitter nor anybody after it is cancelled.
SELECT pg_temp.emit(1), pg_temp.emit(2, 60), pg_temp.emit(3);
SELECT * FROM outcome;
SELECT handler, array_agg(event ORDER BY n) FROM seen GROUP BY handler ORDER BY handler;
SELECT pg_sleep(1.1);
SELECT mp_classify_error(sqlstate) FROM outcome;
-- A call has the time, not a batch.
SELECT mp_put_events((SELECT jsonb_agg(jsonb_build_object('Source', 's', 'DetailType', 'E', 'Detail', jsonb_build_object('n', n, 'sleep', 0.4))) FROM generate_series(11, 15) n)) -> 'FailedEntryCount' AS failed;
SELECT count(*) FROM seen WHERE handler = 'slow' AND event > 10;
SELECT mp_put_events((SELECT jsonb_agg(jsonb_build_object('Source', 's', 'DetailType', 'E', 'Detail', jsonb_build_object('n', n, 'sleep', CASE n WHEN 22 THEN 60 ELSE 0 END))) FROM generate_series(21, 23) n)) -> 'FailedEntryCount' AS failed;
SELECT array_agg(event ORDER BY n) FROM seen WHERE handler = 'slow' AND event > 20;
SELECT * FROM outcome;
-- The sweep's attempt has it, too.
DELETE FROM meal_planner.delivery d USING meal_planner.event e WHERE e.position = d.position AND e.detail ->> 'n' = '22';
SET meal_planner.clock_offset = 3;
CALL mp_sweep();
SELECT * FROM outcome;
SET mp_test.slow = off;
SET meal_planner.clock_offset = 10;
CALL mp_sweep();
SET mp_test.slow = on;
RESET meal_planner.clock_offset;
SELECT count(*) AS left FROM outcome;

-- statement_timeout and a cancel are not the handler's failures.
SELECT mp_subscribe('s', '{"detail-type": ["E"]}', 'slow(meal_planner.event)', options => '{"timeout": 30}');
SET statement_timeout = '50ms';
SELECT pg_temp.emit(31, 60);
RESET statement_timeout;
CREATE FUNCTION cancelled(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_cancel_backend(pg_backend_pid()), pg_sleep(60); END $$;
SELECT mp_subscribe('c', '{"detail-type": ["C"]}', 'cancelled(meal_planner.event)', options => '{"timeout": 30}');
SELECT pg_temp.emit(32, NULL, 'C');
SELECT count(*) AS recorded FROM meal_planner.event WHERE detail ->> 'n' IN ('31', '32');

-- Handlers within handlers: the limit of the outer one ends the inner one, and is the outer one's failure.
CREATE FUNCTION outer_one(e meal_planner.event) RETURNS void LANGUAGE sql AS $$
    INSERT INTO seen (handler, event) VALUES ('outer', (e.detail ->> 'n')::int);
    SELECT mp_emit_event('E', e.detail)
$$;
SELECT mp_subscribe('o', '{"detail-type": ["O"]}', 'outer_one(meal_planner.event)', options => '{"timeout": 1}');
SELECT pg_temp.emit(41, 60, 'O');
SELECT * FROM outcome;
SELECT count(*) AS effects FROM seen WHERE event = 41;
DELETE FROM meal_planner.delivery;
-- The limit of the inner one ends that one alone.
SELECT mp_subscribe('s', '{"detail-type": ["E"]}', 'slow(meal_planner.event)', options => '{"timeout": 1}'),
       mp_subscribe('o', '{"detail-type": ["O"]}', 'outer_one(meal_planner.event)', options => '{"timeout": 60}');
SELECT pg_temp.emit(42, 30, 'O');
SELECT * FROM outcome;
SELECT handler FROM seen WHERE event = 42 ORDER BY handler;
SELECT pg_sleep(1.1);

DROP VIEW outcome;
DROP TABLE seen;
DROP FUNCTION slow, quick, cancelled, outer_one;
