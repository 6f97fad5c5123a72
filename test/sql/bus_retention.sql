-- Retention: old partitions go when everybody has passed them, whole, and nothing else changes.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS meal_planner CASCADE;
CREATE EXTENSION meal_planner;
RESET client_min_messages;
\set SHOW_CONTEXT never

-- Later than what other tests made of the position clock; the first moment of a partition.
SELECT 8640000 + ceil(greatest(0, extract(epoch FROM meal_planner.position_time(meal_planner.next_position()) - meal_planner.clock())))
       AS later \gset
SELECT :later + extract(epoch FROM upper_end - at) + 1 AS week0
  FROM (SELECT clock_timestamp() + make_interval(secs => :later) AS at) c,
       LATERAL (SELECT timestamptz '2024-01-01 UTC' + interval '7 days' * ceil(extract(epoch FROM at - timestamptz '2024-01-01 UTC') / 604800) AS upper_end) u \gset
SELECT :week0 + 604800 AS week1, :week0 + 2 * 604800 AS week2, :week0 + 5 * 604800 AS week5, :week0 + 30 * 604800 AS week30 \gset
CREATE VIEW log AS
SELECT count(*) AS events, array_agg(DISTINCT detail_type ORDER BY detail_type) AS types FROM meal_planner.event;
CREATE VIEW weeks AS
SELECT row_number() OVER (ORDER BY from_time) AS n, due, held_by FROM mp_partitions ORDER BY from_time;

-- What is refused.
SELECT mp_set_retention(0);
SELECT mp_set_retention(-1);
SELECT mp_set_retention('NaN');
SELECT mp_set_retention('Infinity');
SELECT mp_set_retention(1, 'alert');
SELECT * FROM meal_planner.retention;

