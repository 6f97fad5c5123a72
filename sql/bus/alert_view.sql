-- What operators see of alerts; here, since it looks at sagas.

CREATE VIEW @extschema@.mp_alerts AS
SELECT a.id, a.raised_at, a.kind, a.account, nullif(a.subscription, '') AS subscription, a.message, a.dead_letter_id,
       l.event_id, l.status AS dead_letter_status,
       a.error, storm.entries, storm.last_at, storm.waiting, k.at AS acknowledged_at, k.by_role AS acknowledged_by,
       k.reason AS acknowledged_reason, a.saga_id
  FROM (SELECT e.account, e.kind, e.subscription, e.error, e.since,
               min(e.id) AS id, count(*) AS entries, max(e.raised_at) AS last_at,
               -- a letter that died twice waits for its last entry
               count(*) FILTER (WHERE d.status = 'dead' AND d.alert_id = e.id)
               -- several steps of a saga may be parked
               + count(DISTINCT g.id) FILTER (WHERE g.state = 'stuck') AS waiting
          FROM meal_planner.alert e
          LEFT JOIN meal_planner.dead_letter d ON d.account = e.account AND d.id = e.dead_letter_id
          LEFT JOIN meal_planner.saga g ON g.account = e.account AND g.id = e.saga_id
         GROUP BY e.account, e.kind, e.subscription, e.error, e.since) storm
  JOIN meal_planner.alert a ON a.account = storm.account AND a.id = storm.id
  LEFT JOIN meal_planner.dead_letter l ON l.account = a.account AND l.id = a.dead_letter_id
  LEFT JOIN meal_planner.acknowledgement k
    ON k.account = storm.account AND k.kind = storm.kind AND k.subscription = storm.subscription
       AND k.error = storm.error AND k.since = storm.since
       AND k.entries >= storm.entries;
COMMENT ON VIEW @extschema@.mp_alerts IS
'alerts, the same error of a subscription within meal_planner.alert_window as one: its first entry with what has become of that dead letter, how many entries it has, when the last came, how many of its dead letters still wait or of its sagas are stuck, and who has acknowledged it; mp_acknowledge_alert(id, reason)';
