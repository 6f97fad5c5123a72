-- Plans that do not depend on luck: a new database that nobody has analyzed, some thousand rows,
-- and every hot read touches the rows it returns and no others.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS meal_planner CASCADE;
CREATE EXTENSION meal_planner;
RESET client_min_messages;

SELECT count(mp_emit_event('Many', jsonb_build_object('n', n), account => 'many', idempotency_key => 'k' || n)) FROM generate_series(1, 4000) n;
SELECT count(mp_emit_event('Few', '{}', account => 'few ' || n % 20)) FROM generate_series(1, 1000) n;
SELECT count(mp_emit_event('Step', '{}', account => 'streams', stream => 's' || n % 2)) FROM generate_series(1, 2000) n;
DO $$
DECLARE
    partition regclass;
BEGIN
    FOR partition IN SELECT p.partition FROM meal_planner.event_partition p LOOP
        EXECUTE format('ALTER TABLE %s SET (autovacuum_enabled = off)', partition);
    END LOOP;
    -- What an autovacuum worker may have found out meanwhile.
    DELETE FROM pg_statistic s USING pg_class c WHERE c.oid = s.starelid AND c.relnamespace = 'meal_planner'::regnamespace;
    UPDATE pg_class SET reltuples = -1, relpages = 0
     WHERE relnamespace = 'meal_planner'::regnamespace AND relkind IN ('r', 'p') AND relname ~ '^(event|delivery|dead_letter|idempotency|stream|subscription)';
END $$;

-- Rows that the statements of this session have touched.
CREATE VIEW touched AS
SELECT coalesce(sum(seq_tup_read) FILTER (WHERE relname ~ '^event'), 0) AS events_seq,
       coalesce(sum(idx_tup_fetch) FILTER (WHERE relname ~ '^event'), 0) AS events_idx,
       coalesce(sum(seq_tup_read) FILTER (WHERE relname ~ '^idempotency_key'), 0) AS keys_seq,
       coalesce(sum(idx_tup_fetch) FILTER (WHERE relname ~ '^idempotency_key'), 0) AS keys_idx,
       coalesce(sum(seq_tup_read) FILTER (WHERE relname = 'delivery'), 0) AS deliveries_seq,
       coalesce(sum(idx_tup_fetch) FILTER (WHERE relname = 'delivery'), 0) AS deliveries_idx
  FROM pg_stat_xact_all_tables WHERE schemaname = 'meal_planner';
\set events 'SELECT events_seq - :before_events_seq AS events_seq, events_idx - :before_events_idx AS events_idx FROM touched;'
\set keys 'SELECT keys_seq - :before_keys_seq AS keys_seq, keys_idx - :before_keys_idx AS keys_idx FROM touched;'
\set deliveries 'SELECT deliveries_seq - :before_deliveries_seq AS deliveries_seq, deliveries_idx - :before_deliveries_idx AS deliveries_idx FROM touched;'

-- The first event of an account, ten from its middle, and one by its id.
SELECT position AS middle FROM mp_read_events(max_events => 2000, account => 'many') OFFSET 1999 \gset
SELECT id FROM meal_planner.event WHERE account = 'many' AND position = :middle \gset
BEGIN;
SELECT * FROM touched \gset before_
SELECT count(*) FROM mp_read_events(max_events => 1, account => 'many');
:events
ROLLBACK;
BEGIN;
SELECT * FROM touched \gset before_
SELECT count(*) FROM mp_read_events(:middle, 10, account => 'many');
:events
ROLLBACK;
BEGIN;
SELECT * FROM touched \gset before_
SELECT mp_event(:'id', 'many') IS NOT NULL AS found;
:events
ROLLBACK;
-- A stream from its thousandth version on.
BEGIN;
SELECT * FROM touched \gset before_
SELECT count(*) FROM mp_read_stream('s1', 990, 5, 'streams');
:events
ROLLBACK;
-- Appending to a stream of a thousand versions looks at the last one; with a key, at that key.
BEGIN;
SELECT * FROM touched \gset before_
SELECT mp_emit_event('Step', '{}', account => 'streams', stream => 's1', expected_version => 1000, idempotency_key => 'x') IS NOT NULL AS emitted;
:events
:keys
ROLLBACK;
BEGIN;
SELECT * FROM touched \gset before_
SELECT mp_emit_event('Many', '{"n": 7}', account => 'many', idempotency_key => 'k7') IS NOT NULL AS duplicate;
:events
:keys
ROLLBACK;
-- The same for a batch: two streams with new keys, and two keys that are known.
BEGIN;
SELECT * FROM touched \gset before_
SELECT mp_put_events('[
  {"Source": "meal-planner", "DetailType": "Step", "Detail": {}, "Stream": "s1", "IdempotencyKey": "x"},
  {"Source": "meal-planner", "DetailType": "Step", "Detail": {}, "Stream": "s0", "IdempotencyKey": "y"}]', 'streams') -> 'FailedEntryCount' AS failed;
