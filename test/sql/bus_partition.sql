-- Partitions of the log: made ahead, never in each other's way, the default one empty.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS meal_planner CASCADE;
CREATE EXTENSION meal_planner;
RESET client_min_messages;

-- Later than what other tests made of the position clock.
SELECT 8640000 + ceil(greatest(0, extract(epoch FROM meal_planner.position_time(meal_planner.next_position()) - meal_planner.clock())))
       AS later \gset
SET meal_planner.clock_offset = :later;
SHOW meal_planner.partition_days;

-- The sweep makes the present partition and two ahead, of seven days each, without gaps.
SELECT count(*) FROM meal_planner.event_partition;
CALL mp_sweep();
CREATE VIEW stretch AS
SELECT row_number() OVER (ORDER BY lower) AS n,
       meal_planner.position_time(upper) - meal_planner.position_time(lower) AS span,
       lower = lag(upper) OVER (ORDER BY lower) AS adjoins,
       meal_planner.position_at(meal_planner.clock()) BETWEEN lower AND upper - 1 AS present
  FROM meal_planner.event_partition ORDER BY lower;
SELECT * FROM stretch;
CALL mp_sweep();
SELECT count(*) FROM meal_planner.event_partition;
-- Each has its own key, and one for streams.
SELECT p.n, replace(pg_get_indexdef(i.indexrelid), c.relname, 'PARTITION') AS index, i.indisprimary AS primary_key
  FROM (SELECT row_number() OVER (ORDER BY lower) AS n, partition FROM meal_planner.event_partition) p
  JOIN pg_class c ON c.oid = p.partition
  JOIN pg_index i ON i.indrelid = c.oid
 WHERE p.n = 1 ORDER BY 2;
SELECT bool_and(c.relname ~ '^event_\d{8}_\d{6}$') AS named_by_time, bool_and(c.relowner = o.relowner) AS owned, bool_and(c.relacl IS NULL) AS no_grants
  FROM meal_planner.event_partition p JOIN pg_class c ON c.oid = p.partition, pg_class o WHERE o.oid = 'meal_planner.event'::regclass;
SELECT count(*) AS fire_dispatch FROM pg_trigger t JOIN meal_planner.event_partition p ON p.partition = t.tgrelid WHERE t.tgname = 'dispatch';

-- Events go there; the default stays empty; uniqueness is the partition's.
SELECT count(mp_emit_event('E', jsonb_build_object('n', n))) FROM generate_series(1, 5) n;
SELECT count(*) AS in_default FROM meal_planner.event_default;
SELECT partition = (SELECT DISTINCT tableoid::regclass FROM meal_planner.event) AS in_the_present
  FROM meal_planner.event_partition ORDER BY lower LIMIT 1;
-- A week later the next one, made long before.
SELECT :later + 604800 AS later_still \gset
SET meal_planner.clock_offset = :later_still;
SELECT mp_emit_event('E', '{"n": 6}') IS NOT NULL AS emitted;
SELECT count(*) FROM meal_planner.event_partition;
SELECT count(DISTINCT tableoid) AS partitions FROM meal_planner.event;
SELECT array_agg((event -> 'detail' ->> 'n')::int) AS in_order FROM mp_read_events();
-- Without a sweep for long the emitter makes its own, and leaves the gap.
SELECT :later + 10000000 AS later_still \gset
SET meal_planner.clock_offset = :later_still;
SELECT mp_emit_event('E', '{"n": 7}') IS NOT NULL AS emitted;
SELECT n, span, adjoins, present FROM stretch;
SELECT count(*) AS in_default FROM meal_planner.event_default;
-- An aborted emitter leaves the partition that was made for it.
SELECT :later + 20000000 AS later_still \gset
SET meal_planner.clock_offset = :later_still;
BEGIN;
SELECT mp_emit_event('E', '{"n": 0}') IS NOT NULL AS emitted;
ROLLBACK;
SELECT count(*) FROM meal_planner.event_partition;
BEGIN;
SAVEPOINT s;
SELECT mp_emit_event('E', '{"n": 0}') IS NOT NULL AS emitted;
ROLLBACK TO s;
SELECT mp_emit_event('E', '{"n": 8}') IS NOT NULL AS emitted;
COMMIT;
SELECT count(*) FROM meal_planner.event_partition;
SELECT count(*) AS in_default FROM meal_planner.event_default;

