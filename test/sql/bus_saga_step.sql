-- Steps of sagas that services do: claimed, completed, failed, lost, undone.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS meal_planner CASCADE;
CREATE EXTENSION meal_planner;
RESET client_min_messages;
\set SHOW_CONTEXT never

CREATE FUNCTION act(s jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF s #>> ARRAY['input', s ->> 'step'] = 'fails' AND s ->> 'direction' = 'forward' THEN
        RAISE EXCEPTION 'no luck';
    END IF;
END $$;
CREATE VIEW story AS
SELECT l.saga_id, l.seq, l.entry || coalesce(' ' || l.step, '') || CASE l.direction WHEN 'compensate' THEN ' (undo)' ELSE '' END
       || coalesce(' #' || l.attempt, '')
       || coalesce(' ' || (l.detail ->> 'type') || ' (' || (l.detail ->> 'message') || '), ' || (l.detail ->> 'then')
                   || coalesce(' in ' || (l.detail ->> 'after_seconds') || ' s', ''), '') AS line
  FROM meal_planner.saga_log l;
\set story 'SELECT line FROM story WHERE saga_id = :\'id\' ORDER BY seq;'
\set state 'SELECT state, (SELECT string_agg(o.step || \' \' || o.direction || CASE WHEN o.token IS NULL THEN \'\' ELSE \' out\' END, \', \' ORDER BY o.step) FROM meal_planner.saga_step o WHERE o.saga_id = s.id) AS steps, due_at IS NOT NULL AS due FROM meal_planner.saga s WHERE id = :\'id\';'
-- Claims one and remembers its token.
\set claim 'SELECT * FROM mp_claim_saga_steps(\'api\') \\gset c_'

SELECT mp_define_saga('shop', '{"steps": [
  {"name": "reserve", "kind": "compensatable", "service": "api", "undo_service": "api", "retry": {"max_attempts": 3}, "timeout_seconds": 100},
  {"name": "price", "kind": "read_only", "service": "api"},
  {"name": "order", "kind": "pivot", "run": "act(jsonb)"},
  {"name": "mail", "kind": "retriable", "service": "mail"}],
  "on_completed": {"emit": "Shopped"}, "on_compensated": {"emit": "NotShopped"}}');

-- ------------------------------------------------------------------------
-- All goes well
-- ------------------------------------------------------------------------
SELECT mp_start_saga('shop', '{"basket": 7}') AS id \gset
SELECT count(*) AS not_yet FROM mp_claim_saga_steps('api');
CALL mp_sweep();
:state
SELECT count(*) AS of_another_service FROM mp_claim_saga_steps('mail');
SELECT count(*) AS of_another_account FROM mp_claim_saga_steps('api', account => 'other');
SELECT * FROM mp_claim_saga_steps('api') \gset c_
SELECT :'c_saga_id' = :'id' AS saga, :'c_step' AS step, :'c_direction' AS direction, :'c_attempt' AS attempt,
       replace(:'c_idempotency_key', :'id', 'ID') AS key, :'c_input'::jsonb - '{saga_id,idempotency_key}'::text[] AS input;
SELECT count(*) AS nothing_left FROM mp_claim_saga_steps('api');
:state
-- The next one may be claimed as soon as this one is done.
SELECT mp_complete_saga_step(:'c_token', '{"reservation": 12}');
SELECT mp_complete_saga_step(:'c_token', '{"reservation": 13}') AS twice;
SELECT * FROM mp_claim_saga_steps('api') \gset c_
SELECT :'c_step' AS step, :'c_input'::jsonb -> 'results' AS results;
SELECT mp_complete_saga_step(:'c_token', '9.99');
SELECT count(*) AS not_before_the_pivot FROM mp_claim_saga_steps('mail');
CALL mp_sweep();
SELECT * FROM mp_claim_saga_steps('mail') \gset c_
SELECT mp_complete_saga_step(:'c_token', NULL) AS ends_with_it;
:story
:state
SELECT detail_type, detail - 'saga_id' AS detail FROM meal_planner.event;

