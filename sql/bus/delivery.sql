-- A delivery is an event that a subscription has not got yet although it
-- should have: it failed, is delayed, or met a paused subscription.  A handler
-- that succeeds at once leaves no row.

CREATE TABLE meal_planner.delivery (
    account         text        NOT NULL,
    subscription    text        NOT NULL,
    position        bigint      NOT NULL,
    event_id        uuid        NOT NULL,
    attempt         int         NOT NULL DEFAULT 0,
    crashes         int         NOT NULL DEFAULT 0,
    contentions     int         NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL,
    token           bigint,
    order_key       text,
    replay_name     text,
    detail          jsonb,
    first_failed_at timestamptz,
    "sqlstate"      text,
    error_message   text,
    error_detail    text,
    error_hint      text,
    error_context   text,
    history         jsonb       NOT NULL DEFAULT '[]',
    PRIMARY KEY (account, subscription, position)
);
COMMENT ON TABLE meal_planner.delivery IS
'deliveries that are due, scheduled, blocked or running; the error is that of the last attempt';
COMMENT ON COLUMN meal_planner.delivery.attempt IS
'attempts started, the inline one included; committed before a handler starts';
COMMENT ON COLUMN meal_planner.delivery.crashes IS 'attempts whose worker died';
COMMENT ON COLUMN meal_planner.delivery.contentions IS 'tries that met contention and count as no attempt';
COMMENT ON COLUMN meal_planner.delivery.token IS
'the worker that runs it now, which holds a lock of that number for as long as it lives; or the number of the consumer''s claim that holds it';
COMMENT ON COLUMN meal_planner.delivery.order_key IS
'value of the subscription''s order_key in the event; NULL: it has no order';
COMMENT ON COLUMN meal_planner.delivery.replay_name IS 'the replay (mp_replay) that delivers the event; NULL: none does';
COMMENT ON COLUMN meal_planner.delivery.next_attempt_at IS
'when it is due; infinity: blocked, something of its order_key comes first';
COMMENT ON COLUMN meal_planner.delivery.detail IS 'corrected detail of a replay; NULL: the event''s own';
COMMENT ON COLUMN meal_planner.delivery.history IS
'its failed attempts as failed_attempt says, the oldest first; they go with it, or into its dead letter';
-- By subscription: what a paused one has waiting must not lie in the way.
CREATE INDEX delivery_due ON meal_planner.delivery (account, subscription, next_attempt_at, position)
    WHERE token IS NULL;
-- While its retries wait for their budget, a subscription gets the others.
CREATE INDEX delivery_fresh ON meal_planner.delivery (account, subscription, next_attempt_at, position)
    WHERE token IS NULL AND attempt = 0;
CREATE INDEX delivery_order ON meal_planner.delivery (account, subscription, order_key, position)
    WHERE order_key IS NOT NULL;
CREATE INDEX delivery_running_key ON meal_planner.delivery (account, subscription, order_key)
    WHERE order_key IS NOT NULL AND token IS NOT NULL;
CREATE INDEX delivery_running ON meal_planner.delivery (token) WHERE token IS NOT NULL;
SELECT pg_extension_config_dump('meal_planner.delivery', '');

CREATE FUNCTION meal_planner.schedule_delivery(
    account text, subscription text, "position" bigint, event_id uuid, due timestamptz, order_key text,
    replay_name text DEFAULT NULL)
RETURNS void
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO meal_planner.delivery
           (account, subscription, position, event_id, next_attempt_at, order_key, replay_name)
    VALUES ($1, $2, $3, $4, $5, $6, $7)
    ON CONFLICT (account, subscription, position) DO NOTHING
$$;
COMMENT ON FUNCTION meal_planner.schedule_delivery(text, text, bigint, uuid, timestamptz, text, text) IS
'a delivery without a failure: a delayed event, one that met a paused subscription, or one that waits for another of its key';

CREATE FUNCTION meal_planner.record_retry(
    account text, subscription text, "position" bigint, event_id uuid, attempt int, crashes int, delay float8,
    "sqlstate" text, error_message text, error_detail text, error_hint text, error_context text,
    order_key text DEFAULT NULL, replay_name text DEFAULT NULL, contentions int DEFAULT 0, failed jsonb DEFAULT '[]')
RETURNS void
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO meal_planner.delivery AS d
           (account, subscription, position, event_id, attempt, crashes, next_attempt_at, first_failed_at,
            "sqlstate", error_message, error_detail, error_hint, error_context, order_key,
            replay_name, contentions, history)
    -- without an attempt it has not failed: its age does not count yet
    VALUES ($1, $2, $3, $4, $5, $6, meal_planner.clock() + make_interval(secs => $7),
            CASE WHEN $5 > 0 THEN meal_planner.clock() END,
            $8, $9, $10, $11, $12, $13, $14, $15, $16)
    ON CONFLICT (account, subscription, position) DO UPDATE
       SET attempt = excluded.attempt,
           contentions = excluded.contentions,
           crashes = excluded.crashes,
           next_attempt_at = excluded.next_attempt_at,
           token = NULL,
           first_failed_at = coalesce(d.first_failed_at, excluded.first_failed_at),
           "sqlstate" = excluded."sqlstate",
           error_message = excluded.error_message,
           error_detail = excluded.error_detail,
           error_hint = excluded.error_hint,
           error_context = excluded.error_context,
           history = CASE WHEN jsonb_array_length(d.history) < 100 THEN d.history || excluded.history
                          ELSE meal_planner.join_history(d.history, excluded.history) END
$$;
COMMENT ON FUNCTION meal_planner.record_retry(text, text, bigint, uuid, int, int, float8, text, text, text, text, text, text, text, int, jsonb) IS
'a failed attempt that will be followed by another after delay seconds; attempt 0: one that did not count; failed: its history';

CREATE FUNCTION meal_planner.defer_delivery(
    account text, subscription text, "position" bigint, event_id uuid, attempt int, due timestamptz, order_key text,
    replay_name text DEFAULT NULL)
RETURNS void
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO meal_planner.delivery AS d
           (account, subscription, position, event_id, attempt, next_attempt_at, order_key, replay_name)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
    ON CONFLICT (account, subscription, position) DO UPDATE
       SET attempt = excluded.attempt, next_attempt_at = excluded.next_attempt_at, token = NULL
$$;
COMMENT ON FUNCTION meal_planner.defer_delivery(text, text, bigint, uuid, int, timestamptz, text, text) IS
'a delivery whose handler was not called, because its circuit breaker is open: the attempt does not count, and due is now, since the breaker is asked by whoever looks for what is due';

-- C: runs the handler of a delivery whose row the caller owns or has locked.
CREATE FUNCTION meal_planner.attempt_delivery(account text, subscription text, "position" bigint) RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_attempt_delivery';
COMMENT ON FUNCTION meal_planner.attempt_delivery(text, text, bigint) IS
'runs the handler for a delivery in a subtransaction and records what came of it: done, retry, dead, or gone with its event or subscription';

CREATE FUNCTION meal_planner.fail_delivery(
    account text, subscription text, "position" bigint, crashed boolean,
    "sqlstate" text, error_message text, seconds float8 DEFAULT NULL, worker text DEFAULT NULL) RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_fail_delivery';
COMMENT ON FUNCTION meal_planner.fail_delivery(text, text, bigint, boolean, text, text, float8, text) IS
'records that an attempt failed outside a handler call (its worker died, its lease ended): retry, dead, or gone with its event or subscription. seconds: how long it took; worker: the consumer''s name';
