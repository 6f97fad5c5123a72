-- Idempotency keys of mp_emit_event.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS meal_planner CASCADE;
CREATE EXTENSION meal_planner;
RESET client_min_messages;
\set SHOW_CONTEXT never

CREATE TABLE seen (n text);
CREATE FUNCTION on_order(e meal_planner.event) RETURNS void LANGUAGE sql
AS $$ INSERT INTO seen VALUES (e.detail ->> 'n') $$;
SELECT mp_subscribe('orders', '{"detail-type": ["Order"]}', 'on_order(meal_planner.event)');

-- The same key and content: the first id, nothing written, no handler run.
SELECT mp_emit_event('Order', '{"n": 1, "x": [1, 2]}', idempotency_key => 'k') AS id \gset first_
SELECT mp_emit_event('Order', '{"x": [1, 2],   "n": 1}', idempotency_key => 'k') = :'first_id' AS same;
SELECT mp_emit_event('Order', '{"n": 1, "x": [1, 2]}', idempotency_key => 'k', region => 'elsewhere') = :'first_id' AS same;
SELECT count(*) FROM meal_planner.event;
SELECT * FROM seen;
-- In the same transaction, and behind a savepoint that is rolled back.
BEGIN;
SELECT mp_emit_event('Order', '{"n": 2}', idempotency_key => 'k2') AS id \gset second_
SELECT mp_emit_event('Order', '{"n": 2}', idempotency_key => 'k2') = :'second_id' AS same;
SAVEPOINT s;
SELECT mp_emit_event('Order', '{"n": 3}', idempotency_key => 'k3') AS id \gset lost_
ROLLBACK TO s;
SELECT mp_emit_event('Order', '{"n": 3}', idempotency_key => 'k3') <> :'lost_id' AS anew;
COMMIT;
SELECT * FROM seen;

-- Other content under the same key.
SELECT mp_emit_event('Order', '{"n": 1}', idempotency_key => 'k');
\echo :LAST_ERROR_SQLSTATE
SELECT mp_emit_event('Cancel', '{"n": 1, "x": [1, 2]}', idempotency_key => 'k');
SELECT mp_emit_event('Order', '{"n": 1, "x": [1, 2]}', idempotency_key => 'k', resources => '{a}');
SELECT mp_emit_event('Order', '{"n": 1, "x": [1, 2]}', idempotency_key => 'k', stream => 's');
SELECT mp_emit_event('Order', '{"n": 1, "x": [1, 2]}', idempotency_key => 'k', event_time => '2026-01-01');
-- Parts cannot flow together.
SELECT mp_emit_event('Order', '{}', idempotency_key => 'k4', resources => '{ab,c}') IS NOT NULL AS emitted;
SELECT mp_emit_event('Order', '{}', idempotency_key => 'k4', resources => '{a,bc}');

-- A key belongs to its account and its source.
SELECT count(DISTINCT id) AS ids FROM (VALUES
    (:'first_id'),
    (mp_emit_event('Order', '{"n": 1, "x": [1, 2]}', idempotency_key => 'k', account => 'smith')),
    (mp_emit_event('Order', '{"n": 1, "x": [1, 2]}', idempotency_key => 'k', source => 'tablet')),
    (mp_emit_event('Order', '{"n": 1, "x": [1, 2]}', idempotency_key => 'k', source => 'tablet', account => 'smith'))
  ) AS t (id);
SELECT account, scope, count(*) FROM meal_planner.idempotency_key GROUP BY 1, 2 ORDER BY 1, 2;

-- Without a key nothing is a duplicate.
SELECT mp_emit_event('Order', '{}') <> mp_emit_event('Order', '{}') AS two_events;

-- A stream: the duplicate is recognised before the version is looked at.
SELECT mp_emit_event('Step', '{}', idempotency_key => 'v', stream => 's', expected_version => 0) AS id \gset step_
SELECT mp_emit_event('Step', '{}', idempotency_key => 'v', stream => 's', expected_version => 0) = :'step_id' AS same;
SELECT count(*) FROM mp_read_stream('s');

