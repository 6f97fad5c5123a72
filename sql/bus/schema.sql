-- The schema of the tables and internal functions.  A plain CREATE: a schema
-- that somebody made beforehand is an error, never adopted.

CREATE SCHEMA meal_planner;
COMMENT ON SCHEMA meal_planner IS
'tables and internal functions of the extension meal_planner; the API is mp_* in the schema chosen at CREATE EXTENSION';

CREATE FUNCTION meal_planner.clock() RETURNS timestamptz
LANGUAGE c VOLATILE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'mp_clock';
COMMENT ON FUNCTION meal_planner.clock() IS
'the one clock of all timers: the wall clock plus the setting meal_planner.clock_offset (seconds, superuser, for tests)';

CREATE FUNCTION meal_planner.position_at(at timestamptz) RETURNS bigint
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'mp_position_at';
COMMENT ON FUNCTION meal_planner.position_at(timestamptz) IS
'the lowest position of that time: (microseconds since 2024-01-01 UTC) << 10';

CREATE FUNCTION meal_planner.position_time(at_position bigint) RETURNS timestamptz
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'mp_position_time';
COMMENT ON FUNCTION meal_planner.position_time(bigint) IS
'the time a position was made';

CREATE FUNCTION meal_planner.event_position(event_id uuid) RETURNS bigint
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'mp_position_of_event_id';
COMMENT ON FUNCTION meal_planner.event_position(uuid) IS
'the position an event id stands for, by arithmetic; NULL when it is no id of this extension';

CREATE FUNCTION meal_planner.next_position() RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_next_position';
COMMENT ON FUNCTION meal_planner.next_position() IS
'a new number from the position clock, for ids of rows that are not events (dead letters, alerts, workers)';

CREATE FUNCTION meal_planner.caller() RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$ SELECT coalesce(nullif(current_setting('role'), 'none'), session_user) $$;
COMMENT ON FUNCTION meal_planner.caller() IS
'the role that calls, to be noted down: that of SET ROLE or the session''s, never the owner of a function in between';
