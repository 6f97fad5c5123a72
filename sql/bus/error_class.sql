-- What an error means for retrying, as data.  A code belongs to a service: to
-- 'postgres' SQLSTATEs, to 'http' statuses, to any other one the numbers of its
-- own.  A row is for one code or for a family of them: the first two characters
-- of an SQLSTATE, or 4xx for all of three digits that begin like that.
--
-- Of a code that comes from outside its service is written before it: http:429.
-- So it is in rows of another service, where they override its meaning when that
-- one is spoken to (fatsecret, http:404), and in rows of the service
-- 'subscription:<name>', which override everything for one subscription and where
-- SQLSTATEs stand without it.  Without a row an error is transient.

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
    shipped text,
    PRIMARY KEY (service, code)
);
COMMENT ON TABLE meal_planner.error_class IS
'class of an error by service and code, which says what becomes of the attempt; change it with mp_set_error_class';
COMMENT ON COLUMN meal_planner.error_class.service IS
'postgres (SQLSTATEs), http (statuses), a service with codes of its own, or subscription:<name> for one subscription';
COMMENT ON COLUMN meal_planner.error_class.builtin IS 'shipped, and as it was shipped: not dumped';
COMMENT ON COLUMN meal_planner.error_class.shipped IS 'the class that the extension ships for it; NULL: none';
SELECT pg_extension_config_dump('meal_planner.error_class', 'WHERE NOT builtin');
CREATE TRIGGER keep_user_version BEFORE UPDATE ON meal_planner.error_class
    FOR EACH ROW WHEN (old.builtin) EXECUTE FUNCTION meal_planner.keep_user_version('service', 'code');
CREATE TRIGGER replace_shipped BEFORE INSERT ON meal_planner.error_class
    FOR EACH ROW WHEN (NOT new.builtin) EXECUTE FUNCTION meal_planner.keep_user_version('service', 'code');

INSERT INTO meal_planner.error_class (service, code, class, builtin, shipped)
SELECT 'postgres', code, class, true, class
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
    -- state that passes; read only is a server that is no primary any more
    ('25006', 'shutdown'), ('25P03', 'timeout'), ('25P04', 'timeout'),
    ('40', 'contention'), ('40002', 'permanent'), ('40003', 'unknown_outcome'),
    ('53', 'resource'), ('55', 'permanent'), ('55006', 'contention'), ('55P03', 'contention'),
    ('57', 'shutdown'), ('57014', 'timeout'), ('57P05', 'timeout'),
    ('58', 'transient'), ('58P01', 'permanent'), ('72', 'contention'), ('HV', 'transient'),
    -- what is missing may be there after the next deployment
    ('3F000', 'deploy'), ('42501', 'deploy'), ('42703', 'deploy'), ('42704', 'deploy'), ('42883', 'deploy'), ('42P01', 'deploy'),
    -- this extension's own, and those a handler may raise to say which it is
    ('MP', 'permanent'), ('MP409', 'contention'), ('MP503', 'transient'),
    ('MPT01', 'transient'), ('MPP01', 'permanent'), ('MPR01', 'transient')
  ) AS v (code, class);

INSERT INTO meal_planner.error_class (service, code, class, builtin, shipped)
SELECT service, unnest(codes), class, true, class
  FROM (VALUES
    ('http', 'permanent', '{3xx,4xx,501,505}'::text[]),
    ('http', 'transient', '{425,5xx}'),
    ('http', 'timeout', '{408,504}'),
    -- a quota: that the service refuses says that it is well
    ('http', 'resource', '{429}'),
    -- unknown, the clock of the signature, its nonce, a limit of transport, a token to be renewed
    ('fatsecret', 'transient', '{1,6,7,11,13,5xx}'),
    ('fatsecret', 'resource', '{12,429}'),
    ('fatsecret', 'timeout', '{24,408}'),
    -- the key, the scope, the address of the caller: no call of anybody can succeed
    ('fatsecret', 'deploy', '{5,14,21}'),
    -- how it was called or signed, whose token it was, and what was asked for
    ('fatsecret', 'permanent', '{2,3,4,8,9,10,20,22,23,101,102,103,104,105,106,107,108,109,1xx,205,206,2xx,4xx}'),
    ('tandoor', 'permanent', '{400,401,403,404,4xx}'),
    ('tandoor', 'timeout', '{408,504}'),
    ('tandoor', 'resource', '{429}'),
    ('tandoor', 'transient', '{5xx}')
  ) AS v (service, class, codes);

