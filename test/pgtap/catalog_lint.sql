-- What the catalog must say about every object of the extension, also those that
-- nobody thought of when this was written.
BEGIN;
SELECT no_plan();

CREATE TEMP VIEW member AS
SELECT d.classid, d.objid
  FROM pg_depend d JOIN pg_extension x ON x.oid = d.refobjid AND x.extname = 'meal_planner'
 WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e';
CREATE TEMP VIEW routine AS
SELECT p.*, l.lanname, p.oid::regprocedure::text AS signature
  FROM member m JOIN pg_proc p ON p.oid = m.objid AND m.classid = 'pg_proc'::regclass
  JOIN pg_language l ON l.oid = p.prolang;
CREATE TEMP VIEW relation AS
SELECT c.* FROM member m JOIN pg_class c ON c.oid = m.objid AND m.classid = 'pg_class'::regclass;
SELECT cmp_ok((SELECT count(*) FROM routine), '>', 40::bigint, 'the routines are found');
SELECT cmp_ok((SELECT count(*) FROM relation WHERE relkind IN ('r', 'p')), '>', 10::bigint, 'the tables are found');

-- Functions ------------------------------------------------------------------

-- A SET clause forbids COMMIT, so that a procedure that commits has none; its
-- body is looked at below.
SELECT is_empty($$
    SELECT signature, proconfig FROM routine
     WHERE lanname IN ('sql', 'plpgsql') AND proname <> 'mp_sweep'
       AND NOT coalesce(proconfig @> ARRAY['search_path=pg_catalog, pg_temp'], false)
    $$, 'every function in sql or plpgsql has search_path = pg_catalog, pg_temp');
SELECT is_empty($$
    SELECT signature, proconfig FROM routine, unnest(proconfig) c WHERE c LIKE 'search\_path=%' AND c <> 'search_path=pg_catalog, pg_temp'
    $$, 'no function has any other search_path');
SELECT is_empty($$
    SELECT signature FROM routine
     WHERE prosecdef AND lanname <> 'c' AND NOT coalesce(proconfig @> ARRAY['search_path=pg_catalog, pg_temp'], false)
    $$, 'SECURITY DEFINER only with a fixed path, or in C');
SELECT is((SELECT string_agg(signature, ', ') FROM routine WHERE prokind = 'p'), 'mp_sweep(double precision)', 'the procedures are known');
SELECT is_empty($$
    SELECT signature FROM routine WHERE prokind = 'p' AND (prosecdef OR proconfig IS NOT NULL)
    $$, 'a procedure that commits is neither SECURITY DEFINER nor has it settings');
-- The body of mp_sweep runs with the caller's path: everything in it is qualified, operators do not occur.
SELECT is((SELECT regexp_replace(body, 'meal_planner\.\w+\(|pg_catalog\.\w+', '', 'g') ~ '\w+\s*\(' FROM
              (SELECT regexp_replace(prosrc, '--[^\n]*', '', 'g') AS body FROM routine WHERE proname = 'mp_sweep') b),
          false, 'mp_sweep calls nothing that is unqualified');
SELECT is((SELECT regexp_replace(body, ':=', '', 'g') ~ '[-+*/<>=~!@#%^&|`?]' FROM
              (SELECT regexp_replace(prosrc, '--[^\n]*', '', 'g') AS body FROM routine WHERE proname = 'mp_sweep') b),
          false, 'mp_sweep uses no operator');
-- In C the text of each query is in the library; what can be seen here is that it is ours.
SELECT is_empty($$
    SELECT signature, probin FROM routine WHERE lanname = 'c' AND probin <> '$libdir/meal_planner'
    $$, 'functions in C are from this library');
SELECT is_empty($$
    SELECT signature FROM routine WHERE lanname NOT IN ('sql', 'plpgsql', 'c')
    $$, 'no other language');
SELECT is_empty($$
    SELECT signature FROM routine WHERE obj_description(oid, 'pg_proc') IS NULL
    $$, 'every function has a comment');

-- Rights ---------------------------------------------------------------------

SELECT bag_eq($$
    SELECT DISTINCT r.proname::text FROM routine r, aclexplode(coalesce(r.proacl, acldefault('f', r.proowner))) a
     WHERE a.grantee = 0 AND a.privilege_type = 'EXECUTE'
    $$, ARRAY['mp_match', 'mp_backoff', 'mp_classify_error', 'clock', 'position_at', 'position_time', 'event_position', 'envelope', 'matches', 'mp_replay_name', 'max_replays'],
    'PUBLIC may execute what only computes, and nothing else');
