-- A handler that cannot run pauses its subscription: one alert, no attempt, nothing lost.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS meal_planner CASCADE;
CREATE EXTENSION meal_planner;
RESET client_min_messages;
\set SHOW_CONTEXT never

CREATE TABLE seen (n serial, subscription text, event int);
CREATE FUNCTION on_bad(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF (e.detail ->> 'n')::int >= 0 THEN
        INSERT INTO to_be_deployed VALUES ((e.detail ->> 'n')::int);
    END IF;
    INSERT INTO seen (subscription, event) VALUES ('bad', (e.detail ->> 'n')::int);
END $$;
CREATE FUNCTION on_good(e meal_planner.event) RETURNS void LANGUAGE sql AS $$ INSERT INTO seen (subscription, event) VALUES ('good', (e.detail ->> 'n')::int) $$;
CREATE FUNCTION emit(low int, high int) RETURNS bigint LANGUAGE sql
AS $$ SELECT count(mp_emit_event('E', jsonb_build_object('n', n))) FROM generate_series(low, high) n $$;
CREATE VIEW state AS
SELECT s.name, s.paused, s.paused_reason, s.retrying, s.dead, s.lag_events,
       (SELECT count(*) FROM mp_alerts a WHERE a.kind = 'paused' AND a.subscription = s.name) AS alerts
  FROM mp_subscriptions s WHERE NOT s.builtin ORDER BY s.name;

-- Inline.
SELECT mp_subscribe('bad', '{"detail-type": ["E"]}', 'on_bad(meal_planner.event)'),
       mp_subscribe('good', '{"detail-type": ["E"]}', 'on_good(meal_planner.event)');
SELECT emit(-1, 3);
SELECT * FROM state;
SELECT subscription, array_agg(event ORDER BY n) FROM seen GROUP BY 1 ORDER BY 1;
SELECT e.detail ->> 'n' AS event, d.attempt, d.sqlstate, d.first_failed_at IS NULL AS has_no_age FROM meal_planner.delivery d JOIN meal_planner.event e USING (account, position) ORDER BY e.position;
SELECT kind, subscription, account, message FROM mp_alerts;
CALL mp_sweep();
SELECT * FROM state;
-- Resumed too early: the sweep pauses it again, with another alert, and burns nothing.
SELECT mp_resume_subscription('bad');
CALL mp_sweep();
SELECT * FROM state;
SELECT DISTINCT attempt FROM meal_planner.delivery;
-- Deployed.
CREATE TABLE to_be_deployed (n int);
SELECT mp_resume_subscription('bad');
CALL mp_sweep();
SELECT * FROM state;
SELECT subscription, array_agg(event ORDER BY n) FROM seen GROUP BY 1 ORDER BY 1;

-- An emitter that rolls back paused nothing.
DROP TABLE to_be_deployed;
BEGIN;
SELECT emit(4, 5);
SELECT paused, retrying FROM state WHERE name = 'bad';
ROLLBACK;
SELECT * FROM state WHERE name = 'bad';
BEGIN;
SAVEPOINT s;
SELECT emit(4, 5);
ROLLBACK TO s;
SELECT emit(-1, -1);
COMMIT;
SELECT * FROM state WHERE name = 'bad';
SELECT subscription, count(*) FROM seen WHERE event = -1 GROUP BY 1 ORDER BY 1;
-- With a snapshot of its own an emitter leaves the pause to the sweep.
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT emit(6, 7);
COMMIT;
SELECT paused, retrying FROM state WHERE name = 'bad';
SET meal_planner.clock_offset = 3;
CALL mp_sweep();
SET meal_planner.clock_offset = 10;
SELECT paused, paused_reason, retrying, dead FROM state WHERE name = 'bad';
-- What is permanent for this one subscription, by a row of its own, is no deploy error.
SELECT mp_resume_subscription('bad');
INSERT INTO meal_planner.error_class (service, code, class) VALUES ('subscription:bad', '42P01', 'permanent');
CALL mp_sweep();
SELECT paused, paused_reason, retrying, dead FROM state WHERE name = 'bad';
DELETE FROM meal_planner.error_class WHERE service = 'subscription:bad';
-- A replay that cannot run: it waits with the others.
SELECT mp_replay_dlq(id) FROM mp_dlq WHERE status = 'dead' ORDER BY id LIMIT 1;
SELECT paused, retrying, dead FROM state WHERE name = 'bad';
CREATE TABLE to_be_deployed (n int);
SELECT mp_resume_subscription('bad');
CALL mp_sweep();
SELECT status, replay_count FROM mp_dlq ORDER BY id;
SELECT paused, retrying, dead FROM state WHERE name = 'bad';
RESET meal_planner.clock_offset;
SELECT mp_unsubscribe('bad'), mp_unsubscribe('good');

-- Worker: it keeps its place at the event that could not be handled, however long the backlog; delayed events of the batch are not delivered twice.
TRUNCATE seen, meal_planner.alert;
DROP TABLE to_be_deployed;
SELECT mp_subscribe('bad', '{"detail-type": ["E"]}', 'on_bad(meal_planner.event)', 'worker', '{"order_key": "detail.n"}');
SELECT emit(-3, -1), emit(11, 13);
SELECT mp_emit_event('E', '{"n": 14}', deliver_after => meal_planner.clock() + interval '1 hour') IS NOT NULL AS emitted;
SELECT emit(15, 100);
CALL mp_sweep();
SELECT * FROM state;
SELECT array_agg(event ORDER BY n) FROM seen;
SELECT e.detail ->> 'n' AS event, d.attempt, d.sqlstate FROM meal_planner.delivery d JOIN meal_planner.event e USING (account, position) ORDER BY e.position;
CREATE TABLE to_be_deployed (n int);
SELECT mp_resume_subscription('bad');
CALL mp_sweep();
SELECT * FROM state;
SET meal_planner.clock_offset = 3601;
CALL mp_sweep();
RESET meal_planner.clock_offset;
SELECT count(*), count(DISTINCT n), min(n), max(n) FROM to_be_deployed;
SELECT count(*) AS left FROM meal_planner.delivery;
-- The same when the delayed event has become due before the resume.
DROP TABLE to_be_deployed;
SELECT emit(111, 112);
SELECT mp_emit_event('E', '{"n": 113}', deliver_after => meal_planner.clock() + interval '1 hour') IS NOT NULL AS emitted;
CALL mp_sweep();
CREATE TABLE to_be_deployed (n int);
SELECT mp_resume_subscription('bad');
SET meal_planner.clock_offset = 3601;
CALL mp_sweep();
RESET meal_planner.clock_offset;
SELECT array_agg(n ORDER BY n) FROM to_be_deployed;
SELECT count(*) AS left FROM meal_planner.delivery;
SELECT mp_unsubscribe('bad');

DROP VIEW state;
DROP TABLE seen, to_be_deployed;
DROP FUNCTION on_bad, on_good, emit;
