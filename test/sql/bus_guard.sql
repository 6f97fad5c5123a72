-- What the bus refuses, so that nobody's mistake or malice becomes another's.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS meal_planner CASCADE;
CREATE EXTENSION meal_planner;
RESET client_min_messages;
\set SHOW_CONTEXT never

-- The type of an event is anybody's to use; a row of it need not be the log's.
SELECT meal_planner.envelope(NULL) IS NULL AS no_event,
       meal_planner.envelope(ROW(NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)::meal_planner.event) IS NULL AS row_of_nulls;
SELECT meal_planner.envelope(ROW('a', 1, '00000000-0000-0000-0000-000000000001', NULL, 's', now(), 'r', '{}', '{}', NULL, NULL, NULL, NULL, 0)::meal_planner.event);
SELECT meal_planner.matches('{"source": ["s"]}', ROW('a', 1, '00000000-0000-0000-0000-000000000001', 't', NULL, now(), 'r', '{}', '{}', NULL, NULL, NULL, NULL, 0)::meal_planner.event);

-- A handler whose own search_path lets temporary objects come first would run
-- the emitter's triggers as the subscriber.
CREATE FUNCTION open_handler(e meal_planner.event) RETURNS void LANGUAGE sql SET search_path = public AS $$ SELECT $$;
CREATE FUNCTION early_handler(e meal_planner.event) RETURNS void LANGUAGE sql SET search_path = pg_temp, public AS $$ SELECT $$;
CREATE FUNCTION closed_handler(e meal_planner.event) RETURNS void LANGUAGE sql SET search_path = public, pg_temp AS $$ SELECT $$;
CREATE FUNCTION plain_handler(e meal_planner.event) RETURNS void LANGUAGE sql AS $$ SELECT $$;
SELECT mp_subscribe('guard', '{"detail-type": ["Guard"]}', 'open_handler(meal_planner.event)');
SELECT mp_subscribe('guard', '{"detail-type": ["Guard"]}', 'early_handler(meal_planner.event)');
SELECT mp_subscribe('guard', '{"detail-type": ["Guard"]}', 'closed_handler(meal_planner.event)');
SELECT mp_emit_event('Guard', '{}') IS NOT NULL AS emitted;
SELECT count(*) AS failures FROM meal_planner.dead_letter;
-- opened later, it fails its own delivery
ALTER FUNCTION closed_handler(meal_planner.event) SET search_path = public;
SELECT mp_emit_event('Guard', '{}') IS NOT NULL AS emitted;
SELECT "sqlstate", error_message FROM mp_dlq;
SET search_path = pg_temp, public;
SELECT public.mp_subscribe('guard', '{"detail-type": ["Guard"]}', 'plain_handler(meal_planner.event)');
SET search_path = '';
SELECT public.mp_subscribe('guard empty', '{"detail-type": ["Guard"]}', 'public.plain_handler(meal_planner.event)');
RESET search_path;
SELECT name, handler_path FROM meal_planner.subscription WHERE name LIKE 'guard%' ORDER BY name;

-- A claim is only good with the token of the session that made it.
SELECT mp_subscribe('guard worker', '{"detail-type": ["Guard"]}', 'plain_handler(meal_planner.event)', 'worker');
SELECT mp_emit_event('Guard', '{}') IS NOT NULL AS emitted;
SELECT meal_planner.sweep_run(ROW('local', 'guard worker', 0, 999999999999999999, 0)::meal_planner.claim);
SELECT count(*) AS cursors FROM meal_planner.subscription_cursor;
CALL mp_sweep();
SELECT lag_events FROM mp_subscriptions WHERE name = 'guard worker';

-- What the extension ships is paused, not removed; what a user changes of it is
-- the user's, and so dumped.
SELECT mp_unsubscribe('recipe_created');
SELECT mp_pause_subscription('recipe_created', 'for a while');
UPDATE meal_planner.error_class SET class = 'transient' WHERE service = 'postgres' AND code = 'P0';
SELECT mp_unsubscribe('recipe_created');
SELECT count(*) AS dumped_subscriptions FROM meal_planner.subscription WHERE NOT builtin AND name = 'recipe_created';
SELECT count(*) AS dumped_classes FROM meal_planner.error_class WHERE NOT builtin;
-- as a restore does it, beside the shipped rows
INSERT INTO meal_planner.error_class (service, code, class) VALUES ('postgres', '22', 'transient');
SELECT code, class, builtin FROM meal_planner.error_class WHERE service = 'postgres' AND code IN ('22', 'P0') ORDER BY code;
INSERT INTO meal_planner.subscription (name, pattern, mode, handler, owner, handler_path, start_position, created_at, paused_at)
SELECT 'nutrition_calculated', pattern, mode, handler, owner, handler_path, start_position, created_at, now()
  FROM meal_planner.subscription WHERE name = 'nutrition_calculated';