-- ------------------------------------------------------------------------
-- Arguments
-- ------------------------------------------------------------------------
SELECT mp_claim_saga_steps(NULL);
SELECT mp_claim_saga_steps('api', 0);
SELECT mp_claim_saga_steps('api', 1001);
SELECT mp_claim_saga_steps('api', lease_seconds => 0);
SELECT mp_claim_saga_steps('api', lease_seconds => 'NaN');
SELECT mp_complete_saga_step(NULL, NULL);
SELECT mp_complete_saga_step(gen_random_uuid(), NULL) AS unknown_token;
SELECT mp_fail_saga_step(gen_random_uuid(), 'odd', 'x');
SELECT mp_fail_saga_step(NULL, 'permanent', 'x');
SELECT mp_fail_saga_step(gen_random_uuid(), 'permanent', repeat('x', 8001));
SELECT mp_extend_saga_step(gen_random_uuid(), -1);
SELECT mp_extend_saga_step(gen_random_uuid(), 10) AS unknown_token;

-- ------------------------------------------------------------------------
-- Failures
-- ------------------------------------------------------------------------
-- For a while: again after the backoff, with the same key; then its attempts are used up.
SELECT mp_start_saga('shop', '{}') AS id \gset
CALL mp_sweep();
:claim
SELECT mp_fail_saga_step(:'c_token', 'transient', 'busy') AS first;
SELECT mp_complete_saga_step(:'c_token', NULL) AS too_late;
CALL mp_sweep();
SELECT count(*) AS too_early FROM mp_claim_saga_steps('api');
\set key :c_idempotency_key
SET meal_planner.clock_offset = 3;
:claim
SELECT :'c_attempt' AS attempt, :'key' = :'c_idempotency_key' AS same_key;
SELECT mp_fail_saga_step(:'c_token', 'unknown', 'connection lost') AS second;
SET meal_planner.clock_offset = 8;
:claim
SELECT mp_fail_saga_step(:'c_token', 'transient', 'still busy') AS third;
:state
-- it began, so it is undone, although it never succeeded
:claim
SELECT :'c_step' AS step, :'c_direction' AS direction, :'c_attempt' AS attempt, replace(:'c_idempotency_key', :'id', 'ID') AS key,
       :'c_input'::jsonb -> 'results' AS results;
SELECT mp_complete_saga_step(:'c_token', '"nothing to undo"');
:story
SELECT error FROM meal_planner.saga WHERE id = :'id';

-- For good, in the second step: the first is undone and finds its result.
SELECT mp_start_saga('shop', '{}') AS id \gset
CALL mp_sweep();
:claim
SELECT mp_complete_saga_step(:'c_token', '{"reservation": 14}');
:claim
SELECT mp_fail_saga_step(:'c_token', 'permanent', 'no such basket');
:claim
SELECT :'c_step' AS step, :'c_direction' AS direction, :'c_input'::jsonb -> 'results' AS results;
SELECT mp_fail_saga_step(:'c_token', 'transient', 'busy');
SET meal_planner.clock_offset = 12;
:claim
SELECT :'c_attempt' AS attempt;
SELECT mp_complete_saga_step(:'c_token', NULL);
:story

-- The pivot fails: the mail was never begun, and never will be.
SELECT mp_start_saga('shop', '{"order": "fails"}') AS id \gset
CALL mp_sweep();
:claim
SELECT mp_complete_saga_step(:'c_token', NULL);
:claim
SELECT mp_complete_saga_step(:'c_token', NULL);
CALL mp_sweep();
:state
SELECT count(*) AS mails FROM mp_claim_saga_steps('mail');
:claim
SELECT mp_complete_saga_step(:'c_token', NULL);
:story

-- After the pivot: parked, and on when somebody says so.
SELECT mp_start_saga('shop', '{}') AS id \gset
CALL mp_sweep();
:claim
SELECT mp_complete_saga_step(:'c_token', NULL);
:claim
SELECT mp_complete_saga_step(:'c_token', NULL);
CALL mp_sweep();
SELECT * FROM mp_claim_saga_steps('mail') \gset c_
SELECT mp_fail_saga_step(:'c_token', 'permanent', 'no such address');
SELECT message FROM meal_planner.alert WHERE saga_id = :'id';
SELECT count(*) AS parked FROM mp_claim_saga_steps('mail');
SELECT mp_retry_saga(:'id');
SELECT * FROM mp_claim_saga_steps('mail') \gset c_
SELECT mp_complete_saga_step(:'c_token', NULL);

-- ------------------------------------------------------------------------
-- Leases
-- ------------------------------------------------------------------------
-- A lease that is over, and nobody has noticed: what comes late is as good as any.
SELECT mp_start_saga('shop', '{}') AS id \gset
CALL mp_sweep();
SELECT * FROM mp_claim_saga_steps('api', lease_seconds => 10) \gset c_
SET meal_planner.clock_offset = 30;
SELECT mp_complete_saga_step(:'c_token', '1') AS late_but_first;
-- Noticed: its outcome is unknown, it is tried again, and what comes late is refused.
SELECT * FROM mp_claim_saga_steps('api', lease_seconds => 10) \gset c_
SET meal_planner.clock_offset = 45;
CALL mp_sweep();
:state
SELECT mp_complete_saga_step(:'c_token', '1') AS late, mp_fail_saga_step(:'c_token', 'permanent', 'late') AS late_too,
       mp_extend_saga_step(:'c_token', 10) AS late_as_well;
