-- What was given up, one row per (event, subscription).

CREATE TABLE meal_planner.dead_letter (
    account          text        NOT NULL,
    id               bigint      NOT NULL,
    subscription     text        NOT NULL,
    position         bigint      NOT NULL,
    event_id         uuid        NOT NULL,
    error_type       text        NOT NULL CHECK (error_type IN ('transient', 'permanent', 'crash')),
    reason           text        NOT NULL,
    "sqlstate"       text,
    error_message    text,
    error_detail     text,
    error_hint       text,
    error_context    text,
    retry_count      int         NOT NULL,
    status           text        NOT NULL CHECK (status IN ('dead', 'replaying', 'resolved', 'discarded')),
    first_failed_at  timestamptz NOT NULL,
    dead_at          timestamptz NOT NULL,
    replay_count     int         NOT NULL DEFAULT 0,
    corrected_detail jsonb,
    settled_at       timestamptz,
    discard_reason   text,
    alert_id         bigint,
    order_key        text,
    refused          text,
    history          jsonb       NOT NULL DEFAULT '[]',
    PRIMARY KEY (account, id),
    UNIQUE (account, subscription, position)
);
COMMENT ON TABLE meal_planner.dead_letter IS
'dead letters; subscription '''' for one sent without; a row that fails again is reopened';
COMMENT ON COLUMN meal_planner.dead_letter.reason IS
'why it was given up: permanent, max_attempts, max_age, unknown_outcome, crash, sent (mp_send_to_dlq) or unsubscribed';
COMMENT ON COLUMN meal_planner.dead_letter.alert_id IS
'the alert that was raised when it became dead, NULL: none; another one follows only when it becomes dead again';
COMMENT ON COLUMN meal_planner.dead_letter.history IS
'its failed attempts as failed_attempt says, the oldest first; replay: after which replay, none before the first';
COMMENT ON COLUMN meal_planner.dead_letter.order_key IS
'the key that it blocks while dead or replaying (on_dead block_key); NULL: none';
COMMENT ON COLUMN meal_planner.dead_letter.refused IS 'why the last redrive left it out, see replay_refusal; NULL: none has since it was replayed';
CREATE INDEX dead_letter_order ON meal_planner.dead_letter (account, subscription, order_key, position)
    WHERE order_key IS NOT NULL AND status IN ('dead', 'replaying');
CREATE INDEX dead_letter_id ON meal_planner.dead_letter (id);
CREATE INDEX dead_letter_waiting ON meal_planner.dead_letter (position) WHERE status IN ('dead', 'replaying');
CREATE INDEX dead_letter_settled ON meal_planner.dead_letter (settled_at) WHERE status IN ('resolved', 'discarded');
SELECT pg_extension_config_dump('meal_planner.dead_letter', '');

CREATE FUNCTION meal_planner.record_dead_letter(
    account text, subscription text, "position" bigint, event_id uuid, error_type text, reason text, retry_count int,
    "sqlstate" text, error_message text, error_detail text DEFAULT NULL, error_hint text DEFAULT NULL,
    error_context text DEFAULT NULL, order_key text DEFAULT NULL, failed jsonb DEFAULT '[]')
RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    moment    timestamptz := meal_planner.clock();
    failed_at timestamptz;
    failures  jsonb := '[]';
    -- What somebody sends as transient is only kept; all else is a delivery given up.
    new_alert bigint := CASE WHEN $6 <> 'sent' THEN meal_planner.next_position() END;
    alert     bigint := new_alert;
    key       text := $13;
    had_key   boolean;
    blocks    boolean;
    letter    bigint := meal_planner.next_position();
    known     record;
BEGIN
    DELETE FROM meal_planner.delivery d
     WHERE d.account = $1 AND d.subscription = $2 AND d.position = $3
    RETURNING d.first_failed_at, d.order_key, d.history INTO failed_at, key, failures;
    had_key := key IS NOT NULL;
    IF NOT FOUND THEN
        key := $13;
        failures := '[]';
    END IF;
    failures := meal_planner.join_history(failures, $14);
    blocks := coalesce((SELECT s.options ->> 'on_dead' = 'block_key'
                          FROM meal_planner.subscription s WHERE s.name = $2), false);

    -- Two may come at once: one makes the row, the other waits for it and then
    -- finds what it was, unless it has been purged by then.
    LOOP
        INSERT INTO meal_planner.dead_letter AS l
               (account, id, subscription, position, event_id, error_type, reason, "sqlstate", error_message,
                error_detail, error_hint, error_context, retry_count, status, first_failed_at, dead_at, alert_id,
                order_key, history)
        VALUES ($1, letter, $2, $3, $4, $5, $6, $8, $9,
                $10, $11, $12, $7, 'dead', coalesce(failed_at, moment), moment, alert,
                CASE WHEN blocks THEN key END, failures)
        ON CONFLICT (account, subscription, position) DO NOTHING;
        EXIT WHEN FOUND;
        SELECT l.id, CASE WHEN l.status = 'dead' THEN l.alert_id END AS alert_id INTO known
          FROM meal_planner.dead_letter l
         WHERE l.account = $1 AND l.subscription = $2 AND l.position = $3
           FOR UPDATE;
        CONTINUE WHEN NOT FOUND;
        letter := known.id;
        alert := coalesce(known.alert_id, new_alert);
        UPDATE meal_planner.dead_letter l
           SET error_type = $5,
               reason = $6,
               "sqlstate" = $8,
               error_message = $9,
               error_detail = $10,
               error_hint = $11,
               error_context = $12,
               retry_count = $7,
               -- sent once more by hand it goes on blocking
               order_key = CASE WHEN blocks THEN
                               coalesce(key, CASE WHEN l.status IN ('dead', 'replaying') THEN l.order_key END) END,
               status = 'dead',
               dead_at = moment,
               settled_at = NULL,
               discard_reason = NULL,
               alert_id = alert,
               history = meal_planner.join_history(l.history, meal_planner.stamp_history(failures, l.replay_count))
         WHERE l.account = $1 AND l.id = letter;
        EXIT;
    END LOOP;

    IF alert = new_alert THEN
        PERFORM meal_planner.raise_alert($1, alert, 'dead_letter', $2, coalesce($8, $6), coalesce($9, $6), letter);
    END IF;
    IF had_key THEN
        PERFORM meal_planner.release_key($1, $2, key);
    END IF;
    RETURN letter;
END
$$;
COMMENT ON FUNCTION meal_planner.record_dead_letter(text, text, bigint, uuid, text, text, int, text, text, text, text, text, text, jsonb) IS
'moves a delivery to the dead letters, opening its row or reopening it; with on_dead block_key it blocks its order key, else the next of the key is released; raises an alert when it becomes dead, none while it stays so nor for one sent as transient. failed: the history of that attempt. Returns the id';

CREATE FUNCTION @extschema@.mp_send_to_dlq(
    event_id uuid, error_type text, error_message text, retry_count int DEFAULT 0,
    subscription text DEFAULT NULL, account text DEFAULT 'local')
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    event_position bigint;
BEGIN
    IF error_type IS NULL OR error_type NOT IN ('transient', 'permanent') THEN
        RAISE EXCEPTION 'MP400: error_type must be transient or permanent'
            USING ERRCODE = 'MP400', HINT = 'retry=no. Correct the argument.';
    END IF;
    SELECT e.position INTO event_position
      FROM meal_planner.event e
     WHERE e.account = coalesce(mp_send_to_dlq.account, 'local')
       AND e.position = meal_planner.event_position(mp_send_to_dlq.event_id)
       AND e.id = mp_send_to_dlq.event_id;
    IF event_position IS NULL THEN
        RAISE EXCEPTION 'MP404: event % does not exist in account "%"', event_id, account
            USING ERRCODE = 'MP404', HINT = 'retry=no. Send an event of the log.';
    END IF;
    RETURN meal_planner.record_dead_letter(
        coalesce(account, 'local'), coalesce(subscription, ''), event_position, event_id, error_type,
        CASE WHEN error_type OPERATOR(pg_catalog.=) 'permanent' THEN 'permanent' ELSE 'sent' END,
        coalesce(retry_count, 0), NULL, error_message,
        failed => meal_planner.failed_attempt(NULL, false, NULL, NULL, error_message, 'sent', NULL));
END
$$;
COMMENT ON FUNCTION @extschema@.mp_send_to_dlq(uuid, text, text, int, text, text) IS
'puts an event into the dead letters, one row per (event, subscription); returns its id. error_type transient or permanent; permanent raises one alert. MP400, MP404';

CREATE FUNCTION meal_planner.lock_dead_letter(dlq_id bigint) RETURNS meal_planner.dead_letter
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    letter meal_planner.dead_letter;
BEGIN
    SELECT * INTO letter FROM meal_planner.dead_letter l WHERE l.id = dlq_id FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'MP404: dead letter % does not exist', dlq_id
            USING ERRCODE = 'MP404', HINT = 'retry=no. See the view mp_dlq.';
    END IF;
    -- Its delivery went without it (removed by hand, say): nobody goes on with the replay.
    IF letter.status = 'replaying' AND NOT EXISTS (
        SELECT FROM meal_planner.delivery d
         WHERE d.account = letter.account AND d.subscription = letter.subscription AND d.position = letter.position)
    THEN
        letter.status := 'dead';
    END IF;
    RETURN letter;
END
$$;
COMMENT ON FUNCTION meal_planner.lock_dead_letter(bigint) IS
'locks a dead letter; one whose replay nobody goes on with is returned as dead; MP404 when there is none';

-- A letter that was replayed so often without success is parked: it is dead, but
-- a redrive leaves it out.
CREATE FUNCTION meal_planner.max_replays(options jsonb) RETURNS int
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN jsonb_typeof($1 -> 'max_replays') = 'number' THEN least(($1 ->> 'max_replays')::numeric, 1000000)::int ELSE 5 END
$$;
COMMENT ON FUNCTION meal_planner.max_replays(jsonb) IS
'the option max_replays of a subscription: after so many replays a dead letter is parked; default 5';

CREATE FUNCTION meal_planner.replay_refusal(letter meal_planner.dead_letter, force boolean) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off -- by the keys
AS $$
    SELECT CASE
        WHEN s.name IS NULL THEN 'no_subscription'
        WHEN e.position IS NULL THEN 'event_gone'
        WHEN $2 THEN NULL
        -- Expired, also when it was purged; or somebody has emitted it again since.
        WHEN e.idempotency_key IS NOT NULL
             AND NOT EXISTS (SELECT FROM meal_planner.idempotency_key k
                              WHERE k.account = e.account AND k.scope = e.source AND k.key = e.idempotency_key
                                AND k.event_id = e.id AND k.expires_at > meal_planner.clock()) THEN 'key_expired'
        WHEN jsonb_typeof(s.options -> 'redrive_window') = 'number'
             AND extract(epoch FROM meal_planner.clock() - letter.first_failed_at) > (s.options ->> 'redrive_window')::numeric
        THEN 'window_over' END
      FROM (SELECT) one
      LEFT JOIN meal_planner.subscription s ON s.name = letter.subscription
      LEFT JOIN meal_planner.event e ON e.account = letter.account AND e.position = letter.position
$$;
COMMENT ON FUNCTION meal_planner.replay_refusal(meal_planner.dead_letter, boolean) IS
'why a dead letter must not be replayed: no_subscription, event_gone; and unless forced key_expired (the idempotency key of its event is no longer remembered) and window_over (the option redrive_window); NULL: it may be';

CREATE FUNCTION meal_planner.begin_replay(letter meal_planner.dead_letter, detail jsonb, attempt int) RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    INSERT INTO meal_planner.delivery
           (account, subscription, position, event_id, attempt, next_attempt_at, detail, order_key)
    VALUES (letter.account, letter.subscription, letter.position, letter.event_id, $3, meal_planner.clock(),
            coalesce($2, letter.corrected_detail),
            -- one that does not block its key has given its place in the order up
            letter.order_key)
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE meal_planner.dead_letter l
       SET status = 'replaying',
           replay_count = l.replay_count + 1,
           corrected_detail = coalesce($2, l.corrected_detail),
           refused = NULL
     WHERE l.account = letter.account AND l.id = letter.id;
    RETURN true;
END
$$;
COMMENT ON FUNCTION meal_planner.begin_replay(meal_planner.dead_letter, jsonb, int) IS
'makes a dead letter, which the caller has locked, a delivery that is due; false when it has one: it was sent here by hand while its retries go on';

CREATE FUNCTION @extschema@.mp_replay_dlq(dlq_id bigint, detail jsonb DEFAULT NULL, force boolean DEFAULT false) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    letter meal_planner.dead_letter;
    mode   text;
BEGIN
    IF jsonb_typeof($2) <> 'object' THEN
        RAISE EXCEPTION 'MP400: detail must be a JSON object'
            USING ERRCODE = 'MP400', HINT = 'retry=no. Correct the argument.';
    END IF;
    letter := meal_planner.lock_dead_letter($1);
    IF letter.status <> 'dead' THEN
        RETURN letter.status;
    END IF;
    CASE meal_planner.replay_refusal(letter, coalesce($3, false))
        WHEN 'no_subscription' THEN
            RAISE EXCEPTION 'MP409: dead letter % has no subscription to run', $1
                USING ERRCODE = 'MP409',
                      DETAIL = format('Its subscription is "%s".', letter.subscription),
                      HINT = 'retry=no. Handle it outside and call mp_discard_dlq.';
        WHEN 'event_gone' THEN
            RAISE EXCEPTION 'MP404: event % of dead letter % is no longer in the log', letter.event_id, $1
                USING ERRCODE = 'MP404', HINT = 'retry=no. Give it up with mp_discard_dlq.';
        WHEN 'key_expired' THEN
            RAISE EXCEPTION 'MP409: the idempotency key of the event of dead letter % has expired', $1
                USING ERRCODE = 'MP409',
                      DETAIL = 'It may have been emitted again since, and handled.',
                      HINT = 'retry=no. If it was not, replay it with force.';
        WHEN 'window_over' THEN
            RAISE EXCEPTION 'MP409: the redrive window of dead letter % is over', $1
                USING ERRCODE = 'MP409',
                      DETAIL = 'What its handler has remembered of earlier attempts may have expired.',
                      HINT = 'retry=no. If no attempt took effect, replay it with force.';
        ELSE NULL;
    END CASE;
    SELECT s.mode INTO mode FROM meal_planner.subscription s WHERE s.name = letter.subscription;
    -- A replay brings dead letters, too: a consumer that has this one, or is just
    -- claiming it, is not to meet another.
    IF mode = 'pull' THEN
        PERFORM meal_planner.order_lock(letter.account, letter.subscription);
        IF meal_planner.is_claimed(letter.account, letter.subscription, letter.position) THEN
            RETURN 'retry';
        END IF;
    END IF;
    -- a consumer's claim counts its attempt itself
    IF NOT meal_planner.begin_replay(letter, $2, CASE mode WHEN 'pull' THEN 0 ELSE 1 END) OR mode = 'pull' THEN
        RETURN 'retry';
    END IF;
    RETURN meal_planner.attempt_delivery(letter.account, letter.subscription, letter.position);
END
$$;
COMMENT ON FUNCTION @extschema@.mp_replay_dlq(bigint, jsonb, boolean) IS
'runs that one subscription again for that event, now, in this transaction, optionally with a corrected detail (the event keeps its own): done, retry (a transient error: the retry schedule goes on) or dead (reopened); the status of a letter that is not dead is returned and nothing is run. Callers at once run it once; one that is parked is run, too. Of a pull subscription the next claim gets it, from attempt 1 on: retry; so is the answer when a consumer holds the event already, by a replay (mp_replay), and then the letter stays dead. MP400, MP404 (also when the event is no longer in the log: discard it), MP409 when its subscription is gone; and, unless force is true, when the event had an idempotency key that has expired or the subscription''s redrive_window is over';

CREATE FUNCTION @extschema@.mp_discard_dlq(dlq_id bigint, reason text) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    letter meal_planner.dead_letter;
BEGIN
    IF coalesce($2, '') = '' THEN
        RAISE EXCEPTION 'MP400: reason must not be empty'
            USING ERRCODE = 'MP400', HINT = 'retry=no. Say why the event is given up.';
    END IF;
    letter := meal_planner.lock_dead_letter($1);
    IF letter.status <> 'dead' THEN
        RAISE EXCEPTION 'MP409: dead letter % is %', $1, letter.status
            USING ERRCODE = 'MP409', HINT = 'retry=no. Only a dead letter that is dead can be discarded.';
    END IF;
    UPDATE meal_planner.dead_letter l
       SET status = 'discarded', discard_reason = $2, settled_at = meal_planner.clock()
     WHERE l.account = letter.account AND l.id = letter.id;
    PERFORM meal_planner.release_key(letter.account, letter.subscription, letter.order_key);
END
$$;
COMMENT ON FUNCTION @extschema@.mp_discard_dlq(bigint, text) IS
'gives a dead letter up for good, with a reason; the row stays, and a key that it blocked goes on. MP400, MP404, MP409 unless it is dead';

CREATE VIEW @extschema@.mp_dlq AS
SELECT l.id, l.event_id, nullif(l.subscription, '') AS subscription, e.detail_type, l.error_type, l."sqlstate",
       l.error_message, l.retry_count,
       CASE WHEN l.status = 'dead' AND l.replay_count >= meal_planner.max_replays(s.options) THEN 'parked' ELSE l.status END AS status,
       l.first_failed_at, l.dead_at, l.replay_count,
       meal_planner.envelope(e) AS event,
       l.reason, l.account, l.error_detail, l.error_hint, l.error_context, l.corrected_detail,
       l.settled_at, l.discard_reason, l.refused,
       l.history #>> '{0,sqlstate}' AS first_sqlstate, l.history #>> '{0,message}' AS first_error_message,
       jsonb_array_length(l.history) AS attempts
  FROM meal_planner.dead_letter l
  LEFT JOIN meal_planner.event e ON e.account = l.account AND e.position = l.position
  LEFT JOIN meal_planner.subscription s ON s.name = l.subscription;
COMMENT ON VIEW @extschema@.mp_dlq IS
'dead letters with their events; parked: dead, and replayed so often (option max_replays) that a redrive leaves it out; refused: why the last redrive did. mp_replay_dlq(id), mp_redrive_dlq(filter), mp_discard_dlq(id, reason)';

CREATE VIEW @extschema@.mp_dlq_depth AS
SELECT nullif(l.subscription, '') AS subscription, l.error_type, count(*) AS depth, min(l.dead_at) AS oldest,
       count(*) FILTER (WHERE l.replay_count >= meal_planner.max_replays(s.options)) AS parked
  FROM meal_planner.dead_letter l
  LEFT JOIN meal_planner.subscription s ON s.name = l.subscription
 WHERE l.status = 'dead'
 GROUP BY l.subscription, l.error_type;
COMMENT ON VIEW @extschema@.mp_dlq_depth IS 'dead letters that wait for somebody, by subscription and error type; parked: those of them that a redrive leaves out';
