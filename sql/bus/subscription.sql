-- A subscription is a name, an event pattern and a way to deliver.

CREATE TABLE meal_planner.subscription (
    name           text        NOT NULL PRIMARY KEY,
    pattern        jsonb       NOT NULL,
    mode           text        NOT NULL CHECK (mode IN ('inline', 'worker', 'pull')),
    handler        text,
    owner          text        NOT NULL,
    handler_path   text        NOT NULL,
    options        jsonb       NOT NULL DEFAULT '{}',
    start_position bigint      NOT NULL,
    paused_at      timestamptz,
    paused_reason  text,
    created_at     timestamptz NOT NULL,
    builtin        boolean     NOT NULL DEFAULT false,
    CHECK ((mode = 'pull') = (handler IS NULL))
);
COMMENT ON TABLE meal_planner.subscription IS 'subscriptions; change them with mp_subscribe and its companions';
COMMENT ON COLUMN meal_planner.subscription.handler IS
'qualified signature; text and not regprocedure, so that pg_upgrade and a restore need no order';
COMMENT ON COLUMN meal_planner.subscription.owner IS 'the role that subscribed; its handler runs as this role';
COMMENT ON COLUMN meal_planner.subscription.handler_path IS
'search_path of the handler: the subscriber''s when it subscribed, pg_temp last; never the emitter''s';
COMMENT ON COLUMN meal_planner.subscription.builtin IS 'shipped, and as it was shipped: not dumped';
COMMENT ON COLUMN meal_planner.subscription.start_position IS 'where its cursor starts, in every account; an older cursor, of a time in another mode, counts no more';
SELECT pg_extension_config_dump('meal_planner.subscription', 'WHERE NOT builtin');
CREATE TRIGGER keep_user_version BEFORE UPDATE ON meal_planner.subscription
    FOR EACH ROW WHEN (old.builtin) EXECUTE FUNCTION meal_planner.keep_user_version('name');
CREATE TRIGGER replace_shipped BEFORE INSERT ON meal_planner.subscription
    FOR EACH ROW WHEN (NOT new.builtin) EXECUTE FUNCTION meal_planner.keep_user_version('name');

-- builtin says that a row is as it was shipped; this, that there is a shipped
-- one of that name.  Not dumped, as CREATE EXTENSION fills it.
CREATE TABLE meal_planner.shipped_subscription (
    name text PRIMARY KEY
);
COMMENT ON TABLE meal_planner.shipped_subscription IS
'subscriptions that the extension ships, changed by a user or not: they can be changed and paused, not removed';

-- Every backend keeps the subscriptions compiled; whoever changes the table,
-- by whatever way, tells them all.
CREATE FUNCTION meal_planner.subscription_changed() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'mp_subscription_changed';
COMMENT ON FUNCTION meal_planner.subscription_changed() IS
'tells every backend at commit that its compiled subscriptions are out of date';
CREATE TRIGGER subscription_changed
    AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON meal_planner.subscription
    FOR EACH STATEMENT EXECUTE FUNCTION meal_planner.subscription_changed();

CREATE FUNCTION meal_planner.is_broken(subscription text) RETURNS boolean
LANGUAGE c VOLATILE STRICT SECURITY DEFINER PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_subscription_is_broken';
COMMENT ON FUNCTION meal_planner.is_broken(text) IS
'whether the pattern or the options of a subscription, written by hand, are none: it gets no events until it is replaced';

-- The cursors, as a ledger: a batch inserts its end and removes the end before
-- it.  A row updated in place would be walked version by version under a long
-- snapshot; here the current cursor is the highest key, found at once.
CREATE TABLE meal_planner.subscription_cursor (
    account      text   NOT NULL,
    subscription text   NOT NULL,
    position     bigint NOT NULL,
    first_claim  bigint,
    next_expiry  timestamptz,
    PRIMARY KEY (account, subscription, position)
);
COMMENT ON TABLE meal_planner.subscription_cursor IS
'how far a worker or pull subscription has come in an account: the highest position; none yet: the subscription''s start_position';
COMMENT ON COLUMN meal_planner.subscription_cursor.first_claim IS 'pull: the lowest number that a claim still out may have; NULL: none is out';
COMMENT ON COLUMN meal_planner.subscription_cursor.next_expiry IS 'pull: no lease of those claims ends before';
SELECT pg_extension_config_dump('meal_planner.subscription_cursor', '');

CREATE FUNCTION meal_planner.read_bound(account text DEFAULT NULL) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_read_bound';
COMMENT ON FUNCTION meal_planner.read_bound(text) IS
'the position up to which the log of an account (NULL: of every account) is complete; take it first and the snapshot second';

CREATE FUNCTION meal_planner.read_committed_only() RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_read_committed_only';
COMMENT ON FUNCTION meal_planner.read_committed_only() IS
'MP409 in a REPEATABLE READ or SERIALIZABLE transaction, whose snapshot may be older than a bound that was read just now';

