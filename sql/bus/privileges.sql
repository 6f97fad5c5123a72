-- Runs last.  Nobody but the owner may call what writes; PUBLIC keeps what only
-- computes.  Schema usage alone gives nothing, but lets a handler's author name
-- the type meal_planner.event.

GRANT USAGE ON SCHEMA meal_planner TO PUBLIC;

DO $$
DECLARE
    member regprocedure;
BEGIN
    FOR member IN
        SELECT d.objid::regprocedure
          FROM pg_depend d
          JOIN pg_extension x ON x.oid = d.refobjid AND x.extname = 'meal_planner'
          JOIN pg_proc p ON p.oid = d.objid
         WHERE d.classid = 'pg_proc'::regclass AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
           AND p.proname NOT IN ('mp_match', 'mp_backoff', 'mp_classify_error', 'clock',
                                 'position_at', 'position_time', 'event_position', 'envelope', 'matches')
    LOOP
        EXECUTE format('REVOKE ALL ON ROUTINE %s FROM PUBLIC', member);
    END LOOP;
END
$$;

CREATE FUNCTION @extschema@.mp_grant(role_name name, profile text) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    emitter  CONSTANT text[] := ARRAY['mp_emit_event', 'mp_put_events'];
    reader   CONSTANT text[] := ARRAY['mp_event', 'mp_read_events', 'mp_read_stream'];
    sweeper  CONSTANT text[] := ARRAY['mp_sweep', 'sweep_begin', 'sweep_claim', 'sweep_end', 'sweep_maintain',
                                      'sweep_run', 'sweep_sleep', 'next_due'];
    operator CONSTANT text[] := ARRAY['mp_subscribe', 'mp_unsubscribe', 'mp_pause_subscription',
                                      'mp_resume_subscription', 'mp_send_to_dlq', 'mp_replay_dlq', 'mp_discard_dlq',
                                      'in_flight', 'handler_stats', 'cursor_position', 'accounts'];
    granted  text[];
    target   record;
BEGIN
    granted := CASE profile
                   WHEN 'emitter' THEN emitter
                   WHEN 'reader' THEN reader
                   WHEN 'sweeper' THEN sweeper
                   WHEN 'operator' THEN emitter || reader || sweeper || operator
               END;
    IF granted IS NULL THEN
        RAISE EXCEPTION 'MP400: profile must be emitter, reader, sweeper or operator'
            USING ERRCODE = 'MP400', HINT = 'retry=no. Correct the argument.';
    END IF;
    FOR target IN
        SELECT p.oid::regprocedure AS routine
          FROM pg_depend d
          JOIN pg_extension x ON x.oid = d.refobjid AND x.extname = 'meal_planner'
          JOIN pg_proc p ON p.oid = d.objid
         WHERE d.classid = 'pg_proc'::regclass AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
           AND p.proname = ANY (granted)
    LOOP
        EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO %I', target.routine, role_name);
    END LOOP;
    IF profile = 'operator' THEN
        FOR target IN
            SELECT c.oid::regclass AS relation
              FROM pg_depend d
              JOIN pg_extension x ON x.oid = d.refobjid AND x.extname = 'meal_planner'
              JOIN pg_class c ON c.oid = d.objid AND c.relkind = 'v'
             WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
        LOOP
            EXECUTE format('GRANT SELECT ON %s TO %I', target.relation, role_name);
        END LOOP;
    END IF;
END
$$;
COMMENT ON FUNCTION @extschema@.mp_grant(name, text) IS
'grants a role what it needs: emitter (mp_emit_event, mp_put_events), reader (mp_event, mp_read_events, mp_read_stream), sweeper (mp_sweep) or operator (all of them, subscriptions, dead letters and the mp_* views); MP400. Only who owns the extension can grant';
REVOKE ALL ON FUNCTION @extschema@.mp_grant(name, text) FROM PUBLIC;