:events
:keys
ROLLBACK;
BEGIN;
SELECT * FROM touched \gset before_
SELECT mp_put_events('[
  {"Source": "meal-planner", "DetailType": "Many", "Detail": {"n": 7}, "IdempotencyKey": "k7"},
  {"Source": "meal-planner", "DetailType": "Many", "Detail": {"n": 8}, "IdempotencyKey": "k8"}]', 'many') -> 'FailedEntryCount' AS failed;
:events
:keys
ROLLBACK;
-- A backend's first use of the clock asks for the highest position: a probe per account.
\c -
BEGIN;
SELECT * FROM touched \gset before_
SELECT meal_planner.next_position() > 0 AS taken;
SELECT events_seq - :before_events_seq AS events_seq, events_idx - :before_events_idx <= 23 AS few FROM touched;
ROLLBACK;

-- The worker: a batch of fifty, or, when none of it matches, a thousand to be
-- passed, each read twice; and a probe per account.
CREATE FUNCTION on_many(e meal_planner.event) RETURNS void LANGUAGE sql AS '';
SELECT mp_subscribe('many', '{"account": ["many"]}', 'on_many(meal_planner.event)', 'worker', '{"start": "earliest"}');
BEGIN;
SELECT * FROM touched \gset before_
SELECT (c).subscription, (c).up_to > (c).position AS matched FROM meal_planner.claim_batch(1) c;
SELECT events_seq - :before_events_seq AS events_seq, events_idx - :before_events_idx <= 2 * (50 + 1000) + 2 * 22 AS few FROM touched;
ROLLBACK;
BEGIN;
SELECT * FROM touched \gset before_
SELECT count(*) FROM meal_planner.accounts(0);
SELECT events_seq - :before_events_seq AS events_seq, events_idx - :before_events_idx <= 2 * 22 + 2 AS few FROM touched;
ROLLBACK;
SELECT mp_unsubscribe('many');

-- Deliveries that are not due cost the sweep nothing, and of those that are it takes the first.
INSERT INTO meal_planner.delivery (account, subscription, position, event_id, next_attempt_at)
SELECT account, 'waiting', position, id, meal_planner.clock() + interval '1 day' FROM meal_planner.event WHERE account = 'many';
SELECT mp_subscribe('waiting', '{"account": ["many"]}', 'on_many(meal_planner.event)');
BEGIN;
SELECT * FROM touched \gset before_
SELECT meal_planner.claim_delivery(1) IS NULL AS nothing_due;
:deliveries
ROLLBACK;

-- Those of a paused subscription neither, however many are due, nor those that their order blocks.
INSERT INTO meal_planner.delivery (account, subscription, position, event_id, next_attempt_at, order_key)
SELECT account, name, position, id, CASE name WHEN 'paused' THEN meal_planner.clock() ELSE 'infinity' END, 'k'
  FROM meal_planner.event, unnest('{blocked,paused}'::text[]) name WHERE account = 'many';