-- It is made for an event of a handler as well, while the first event is being inserted.
CREATE FUNCTION on_ahead(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('meal_planner.clock_offset', (current_setting('meal_planner.clock_offset')::float8 + 5000000)::text, true);
    PERFORM mp_emit_event('Later', '{}', account => 'ahead');
END $$;
SELECT mp_subscribe('ahead', '{"detail-type": ["Ahead"]}', 'on_ahead(meal_planner.event)');
SELECT mp_emit_event('Ahead', '{}', account => 'ahead') IS NOT NULL AS emitted;
SELECT detail_type, tableoid = 'meal_planner.event_default'::regclass AS in_default
  FROM meal_planner.event WHERE account = 'ahead' ORDER BY position;
SELECT count(*) FROM meal_planner.event_partition;
SELECT mp_unsubscribe('ahead');

-- Not while this transaction reads the log, and would wait for itself: the default takes the row,
-- the order is kept, and the next sweep moves it out.
SELECT :later + 30000000 AS later_still \gset
SET meal_planner.clock_offset = :later_still;
CREATE FUNCTION on_cross(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('meal_planner.clock_offset', (current_setting('meal_planner.clock_offset')::float8 + 10000000)::text, true);
    PERFORM FROM mp_read_events();
    PERFORM mp_emit_event('Later', '{"n": 10}', stream => 's');
END $$;
SELECT mp_subscribe('cross', '{"detail-type": ["Cross"]}', 'on_cross(meal_planner.event)');
SELECT mp_emit_event('Cross', '{"n": 9}') IS NOT NULL AS emitted;
SELECT count(*) AS failed FROM mp_dlq;
SELECT detail_type FROM meal_planner.event_default;
SELECT array_agg((event -> 'detail' ->> 'n')::int) AS in_order FROM mp_read_events();
SELECT mp_event(id) ->> 'detail-type' AS found FROM meal_planner.event_default;
SELECT version FROM mp_read_stream('s');
-- It fires no handler when it is moved.
CREATE FUNCTION on_later(e meal_planner.event) RETURNS void LANGUAGE sql AS $$ SELECT 1 / 0 $$;
SELECT mp_subscribe('later', '{"detail-type": ["Later"]}', 'on_later(meal_planner.event)');
CALL mp_sweep();
SELECT count(*) AS in_default FROM meal_planner.event_default;
SELECT count(*) AS failed FROM mp_dlq;
SELECT array_agg((event -> 'detail' ->> 'n')::int) AS in_order FROM mp_read_events();
SELECT version FROM mp_read_stream('s');
-- The stream goes on where it was.
SELECT :later + 40000000 AS later_still \gset
SET meal_planner.clock_offset = :later_still;
SELECT mp_emit_event('More', '{"n": 11}', stream => 's', expected_version => 1) IS NOT NULL AS emitted;
SELECT array_agg(version) FROM mp_read_stream('s');
SELECT mp_unsubscribe('cross'), mp_unsubscribe('later');

-- Another length, from now on: it fits between what is there.
ALTER SYSTEM SET meal_planner.partition_days = 30;
SELECT pg_reload_conf();
-- A session reads the file between two statements.
SELECT pg_sleep(1);
SHOW meal_planner.partition_days;
CALL mp_sweep();
SELECT bool_and(lower >= coalesce(prior, 0)) AS none_overlap,
       count(*) FILTER (WHERE span > interval '7 days' AND span <= interval '30 days') AS longer,
       max(span) <= interval '30 days' AS at_most
  FROM (SELECT lower, lag(upper) OVER (ORDER BY lower) AS prior,
               meal_planner.position_time(upper) - meal_planner.position_time(lower) AS span
          FROM meal_planner.event_partition) p;
SELECT mp_emit_event('E', '{"n": 12}') IS NOT NULL AS emitted;
ALTER SYSTEM RESET meal_planner.partition_days;
SELECT pg_reload_conf();
-- A session reads the file between two statements.
SELECT pg_sleep(1);
-- Back to short ones: again they fit.
SELECT :later + 43000000 AS later_still \gset
SET meal_planner.clock_offset = :later_still;
CALL mp_sweep();
SELECT mp_emit_event('E', '{"n": 13}') IS NOT NULL AS emitted;
SELECT bool_and(lower >= coalesce(prior, 0)) AS none_overlap
  FROM (SELECT lower, lag(upper) OVER (ORDER BY lower) AS prior FROM meal_planner.event_partition) p;
SELECT count(*) AS in_default FROM meal_planner.event_default;
SELECT array_agg((event -> 'detail' ->> 'n')::int) AS in_order FROM mp_read_events();

-- Of a time and a place only once.
SELECT meal_planner.ensure_partition(lower), meal_planner.ensure_partition(upper - 1) FROM meal_planner.event_partition ORDER BY lower LIMIT 1;

-- The log as a whole stays readable and can lose its oldest partition.
SELECT format('DROP TABLE %s', partition) AS drop_oldest FROM meal_planner.event_partition ORDER BY lower LIMIT 1 \gset
:drop_oldest;
SELECT array_agg((event -> 'detail' ->> 'n')::int) AS in_order FROM mp_read_events();
SELECT mp_emit_event('E', '{"n": 14}') IS NOT NULL AS emitted;

RESET meal_planner.clock_offset;
DROP VIEW stretch;
DROP FUNCTION on_ahead, on_cross, on_later;

-- A batch that begins in the last partition and ends in one that is not there yet: a row that
-- comes from elsewhere sets the position clock 300 places before its end.
CREATE TABLE crossed (n int);
CREATE FUNCTION on_crossed(e meal_planner.event) RETURNS void LANGUAGE sql AS $$ INSERT INTO crossed VALUES ((e.detail ->> 'n')::int) $$;
SELECT mp_subscribe('crossed', '{"detail-type": ["Crossing"]}', 'on_crossed(meal_planner.event)');
SELECT max(upper) AS edge, max(upper) - (300 << 10) AS before_edge, count(*) AS partitions FROM meal_planner.event_partition \gset
INSERT INTO meal_planner.event (account, position, id, detail_type, source, time, region, resources, detail, hops)
VALUES ('restored', :before_edge, gen_random_uuid(), 'Restored', 's', now(), 'r', '{}', '{}', 0);
SELECT mp_put_events((SELECT jsonb_agg(jsonb_build_object('Source', 's', 'DetailType', 'Crossing', 'Detail', jsonb_build_object('n', n), 'Stream', 'crossing') ORDER BY n)
                        FROM generate_series(1, 1000) n), 'crossing') -> 'FailedEntryCount' AS failed;
SELECT count(*) FILTER (WHERE position < :edge) AS before_edge, count(*) FILTER (WHERE position >= :edge) AS behind_it,
       count(DISTINCT tableoid) AS partitions, bool_and(version = (detail ->> 'n')::bigint) AS in_order
  FROM meal_planner.event WHERE account = 'crossing';
SELECT count(*) - :partitions AS made FROM meal_planner.event_partition;
SELECT meal_planner.sweep_maintain();
SELECT count(*) AS in_default FROM meal_planner.event_default;
SELECT count(*) AS handled FROM crossed;
SELECT mp_unsubscribe('crossed');
DROP FUNCTION on_crossed;
DROP TABLE crossed;
