-- Alerts: a storm of the same error is one, with a count; what begins a new one; nothing is lost.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS meal_planner CASCADE;
CREATE EXTENSION meal_planner;
RESET client_min_messages;
\set SHOW_CONTEXT never

-- The middle of a window, so that this does not run across the end of one.
SELECT extract(epoch FROM date_bin('1 hour', meal_planner.clock(), '2000-01-01Z') + interval '90 min' - meal_planner.clock()) AS middle \gset
SET meal_planner.clock_offset = :middle;

CREATE FUNCTION on_order(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF e.detail ? 'code' THEN
        RAISE EXCEPTION 'order %', e.detail ->> 'n' USING ERRCODE = e.detail ->> 'code';
    END IF;
END $$;
CREATE FUNCTION emit_orders(low int, high int, code text, account text DEFAULT 'local') RETURNS bigint LANGUAGE sql
AS $$ SELECT count(mp_emit_event('Order', jsonb_build_object('n', n, 'code', code), account => emit_orders.account)) FROM generate_series(low, high) n $$;
SELECT mp_subscribe('orders', '{"detail-type": ["Order"]}', 'on_order(meal_planner.event)');
CREATE VIEW alert AS
SELECT kind, account, subscription, error, message, entries, waiting, last_at >= raised_at AS in_time,
       dead_letter_status AS status, acknowledged_at IS NOT NULL AS acknowledged
  FROM mp_alerts ORDER BY id;
-- Each time that a letter died is in exactly one alert.
CREATE VIEW wrong AS
SELECT 'letter without its entry' AS what, l.id FROM meal_planner.dead_letter l
  LEFT JOIN meal_planner.alert a ON a.account = l.account AND a.id = l.alert_id AND a.dead_letter_id = l.id
 WHERE l.status = 'dead' AND l.reason <> 'sent' AND a.id IS NULL
 UNION ALL
SELECT 'entries are not those of the alerts', 0
 WHERE (SELECT sum(a.entries) FROM mp_alerts a) <> (SELECT count(*) FROM meal_planner.alert);

-- The same error of one subscription in one account is one alert; its example is the first.
SELECT emit_orders(1, 3, '22012');
SELECT * FROM alert;
SELECT emit_orders(4, 5, '23505'), emit_orders(6, 6, '22012', 'smith'), emit_orders(7, 8, '22012');
SELECT mp_subscribe('other', '{"detail-type": ["Order"]}', 'on_order(meal_planner.event)');
SELECT emit_orders(9, 9, '22012');
SELECT * FROM alert;
SELECT * FROM wrong;
SELECT mp_unsubscribe('other');

-- Acknowledged: the next one is a new alert.  The letters stay.
SELECT id AS alert FROM mp_alerts WHERE subscription = 'orders' AND account = 'local' AND error = '22012' \gset
CREATE ROLE regress_operator;
SELECT mp_grant('regress_operator', 'operator');
SET ROLE regress_operator;
SELECT mp_acknowledge_alert(:alert, 'the cook knows');
SELECT mp_acknowledge_alert(:alert);
RESET ROLE;
DROP OWNED BY regress_operator;
DROP ROLE regress_operator;
SELECT entries, waiting, acknowledged_by, acknowledged_reason FROM mp_alerts WHERE id = :alert;
SELECT emit_orders(10, 11, '22012');
SELECT entries, waiting, acknowledged_at IS NOT NULL AS acknowledged FROM mp_alerts
 WHERE subscription = 'orders' AND account = 'local' AND error = '22012' ORDER BY id;
-- By any of its entries.
SELECT mp_acknowledge_alert(max(id)) FROM meal_planner.alert WHERE subscription = 'orders' AND account = 'local' AND error = '22012';
SELECT emit_orders(12, 12, '22012');
SELECT entries, waiting, acknowledged_at IS NOT NULL AS acknowledged FROM mp_alerts
 WHERE subscription = 'orders' AND account = 'local' AND error = '22012' ORDER BY id;
SELECT * FROM wrong;
-- Which does not touch another's.
SELECT count(*) FROM mp_alerts WHERE acknowledged_at IS NULL AND (subscription <> 'orders' OR account <> 'local' OR error <> '22012');
SELECT mp_acknowledge_alert(-1);
SELECT mp_acknowledge_alert(NULL);

-- One that was being written when it was acknowledged is not seen: the alert is open again, until it is acknowledged once more.
INSERT INTO meal_planner.alert
SELECT a.account, meal_planner.next_position(), a.kind, a.subscription, a.error, a.since, NULL, 'late', meal_planner.clock()
  FROM meal_planner.alert a WHERE a.id = :alert;
SELECT entries, acknowledged_at IS NOT NULL AS acknowledged FROM mp_alerts WHERE id = :alert;
SELECT mp_acknowledge_alert(:alert, 'that one too');
SELECT entries, acknowledged_by = session_user AS by_me, acknowledged_reason FROM mp_alerts WHERE id = :alert;
DELETE FROM meal_planner.alert WHERE message = 'late';

-- An hour later: a new alert, although nobody has acknowledged the last.
SELECT emit_orders(13, 13, '23505');
SELECT :middle + 3600 AS next \gset
SET meal_planner.clock_offset = :next;
SELECT emit_orders(14, 15, '23505');
SELECT entries, waiting, acknowledged_at IS NOT NULL AS acknowledged FROM mp_alerts WHERE error = '23505' ORDER BY id;
SELECT * FROM wrong;

-- Dead again after a replay: once more in an alert; the letter waits once.
SELECT max(id) AS letter FROM mp_dlq WHERE sqlstate = '23505' \gset
SELECT mp_replay_dlq(:letter);
SELECT entries, waiting FROM mp_alerts WHERE error = '23505' ORDER BY id;
SELECT alert_id = (SELECT max(id) FROM meal_planner.alert) AS the_last_one FROM meal_planner.dead_letter WHERE id = :letter;
SELECT mp_discard_dlq(:letter, 'no use');
SELECT entries, waiting FROM mp_alerts WHERE error = '23505' ORDER BY id;
SELECT * FROM wrong;

-- Without SQLSTATE: by the reason.
SELECT mp_subscribe('mailer', '{"detail-type": ["Mail"]}', mode => 'pull', options => '{"max_attempts": 1}');
SELECT count(mp_emit_event('Mail', jsonb_build_object('n', n))) FROM generate_series(1, 3) n;
SELECT mp_fail(token, event_id, CASE attempt WHEN 1 THEN CASE (event #>> '{detail,n}')::int WHEN 3 THEN 'transient' ELSE 'permanent' END END,
               'mailbox ' || (event #>> '{detail,n}')) FROM mp_claim('mailer');
SELECT error, message, entries, waiting FROM mp_alerts WHERE subscription = 'mailer' ORDER BY id;
-- Sent by hand: permanent is an alert, transient none.
SELECT mp_emit_event('Letter', '{}') AS event_id \gset
SELECT mp_send_to_dlq(:'event_id', 'transient', 'busy') IS NOT NULL AS sent;
SELECT count(*) FROM mp_alerts WHERE subscription IS NULL;
SELECT mp_send_to_dlq(:'event_id', 'permanent', 'gone') IS NOT NULL AS sent;
SELECT error, message, entries FROM mp_alerts WHERE subscription IS NULL;
SELECT mp_acknowledge_alert(id) FROM mp_alerts WHERE subscription IS NULL;
SELECT * FROM wrong;

-- A pause is an alert each time: somebody has resumed since the last.
CREATE FUNCTION on_missing(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN INSERT INTO nowhere VALUES (1); END $$;
SELECT mp_subscribe('missing', '{"detail-type": ["Missing"]}', 'on_missing(meal_planner.event)');
SELECT mp_emit_event('Missing', '{}') IS NOT NULL AS emitted;
SELECT mp_resume_subscription('missing');
SELECT mp_emit_event('Missing', '{}') IS NOT NULL AS emitted;
SELECT kind, subscription, error, entries, waiting FROM mp_alerts WHERE kind = 'paused' ORDER BY id;
SELECT mp_acknowledge_alert(min(id)) FROM mp_alerts WHERE kind = 'paused';
SELECT acknowledged_at IS NOT NULL AS acknowledged FROM mp_alerts WHERE kind = 'paused' ORDER BY id;

-- Nothing of the bus runs on an alert: the log has no event of it, whatever subscription there is.
CREATE FUNCTION on_any(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'fails, too'; END $$;
SELECT mp_subscribe('any', '{"source": [{"prefix": ""}]}', 'on_any(meal_planner.event)');
SELECT count(*) AS events FROM meal_planner.event \gset
SELECT emit_orders(16, 16, '22012');
CALL mp_sweep();
SELECT count(*) - :events AS events FROM meal_planner.event;
SELECT entries FROM mp_alerts WHERE subscription = 'any';
SELECT mp_unsubscribe('any');
SELECT * FROM wrong;

-- Old ones go with their letters, and acknowledgements with what they are about.
SELECT count(*) > 2 AS acknowledged FROM meal_planner.acknowledgement;
SELECT count(mp_discard_dlq(id, 'all of it')::text) AS discarded FROM mp_dlq WHERE status = 'dead' AND account = 'smith';
SELECT :middle + 91 * 86400 AS months_later \gset
SET meal_planner.clock_offset = :months_later;
CALL mp_sweep();
SELECT count(*) AS alerts FROM mp_alerts WHERE account = 'smith' OR kind = 'paused';
SELECT count(*) AS waiting, count(*) FILTER (WHERE alert_id IS NULL) AS without FROM mp_dlq l JOIN meal_planner.dead_letter d USING (id) WHERE l.status = 'dead';
SELECT count(*) AS useless FROM meal_planner.acknowledgement k
 WHERE NOT EXISTS (SELECT FROM meal_planner.alert a WHERE (a.account, a.kind, a.subscription, a.error, a.since) = (k.account, k.kind, k.subscription, k.error, k.since));
SELECT * FROM wrong;
RESET meal_planner.clock_offset;

DROP VIEW alert, wrong;
SELECT mp_unsubscribe(name, 'discard') FROM mp_subscriptions WHERE NOT builtin;
DROP FUNCTION on_order, emit_orders, on_missing, on_any;
