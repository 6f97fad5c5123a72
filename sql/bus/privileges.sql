-- Runs last, after the domain's parts.  Nobody but the owner may call what writes; PUBLIC keeps what only
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
                                 'position_at', 'position_time', 'event_position', 'envelope', 'matches',
                                 'mp_replay_name', 'max_replays')
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
    member record;
BEGIN
    IF NOT EXISTS (SELECT FROM meal_planner.grant_profile g WHERE g.profile = mp_grant.profile) THEN
        RAISE EXCEPTION 'MP400: profile must be one of %',
                        (SELECT string_agg(DISTINCT g.profile, ', ' ORDER BY g.profile)
                           FROM meal_planner.grant_profile g)
            USING ERRCODE = 'MP400', HINT = 'retry=no. Correct the argument.';
    END IF;
    FOR member IN
        SELECT 'EXECUTE ON ROUTINE ' || p.oid::regprocedure AS privilege
          FROM meal_planner.grant_profile g
          JOIN pg_proc p ON p.proname = g.object
          JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
          JOIN pg_extension x ON d.refclassid = 'pg_extension'::regclass AND x.oid = d.refobjid
         WHERE g.profile = mp_grant.profile AND x.extname = 'meal_planner'
        UNION ALL
        SELECT 'SELECT ON ' || c.oid::regclass
          FROM meal_planner.grant_profile g
          JOIN pg_class c ON c.relname = g.object AND c.relkind = 'v'
          JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
          JOIN pg_extension x ON d.refclassid = 'pg_extension'::regclass AND x.oid = d.refobjid
         WHERE g.profile = mp_grant.profile AND x.extname = 'meal_planner'
    LOOP
        EXECUTE format('GRANT %s TO %I', member.privilege, role_name);
    END LOOP;
END
$$;
COMMENT ON FUNCTION @extschema@.mp_grant(name, text) IS
'grants a role what a profile needs: emitter, reader, consumer, sweeper, operator (all of these, subscriptions, dead letters and the views) or one of the domain''s; see meal_planner.grant_profile. MP400. Only who owns the extension can grant';
REVOKE ALL ON FUNCTION @extschema@.mp_grant(name, text) FROM PUBLIC;