-- A key is forgotten with its transaction.
BEGIN;
SELECT mp_emit_event('Order', '{"n": "aborted"}', idempotency_key => 'k5') AS id \gset aborted_
ROLLBACK;
SELECT mp_emit_event('Order', '{"n": "other"}', idempotency_key => 'k5') <> :'aborted_id' AS anew;

-- Expiry: until its end a key counts, after it no more, purged or not.
SET meal_planner.idempotency_ttl = 600;
SELECT mp_emit_event('Brief', '{}', idempotency_key => 'brief') AS id \gset brief_
SET meal_planner.clock_offset = 300;
SELECT mp_emit_event('Brief', '{}', idempotency_key => 'brief') = :'brief_id' AS same;
SET meal_planner.clock_offset = 601;
SELECT mp_emit_event('Brief', '{"other": true}', idempotency_key => 'brief') AS id \gset brief2_
SELECT :'brief_id' <> :'brief2_id' AS anew;
SELECT mp_emit_event('Brief', '{"other": true}', idempotency_key => 'brief') = :'brief2_id' AS same;
RESET meal_planner.clock_offset;
RESET meal_planner.idempotency_ttl;

-- Duplicates ran no handler.
SELECT n, count(*) FROM seen GROUP BY n ORDER BY n;

-- Purging: every answer stays the same, and what has expired goes, the files with it.
TRUNCATE meal_planner.idempotency_key;
SET meal_planner.idempotency_ttl = 600;
CREATE TABLE kept (key text, id uuid, since int);
DO $$
DECLARE
    k       kept;
    again   uuid;
    emptied int := 0;
BEGIN
    FOR moment IN 0 .. 4000 BY 130 LOOP
        PERFORM set_config('meal_planner.clock_offset', moment::text, false);
        emptied := emptied + meal_planner.sweep_purge()::int;
        FOR k IN SELECT * FROM kept LOOP
            again := mp_emit_event('Kept', '{}', idempotency_key => k.key);
            IF (again = k.id) <> (moment < k.since + 600) THEN
                RAISE WARNING 'at %: % of % is %', moment, k.key, k.since, again = k.id;
            END IF;
            UPDATE kept SET id = again, since = moment WHERE key = k.key AND id <> again;
        END LOOP;
        INSERT INTO kept VALUES ('at ' || moment, mp_emit_event('Kept', '{}', idempotency_key => 'at ' || moment), moment);
    END LOOP;
    RAISE NOTICE 'emptied again and again: %', emptied BETWEEN 5 AND 7;
END $$;
SET meal_planner.clock_offset = 4700;
CALL mp_sweep();
SET meal_planner.clock_offset = 5300;
CALL mp_sweep();
SET meal_planner.clock_offset = 5900;
CALL mp_sweep();
SELECT sum(pg_relation_size(format('meal_planner.idempotency_key_%s', n))) AS bytes, (SELECT count(*) FROM meal_planner.idempotency_key) AS keys
  FROM generate_series(0, 2) n;
DROP TABLE kept;
-- A bucket with something that has not expired stays: the setting was another when it was written.
RESET meal_planner.clock_offset;
SELECT 600 - extract(epoch FROM meal_planner.clock())::bigint % 600 + 300 AS in_the_middle \gset
SET meal_planner.clock_offset = :in_the_middle;
INSERT INTO meal_planner.idempotency_key
SELECT 'local', 'meal-planner', 'odd ' || n, meal_planner.key_spare(meal_planner.clock()), '', gen_random_uuid(),
       meal_planner.clock() + CASE WHEN n IN (1, 5000) THEN interval '1 hour' ELSE interval '-1 hour' END
  FROM generate_series(1, 5000) n;
CALL mp_sweep();
SELECT count(*) FROM meal_planner.idempotency_key;
DELETE FROM meal_planner.idempotency_key WHERE key = 'odd 5000';
CALL mp_sweep();
SELECT count(*) FROM meal_planner.idempotency_key;
DELETE FROM meal_planner.idempotency_key WHERE key = 'odd 1';
CALL mp_sweep();
SELECT count(*) FROM meal_planner.idempotency_key;
RESET meal_planner.clock_offset;
RESET meal_planner.idempotency_ttl;

