-- Retries: when, how often, what is recorded, and that a failing handler harms nobody.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS meal_planner CASCADE;
CREATE EXTENSION meal_planner;
RESET client_min_messages;
\set SHOW_CONTEXT never

-- The arithmetic.
SELECT attempt, mp_backoff(attempt) FROM generate_series(1, 6) attempt;
SELECT mp_backoff(3, '{"base_delay": 0.5, "multiplier": 3}') AS half_thrice, mp_backoff(9, '{"max_delay": 10}') AS capped,
       mp_backoff(2, '{"base_delay": 0}') AS at_once, mp_backoff(1000, '{"multiplier": 100}') AS never_infinite;
SELECT count(*) FILTER (WHERE wait BETWEEN interval '2 s' AND interval '4 s') AS within, count(DISTINCT wait) > 1 AS vary
  FROM (SELECT mp_backoff(3, '{"jitter": 0.5}') AS wait FROM generate_series(1, 100)) w;
SELECT mp_backoff(0);
SELECT mp_backoff(NULL);
SELECT mp_backoff(2, '{"start": "latest"}');
SELECT mp_backoff(2, '[]');

-- What an error means.
SELECT code, mp_classify_error(code) FROM unnest(ARRAY['22012', '23505', '40001', '40P01', '40002', '08006', '08P01', '53100', '55P03', '57014',
    '42601', '42883', '42501', 'P0001', 'XX000', 'MP400', 'MP409', 'MP503', 'MPT01', 'MPP01', 'ZZ999', '']) code;
-- What a handler got wrong, by SQLSTATE class; what may come with the next deployment.
SELECT code FROM unnest(ARRAY['02000', '03000', '09000', '0A000', '0B000', '0F001', '0LP01', '0P000', '0Z002', '10608', '20000', '21000', '22000',
    '23000', '24000', '25001', '26000', '27000', '28P01', '2BP01', '2D000', '2E000', '2F000', '34000', '38000', '39000', '3B001', '3D000',
    '42000', '44000', '54000', '55000', 'F0000', 'P0002', 'XX001']) code WHERE mp_classify_error(code) <> 'permanent';
SELECT code FROM unnest(ARRAY['3F000', '42501', '42703', '42704', '42883', '42P01']) code WHERE mp_classify_error(code) <> 'deploy';
INSERT INTO meal_planner.error_class (service, code, class)
VALUES ('subscription:patient', '23', 'transient'), ('subscription:patient', '40001', 'permanent'), ('postgres', 'ZZ999', 'permanent');
SELECT mp_classify_error('23505', 'patient') AS own_class, mp_classify_error('40001', 'patient') AS own_code,
       mp_classify_error('22012', 'patient') AS general, mp_classify_error('23505', 'other') AS of_another,
       mp_classify_error('ZZ999') AS added, mp_classify_error(NULL) AS no_code;

