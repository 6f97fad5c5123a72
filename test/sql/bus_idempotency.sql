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
-- The sweep purges what has expired and nothing else.
SELECT count(*) AS before FROM meal_planner.idempotency_key WHERE key = 'brief';
SET meal_planner.clock_offset = 1202;
CALL mp_sweep();
SELECT count(*) AS after FROM meal_planner.idempotency_key WHERE key = 'brief';
SELECT count(*) > 0 AS others_remain FROM meal_planner.idempotency_key;
SELECT mp_emit_event('Brief', '{}', idempotency_key => 'brief') NOT IN (:'brief_id', :'brief2_id') AS anew;
RESET meal_planner.clock_offset;
RESET meal_planner.idempotency_ttl;

-- Duplicates ran no handler.
SELECT n, count(*) FROM seen GROUP BY n ORDER BY n;

-- More than one purge removes go in one sweep.
INSERT INTO meal_planner.idempotency_key
SELECT 'local', 'old', n::text, '', gen_random_uuid(), meal_planner.clock() - interval '1 second' FROM generate_series(1, 25000) n;
CALL mp_sweep();
SELECT count(*) AS expired FROM meal_planner.idempotency_key WHERE expires_at <= meal_planner.clock();

DROP TABLE seen;
DROP FUNCTION on_order;
