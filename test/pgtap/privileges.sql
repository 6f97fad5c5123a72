-- Who may do what, and what nobody gains: a client with EXECUTE alone emits and
-- writes nothing else; a handler gives its rights to no emitter, and gains none
-- of the emitter's.
BEGIN;
SELECT no_plan();
-- What pgTAP needs to write its results as any role.
CREATE FUNCTION pg_temp.as_role(role name, call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    outcome text := 'ok';
BEGIN
    EXECUTE format('SET LOCAL ROLE %I', role);
    BEGIN
        EXECUTE call;
    EXCEPTION WHEN OTHERS THEN
        outcome := SQLSTATE;
    END;
    RESET ROLE;
    RETURN outcome;
END $$;

CREATE ROLE mp_t_nobody;
CREATE ROLE mp_t_emitter;
CREATE ROLE mp_t_reader;
CREATE ROLE mp_t_consumer;
CREATE ROLE mp_t_sweeper;
CREATE ROLE mp_t_operator;
CREATE ROLE mp_t_cook;
SELECT mp_grant('mp_t_emitter', 'emitter');
SELECT mp_grant('mp_t_reader', 'reader');
SELECT mp_grant('mp_t_sweeper', 'sweeper');
SELECT mp_grant('mp_t_consumer', 'consumer');
SELECT mp_grant('mp_t_operator', 'operator');
SELECT throws_ok($$ SELECT mp_grant('mp_t_cook', 'chef') $$, 'MP400', NULL, 'an unknown profile is refused');
SELECT mp_emit_event('First', '{}') AS first \gset
-- partitions, so that no emitter below has to make one
SELECT meal_planner.sweep_maintain();

-- Clients ---------------------------------------------------------------------

-- Everything that exists, called as a role without any grant.
SELECT is(pg_temp.as_role('mp_t_nobody', call), outcome, 'nobody: ' || call) FROM (VALUES
    ($$ SELECT mp_match('{"a": [1]}', '{"a": 1}') $$, 'ok'), ($$ SELECT mp_backoff(2) $$, 'ok'), ($$ SELECT mp_classify_error('22000') $$, 'ok'),
    ($$ SELECT meal_planner.clock() $$, 'ok'), ($$ SELECT NULL::meal_planner.event $$, 'ok'),
    ($$ SELECT mp_emit_event('T', '{}') $$, '42501'), ($$ SELECT mp_put_events('[]') $$, '42501'),
    ($$ SELECT mp_event(gen_random_uuid()) $$, '42501'), ($$ SELECT * FROM mp_read_events() $$, '42501'), ($$ SELECT * FROM mp_read_stream('s') $$, '42501'),
    ($$ SELECT mp_subscribe('s', '{"a": [1]}', mode => 'pull') $$, '42501'), ($$ SELECT mp_unsubscribe('s') $$, '42501'),
    ($$ SELECT mp_claim('s') $$, '42501'), ($$ SELECT mp_claim_json('s') $$, '42501'), ($$ SELECT mp_ack(gen_random_uuid()) $$, '42501'), ($$ SELECT mp_extend(gen_random_uuid(), 1) $$, '42501'),
    ($$ SELECT mp_fail(gen_random_uuid(), gen_random_uuid(), 'transient', 'x') $$, '42501'), ($$ SELECT meal_planner.expire_claims('a', 'b') $$, '42501'),
    ($$ SELECT mp_pause_subscription('s') $$, '42501'), ($$ SELECT mp_resume_subscription('s') $$, '42501'),
    ($$ CALL mp_sweep() $$, '42501'), ($$ SELECT mp_schedule_sweeps() $$, '42501'), ($$ SELECT mp_unschedule_sweeps() $$, '42501'),
    ($$ SELECT mp_send_to_dlq(gen_random_uuid(), 'permanent', 'x') $$, '42501'), ($$ SELECT mp_replay_dlq(1) $$, '42501'), ($$ SELECT mp_discard_dlq(1, 'x') $$, '42501'),
    ($$ SELECT mp_redrive_dlq() $$, '42501'), ($$ SELECT mp_redrive_dlq(dry_run => true) $$, '42501'), ($$ SELECT mp_pause_redrive(1) $$, '42501'),
    ($$ SELECT mp_resume_redrive(1) $$, '42501'), ($$ SELECT mp_cancel_redrive(1) $$, '42501'), ('SELECT * FROM mp_redrives', '42501'),
    ($$ SELECT meal_planner.step_redrive(1) $$, '42501'), ($$ SELECT meal_planner.claim_redrive() $$, '42501'), ($$ SELECT meal_planner.max_replays('{}') $$, 'ok'),
    ($$ SELECT mp_replay('s') $$, '42501'), ($$ SELECT mp_cancel_replay(1) $$, '42501'), ('SELECT * FROM mp_replays', '42501'),
    ($$ SELECT meal_planner.next_stretch('a', 'b', 1, 1) $$, '42501'), ($$ SELECT meal_planner.move_replay('a', 'b', 1, 1, 2, 3) $$, '42501'),
    ($$ SELECT mp_replay_name() $$, 'ok'), ($$ SELECT mp_set_retention(1) $$, '42501'), ($$ SELECT meal_planner.sweep_retain() $$, '42501'),
    ($$ SELECT mp_check_processed('e', 'o') $$, '42501'), ($$ SELECT mp_mark_processed('e', 'o') $$, '42501'), ($$ SELECT mp_begin_operation('o', 'k') $$, '42501'),
    ($$ SELECT mp_complete_operation(gen_random_uuid(), '1') $$, '42501'), ($$ SELECT mp_release_operation(gen_random_uuid()) $$, '42501'),
    ($$ SELECT meal_planner.operation_lock('a', 'o', 'k', true) $$, '42501'), ($$ SELECT meal_planner.operation_of_key('a', 'o', 'k', now()) $$, '42501'),
    ($$ SELECT meal_planner.operation_token() $$, '42501'), ($$ SELECT meal_planner.sweep_purge() $$, '42501'), ('SELECT * FROM mp_operations', '42501'),
    ($$ SELECT mp_breaker_acquire('b') $$, '42501'), ($$ SELECT mp_breaker_report('b', 1, 'success') $$, '42501'),
    ($$ SELECT mp_breaker_configure('b', '{}') $$, '42501'), ($$ SELECT mp_breaker_force('b', 'open') $$, '42501'), ($$ SELECT * FROM mp_breakers $$, '42501'),
    ($$ SELECT mp_classify_error('429', NULL, 'http') $$, 'ok'), ($$ SELECT mp_set_error_class('http', '429', 'transient') $$, '42501'),
    ($$ SELECT * FROM mp_retry_budgets $$, '42501'), ($$ SELECT meal_planner.take_retry('s') $$, '42501'), ($$ SELECT meal_planner.retry_ready_at('s') $$, '42501'),
    ($$ SELECT mp_define_saga('s', '{}') $$, '42501'), ($$ SELECT mp_start_saga('s', '{}') $$, '42501'), ($$ SELECT mp_claim_saga_steps('s') $$, '42501'),
    ($$ SELECT mp_complete_saga_step(gen_random_uuid(), NULL) $$, '42501'), ($$ SELECT mp_fail_saga_step(gen_random_uuid(), 'permanent', 'x') $$, '42501'),
    ($$ SELECT mp_extend_saga_step(gen_random_uuid(), 1) $$, '42501'), ($$ SELECT mp_cancel_saga(gen_random_uuid(), 'x') $$, '42501'),
    ($$ SELECT mp_retry_saga(gen_random_uuid()) $$, '42501'), ($$ SELECT mp_skip_saga_step(gen_random_uuid(), 's', 'x') $$, '42501'),
    ($$ SELECT mp_migrate_saga(gen_random_uuid(), 1) $$, '42501'), ($$ SELECT mp_drop_saga('s', 1) $$, '42501'), ($$ SELECT mp_saga(gen_random_uuid()) $$, '42501'),
    ($$ SELECT mp_saga_graph('s') $$, '42501'), ('SELECT * FROM mp_sagas', '42501'), ($$ SELECT meal_planner.run_sagas('a', 1) $$, '42501'),
    ($$ SELECT meal_planner.saga_crashed('a', gen_random_uuid()) $$, '42501'), ($$ SELECT meal_planner.purge_sagas(1) $$, '42501'),
    ($$ SELECT meal_planner.save_saga_definition('s', '{}', '{}', 'postgres', '') $$, '42501'), ($$ SELECT meal_planner.claim_sagas(1) $$, '42501'),
    ($$ SELECT meal_planner.store_breaker('b') $$, '42501'), ($$ SELECT meal_planner.breaker_changes('b') $$, '42501'),
    ($$ SELECT meal_planner.drop_partition('meal_planner.event_default') $$, '42501'), ('SELECT * FROM mp_partitions', '42501'),
    ($$ SELECT mp_grant('mp_t_nobody', 'operator') $$, '42501'),
    ($$ SELECT meal_planner.ensure_partition(1) $$, '42501'), ($$ SELECT meal_planner.next_position() $$, '42501'),
    ($$ SELECT meal_planner.batch_rows() $$, '42501'), ($$ SELECT meal_planner.read_bound() $$, '42501'), ($$ SELECT meal_planner.attempt_delivery('a', 'b', 1) $$, '42501'),
    ($$ SELECT meal_planner.record_dead_letter('a', 'b', 1, gen_random_uuid(), 'permanent', 'x', 0, NULL, NULL) $$, '42501'),
    ($$ SELECT meal_planner.save_subscription('a', '{}', 'pull', NULL, 'postgres', '', '{}') $$, '42501'),
    ($$ SELECT meal_planner.call_in_database('postgres', 'SELECT 1') $$, '42501'),
    ($$ SELECT * FROM mp_dlq_attempts(1) $$, '42501'), ($$ SELECT * FROM mp_attempts $$, '42501'), ($$ SELECT mp_acknowledge_alert(1) $$, '42501'),
    ($$ SELECT meal_planner.raise_alert('a', 1, 'paused', 's', 'e', 'm') $$, '42501'), ($$ SELECT meal_planner.sweep_history() $$, '42501'),
    ($$ SELECT * FROM mp_dlq $$, '42501'), ($$ SELECT * FROM mp_subscriptions $$, '42501'), ($$ SELECT * FROM mp_in_flight $$, '42501'),
    ($$ SELECT * FROM meal_planner.event $$, '42501'), ($$ CREATE TABLE meal_planner.mine () $$, '42501')
  ) AS c (call, outcome);

SELECT is(pg_temp.as_role('mp_t_emitter', call), outcome, 'emitter: ' || call) FROM (VALUES
    ($$ SELECT mp_emit_event('T', '{}', stream => 's', expected_version => 0, idempotency_key => 'k') $$, 'ok'),
    ($$ SELECT mp_emit_event('T', '{}', stream => 's', expected_version => 0) $$, 'MP409'),
    ($$ SELECT mp_put_events('[{"Source": "s", "DetailType": "T", "Detail": {}}]') $$, 'ok'),
    ($$ SELECT mp_start_saga('nothing', '{}') $$, 'MP404'), ($$ SELECT mp_define_saga('s', '{}') $$, '42501'), ('SELECT * FROM mp_sagas', '42501'),
    ($$ SELECT mp_event(gen_random_uuid()) $$, '42501'), ($$ SELECT * FROM mp_read_events() $$, '42501'),
    ($$ SELECT mp_subscribe('s', '{"a": [1]}', mode => 'pull') $$, '42501'), ($$ SELECT mp_replay_dlq(1) $$, '42501')
  ) AS c (call, outcome);
-- Every table of the extension, its partitions included, is closed to a client.
SELECT is_empty($$
    SELECT r.role, c.oid::regclass, p.privilege
      FROM pg_class c,
           unnest(ARRAY['mp_t_nobody', 'mp_t_emitter', 'mp_t_reader', 'mp_t_consumer', 'mp_t_sweeper', 'mp_t_operator']) AS r (role),
           unnest(ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) AS p (privilege)
     WHERE c.relnamespace = 'meal_planner'::regnamespace AND c.relkind IN ('r', 'p', 'v')
       AND has_table_privilege(r.role, c.oid, p.privilege)
    $$, 'no profile writes to any table');
SELECT is_empty($$
    SELECT r.role, c.oid::regclass
      FROM pg_class c, unnest(ARRAY['mp_t_nobody', 'mp_t_emitter', 'mp_t_reader', 'mp_t_consumer', 'mp_t_sweeper']) AS r (role)
     WHERE c.relnamespace = 'meal_planner'::regnamespace AND c.relkind IN ('r', 'p', 'v')
       AND c.relname NOT IN ('unit', 'unit_alias', 'aisle', 'nutrient', 'food', 'food_alias', 'food_measure', 'food_nutrient')
       AND has_table_privilege(r.role, c.oid, 'SELECT')
    $$, 'nor reads one, but for the reference data');

SELECT is(pg_temp.as_role('mp_t_reader', call), outcome, 'reader: ' || call) FROM (VALUES
    (format('SELECT mp_event(%L)', :'first'), 'ok'), ('SELECT * FROM mp_read_events()', 'ok'), ($$ SELECT * FROM mp_read_stream('s') $$, 'ok'),
    ($$ SELECT mp_emit_event('T', '{}') $$, '42501'), ('SELECT * FROM meal_planner.event', '42501'), ('SELECT * FROM mp_dlq', '42501')
  ) AS c (call, outcome);
SELECT is(pg_temp.as_role('mp_t_consumer', call), outcome, 'consumer: ' || call) FROM (VALUES
    ($$ SELECT mp_claim('nobody') $$, 'MP404'), ($$ SELECT mp_claim_json('nobody') $$, 'MP404'), ($$ SELECT mp_ack(gen_random_uuid()) $$, 'ok'), ($$ SELECT mp_extend(gen_random_uuid(), 1) $$, 'ok'),
    ($$ SELECT mp_fail(gen_random_uuid(), gen_random_uuid(), 'transient', 'x') $$, 'ok'),
    ($$ SELECT mp_set_error_class('http', '429', 'transient') $$, '42501'), ($$ UPDATE meal_planner.error_class SET class = 'transient' $$, '42501'),
    ($$ SELECT mp_fail(gen_random_uuid(), gen_random_uuid(), 'http:429', 'x') $$, 'ok'),
    ($$ SELECT mp_mark_processed('e', 'o') $$, 'ok'), ($$ SELECT mp_check_processed('e', 'o') $$, 'ok'),
    ($$ SELECT mp_complete_operation((mp_begin_operation('o', 'k') ->> 'token')::uuid, '1') $$, 'ok'),
    ($$ SELECT mp_begin_operation('o', 'k', '1') $$, 'MP422'), ($$ SELECT mp_release_operation(gen_random_uuid()) $$, 'ok'),
    ('SELECT * FROM mp_operations', '42501'), ('SELECT * FROM meal_planner.operation', '42501'), ($$ SELECT meal_planner.operation_of_token(gen_random_uuid(), now()) $$, '42501'),
    ($$ SELECT mp_claim_saga_steps('s') $$, 'ok'), ($$ SELECT mp_complete_saga_step(gen_random_uuid(), NULL) $$, 'ok'),
    ($$ SELECT mp_fail_saga_step(gen_random_uuid(), 'permanent', 'x') $$, 'ok'), ($$ SELECT mp_extend_saga_step(gen_random_uuid(), 1) $$, 'ok'),
    ($$ SELECT mp_start_saga('s', '{}') $$, '42501'), ($$ SELECT mp_cancel_saga(gen_random_uuid(), 'x') $$, '42501'),
    ($$ SELECT mp_breaker_acquire('privileges') $$, 'ok'), ($$ SELECT mp_breaker_report('privileges', 1, 'ignored') $$, 'ok'),
    ($$ SELECT mp_breaker_force('privileges', 'open') $$, '42501'), ('SELECT * FROM mp_breakers', '42501'),
    ($$ SELECT mp_emit_event('T', '{}') $$, '42501'), ('SELECT * FROM mp_read_events()', '42501'), ('SELECT * FROM meal_planner.consumer_claim', '42501')
  ) AS c (call, outcome);
SELECT is(pg_temp.as_role('mp_t_operator', call), outcome, 'operator: ' || call) FROM (VALUES
    ($$ SELECT mp_emit_event('T', '{}') $$, 'ok'), ('SELECT * FROM mp_read_events()', 'ok'),
    ($$ SELECT mp_subscribe('pulled', '{"a": [1]}', mode => 'pull') $$, 'ok'),
    ($$ SELECT mp_pause_subscription('pulled', 'x') $$, 'ok'), ($$ SELECT mp_resume_subscription('pulled') $$, 'ok'),
    (format($$ SELECT mp_send_to_dlq(%L, 'permanent', 'x', subscription => 'pulled') $$, :'first'), 'ok'),
    ($$ SELECT mp_redrive_dlq() $$, 'ok'), ($$ SELECT mp_redrive_dlq(dry_run => true) $$, 'ok'), ('SELECT * FROM mp_redrives', 'ok'),
    ($$ SELECT mp_pause_redrive(-1) $$, 'MP404'), ($$ SELECT mp_resume_redrive(-1) $$, 'MP404'), ($$ SELECT mp_cancel_redrive(-1) $$, 'MP404'),
    ('SELECT * FROM meal_planner.redrive', '42501'), ($$ SELECT meal_planner.step_redrive(1) $$, '42501'),
    ($$ SELECT mp_replay('pulled') $$, 'ok'), ($$ SELECT mp_cancel_replay(-1) $$, 'ok'), ('SELECT * FROM mp_replays', 'ok'),
    ('SELECT * FROM meal_planner.replay', '42501'), ($$ SELECT mp_replay_dlq(-1) $$, 'MP404'), ($$ SELECT mp_discard_dlq(-1, 'x') $$, 'MP404'),
    ('SELECT * FROM mp_dlq', 'ok'), ('SELECT * FROM mp_dlq_depth', 'ok'), ('SELECT * FROM mp_alerts', 'ok'), ('SELECT * FROM mp_event_rates', 'ok'),
    ('SELECT count(mp_acknowledge_alert(id)) FROM mp_alerts', 'ok'), ('SELECT a.* FROM mp_dlq l, mp_dlq_attempts(l.id) a', 'ok'), ('SELECT * FROM mp_attempts', 'ok'),
    ('SELECT * FROM mp_subscriptions', 'ok'), ('SELECT * FROM mp_in_flight', 'ok'), ('SELECT * FROM mp_handler_stats', 'ok'),
    ($$ SELECT mp_define_saga('s', '{}') $$, 'MP400'), ($$ SELECT mp_start_saga('nothing', '{}') $$, 'MP404'), ($$ SELECT mp_cancel_saga(gen_random_uuid(), 'x') $$, 'MP404'),
    ($$ SELECT mp_retry_saga(gen_random_uuid()) $$, 'MP404'), ($$ SELECT mp_skip_saga_step(gen_random_uuid(), 's', 'x') $$, 'MP404'),
    ($$ SELECT mp_migrate_saga(gen_random_uuid(), 1) $$, 'MP404'), ($$ SELECT mp_drop_saga('nothing', 1) $$, 'MP404'), ($$ SELECT mp_saga(gen_random_uuid()) $$, 'ok'),
    ($$ SELECT mp_saga_graph('nothing') $$, 'MP404'), ('SELECT * FROM mp_sagas', 'ok'), ('SELECT * FROM meal_planner.saga', '42501'),
    ($$ SELECT mp_define_saga('granted', '{"steps": [{"name": "a", "kind": "pivot", "service": "s"}]}') $$, 'ok'),
    ($$ SELECT mp_start_saga('granted', '{}') $$, 'ok'), ($$ SELECT mp_complete_saga_step(token, '1') FROM mp_claim_saga_steps('s') $$, 'ok'),
    ($$ SELECT at_steps FROM mp_sagas $$, 'ok'), ($$ SELECT mp_saga_graph('granted') $$, 'ok'),
    ($$ SELECT mp_breaker_configure('privileges', '{}') $$, 'ok'), ($$ SELECT mp_breaker_force('privileges', 'open', reason => 'test') $$, 'ok'),
    ($$ SELECT mp_set_error_class('http', '429', 'transient') $$, 'ok'), ($$ SELECT mp_set_error_class('http', '429', NULL) $$, 'ok'),
    ($$ UPDATE meal_planner.error_class SET class = 'transient' $$, '42501'), ($$ SELECT * FROM mp_retry_budgets $$, 'ok'),
    ($$ SELECT mp_breaker_force('privileges', 'auto') $$, 'ok'), ('SELECT * FROM mp_breakers', 'ok'), ('SELECT * FROM meal_planner.breaker_history', '42501'),
    ($$ SELECT mp_set_retention(3650) $$, 'ok'), ('SELECT held_by FROM mp_partitions', 'ok'), ($$ SELECT mp_set_retention(NULL) $$, 'ok'),
    ($$ SELECT meal_planner.drop_partition('meal_planner.event_default') $$, '42501'), ($$ SELECT meal_planner.end_stale_appends() $$, '42501'),
    ($$ SELECT mp_begin_operation('o', 'lost', lease_seconds => 0, on_owner_lost => 'block') $$, 'ok'), ($$ SELECT mp_begin_operation('o', 'lost') $$, 'MP409'),
    ($$ SELECT mp_release_operation(token) FROM mp_operations $$, 'ok'), ($$ SELECT mp_begin_operation('o', 'lost') $$, 'ok'),
    ('DELETE FROM meal_planner.operation', '42501'),
    ($$ SELECT mp_unsubscribe('pulled') $$, 'ok'),
    ('SELECT * FROM meal_planner.event', '42501'), ($$ DELETE FROM meal_planner.dead_letter $$, '42501'),
    ($$ UPDATE meal_planner.subscription SET owner = 'postgres' $$, '42501'),
    ($$ SELECT meal_planner.subscribe_builtin('x', '{"a": [1]}', 'x') $$, '42501'),
    ($$ SELECT mp_grant('mp_t_operator', 'emitter') $$, '42501'),
    ($$ SET meal_planner.clock_offset = 5 $$, '42501'), ($$ SET meal_planner.max_hops = 5 $$, '42501')
  ) AS c (call, outcome);

-- A handler is the subscriber's ---------------------------------------------------

CREATE SCHEMA kitchen AUTHORIZATION mp_t_cook;
SELECT mp_grant('mp_t_cook', 'operator');
CREATE TABLE kitchen.secret (who text);
ALTER TABLE kitchen.secret OWNER TO mp_t_cook;
CREATE TABLE public.vault (who text);
REVOKE ALL ON public.vault FROM PUBLIC;
CREATE FUNCTION kitchen.subscribe(handler text, body text, path text DEFAULT NULL) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    SET LOCAL ROLE mp_t_cook;
    SET LOCAL search_path = kitchen, public;
    EXECUTE format('CREATE FUNCTION kitchen.%I(e meal_planner.event) RETURNS void LANGUAGE plpgsql %s AS %L', handler, path,
                   'BEGIN ' || body || ' END');
    PERFORM public.mp_subscribe(handler, jsonb_build_object('detail-type', jsonb_build_array(handler)),
                                format('kitchen.%I(meal_planner.event)', handler)::regprocedure);
    RESET search_path;
    RESET ROLE;
    RETURN handler;
END $$;
-- Emits as a role, and tells what became of it: done, or what the handler's error was.
CREATE FUNCTION pg_temp.emit_as(role name, type text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    outcome text := pg_temp.as_role(role, format('SELECT public.mp_emit_event(%L, ''{}'')', type));
BEGIN
    RETURN CASE WHEN outcome <> 'ok' THEN 'emitter: ' || outcome
                ELSE coalesce((SELECT sqlstate FROM meal_planner.delivery WHERE subscription = type ORDER BY position DESC LIMIT 1),
                              (SELECT sqlstate FROM meal_planner.dead_letter WHERE subscription = type ORDER BY position DESC LIMIT 1), 'done') END;
END $$;

SELECT kitchen.subscribe('who', 'INSERT INTO secret VALUES (current_user);');
SELECT is(pg_temp.emit_as('mp_t_emitter', 'who'), 'done', 'a handler writes where its emitter may not');
SELECT is((SELECT string_agg(who, ',') FROM kitchen.secret), 'mp_t_cook', 'it runs as the role that subscribed');
SELECT is(pg_temp.emit_as('postgres', 'who'), 'done', 'for a superuser as well');
SELECT is((SELECT string_agg(DISTINCT who, ',') FROM kitchen.secret), 'mp_t_cook', 'it is still that role');

-- What an emitter tries to gain.
SELECT kitchen.subscribe('plain', 'INSERT INTO secret VALUES (''plain'');');
CREATE SCHEMA trap AUTHORIZATION mp_t_emitter;
GRANT TEMPORARY ON DATABASE :"DBNAME" TO mp_t_emitter;
SET LOCAL ROLE mp_t_emitter;
CREATE TABLE trap.secret (who text);
CREATE TEMP TABLE secret (who text);
GRANT ALL ON trap.secret, secret TO PUBLIC;
GRANT USAGE ON SCHEMA trap TO PUBLIC;
CREATE FUNCTION trap.concat(text, text) RETURNS text LANGUAGE sql AS $$ SELECT 'trapped' $$;
SET LOCAL search_path = trap, pg_temp, public;
SELECT public.mp_emit_event('plain', '{}') IS NOT NULL AS emitted;
SET LOCAL search_path = pg_temp, public;
SELECT public.mp_emit_event('plain', '{}') IS NOT NULL AS emitted;
RESET ROLE;
SET LOCAL search_path = public;
SELECT is((SELECT count(*) FROM kitchen.secret WHERE who = 'plain'), 2::bigint, 'a hostile search_path and temporary table of the emitter catch nothing');
SELECT is((SELECT count(*) FROM trap.secret) + (SELECT count(*) FROM pg_temp.secret), 0::bigint, 'the traps are empty');
SELECT is(pg_temp.as_role('mp_t_emitter', $$ SELECT kitchen.who(NULL) $$), '42501', 'nor can it call into the schema of the handler');

-- What a subscriber tries to gain from a superuser who emits.
SELECT kitchen.subscribe('vault', 'INSERT INTO public.vault VALUES (current_user);');
SELECT is(pg_temp.emit_as('postgres', 'vault'), '42501', 'a superuser''s rights are not the handler''s');
SELECT kitchen.subscribe('set_role', 'SET ROLE postgres; INSERT INTO public.vault VALUES (current_user);');
SELECT isnt(pg_temp.emit_as('postgres', 'set_role'), 'done', 'SET ROLE in a handler fails');
SELECT kitchen.subscribe('reset_role', 'RESET ROLE; INSERT INTO public.vault VALUES (current_user);');
SELECT isnt(pg_temp.emit_as('postgres', 'reset_role'), 'done', 'RESET ROLE as well');
SELECT kitchen.subscribe('reset_session', 'RESET SESSION AUTHORIZATION; INSERT INTO public.vault VALUES (current_user);');
SELECT isnt(pg_temp.emit_as('postgres', 'reset_session'), 'done', 'RESET SESSION AUTHORIZATION as well');
SELECT kitchen.subscribe('set_config', 'PERFORM set_config(''role'', ''postgres'', false);');
SELECT isnt(pg_temp.emit_as('postgres', 'set_config'), 'done', 'and set_config of role');

-- A deferred trigger would fire at commit, as the superuser.
CREATE TABLE kitchen.deferred (who text);
ALTER TABLE kitchen.deferred OWNER TO mp_t_cook;
SET LOCAL ROLE mp_t_cook;
CREATE FUNCTION kitchen.smuggle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.vault VALUES (current_user); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER smuggle AFTER INSERT ON kitchen.deferred DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION kitchen.smuggle();
RESET ROLE;
SELECT kitchen.subscribe('deferred', 'INSERT INTO kitchen.deferred VALUES (''x'');');
SELECT is(pg_temp.emit_as('postgres', 'deferred'), '42501', 'a deferred trigger is refused');
SELECT kitchen.subscribe('temporary', 'CREATE TEMP TABLE food (x int);');
SELECT is(pg_temp.emit_as('postgres', 'temporary'), '42501', 'so are temporary objects');
SELECT kitchen.subscribe('listening', 'LISTEN mp_t_channel;');
SELECT isnt(pg_temp.emit_as('postgres', 'listening'), 'done', 'and LISTEN');
SET CONSTRAINTS ALL IMMEDIATE;
SELECT is_empty('SELECT * FROM public.vault', 'nothing got into the vault');

-- What a handler sets ends with it: a search_path left behind would catch the superuser's next call.
CREATE FUNCTION pg_temp.session() RETURNS text LANGUAGE sql AS $$
    SELECT concat_ws(' / ', current_user, session_user, current_setting('search_path'), current_setting('work_mem'), current_setting('row_security'))
$$;
SELECT pg_temp.session() AS session_before \gset
SELECT kitchen.subscribe('settings', 'PERFORM set_config(''search_path'', ''kitchen, public'', false);
    PERFORM set_config(''work_mem'', ''64kB'', false); SET row_security = off; SET work_mem = ''128kB'';');
SELECT is(pg_temp.emit_as('postgres', 'settings'), 'done', 'a handler may set what it likes');
SELECT is(pg_temp.session(), :'session_before', 'and the emitter notices nothing');
SELECT kitchen.subscribe('own_path', 'PERFORM set_config(''work_mem'', ''64kB'', false);', 'SET search_path = kitchen, public, pg_temp');
SELECT is(pg_temp.emit_as('postgres', 'own_path'), 'done', 'one with a path of its own as well');
SELECT is(pg_temp.session(), :'session_before', 'with the same result');

-- The sweep and a replay do not lend their rights either.
CREATE FUNCTION kitchen.worker(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN INSERT INTO kitchen.secret VALUES ('worker ' || current_user); END $$;
SET LOCAL ROLE mp_t_cook;
SELECT public.mp_subscribe('worker', '{"detail-type": ["worker"]}', 'kitchen.worker(meal_planner.event)', 'worker', '{"start": "earliest"}');
RESET ROLE;
SELECT mp_send_to_dlq(mp_emit_event('worker', '{}'), 'permanent', 'x', subscription => 'worker') AS letter \gset
SELECT is(pg_temp.as_role('mp_t_operator', format('SELECT mp_replay_dlq(%s)', :'letter')), 'ok', 'an operator replays');
SELECT is((SELECT string_agg(who, ',') FROM kitchen.secret WHERE who LIKE 'worker%'), 'worker mp_t_cook', 'as the subscriber');

-- EXECUTE on the handler: asked when subscribing, and at every run.
CREATE FUNCTION public.closed(e meal_planner.event) RETURNS void LANGUAGE sql AS '';
REVOKE ALL ON FUNCTION public.closed FROM PUBLIC;
SELECT is(pg_temp.as_role('mp_t_cook', $$ SELECT mp_subscribe('closed', '{"detail-type": ["closed"]}', 'public.closed(meal_planner.event)') $$),
          'MP403', 'a handler that its subscriber may not execute is refused');
GRANT EXECUTE ON FUNCTION public.closed TO mp_t_cook;
SELECT is(pg_temp.as_role('mp_t_cook', $$ SELECT mp_subscribe('closed', '{"detail-type": ["closed"]}', 'public.closed(meal_planner.event)') $$),
          'ok', 'with EXECUTE it is accepted');
SELECT is(pg_temp.emit_as('mp_t_emitter', 'closed'), 'done', 'and run');
REVOKE EXECUTE ON FUNCTION public.closed FROM mp_t_cook;
SELECT is(pg_temp.emit_as('mp_t_emitter', 'closed'), '42501', 'without EXECUTE later the delivery fails');
SELECT is((SELECT count(*) FROM meal_planner.delivery WHERE subscription = 'closed'), 1::bigint, 'and is retried, as what a deployment may bring back');
GRANT EXECUTE ON FUNCTION public.closed TO mp_t_cook;
SELECT is((SELECT meal_planner.attempt_delivery(account, subscription, position) FROM meal_planner.delivery WHERE subscription = 'closed'),
          'done', 'and runs when it is granted again');
-- A handler of somebody who is gone.
SELECT kitchen.subscribe('orphan', 'NULL;');
UPDATE meal_planner.subscription SET owner = 'mp_t_gone' WHERE name = 'orphan';
SELECT is(pg_temp.emit_as('mp_t_emitter', 'orphan'), '42704', 'a handler whose role is gone fails its delivery, and not its emitter');
SELECT ok((SELECT paused_at IS NOT NULL FROM meal_planner.subscription WHERE name = 'orphan'), 'and pauses its subscription');

SELECT * FROM finish();
ROLLBACK;
