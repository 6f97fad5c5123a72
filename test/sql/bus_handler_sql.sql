-- A handler of one SQL statement is run from a plan that is kept: nobody must be able to tell.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS meal_planner CASCADE;
CREATE EXTENSION meal_planner;
RESET client_min_messages;
CREATE TABLE got (name text, n int);
-- From 18 on the server keeps plans of functions itself.
CREATE VIEW plans AS
SELECT CASE WHEN current_setting('server_version_num')::int < 180000 THEN count(*) END AS plans
  FROM pg_backend_memory_contexts WHERE name = 'meal_planner statement';
CREATE FUNCTION emit(type text, n int) RETURNS boolean LANGUAGE sql AS
$$ SELECT mp_emit_event(type, jsonb_build_object('n', n)) IS NOT NULL $$;
CREATE VIEW last_failure AS
SELECT sqlstate, error_message, error_context
  FROM (SELECT position, sqlstate, error_message, error_context FROM meal_planner.delivery WHERE sqlstate IS NOT NULL
        UNION ALL SELECT position, sqlstate, error_message, error_context FROM meal_planner.dead_letter) f
 ORDER BY position DESC LIMIT 1;

-- The argument by name, by number and as a whole.
CREATE FUNCTION by_name(e meal_planner.event) RETURNS void LANGUAGE sql AS
$$ INSERT INTO got VALUES ('name ' || e.detail_type, (e.detail ->> 'n')::int) $$;
CREATE FUNCTION by_number(meal_planner.event) RETURNS void LANGUAGE sql AS
$$ INSERT INTO got VALUES ('number ' || ($1).detail_type, (($1).detail ->> 'n')::int) RETURNING name $$;
CREATE FUNCTION as_whole(e meal_planner.event) RETURNS void LANGUAGE sql AS
$$ INSERT INTO got SELECT 'whole ' || (meal_planner.envelope(as_whole.e) ->> 'detail-type'), (detail ->> 'n')::int FROM (SELECT (e).*) x $$;
CREATE FUNCTION by_select(e meal_planner.event) RETURNS void LANGUAGE sql AS
$$ SELECT set_config('regress.got', e.detail ->> 'n', false), count(*) FROM generate_series(1, 3) GROUP BY e.detail $$;
-- These are called.
CREATE FUNCTION two(e meal_planner.event) RETURNS void LANGUAGE sql AS
$$ INSERT INTO got VALUES ('two', (e.detail ->> 'n')::int); UPDATE got SET n = n * 10 WHERE name = 'two' $$;
CREATE FUNCTION nothing(e meal_planner.event) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION notifies(e meal_planner.event) RETURNS void LANGUAGE sql AS 'NOTIFY regress_got';
CREATE FUNCTION answers(e meal_planner.event) RETURNS jsonb LANGUAGE sql AS
$$ INSERT INTO got VALUES ('answers', (e.detail ->> 'n')::int) RETURNING to_jsonb(n) $$;
CREATE FUNCTION with_path(e meal_planner.event) RETURNS void LANGUAGE sql SET search_path = public, pg_temp AS
$$ INSERT INTO got VALUES ('with path', (e.detail ->> 'n')::int) $$;
CREATE FUNCTION parsed(e meal_planner.event) RETURNS void LANGUAGE sql
BEGIN ATOMIC INSERT INTO got VALUES ('parsed', (e.detail ->> 'n')::int); END;
SELECT count(mp_subscribe(f, '{"detail-type": ["T"]}', (f || '(meal_planner.event)')::regprocedure) IS NULL)
  FROM unnest('{by_name,by_number,as_whole,by_select,two,nothing,notifies,answers,with_path,parsed}'::text[]) f;
SELECT emit('T', 1), emit('T', 2);
SELECT n, array_agg(name ORDER BY name COLLATE "C") FROM got GROUP BY n ORDER BY n;
SHOW regress.got;
SELECT count(*) AS failed FROM meal_planner.delivery;
SELECT coalesce(plans, 4) AS plans FROM plans;
SELECT count(mp_put_events('[{"Source": "s", "DetailType": "T", "Detail": {"n": 3}}, {"Source": "s", "DetailType": "T", "Detail": {"n": 4}}]')) AS batches;
SELECT n, count(*) FROM got WHERE n BETWEEN 3 AND 4 GROUP BY n ORDER BY n;
-- The plans go with the subscriptions.
SELECT count(mp_unsubscribe(name)) FROM mp_subscriptions WHERE name <> 'by_name' AND handler LIKE 'public.%';
SELECT emit('T', 5);
SELECT coalesce(plans, 1) AS plans FROM plans;
SELECT count(*) FROM got WHERE n = 5;