SELECT is_empty($$
    SELECT r.signature, a.grantee::regrole FROM routine r, aclexplode(r.proacl) a WHERE a.grantee NOT IN (0, r.proowner)
    $$, 'no role has a right on a function from the start');
SELECT is_empty($$
    SELECT r.oid::regclass, a.grantee, a.privilege_type FROM relation r, aclexplode(r.relacl) a
     WHERE a.grantee <> r.relowner AND a.privilege_type <> 'SELECT'
    $$, 'nobody but the owner may write to a table');
SELECT is_empty($$
    SELECT r.oid::regclass, a.grantee FROM relation r, aclexplode(r.relacl) a
     WHERE a.grantee <> r.relowner
       AND (a.grantee <> 0 OR r.relname NOT IN ('unit', 'unit_alias', 'aisle', 'nutrient', 'food', 'food_alias', 'food_measure', 'food_nutrient'))
    $$, 'nor read one, but for the reference data of the domain');
SELECT is_empty($$
    SELECT r.oid::regclass, t.attname FROM relation r JOIN pg_attribute t ON t.attrelid = r.oid WHERE t.attacl IS NOT NULL
    $$, 'nor on a column');
SELECT bag_eq($$
    SELECT a.grantee, a.privilege_type FROM pg_namespace n, aclexplode(n.nspacl) a WHERE n.nspname = 'meal_planner' AND a.grantee <> n.nspowner
    $$, $$ VALUES (0::oid, 'USAGE') $$, 'the schema gives PUBLIC nothing but USAGE');
SELECT is_empty($$
    SELECT oid::regclass FROM relation WHERE relowner <> (SELECT extowner FROM pg_extension WHERE extname = 'meal_planner')
    $$, 'every relation belongs to the owner of the extension');
SELECT is_empty($$
    SELECT signature FROM routine WHERE proowner <> (SELECT extowner FROM pg_extension WHERE extname = 'meal_planner')
    $$, 'every function belongs to the owner of the extension');

-- Tables ---------------------------------------------------------------------

CREATE TEMP VIEW key AS
SELECT r.oid, i.indexrelid, a.attname AS first_column, i.indisprimary
  FROM relation r JOIN pg_index i ON i.indrelid = r.oid
  JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum = i.indkey[0]
 WHERE r.relkind = 'r';
SELECT bag_eq($$ SELECT relname::text FROM relation WHERE relkind = 'p' $$, ARRAY['event', 'idempotency_key', 'operation'], 'the log and what is remembered for a time are the only partitioned tables');
SELECT is_empty($$
    SELECT oid::regclass FROM relation WHERE relkind = 'r' AND oid NOT IN (SELECT oid FROM key WHERE indisprimary)
    $$, 'every table has a primary key');
SELECT lives_ok($$ SELECT mp_emit_event('Lint', '{}') $$, 'an event makes a partition');
SELECT is_empty($$
    SELECT h.inhrelid::regclass FROM pg_inherits h
     WHERE h.inhparent = 'meal_planner.event'::regclass
       AND NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conrelid = h.inhrelid AND c.contype = 'p'
                          AND pg_get_constraintdef(c.oid) = 'PRIMARY KEY (account, "position")')
    $$, 'every partition of the log has the primary key (account, position)');
SELECT is_empty($$
    SELECT r.oid::regclass FROM relation r JOIN pg_attribute a ON a.attrelid = r.oid AND a.attname = 'account' AND a.attnum > 0
     WHERE r.relkind = 'r' AND NOT EXISTS (SELECT FROM key k WHERE k.oid = r.oid AND k.indisprimary AND k.first_column = 'account')
    $$, 'a table with an account starts its primary key with it');
SELECT is_empty($$
    SELECT r.oid::regclass FROM relation r JOIN pg_attribute a ON a.attrelid = r.oid AND a.attname = 'account' AND a.attnum > 0
     WHERE r.relkind IN ('r', 'p') AND (a.atttypid <> 'text'::regtype OR NOT a.attnotnull)
    $$, 'account is text NOT NULL everywhere');
SELECT is_empty($$
    SELECT i.indexrelid::regclass FROM relation r JOIN pg_attribute a ON a.attrelid = r.oid AND a.attname = 'account' AND a.attnum > 0
      JOIN pg_index i ON i.indrelid = r.oid WHERE r.relkind = 'r' AND i.indisunique AND i.indkey[0] <> a.attnum
    $$, 'nor has it a unique key across accounts');
