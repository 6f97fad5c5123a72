-- Definitions of sagas: immutable documents with a version each.  A saga stays
-- on the version it was started with.

CREATE TABLE meal_planner.saga_definition (
    name         text        NOT NULL,
    version      int         NOT NULL CHECK (version > 0),
    definition   jsonb       NOT NULL,
    routines     jsonb       NOT NULL,
    owner        text        NOT NULL,
    routine_path text        NOT NULL,
    defined_at   timestamptz NOT NULL,
    builtin      boolean     NOT NULL DEFAULT false,
    PRIMARY KEY (name, version)
);
COMMENT ON TABLE meal_planner.saga_definition IS
'what sagas do, version by version; made by mp_define_saga, never changed. New sagas get the highest version of their name';
COMMENT ON COLUMN meal_planner.saga_definition.routines IS
'qualified signatures of the functions by step: {"step": {"run", "undo"}}; text and not regprocedure, so that pg_upgrade and a restore need no order';
COMMENT ON COLUMN meal_planner.saga_definition.owner IS 'the role that defined it; its functions run as this role';
COMMENT ON COLUMN meal_planner.saga_definition.routine_path IS
'search_path of its functions: the definer''s when it was defined, pg_temp last; never that of who starts a saga';
COMMENT ON COLUMN meal_planner.saga_definition.builtin IS 'shipped: not dumped, and not to be dropped';
SELECT pg_extension_config_dump('meal_planner.saga_definition', 'WHERE NOT builtin');

-- Every backend keeps definitions compiled.  A new one is told as well: it may be
-- rolled back, and its version given to another.
CREATE FUNCTION meal_planner.saga_definition_changed() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'mp_saga_definition_changed';
COMMENT ON FUNCTION meal_planner.saga_definition_changed() IS
'tells every backend at commit that compiled definitions of sagas may be out of date';
CREATE TRIGGER saga_definition_changed
    AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON meal_planner.saga_definition
    FOR EACH STATEMENT EXECUTE FUNCTION meal_planner.saga_definition_changed();
ALTER TABLE meal_planner.saga_definition ENABLE ALWAYS TRIGGER saga_definition_changed;

-- Called by mp_define_saga (C), which has checked everything and knows the caller.
CREATE FUNCTION meal_planner.save_saga_definition(
    name text, definition jsonb, routines jsonb, owner text, routine_path text)
RETURNS int
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    latest meal_planner.saga_definition;
BEGIN
    -- Versions of a name are given out one after the other.
    LOCK TABLE meal_planner.saga_definition IN SHARE ROW EXCLUSIVE MODE;
    SELECT * INTO latest FROM meal_planner.saga_definition d WHERE d.name = $1 ORDER BY d.version DESC LIMIT 1;
    IF latest.definition = $2 AND latest.routines = $3 AND latest.owner = $4 AND latest.routine_path = $5 THEN
        RETURN latest.version;
    END IF;
    INSERT INTO meal_planner.saga_definition (name, version, definition, routines, owner, routine_path, defined_at)
    VALUES ($1, coalesce(latest.version, 0) + 1, $2, $3, $4, $5, meal_planner.clock())
    ON CONFLICT (name, version) DO NOTHING; -- 40001 when an older snapshot does not show it
    RETURN coalesce(latest.version, 0) + 1;
END
$$;
COMMENT ON FUNCTION meal_planner.save_saga_definition(text, jsonb, jsonb, text, text) IS
'the next version of a definition that mp_define_saga has checked, or the present one when it says the same';

CREATE FUNCTION @extschema@.mp_define_saga(name text, definition jsonb) RETURNS int
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_define_saga';
COMMENT ON FUNCTION @extschema@.mp_define_saga(text, jsonb) IS
'defines what a saga does and returns the version: a new one, or the present one when nothing has changed. Sagas already started stay on theirs.
definition: {"steps": [...], "deadline_seconds", "on_completed": {"emit": detail type}, "on_compensated": {"emit": detail type}, "locks": [names, such as "order:{input.id}"]}; a step: {"name", "kind": compensatable|read_only|pivot|retriable, "run": "f(jsonb)" or "service": name, "undo": "g(jsonb)" or "undo_service": name, "after": [names] (default: the step before), "retry": policy, "undo_retry": policy, "timeout_seconds", "breaker"}.
Functions take jsonb and return jsonb or void; they run as the caller of mp_define_saga, with the caller''s present search_path.
Errors: MP400 naming the step and what is wrong, MP403 without EXECUTE on a function, MP503.';

CREATE FUNCTION meal_planner.define_builtin_saga(name text, definition jsonb) RETURNS void
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO meal_planner.saga_definition (name, version, definition, routines, owner, routine_path, defined_at, builtin)
    SELECT $1, 1, $2,
           coalesce((SELECT jsonb_object_agg(t.step ->> 'name', jsonb_strip_nulls(jsonb_build_object('run', t.step -> 'run', 'undo', t.step -> 'undo')))
                       FROM jsonb_array_elements($2 -> 'steps') AS t (step)
                      WHERE t.step ? 'run' OR t.step ? 'undo'), '{}'),
           current_user, 'pg_catalog, pg_temp', clock_timestamp(), true
$$;
COMMENT ON FUNCTION meal_planner.define_builtin_saga(text, jsonb) IS
'defines a saga of the extension itself, whose functions are qualified; for its install script, which runs without the shared library preloaded';