SET meal_planner.clock_offset = 48;
SELECT * FROM mp_claim_saga_steps('api', lease_seconds => 10) \gset c_
-- A heartbeat.
SELECT mp_extend_saga_step(:'c_token', 60);
SET meal_planner.clock_offset = 70;
CALL mp_sweep();
SELECT mp_complete_saga_step(:'c_token', '1') AS in_time;
:story
-- No lease is longer than the step may take.
SELECT mp_start_saga('shop', '{}') AS id \gset
CALL mp_sweep();
SELECT * FROM mp_claim_saga_steps('api', lease_seconds => 1000) \gset c_
SELECT round(extract(epoch FROM lease_until - started_at)) AS lease FROM meal_planner.saga_step;
SELECT mp_extend_saga_step(:'c_token', 500);
SELECT round(extract(epoch FROM lease_until - started_at)) AS lease FROM meal_planner.saga_step;

-- Cancelled while a worker has it: what is out settles first.  A completion in time counts, and is undone.
SELECT mp_cancel_saga(:'id', 'changed my mind');
:state
CALL mp_sweep();
SELECT mp_complete_saga_step(:'c_token', '{"reservation": 15}');
:claim
SELECT :'c_direction' AS direction, :'c_input'::jsonb -> 'results' AS results;
SELECT mp_complete_saga_step(:'c_token', NULL);
:story
-- One that comes too late does not: compensation has begun.
SELECT mp_start_saga('shop', '{}') AS id \gset
CALL mp_sweep();
SELECT * FROM mp_claim_saga_steps('api', lease_seconds => 10) \gset c_
SELECT mp_cancel_saga(:'id', 'changed my mind');
SET meal_planner.clock_offset = 90;
CALL mp_sweep();
:state
SELECT mp_complete_saga_step(:'c_token', '{"reservation": 16}');
SELECT * FROM mp_claim_saga_steps('api') \gset u_
SELECT mp_complete_saga_step(:'c_token', '{"reservation": 16}');
SELECT mp_complete_saga_step(:'u_token', NULL);
:story
-- Not claimed yet: it has never begun, and nothing is undone.
SELECT mp_start_saga('shop', '{}') AS id \gset
CALL mp_sweep();
SELECT mp_cancel_saga(:'id', 'changed my mind at once');
:state
:story

-- ------------------------------------------------------------------------
-- Side by side
-- ------------------------------------------------------------------------
-- A mail beside the pivot: when the pivot fails, a correction follows if and only if the mail had begun.
SELECT mp_define_saga('beside', '{"steps": [
  {"name": "plan", "kind": "compensatable", "run": "act(jsonb)", "undo": "act(jsonb)"},
  {"name": "order", "kind": "pivot", "service": "api", "undo_service": "api"},
  {"name": "mail", "kind": "retriable", "service": "post", "undo_service": "post", "after": ["plan"]}]}');
SELECT mp_start_saga('beside', '{}') AS id \gset
CALL mp_sweep();
:state
:claim
SELECT mp_fail_saga_step(:'c_token', 'permanent', 'sold out');
:state
SELECT count(*) AS mails FROM mp_claim_saga_steps('post');
:claim
SELECT mp_complete_saga_step(:'c_token', NULL);
CALL mp_sweep();
:story
SELECT mp_start_saga('beside', '{}') AS id \gset
CALL mp_sweep();
:claim
SELECT * FROM mp_claim_saga_steps('post') \gset m_
SELECT mp_fail_saga_step(:'c_token', 'permanent', 'sold out');
CALL mp_sweep();
:state
SELECT mp_complete_saga_step(:'m_token', '"sent"');
SELECT step, direction, input -> 'results' AS results FROM mp_claim_saga_steps('post');
SELECT mp_complete_saga_step(token, NULL) FROM meal_planner.saga_step WHERE saga_id = :'id' AND step = 'mail';
SELECT mp_complete_saga_step(token, NULL) FROM mp_claim_saga_steps('api');
CALL mp_sweep();
:story