-- Keys are found in whatever bucket, by both ways to emit, also when the tables are not as the extension made them.
CREATE TABLE placed AS SELECT n, mp_emit_event('Placed', '{}', 's', idempotency_key => 'in ' || n) AS id FROM generate_series(0, 2) n;
UPDATE meal_planner.idempotency_key k SET bucket = p.n FROM placed p WHERE k.event_id = p.id;
CREATE FUNCTION put(detail jsonb) RETURNS jsonb LANGUAGE sql AS $$
    SELECT mp_put_events(jsonb_agg(jsonb_build_object('Source', 's', 'DetailType', 'Placed', 'Detail', detail, 'IdempotencyKey', 'in ' || n) ORDER BY n))
           -> 'Entries' FROM generate_series(0, 2) n
$$;
CREATE VIEW found AS
SELECT (SELECT count(DISTINCT bucket) FROM meal_planner.idempotency_key WHERE scope = 's') AS buckets,
       (SELECT count(*) FROM placed WHERE id = mp_emit_event('Placed', '{}', 's', idempotency_key => 'in ' || n)) AS by_emit,
       (SELECT count(*) FROM placed, (SELECT put('{}') OFFSET 0) p (entries) WHERE id::text = entries -> n ->> 'EventId') AS by_put,
       (SELECT count(*) FROM jsonb_array_elements(put('{"n": 1}')) e WHERE e ->> 'ErrorCode' = 'IdempotencyConflict') AS refused,
       mp_emit_event('New', '{}', 's', idempotency_key => 'new') = mp_emit_event('New', '{}', 's', idempotency_key => 'new') AS same_new;
SELECT * FROM found;
REINDEX TABLE CONCURRENTLY meal_planner.idempotency_key_1;
SELECT * FROM found;
VACUUM FULL meal_planner.idempotency_key_2;
SELECT * FROM found;
ALTER INDEX meal_planner.idempotency_key_2_pkey RENAME TO renamed;
SELECT * FROM found;
-- As if Citus were there: statements look.
INSERT INTO pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion)
SELECT 1, 'citus', extowner, extnamespace, false, '' FROM pg_extension WHERE extname = 'meal_planner';
ALTER TABLE meal_planner.idempotency_key_1 SET (fillfactor = 90);
SELECT * FROM found;
DELETE FROM meal_planner.idempotency_key WHERE key = 'new';
SELECT * FROM found;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT * FROM found;
COMMIT;
DELETE FROM pg_extension WHERE extname = 'citus';
ALTER TABLE meal_planner.idempotency_key_1 RESET (fillfactor);
SELECT * FROM found;
-- One row of a key, whatever has been tried; and one event.
SELECT count(*) AS keys, count(DISTINCT key) AS different, (SELECT count(*) FROM meal_planner.event WHERE source = 's') AS events
  FROM meal_planner.idempotency_key WHERE scope = 's';
DROP VIEW found;
DROP FUNCTION put(jsonb);
DROP TABLE placed;

-- Keys have to be remembered longer than events may be redriven, also when the setting is lowered later: one alert.
SELECT mp_subscribe('window', '{"detail-type": ["Order"]}', 'on_order(meal_planner.event)', options => '{"redrive_window": 86400}');
SELECT mp_subscribe('window', '{"detail-type": ["Order"]}', 'on_order(meal_planner.event)', options => '{"redrive_window": 7200}');
CALL mp_sweep();
SELECT count(*) FROM mp_alerts;
SET meal_planner.idempotency_ttl = 7200;
CALL mp_sweep();
CALL mp_sweep();
SELECT kind, subscription, error, message, entries FROM mp_alerts;
SET meal_planner.idempotency_ttl = 7201;
CALL mp_sweep();
SET meal_planner.idempotency_ttl = '1 h';
CALL mp_sweep();
SELECT error, entries FROM mp_alerts ORDER BY id;
RESET meal_planner.idempotency_ttl;

DROP TABLE seen;
DROP FUNCTION on_order;