SELECT mp_subscribe(name, '{"account": ["nobody"]}', 'on_many(meal_planner.event)', options => '{"order_key": "detail.n"}') FROM unnest('{blocked,paused}'::text[]) name;
SELECT mp_pause_subscription('paused');
BEGIN;
SELECT * FROM touched \gset before_
SELECT meal_planner.claim_delivery(1) IS NULL AS nothing_due;
SELECT meal_planner.next_due() > meal_planner.clock() AS later;
SELECT deliveries_seq - :before_deliveries_seq AS deliveries_seq, deliveries_idx - :before_deliveries_idx <= 20 AS few FROM touched;
ROLLBACK;
-- Whether a key is busy, what comes first of it, and its release: the first of it.
BEGIN;
SELECT * FROM touched \gset before_
SELECT count(*) FROM meal_planner.key_heads('many', 'blocked', '{k,other}');
:deliveries
ROLLBACK;
SELECT position AS head FROM meal_planner.key_heads('many', 'blocked', '{k}') \gset
BEGIN;
SELECT * FROM touched \gset before_
SELECT meal_planner.must_wait('many', 'blocked', 'k', :middle), meal_planner.must_wait('many', 'blocked', 'k', :head) AS head_must_wait;
:deliveries
ROLLBACK;
BEGIN;
SELECT * FROM touched \gset before_
SELECT meal_planner.release_key('many', 'blocked', 'k');
:deliveries
ROLLBACK;
BEGIN;
SELECT * FROM touched \gset before_
SELECT meal_planner.release_orphans();
:deliveries
ROLLBACK;
-- What is due behind one that has to wait is blocked with it, a thousand at a time.
BEGIN;
UPDATE meal_planner.delivery SET next_attempt_at = meal_planner.clock() WHERE subscription = 'blocked' AND position > :middle;
SELECT * FROM touched \gset before_
SELECT meal_planner.block_delivery('many', 'blocked', 'k', :middle + 1);
SELECT deliveries_seq - :before_deliveries_seq AS deliveries_seq, deliveries_idx - :before_deliveries_idx BETWEEN 1000 AND 6000 AS few FROM touched;
SELECT count(*) AS due FROM meal_planner.delivery WHERE subscription = 'blocked' AND next_attempt_at <= meal_planner.clock();
ROLLBACK;
-- Retries that are due and wait for their budget, or for an open breaker, are not looked at one by one, and what is no retry is found behind them.
INSERT INTO meal_planner.delivery (account, subscription, position, event_id, next_attempt_at, attempt)
SELECT account, name, position, id, meal_planner.clock() - interval '1 s', 1
  FROM meal_planner.event, unnest('{spent,spent pull,open}'::text[]) name WHERE account = 'many';
SELECT mp_subscribe('spent', '{"account": ["nobody"]}', 'on_many(meal_planner.event)', options => '{"retry_budget": {"per_second": 0.0001, "burst": 1}}'),
       mp_subscribe('spent pull', '{"account": ["nobody"]}', mode => 'pull', options => '{"retry_budget": {"per_second": 0.0001, "burst": 1}}'),
       mp_subscribe('open', '{"account": ["nobody"]}', 'on_many(meal_planner.event)', options => '{"breaker": "open"}');
SELECT mp_breaker_force('open', 'open');
SELECT meal_planner.take_retry('spent') AND meal_planner.take_retry('spent pull') AS tokens;
BEGIN;
SELECT * FROM touched \gset before_
SELECT meal_planner.claim_delivery(1) IS NULL AS nothing_due;
SELECT meal_planner.next_due() > meal_planner.clock() AS later;
SELECT count(*) AS claimed FROM mp_claim('spent pull', account => 'many');
SELECT deliveries_seq - :before_deliveries_seq AS deliveries_seq, deliveries_idx - :before_deliveries_idx <= 30 AS few FROM touched;
ROLLBACK;
BEGIN;
UPDATE meal_planner.delivery SET attempt = 0 WHERE subscription LIKE 'spent%' AND position = :middle;
SELECT * FROM touched \gset before_
SELECT (c).position = :middle AS the_fresh_one FROM meal_planner.claim_delivery(1) c;
SELECT count(*) AS claimed FROM mp_claim('spent pull', account => 'many');
SELECT deliveries_seq - :before_deliveries_seq AS deliveries_seq, deliveries_idx - :before_deliveries_idx <= 30 AS few FROM touched;
ROLLBACK;
SELECT mp_unsubscribe(name, 'discard') FROM unnest('{open,spent,spent pull}'::text[]) name;
-- A claim of deliveries that have keys looks at those that it takes.
INSERT INTO meal_planner.delivery (account, subscription, position, event_id, next_attempt_at, attempt, order_key)
SELECT account, 'keyed', position, id, meal_planner.clock() - interval '1 s', 1, position FROM meal_planner.event WHERE account = 'many';
SELECT mp_subscribe('keyed', '{"account": ["nobody"]}', mode => 'pull', options => '{"order_key": "detail.n"}');
BEGIN;
SELECT * FROM touched \gset before_
SELECT count(*) AS claimed FROM mp_claim('keyed', 10, account => 'many');
SELECT deliveries_seq - :before_deliveries_seq AS deliveries_seq, deliveries_idx - :before_deliveries_idx <= 200 AS few FROM touched;
ROLLBACK;
SELECT mp_unsubscribe('keyed', 'discard');

