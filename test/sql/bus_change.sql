-- A subscription that changes its mode handles every event once; one that goes says what becomes of its deliveries.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS meal_planner CASCADE;
CREATE EXTENSION meal_planner;
RESET client_min_messages;
\set SHOW_CONTEXT never

CREATE TABLE seen (n serial, event int);
CREATE FUNCTION on_e(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF (e.detail ->> 'n')::int < 0 THEN
        RAISE EXCEPTION 'not yet' USING ERRCODE = 'MPT01';
    END IF;
    INSERT INTO seen (event) VALUES ((e.detail ->> 'n')::int);
END $$;
CREATE FUNCTION emit(low int, high int, account text DEFAULT 'local') RETURNS bigint LANGUAGE sql
AS $$ SELECT count(mp_emit_event('E', jsonb_build_object('n', n), account => account)) FROM generate_series(low, high) n $$;
CREATE FUNCTION become(mode text, options jsonb DEFAULT '{}') RETURNS void LANGUAGE sql
AS $$ SELECT mp_subscribe('s', '{"detail-type": ["E"]}', CASE WHEN mode <> 'pull' THEN 'on_e(meal_planner.event)'::regprocedure END, mode, options) $$;
CREATE VIEW summary AS
SELECT count(*) AS events, count(DISTINCT event) AS different, min(event), max(event) FROM seen;

-- Worker to inline with a lag, in two accounts: what lies between becomes deliveries.
SELECT become('worker');
SELECT emit(1, 3), emit(101, 102, 'smith');
CALL mp_sweep();
SELECT emit(4, 6), emit(103, 104, 'smith');
SELECT mp_emit_event('E', '{"n": 7}', deliver_after => meal_planner.clock() + interval '1 hour') IS NOT NULL AS emitted;
SELECT become('inline', '{"start": "earliest"}');
SELECT emit(8, 9);
SELECT * FROM summary;
SELECT lag_events, retrying FROM mp_subscriptions WHERE name = 's';
CALL mp_sweep();
SELECT * FROM summary;
SET meal_planner.clock_offset = 3601;
CALL mp_sweep();
RESET meal_planner.clock_offset;
SELECT * FROM summary;
-- Back again, and to pull and back: nothing twice, nothing lost.
SELECT become('worker', '{"start": "earliest"}');
SELECT emit(10, 12);
SELECT become('pull');
SELECT emit(13, 14);
SELECT mode, lag_events FROM mp_subscriptions WHERE name = 's';
SELECT become('worker');
SELECT lag_events FROM mp_subscriptions WHERE name = 's';
CALL mp_sweep();
SELECT emit(15, 15);
SELECT become('pull');
SELECT become('inline');
CALL mp_sweep();
SELECT emit(16, 16);
SELECT * FROM summary;
-- In one transaction with events of its own.
BEGIN;
SELECT emit(17, 17);
SELECT become('worker');
SELECT emit(18, 18);
SELECT become('inline');
SELECT emit(19, 19);
COMMIT;
CALL mp_sweep();
SELECT * FROM summary;
SELECT count(*) AS left FROM meal_planner.delivery;
-- Too far behind, and with a snapshot of its own: refused, and it stays as it was.
SELECT become('worker');
SELECT count(mp_put_events((SELECT jsonb_agg(jsonb_build_object('Source', 's', 'DetailType', 'X', 'Detail', '{}'::jsonb)) FROM generate_series(1, 1000)))) FROM generate_series(1, 11);
SELECT become('inline');
\echo :LAST_ERROR_SQLSTATE
SELECT mode, lag_events FROM mp_subscriptions WHERE name = 's';
CALL mp_sweep();
SELECT become('inline');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT become('worker');
ROLLBACK;
SELECT become('sometimes');
SELECT become('worker', '{"start": "some day"}');

-- From pull, with events in the hands of a consumer: not before it has acknowledged them, or its lease has ended.
TRUNCATE seen;
SELECT become('pull');
SELECT emit(31, 34), emit(35, 35, 'smith');
SELECT token, count(*) FROM (SELECT token FROM mp_claim('s', 2)) c GROUP BY token \gset held_
SELECT become('worker');
SELECT become('inline');
SELECT mp_ack(:'held_token');
SELECT count(*) AS claimed FROM mp_claim('s', 1, 2);
SET meal_planner.clock_offset = 10;
SELECT become('inline');
SELECT count(*) AS claims FROM meal_planner.consumer_claim;
SET meal_planner.clock_offset = 20;
CALL mp_sweep();
RESET meal_planner.clock_offset;
SELECT array_agg(event ORDER BY event) FROM seen;
-- Unsubscribed, what a consumer holds becomes dead letters, too.
SELECT become('pull');
SELECT emit(36, 39);
SELECT count(*) AS claimed FROM mp_claim('s', 2);
SELECT mp_unsubscribe('s', 'refuse');
SELECT mp_unsubscribe('s');
SELECT event -> 'detail' ->> 'n' AS event, reason, status FROM mp_dlq ORDER BY event_id;
SELECT mp_discard_dlq(id, 'test') FROM mp_dlq;
SELECT count(*) AS deliveries, (SELECT count(*) FROM meal_planner.consumer_claim) AS claims FROM meal_planner.delivery;

-- Unsubscribed: its live deliveries become dead letters, unless told otherwise.
TRUNCATE seen;
SELECT become('inline', '{"order_key": "source", "on_dead": "block_key"}');
SELECT emit(-1, -1), emit(21, 22);
CALL mp_sweep();
SELECT mp_unsubscribe('s', 'refuse');
SELECT mp_unsubscribe('s', 'keep');
SELECT mp_unsubscribe('s');
SELECT event -> 'detail' ->> 'n' AS event, subscription, error_type, reason, sqlstate, retry_count, status FROM mp_dlq WHERE status = 'dead' ORDER BY event_id;
SELECT count(*) AS left, (SELECT count(*) FROM mp_alerts) AS alerts FROM meal_planner.delivery;
-- Its letters block nobody who takes the name.
SELECT become('inline', '{"order_key": "source", "on_dead": "block_key"}');
SELECT emit(23, 23);
SELECT event FROM seen;
-- but can be replayed to it.
SELECT mp_replay_dlq(id) FROM mp_dlq WHERE event -> 'detail' ->> 'n' = '21';
SELECT event FROM seen ORDER BY n;
SELECT emit(-2, -2);
SELECT mp_replay_dlq(id) FROM mp_dlq WHERE event -> 'detail' ->> 'n' = '-1';
SELECT mp_unsubscribe('s', 'discard');
SELECT event -> 'detail' ->> 'n' AS event, reason, status FROM mp_dlq ORDER BY event_id;
-- What was settled long ago comes again by a replay of the log, and fails: it is dead once more, as if it were new.
SELECT become('inline');
SELECT emit(24, 24), emit(-3, -3);
SELECT mp_send_to_dlq(id, 'permanent', 'by hand', 2, 's') IS NOT NULL AS sent FROM meal_planner.event WHERE detail ->> 'n' IN ('24', '-3');
SELECT mp_discard_dlq(id, 'not needed') FROM mp_dlq WHERE event -> 'detail' ->> 'n' IN ('24', '-3');
SELECT mp_replay('s', pattern => '{"detail": {"n": [-3]}}');
CALL mp_sweep();
SELECT mp_unsubscribe('s');
SELECT event -> 'detail' ->> 'n' AS event, reason, sqlstate, retry_count, status, settled_at IS NULL AS open, discard_reason,
       (SELECT array_agg(a.verdict ORDER BY a.number) FROM mp_attempts a WHERE a.dlq_id = d.id) AS attempts
  FROM mp_dlq d WHERE event -> 'detail' ->> 'n' IN ('24', '-3') ORDER BY event_id;
SELECT count(*) AS left FROM meal_planner.delivery;
SELECT become('inline');
SELECT mp_unsubscribe('s', 'refuse');

DROP VIEW summary;
DROP TABLE seen;
DROP FUNCTION on_e, emit, become;
