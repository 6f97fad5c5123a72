-- mp_subscribe and its companions: what is accepted, what a change keeps, who is called.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS meal_planner CASCADE;
CREATE EXTENSION meal_planner;
RESET client_min_messages;
\set SHOW_CONTEXT never

CREATE TABLE seen (n serial, subscription text, event text);
CREATE FUNCTION on_a(e meal_planner.event) RETURNS void LANGUAGE sql
AS $$ INSERT INTO seen (subscription, event) VALUES ('a', e.detail_type) $$;
CREATE FUNCTION on_b(e meal_planner.event) RETURNS jsonb LANGUAGE plpgsql
AS $$ BEGIN INSERT INTO seen (subscription, event) VALUES ('b', e.detail_type); RETURN '{"done": true}'; END $$;
CREATE FUNCTION on_null(e meal_planner.event) RETURNS jsonb LANGUAGE sql
AS $$ SELECT NULL::jsonb $$;
CREATE FUNCTION on_strict(e meal_planner.event) RETURNS void LANGUAGE sql STRICT
AS $$ INSERT INTO seen (subscription, event) VALUES ('strict', e.detail_type) $$;
CREATE FUNCTION wrong_argument(e jsonb) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION two_arguments(e meal_planner.event, x int DEFAULT 1) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION wrong_result(e meal_planner.event) RETURNS text LANGUAGE sql AS $$ SELECT 'x' $$;
CREATE FUNCTION set_result(e meal_planner.event) RETURNS SETOF jsonb LANGUAGE sql AS $$ SELECT '{}'::jsonb $$;
CREATE PROCEDURE a_procedure(e meal_planner.event) LANGUAGE sql AS '';