CREATE TABLE seen (n serial, subscription text, event text);
CREATE TABLE fails (subscription text, until_attempt int, sqlstate text);
-- Fails until its attempt, which it knows from its delivery row (committed before it starts).
CREATE FUNCTION flaky(name text, e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    plan record;
BEGIN
    INSERT INTO seen (subscription, event) VALUES (name, e.detail_type);
    SELECT * INTO plan FROM fails f WHERE f.subscription = name;
    IF coalesce((SELECT d.attempt FROM meal_planner.delivery d
                  WHERE d.account = e.account AND d.subscription = name AND d.position = e.position), 1) < plan.until_attempt THEN
        RAISE EXCEPTION 'no luck with %', e.detail_type
            USING ERRCODE = plan.sqlstate, DETAIL = 'The detail.', HINT = 'The hint.';
    END IF;
END $$;
CREATE FUNCTION on_four(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM flaky('four', e);
END $$;

-- Three failures, then success.  The clock goes on while this runs: how long a
-- retry has to wait is measured between a time before the failure and one after it.
INSERT INTO fails VALUES ('four', 4, 'MPT01');
SELECT mp_subscribe('four', '{"detail-type": ["Four"]}', 'on_four(meal_planner.event)');
SELECT coalesce(sum(calls), 0) AS calls, coalesce(sum(failures), 0) AS failures FROM mp_handler_stats WHERE subscription = 'four' \gset so_far_
\set wait 'SELECT attempt, next_attempt_at BETWEEN :\'before\'::timestamptz + mp_backoff(attempt + 1) AND meal_planner.clock() + mp_backoff(attempt + 1) AS right_time FROM meal_planner.delivery;'
SELECT meal_planner.clock() AS before \gset
SELECT mp_emit_event('Four', '{}') IS NOT NULL AS emitter_unharmed;
:wait
SELECT subscription, attempt, crashes, token IS NULL AS free, sqlstate, error_message, error_detail, error_hint FROM meal_planner.delivery;
-- The context is the handler's own, nothing of how it was reached.
SELECT regexp_replace(error_context, 'line \d+', 'line N', 'g') AS context FROM meal_planner.delivery;
SELECT retrying, in_flight, dead FROM mp_subscriptions WHERE name = 'four';
-- The effects of a failed attempt are undone.
SELECT count(*) AS seen FROM seen;
-- Before its time nothing happens; after it one attempt.
SET meal_planner.clock_offset = -1000;
CALL mp_sweep();
SELECT attempt FROM meal_planner.delivery;
SET meal_planner.clock_offset = 1000;
SELECT meal_planner.clock() AS before \gset
CALL mp_sweep();
:wait
SET meal_planner.clock_offset = 0;
CALL mp_sweep();
SELECT attempt FROM meal_planner.delivery;
SET meal_planner.clock_offset = 2000;
SELECT meal_planner.clock() AS before \gset
CALL mp_sweep();
:wait
SET meal_planner.clock_offset = 3000;
CALL mp_sweep();
SELECT count(*) AS left FROM meal_planner.delivery;
SELECT subscription, event FROM seen;
SELECT calls - :so_far_calls AS calls, failures - :so_far_failures AS failures FROM mp_handler_stats WHERE subscription = 'four';
RESET meal_planner.clock_offset;
SELECT mp_unsubscribe('four');
TRUNCATE seen;

-- Exhausted: five attempts, then a dead letter and one alert.
UPDATE fails SET until_attempt = 99;
SELECT mp_subscribe('four', '{"detail-type": ["Never"]}', 'on_four(meal_planner.event)');
SELECT mp_emit_event('Never', '{}') IS NOT NULL AS emitter_unharmed;
SET meal_planner.clock_offset = 1000;
CALL mp_sweep();
SET meal_planner.clock_offset = 2000;
CALL mp_sweep();
SET meal_planner.clock_offset = 3000;
SELECT meal_planner.clock() AS before \gset
CALL mp_sweep();
:wait
SET meal_planner.clock_offset = 4000;
CALL mp_sweep();
SELECT count(*) AS left FROM meal_planner.delivery;
SELECT subscription, detail_type, error_type, reason, sqlstate, error_message, error_detail, error_hint, retry_count, status, replay_count,
       dead_at - first_failed_at > interval '3900 s' AS first_failure_kept
  FROM mp_dlq;
SELECT subscription, message, dead_letter_status FROM mp_alerts;
RESET meal_planner.clock_offset;
SELECT mp_unsubscribe('four');

-- Own policies: two attempts; an age; a second apart.
DELETE FROM meal_planner.dead_letter;
SELECT mp_subscribe('four', '{"detail-type": ["Twice"]}', 'on_four(meal_planner.event)', options => '{"max_attempts": 2, "base_delay": 1}');
SELECT mp_emit_event('Twice', '{}') IS NOT NULL AS emitter_unharmed;
SET meal_planner.clock_offset = 1;
CALL mp_sweep();
SELECT reason, retry_count FROM mp_dlq;
RESET meal_planner.clock_offset;
DELETE FROM meal_planner.dead_letter;
SELECT mp_subscribe('four', '{"detail-type": ["Once"]}', 'on_four(meal_planner.event)', options => '{"max_attempts": 1}');
SELECT mp_emit_event('Once', '{}') IS NOT NULL AS emitter_unharmed;
SELECT reason, retry_count, error_type FROM mp_dlq;
DELETE FROM meal_planner.dead_letter;
SELECT mp_subscribe('four', '{"detail-type": ["Old"]}', 'on_four(meal_planner.event)', options => '{"max_age": 5, "max_attempts": 100}');
DELETE FROM meal_planner.alert;
SELECT mp_emit_event('Old', '{}') IS NOT NULL AS emitter_unharmed;
SET meal_planner.clock_offset = 2;
CALL mp_sweep();
SELECT reason, retry_count FROM mp_dlq;
SELECT count(*) AS alerts FROM mp_alerts;
RESET meal_planner.clock_offset;
SELECT mp_unsubscribe('four');

-- Permanent: a dead letter at once, with an alert; unless the subscription's own classes say otherwise.
DELETE FROM meal_planner.dead_letter;
DELETE FROM meal_planner.alert;
CREATE FUNCTION on_zero(e meal_planner.event) RETURNS void LANGUAGE sql AS $$ SELECT 1 / (e.detail ->> 'n')::int $$;
SELECT mp_subscribe('zero', '{"detail-type": ["Zero"]}', 'on_zero(meal_planner.event)'),
       mp_subscribe('patient', '{"detail-type": ["Zero"]}', 'on_zero(meal_planner.event)');
INSERT INTO meal_planner.error_class (service, code, class) VALUES ('subscription:patient', '22012', 'transient');
SELECT mp_emit_event('Zero', '{"n": 0}') IS NOT NULL AS emitter_unharmed;
SELECT subscription, error_type, reason, sqlstate, error_message, retry_count FROM mp_dlq;
SELECT subscription, attempt, sqlstate FROM meal_planner.delivery;
SELECT kind, account, subscription, message, dead_letter_status FROM mp_alerts;
SELECT mp_unsubscribe('zero'), mp_unsubscribe('patient');

-- One handler's failure harms neither the emitter nor the other handlers; what it had emitted and done is undone.
CREATE FUNCTION on_good(e meal_planner.event) RETURNS void LANGUAGE sql
AS $$ INSERT INTO seen (subscription, event) VALUES ('good', e.detail_type) $$;
CREATE FUNCTION on_bad(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO seen (subscription, event) VALUES ('bad', e.detail_type);
    PERFORM mp_emit_event('Chained', '{}', stream => 'chain', idempotency_key => 'chain');
    PERFORM set_config('application_name', 'bad handler', false);
    RAISE EXCEPTION 'after all';
END $$;
CREATE FUNCTION on_chain(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO seen (subscription, event) VALUES ('chain', e.detail_type);
    PERFORM mp_emit_event('Chained', '{}', stream => 'chain', idempotency_key => 'chain');
END $$;
SELECT mp_subscribe('1 good', '{"detail-type": ["Mixed", "Chained"]}', 'on_good(meal_planner.event)'),
       mp_subscribe('2 bad', '{"detail-type": ["Mixed"]}', 'on_bad(meal_planner.event)'),
       mp_subscribe('3 good', '{"detail-type": ["Mixed"]}', 'on_good(meal_planner.event)'),
       mp_subscribe('4 chain', '{"detail-type": ["Mixed"]}', 'on_chain(meal_planner.event)');
BEGIN;
INSERT INTO seen (subscription, event) VALUES ('emitter', 'before');
SELECT mp_emit_event('Mixed', '{}') IS NOT NULL AS emitter_unharmed;
INSERT INTO seen (subscription, event) VALUES ('emitter', 'after');
COMMIT;
SELECT subscription, event FROM seen ORDER BY n;
-- The chained event of the good handler is there once, in its stream, of this hop; the bad one's never was.
SELECT detail_type, stream, version, hops FROM meal_planner.event WHERE detail_type IN ('Mixed', 'Chained') ORDER BY position;
SELECT current_setting('application_name') = 'bad handler' AS setting_left;
SELECT subscription, sqlstate, error_message FROM mp_dlq WHERE detail_type = 'Mixed';
SELECT mp_unsubscribe(name) FROM mp_subscriptions WHERE NOT builtin;
-- The emitter's rollback takes all of it along: effects, failures, alerts.
SELECT mp_subscribe('zero', '{"detail-type": ["Zero"]}', 'on_zero(meal_planner.event)');
BEGIN;
SELECT mp_emit_event('Zero', '{"n": 0}', account => 'rolled back') IS NOT NULL AS emitted;
SELECT count(*) FROM mp_dlq WHERE account = 'rolled back';
ROLLBACK;
SELECT count(*) FROM mp_dlq WHERE account = 'rolled back';

-- What is not the handler's error gets through: a cancelled query cancels the emitter.
CREATE FUNCTION on_cancel(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_cancel_backend(pg_backend_pid());
    PERFORM pg_sleep(60);
END $$;
SELECT mp_subscribe('cancel', '{"detail-type": ["Cancel"]}', 'on_cancel(meal_planner.event)');
SELECT mp_emit_event('Cancel', '{}');
\echo :LAST_ERROR_SQLSTATE
SELECT count(*) AS recorded FROM meal_planner.delivery WHERE subscription = 'cancel';
BEGIN;
SAVEPOINT s;
SELECT mp_emit_event('Cancel', '{}');
ROLLBACK TO s;
SELECT mp_emit_event('After', '{}', account => 'cancelled') IS NOT NULL AS emitted;
COMMIT;
SELECT count(*) FROM meal_planner.event WHERE account = 'cancelled';
SELECT count(*) AS in_flight FROM mp_in_flight;
SELECT mp_unsubscribe('cancel');
-- A handler's own timeout that it catches, and assertions, are its own business.
CREATE FUNCTION on_assert(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN ASSERT false, 'never'; END $$;
SELECT mp_subscribe('assert', '{"detail-type": ["Assert"]}', 'on_assert(meal_planner.event)');
SELECT mp_emit_event('Assert', '{}') IS NOT NULL AS emitter_unharmed;
SELECT sqlstate, error_message FROM mp_dlq WHERE subscription = 'assert';
-- A serialization failure under one snapshot is for the whole transaction to repeat; otherwise it is retried.
CREATE FUNCTION on_serial(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'conflict' USING ERRCODE = '40001'; END $$;
SELECT mp_subscribe('serial', '{"detail-type": ["Serial"]}', 'on_serial(meal_planner.event)');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT mp_emit_event('Serial', '{}');
\echo :LAST_ERROR_SQLSTATE
ROLLBACK;
SELECT mp_emit_event('Serial', '{}') IS NOT NULL AS emitter_unharmed;
SELECT subscription, attempt, sqlstate FROM meal_planner.delivery WHERE subscription = 'serial';
SELECT mp_unsubscribe('zero'), mp_unsubscribe('assert'), mp_unsubscribe('serial');

-- Many failures in one transaction, each its own.
SELECT mp_subscribe('zero', '{"detail-type": ["Zero"]}', 'on_zero(meal_planner.event)');
BEGIN;
SELECT count(mp_emit_event('Zero', jsonb_build_object('n', n % 3), account => 'many')) FROM generate_series(1, 300) n;
COMMIT;
SELECT count(*) AS dead, count(DISTINCT event_id) AS events FROM mp_dlq WHERE account = 'many';
SELECT mp_unsubscribe('zero');

DROP TABLE seen, fails;
DROP FUNCTION flaky, on_four, on_zero, on_good, on_bad, on_chain, on_cancel, on_assert, on_serial;
