-- Names that sagas hold: other sagas that want them wait, and so do events of such an order key.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS meal_planner CASCADE;
CREATE EXTENSION meal_planner;
RESET client_min_messages;
\set SHOW_CONTEXT never

CREATE TABLE plan_seen (n serial, subscription text, what text);
CREATE FUNCTION plan_inline(e meal_planner.event) RETURNS void LANGUAGE sql AS $$ INSERT INTO plan_seen (subscription, what) VALUES ('inline', e.detail ->> 'n') $$;
CREATE FUNCTION plan_worker(e meal_planner.event) RETURNS void LANGUAGE sql AS $$ INSERT INTO plan_seen (subscription, what) VALUES ('worker', e.detail ->> 'n') $$;
SELECT mp_subscribe('inline', '{"detail-type": ["PlanChanged"]}', 'plan_inline(meal_planner.event)', options => '{"order_key": "stream"}');
SELECT mp_subscribe('worker', '{"detail-type": ["PlanChanged"]}', 'plan_worker(meal_planner.event)', 'worker', '{"order_key": "detail.plan"}');
SELECT mp_subscribe('pulled', '{"detail-type": ["PlanChanged"]}', mode => 'pull', options => '{"order_key": "stream"}');
SELECT mp_subscribe('unordered', '{"detail-type": ["PlanChanged"]}', mode => 'pull');
CREATE FUNCTION change_plan(plan text, n int) RETURNS void LANGUAGE sql AS $$
    SELECT FROM mp_emit_event('PlanChanged', jsonb_build_object('n', n, 'plan', plan), stream => plan)
$$;
\set seen 'SELECT subscription, string_agg(what, \' \' ORDER BY n) AS events FROM plan_seen GROUP BY 1 ORDER BY 1;'
\set locks 'SELECT s.input ->> \'is\' AS saga, s.state, s.blocked, string_agg(k.name || \' \' || k.state, \', \' ORDER BY k.name) AS locks FROM meal_planner.saga s LEFT JOIN meal_planner.saga_lock k ON k.saga_id = s.id GROUP BY s.id, 1, 2, 3 ORDER BY 1;'
CREATE FUNCTION claim_pulled() RETURNS TABLE (n text) LANGUAGE sql AS $$
    WITH c AS MATERIALIZED (SELECT * FROM mp_claim('pulled'))
    SELECT c.event #>> '{detail,n}' FROM c, LATERAL (SELECT mp_ack(c.token, ARRAY[c.event_id])) a
$$;
-- Does what a worker of the service would do for one saga.
CREATE FUNCTION work(saga text) RETURNS text LANGUAGE sql AS $$
    SELECT mp_complete_saga_step(c.token, NULL) FROM mp_claim_saga_steps('work') c WHERE c.input #>> '{input,is}' = saga
$$;

SELECT mp_define_saga('x', '{"steps": [{"name": "a", "kind": "pivot", "service": "work"}], "locks": ["meal_plan:{plan}"]}');
SELECT mp_define_saga('change plan', '{"steps": [{"name": "a", "kind": "compensatable", "service": "work", "undo_service": "work"}, {"name": "b", "kind": "pivot", "service": "work"}], "locks": ["meal_plan:{input.plan}"], "deadline_seconds": 100}');
SELECT mp_define_saga('swap plans', '{"steps": [{"name": "a", "kind": "pivot", "service": "work"}], "locks": ["meal_plan:{input.one}", "meal_plan:{input.other}"]}');
SELECT mp_start_saga('change plan', '{"is": "A"}');
SELECT count(*) AS nothing_left_behind FROM meal_planner.saga;

-- What was there before goes on; what comes after the start waits for the end, in order, and other plans do not.
SELECT change_plan('meal_plan:17', 0);
SELECT mp_start_saga('change plan', '{"is": "A", "plan": 17}') AS a \gset
SELECT change_plan('meal_plan:17', 1), change_plan('meal_plan:18', 2), change_plan('meal_plan:17', 3);
CALL mp_sweep();
:seen
SELECT string_agg(n, ' ') AS pulled FROM claim_pulled() n;
SELECT count(*) AS unordered FROM mp_claim('unordered');
CALL mp_sweep();
SELECT subscription, next_attempt_at = 'infinity' AS blocked, count(*) FROM meal_planner.delivery GROUP BY 1, 2 ORDER BY 1, 2;
:locks
SELECT mp_saga(:'a') -> 'locks' AS locks;
SELECT work('A') AS a, work('A') AS b;
:locks
CALL mp_sweep();
:locks
:seen
SELECT string_agg(n, ' ') AS pulled FROM claim_pulled() n;
SELECT string_agg(n, ' ') AS pulled FROM claim_pulled() n;
SELECT string_agg(n, ' ') AS pulled FROM claim_pulled() n;
SELECT count(*) AS left FROM meal_planner.delivery;

