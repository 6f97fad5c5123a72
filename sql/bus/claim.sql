-- Pull subscriptions: consumers claim events under a lease.  A claim is one
-- row, however many events it holds: the stretch of the log between the cursor
-- and the last event read.  Only what goes wrong becomes a delivery, which a
-- later claim takes along.

CREATE TABLE meal_planner.consumer_claim (
    account        text        NOT NULL,
    subscription   text        NOT NULL,
    number         bigint      NOT NULL,
    token          uuid        NOT NULL,
    after_position bigint,
    up_to          bigint,
    settled        bigint[]    NOT NULL DEFAULT '{}',
    given_back     bigint[]    NOT NULL DEFAULT '{}',
    remaining      int         NOT NULL,
    deliveries     boolean     NOT NULL,
    keys           text[],
    replay_name    text,
    claimed_at     timestamptz NOT NULL,
    lease_until    timestamptz NOT NULL,
    worker         text,
    PRIMARY KEY (account, subscription, number),
    CHECK ((after_position IS NULL) = (up_to IS NULL))
);
COMMENT ON TABLE meal_planner.consumer_claim IS
'what consumers of pull subscriptions hold right now: the matching events of (after_position, up_to] except the settled ones, and the deliveries whose token is number';
COMMENT ON COLUMN meal_planner.consumer_claim.number IS 'grows with every claim; the token carries it, so that a token leads to its row';
COMMENT ON COLUMN meal_planner.consumer_claim.settled IS
'positions of the stretch that this claim no longer holds: acknowledged or failed, or never taken because they are delayed or wait for their key';
COMMENT ON COLUMN meal_planner.consumer_claim.given_back IS
'positions of events that left the claim without an acknowledgement: they failed, or wait behind one of their key that did';
COMMENT ON COLUMN meal_planner.consumer_claim.remaining IS 'events still held; the row goes with the last';
COMMENT ON COLUMN meal_planner.consumer_claim.keys IS
'order keys of the events of the stretch: no other claim gets events of these until this one has ended; NULL: the subscription has no order_key';
COMMENT ON COLUMN meal_planner.consumer_claim.replay_name IS 'the replay that the stretch is of; NULL: it is new in the log';
CREATE INDEX consumer_claim_number ON meal_planner.consumer_claim (number);
SELECT pg_extension_config_dump('meal_planner.consumer_claim', '');

CREATE FUNCTION @extschema@.mp_claim(
    subscription text, max_events int DEFAULT 100, lease_seconds float8 DEFAULT 30, worker text DEFAULT NULL,
    account text DEFAULT 'local', wait_seconds float8 DEFAULT 0)
RETURNS TABLE (token uuid, event_id uuid, attempt int, event jsonb)
LANGUAGE c VOLATILE SECURITY DEFINER PARALLEL UNSAFE ROWS 100
AS 'MODULE_PATHNAME', 'mp_claim';
COMMENT ON FUNCTION @extschema@.mp_claim(text, int, float8, text, text, float8) IS
'claims up to max_events due events of a pull subscription for lease_seconds: nobody else gets them until they are acknowledged, failed or the lease has ended. First what was retried or delayed, then the log in order; attempt counts from 1. No row: nothing is due, or the subscription is paused.
wait_seconds (at most 60): wait so long for an event; the transaction holds its snapshot meanwhile. It comes back earlier with no row when it has ended leases or put delayed events away, which others wait for: just claim again. worker: a name shown to operators. Commit before handling the events: other consumers wait for a claim that is not committed.
Errors: MP400, MP404, MP409 for a subscription of another mode and in a REPEATABLE READ or SERIALIZABLE transaction, MP503.';

CREATE FUNCTION @extschema@.mp_claim_json(
    subscription text, max_events int DEFAULT 100, lease_seconds float8 DEFAULT 30, worker text DEFAULT NULL,
    account text DEFAULT 'local', wait_seconds float8 DEFAULT 0)
RETURNS TABLE (token uuid, event_id uuid, attempt int, event json)
LANGUAGE c VOLATILE SECURITY DEFINER PARALLEL UNSAFE ROWS 100
AS 'MODULE_PATHNAME', 'mp_claim';
COMMENT ON FUNCTION @extschema@.mp_claim_json(text, int, float8, text, text, float8) IS
'mp_claim for a client that takes the event as text: the same events with the same text, which is written from the log at once and not made jsonb before. All else is as for mp_claim; errors: MP400, MP404, MP409, MP503';