-- The function, the table and the search_path may change.
CREATE OR REPLACE FUNCTION by_name(e meal_planner.event) RETURNS void LANGUAGE sql AS
$$ INSERT INTO got VALUES ('new', (e.detail ->> 'n')::int) $$;
SELECT emit('T', 6);
DROP FUNCTION parsed;
ALTER TABLE got ALTER COLUMN n TYPE bigint, ADD COLUMN more int DEFAULT 1;
SELECT emit('T', 7);
CREATE TEMP TABLE got (name text, n int);
SELECT emit('T', 8);
SELECT count(*) AS in_temporary FROM pg_temp.got;
DROP TABLE pg_temp.got;
CREATE SCHEMA first CREATE TABLE got (LIKE public.got);
SET search_path = first, public;
SELECT emit('T', 9);
SELECT count(*) AS not_the_emitters FROM first.got;
SELECT mp_subscribe('by_name', '{"detail-type": ["T"]}', 'by_name(meal_planner.event)');
SELECT emit('T', 10);
RESET search_path;
SELECT n FROM first.got;
SELECT name, n FROM public.got WHERE n BETWEEN 6 AND 10 ORDER BY n;
SET client_min_messages = warning;
DROP SCHEMA first CASCADE;
RESET client_min_messages;
SELECT mp_subscribe('by_name', '{"detail-type": ["T"]}', 'by_name(meal_planner.event)');

-- Errors, and their end.
SELECT emit('T', NULL), emit('T', 11);
ALTER TABLE got ADD CHECK (n < 12);
SELECT emit('T', 12);
SELECT * FROM last_failure;
ALTER TABLE got RENAME TO gone;
SELECT emit('T', 11);
SELECT sqlstate, error_message FROM last_failure;
ALTER TABLE gone RENAME TO got;
SELECT mp_resume_subscription('by_name');
SELECT emit('T', 11);
SELECT name, n FROM got WHERE n = 11 OR n IS NULL;

-- The rights are the subscriber's, at every run; row security too.
CREATE ROLE regress_subscriber;
GRANT SELECT, INSERT ON got TO regress_subscriber;
UPDATE meal_planner.subscription SET owner = 'regress_subscriber' WHERE name = 'by_name';
SELECT emit('T', 0);
REVOKE INSERT ON got FROM regress_subscriber;
SELECT emit('T', -1);
SELECT sqlstate, error_message FROM last_failure;
GRANT INSERT ON got TO regress_subscriber;
SELECT mp_resume_subscription('by_name');
ALTER TABLE got ENABLE ROW LEVEL SECURITY;
CREATE POLICY even ON got FOR INSERT TO regress_subscriber WITH CHECK (n % 2 = 0);
SELECT emit('T', -4), emit('T', -3);
SELECT sqlstate, error_message FROM last_failure;
SELECT mp_resume_subscription('by_name');
UPDATE meal_planner.subscription SET owner = current_user WHERE name = 'by_name';
SELECT emit('T', -5);
SELECT n FROM got WHERE n <= 0 ORDER BY n DESC;

-- One that emits, and is run again inside itself.
CREATE FUNCTION chain(e meal_planner.event) RETURNS void LANGUAGE sql AS
$$ INSERT INTO got SELECT 'chain', (e.detail ->> 'n')::int WHERE e.detail ->> 'n' = '3' OR emit('Chain', (e.detail ->> 'n')::int + 1) $$;
SELECT mp_subscribe('chain', '{"detail-type": ["Chain"]}', 'chain(meal_planner.event)');
SELECT emit('Chain', 1);
SELECT n FROM got WHERE name = 'chain' ORDER BY n;
-- It replaces itself while it runs.
CREATE OR REPLACE FUNCTION chain(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    CREATE OR REPLACE FUNCTION chain(e meal_planner.event) RETURNS void LANGUAGE sql AS
        'INSERT INTO got VALUES (''replaced'', (e.detail ->> ''n'')::int)';
    PERFORM emit('Chain', 2);
END $$;
SELECT emit('Chain', 1), emit('Chain', 3);
SELECT name, n FROM got WHERE name = 'replaced' ORDER BY n;

SELECT mp_unsubscribe('by_name'), mp_unsubscribe('chain');
DROP VIEW plans, last_failure;
DROP TABLE got;
DROP FUNCTION emit, by_name, by_number, as_whole, by_select, two, nothing, notifies, answers, with_path, chain;
DROP ROLE regress_subscriber;
