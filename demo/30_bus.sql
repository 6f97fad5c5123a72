-- What the bus did meanwhile.
\pset footer off

\echo Events by type
SELECT e.detail_type AS "event", count(*) AS "events",
       to_char(max(e.time), 'HH24:MI:SS') AS "last at"
  FROM meal_planner.event e
 GROUP BY e.detail_type
 ORDER BY min(e.position);

\echo Handlers (each runs in a subtransaction of the emitter)
SELECT h.subscription, h.calls, h.failures,
       round(h.p50_ms::numeric, 2) AS "p50 ms",
       round(h.p95_ms::numeric, 2) AS "p95 ms",
       round(h.p99_ms::numeric, 2) AS "p99 ms"
  FROM mp_handler_stats h
 ORDER BY h.calls DESC, h.subscription;

\echo Left over: deliveries that wait for a retry, dead letters
SELECT coalesce(sum(s.retrying), 0) AS "retrying", coalesce(sum(s.dead), 0) AS "dead"
  FROM mp_subscriptions s;
