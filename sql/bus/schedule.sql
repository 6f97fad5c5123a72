-- Sweeps by pg_cron.  pg_cron's tables live in one database of the server
-- (cron.database_name).  Here they are called directly; from any other database
-- a background worker of this extension goes there, as the calling role.

CREATE FUNCTION meal_planner.call_in_database(database text, command text) RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_call_in_database';
COMMENT ON FUNCTION meal_planner.call_in_database(text, text) IS
'runs a query in another database of this server as the calling role and returns the first column of its first row';

CREATE FUNCTION meal_planner.cron_job_name() RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$ SELECT 'meal_planner sweep ' || current_database() $$;
COMMENT ON FUNCTION meal_planner.cron_job_name() IS 'name of this database''s job in pg_cron';

CREATE FUNCTION meal_planner.call_cron(command text) RETURNS text
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    home   text := current_setting('cron.database_name', true);
    answer text;
BEGIN
    -- A line in postgresql.conf is a setting even when nobody loads pg_cron;
    -- only a real one is listed.
    IF home IS NULL OR NOT EXISTS (SELECT FROM pg_settings g WHERE g.name = 'cron.database_name') THEN
        RAISE EXCEPTION 'MP503: pg_cron is not loaded'
            USING ERRCODE = 'MP503',
                  HINT = 'retry=no. Add pg_cron to shared_preload_libraries, or call mp_sweep by other means.';
    END IF;
    IF home <> current_database() THEN
        RETURN meal_planner.call_in_database(home, command);
    END IF;
    IF NOT EXISTS (SELECT FROM pg_extension x WHERE x.extname = 'pg_cron') THEN
        RAISE EXCEPTION 'MP503: extension pg_cron is not installed in database "%"', home
            USING ERRCODE = 'MP503', HINT = 'retry=no. Run CREATE EXTENSION pg_cron there.';
    END IF;
    EXECUTE command INTO answer;
    RETURN answer;
END
$$;
COMMENT ON FUNCTION meal_planner.call_cron(text) IS 'runs a query where pg_cron lives';

CREATE FUNCTION @extschema@.mp_schedule_sweeps() RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    cron_version text;
    sweep        text;
    seconds      boolean;
BEGIN
    cron_version := meal_planner.call_cron(
        'SELECT x.extversion FROM pg_catalog.pg_extension x WHERE x.extname OPERATOR(pg_catalog.=) ''pg_cron''');
    IF cron_version IS NULL THEN
        RAISE EXCEPTION 'MP503: extension pg_cron is not installed in database "%"', current_setting('cron.database_name')
            USING ERRCODE = 'MP503', HINT = 'retry=no. Run CREATE EXTENSION pg_cron there.';
    END IF;
    -- 1.4.2 calls itself 1.4-1; schedules in seconds came with 1.5.  Without them a sweep fills its
    -- minute, but for the moment it needs to end before the next one starts.
    seconds := regexp_split_to_array(cron_version, '[^0-9]+')::int[] >= ARRAY[1, 5];
    sweep := format('CALL %I.mp_sweep(%s)', '@extschema@', CASE WHEN seconds THEN '9.5' ELSE '59' END);
    RETURN meal_planner.call_cron(
        format('SELECT cron.schedule_in_database(%L, %L, %L, %L)',
               meal_planner.cron_job_name(), CASE WHEN seconds THEN '10 seconds' ELSE '* * * * *' END,
               sweep, current_database()));
END
$$;
COMMENT ON FUNCTION @extschema@.mp_schedule_sweeps() IS
'registers this database''s sweep with pg_cron, wherever pg_cron lives, and returns the job id; calling it again changes the job instead of adding one. Needs EXECUTE on cron.schedule_in_database. MP503 without pg_cron';

CREATE FUNCTION @extschema@.mp_unschedule_sweeps() RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM meal_planner.call_cron(
        format('SELECT cron.unschedule(j.jobid) FROM cron.job j WHERE j.jobname OPERATOR(pg_catalog.=) %L',
               meal_planner.cron_job_name()));
END
$$;
COMMENT ON FUNCTION @extschema@.mp_unschedule_sweeps() IS
'removes this database''s sweep from pg_cron; nothing happens when it is not there. MP503 without pg_cron';
