-- Streams: versions without gaps, optimistic concurrency, reading in order.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS meal_planner CASCADE;
CREATE EXTENSION meal_planner;
RESET client_min_messages;

CREATE FUNCTION emit(n int, expected bigint DEFAULT NULL, stream text DEFAULT 'plan/1', account text DEFAULT 'local')
RETURNS boolean LANGUAGE sql AS $$
    SELECT mp_emit_event('Changed', jsonb_build_object('n', n), stream => stream,
                         expected_version => expected, account => account) IS NOT NULL
$$;

-- 0 is a stream that does not exist yet, NULL any version.
SELECT emit(1, 0), emit(2, 1), emit(3), emit(4, 3);
SELECT version, event -> 'detail' ->> 'n' AS n FROM mp_read_stream('plan/1');

-- The loser is told the actual version.
SELECT emit(5, 0);
SELECT emit(5, 3);
\echo :LAST_ERROR_SQLSTATE
SELECT emit(5, 5);
SELECT emit(1, 1, 'plan/2');

-- Neither a conflict nor an abort leaves a gap.
BEGIN;
SELECT emit(5, 4), emit(6, 5);
ROLLBACK;
BEGIN;
SELECT emit(5, 4);
SAVEPOINT s;
SELECT emit(6);
ROLLBACK TO s;
SELECT emit(7, 5);
COMMIT;
SELECT array_agg(version ORDER BY position) AS versions, array_agg((event -> 'detail' ->> 'n')::int ORDER BY version) AS n
  FROM mp_read_stream('plan/1');

-- A conflict writes nothing: no event, no key, no stream.
SELECT mp_emit_event('Changed', '{}', stream => 'plan/3', expected_version => 7, idempotency_key => 'k');
SELECT count(*) FROM meal_planner.idempotency_key;
SELECT count(*) FROM meal_planner.stream WHERE stream = 'plan/3';

-- Streams of the same name in two accounts, and two streams of one account, are apart.
SELECT emit(1, 0, 'plan/1', 'smith'), emit(1, 0, 'plan/2'), emit(2, 1, 'plan/1', 'smith');
SELECT account, stream, array_agg(version ORDER BY position) AS versions
  FROM meal_planner.event GROUP BY account, stream ORDER BY account, stream;
-- Their rows exist to be locked: one each, never updated.
SELECT account, stream FROM meal_planner.stream ORDER BY account, stream;

-- Reading: from a version, at most so many; NULL is the default.
SELECT array_agg(version) FROM mp_read_stream('plan/1', 3, 2);
SELECT array_agg(version) FROM mp_read_stream('plan/1', NULL, NULL, NULL);
SELECT array_agg(version) FROM mp_read_stream('plan/1', from_version => -1, max_events => 1);
SELECT count(*) AS none FROM mp_read_stream('plan/1', 7);
SELECT count(*) AS none FROM mp_read_stream('plan/1', max_events => 0);
SELECT count(*) AS none FROM mp_read_stream('plan/1', max_events => -1);
SELECT count(*) AS none FROM mp_read_stream('plan/9');
SELECT array_agg(version) FROM mp_read_stream('plan/1', account => 'smith');
SELECT bool_and(r.event = mp_event(e.id) AND r.position = e.position) AS envelopes
  FROM mp_read_stream('plan/1') r JOIN meal_planner.event e ON e.account = 'local' AND e.position = r.position;
-- A transaction reads its own stream.
BEGIN;
SELECT emit(8, 6);
SELECT max(version) FROM mp_read_stream('plan/1');
ROLLBACK;

-- What lies in two partitions is one stream.
SELECT 864000 + greatest(0, extract(epoch FROM meal_planner.position_time(meal_planner.next_position()) - meal_planner.clock()))
       AS ten_days \gset
SET meal_planner.clock_offset = :ten_days;
SELECT emit(8, 6);
RESET meal_planner.clock_offset;
SELECT emit(9, 7);
SELECT count(DISTINCT tableoid) AS partitions, array_agg(version ORDER BY version) AS versions
  FROM meal_planner.event WHERE account = 'local' AND stream = 'plan/1';
SELECT array_agg(version) FROM mp_read_stream('plan/1', 5);

DROP FUNCTION emit;
