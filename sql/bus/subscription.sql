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
ALTER TABLE meal_planner.subscription ENABLE ALWAYS TRIGGER subscription_changed;

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

-- From one mode to another every event has to be handled once: under the old
-- mode or under the new one.  An emitter acts by the mode it knows, so that it
-- must have ended before the change or begin after it; so must a worker's batch,
-- and a consumer's claim.
CREATE FUNCTION meal_planner.change_mode(s meal_planner.subscription, new_mode text, new_pattern jsonb, order_path text)
RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '2s' -- emitters queue behind us
AS $$
DECLARE
    most   CONSTANT int := 10000;
    behind int := 0;
    source record;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'MP409: the mode of a subscription can only be changed in a READ COMMITTED transaction'
            USING ERRCODE = 'MP409', HINT = 'retry=no. Call mp_subscribe in a transaction of its own.';
    END IF;
    IF s.mode <> 'pull' THEN -- also an inline one may have a replay
        LOCK TABLE meal_planner.worker_batch IN EXCLUSIVE MODE;
        DELETE FROM meal_planner.worker_batch b WHERE b.subscription = s.name;
    END IF;
    IF s.mode = 'worker' AND new_mode = 'pull' THEN
        RETURN s.start_position; -- the cursor stays
    END IF;
    LOCK TABLE meal_planner.event IN SHARE MODE;
    IF s.mode = 'pull' THEN
        FOR source IN SELECT a.account FROM meal_planner.accounts(s.start_position) a (account) LOOP
            PERFORM meal_planner.order_lock(source.account, s.name);
            PERFORM meal_planner.expire_claims(source.account, s.name);
        END LOOP;
        IF EXISTS (SELECT FROM meal_planner.consumer_claim c WHERE c.subscription = s.name) THEN
            RAISE EXCEPTION 'MP409: consumers hold events of subscription "%"', s.name
                USING ERRCODE = 'MP409',
                      HINT = 'retry=yes. Pause it, and wait until they have acknowledged them or their leases have ended.';
        END IF;
    END IF;
    IF new_mode = 'worker' AND s.mode = 'pull' THEN
        RETURN s.start_position;
    END IF;

    -- To inline: what lies between its cursor and now becomes deliveries.
    IF s.mode <> 'inline' THEN
        FOR source IN
            SELECT a.account,
                   greatest(meal_planner.cursor_position(a.account, s.name), s.start_position) AS cursor
              FROM meal_planner.accounts(s.start_position) a (account)
        LOOP
            behind := behind + (SELECT count(*) FROM (SELECT FROM meal_planner.event e
                                                       WHERE e.account = source.account
                                                         AND e.position > source.cursor
                                                       LIMIT most + 1) p);
            IF behind > most THEN
                RAISE EXCEPTION 'MP409: subscription "%" is more than % events behind', s.name, most
                    USING ERRCODE = 'MP409', HINT = 'retry=yes. Let it catch up before it becomes inline.';
            END IF;
            INSERT INTO meal_planner.delivery (account, subscription, position, event_id, next_attempt_at, order_key)
            SELECT e.account, s.name, e.position, e.id, greatest(meal_planner.clock(), e.deliver_after),
                   meal_planner.order_key(order_path, e)
              FROM meal_planner.event e
             WHERE e.account = source.account AND e.position > source.cursor
               AND meal_planner.matches(new_pattern, e)
            ON CONFLICT DO NOTHING;
        END LOOP;
    END IF;
    RETURN meal_planner.next_position();
EXCEPTION
    WHEN lock_not_available OR deadlock_detected THEN
        RAISE EXCEPTION 'MP409: subscription "%" is at work', s.name
            USING ERRCODE = 'MP409',
                  DETAIL = 'A change of its mode waits for the emitters and batches that run, two seconds at most.',
                  HINT = 'retry=yes. See mp_in_flight and pg_stat_activity for what takes so long.';
END
$$;
COMMENT ON FUNCTION meal_planner.change_mode(meal_planner.subscription, text, jsonb, text) IS
'makes a subscription ready for another mode and returns its new start_position; MP409 when emitters or batches do not end in two seconds, or when one that becomes inline is too far behind';