-- A subscription that is thousands of events behind: they are not all counted.
SELECT mp_subscribe('behind', '{"account": ["many"]}', 'on_many(meal_planner.event)', 'worker', '{"start": "earliest"}');
SELECT name, lag_events, blocked, retrying FROM mp_subscriptions WHERE name IN ('behind', 'blocked', 'paused') ORDER BY name;
SELECT mp_unsubscribe(name, 'discard') FROM unnest('{behind,blocked,paused}'::text[]) name;

-- Keys that have not expired cost the purge nothing; in the bucket that is spare they cost a look at one.
BEGIN;
SELECT * FROM touched \gset before_
SELECT meal_planner.sweep_purge();
:keys
UPDATE meal_planner.idempotency_key SET bucket = meal_planner.key_spare(meal_planner.clock());
SELECT * FROM touched \gset before_
SELECT meal_planner.sweep_purge();
:keys
ROLLBACK;

-- The statements as written, planned for any parameters: in the order of an index, no sort.
CREATE FUNCTION plan_of(function regprocedure, types text, arguments text) RETURNS TABLE (line text) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    setting text;
BEGIN
    FOR setting IN SELECT format('SET LOCAL %s = off', split_part(s, '=', 1)) FROM pg_proc, unnest(proconfig) s
                    WHERE oid = function AND s LIKE 'enable%' LOOP
        EXECUTE setting;
    END LOOP;
    EXECUTE format('PREPARE statement (%s) AS %s', types, (SELECT prosrc FROM pg_proc WHERE oid = function));
    RETURN QUERY EXECUTE format('EXPLAIN (COSTS OFF) EXECUTE statement (%s)', arguments);
    DEALLOCATE statement;
END $$;
SELECT count(*) FILTER (WHERE line ~ '(^|->  )(Incremental )?Sort') AS sorts, count(*) FILTER (WHERE line ~ 'Seq Scan') AS seq_scans,
       count(*) FILTER (WHERE line ~ 'Index Scan using') > 0 AS index_scans
  FROM plan_of('mp_read_stream(text,bigint,int,text)', 'text, bigint, int, text', '''s1'', 1, 10, ''streams''');
SELECT count(*) FILTER (WHERE line ~ '(^|->  )(Incremental )?Sort') AS sorts, count(*) FILTER (WHERE line ~ 'Seq Scan on event_2') AS seq_scans,
       count(*) FILTER (WHERE line ~ 'Index Scan') > 0 AS index_scans
  FROM plan_of('mp_event(uuid,text)', 'uuid, text', '''018cc251-f7e8-7000-8000-000000000000'', ''many''');
SELECT count(*) FILTER (WHERE line ~ '(^|->  )(Incremental )?Sort') AS sorts, count(*) FILTER (WHERE line ~ 'Seq Scan') AS seq_scans
  FROM plan_of('meal_planner.cursor_position(text,text)', 'text, text', '''many'', ''x''');

SELECT mp_unsubscribe('waiting');
DROP FUNCTION on_many, plan_of;
DROP VIEW touched;

-- A busy stream and a reader at the end do not look into partitions of long ago, however many there are.
SELECT count(*) AS made FROM generate_series(1, 12) n
 WHERE meal_planner.ensure_partition(meal_planner.position_at(meal_planner.clock() - n * interval '7 days'));
CREATE VIEW old_scans AS
SELECT coalesce(sum(t.idx_scan), 0) + coalesce(sum(t.seq_scan), 0) AS scans
  FROM pg_stat_xact_all_tables t JOIN meal_planner.event_partition p ON p.partition = t.relid
 WHERE p.upper < meal_planner.position_at(meal_planner.clock());
