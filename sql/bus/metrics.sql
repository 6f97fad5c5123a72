CREATE FUNCTION meal_planner.handler_stats(
    OUT subscription text, OUT calls bigint, OUT failures bigint,
    OUT p50_ms float8, OUT p95_ms float8, OUT p99_ms float8)
RETURNS SETOF record
LANGUAGE c VOLATILE SECURITY DEFINER PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_handler_stats';
COMMENT ON FUNCTION meal_planner.handler_stats() IS 'what mp_handler_stats shows';

CREATE VIEW @extschema@.mp_handler_stats AS
SELECT h.subscription, h.calls, h.failures, h.p50_ms, h.p95_ms, h.p99_ms
  FROM meal_planner.handler_stats() h;
COMMENT ON VIEW @extschema@.mp_handler_stats IS
'handler calls of this database since the server started, kept in shared memory; a percentile is the upper end of its bucket (buckets grow by a quarter)';

CREATE VIEW @extschema@.mp_event_rates AS
SELECT e.account, e.detail_type, e.source, count(*) AS events_last_hour,
       count(*) FILTER (WHERE e.position >= meal_planner.position_at(meal_planner.clock() - interval '1 minute'))
           AS events_last_minute
  FROM meal_planner.event e
 WHERE e.position >= (SELECT meal_planner.position_at(meal_planner.clock() - interval '1 hour'))
 GROUP BY e.account, e.detail_type, e.source;
COMMENT ON VIEW @extschema@.mp_event_rates IS 'events of the last minute and hour by account, type and source';

CREATE VIEW @extschema@.mp_subscriptions AS
SELECT s.name, s.mode, s.handler, s.owner, s.pattern, s.options,
       cursors.cursor, cursors.lag_events, cursors.lag_seconds,
       coalesce(CASE s.mode WHEN 'pull' THEN claims.in_flight ELSE deliveries.in_flight END, 0) AS in_flight,
       coalesce(deliveries.retrying, 0) AS retrying,
       coalesce(deliveries.blocked, 0) AS blocked, coalesce(letters.dead, 0) AS dead,
       s.paused_at IS NOT NULL AS paused, s.paused_at, s.paused_reason,
       EXISTS (SELECT FROM meal_planner.shipped_subscription h WHERE h.name = s.name) AS builtin,
       meal_planner.is_broken(s.name) AS broken
  FROM meal_planner.subscription s
  LEFT JOIN (
       SELECT d.subscription,
              count(*) FILTER (WHERE d.token IS NOT NULL) AS in_flight,
              count(*) FILTER (WHERE d.token IS NULL AND d.next_attempt_at < 'infinity') AS retrying,
              count(*) FILTER (WHERE d.next_attempt_at = 'infinity') AS blocked
         FROM meal_planner.delivery d
        GROUP BY d.subscription) deliveries ON deliveries.subscription = s.name
  LEFT JOIN (
       -- the first attempt of an event is no delivery
       SELECT c.subscription, sum(c.remaining)::bigint AS in_flight
         FROM meal_planner.consumer_claim c
        GROUP BY c.subscription) claims ON claims.subscription = s.name
  LEFT JOIN (
       SELECT l.subscription, count(*) AS dead
         FROM meal_planner.dead_letter l
        WHERE l.status = 'dead'
        GROUP BY l.subscription) letters ON letters.subscription = s.name
  LEFT JOIN LATERAL (
       -- Counting stops where it only costs time: the log may be millions ahead.
       SELECT min(c.cursor) AS cursor,
              least(sum(behind.events), 10000)::bigint AS lag_events,
              extract(epoch FROM meal_planner.clock() - meal_planner.position_time(min(behind.first)))::float8
                  AS lag_seconds
         FROM (SELECT a.account, greatest(meal_planner.cursor_position(a.account, s.name), s.start_position) AS cursor
                 FROM meal_planner.accounts(s.start_position) a (account)) c
        CROSS JOIN LATERAL (
              SELECT count(*) AS events, min(p.position) AS first
                FROM (SELECT e.position FROM meal_planner.event e
                       WHERE e.account = c.account AND e.position > c.cursor
                       ORDER BY e.account, e.position
                       LIMIT 10000) p) behind
       ) cursors ON s.mode <> 'inline';
COMMENT ON VIEW @extschema@.mp_subscriptions IS
'subscriptions with the furthest-behind cursor, lag in events (10000: that many or more) and seconds (worker, pull), events in flight (held by consumers, or retried by a sweep right now), waiting (retrying: failed, delayed or paused) and blocked by their order, dead letters, why one is paused, and whether it is broken (its pattern or options are none)';