CREATE FUNCTION meal_planner.change_order(name text, path text, blocks boolean) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- Due, not blocked: who claims one finds out whether it has to wait.
    UPDATE meal_planner.delivery d
       SET order_key = meal_planner.order_key(path, e),
           next_attempt_at = CASE WHEN d.next_attempt_at = 'infinity' THEN meal_planner.clock()
                                  ELSE d.next_attempt_at END
      FROM meal_planner.event e
     WHERE d.subscription = change_order.name AND e.account = d.account AND e.position = d.position;
    UPDATE meal_planner.dead_letter l
       SET order_key = CASE WHEN blocks THEN meal_planner.order_key(path, e) END
      FROM meal_planner.event e
     WHERE l.subscription = change_order.name AND l.order_key IS NOT NULL
       AND e.account = l.account AND e.position = l.position;
END
$$;
COMMENT ON FUNCTION meal_planner.change_order(text, text, boolean) IS
'gives what a subscription has live its place in a new order';

-- Called by mp_subscribe (C), which has checked everything and knows the caller.
CREATE FUNCTION meal_planner.save_subscription(
    name text, pattern jsonb, mode text, handler text, owner text, handler_path text, options jsonb)
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    former meal_planner.subscription;
    start  bigint := meal_planner.subscription_start($7);
BEGIN
    SELECT * INTO former FROM meal_planner.subscription s WHERE s.name = $1 FOR UPDATE;
    IF FOUND THEN
        -- one that only changes keeps its place in the log
        start := CASE WHEN former.mode = $3 THEN former.start_position
                      ELSE meal_planner.change_mode(former, $3, $2, $7 ->> 'order_key') END;
        IF ($7 -> 'order_key', $7 -> 'on_dead') IS DISTINCT FROM
           (former.options -> 'order_key', former.options -> 'on_dead') THEN
            PERFORM meal_planner.change_order($1, $7 ->> 'order_key',
                                              coalesce($7 ->> 'on_dead' = 'block_key', false));
        END IF;
    ELSE
        -- of one of that name that was removed while somebody was at it
        PERFORM meal_planner.forget_cursors($1);
    END IF;
    INSERT INTO meal_planner.subscription AS s
           (name, pattern, mode, handler, owner, handler_path, options, start_position, created_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, start, meal_planner.clock())
    ON CONFLICT (name) DO UPDATE
       SET pattern = excluded.pattern,
           mode = excluded.mode,
           handler = excluded.handler,
           owner = excluded.owner,
           handler_path = excluded.handler_path,
           options = excluded.options,
           builtin = false,
           start_position = excluded.start_position;
END
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
'creates or replaces a subscription; it keeps its place in the log, also when its mode changes.
handler: f(meal_planner.event) returning void or jsonb; it runs as the caller of mp_subscribe, with the caller''s present search_path.
mode: inline (in the emitter''s transaction), worker (by the sweep) or pull (claimed by a consumer; no handler).
options: max_attempts 5, base_delay 2, multiplier 2, max_delay, jitter 0..1|equal|full, max_age (seconds), on_unknown_outcome retry|dead (of an error that leaves open whether it was done), retry_budget {per_second, burst 10, per_success 0} (a bucket of tokens, one for each retry: without one it waits), service (whose rows of meal_planner.error_class classify its errors first), timeout (seconds of a call), order_key (a path such as detail.recipe_id: one event of a key after the other), on_dead skip|block_key (a dead letter keeps the later events of its key back), max_replays 5 (after so many a dead letter is parked), redrive_window (seconds after its first failure: later it is only replayed by force), breaker (the name of a circuit breaker: while it is open the events wait, without an attempt), start latest|earliest|a time (of a new one).
Errors: MP400 naming the argument or option, MP403 without EXECUTE on the handler, MP409 when a change of mode does not find a moment without emitters or the subscription is too far behind to become inline, MP503.';

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

CREATE FUNCTION meal_planner.pause_broken_subscription(
    name text, account text, "sqlstate" text, error_message text) RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    paused_already boolean;
    reason         text := concat('deploy error', ' ' || $3, ': ' || $4);
BEGIN
    SELECT s.paused_at IS NOT NULL INTO paused_already
      FROM meal_planner.subscription s
     WHERE s.name = $1
       FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN false;
    ELSIF NOT paused_already THEN
        UPDATE meal_planner.subscription s
           SET paused_at = meal_planner.clock(), paused_reason = reason
         WHERE s.name = $1;
        PERFORM meal_planner.raise_alert($2, meal_planner.next_position(), 'paused', $1, coalesce($3, 'deploy'), reason);
    END IF;
    RETURN true;
END
$$;
COMMENT ON FUNCTION meal_planner.pause_broken_subscription(text, text, text, text) IS
'pauses a subscription whose handler cannot run and raises one alert; false when somebody else has its row';

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
-- also where a trigger emits that runs for what is replicated
ALTER TABLE meal_planner.event ENABLE ALWAYS TRIGGER dispatch;
