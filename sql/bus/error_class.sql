-- What an error means for retrying, as data.  service 'postgres' has SQLSTATEs
-- (five characters) and their classes (two); 'subscription:<name>' overrides
-- them for one subscription.  The most specific row wins; without one an error
-- is transient.

-- Rows that the extension ships are not dumped: CREATE EXTENSION brings them.
-- One that a user changes becomes the user's, is dumped, and takes the place of
-- the shipped one when it is restored.  Arguments: the key columns.
CREATE FUNCTION meal_planner.keep_user_version() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    same_key text;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        NEW.builtin := false;
    ELSE
        SELECT string_agg(format('t.%1$I = ($1).%1$I', k.key), ' AND ') INTO same_key
          FROM unnest(TG_ARGV) AS k (key);
        EXECUTE format('DELETE FROM %I.%I t WHERE t.builtin AND %s', TG_TABLE_SCHEMA, TG_TABLE_NAME, same_key)
          USING NEW;
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION meal_planner.keep_user_version() IS
'a shipped row that is changed becomes the user''s; a restored one replaces the shipped one';

CREATE TABLE meal_planner.error_class (
    service text NOT NULL,
    code    text NOT NULL,
    class   text NOT NULL CHECK (class IN ('contention', 'transient', 'resource', 'shutdown', 'timeout',
                                           'unknown_outcome', 'permanent', 'deploy')),
    builtin boolean NOT NULL DEFAULT false,
    PRIMARY KEY (service, code)
);
COMMENT ON TABLE meal_planner.error_class IS
'class of an error by service and code; permanent goes to the dead letters at once, every other class is retried';
SELECT pg_extension_config_dump('meal_planner.error_class', 'WHERE NOT builtin');
CREATE TRIGGER keep_user_version BEFORE UPDATE ON meal_planner.error_class
    FOR EACH ROW WHEN (old.builtin) EXECUTE FUNCTION meal_planner.keep_user_version('service', 'code');
CREATE TRIGGER replace_shipped BEFORE INSERT ON meal_planner.error_class
    FOR EACH ROW WHEN (NOT new.builtin) EXECUTE FUNCTION meal_planner.keep_user_version('service', 'code');

INSERT INTO meal_planner.error_class (service, code, class, builtin)
SELECT 'postgres', code, class, true
  FROM (VALUES
    -- connections (dblink, foreign tables)
    ('08', 'transient'), ('08007', 'unknown_outcome'), ('08P01', 'permanent'),
    -- what the handler did or was given is wrong and stays wrong
    ('02', 'permanent'), ('03', 'permanent'), ('09', 'permanent'), ('0A', 'permanent'), ('0B', 'permanent'),
    ('0F', 'permanent'), ('0L', 'permanent'), ('0P', 'permanent'), ('0Z', 'permanent'), ('10', 'permanent'),
    ('20', 'permanent'), ('21', 'permanent'), ('22', 'permanent'), ('23', 'permanent'), ('24', 'permanent'),
    ('25', 'permanent'), ('26', 'permanent'), ('27', 'permanent'), ('28', 'permanent'), ('2B', 'permanent'),
    ('2D', 'permanent'), ('2E', 'permanent'), ('2F', 'permanent'), ('34', 'permanent'), ('38', 'permanent'),
    ('39', 'permanent'), ('3B', 'permanent'), ('3D', 'permanent'), ('42', 'permanent'), ('44', 'permanent'),
    ('54', 'permanent'), ('P0', 'permanent'), ('XX', 'permanent'), ('F0', 'permanent'),
    -- state that passes
    ('25006', 'transient'), ('25P03', 'timeout'), ('25P04', 'timeout'),
    ('40', 'contention'), ('40002', 'permanent'), ('40003', 'unknown_outcome'),
    ('53', 'resource'), ('55', 'permanent'), ('55006', 'contention'), ('55P03', 'contention'),
    ('57', 'shutdown'), ('57014', 'timeout'), ('57P05', 'timeout'),
    ('58', 'transient'), ('58P01', 'permanent'), ('72', 'transient'), ('HV', 'transient'),
    -- what is missing may be there after the next deployment
    ('3F000', 'deploy'), ('42501', 'deploy'), ('42703', 'deploy'), ('42704', 'deploy'), ('42883', 'deploy'), ('42P01', 'deploy'),
    -- this extension's own, and the two a handler may raise to say which it is
    ('MP', 'permanent'), ('MP409', 'contention'), ('MP503', 'transient'),
    ('MPT01', 'transient'), ('MPP01', 'permanent')
  ) AS v (code, class);

CREATE FUNCTION meal_planner.classify_error("sqlstate" text, subscription text) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(
        (SELECT c.class
           FROM meal_planner.error_class c
          WHERE c.service IN ('postgres', 'subscription:' || $2)
            AND c.code IN ($1, left($1, 2))
          ORDER BY c.service = 'postgres', length(c.code) DESC
          LIMIT 1),
        'transient')
$$;
COMMENT ON FUNCTION meal_planner.classify_error(text, text) IS 'what mp_classify_error answers';

CREATE FUNCTION @extschema@.mp_classify_error("sqlstate" text, subscription text DEFAULT NULL) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$ SELECT meal_planner.classify_error($1, $2) $$;
COMMENT ON FUNCTION @extschema@.mp_classify_error(text, text) IS
'class of an SQLSTATE: contention, transient, resource, shutdown, timeout, unknown_outcome, permanent or deploy; a subscription''s own rows in meal_planner.error_class (service subscription:<name>) win; unknown codes are transient';

CREATE FUNCTION @extschema@.mp_backoff(attempt int, policy jsonb DEFAULT NULL) RETURNS interval
LANGUAGE c VOLATILE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'mp_backoff';
COMMENT ON FUNCTION @extschema@.mp_backoff(int, jsonb) IS
'how long to wait before an attempt: 1 -> 0, n -> base_delay * multiplier^(n-2) seconds, at most max_delay, of which the share jitter is random; defaults base_delay 2, multiplier 2, jitter 0: 0, 2, 4, 8, 16 s. MP400 for a policy that is none';