-- A second saga waits for the first, and a third for the second.
TRUNCATE plan_seen;
DELETE FROM meal_planner.saga;
SELECT mp_start_saga('change plan', '{"is": "A", "plan": 17}') AS a \gset
SELECT mp_start_saga('change plan', '{"is": "B", "plan": 17}') AS b \gset
SELECT mp_start_saga('change plan', '{"is": "C", "plan": 17}') AS c \gset
SELECT mp_start_saga('change plan', '{"is": "D", "plan": 18}') AS d \gset
SELECT mp_start_saga('change plan', '{"is": "E", "plan": 17}', account => 'other') AS e \gset
CALL mp_sweep();
:locks
SELECT input ->> 'is' AS out FROM meal_planner.saga_step JOIN meal_planner.saga ON id = saga_id ORDER BY 1;
SELECT mp_cancel_saga(:'a', 'test') AS a;
CALL mp_sweep();
:locks
SELECT change_plan('meal_plan:17', 4);
SELECT work('B') AS a, work('B') AS b;
CALL mp_sweep();
:locks
SELECT blocked, at_steps FROM mp_sagas WHERE saga_id = :'c';
:seen
SELECT work('C') AS a, work('C') AS b;
CALL mp_sweep();
:seen
:locks

-- One that waits can be cancelled, and its deadline comes.
SELECT mp_start_saga('change plan', '{"is": "F", "plan": 18}') AS f \gset
SELECT mp_start_saga('change plan', '{"is": "G", "plan": 18}') AS g \gset
SELECT mp_cancel_saga(:'f', 'no patience');
SET meal_planner.clock_offset = 110;
CALL mp_sweep();
:locks
SELECT entry, step FROM meal_planner.saga_log WHERE saga_id = :'g' ORDER BY seq;
RESET meal_planner.clock_offset;

-- Two names are taken in one order, whatever the input says.
DELETE FROM meal_planner.saga;
DELETE FROM meal_planner.saga_step;
DELETE FROM meal_planner.saga_lock;
SELECT count(mp_start_saga('swap plans', v.i)) FROM (VALUES ('{"is": "A", "one": 2, "other": 1}'::jsonb), ('{"is": "B", "one": 1, "other": 2}'), ('{"is": "C", "one": 2, "other": 3}'), ('{"is": "D", "one": 4, "other": 4}')) v (i);
CALL mp_sweep();
:locks
SELECT work('A');
CALL mp_sweep();
:locks
SELECT work('B');
CALL mp_sweep();
:locks
SELECT work('C'), work('D');
CALL mp_sweep();
:locks

-- Its names are those of its start: it cannot go on as a version that holds others, or none, and would never give them back.
SELECT mp_define_saga('x', '{"steps": [{"name": "a", "kind": "pivot", "service": "work"}], "locks": ["plan:{input.plan}", "list:{input.plan}"]}');
SELECT mp_start_saga('x', '{"is": "H", "plan": 5}') AS h \gset
SELECT mp_define_saga('x', '{"steps": [{"name": "a", "kind": "pivot", "service": "work"}], "locks": ["plan:{input.plan}", "cook:{input.plan}"]}');
SELECT mp_define_saga('x', '{"steps": [{"name": "a", "kind": "pivot", "service": "work"}]}');
SELECT mp_define_saga('x', '{"steps": [{"name": "a", "kind": "pivot", "service": "work"}], "locks": ["list:{input.plan}", "plan:{input.plan}"], "deadline_seconds": 60}');
SELECT mp_migrate_saga(:'h', 2);
SELECT mp_migrate_saga(:'h', 3);
SELECT mp_migrate_saga(:'h', 4);
CALL mp_sweep();
SELECT work('H');
CALL mp_sweep();
SELECT count(*) AS locks FROM meal_planner.saga_lock WHERE saga_id = :'h';
DROP TABLE plan_seen;
DROP FUNCTION change_plan(text, int), claim_pulled(), work(text);