CREATE FUNCTION meal_planner.subscription_start(options jsonb) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    start text := coalesce(options ->> 'start', 'latest');
BEGIN
    RETURN CASE start
               WHEN 'latest' THEN meal_planner.read_bound()
               WHEN 'earliest' THEN 0
               ELSE meal_planner.position_at(start::timestamptz) - 1
           END;
EXCEPTION
    WHEN invalid_datetime_format OR datetime_field_overflow OR invalid_parameter_value THEN
        RAISE EXCEPTION 'MP400: start must be latest, earliest or a time'
            USING ERRCODE = 'MP400', HINT = 'retry=no. Correct the option.';
END
$$;
COMMENT ON FUNCTION meal_planner.subscription_start(jsonb) IS 'position where a subscription with these options starts';

-- Called by mp_subscribe (C), which has checked everything and knows the caller.
CREATE FUNCTION meal_planner.save_subscription(
    name text, pattern jsonb, mode text, handler text, owner text, handler_path text, options jsonb)
RETURNS void
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO meal_planner.subscription AS s
           (name, pattern, mode, handler, owner, handler_path, options, start_position, created_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, meal_planner.subscription_start($7), meal_planner.clock())
    ON CONFLICT (name) DO UPDATE
       SET pattern = excluded.pattern,
           mode = excluded.mode,
           handler = excluded.handler,
           owner = excluded.owner,
           handler_path = excluded.handler_path,
           options = excluded.options,
           builtin = false,
           -- a subscription that only changes keeps its place in the log
           start_position = CASE WHEN s.mode = excluded.mode THEN s.start_position
                                 ELSE excluded.start_position END
$$;
COMMENT ON FUNCTION meal_planner.save_subscription(text, jsonb, text, text, text, text, jsonb) IS
'creates or replaces a subscription that mp_subscribe has checked';

CREATE FUNCTION @extschema@.mp_subscribe(
    name text, pattern jsonb, handler regprocedure DEFAULT NULL, mode text DEFAULT 'inline',
    options jsonb DEFAULT '{}')
RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_subscribe';
COMMENT ON FUNCTION @extschema@.mp_subscribe(text, jsonb, regprocedure, text, jsonb) IS
'creates or replaces a subscription; it keeps its cursor.
handler: f(meal_planner.event) returning void or jsonb; it runs as the caller of mp_subscribe, with the caller''s present search_path.
mode: inline (in the emitter''s transaction), worker (by the sweep) or pull (claimed by a consumer; no handler).
options: max_attempts 5, base_delay 2, multiplier 2, max_delay, jitter 0..1, max_age (seconds), start latest|earliest|a time.
Errors: MP400 naming the argument or option, MP403 without EXECUTE on the handler, MP503.';

CREATE FUNCTION meal_planner.subscribe_builtin(name text, pattern jsonb, handler text) RETURNS void
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO meal_planner.subscription
           (name, pattern, mode, handler, owner, handler_path, start_position, created_at, builtin)
    VALUES ($1, $2, 'inline', $3, current_user, 'pg_catalog, pg_temp', 0, clock_timestamp(), true);
    INSERT INTO meal_planner.shipped_subscription (name) VALUES ($1);
$$;
COMMENT ON FUNCTION meal_planner.subscribe_builtin(text, jsonb, text) IS
'registers an inline subscription of the extension itself; for its install script, which runs without the shared library preloaded';

CREATE FUNCTION meal_planner.require_subscription(name text) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM FROM meal_planner.subscription s WHERE s.name = require_subscription.name FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'MP404: subscription "%" does not exist', name
            USING ERRCODE = 'MP404', HINT = 'retry=no. See the view mp_subscriptions.';
    END IF;
END
$$;
COMMENT ON FUNCTION meal_planner.require_subscription(text) IS 'locks a subscription; MP404 when there is none';

CREATE FUNCTION @extschema@.mp_pause_subscription(name text, reason text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM meal_planner.require_subscription(name);
    UPDATE meal_planner.subscription s
       SET paused_at = coalesce(s.paused_at, meal_planner.clock()), paused_reason = reason
     WHERE s.name = mp_pause_subscription.name;
END
$$;
COMMENT ON FUNCTION @extschema@.mp_pause_subscription(text, text) IS
'stops deliveries to a subscription: worker and pull keep their place, an inline one gets the events of the pause as deliveries when it is resumed; MP404';

CREATE FUNCTION @extschema@.mp_resume_subscription(name text) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM meal_planner.require_subscription(name);
    UPDATE meal_planner.subscription s
       SET paused_at = NULL, paused_reason = NULL
     WHERE s.name = mp_resume_subscription.name;
END
$$;
COMMENT ON FUNCTION @extschema@.mp_resume_subscription(text) IS 'goes on after mp_pause_subscription; MP404';

-- The one trigger of the log.  It acts on rows that mp_emit_event and its
-- companions are recording; rows that a restore brings in pass untouched.
CREATE FUNCTION meal_planner.dispatch() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'mp_dispatch';
COMMENT ON FUNCTION meal_planner.dispatch() IS
'runs the inline subscriptions that match a new event';
CREATE TRIGGER dispatch
    AFTER INSERT ON meal_planner.event
    FOR EACH ROW EXECUTE FUNCTION meal_planner.dispatch();