CREATE FUNCTION @extschema@.mp_ack(token uuid, event_ids uuid[] DEFAULT NULL) RETURNS boolean
LANGUAGE c VOLATILE SECURITY DEFINER PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_ack';
COMMENT ON FUNCTION @extschema@.mp_ack(uuid, uuid[]) IS
'the events of a claim are done: all that it still holds (event_ids NULL), or some. False when the claim is no more, because its lease has ended (somebody else will get or has got the events) or all of it was settled, and when one of event_ids has left the claim without being acknowledged, because it failed (mp_fail) or an event before it with the same order key did: nothing is changed. Acknowledging some events twice is harmless. MP404 for an event that the claim cannot have held';

CREATE FUNCTION @extschema@.mp_fail(
    token uuid, event_id uuid, error_type text, error_message text, retry_after float8 DEFAULT NULL)
RETURNS text
LANGUAGE c VOLATILE SECURITY DEFINER PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_fail';
COMMENT ON FUNCTION @extschema@.mp_fail(uuid, uuid, text, text, float8) IS
'an event of a claim failed. error_type transient: it is claimed again after the subscription''s backoff or retry_after seconds (retry), until its attempts are used up (dead); permanent: a dead letter at once (dead); another class of errors, or a code that has one (http:429, fatsecret:12), means what mp_classify_error says of it; deferred: it was not tried, no attempt is counted (retry). lease_lost: the claim holds it no more, nothing is changed. The other events of the claim stay with it. MP400, MP404 for an event that the claim cannot have held';

CREATE FUNCTION @extschema@.mp_extend(token uuid, lease_seconds float8) RETURNS boolean
LANGUAGE c VOLATILE SECURITY DEFINER PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_extend';
COMMENT ON FUNCTION @extschema@.mp_extend(uuid, float8) IS
'heartbeat: the lease of a claim ends lease_seconds from now; false when it has ended already. MP400';

CREATE FUNCTION meal_planner.expire_claims(account text, subscription text) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_expire_claims';
COMMENT ON FUNCTION meal_planner.expire_claims(text, text) IS
'ends the leases of a pull subscription that are over: a failed attempt for every event still held';

-- Deliveries that are due although something of their key is still live are
-- found out here, by whoever claims next, under the order lock.  What somebody
-- else has locked is left to a later claim, and what is looked at is locked: else
-- one that was passed over could be free a moment later and be taken unseen.
CREATE FUNCTION meal_planner.due_in_order(
    account text, subscription text, moment timestamptz, first_claim bigint, max_events int, fresh boolean)
RETURNS bigint[]
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_sort = off SET enable_bitmapscan = off SET enable_seqscan = off SET jit = off -- in the order of the index
AS $$
#variable_conflict use_column
DECLARE
    due     record;
    free    bigint[];
    blocked boolean;
BEGIN
    LOOP
        free := '{}';
        blocked := false;
        FOR due IN
            SELECT a.order_key, a.position
              FROM (SELECT d.order_key, d.position FROM meal_planner.delivery d
                     WHERE d.account = $1 AND d.subscription = $2 AND d.token IS NULL AND d.next_attempt_at <= $3
                       AND NOT $6
                     ORDER BY d.account, d.subscription, d.next_attempt_at, d.position
                     LIMIT $5
                       FOR UPDATE SKIP LOCKED) a
            UNION ALL
            SELECT f.order_key, f.position
              FROM (SELECT d.order_key, d.position FROM meal_planner.delivery d
                     WHERE d.account = $1 AND d.subscription = $2 AND d.token IS NULL AND d.next_attempt_at <= $3
                       AND d.attempt = 0 AND $6
                     ORDER BY d.account, d.subscription, d.next_attempt_at, d.position
                     LIMIT $5
                       FOR UPDATE SKIP LOCKED) f
        LOOP
            IF meal_planner.must_wait($1, $2, due.order_key, due.position)
               OR EXISTS (SELECT FROM meal_planner.consumer_claim c
                           WHERE c.account = $1 AND c.subscription = $2 AND c.number >= $4
                             AND due.order_key = ANY (c.keys)) THEN
                blocked := meal_planner.block_delivery($1, $2, due.order_key, due.position) OR blocked;
            ELSE
                free := free || due.position;
            END IF;
        END LOOP;
        EXIT WHEN NOT blocked;
    END LOOP;
    RETURN free;
END
$$;
COMMENT ON FUNCTION meal_planner.due_in_order(text, text, timestamptz, bigint, int, boolean) IS
'deliveries of a pull subscription that are due (fresh: of those that are no retries) and may be taken, which it locks; those that must wait for something of their key it blocks; under order_lock';