-- Many of one saga and of several in one claim.
SELECT mp_define_saga('wide', '{"steps": [
  {"name": "a", "kind": "read_only", "service": "wide", "after": []}, {"name": "b", "kind": "read_only", "service": "wide", "after": []},
  {"name": "c", "kind": "read_only", "service": "wide", "after": []}, {"name": "d", "kind": "read_only", "run": "act(jsonb)", "after": ["a", "b", "c"]}]}');
SELECT count(mp_start_saga('wide', '{}')) FROM generate_series(1, 2);
CALL mp_sweep();
CREATE TEMP TABLE claimed AS SELECT * FROM mp_claim_saga_steps('wide', 4);
SELECT count(*), count(DISTINCT token) AS tokens FROM claimed;
INSERT INTO claimed SELECT * FROM mp_claim_saga_steps('wide');
SELECT step, count(*) FROM claimed GROUP BY step ORDER BY step;
SELECT mp_complete_saga_step(token, to_jsonb(step)) AS state, count(*) FROM claimed GROUP BY 1;
CALL mp_sweep();
SELECT state, count(*) FROM meal_planner.saga WHERE name = 'wide' GROUP BY state;

-- A heartbeat does not prolong what ends at that moment: the attempt's time is up, or the saga goes back without it.
SELECT mp_define_saga('short', '{"steps": [{"name": "a", "kind": "read_only", "service": "short", "timeout_seconds": 5}]}');
SELECT mp_define_saga('overdue', '{"steps": [{"name": "a", "kind": "read_only", "service": "overdue"}], "deadline_seconds": 5}');
SELECT mp_start_saga('short', '{}') IS NOT NULL AS short, mp_start_saga('overdue', '{}') IS NOT NULL AS overdue;
CALL mp_sweep();
CREATE TEMP TABLE beating AS SELECT 'short' AS saga, token FROM mp_claim_saga_steps('short') UNION ALL SELECT 'overdue', token FROM mp_claim_saga_steps('overdue');
SELECT saga, mp_extend_saga_step(token, 60) AS extended FROM beating ORDER BY saga;
SELECT set_config('meal_planner.clock_offset', (current_setting('meal_planner.clock_offset')::float8 + 10)::text, false) IS NOT NULL AS later;
SELECT saga, mp_extend_saga_step(token, 60) AS extended, mp_complete_saga_step(token, NULL) FROM beating ORDER BY saga;
SELECT set_config('meal_planner.clock_offset', (current_setting('meal_planner.clock_offset')::float8 - 10)::text, false) IS NOT NULL AS back;
DELETE FROM meal_planner.saga WHERE name IN ('short', 'overdue');
DELETE FROM meal_planner.saga_step WHERE service = 'short';

-- One whose definition vanished does not lie in the way of others.
SELECT mp_define_saga('lost', '{"steps": [{"name": "a", "kind": "pivot", "service": "lost"}]}');
SELECT mp_define_saga('kept', '{"steps": [{"name": "a", "kind": "pivot", "service": "lost"}]}');
SELECT mp_start_saga('lost', '{}') IS NOT NULL AS lost;
CALL mp_sweep();
SELECT mp_start_saga('kept', '{}') IS NOT NULL AS kept;
CALL mp_sweep();
DELETE FROM meal_planner.saga_definition WHERE name = 'lost';
SELECT count(*) AS first FROM mp_claim_saga_steps('lost', 1);
SELECT count(*) AS second FROM mp_claim_saga_steps('lost', 1);
DELETE FROM meal_planner.saga WHERE name IN ('lost', 'kept');
DELETE FROM meal_planner.saga_step WHERE service = 'lost';

-- The event of an end may run a handler that is cancelled: the session is no handler after that, and may emit.
SELECT mp_define_saga('far', '{"steps": [{"name": "a", "kind": "pivot", "service": "far"}], "on_completed": {"emit": "FarDone"}}');
SELECT mp_start_saga('far', '{}') AS id \gset
UPDATE meal_planner.saga SET hops = 4 WHERE id = :'id';
CALL mp_sweep();
CREATE FUNCTION endless(e meal_planner.event) RETURNS void LANGUAGE sql AS 'SELECT pg_sleep(600)';
SELECT mp_subscribe('endless', '{"detail-type": ["FarDone"]}', 'endless(meal_planner.event)');
SELECT token FROM mp_claim_saga_steps('far') \gset
SET statement_timeout = '100ms';
SELECT mp_complete_saga_step(:'token', NULL);
RESET statement_timeout;
SELECT mp_emit_event('Mine', '{}') AS event_id \gset
SELECT hops FROM meal_planner.event WHERE id = :'event_id';
SELECT mp_unsubscribe('endless');
DROP FUNCTION endless(meal_planner.event);
DELETE FROM meal_planner.saga WHERE id = :'id';
DELETE FROM meal_planner.saga_step WHERE saga_id = :'id';

