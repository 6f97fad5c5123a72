-- Dead letters: one row per (event, subscription), alerts, replay, discard.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS meal_planner CASCADE;
CREATE EXTENSION meal_planner;
RESET client_min_messages;
\set SHOW_CONTEXT never

CREATE TABLE seen (n serial, detail jsonb);
CREATE TABLE fault (sqlstate text);
CREATE FUNCTION on_order(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    fault text := (SELECT f.sqlstate FROM fault f);
BEGIN
    INSERT INTO seen (detail) VALUES (e.detail);
    IF fault IS NOT NULL THEN
        RAISE EXCEPTION 'fault %', fault USING ERRCODE = fault;
    END IF;
    PERFORM 1 / (e.detail ->> 'n')::int;
END $$;
SELECT mp_subscribe('orders', '{"detail-type": ["Order"]}', 'on_order(meal_planner.event)');
CREATE VIEW letter AS
SELECT subscription, detail_type, error_type, reason, sqlstate, error_message, retry_count, status, replay_count,
       event -> 'detail' AS detail, corrected_detail, settled_at IS NOT NULL AS settled, discard_reason
  FROM mp_dlq ORDER BY id;

CREATE FUNCTION pg_temp.refusal(call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    state text; message text; detail text; hint text;
BEGIN
    EXECUTE call;
    RETURN 'accepted';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RETURN concat_ws(' / ', CASE WHEN message LIKE state || ': %' THEN NULL ELSE state END,
                     regexp_replace(message, 'dead letter \d+', 'dead letter N'), nullif(detail, ''), hint);
END $$;

-- A permanent failure: a letter and one alert.
SELECT mp_emit_event('Order', '{"n": 0}') AS event_id \gset
SELECT * FROM letter;
SELECT id AS letter FROM mp_dlq \gset
SELECT event_id = :'event_id' AS of_event, event = mp_event(:'event_id') AS envelope,
       first_failed_at = dead_at OR first_failed_at < dead_at AS times FROM mp_dlq;
SELECT kind, subscription, message, dead_letter_id = :letter AS of_letter, event_id = :'event_id' AS of_event, dead_letter_status FROM mp_alerts;
SELECT subscription, error_type, depth FROM mp_dlq_depth;
SELECT dead, retrying FROM mp_subscriptions WHERE name = 'orders';

-- Replayed as it is: dead again, the same row, the next generation's alert.
SELECT mp_replay_dlq(:letter);
SELECT * FROM letter;
SELECT count(*) AS alerts FROM meal_planner.alert;
-- With a corrected detail: done; the event keeps its own.
SELECT mp_replay_dlq(:letter, '{"n": 5}');
SELECT * FROM letter;
SELECT detail FROM seen ORDER BY n;
SELECT mp_event(:'event_id') -> 'detail' AS original;
SELECT array_agg(dead_letter_status) FROM mp_alerts;
SELECT count(*) AS waiting FROM mp_dlq_depth;
-- What is settled is not run again.
SELECT mp_replay_dlq(:letter, '{"n": 6}');
SELECT count(*) AS runs FROM seen;
SELECT pg_temp.refusal(format('SELECT mp_discard_dlq(%s, ''too late'')', :letter));

-- A transient error in a replay: the retry schedule goes on, with the corrected detail, as a new first attempt.
TRUNCATE seen;
SELECT mp_emit_event('Order', '{"n": 0}') AS event_id \gset
SELECT max(id) AS letter FROM mp_dlq \gset
INSERT INTO fault VALUES ('MPT01');
SELECT mp_replay_dlq(:letter, '{"n": 7}');
SELECT status, replay_count, corrected_detail FROM mp_dlq WHERE id = :letter;
SELECT attempt, detail, sqlstate FROM meal_planner.delivery;
-- While it is on its way, it is not replayed twice nor given up.
SELECT mp_replay_dlq(:letter);
SELECT pg_temp.refusal(format('SELECT mp_discard_dlq(%s, ''impatient'')', :letter));
SELECT attempt FROM meal_planner.delivery;
TRUNCATE fault;
SET meal_planner.clock_offset = 1000;
CALL mp_sweep();
RESET meal_planner.clock_offset;
SELECT status, settled_at IS NOT NULL AS settled FROM mp_dlq WHERE id = :letter;
SELECT detail FROM seen;
SELECT count(*) AS left FROM meal_planner.delivery;

-- A replay that fails for good on its way: reopened, the corrected detail kept for the next try.
TRUNCATE seen;
SELECT mp_emit_event('Order', '{"n": 0}') AS event_id \gset
SELECT max(id) AS letter FROM mp_dlq \gset
SELECT count(*) AS alerts FROM meal_planner.alert WHERE dead_letter_id = :letter;
INSERT INTO fault VALUES ('MPT01');
SELECT mp_replay_dlq(:letter, '{"n": 8}');
UPDATE fault SET sqlstate = 'MPP01';
SET meal_planner.clock_offset = 2000;
CALL mp_sweep();
RESET meal_planner.clock_offset;
SELECT status, error_type, reason, sqlstate, retry_count, replay_count, corrected_detail FROM mp_dlq WHERE id = :letter;
SELECT count(*) AS alerts FROM meal_planner.alert WHERE dead_letter_id = :letter;
TRUNCATE fault;
SELECT mp_replay_dlq(:letter);
SELECT detail FROM seen;
SELECT status, replay_count FROM mp_dlq WHERE id = :letter;

-- Given up, with a reason; the row stays.
SELECT mp_emit_event('Order', '{"n": 0}') AS event_id \gset
SELECT max(id) AS letter FROM mp_dlq \gset
SELECT mp_discard_dlq(:letter, '');
SELECT mp_discard_dlq(:letter, NULL);
SELECT mp_discard_dlq(:letter, 'the guest has left');
SELECT status, discard_reason, settled_at IS NOT NULL AS settled FROM mp_dlq WHERE id = :letter;
SELECT mp_replay_dlq(:letter);

-- What is not there, and what is no detail.
SELECT mp_replay_dlq(-1);
\echo :LAST_ERROR_SQLSTATE
SELECT mp_discard_dlq(NULL, 'x');
SELECT mp_replay_dlq(:letter, '[]');
SELECT mp_replay_dlq(:letter, 'null');

-- The replay rolls back with its transaction.
SELECT mp_emit_event('Order', '{"n": 0}') AS event_id \gset
SELECT max(id) AS letter FROM mp_dlq \gset
BEGIN;
SELECT mp_replay_dlq(:letter, '{"n": 1}');
ROLLBACK;
SELECT status, replay_count, corrected_detail FROM mp_dlq WHERE id = :letter;
-- Paused or not, a replay is somebody's explicit wish.
SELECT mp_pause_subscription('orders');
SELECT mp_replay_dlq(:letter, '{"n": 1}');
SELECT mp_resume_subscription('orders');

-- Unsubscribed while a replay is on its way: the letter is dead again, not in limbo.
SELECT mp_emit_event('Order', '{"n": 0}') AS event_id \gset
SELECT max(id) AS letter FROM mp_dlq \gset
INSERT INTO fault VALUES ('MPT01');
SELECT mp_replay_dlq(:letter);
SELECT mp_unsubscribe('orders');
TRUNCATE fault;
SELECT status FROM mp_dlq WHERE id = :letter;
SELECT pg_temp.refusal(format('SELECT mp_replay_dlq(%s)', :letter));
SELECT mp_subscribe('orders', '{"detail-type": ["Order"]}', 'on_order(meal_planner.event)');
SELECT mp_replay_dlq(:letter, '{"n": 1}');

-- Its event is no longer in the log: said so, and the letter stays as it was, to be discarded.
SELECT mp_emit_event('Order', '{"n": 0}') AS event_id \gset
SELECT max(id) AS letter FROM mp_dlq \gset
DELETE FROM meal_planner.event WHERE id = :'event_id';
SELECT regexp_replace(pg_temp.refusal(format('SELECT mp_replay_dlq(%s, ''{"n": 1}'')', :letter)), 'event [0-9a-f-]+', 'event ID');
SELECT status, replay_count, corrected_detail FROM mp_dlq WHERE id = :letter;
SELECT mp_discard_dlq(:letter, 'the event is gone');
SELECT status FROM mp_dlq WHERE id = :letter;
-- The event goes while a replay is on its way: dead again when the sweep finds out.
SELECT mp_emit_event('Order', '{"n": 0}') AS event_id \gset
SELECT max(id) AS letter FROM mp_dlq \gset
INSERT INTO fault VALUES ('MPT01');
SELECT mp_replay_dlq(:letter);
TRUNCATE fault;
DELETE FROM meal_planner.event WHERE id = :'event_id';
SET meal_planner.clock_offset = 2500;
CALL mp_sweep();
RESET meal_planner.clock_offset;
SELECT status, (SELECT count(*) FROM meal_planner.delivery) AS deliveries FROM mp_dlq WHERE id = :letter;
-- Nobody goes on with a replay: it can be started again, or given up.
SELECT mp_emit_event('Order', '{"n": 0}') AS event_id \gset
SELECT max(id) AS letter FROM mp_dlq \gset
INSERT INTO fault VALUES ('MPT01');
SELECT mp_replay_dlq(:letter);
DELETE FROM meal_planner.delivery;
SELECT mp_replay_dlq(:letter);
DELETE FROM meal_planner.delivery;
TRUNCATE fault;
SELECT mp_discard_dlq(:letter, 'stuck');
SELECT status, replay_count FROM mp_dlq WHERE id = :letter;

-- mp_send_to_dlq: by an external consumer, or without any subscription.
SELECT mp_emit_event('Mail', '{"to": "x"}') AS event_id \gset
SELECT mp_send_to_dlq(:'event_id', 'permanent', 'no such mailbox', 3) AS letter \gset
SELECT * FROM letter WHERE detail_type = 'Mail';
SELECT id = :letter AS this_one FROM mp_dlq WHERE detail_type = 'Mail';
SELECT subscription, message FROM mp_alerts WHERE dead_letter_id = :letter;
-- Sent again: the same row with the newest error, no second alert while it is dead.
SELECT mp_send_to_dlq(:'event_id', 'permanent', 'still no such mailbox', 4) = :letter AS same;
SELECT mp_send_to_dlq(:'event_id', 'transient', 'busy', 5) = :letter AS same;
SELECT error_type, reason, error_message, retry_count, status FROM letter WHERE detail_type = 'Mail';
SELECT count(*) AS alerts FROM meal_planner.alert WHERE dead_letter_id = :letter;
-- Discarded and sent once more: reopened, and a new generation has its alert.
SELECT mp_discard_dlq(:letter, 'enough');
SELECT mp_send_to_dlq(:'event_id', 'permanent', 'gone') = :letter AS same;
SELECT error_message, status, discard_reason, settled FROM letter WHERE detail_type = 'Mail';
SELECT count(*) AS alerts FROM meal_planner.alert WHERE dead_letter_id = :letter;
-- A letter that was transient and becomes permanent raises one.
SELECT mp_send_to_dlq(:'event_id', 'transient', 'busy', subscription => 'becoming') IS NOT NULL AS sent;
SELECT count(*) AS alerts FROM meal_planner.alert WHERE subscription = 'becoming';
SELECT mp_send_to_dlq(:'event_id', 'permanent', 'gone', subscription => 'becoming') IS NOT NULL AS sent;
SELECT mp_send_to_dlq(:'event_id', 'permanent', 'gone', subscription => 'becoming') IS NOT NULL AS sent;
SELECT count(*) AS alerts FROM meal_planner.alert WHERE subscription = 'becoming';
-- Dead all the time, whatever it is sent as: no second alert.
SELECT mp_send_to_dlq(:'event_id', 'transient', 'busy', subscription => 'becoming') IS NOT NULL AS sent;
SELECT mp_send_to_dlq(:'event_id', 'permanent', 'gone', subscription => 'becoming') IS NOT NULL AS sent;
SELECT count(*) AS alerts FROM meal_planner.alert WHERE subscription = 'becoming';
-- A transient one raises none; another subscription has its own row.
SELECT mp_send_to_dlq(:'event_id', 'transient', 'busy', NULL, 'mailer') <> :letter AS other;
SELECT subscription, error_type, reason, retry_count FROM letter WHERE detail_type = 'Mail' AND subscription IS DISTINCT FROM 'becoming' ORDER BY subscription NULLS FIRST;
SELECT count(*) AS alerts FROM meal_planner.alert WHERE subscription = 'mailer';
-- Nobody to run.
SELECT pg_temp.refusal(format('SELECT mp_replay_dlq(%s)', :letter));
SELECT mp_subscribe('mailer', '{"detail-type": ["Mail"]}', mode => 'pull');
-- A consumer: the next one that claims.
SELECT mp_replay_dlq(id, '{"to": "cook"}') FROM mp_dlq WHERE subscription = 'mailer';
SELECT status FROM mp_dlq WHERE subscription = 'mailer';
SELECT mp_ack(token), attempt, event -> 'detail' AS detail FROM mp_claim('mailer');
SELECT status, replay_count FROM mp_dlq WHERE subscription = 'mailer';
-- Bad arguments.
SELECT mp_send_to_dlq(:'event_id', 'crash', 'x');
SELECT mp_send_to_dlq(:'event_id', NULL, 'x');
SELECT mp_send_to_dlq('018cc251-f7e8-7000-8000-000000000000', 'permanent', 'x');
SELECT mp_send_to_dlq(NULL, 'permanent', 'x');
SELECT regexp_replace(pg_temp.refusal(format('SELECT mp_send_to_dlq(%L, ''permanent'', ''x'', account => ''smith'')', :'event_id')),
                      'event [0-9a-f-]+', 'event ID');
-- No message is no reason to lose the alert.
SELECT mp_send_to_dlq(:'event_id', 'permanent', NULL, subscription => 'silent') IS NOT NULL AS sent;
SELECT message FROM mp_alerts WHERE subscription = 'silent';

-- A worker's letters are replayed alike.
CREATE FUNCTION on_bulk(e meal_planner.event) RETURNS void LANGUAGE sql AS $$ SELECT 1 / (e.detail ->> 'n')::int $$;
SELECT mp_subscribe('bulk', '{"detail-type": ["Bulk"]}', 'on_bulk(meal_planner.event)', 'worker');
SELECT mp_emit_event('Bulk', '{"n": 0}', account => 'smith') IS NOT NULL AS emitted;
CALL mp_sweep();
SELECT account, subscription, sqlstate, status FROM mp_dlq WHERE account = 'smith';
SELECT mp_replay_dlq(id, '{"n": 1}') FROM mp_dlq WHERE account = 'smith';
SELECT status FROM mp_dlq WHERE account = 'smith';

-- A replay is young again: what it may wait is counted from now, not from the first failure.
CREATE FUNCTION on_aged(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE 'busy' USING ERRCODE = 'MPT01'; END $$;
SELECT mp_subscribe('aged', '{"detail-type": ["Aged"]}', 'on_aged(meal_planner.event)', options => '{"max_age": 100, "max_attempts": 3}');
SELECT mp_emit_event('Aged', '{}') IS NOT NULL AS emitted;
SET meal_planner.clock_offset = 3000;
CALL mp_sweep();
SELECT reason, retry_count FROM mp_dlq WHERE subscription = 'aged';
SELECT count(*) AS alerts FROM meal_planner.alert WHERE subscription = 'aged';
SELECT mp_replay_dlq(id) FROM mp_dlq WHERE subscription = 'aged';
SELECT attempt FROM meal_planner.delivery WHERE subscription = 'aged';
SELECT dead_at - first_failed_at > interval '2900 s' AS first_failure_kept FROM mp_dlq WHERE subscription = 'aged';
-- Exhausted once more: dead again, with the next alert; sent by hand while it is dead, none.
SET meal_planner.clock_offset = 3101;
CALL mp_sweep();
SELECT reason, status, retry_count FROM mp_dlq WHERE subscription = 'aged';
SELECT mp_send_to_dlq(event_id, 'permanent', 'no use', 9, 'aged') = id AS same FROM mp_dlq WHERE subscription = 'aged';
SELECT count(*) AS alerts FROM meal_planner.alert WHERE subscription = 'aged';
RESET meal_planner.clock_offset;

DROP VIEW letter;
DROP TABLE seen, fault;
SELECT mp_unsubscribe(name) FROM mp_subscriptions WHERE NOT builtin;
DROP FUNCTION on_order, on_bulk, on_aged;