-- A family of codes that one belongs to; NULL: to none.
CREATE FUNCTION meal_planner.error_family(service text, code text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN $1 = 'postgres' AND length($2) = 5 THEN left($2, 2)
                WHEN $1 <> 'postgres' AND $2 ~ '^[0-9]{3}$' THEN left($2, 1) || 'xx' END
$$;
COMMENT ON FUNCTION meal_planner.error_family(text, text) IS
'the family of a code, which a row of meal_planner.error_class may stand for: the first two characters of an SQLSTATE, 4xx for 404';

-- The most specific row wins: the subscription's before those of the service it
-- speaks to, these before those of the code's own service; each time a row for the
-- code before one for its family.
CREATE FUNCTION meal_planner.classify_error(code text, subscription text, service text DEFAULT NULL) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH given AS (
        SELECT CASE WHEN $3 IS NOT NULL THEN $3
                    WHEN strpos($1, ':') > 0 THEN split_part($1, ':', 1)
                    ELSE 'postgres' END AS service,
               CASE WHEN $3 IS NULL THEN substr($1, strpos($1, ':') + 1) ELSE $1 END AS code,
               (SELECT s.options ->> 'service' FROM meal_planner.subscription s WHERE s.name = $2) AS spoken_to),
    variant AS (
        SELECT g.service, g.spoken_to, v.code, v.n
          FROM given g, LATERAL (VALUES (1, g.code), (2, meal_planner.error_family(g.service, g.code))) v (n, code)
         WHERE v.code IS NOT NULL)
    SELECT coalesce(
        (SELECT c.class
           FROM variant v,
                LATERAL (VALUES (1, 'subscription:' || $2, CASE v.service WHEN 'postgres' THEN v.code
                                                                          ELSE v.service || ':' || v.code END),
                                (2, v.spoken_to, v.service || ':' || v.code),
                                (3, v.service, v.code)) k (n, service, code)
           JOIN meal_planner.error_class c ON c.service = k.service AND c.code = k.code
          ORDER BY k.n, v.n
          LIMIT 1),
        'transient')
$$;
COMMENT ON FUNCTION meal_planner.classify_error(text, text, text) IS 'what mp_classify_error answers';

CREATE FUNCTION @extschema@.mp_classify_error("sqlstate" text, subscription text DEFAULT NULL, service text DEFAULT NULL)
RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$ SELECT meal_planner.classify_error($1, $2, $3) $$;
COMMENT ON FUNCTION @extschema@.mp_classify_error(text, text, text) IS
'class of an SQLSTATE, or of a code of another service (http:429, or 429 with service http): contention, transient, resource, shutdown, timeout, unknown_outcome, permanent or deploy; a subscription''s own rows in meal_planner.error_class (service subscription:<name>) win, then those of the service in its options; unknown codes are transient';

CREATE FUNCTION @extschema@.mp_set_error_class(service text, code text, class text) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    classes CONSTANT text[] := '{contention,transient,resource,shutdown,timeout,unknown_outcome,permanent,deploy}';
    wrong   text := CASE
        WHEN coalesce(service, '') !~ '^(subscription:.{1,100}|[^:]{1,50})$' THEN
            'service must be postgres, http, another name of 1 to 50 characters, or subscription:<name>'
        WHEN coalesce(code, '') !~ '^.{1,100}$' THEN
            'code must have between 1 and 100 characters'
        WHEN service = 'postgres' AND code !~ '^([0-9A-Z]{2}|[0-9A-Z]{5})$' THEN
            'code must be an SQLSTATE or its first two characters'
        WHEN service = 'http' AND code !~ '^[1-5]([0-9][0-9]|xx)$' THEN
            'code must be a status such as 429, or 4xx'
        WHEN class <> ALL (classes) THEN
            'class must be one of ' || array_to_string(classes, ', ')
    END;
BEGIN
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'MP400: %', wrong USING ERRCODE = 'MP400', HINT = 'retry=no. Correct the argument.';
    END IF;
    IF class IS NULL THEN
        DELETE FROM meal_planner.error_class c
         WHERE c.service = mp_set_error_class.service AND c.code = mp_set_error_class.code AND c.shipped IS NULL;
        UPDATE meal_planner.error_class c
           SET class = c.shipped, builtin = true
         WHERE c.service = mp_set_error_class.service AND c.code = mp_set_error_class.code AND NOT c.builtin;
        RETURN;
    END IF;
    UPDATE meal_planner.error_class c
       SET class = mp_set_error_class.class
     WHERE c.service = mp_set_error_class.service AND c.code = mp_set_error_class.code
       AND c.class <> mp_set_error_class.class;
    IF NOT FOUND THEN
        INSERT INTO meal_planner.error_class AS c (service, code, class)
        SELECT service, code, class
         WHERE NOT EXISTS (SELECT FROM meal_planner.error_class c
                            WHERE c.service = mp_set_error_class.service AND c.code = mp_set_error_class.code)
        ON CONFLICT ON CONSTRAINT error_class_pkey DO UPDATE SET class = excluded.class;
    END IF;
END
$$;
COMMENT ON FUNCTION @extschema@.mp_set_error_class(text, text, text) IS
'gives a code of a service another class, or takes that back (class NULL): what is shipped holds again.
service: postgres (an SQLSTATE, or its first two characters), http (429, or 4xx), another service (its own code; of another one with its name, as http:404), or subscription:<name> (an SQLSTATE, or a code with its service, as fatsecret:106). MP400';

CREATE FUNCTION @extschema@.mp_backoff(attempt int, policy jsonb DEFAULT NULL) RETURNS interval
LANGUAGE c VOLATILE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'mp_backoff';
COMMENT ON FUNCTION @extschema@.mp_backoff(int, jsonb) IS
'how long to wait before an attempt: 1 -> 0, n -> base_delay * multiplier^(n-2) seconds, at most max_delay, of which the share jitter (0..1, none, equal for a half, full for all) is random; defaults base_delay 2, multiplier 2, jitter 0: 0, 2, 4, 8, 16 s. MP400 for a policy that is none';