SELECT builtin, paused_at IS NOT NULL AS paused FROM meal_planner.subscription WHERE name = 'nutrition_calculated';
SELECT mp_unsubscribe('nutrition_calculated');
SELECT name, paused FROM mp_subscriptions WHERE builtin ORDER BY name;

-- A handler may hear from another server that it shuts down; this one does not.
CREATE FUNCTION hears_of_shutdown(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'the other server is going down' USING ERRCODE = '57P01'; END $$;
SELECT mp_subscribe('hears', '{"detail-type": ["Hear"]}', 'hears_of_shutdown(meal_planner.event)');
SELECT mp_emit_event('Hear', '{}') IS NOT NULL AS emitted;
SELECT subscription, attempt, "sqlstate" FROM meal_planner.delivery;

-- With one snapshot per transaction the log cannot be read without a gap: a
-- sweep reads in READ COMMITTED, whatever the session's default; its parts refuse.
CREATE TABLE level_of_run (mode text, level text);
CREATE FUNCTION tells_level(e meal_planner.event) RETURNS void LANGUAGE sql AS $$
    INSERT INTO public.level_of_run VALUES (e.detail ->> 'mode', current_setting('transaction_isolation'))
$$;
SELECT mp_subscribe('level worker', '{"detail-type": ["Level"]}', 'tells_level(meal_planner.event)', 'worker');
SELECT mp_subscribe('level delayed', '{"detail-type": ["Later"]}', 'tells_level(meal_planner.event)');
SET default_transaction_isolation = 'repeatable read';
SET default_transaction_read_only = on;
BEGIN READ WRITE;
SELECT mp_emit_event('Level', '{"mode": "worker"}') IS NOT NULL AS emitted;
SELECT mp_emit_event('Later', '{"mode": "delivery"}', deliver_after => meal_planner.clock() - interval '1 s') IS NOT NULL AS emitted;
SELECT mp_emit_event('Later', '{"mode": "delayed"}', deliver_after => meal_planner.clock() + interval '10 ms') IS NOT NULL AS emitted;
COMMIT;
SELECT pg_sleep(0.02);
CALL mp_sweep();
SELECT * FROM level_of_run ORDER BY mode;
SHOW default_transaction_isolation;
BEGIN;
SELECT meal_planner.sweep_claim(1);
ROLLBACK;
BEGIN;
SELECT meal_planner.sweep_run(ROW('local', 'level worker', 0, 1, 0)::meal_planner.claim);
ROLLBACK;
BEGIN;
SELECT meal_planner.run_batch('local', 'level worker', 0, 1);
ROLLBACK;
SELECT * FROM mp_read_events();
RESET default_transaction_read_only;
SET default_transaction_isolation = 'serializable';
CALL mp_sweep();
SELECT * FROM mp_read_events();
-- A subscription that starts at the end needs no snapshot.
SELECT mp_subscribe('level latest', '{"detail-type": ["Level"]}', 'tells_level(meal_planner.event)', 'worker');
SELECT mp_emit_event('Level', '{"mode": "latest"}') IS NOT NULL AS emitted;
CALL mp_sweep();
SELECT mode, level, count(*) FROM level_of_run WHERE mode = 'latest' GROUP BY mode, level;
RESET default_transaction_isolation;
DROP TABLE level_of_run;

-- An old transaction may not begin to hold readers back.
BEGIN;
SET LOCAL meal_planner.append_age_limit = '20 ms';
SELECT pg_sleep(0.05);
SELECT mp_emit_event('Guarded', '{}');
ROLLBACK;
BEGIN;
SET LOCAL meal_planner.append_age_limit = '1 h';
SELECT mp_emit_event('Guarded', '{"n": 1}') IS NOT NULL AS emitted;
-- Neither may one that has appended already go on.
SET LOCAL meal_planner.append_age_limit = '20 ms';
SELECT pg_sleep(0.05);
SELECT mp_put_events('[{"Source": "guard", "DetailType": "Guarded", "Detail": {}}]');
ROLLBACK;
SET meal_planner.append_age_limit = '1 h';
SELECT mp_emit_event('Guarded', '{"n": 2}') IS NOT NULL AS emitted;
RESET meal_planner.append_age_limit;
SELECT count(*) FROM mp_read_events() WHERE event ->> 'detail-type' = 'Guarded';
SELECT mp_classify_error('MP409');