CREATE FUNCTION pg_temp.refusal(call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    state text; message text; hint text;
BEGIN
    EXECUTE call;
    RETURN 'accepted';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
    RETURN CASE WHEN message LIKE state || ': %' THEN '' ELSE '(' || state || ') ' END || message || ' / ' || hint;
END $$;

-- Arguments.
\set all '''{"source": [{"exists": true}]}'''
SELECT call, refusal FROM (VALUES
    ($$NULL, :all, 'on_a(meal_planner.event)'$$), ($$'', :all, 'on_a(meal_planner.event)'$$),
    ($$repeat('x', 101), :all, 'on_a(meal_planner.event)'$$),
    ($$'s', NULL, 'on_a(meal_planner.event)'$$), ($$'s', '[]', 'on_a(meal_planner.event)'$$),
    ($$'s', '{"detail": {"x": [{"near": 1}]}}', 'on_a(meal_planner.event)'$$),
    ($$'s', :all$$), ($$'s', :all, mode => 'worker'$$), ($$'s', :all, 'on_a(meal_planner.event)', 'pull'$$),
    ($$'s', :all, 'on_a(meal_planner.event)', 'batch'$$), ($$'s', :all, 'on_a(meal_planner.event)', 'Inline'$$),
    ($$'s', :all, 'on_nothing(meal_planner.event)'$$),
    ($$'s', :all, 'wrong_argument(jsonb)'$$), ($$'s', :all, 'two_arguments(meal_planner.event,int)'$$),
    ($$'s', :all, 'wrong_result(meal_planner.event)'$$), ($$'s', :all, 'set_result(meal_planner.event)'$$),
    ($$'s', :all, 'a_procedure(meal_planner.event)'$$), ($$'s', :all, 'meal_planner.dispatch()'$$), ($$'s', :all, 4294967295::oid::regprocedure$$)
  ) AS t (call), LATERAL pg_temp.refusal('SELECT mp_subscribe(' || replace(call, ':all', $$'{"source": [{"exists": true}]}'$$) || ')') AS refusal;

-- Options: what they are, and their limits.
SELECT options, refusal FROM (VALUES
    ('[]'), ('1'), ('{"max_attemps": 5}'), ('{"max_attempts": 0}'), ('{"max_attempts": 1001}'), ('{"max_attempts": 2.5}'),
    ('{"max_attempts": "5"}'), ('{"max_attempts": null}'), ('{"base_delay": -1}'), ('{"base_delay": 86401}'),
    ('{"multiplier": 0.5}'), ('{"multiplier": 101}'), ('{"max_delay": 0}'), ('{"jitter": 1.1}'), ('{"jitter": -0.1}'), ('{"max_age": 0}'),
    ('{"start": "soon"}'), ('{"start": 5}'), ('{"start": "2026-13-01"}'), ('{"start": ""}'), ('{"start": "2026-11-23 24:61:00"}'),
    ('{"start": "2026-11-23 10:00 Nowhere/Town"}'), ('{"start": "infinity"}'), ('{"start": "Latest"}'),
    ('{}'), ('{"max_attempts": 1000, "base_delay": 0, "multiplier": 1, "max_delay": 0.001, "jitter": 1, "max_age": 0.001}'),
    ('{"start": "latest"}'), ('{"start": "earliest"}'), ('{"start": "2026-11-23T10:00:00Z"}')
  ) AS t (options),
  LATERAL pg_temp.refusal(format($$SELECT mp_subscribe('options', '{"account": ["nobody"]}', 'on_a(meal_planner.event)', 'worker', %L)$$, options)) AS refusal;
SELECT mp_subscribe('options', '{"account": ["nobody"]}', 'on_a(meal_planner.event)', NULL, NULL);
SELECT name, mode, options FROM mp_subscriptions WHERE name = 'options';
SELECT mp_unsubscribe('options');

-- Handlers are called in the order of their names, byte by byte; NULL results, jsonb results, STRICT ones.
SELECT mp_subscribe('b', :all, 'on_b(meal_planner.event)'),
       mp_subscribe('a', :all, 'on_a(meal_planner.event)'),
       mp_subscribe('é', :all, 'on_a(meal_planner.event)'),
       mp_subscribe('B', :all, 'on_b(meal_planner.event)'),
       mp_subscribe('null', :all, 'on_null(meal_planner.event)'),
       mp_subscribe('strict', '{"detail-type": ["First", "First"]}', 'on_strict(meal_planner.event)');
SELECT mp_emit_event('First', '{}') IS NOT NULL AS emitted;
SELECT subscription, event FROM seen ORDER BY n;
SELECT count(*) AS failed FROM meal_planner.delivery;
SELECT count(*) AS failed FROM meal_planner.dead_letter;
SELECT name, mode, handler, owner = current_user AS mine, pattern, options, cursor, paused, builtin
  FROM mp_subscriptions WHERE NOT builtin ORDER BY name COLLATE "C";
SELECT subscription, calls > 0 AS called, p50_ms > 0 AND p50_ms <= p95_ms AND p95_ms <= p99_ms AS percentiles
  FROM mp_handler_stats WHERE subscription IN ('a', 'null') ORDER BY 1;
SELECT mp_unsubscribe(name) FROM mp_subscriptions WHERE NOT builtin;
TRUNCATE seen;

-- Pause: an inline subscription gets the events of the pause when it is resumed, once each, and the others go on.
SELECT mp_subscribe('a', '{"detail-type": [{"prefix": "P"}]}', 'on_a(meal_planner.event)'),
       mp_subscribe('b', '{"detail-type": [{"prefix": "P"}]}', 'on_b(meal_planner.event)');
SELECT mp_pause_subscription('a', 'kitchen closed');
SELECT name, paused, paused_reason, paused_at IS NOT NULL AS since FROM mp_subscriptions WHERE name IN ('a', 'b') ORDER BY name;
SELECT mp_pause_subscription('a', 'still closed');
SELECT mp_emit_event('P1', '{}') IS NOT NULL AND mp_emit_event('P2', '{}') IS NOT NULL AS emitted;
SELECT mp_emit_event('P3', '{}', deliver_after => meal_planner.clock() + interval '1 hour') IS NOT NULL AS emitted;
CALL mp_sweep();
SELECT subscription, event FROM seen ORDER BY n;
SELECT d.subscription, e.detail_type, d.attempt, d.next_attempt_at > meal_planner.clock() AS later
  FROM meal_planner.delivery d JOIN meal_planner.event e USING (account, position) ORDER BY 1, 2;
SELECT mp_resume_subscription('a');
SELECT paused, paused_reason, retrying FROM mp_subscriptions WHERE name = 'a';
CALL mp_sweep();
SELECT subscription, event FROM seen WHERE subscription = 'a' ORDER BY n;
-- What is delayed stays so through a pause.
SET meal_planner.clock_offset = 3601;
CALL mp_sweep();
RESET meal_planner.clock_offset;
SELECT subscription, event, count(*) FROM seen GROUP BY 1, 2 ORDER BY 1, 2;
SELECT count(*) AS left FROM meal_planner.delivery;

-- A paused subscription stays paused when it is replaced.
SELECT mp_pause_subscription('a');
SELECT mp_subscribe('a', '{"detail-type": ["Q"]}', 'on_b(meal_planner.event)');
SELECT paused, handler FROM mp_subscriptions WHERE name = 'a';
SELECT mp_resume_subscription('a');

-- Replaced: new pattern and handler from the next event on.
SELECT mp_emit_event('P4', '{}') IS NOT NULL AND mp_emit_event('Q', '{}') IS NOT NULL AS emitted;
SELECT subscription, event FROM seen WHERE event IN ('P4', 'Q') ORDER BY n;
-- Unsubscribed in the same transaction, and back when that is rolled back.
BEGIN;
SELECT mp_unsubscribe('b');
SELECT mp_emit_event('P5', '{}') IS NOT NULL AS emitted;
ROLLBACK;
SELECT mp_emit_event('P6', '{}') IS NOT NULL AS emitted;
SELECT subscription, event FROM seen WHERE event IN ('P5', 'P6') ORDER BY n;
SELECT mp_unsubscribe('a'), mp_unsubscribe('b');

-- What the extension ships is paused, or replaced, but not removed.
SELECT meal_planner.subscribe_builtin('shipped', '{"detail-type": ["Shipped"]}', 'public.on_b(meal_planner.event)');
SELECT mp_unsubscribe('shipped');
\echo :LAST_ERROR_SQLSTATE
SELECT mp_pause_subscription('shipped'), mp_resume_subscription('shipped');
SELECT mp_subscribe('shipped', '{"detail-type": ["Shipped"]}', 'on_b(meal_planner.event)');
SELECT mp_unsubscribe('shipped');

-- What is not there.
SELECT mp_unsubscribe('nobody');
\echo :LAST_ERROR_SQLSTATE
SELECT mp_pause_subscription('nobody', 'x');
SELECT mp_resume_subscription('nobody');
SELECT mp_unsubscribe(NULL);

-- A handler that is dropped pauses its subscription, as something a deployment may bring back.
SELECT mp_subscribe('a', '{"detail-type": ["D"]}', 'on_a(meal_planner.event)');
DROP FUNCTION on_a;
SELECT mp_emit_event('D', '{}') IS NOT NULL AS emitted;
SELECT attempt, sqlstate, mp_classify_error(sqlstate), error_message FROM meal_planner.delivery;
CREATE FUNCTION on_a(e meal_planner.event) RETURNS void LANGUAGE sql
AS $$ INSERT INTO seen (subscription, event) VALUES ('a is back', e.detail_type) $$;
SELECT mp_resume_subscription('a');
CALL mp_sweep();
SELECT subscription, event FROM seen WHERE event = 'D';
SELECT count(*) AS left FROM meal_planner.delivery;
-- A handler that is replaced is the new one at once.
CREATE OR REPLACE FUNCTION on_a(e meal_planner.event) RETURNS void LANGUAGE sql
AS $$ INSERT INTO seen (subscription, event) VALUES ('a is new', e.detail_type || '2') $$;
SELECT mp_emit_event('D', '{}') IS NOT NULL AS emitted;
SELECT subscription, event FROM seen WHERE event = 'D2';
SELECT mp_unsubscribe('a');

-- A handler that changes subscriptions while it runs: the event at hand is delivered as it was matched.
CREATE FUNCTION on_change(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM mp_unsubscribe('z');
    PERFORM mp_subscribe('late', '{"detail-type": ["C"]}', 'on_b(meal_planner.event)');
    PERFORM mp_emit_event('C inner', '{}');
END $$;
SELECT mp_subscribe('change', '{"detail-type": ["C"]}', 'on_change(meal_planner.event)'),
       mp_subscribe('z', '{"detail-type": ["C", "C inner"]}', 'on_b(meal_planner.event)');
SELECT mp_emit_event('C', '{}') IS NOT NULL AS emitted;
SELECT subscription, event FROM seen WHERE event LIKE 'C%' ORDER BY n;
SELECT name FROM mp_subscriptions WHERE NOT builtin ORDER BY name;
SELECT mp_unsubscribe('change'), mp_unsubscribe('late');

-- Recursion: a handler that is called again inside itself, and fails inside.
CREATE FUNCTION on_down(e meal_planner.event) RETURNS void LANGUAGE sql AS $$
    SELECT mp_emit_event('Down', jsonb_build_object('n', (e.detail ->> 'n')::int - 1))
     WHERE (e.detail ->> 'n')::int > 0;
    INSERT INTO seen (subscription, event) SELECT 'down', 'Down ' || 10 / ((e.detail ->> 'n')::int - 1)
$$;
SELECT mp_subscribe('down', '{"detail-type": ["Down"]}', 'on_down(meal_planner.event)');
SELECT mp_emit_event('Down', '{"n": 3}') IS NOT NULL AS emitted;
SELECT event FROM seen WHERE subscription = 'down' ORDER BY n;
SELECT subscription, sqlstate, event -> 'detail' ->> 'n' AS n FROM mp_dlq;
SELECT mp_unsubscribe('down');

-- Rows written by hand that mp_subscribe would refuse: told once when they are
-- loaded; they get nothing, and nobody else is harmed.
CREATE FUNCTION on_gone(e meal_planner.event) RETURNS void LANGUAGE sql AS $$ SELECT $$;
SELECT mp_subscribe(name, '{"detail-type": ["Broken"]}', 'on_gone(meal_planner.event)', mode)
  FROM (VALUES ('bad handler', 'inline'), ('bad options', 'inline'), ('bad owner', 'inline'), ('bad pattern', 'inline'),
               ('bad worker', 'worker'), ('good worker', 'worker'), ('number', 'inline')) AS s (name, mode);
SELECT mp_subscribe('good', '{"detail-type": ["Broken"]}', 'on_b(meal_planner.event)');
BEGIN;
UPDATE meal_planner.subscription SET pattern = '{"detail-type": "Broken"}' WHERE name IN ('bad pattern', 'bad worker');
UPDATE meal_planner.subscription SET options = '{"max_attempt": 3}' WHERE name = 'bad options';
UPDATE meal_planner.subscription SET owner = 'mp_nobody' WHERE name = 'bad owner';
UPDATE meal_planner.subscription SET handler = 'public.no_such(meal_planner.event)' WHERE name = 'bad handler';
SELECT mp_emit_event('Broken', '{"n": 1}') IS NOT NULL AS emitted;
COMMIT;
SET client_min_messages = error;
UPDATE meal_planner.subscription SET options = '{"max_age": 1e400}' WHERE name = 'number';
SELECT mp_emit_event('Broken', '{"n": 2}') IS NOT NULL AS emitted;
SELECT count(*) FROM seen WHERE event = 'Broken';
SELECT subscription, sqlstate, count(*) FROM meal_planner.delivery WHERE subscription LIKE 'bad%' GROUP BY 1, 2 ORDER BY 1;
CALL mp_sweep();
SELECT name, broken, lag_events FROM mp_subscriptions WHERE NOT builtin ORDER BY name;
-- Replaced, the worker goes on where it was.
SELECT mp_subscribe('bad worker', '{"detail-type": ["Broken"]}', 'on_b(meal_planner.event)', 'worker');
CALL mp_sweep();
SELECT count(*) FROM seen WHERE event = 'Broken';
SELECT mp_unsubscribe(name) FROM mp_subscriptions WHERE NOT builtin;
RESET client_min_messages;
DROP FUNCTION on_gone;

-- Found by detail type, by source or tried for every event: each gets its events once, in the order of the names.
DO $$
DECLARE
    pattern record;
BEGIN
    FOR pattern IN SELECT * FROM (VALUES
        ('1 source', '{"source": ["x"]}'), ('2 any', '{"detail": {"n": [{"exists": true}]}}'), ('3 type', '{"detail-type": ["P"]}'),
        ('4 sources', '{"source": ["y", "x", "x"]}'), ('5 both', '{"detail-type": ["Q", "P"], "source": ["x"]}'),
        ('6 prefix', '{"source": [{"prefix": "x"}]}'), ('7 mixed', '{"source": ["z", {"prefix": "y"}]}'), ('8 other', '{"source": ["xx"]}')
      ) AS p (name, pattern)
    LOOP
        EXECUTE format('CREATE FUNCTION %I(e meal_planner.event) RETURNS void LANGUAGE sql AS
                        $f$ INSERT INTO seen (subscription, event) VALUES (%L, e.source || '' '' || e.detail_type) $f$', pattern.name, pattern.name);
        PERFORM mp_subscribe(pattern.name, pattern.pattern::jsonb, format('%I(meal_planner.event)', pattern.name)::regprocedure);
    END LOOP;
END $$;
SELECT count(mp_emit_event(type, '{"n": 1}', source => source))
  FROM unnest(ARRAY['P', 'Q', 'R']) type, unnest(ARRAY['x', 'y', 'z', 'xx', 'w']) source;
SELECT event, string_agg(subscription, ', ' ORDER BY n) AS got FROM seen WHERE event LIKE '% _' AND subscription <> 'down' GROUP BY event ORDER BY event;
SELECT count(mp_unsubscribe(name)) FROM mp_subscriptions WHERE NOT builtin;
DROP FUNCTION "1 source", "2 any", "3 type", "4 sources", "5 both", "6 prefix", "7 mixed", "8 other";

-- What is emitted where only triggers of replicas fire has its handlers, too, and changes there are noticed.
SELECT mp_subscribe('replicated', '{"source": ["replica"]}', 'on_b(meal_planner.event)');
SELECT mp_emit_event('Before', '{}', source => 'replica') IS NOT NULL AS emitted;
SET session_replication_role = replica;
SELECT mp_emit_event('Single', '{}', source => 'replica') IS NOT NULL AS emitted;
SELECT count(*) AS put FROM mp_put_events('[{"Source": "replica", "DetailType": "One", "Detail": "{}"}, {"Source": "replica", "DetailType": "Two", "Detail": "{}"}]');
SELECT mp_unsubscribe('replicated');
SELECT mp_emit_event('After', '{}', source => 'replica') IS NOT NULL AS emitted;
RESET session_replication_role;
SELECT event FROM seen WHERE event IN ('Before', 'Single', 'One', 'Two', 'After') ORDER BY n;

DROP FUNCTION on_a, on_b, on_null, on_strict, wrong_argument, two_arguments, wrong_result, set_result, on_change, on_down;
DROP PROCEDURE a_procedure;
DROP TABLE seen;