SELECT is_empty($$
    SELECT r.oid::regclass, a.attname FROM relation r JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0
      LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
     WHERE a.attidentity <> '' OR pg_get_expr(d.adbin, d.adrelid) ~ 'nextval'
    $$, 'no identity and no serial column');
SELECT is_empty($$ SELECT oid::regclass FROM relation WHERE relkind = 'S' $$, 'no sequence');
SELECT is_empty($$
    SELECT oid::regclass FROM relation WHERE relkind IN ('r', 'p', 'v') AND obj_description(oid, 'pg_class') IS NULL
       AND relname <> 'event_default'
    $$, 'every table and view has a comment');
SELECT is_empty($$
    SELECT r.oid::regclass, c.conname FROM relation r JOIN pg_constraint c ON c.conrelid = r.oid WHERE NOT c.convalidated
    $$, 'every constraint is validated');

-- What is dumped: all but what the install script fills itself (with rows of a
-- user's own in between, by a condition).
SELECT is_empty($$
    SELECT r.oid::regclass FROM relation r
     WHERE r.relkind = 'r'
       AND r.oid <> ALL ((SELECT extconfig FROM pg_extension WHERE extname = 'meal_planner')::oid[])
       AND r.relname NOT IN ('grant_profile', 'shipped_subscription')
    $$, 'every table that can hold rows of a user is dumped');
CREATE FUNCTION pg_temp.is_filled(relation regclass) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    filled boolean;
BEGIN
    EXECUTE format('SELECT EXISTS (SELECT FROM %s)', relation) INTO filled;
    RETURN filled;
END $$;
-- (the one event above made a row of the log, and of nothing that is a member)
SELECT is_empty($$
    SELECT c.relation::regclass FROM pg_extension x, unnest(x.extconfig, x.extcondition) AS c (relation, condition)
     WHERE x.extname = 'meal_planner' AND c.condition = '' AND pg_temp.is_filled(c.relation)
    $$, 'what the install script fills is dumped with a condition');

-- The dispatch trigger is the log's only one, and fires in the origin role alone.
SELECT is((SELECT string_agg(t.tgname || ' ' || t.tgenabled::text, ', ') FROM pg_trigger t
            WHERE t.tgrelid = 'meal_planner.event'::regclass AND NOT t.tgisinternal), 'dispatch A', 'the log has one trigger');
SELECT is_empty($$ SELECT oid::regclass FROM relation WHERE relrowsecurity OR relhasrules AND relkind <> 'v' $$, 'no rules, no row security');

-- The install script ----------------------------------------------------------

CREATE TEMP TABLE script AS
SELECT pg_read_file(regexp_replace(current_setting('extension_destdir', true), '/$', '') || setting || '/extension/meal_planner--1.0.sql') AS text
  FROM pg_config WHERE name = 'SHAREDIR' AND current_setting('extension_destdir', true) IS NOT NULL;
-- Without strings and comments: what is left is code of the script itself and of its functions.
CREATE TEMP TABLE code AS
SELECT regexp_replace(regexp_replace(text, '--[^\n]*', '', 'g'), '''[^'']*''', '''''', 'g') AS text FROM script;
SELECT CASE WHEN EXISTS (SELECT FROM script) THEN pass('the install script can be read')
            ELSE skip('this server does not tell where its extensions are', 1) END;
SELECT unalike(text, '%OR REPLACE%', 'it replaces nothing') FROM code;
SELECT doesnt_match(text, '(TABLE|SCHEMA|INDEX|SEQUENCE|EXTENSION|VIEW|COLUMN)\s+IF NOT EXISTS', 'it creates nothing IF NOT EXISTS') FROM code;
SELECT matches(text, '^\\echo Use "CREATE EXTENSION meal_planner" to load this file. \\quit\s+(--[^\n]*\s+)*SET LOCAL search_path TO pg_catalog, pg_temp;',
               'it begins with the guard and its search_path') FROM script;
SELECT doesnt_match(text, 'SERIAL|IDENTITY|nextval', 'no sequences hide in it') FROM code;

-- A hostile path at installation ------------------------------------------------

CREATE TEMP TABLE before AS
SELECT type, identity, md5(coalesce(CASE WHEN classid = 'pg_proc'::regclass THEN pg_get_functiondef(objid) END,
                                    CASE WHEN classid = 'pg_class'::regclass THEN (SELECT string_agg(attname || atttypid::regtype || attnotnull, ',' ORDER BY attnum)
                                                                                     FROM pg_attribute WHERE attrelid = objid AND attnum > 0) END)) AS body
  FROM (SELECT classid, objid, (pg_identify_object(classid, objid, 0)).* FROM member) m
 WHERE type NOT IN ('toast table') ;
SELECT cmp_ok((SELECT count(*) FROM before), '>', 60::bigint, 'the objects are noted');
DROP EXTENSION meal_planner CASCADE;

CREATE SCHEMA evil;
CREATE TABLE evil.captured (what text);
CREATE FUNCTION evil.text_eq(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN INSERT INTO evil.captured VALUES ('='); RETURN true; END $$;
CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.text_eq);
CREATE FUNCTION evil.text_cat(text, text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN INSERT INTO evil.captured VALUES ('||'); RETURN 'evil'; END $$;
CREATE OPERATOR evil.|| (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.text_cat);
CREATE FUNCTION evil.int_gt(bigint, bigint) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN INSERT INTO evil.captured VALUES ('>'); RETURN true; END $$;
CREATE OPERATOR evil.> (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = evil.int_gt);
CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN INSERT INTO evil.captured VALUES ('now'); RETURN 'epoch'; END $$;
CREATE FUNCTION evil.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN INSERT INTO evil.captured VALUES ('clock_timestamp'); RETURN 'epoch'; END $$;
CREATE FUNCTION evil.format(text, regprocedure) RETURNS text LANGUAGE plpgsql AS $$ BEGIN INSERT INTO evil.captured VALUES ('format'); RETURN 'SELECT 1'; END $$;
CREATE FUNCTION evil.lower(text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN INSERT INTO evil.captured VALUES ('lower'); RETURN 'evil'; END $$;
CREATE FUNCTION evil.pg_extension_config_dump(regclass, text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN INSERT INTO evil.captured VALUES ('config_dump'); END $$;
CREATE TABLE evil.pg_depend (classid oid, objid oid, refclassid oid, refobjid oid, deptype "char");
CREATE TABLE evil.pg_proc (oid oid, proname name);
CREATE TABLE evil.pg_class (oid oid, relname name);
CREATE TEMP TABLE unit (code text);
CREATE TEMP TABLE event (account text);
CREATE TEMP TABLE subscription (name text);
CREATE DOMAIN evil.jsonb AS text;
CREATE DOMAIN evil.timestamptz AS text;
SET LOCAL search_path = evil, pg_temp, pg_catalog, public;
CREATE EXTENSION meal_planner SCHEMA public;
SET LOCAL search_path = public;
SELECT is_empty($$ SELECT * FROM evil.captured $$, 'installing called nothing of the hostile schema');
SELECT bag_eq($$
    SELECT type, identity, md5(coalesce(CASE WHEN classid = 'pg_proc'::regclass THEN pg_get_functiondef(objid) END,
                                        CASE WHEN classid = 'pg_class'::regclass THEN (SELECT string_agg(attname || atttypid::regtype || attnotnull, ',' ORDER BY attnum)
                                                                                         FROM pg_attribute WHERE attrelid = objid AND attnum > 0) END))
      FROM (SELECT classid, objid, (pg_identify_object(classid, objid, 0)).* FROM member) m
     WHERE type NOT IN ('toast table')
    $$, 'SELECT type, identity, body FROM before', 'a hostile path at installation changes nothing');
SET LOCAL search_path = evil, pg_temp, pg_catalog, public;
SELECT public.mp_emit_event('Hostile', '{}'::pg_catalog.jsonb, idempotency_key => 'k', stream => 's') AS id \gset
SELECT public.mp_event(:'id') IS NOT NULL AS read_back,
       (SELECT pg_catalog.count(*) FROM public.mp_read_stream('s')) AS in_stream \gset
SELECT public.mp_send_to_dlq(:'id', 'permanent', 'x') AS letter \gset
SELECT public.mp_discard_dlq(:letter, 'x');
SELECT public.mp_subscribe('s', '{"a": [1]}'::pg_catalog.jsonb, mode => 'pull');
SELECT public.mp_unsubscribe('s');
SELECT meal_planner.sweep_maintain();
SET LOCAL search_path = public;
SELECT is(:'read_back'::text, 't', 'a caller with a hostile path reads what it wrote');
SELECT is(:'in_stream'::text, '1', 'and its stream');
SELECT is_empty($$ SELECT * FROM evil.captured $$, 'using it called nothing of the hostile schema');

-- A schema that is there already belongs to somebody.
DROP EXTENSION meal_planner CASCADE;
CREATE SCHEMA meal_planner;
SELECT throws_ok('CREATE EXTENSION meal_planner', '42P06', NULL, 'a schema meal_planner made beforehand is not adopted');

SELECT * FROM finish();
ROLLBACK;
