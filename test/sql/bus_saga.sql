-- Sagas: defined, started, steps of the database, failures and compensation, operators, crashes.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS meal_planner CASCADE;
CREATE EXTENSION meal_planner;
RESET client_min_messages;
\set SHOW_CONTEXT never

-- An effect is a row: a step makes it, its undo takes it away.  The input says
-- what goes wrong: {"b": {"fails": 2, "sqlstate": "MPT01"}}, "b!" for the undo.
CREATE TABLE effect (saga uuid, step text, PRIMARY KEY (saga, step));
CREATE TABLE call (n serial, saga uuid, step text, direction text, attempt int);
CREATE FUNCTION act(s jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    undo boolean := s ->> 'direction' = 'compensate';
    plan jsonb := s #> ARRAY['input', (s ->> 'step') || CASE WHEN undo THEN '!' ELSE '' END];
BEGIN
    INSERT INTO call (saga, step, direction, attempt)
    VALUES ((s ->> 'saga_id')::uuid, s ->> 'step', s ->> 'direction', (s ->> 'attempt')::int);
    IF undo THEN
        DELETE FROM effect e WHERE e.saga = (s ->> 'saga_id')::uuid AND e.step = s ->> 'step';
    ELSE
        INSERT INTO effect VALUES ((s ->> 'saga_id')::uuid, s ->> 'step');
    END IF;
    IF (s ->> 'attempt')::int <= (plan ->> 'fails')::int THEN
        RAISE EXCEPTION 'no luck with %', s ->> 'step' USING ERRCODE = coalesce(plan ->> 'sqlstate', 'MPT01');
    END IF;
    PERFORM pg_sleep(coalesce((plan ->> 'sleeps')::float8, 0));
    RETURN jsonb_build_object('did', s ->> 'step', 'results', s -> 'results');
END $$;
CREATE FUNCTION quiet(s jsonb) RETURNS void LANGUAGE sql AS $$ SELECT act(s) $$;

-- What is told of a saga, without what changes from run to run.
CREATE VIEW story AS
SELECT l.saga_id, l.seq, l.entry || coalesce(' ' || l.step, '') || CASE l.direction WHEN 'compensate' THEN ' (undo)' ELSE '' END
       || coalesce(' #' || l.attempt, '')
       || coalesce(' ' || (l.detail ->> 'type') || ' ' || coalesce(l.detail ->> 'sqlstate', '-') || ', ' || (l.detail ->> 'then')
                   || coalesce(' in ' || (l.detail ->> 'after_seconds') || ' s', ''), '')
       || coalesce(' because ' || (l.detail ->> 'reason'), '') AS line
  FROM meal_planner.saga_log l;
\set story 'SELECT line FROM story WHERE saga_id = :\'id\' ORDER BY seq;'
CREATE VIEW stand AS
SELECT s.id AS saga_id, s.state, s.error,
       (SELECT count(*) FROM effect e WHERE e.saga = s.id) AS effects,
       (SELECT count(*) FROM meal_planner.saga_step o WHERE o.saga_id = s.id) AS out, s.due_at IS NOT NULL AS due
  FROM meal_planner.saga s;
\set state 'SELECT state, error, effects, out, due FROM stand WHERE saga_id = :\'id\';'
\set ends 'SELECT detail_type, detail - \'saga_id\' AS detail FROM meal_planner.event WHERE detail ->> \'saga_id\' = :\'id\' ORDER BY position;'

-- ------------------------------------------------------------------------
-- Definitions
-- ------------------------------------------------------------------------
SELECT mp_define_saga(NULL, '{}');
SELECT mp_define_saga('', '{}');
SELECT mp_define_saga('x', NULL);
SELECT mp_define_saga('x', '{"steps": []}');
SELECT mp_define_saga('x', '{"steps": [{"name": "a", "kind": "sideways", "run": "act(jsonb)"}]}');
SELECT mp_define_saga('x', '{"steps": [{"name": "a", "kind": "pivot", "run": "nothing(jsonb)"}]}');
SELECT mp_define_saga('x', '{"steps": [{"name": "a", "kind": "pivot", "run": "act(jsonb"}]}');
SELECT mp_define_saga('x', '{"steps": [{"name": "a", "kind": "pivot", "run": "-"}]}');
SELECT mp_define_saga('x', '{"steps": [{"name": "a", "kind": "compensatable", "run": "act(jsonb)", "undo": "length(text)"}]}');
SELECT mp_define_saga('x', '{"steps": [{"name": "a", "kind": "pivot", "run": "jsonb_array_elements(jsonb)"}]}');
CREATE FUNCTION open_path(s jsonb) RETURNS void LANGUAGE sql SET search_path = public AS 'SELECT';
SELECT mp_define_saga('x', '{"steps": [{"name": "a", "kind": "pivot", "run": "open_path(jsonb)"}]}');
SELECT count(*) FROM meal_planner.saga_definition WHERE NOT builtin;

\set three '{"steps": [{"name": "a", "kind": "compensatable", "run": "act(jsonb)", "undo": "act(jsonb)"}, {"name": "b", "kind": "compensatable", "run": "quiet(jsonb)", "undo": "quiet(jsonb)"}, {"name": "c", "kind": "pivot", "run": "act(jsonb)"}, {"name": "d", "kind": "retriable", "run": "act(jsonb)", "retry": {"max_attempts": 2}}], "on_completed": {"emit": "AllDone"}, "on_compensated": {"emit": "AllUndone"}}'
SELECT mp_define_saga('four', :'three') AS first;
SELECT mp_define_saga('four', :'three') AS the_same;
SELECT mp_define_saga('four', :'three'::jsonb || '{"deadline_seconds": 1000}') AS another;
SELECT name, version, routines, routine_path FROM meal_planner.saga_definition WHERE NOT builtin ORDER BY name, version;

-- ------------------------------------------------------------------------
-- Starting
-- ------------------------------------------------------------------------
SELECT mp_start_saga('five', '{}');
SELECT mp_start_saga(NULL, '{}');
SELECT mp_start_saga('four', '[]');
SELECT mp_start_saga('four', '{}', '');
-- what is no account of an event is none of a saga
SELECT mp_start_saga('four', '{}', account => '');
SELECT mp_start_saga('four', '{}', account => repeat('x', 129));
SELECT mp_start_saga('four', '{}', account => E'a\nb');
BEGIN;
SELECT mp_start_saga('four', '{}', account => repeat('é', 128)) IS NOT NULL AS started;
ROLLBACK;
SELECT mp_start_saga('four', '{}', 'k') AS id \gset
SELECT mp_start_saga('four', '{}', 'k') = :'id' AS the_same;
SELECT mp_start_saga('four', '{"n": 1}', 'k');
SELECT mp_start_saga('four', '{}', 'k', 'other') <> :'id' AS of_another_account;
SELECT state, due_at <= meal_planner.clock() AS due, progress IS NULL AS fresh, version FROM meal_planner.saga WHERE account = 'local';

-- All goes well.
CALL mp_sweep();
:story
:state
:ends
SELECT step, direction, attempt FROM call WHERE saga = :'id' ORDER BY n;
SELECT l.step, l.result FROM meal_planner.saga_log l WHERE l.saga_id = :'id' AND l.step IS NOT NULL ORDER BY seq;
SELECT mp_start_saga('four', '{}', 'k') = :'id' AS still_the_same;
SELECT account, name, state, ended_at >= started_at AS ended FROM mp_sagas ORDER BY account;
SELECT mp_saga(:'id') - '{saga_id,started_at,ended_at,log}'::text[] AS saga;
SELECT mp_saga(:'id', 'other') AS of_another;
SELECT mp_saga_graph('four');
SELECT mp_saga_graph(saga_id => :'id') LIKE '%completed%' AS graph_of_instance;
SELECT mp_saga_graph();
SELECT mp_saga_graph('five');

-- What a step is told.
CREATE TABLE told (arg jsonb);
CREATE FUNCTION note(s jsonb) RETURNS jsonb LANGUAGE sql AS $$ INSERT INTO told VALUES (s); SELECT '"scalar"'::jsonb $$;
SELECT mp_define_saga('noted', '{"steps": [{"name": "a", "kind": "compensatable", "run": "note(jsonb)", "undo": "note(jsonb)"}, {"name": "b", "kind": "pivot", "run": "act(jsonb)"}]}');
SELECT mp_start_saga('noted', '{"b": {"fails": 9, "sqlstate": "22012"}, "list": [1, {"x": null}]}') AS id \gset
CALL mp_sweep();
SELECT arg - '{saga_id,idempotency_key}'::text[] AS told, arg ->> 'saga_id' = :'id' AS id,
       replace(arg ->> 'idempotency_key', :'id', 'ID') AS key FROM told;

-- ------------------------------------------------------------------------
-- Failures
-- ------------------------------------------------------------------------
-- Each step for good: what was done before is undone, backwards.
SELECT mp_start_saga('four', '{"a": {"fails": 1, "sqlstate": "P0001"}}') AS id \gset
CALL mp_sweep();
:story
:state
SELECT mp_start_saga('four', '{"b": {"fails": 1, "sqlstate": "P0001"}}') AS id \gset
CALL mp_sweep();
:story
:state
SELECT mp_start_saga('four', '{"c": {"fails": 1, "sqlstate": "23505"}}') AS id \gset
CALL mp_sweep();
:story
:state
:ends
SELECT step, direction FROM call WHERE saga = :'id' ORDER BY n;

-- Each once or twice and not for good: tried again when the backoff is over.
SELECT mp_start_saga('four', '{"a": {"fails": 1}, "b": {"fails": 2}, "c": {"fails": 1}, "d": {"fails": 1}}') AS id \gset
CALL mp_sweep();
:state
SELECT round(extract(epoch FROM due_at - l.at)::numeric, 1) AS waits FROM meal_planner.saga s JOIN meal_planner.saga_log l ON l.saga_id = s.id WHERE s.id = :'id';
SET meal_planner.clock_offset = 3; CALL mp_sweep();
SET meal_planner.clock_offset = 6; CALL mp_sweep();
SET meal_planner.clock_offset = 11; CALL mp_sweep();
SET meal_planner.clock_offset = 14; CALL mp_sweep();
SET meal_planner.clock_offset = 17; CALL mp_sweep();
:story
:state

-- All attempts used up.
SET meal_planner.clock_offset = 20;
SELECT mp_start_saga('four', '{"b": {"fails": 100}}') AS id \gset
CALL mp_sweep();
SET meal_planner.clock_offset = 23; CALL mp_sweep();
SET meal_planner.clock_offset = 28; CALL mp_sweep();
SET meal_planner.clock_offset = 37; CALL mp_sweep();
SET meal_planner.clock_offset = 54; CALL mp_sweep();
:story
:state

-- After the pivot there is no way back: parked, an alert, and on with it.
SELECT mp_start_saga('four', '{"d": {"fails": 2}}') AS id \gset
CALL mp_sweep();
SET meal_planner.clock_offset = 57; CALL mp_sweep();
:state
SELECT kind, message, saga_id = :'id' AS this_one, entries, waiting FROM mp_alerts;
SELECT mp_cancel_saga(:'id', 'too late');
SELECT mp_retry_saga(:'id');
CALL mp_sweep();
SET meal_planner.clock_offset = 60; CALL mp_sweep();
:story
SELECT mp_retry_saga(:'id');
CALL mp_sweep();
:state
UPDATE meal_planner.saga SET input = '{}' WHERE id = :'id';
SELECT mp_retry_saga(:'id');
CALL mp_sweep();
:story
:state
:ends
SELECT mp_retry_saga(:'id');
SELECT mp_cancel_saga(:'id', 'too late');

-- A compensation that fails is tried again, then the saga is stuck: never compensated when it is not.
SELECT mp_define_saga('undo', '{"steps": [{"name": "a", "kind": "compensatable", "run": "act(jsonb)", "undo": "act(jsonb)"}, {"name": "b", "kind": "compensatable", "run": "act(jsonb)", "undo": "act(jsonb)", "undo_retry": {"max_attempts": 2}}, {"name": "c", "kind": "pivot", "run": "act(jsonb)"}], "on_compensated": {"emit": "AllUndone"}}');
SELECT mp_start_saga('undo', '{"c": {"fails": 1, "sqlstate": "P0001"}, "b!": {"fails": 2}}') AS id \gset
CALL mp_sweep();
:state
SET meal_planner.clock_offset = 63; CALL mp_sweep();
:state
SELECT message FROM meal_planner.alert WHERE saga_id = :'id';
:ends
SELECT mp_skip_saga_step(:'id', 'b', '');
SELECT mp_skip_saga_step(:'id', 'z', 'no such step');
SELECT mp_skip_saga_step(:'id', 'c', 'it failed');
SELECT mp_skip_saga_step(:'id', 'b', 'undone by hand');
CALL mp_sweep();
:story
:state
:ends
-- or, permanently, by retrying
SELECT mp_start_saga('undo', '{"c": {"fails": 1, "sqlstate": "P0001"}, "a!": {"fails": 9, "sqlstate": "P0001"}}') AS id \gset
CALL mp_sweep();
:story
UPDATE meal_planner.saga SET input = '{}' WHERE id = :'id';
SELECT mp_retry_saga(:'id');
CALL mp_sweep();
:state

-- A function that takes too long, one that is gone, one that is not allowed any more.
SELECT mp_define_saga('slow', '{"steps": [{"name": "a", "kind": "compensatable", "run": "act(jsonb)", "undo": "act(jsonb)"}, {"name": "b", "kind": "pivot", "run": "act(jsonb)", "timeout_seconds": 0.02, "retry": {"max_attempts": 1}}]}');
SELECT mp_start_saga('slow', '{"b": {"sleeps": 10}}') AS id \gset
CALL mp_sweep();
:story
SELECT error ->> 'message' AS message FROM meal_planner.saga WHERE id = :'id';
CREATE FUNCTION passing(s jsonb) RETURNS void LANGUAGE sql AS 'SELECT';
SELECT mp_define_saga('gone', '{"steps": [{"name": "a", "kind": "pivot", "run": "passing(jsonb)"}]}');
SELECT mp_start_saga('gone', '{}') AS id \gset
DROP FUNCTION passing(jsonb);
CALL mp_sweep();
:story
SELECT mp_retry_saga(:'id');
CALL mp_sweep();
SELECT message FROM meal_planner.alert WHERE saga_id = :'id';
CREATE FUNCTION passing(s jsonb) RETURNS void LANGUAGE sql AS 'SELECT';
SELECT mp_retry_saga(:'id');
SET meal_planner.clock_offset = 70; CALL mp_sweep();
:state

-- What is too large: a result, a message.
CREATE FUNCTION large(s jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    IF s -> 'input' ? 'message' THEN
        RAISE EXCEPTION '%', repeat('é', 600000);
    END IF;
    RETURN to_jsonb(repeat('x', 600000));
END $$;
SELECT mp_define_saga('large', '{"steps": [{"name": "a", "kind": "pivot", "run": "large(jsonb)"}], "on_compensated": {"emit": "TooLarge"}}');
SELECT mp_start_saga('large', '{}') AS id \gset
SELECT mp_start_saga('large', '{"message": 1}') AS id2 \gset
SELECT mp_start_saga('large', jsonb_build_object('x', repeat('x', 600000)));
CALL mp_sweep();
:story
SELECT error ->> 'message' AS message FROM meal_planner.saga WHERE id = :'id';
SELECT length(error ->> 'message') AS message FROM meal_planner.saga WHERE id = :'id2';
SELECT count(*) AS told FROM meal_planner.event WHERE detail_type = 'TooLarge';

-- ------------------------------------------------------------------------
-- Many at once
-- ------------------------------------------------------------------------
-- Of two hundred every tenth fails, each in its own way.  No transaction has more subtransactions than the limit.
CREATE TEMP TABLE many AS
SELECT n, mp_start_saga('four', CASE n % 40 WHEN 0 THEN '{"a": {"fails": 1, "sqlstate": "P0001"}}' WHEN 10 THEN '{"b": {"fails": 1, "sqlstate": "P0001"}}'
                                     WHEN 20 THEN '{"c": {"fails": 1, "sqlstate": "P0001"}}' WHEN 30 THEN '{"c": {"fails": 1}}' ELSE '{}' END::jsonb) AS id
  FROM generate_series(1, 200) n;
CALL mp_sweep();
SET meal_planner.clock_offset = 73; CALL mp_sweep();
SELECT n % 40 IN (0, 10, 20) AS fails, s.state, count(*), sum((SELECT count(*) FROM effect e WHERE e.saga = s.id)) AS effects
  FROM many JOIN meal_planner.saga s USING (id) GROUP BY 1, 2 ORDER BY 1, 2;
SELECT count(*) AS left FROM meal_planner.saga_batch;
SELECT detail_type, count(*) FROM meal_planner.event JOIN many ON many.id = (detail ->> 'saga_id')::uuid GROUP BY 1 ORDER BY 1;

-- ------------------------------------------------------------------------
-- Crashes
-- ------------------------------------------------------------------------
-- A worker that died with several in hand does not tell which one it was: they go on alone, step by step.
SELECT mp_start_saga('four', '{}') AS id \gset
SELECT mp_start_saga('four', '{}') AS id2 \gset
INSERT INTO meal_planner.saga_batch VALUES ('local', 1, ARRAY[:'id', :'id2']::uuid[]);
SELECT meal_planner.reap_dead_sagas();
SELECT alone FROM meal_planner.saga WHERE ended_at IS NULL;
-- One that was alone has crashed; the second time it is given up.
INSERT INTO meal_planner.saga_batch VALUES ('local', 1, ARRAY[:'id']::uuid[]);
CALL mp_sweep();
:story
SELECT state FROM meal_planner.saga WHERE id = :'id2';
INSERT INTO meal_planner.saga_batch VALUES ('local', 1, ARRAY[:'id']::uuid[]);
SET meal_planner.clock_offset = 76; CALL mp_sweep();
:story
:state

-- ------------------------------------------------------------------------
-- Deadline, cancelling, versions
-- ------------------------------------------------------------------------
SELECT mp_define_saga('hurry', '{"steps": [{"name": "a", "kind": "compensatable", "run": "act(jsonb)", "undo": "act(jsonb)"}, {"name": "b", "kind": "pivot", "run": "act(jsonb)", "retry": {"base_delay": 100}}], "deadline_seconds": 10, "on_compensated": {"emit": "TooLate"}}');
SELECT mp_start_saga('hurry', '{"b": {"fails": 5}}') AS id \gset
CALL mp_sweep();
:state
SELECT round(extract(epoch FROM due_at - started_at)) AS due_at_deadline FROM meal_planner.saga WHERE id = :'id';
SET meal_planner.clock_offset = 90; CALL mp_sweep();
:story
:state
:ends
SELECT mp_start_saga('undo', '{"b": {"fails": 5}}') AS id \gset
CALL mp_sweep();
SELECT mp_cancel_saga(:'id', NULL);
SELECT mp_cancel_saga(gen_random_uuid(), 'who?');
SELECT mp_cancel_saga(:'id', 'nobody wants it') AS cancelled;
SELECT mp_cancel_saga(:'id', 'once more') AS unchanged;
CALL mp_sweep();
:story
:state
:ends
SELECT detail ->> 'role' = current_user AS by_me FROM meal_planner.saga_log WHERE saga_id = :'id' AND entry = 'cancel';
SELECT mp_start_saga('undo', '{}') AS id \gset
SELECT mp_cancel_saga(:'id', 'before it began');
:story
-- skipped on its way
SELECT mp_start_saga('undo', '{"b": {"fails": 5}}') AS id \gset
CALL mp_sweep();
SELECT mp_skip_saga_step(:'id', 'b', 'done by hand');
CALL mp_sweep();
:story
:state
SELECT mp_skip_saga_step(:'id', 'b', 'again');

-- A saga stays on its version unless it is moved.
SELECT mp_define_saga('grow', '{"steps": [{"name": "a", "kind": "compensatable", "run": "act(jsonb)", "undo": "act(jsonb)"}, {"name": "b", "kind": "pivot", "run": "act(jsonb)"}]}');
SELECT mp_start_saga('grow', '{"b": {"fails": 1}}') AS id \gset
SELECT mp_start_saga('grow', '{"b": {"fails": 1}}') AS id2 \gset
CALL mp_sweep();
SELECT mp_define_saga('grow', '{"steps": [{"name": "a", "kind": "compensatable", "run": "act(jsonb)", "undo": "act(jsonb)"}, {"name": "b", "kind": "pivot", "run": "act(jsonb)"}, {"name": "c", "kind": "retriable", "run": "act(jsonb)"}]}');
SELECT mp_define_saga('grow', '{"steps": [{"name": "z", "kind": "compensatable", "run": "act(jsonb)", "undo": "act(jsonb)"}, {"name": "b", "kind": "pivot", "run": "act(jsonb)"}]}');
SELECT mp_drop_saga('grow', 1);
SELECT mp_migrate_saga(:'id', 3);
SELECT mp_migrate_saga(:'id', 9);
SELECT mp_migrate_saga(:'id', 2);
SET meal_planner.clock_offset = 93; CALL mp_sweep();
:story
SELECT id = :'id' AS moved, version, state FROM meal_planner.saga WHERE name = 'grow' ORDER BY version;
SELECT mp_drop_saga('grow', 1);
SELECT mp_drop_saga('grow', 1);
SELECT mp_saga(:'id2') -> 'state' AS state, mp_saga(:'id2') -> 'steps' AS steps, jsonb_array_length(mp_saga(:'id2') -> 'log') AS entries;
SELECT mp_saga_graph(saga_id => :'id2');
-- A definition that vanished holds its sagas up, and nobody else.
SELECT mp_start_saga('grow', '{}') AS id \gset
SELECT mp_start_saga('four', '{}') AS id2 \gset
BEGIN;
CREATE TEMP TABLE kept AS SELECT * FROM meal_planner.saga_definition WHERE name = 'grow';
DELETE FROM meal_planner.saga_definition WHERE name = 'grow';
COMMIT;
CALL mp_sweep();
SELECT state FROM meal_planner.saga WHERE id IN (:'id', :'id2') ORDER BY name;
SELECT mp_cancel_saga(:'id', 'no way');
INSERT INTO meal_planner.saga_definition SELECT * FROM kept;
SET meal_planner.clock_offset = 160; CALL mp_sweep();
:state
-- So does a progress that nobody can read, its own saga alone.
SELECT mp_start_saga('four', '{}') AS id \gset
SELECT mp_start_saga('four', '{}') AS id2 \gset
UPDATE meal_planner.saga SET progress = 'half way' WHERE id = :'id';
\set VERBOSITY terse
CALL mp_sweep();
SELECT mp_cancel_saga(:'id', 'no way');
\set VERBOSITY default
SELECT id = :'id' AS unreadable, state, due_at > meal_planner.clock() AS comes_again FROM meal_planner.saga WHERE id IN (:'id', :'id2') ORDER BY id = :'id2';
UPDATE meal_planner.saga SET progress = NULL WHERE id = :'id';
SET meal_planner.clock_offset = 240; CALL mp_sweep();
:state
SET meal_planner.clock_offset = 160;

-- ------------------------------------------------------------------------
-- Rights, breakers, purging
-- ------------------------------------------------------------------------
-- A step runs as the role that defined the saga, with its search_path, whoever starts it or sweeps.
SET client_min_messages = warning;
DROP ROLE IF EXISTS saga_definer;
DROP ROLE IF EXISTS saga_starter;
RESET client_min_messages;
CREATE ROLE saga_definer;
CREATE ROLE saga_starter;
CREATE SCHEMA private AUTHORIZATION saga_definer;
CREATE TABLE who (step_role name, path text);
GRANT INSERT ON who TO saga_definer;
SELECT mp_grant('saga_definer', 'operator');
SELECT mp_grant('saga_starter', 'emitter');
SET ROLE saga_definer;
SET search_path = private, public;
CREATE FUNCTION whoami(s jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.who VALUES (current_user, current_setting('search_path'));
    SET work_mem = '77MB';
END $$;
SELECT mp_define_saga('private', '{"steps": [{"name": "a", "kind": "pivot", "run": "whoami(jsonb)"}]}');
RESET search_path;
SET ROLE saga_starter;
SELECT mp_start_saga('private', '{}') IS NOT NULL AS started;
SELECT mp_cancel_saga(NULL, NULL);
RESET ROLE;
CALL mp_sweep();
SELECT * FROM who;
SELECT current_setting('work_mem') <> '77MB' AS it_ends_with_the_call;
REVOKE EXECUTE ON FUNCTION private.whoami(jsonb) FROM PUBLIC, saga_definer;
SET ROLE saga_definer;
SELECT mp_define_saga('private', '{"steps": [{"name": "a", "kind": "pivot", "run": "private.whoami(jsonb)"}]}');
RESET ROLE;
SELECT mp_start_saga('private', '{}') AS id \gset
CALL mp_sweep();
:story
SELECT mp_cancel_saga(:'id', 'not allowed');
DROP OWNED BY saga_definer, saga_starter;
DROP ROLE saga_definer, saga_starter;

-- While its breaker is open a step waits, and no attempt counts.
SELECT mp_define_saga('fused', '{"steps": [{"name": "a", "kind": "pivot", "run": "act(jsonb)", "breaker": "saga fuse"}]}');
SELECT mp_breaker_force('saga fuse', 'open', meal_planner.clock() + interval '5 s', 'test');
SELECT mp_start_saga('fused', '{}') AS id \gset
CALL mp_sweep();
:state
:story
SET meal_planner.clock_offset = 166; CALL mp_sweep();
:story

-- A function that is looked up again leaves nothing behind of what it kept.
CREATE FUNCTION nothing(s jsonb) RETURNS jsonb LANGUAGE sql VOLATILE AS $$ SELECT jsonb_build_object('functions', count(*) > 0) FROM pg_proc $$;
SELECT mp_define_saga('looked up', '{"steps": [{"name": "a", "kind": "pivot", "run": "nothing(jsonb)"}]}');
CREATE FUNCTION kept_memory() RETURNS bigint LANGUAGE sql AS $$ SELECT sum(total_bytes) FROM pg_backend_memory_contexts WHERE name LIKE 'SQL function%' OR name LIKE 'meal_planner saga%' $$;
SELECT mp_start_saga('looked up', '{}') IS NOT NULL AS started;
CALL mp_sweep();
SELECT kept_memory() AS before \gset
CREATE FUNCTION unrelated() RETURNS int LANGUAGE sql AS 'SELECT 1';
SELECT mp_start_saga('looked up', '{}') IS NOT NULL AS started;
CALL mp_sweep();
DROP FUNCTION unrelated();
SELECT mp_start_saga('looked up', '{}') IS NOT NULL AS started;
CALL mp_sweep();
SELECT kept_memory() - :before AS more_memory, count(*) FILTER (WHERE s.state = 'completed') AS completed FROM meal_planner.saga s WHERE s.name = 'looked up';
DROP FUNCTION nothing(jsonb), kept_memory();

-- Its end is told also when fewer handlers may stand before it by now than when it was started.
SELECT mp_define_saga('behind handlers', '{"steps": [{"name": "a", "kind": "pivot", "run": "note(jsonb)"}], "on_completed": {"emit": "HandlersPassed"}}');
SELECT mp_start_saga('behind handlers', '{}') AS id \gset
UPDATE meal_planner.saga SET hops = 5 WHERE id = :'id';
SET meal_planner.max_hops = 3;
CALL mp_sweep();
SELECT s.state, (SELECT count(*) FROM meal_planner.event e WHERE e.detail_type = 'HandlersPassed') AS told FROM meal_planner.saga s WHERE s.id = :'id';
RESET meal_planner.max_hops;

-- A version is dropped, or defined, by what is true now, not by an old snapshot.
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT mp_drop_saga('looked up', 1);
ROLLBACK;

-- Sagas that have ended are kept for 30 days, or as long as somebody says.
SELECT mp_start_saga('undo', '{"b": {"fails": 5}}') AS id \gset
CALL mp_sweep();
SELECT count(*) > 200 AS there FROM meal_planner.saga;
SELECT meal_planner.purge_sagas(1000) AS too_early;
SELECT mp_set_retention(0.001, 'saga');
SELECT mp_set_retention(1, 'nothing');
-- their ids come from the position clock, which may be ahead of us
SELECT set_config('meal_planner.clock_offset', (extract(epoch FROM meal_planner.position_time(meal_planner.next_position()) - clock_timestamp()) + 300)::text, false) IS NOT NULL AS far_ahead;
SELECT meal_planner.purge_sagas(100) AS some, meal_planner.purge_sagas(1000) > 100 AS the_rest;
SELECT id = :'id' AS alive, state FROM meal_planner.saga;
SELECT count(DISTINCT saga_id) AS logs FROM meal_planner.saga_log;
SELECT mp_set_retention(NULL, 'saga');
RESET meal_planner.clock_offset;
DROP VIEW stand;
DROP TABLE effect, call, told, who;
DROP FUNCTION act(jsonb), quiet(jsonb), note(jsonb), open_path(jsonb), passing(jsonb), large(jsonb);
