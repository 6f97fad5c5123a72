-- Installing, dropping and installing again, in one session that has everything warm.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS meal_planner CASCADE;
RESET client_min_messages;
\set SHOW_CONTEXT never

-- A schema that somebody made beforehand is never adopted.
CREATE SCHEMA meal_planner;
CREATE EXTENSION meal_planner;
DROP SCHEMA meal_planner;

CREATE EXTENSION meal_planner;
SELECT extversion, extrelocatable, extnamespace::regnamespace FROM pg_extension WHERE extname = 'meal_planner';

-- Tables live in meal_planner under plain names, the API is mp_* in the chosen schema; nothing lives elsewhere.
CREATE VIEW member AS
SELECT classid, objid, (pg_identify_object(classid, objid, 0)).*
  FROM pg_depend
 WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
   AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'meal_planner');
SELECT coalesce(schema, name) AS schema, type, bool_and(name LIKE 'mp\_%') AS all_mp, bool_or(name LIKE 'mp\_%') AS any_mp
  FROM (SELECT classid, objid, type, schema,
               coalesce(name, (SELECT proname FROM pg_proc WHERE oid = objid)) AS name FROM member) m
 WHERE type IN ('function', 'procedure', 'table', 'partitioned table', 'view', 'schema')
 GROUP BY 1, 2 ORDER BY 1, 2;

-- The tables of the bus.
SELECT relname, relkind, relpersistence
  FROM member JOIN pg_class ON oid = objid AND classid = 'pg_class'::regclass
 WHERE relkind IN ('r', 'p')
   AND relname IN ('alert', 'dead_letter', 'delivery', 'error_class', 'event', 'event_default', 'idempotency_key',
                   'replay', 'replay_cursor', 'retention', 'shipped_subscription', 'stream', 'subscription', 'subscription_cursor', 'worker_batch')
 ORDER BY relname;

-- Settings and their limits.
SELECT name, setting, unit, context, min_val, max_val
  FROM pg_settings WHERE name LIKE 'meal\_planner.%' ORDER BY name;
SET meal_planner.misspelt = 1;

-- The first event makes the partition that it goes to.
SELECT count(*) FROM meal_planner.event_partition;
SELECT mp_emit_event('First', '{}') IS NOT NULL AS emitted;
SELECT tableoid::regclass = 'meal_planner.event_default'::regclass AS in_default FROM meal_planner.event;

-- A subscription with a handler that has run: kept plans, compiled subscriptions, all warm.
CREATE TABLE seen (detail_type text);
CREATE FUNCTION on_any(e meal_planner.event) RETURNS void LANGUAGE sql
AS $$ INSERT INTO seen VALUES (e.detail_type) $$;
SELECT mp_subscribe('any', '{"source": ["meal-planner"]}', 'on_any(meal_planner.event)');
SELECT mp_emit_event('Second', '{}') IS NOT NULL AS emitted;
SELECT count(*) FROM mp_read_events();
CALL mp_sweep();
SELECT * FROM seen;

-- Somebody's function uses the row type: it is not dropped behind their back.
DROP EXTENSION meal_planner;
DROP FUNCTION on_any CASCADE;
-- The partitions, which are no members, go with the log.
DROP EXTENSION meal_planner;
SELECT count(*) AS left_behind FROM pg_namespace WHERE nspname = 'meal_planner';
SELECT count(*) AS left_behind FROM pg_proc WHERE proname LIKE 'mp\_%';

-- Again, elsewhere, in the same session.
CREATE SCHEMA app;
CREATE EXTENSION meal_planner SCHEMA app;
SELECT mp_emit_event('Third', '{}');
SELECT app.mp_emit_event('Third', '{}') IS NOT NULL AS emitted;
SELECT event ->> 'detail-type' AS type FROM app.mp_read_events();
CREATE FUNCTION on_any(e meal_planner.event) RETURNS void LANGUAGE sql
AS $$ INSERT INTO seen VALUES (e.detail_type || ' again') $$;
SELECT app.mp_subscribe('any', '{"source": ["meal-planner"]}', 'on_any(meal_planner.event)');
SELECT app.mp_emit_event('Fourth', '{}') IS NOT NULL AS emitted;
CALL app.mp_sweep();
SELECT * FROM seen;
SELECT name FROM app.mp_subscriptions WHERE NOT builtin;
DROP FUNCTION on_any CASCADE;
DROP EXTENSION meal_planner;
DROP SCHEMA app;

-- Only a superuser installs it.
CREATE ROLE mp_test_plain;
SET ROLE mp_test_plain;
CREATE EXTENSION meal_planner;
RESET ROLE;
DROP ROLE mp_test_plain;

DROP VIEW member;
DROP TABLE seen;