-- ------------------------------------------------------------------------
-- Breakers
-- ------------------------------------------------------------------------
SELECT mp_breaker_configure('shop api', '{"failure_threshold": 2, "open_seconds": 20}');
SELECT mp_define_saga('fused', '{"steps": [{"name": "a", "kind": "read_only", "service": "fused", "breaker": "shop api"}]}');
SELECT mp_start_saga('fused', '{}') AS id \gset
SELECT mp_start_saga('fused', '{}') AS id2 \gset
CALL mp_sweep();
CREATE TEMP TABLE fused AS SELECT * FROM mp_claim_saga_steps('fused');
SELECT mp_fail_saga_step(token, 'transient', 'busy') FROM fused;
SELECT state FROM mp_breakers WHERE name = 'shop api';
SET meal_planner.clock_offset = 93;
SELECT count(*) AS not_let FROM mp_claim_saga_steps('fused');
SELECT attempt, due_at > meal_planner.clock() + interval '10 s' AS waits_for_the_breaker FROM meal_planner.saga_step WHERE service = 'fused';
SET meal_planner.clock_offset = 120;
-- a claim that is rolled back gives the permit of its probe back
BEGIN;
SELECT count(*) AS let FROM mp_claim_saga_steps('fused');
ROLLBACK;
SELECT state, permits FROM mp_breakers WHERE name = 'shop api';
SELECT * FROM mp_claim_saga_steps('fused') \gset c_
SELECT state, permits FROM mp_breakers WHERE name = 'shop api';
SELECT mp_complete_saga_step(:'c_token', NULL);
SELECT state FROM mp_breakers WHERE name = 'shop api';
-- a lease that is lost is a failure, too
SET meal_planner.clock_offset = 160;
SELECT * FROM mp_claim_saga_steps('fused', lease_seconds => 5) \gset c_
SELECT consecutive_failures FROM mp_breakers WHERE name = 'shop api';
SET meal_planner.clock_offset = 170;
CALL mp_sweep();
SELECT consecutive_failures FROM mp_breakers WHERE name = 'shop api';
-- it stands before a function that undoes what a service did, too
SELECT mp_define_saga('fused undo', '{"steps": [{"name": "a", "kind": "compensatable", "service": "fused", "undo": "act(jsonb)", "breaker": "undo api"},
                                                {"name": "b", "kind": "read_only", "service": "fused"}]}');
SELECT mp_start_saga('fused undo', '{}') AS id \gset
CALL mp_sweep();
SELECT mp_complete_saga_step(token, NULL) FROM mp_claim_saga_steps('fused');
SELECT mp_fail_saga_step(token, 'permanent', 'no luck') FROM mp_claim_saga_steps('fused');
SELECT mp_breaker_force('undo api', 'open', meal_planner.clock() + interval '5 s', 'test');
SET statement_timeout = '10s'; -- it must not go round in circles
CALL mp_sweep();
:state
SET meal_planner.clock_offset = 176;
CALL mp_sweep();
RESET statement_timeout;
:state
-- a probe that nobody waits for any more, because the saga goes back, gives its permit back
SELECT mp_breaker_configure('side api', '{"failure_threshold": 1, "open_seconds": 1}');
SELECT mp_define_saga('sides', '{"steps": [{"name": "a", "kind": "read_only", "service": "side a", "breaker": "side api", "after": []},
    {"name": "b", "kind": "read_only", "service": "side b", "after": []}]}');
SELECT mp_breaker_report('side api', (mp_breaker_acquire('side api') ->> 'permit')::bigint, 'failure');
SET meal_planner.clock_offset = 180;
SELECT mp_start_saga('sides', '{}') IS NOT NULL AS sides;
CALL mp_sweep();
SELECT * FROM mp_claim_saga_steps('side a') \gset a_
SELECT * FROM mp_claim_saga_steps('side b') \gset b_
SELECT state, permits FROM mp_breakers WHERE name = 'side api';
SELECT mp_fail_saga_step(:'b_token', 'permanent', 'no');
SELECT state, permits FROM mp_breakers WHERE name = 'side api';
SELECT mp_complete_saga_step(:'a_token', NULL);
RESET meal_planner.clock_offset;
DROP FUNCTION act(jsonb);
