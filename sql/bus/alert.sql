-- Alerts: what waits for a person.  Every time something is given up there is
-- one row, and a storm of the same error is shown as one alert, which counts
-- its rows.  Nothing is counted up, and nobody looks for a row that another
-- transaction may have made: whoever fails at the same moment writes the same
-- storm by itself.  So failing backends never wait for each other here.
--
-- An alert is a row and a NOTIFY, and nothing of the bus runs on either: no
-- event, no handler, hence no alert about an alert.

CREATE TABLE meal_planner.alert (
    account        text        NOT NULL,
    id             bigint      NOT NULL,
    kind           text        NOT NULL CHECK (kind IN ('dead_letter', 'paused', 'redrive_paused', 'saga', 'idempotency_ttl')),
    subscription   text        NOT NULL,
    error          text        NOT NULL,
    since          timestamptz NOT NULL,
    dead_letter_id bigint,
    message        text        NOT NULL,
    raised_at      timestamptz NOT NULL,
    saga_id        uuid,
    PRIMARY KEY (account, id)
);
COMMENT ON TABLE meal_planner.alert IS
'one row for every time a delivery was given up (kind dead_letter) or a subscription was paused because its handler cannot run (kind paused) or a redrive because its canary failed (kind redrive_paused), or a step of a saga was parked or cannot run (kind saga), or keys of events are forgotten earlier than a subscription may be redriven (kind idempotency_ttl); rows that differ in nothing but the message are one storm, which mp_alerts shows as one alert';
COMMENT ON COLUMN meal_planner.alert.subscription IS 'empty for a dead letter sent without one; of kind saga: the name of the saga';
COMMENT ON COLUMN meal_planner.alert.error IS 'the SQLSTATE; where there is none, why the delivery was given up';
COMMENT ON COLUMN meal_planner.alert.since IS
'when the storm began to count: the start of a stretch of meal_planner.alert_window, or an acknowledgement within it';
CREATE INDEX alert_storm ON meal_planner.alert (account, kind, subscription, error, since);
CREATE INDEX alert_letter ON meal_planner.alert (account, dead_letter_id) WHERE dead_letter_id IS NOT NULL;
CREATE INDEX alert_saga ON meal_planner.alert (account, saga_id) WHERE saga_id IS NOT NULL;
CREATE INDEX alert_other ON meal_planner.alert (raised_at) WHERE dead_letter_id IS NULL AND saga_id IS NULL;
SELECT pg_extension_config_dump('meal_planner.alert', '');

CREATE TABLE meal_planner.acknowledgement (
    account      text        NOT NULL,
    kind         text        NOT NULL,
    subscription text        NOT NULL,
    error        text        NOT NULL,
    since        timestamptz NOT NULL,
    entries      bigint      NOT NULL,
    at           timestamptz NOT NULL,
    by_role      text        NOT NULL,
    reason       text,
    PRIMARY KEY (account, kind, subscription, error, since)
);
COMMENT ON TABLE meal_planner.acknowledgement IS 'alerts that somebody has seen, with mp_acknowledge_alert';
COMMENT ON COLUMN meal_planner.acknowledgement.entries IS
'how many there were; when there are more, one was being written at that moment, and nobody has seen it';
CREATE INDEX acknowledgement_at ON meal_planner.acknowledgement (at);
SELECT pg_extension_config_dump('meal_planner.acknowledgement', '');

CREATE FUNCTION meal_planner.raise_alert(
    account text, id bigint, kind text, subscription text, error text, message text, dead_letter_id bigint DEFAULT NULL,
    saga_id uuid DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    moment timestamptz := meal_planner.clock();
    start  timestamptz := moment;
    known  boolean := false;
BEGIN
    -- A pause comes once: somebody has resumed since the last one.
    IF $3 IN ('dead_letter', 'saga') THEN
        start := date_bin(current_setting('meal_planner.alert_window')::interval, moment, '2000-01-01 00:00:00Z');
        SELECT greatest(start, max(k.at)) INTO start
          FROM meal_planner.acknowledgement k
         WHERE k.account = $1 AND k.kind = $3 AND k.subscription = $4 AND k.error = $5 AND k.since >= start;
        known := EXISTS (SELECT FROM meal_planner.alert a
                          WHERE a.account = $1 AND a.kind = $3 AND a.subscription = $4 AND a.error = $5
                            AND a.since = start);
    END IF;
    INSERT INTO meal_planner.alert
           (account, id, kind, subscription, error, since, dead_letter_id, message, raised_at, saga_id)
    VALUES ($1, $2, $3, $4, $5, start, $7, $6, moment, $8);
    IF NOT known THEN
        -- The same payload each time: the server sends it once per transaction.
        PERFORM pg_notify('mp_alert', '');
    END IF;
END
$$;
COMMENT ON FUNCTION meal_planner.raise_alert(text, bigint, text, text, text, text, bigint, uuid) IS
'one entry of an alert; NOTIFY mp_alert when it is the first that can be seen';

CREATE FUNCTION @extschema@.mp_acknowledge_alert(id bigint, reason text DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    storm meal_planner.alert;
    seen  bigint;
BEGIN
    SELECT * INTO storm FROM meal_planner.alert a WHERE a.id = $1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'MP404: alert % does not exist', $1
            USING ERRCODE = 'MP404', HINT = 'retry=no. See the view mp_alerts.';
    END IF;
    SELECT count(*) INTO seen
      FROM meal_planner.alert a
     WHERE a.account = storm.account AND a.kind = storm.kind AND a.subscription = storm.subscription
       AND a.error = storm.error AND a.since = storm.since;
    INSERT INTO meal_planner.acknowledgement AS k
           (account, kind, subscription, error, since, entries, at, by_role, reason)
    VALUES (storm.account, storm.kind, storm.subscription, storm.error, storm.since, seen,
            meal_planner.clock(), meal_planner.caller(), $2)
    ON CONFLICT (account, kind, subscription, error, since) DO UPDATE
       SET entries = excluded.entries, at = excluded.at, by_role = excluded.by_role, reason = excluded.reason
     WHERE k.entries < excluded.entries;
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION @extschema@.mp_acknowledge_alert(bigint, text) IS
'says that somebody has seen an alert and sees to it: the next such error is a new alert. The dead letters stay as they are. reason: a remark. False when all of it was acknowledged already. MP404';
