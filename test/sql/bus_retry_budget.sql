-- Retry budgets: a bucket of tokens; a retry without one waits, with no attempt, and is not lost.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS meal_planner CASCADE;
CREATE EXTENSION meal_planner;
RESET client_min_messages;
\set SHOW_CONTEXT never

CREATE TABLE weather (code text);
INSERT INTO weather VALUES ('MPT01');
CREATE TABLE seen (n serial, event int);
CREATE FUNCTION on_e(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    failure text := (SELECT code FROM weather);
BEGIN
    IF failure IS NOT NULL AND NOT e.detail ? 'good' THEN
        RAISE EXCEPTION 'weather: %', failure USING ERRCODE = failure;
    END IF;
    INSERT INTO seen (event) VALUES ((e.detail ->> 'n')::int);
END $$;
CREATE FUNCTION emit(low int, high int, good boolean DEFAULT NULL, wait interval DEFAULT NULL) RETURNS bigint LANGUAGE sql
AS $$ SELECT count(mp_emit_event('E', jsonb_strip_nulls(jsonb_build_object('n', n, 'key', n % 2, 'good', good)), deliver_after => meal_planner.clock() + wait))
        FROM generate_series(low, high) n $$;
CREATE VIEW attempts AS SELECT string_agg(d.attempt::text, ' ' ORDER BY d.position) AS attempts FROM meal_planner.delivery d;
CREATE VIEW budget AS SELECT subscription, floor(tokens + 0.001) AS tokens, round(extract(epoch FROM ready_at - meal_planner.clock()) / 100) AS ready_in, waiting FROM mp_retry_budgets;

-- A token in a thousand seconds, of which it keeps three.  It is so much later than the server's start that it is full.
SET meal_planner.clock_offset = 1000000;
SELECT mp_subscribe('s', '{"detail-type": ["E"]}', 'on_e(meal_planner.event)', options => '{"retry_budget": {"per_second": 0.001, "burst": 3}, "max_attempts": 3}'),
       mp_subscribe('other', '{"detail-type": ["Other"]}', 'on_e(meal_planner.event)');
SELECT * FROM budget;
-- First attempts take none.
SELECT emit(1, 6);
SELECT * FROM attempts;
SELECT * FROM budget;
SET meal_planner.clock_offset = 1000100;
CALL mp_sweep();
SELECT * FROM attempts;
SELECT * FROM budget;
SELECT round(extract(epoch FROM meal_planner.next_due() - meal_planner.clock()) / 100) AS next_in;
CALL mp_sweep();
SELECT * FROM attempts;
-- What is no retry goes past them, and so do other subscriptions.
SELECT mp_emit_event('Other', '{}') IS NOT NULL AS emitted;
SELECT emit(7, 7, true, '1 s');
SELECT emit(8, 8, NULL, '1 s');
SET meal_planner.clock_offset = 1000200;
CALL mp_sweep();
SELECT string_agg(d.subscription || d.attempt, ' ' ORDER BY d.position) FROM meal_planner.delivery d;
SELECT event FROM seen;
DELETE FROM meal_planner.delivery WHERE subscription = 'other';
-- A token: the one that has waited longest.
SET meal_planner.clock_offset = 1001200;
CALL mp_sweep();
SELECT * FROM attempts;
SET meal_planner.clock_offset = 1002250;
CALL mp_sweep();
SELECT * FROM attempts;
-- A try that does not count gives its token back: so all of them may be tried.
UPDATE weather SET code = '57P01';
SET meal_planner.clock_offset = 1003300;
CALL mp_sweep();
SELECT string_agg(d.attempt || coalesce(d.sqlstate, ''), ' ' ORDER BY d.position) FROM meal_planner.delivery d;
SELECT * FROM budget;
-- Another budget, or none, holds at once: nothing has been put off in writing.
UPDATE weather SET code = 'MPT01';
SET meal_planner.clock_offset = 1003400;
CALL mp_sweep();
SELECT * FROM attempts;
SELECT mp_subscribe('s', '{"detail-type": ["E"]}', 'on_e(meal_planner.event)', options => '{"max_attempts": 3}');
SELECT * FROM budget;
CALL mp_sweep();
SELECT * FROM attempts;
SELECT count(*), min(reason), max(retry_count) FROM mp_dlq;
DELETE FROM meal_planner.delivery;
DELETE FROM meal_planner.dead_letter;

-- Success brings tokens.
SELECT mp_subscribe('p', '{"detail-type": ["E"]}', 'on_e(meal_planner.event)', options => '{"retry_budget": {"per_second": 0.0001, "burst": 2, "per_success": 0.25}}');
SELECT mp_unsubscribe('s');
SET meal_planner.clock_offset = 2000000;
SELECT emit(20, 24);
SET meal_planner.clock_offset = 2000010;
CALL mp_sweep();
SELECT * FROM attempts;
SELECT emit(30, 33, true);
CALL mp_sweep();
SELECT * FROM attempts;
SELECT emit(34, 36, true);
CALL mp_sweep();
SELECT * FROM attempts;
SELECT emit(37, 37, true);
CALL mp_sweep();
SELECT * FROM attempts;
SELECT mp_unsubscribe('p', 'discard');

-- Consumers: retries by budget, the rest of the log all the same.
SELECT mp_subscribe('pull', '{"detail-type": ["E"]}', mode => 'pull', options => '{"retry_budget": {"per_second": 0.001, "burst": 3}}');
SET meal_planner.clock_offset = 3000000;
SELECT emit(40, 46);
CREATE FUNCTION claim(many int, outcome text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    claim record;
    list  text;
BEGIN
    FOR claim IN SELECT * FROM mp_claim('pull', many) LOOP
        list := concat_ws(' ', list, (claim.event -> 'detail' ->> 'n') || ':' || claim.attempt);
        IF outcome = 'ack' THEN
            PERFORM mp_ack(claim.token, ARRAY[claim.event_id]);
        ELSE
            PERFORM mp_fail(claim.token, claim.event_id, outcome, 'it failed');
        END IF;
    END LOOP;
    RETURN list;
END $$;
SELECT claim(100, 'transient');
SET meal_planner.clock_offset = 3000100;
SELECT emit(50, 51);
SELECT emit(52, 53, NULL, '1 s');
-- the delayed ones are put away by the first look
SELECT claim(4, 'transient');
SELECT * FROM budget;
SET meal_planner.clock_offset = 3000200;
SELECT claim(100, 'transient');
SELECT claim(100, 'transient') IS NULL AS nothing;
SET meal_planner.clock_offset = 3002300;
SELECT claim(1, 'deferred');
SELECT claim(100, 'ack');
SELECT claim(100, 'ack') IS NULL AS nothing;
-- a claim that waits sleeps until there is one
SELECT count(*) AS nothing FROM mp_claim('pull', wait_seconds => 0.05);
SELECT mp_unsubscribe('pull', 'discard');
-- With an order key nothing of the key goes past a retry that waits.
SELECT mp_subscribe('pull', '{"detail-type": ["E"]}', mode => 'pull', options => '{"order_key": "detail.key", "retry_budget": {"per_second": 0.001, "burst": 1}}');
SET meal_planner.clock_offset = 4000000;
SELECT emit(60, 61);
SELECT claim(100, 'transient');
SELECT emit(62, 65);
SET meal_planner.clock_offset = 4000010;
SELECT claim(100, 'transient');
SELECT claim(100, 'transient') IS NULL AS nothing;
-- nor delayed ones, which are deliveries and no retries
SELECT emit(66, 67, NULL, '1 s');
SELECT claim(100, 'transient') IS NULL AS nothing;
SET meal_planner.clock_offset = 4000020;
SELECT claim(1, 'transient') IS NULL AS nothing;
SET meal_planner.clock_offset = 4001100;
SELECT claim(100, 'ack');
SET meal_planner.clock_offset = 4002200;
SELECT claim(100, 'ack') FROM generate_series(1, 5) n;
SELECT claim(100, 'ack') IS NULL AS nothing;
SELECT mp_unsubscribe('pull', 'refuse');

-- What is wrong.
SELECT mp_subscribe('x', '{"detail-type": ["E"]}', 'on_e(meal_planner.event)', options => '{"retry_budget": 3}');
SELECT mp_subscribe('x', '{"detail-type": ["E"]}', 'on_e(meal_planner.event)', options => '{"retry_budget": {}}');
SELECT mp_subscribe('x', '{"detail-type": ["E"]}', 'on_e(meal_planner.event)', options => '{"retry_budget": {"burst": 3}}');
SELECT mp_subscribe('x', '{"detail-type": ["E"]}', 'on_e(meal_planner.event)', options => '{"retry_budget": {"per_second": 0}}');
SELECT mp_subscribe('x', '{"detail-type": ["E"]}', 'on_e(meal_planner.event)', options => '{"retry_budget": {"per_second": 1, "burst": 0}}');
SELECT mp_subscribe('x', '{"detail-type": ["E"]}', 'on_e(meal_planner.event)', options => '{"retry_budget": {"per_second": 1, "size": 5}}');
SELECT mp_backoff(2, '{"retry_budget": {"per_second": 1}}');

RESET meal_planner.clock_offset;
SELECT mp_unsubscribe('other', 'discard');
DROP VIEW attempts, budget;
DROP TABLE seen, weather;
DROP FUNCTION on_e, emit, claim;