CREATE FUNCTION meal_planner.keys_in_claims(account text, subscription text, first_claim bigint)
RETURNS TABLE (number bigint, order_key text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
SET enable_bitmapscan = off SET enable_seqscan = off SET jit = off -- by the index, from the first claim that is out
AS $$
    SELECT c.number, u.order_key
      FROM meal_planner.consumer_claim c
      LEFT JOIN LATERAL unnest(c.keys) u (order_key) ON true
     WHERE c.account = $1 AND c.subscription = $2 AND c.number >= $3
$$;
COMMENT ON FUNCTION meal_planner.keys_in_claims(text, text, bigint) IS
'the claims that are out, with the order keys they hold (NULL: none)';

CREATE FUNCTION meal_planner.is_claimed(account text, subscription text, "position" bigint) RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (SELECT FROM meal_planner.consumer_claim c
                     JOIN meal_planner.event e ON e.account = $1 AND e.position = $3
                     JOIN meal_planner.subscription s ON s.name = $2
                    WHERE c.account = $1 AND c.subscription = $2 AND c.after_position < $3 AND c.up_to >= $3
                      AND $3 <> ALL (c.settled) AND meal_planner.matches(s.pattern, e))
$$;
COMMENT ON FUNCTION meal_planner.is_claimed(text, text, bigint) IS
'whether a consumer holds an event of the log, or of a replay, that is no delivery; ask under order_lock';

CREATE FUNCTION meal_planner.release_keys(account text, subscription text, keys text[]) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- first the lock, then the look: a claim may be parking behind one of these
    PERFORM meal_planner.order_lock($1, $2);
    PERFORM meal_planner.release_key($1, $2, u.order_key)
       FROM unnest($3) u (order_key)
      WHERE EXISTS (SELECT FROM meal_planner.delivery d
                     WHERE d.account = $1 AND d.subscription = $2 AND d.order_key = u.order_key);
END
$$;
COMMENT ON FUNCTION meal_planner.release_keys(text, text, text[]) IS
'makes the next delivery of each of these keys due; call it after the claim or the sagas that held them have ended';

-- A lease that is over is a failed attempt of every event it still held.  The
-- first attempt of an event is a row only now; the others are deliveries already.
CREATE FUNCTION meal_planner.expire_claim(account text, subscription text, number bigint, delay float8, last_attempt boolean)
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_sort = off SET enable_bitmapscan = off SET enable_seqscan = off SET jit = off -- the stretch, by the index
AS $$
#variable_conflict use_variable
DECLARE
    over     meal_planner.consumer_claim;
    held     record;
    moment   timestamptz := meal_planner.clock();
    seconds  float8;
    message  text := 'the lease ended before the event was acknowledged';
    failed   jsonb := '[]';
BEGIN
    DELETE FROM meal_planner.consumer_claim c
     WHERE c.account = expire_claim.account AND c.subscription = expire_claim.subscription
       AND c.number = expire_claim.number
    RETURNING * INTO over;
    seconds := extract(epoch FROM moment - over.claimed_at);
    IF NOT last_attempt THEN
        failed := meal_planner.failed_attempt(1, true, seconds, NULL, message, 'retry', over.worker);
    END IF;
    IF over.deliveries THEN
        FOR held IN
            SELECT d.position FROM meal_planner.delivery d
             WHERE d.account = over.account AND d.subscription = over.subscription AND d.token = over.number
             ORDER BY d.position
        LOOP
            PERFORM meal_planner.fail_delivery(over.account, over.subscription, held.position, false,
                                               NULL, message, seconds, over.worker);
        END LOOP;
    END IF;
    FOR held IN
        INSERT INTO meal_planner.delivery AS d
               (account, subscription, position, event_id, attempt, next_attempt_at, first_failed_at, error_message,
                order_key, replay_name, history)
        SELECT e.account, over.subscription, e.position, e.id, 1, moment + make_interval(secs => delay), moment,
               message, meal_planner.order_key(s.options ->> 'order_key', e),
               over.replay_name, failed
          FROM meal_planner.event e
          JOIN meal_planner.subscription s ON s.name = over.subscription
         WHERE e.account = over.account AND e.position > over.after_position AND e.position <= over.up_to
           AND e.position <> ALL (over.settled)
           AND meal_planner.matches(s.pattern, e)
        ON CONFLICT ON CONSTRAINT delivery_pkey DO NOTHING
        RETURNING d.position
    LOOP
        IF last_attempt THEN
            PERFORM meal_planner.fail_delivery(over.account, over.subscription, held.position, false,
                                               NULL, message, seconds, over.worker);
        END IF;
    END LOOP;
    IF over.keys IS NOT NULL THEN
        PERFORM meal_planner.release_keys(over.account, over.subscription, over.keys);
    END IF;
END
$$;
COMMENT ON FUNCTION meal_planner.expire_claim(text, text, bigint, float8, boolean) IS
'ends one claim: its events become deliveries due after delay seconds, or dead letters when the first attempt was the last';