-- Week 0: streams, a key, events of two accounts, one that will be dead; a worker and a pull subscription.
CREATE TABLE handled (detail_type text);
CREATE FUNCTION on_old(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF e.detail ? 'fail' AND NOT EXISTS (SELECT FROM public.handled WHERE detail_type = 'repaired') THEN
        RAISE EXCEPTION 'never' USING ERRCODE = 'MPP01';
    END IF;
    INSERT INTO public.handled VALUES (e.detail_type);
END $$;
SET meal_planner.clock_offset = :week0;
SET meal_planner.idempotency_ttl = '1000 d';
CALL mp_sweep();
SELECT mp_subscribe('worker', '{"source": [{"exists": true}]}', 'on_old(meal_planner.event)', 'worker');
SELECT mp_emit_event('A', '{}', stream => 'ends', idempotency_key => 'k') AS first \gset
SELECT mp_emit_event('A', '{}', stream => 'ends') IS NOT NULL AS emitted;
SELECT mp_emit_event('A', '{}', stream => 'goes on') IS NOT NULL AS emitted;
SELECT mp_emit_event('A', '{}', account => 'other', stream => 'ends') IS NOT NULL AS emitted;
SELECT count(mp_emit_event('A', '{}', stream => 'only put')) FROM generate_series(1, 3);
SELECT count(mp_emit_event('A', '{}')) FROM generate_series(1, 100);
SELECT mp_emit_event('Dead', '{"fail": true}', stream => 'dead') AS dead \gset
SELECT mp_emit_event('Dead', '{"fail": true, "n": 2}', account => 'other') AS dead2 \gset
-- Week 1: the worker has been paused meanwhile.
SET meal_planner.clock_offset = :week1;
SELECT mp_pause_subscription('worker', 'for a test');
CALL mp_sweep();
SELECT mp_emit_event('B', '{}', stream => 'goes on') IS NOT NULL AS emitted;
SELECT mp_emit_event('B', '{}', deliver_after => meal_planner.clock() + interval '25 weeks') AS delayed \gset
SET meal_planner.clock_offset = :week2;
CALL mp_sweep();
SELECT mp_emit_event('C', '{}') IS NOT NULL AS emitted;

-- For ever is the default.
SET meal_planner.clock_offset = :week5;
CALL mp_sweep();
SELECT * FROM log;
SELECT * FROM weeks;
-- A subscription that is paused holds what it has not got.
SELECT mp_set_retention(7);
SELECT * FROM meal_planner.retention;
CALL mp_sweep();
SELECT * FROM log;
SELECT * FROM weeks LIMIT 3;
SELECT mp_resume_subscription('worker');
CALL mp_sweep();
SELECT count(*) FROM handled;
SELECT subscription, status, account FROM mp_dlq ORDER BY account;

-- The next sweep drops what it may.  Of week 0 the events of the dead letters stay, in a partition of the same
-- bounds; week 1 is held by a delayed delivery.
SELECT partition, from_time AS from_0, to_time AS to_0 FROM mp_partitions ORDER BY from_time LIMIT 1 \gset first_
CALL mp_sweep();
SELECT * FROM log;
SELECT * FROM weeks;
SELECT partition = :'first_partition'::regclass AS same_table, partition::text = :'first_partition' AS same_name,
       from_time = :'first_from_0' AND to_time = :'first_to_0' AS same_bounds
  FROM mp_partitions ORDER BY from_time LIMIT 1;
SELECT replace(pg_get_indexdef(i.indexrelid), c.relname, 'PARTITION') AS index, i.indisprimary AS primary_key
  FROM pg_class c JOIN pg_index i ON i.indrelid = c.oid
 WHERE c.oid = :'first_partition'::regclass ORDER BY 2;
SELECT count(*) AS fire_dispatch FROM pg_trigger t JOIN meal_planner.event_partition p ON p.partition = t.tgrelid WHERE t.tgname = 'dispatch';
-- Nothing was handled again, and a sweep more finds nothing to do.
SELECT count(*) FROM handled;
SELECT partition = :'first_partition'::regclass AS same_table FROM mp_partitions ORDER BY from_time LIMIT 1;
SELECT :'first_partition'::regclass::oid AS table_oid \gset
CALL mp_sweep();
SELECT :'first_partition'::regclass::oid = :table_oid AS untouched;

-- A reader simply starts at the first event there is.
SELECT array_agg(event ->> 'detail-type') FROM mp_read_events();
SELECT count(*) FROM mp_read_stream('ends');
SELECT mp_event(:'first') IS NULL AS gone, mp_event(:'dead') ->> 'detail-type' AS kept;
-- An idempotency key still answers with the id of the event that is gone.
SELECT stream, dropped_version, account FROM meal_planner.stream ORDER BY stream, account;
SELECT mp_emit_event('A', '{}', stream => 'ends', idempotency_key => 'k') = :'first' AS first_id;
\set VERBOSITY sqlstate
SELECT mp_send_to_dlq(:'first', 'permanent', 'too late');
\set VERBOSITY default
-- Streams go on.
SELECT mp_emit_event('D', '{}', stream => 'ends', expected_version => 0);
SELECT mp_emit_event('D', '{}', stream => 'ends', expected_version => 2) IS NOT NULL AS emitted;
SELECT mp_emit_event('D', '{}', stream => 'ends', account => 'other') IS NOT NULL AS emitted;
SELECT mp_emit_event('D', '{}', stream => 'goes on') IS NOT NULL AS emitted;
SELECT mp_emit_event('D', '{}', stream => 'dead') IS NOT NULL AS emitted;
SELECT mp_put_events('[{"Source": "s", "DetailType": "D", "Detail": {}, "Stream": "ends"},
                       {"Source": "s", "DetailType": "D", "Detail": {}, "Stream": "put anew"},
                       {"Source": "s", "DetailType": "D", "Detail": {}, "Stream": "goes on"},
                       {"Source": "s", "DetailType": "D", "Detail": {}, "Stream": "ends"},
                       {"Source": "s", "DetailType": "D", "Detail": {}, "Stream": "only put"}]') ->> 'FailedEntryCount' AS failed;
SELECT account, stream, version FROM meal_planner.event WHERE detail_type = 'D' ORDER BY position;

-- The letters are settled one by one: a partition that holds one of them stays.
SELECT id AS letter FROM mp_dlq WHERE event_id = :'dead' \gset
SELECT id AS letter2 FROM mp_dlq WHERE event_id = :'dead2' \gset
SELECT mp_discard_dlq(:letter2, 'old');
CALL mp_sweep();
SELECT event_id = :'dead' AS the_dead_one, event IS NOT NULL AS has_event, status FROM mp_dlq ORDER BY id;
INSERT INTO handled VALUES ('repaired');
SELECT mp_replay_dlq(:letter);
CALL mp_sweep();
SELECT status, event IS NULL AS event_is_gone FROM mp_dlq ORDER BY id;
SELECT * FROM log;
SELECT mp_emit_event('E', '{}', stream => 'dead') IS NOT NULL AS emitted;
SELECT version FROM meal_planner.event WHERE detail_type = 'E';

-- Until the delayed one is delivered.
SELECT n, due, held_by FROM weeks LIMIT 1;
SET meal_planner.clock_offset = :week30;
CALL mp_sweep();
CALL mp_sweep();
SELECT * FROM log;

-- A pull subscription that nobody claims from holds the log; one that starts later does not, nor do inline ones.
SELECT mp_subscribe('pulled', '{"detail-type": ["F"]}', mode => 'pull', options => '{"start": "earliest"}');
SELECT mp_subscribe('pulled later', '{"detail-type": ["X"]}', mode => 'pull');
SELECT mp_subscribe('inline', '{"detail-type": ["X"]}', 'on_old(meal_planner.event)');
SELECT mp_emit_event('F', '{}') IS NOT NULL AS emitted;
SELECT :week30 + 3 * 604800 AS week33 \gset
SET meal_planner.clock_offset = :week33;
CALL mp_sweep();
SELECT held_by, count(*) FROM weeks WHERE due GROUP BY held_by ORDER BY held_by;
-- What a consumer has claimed is needed until it is acknowledged.
SELECT token, event ->> 'detail-type' AS type FROM mp_claim('pulled', lease_seconds => 3000) \gset
CALL mp_sweep();
SELECT held_by, count(*) FROM weeks WHERE due GROUP BY held_by ORDER BY held_by;
SELECT mp_ack(:'token');
SELECT mp_unsubscribe('worker');
CALL mp_sweep();
SELECT held_by, count(*) FROM weeks WHERE due GROUP BY held_by ORDER BY held_by;
SELECT mp_unsubscribe('pulled later'), mp_unsubscribe('pulled');
CALL mp_sweep();
SELECT * FROM log;

-- What cannot be dropped does not stop the sweep.
SELECT mp_emit_event('G', '{}') IS NOT NULL AS emitted;
SELECT partition AS used FROM mp_partitions WHERE from_time <= meal_planner.clock() AND meal_planner.clock() < to_time \gset
CREATE VIEW uses_it AS SELECT * FROM :used;
SELECT :week33 + 3 * 604800 AS week36 \gset
SET meal_planner.clock_offset = :week36;
SELECT mp_emit_event('Late', '{"fail": true}') IS NOT NULL AS emitted;
\set VERBOSITY terse
SELECT regexp_replace(:'used', '\d{8}_\d{6}', '...') AS used;
SET client_min_messages = error;
CALL mp_sweep();
RESET client_min_messages;
\set VERBOSITY default
SELECT * FROM log;
DROP VIEW uses_it;
CALL mp_sweep();
SELECT * FROM log;

-- For ever again.
SELECT mp_set_retention(NULL);
SELECT * FROM meal_planner.retention;
SELECT bool_or(due) AS due FROM mp_partitions;
-- Only a partition of the log is dropped.
SELECT meal_planner.drop_partition('handled'), meal_planner.drop_partition('meal_planner.event_default'), meal_planner.drop_partition('meal_planner.event');
SELECT meal_planner.partition_holder('handled');
-- No event was ever deleted.
SELECT coalesce(sum(n_tup_del), 0) AS deleted FROM pg_stat_all_tables WHERE schemaname = 'meal_planner' AND relname ~ '^event_2';

RESET meal_planner.clock_offset;
RESET meal_planner.idempotency_ttl;
DROP VIEW log, weeks;
DROP TABLE handled;
DROP FUNCTION on_old;