SELECT max(position) AS last FROM mp_read_events(account => 'streams', max_events => 10000) \gset
SELECT mp_emit_event('Step', '{}', account => 'streams', stream => 's1', expected_version => 1000) IS NOT NULL AS emitted;
BEGIN;
SELECT scans AS before FROM old_scans \gset
SELECT mp_emit_event('Step', '{}', account => 'streams', stream => 's1', expected_version => 1001) IS NOT NULL AS emitted;
SELECT count(*) FROM mp_read_events(:last, account => 'streams');
SELECT scans - :before AS old_scans FROM old_scans;
COMMIT;
-- One that is new, or has rested, asks them all.
BEGIN;
SELECT scans AS before FROM old_scans \gset
SELECT mp_emit_event('Step', '{}', account => 'streams', stream => 'new', expected_version => 0) IS NOT NULL AS emitted;
SELECT scans - :before AS old_scans FROM old_scans;
COMMIT;
DROP VIEW old_scans;

-- What looks dear because an order by index was asked for is not compiled: a claim of what is retried,
-- the end of its lease, a batch of a worker.
SELECT mp_subscribe('pulled', '{"account": ["compiled"]}', mode => 'pull', options => '{"base_delay": 0.001}');
CREATE FUNCTION on_compiled(e meal_planner.event) RETURNS void LANGUAGE sql AS '';
SELECT mp_subscribe('worked', '{"account": ["compiled"]}', 'on_compiled(meal_planner.event)', 'worker');
SELECT count(mp_emit_event('Many', '{}', account => 'compiled')) FROM generate_series(1, 30) n;
\c -
SELECT mp_fail(token, event_id, 'transient', 'told to', 0) AS outcome, count(*) FROM mp_claim('pulled', 10, account => 'compiled') GROUP BY 1;
SELECT attempt, count(*) FROM mp_claim('pulled', 10, 0.001, account => 'compiled') GROUP BY 1;
SELECT pg_sleep(0.01);
SELECT attempt, count(*) FROM mp_claim('pulled', 10, account => 'compiled') GROUP BY 1;
CALL mp_sweep();
SELECT pg_read_file('/proc/self/maps') ~ 'llvmjit' AS compiled;
SELECT mp_unsubscribe('pulled'), mp_unsubscribe('worked');
DROP FUNCTION on_compiled;

-- Whoever goes on with a saga reads what that one has done, and not what all have, also by plans from before there were many.
CREATE FUNCTION reserve(s jsonb) RETURNS jsonb LANGUAGE sql RETURN '{"reserved": true}'::jsonb;
SELECT mp_define_saga('many', '{"steps": [{"name": "reserve", "kind": "pivot", "run": "reserve(jsonb)"},
    {"name": "pay", "kind": "retriable", "service": "payments"}]}');
ALTER TABLE meal_planner.saga SET (autovacuum_enabled = off);
ALTER TABLE meal_planner.saga_log SET (autovacuum_enabled = off);
ALTER TABLE meal_planner.saga_step SET (autovacuum_enabled = off);
VACUUM meal_planner.saga, meal_planner.saga_log, meal_planner.saga_step;
SELECT mp_start_saga('many', '{}', account => 'many') IS NOT NULL AS started;
CALL mp_sweep();
SELECT mp_complete_saga_step(token, '{}') FROM mp_claim_saga_steps('payments', account => 'many');
SELECT count(mp_start_saga('many', '{}', account => 'many')) FROM generate_series(1, 300);
CALL mp_sweep();
CREATE VIEW touched AS
SELECT coalesce(sum(seq_tup_read), 0) AS seq, coalesce(sum(idx_tup_fetch) FILTER (WHERE relname = 'saga'), 0) AS sagas,
       coalesce(sum(idx_tup_fetch) FILTER (WHERE relname = 'saga_log'), 0) AS entries,
       coalesce(sum(idx_tup_fetch) FILTER (WHERE relname = 'saga_step'), 0) AS steps
  FROM pg_stat_xact_all_tables WHERE schemaname = 'meal_planner' AND relname IN ('saga', 'saga_log', 'saga_step');
BEGIN;
SELECT * FROM touched \gset before_
SELECT token FROM mp_claim_saga_steps('payments', 1, account => 'many') \gset
SELECT mp_complete_saga_step(:'token', '{}');
SELECT seq - :before_seq AS seq, sagas - :before_sagas < 20 AS few_sagas, entries - :before_entries < 20 AS few_entries, steps - :before_steps < 20 AS few_steps FROM touched;
COMMIT;
DROP VIEW touched;
DROP FUNCTION reserve;
