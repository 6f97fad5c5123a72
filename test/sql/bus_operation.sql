-- Idempotent operations: keys, leases, tokens, results, expiry and purging.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS meal_planner CASCADE;
CREATE EXTENSION meal_planner;
RESET client_min_messages;
\set SHOW_CONTEXT never

-- Begin, complete, and the same answer from then on, byte for byte.
SELECT b ->> 'status' AS status, b ->> 'attempt' AS attempt, b ->> 'token' AS token
  FROM mp_begin_operation('send_mail', 'k1', '{"to": "a", "n": 1}') b \gset
SELECT :'status' AS status, :'attempt' AS attempt, meal_planner.event_position(:'token') IS NOT NULL AS of_the_position_clock;
SELECT b ->> 'status' AS status, (b ->> 'retry_after')::float8 BETWEEN 1 AND 60 AS retry_after
  FROM mp_begin_operation('send_mail', 'k1', '{"n": 1,   "to": "a"}') b;
SELECT mp_complete_operation(:'token', '{"b": 1.50, "a": [null, "\u00e9"], "b": 2.50}');
SELECT mp_begin_operation('send_mail', 'k1', '{"to": "a", "n": 1}');
SELECT (mp_begin_operation('send_mail', 'k1', '{"to": "a", "n": 1}') -> 'result')::text = '{"a": [null, "é"], "b": 2.50}' AS byte_for_byte;
-- Completing twice: the same result is harmless, another one changes nothing.
SELECT mp_complete_operation(:'token', '{"a": [null, "\u00e9"], "b": 2.50}') AS same, mp_complete_operation(:'token', '{}') AS other,
       mp_release_operation(:'token') AS release;
SELECT mp_begin_operation('send_mail', 'k1', '{"to": "a", "n": 1}');
-- Results that are NULL, in SQL or in JSON.
SELECT mp_complete_operation((mp_begin_operation('op', 'sql null') ->> 'token')::uuid, NULL);
SELECT mp_complete_operation((mp_begin_operation('op', 'json null') ->> 'token')::uuid, 'null');
SELECT mp_begin_operation('op', 'sql null'), mp_begin_operation('op', 'json null');

-- The same key and another request, begun or completed.
SELECT mp_begin_operation('send_mail', 'k1', '{"to": "b", "n": 1}');
\echo :LAST_ERROR_SQLSTATE
SELECT mp_begin_operation('send_mail', 'k1');
SELECT mp_begin_operation('send_mail', 'k2', '1') ->> 'status' AS status;
SELECT mp_begin_operation('send_mail', 'k2', '"1"');
SELECT count(*) FROM meal_planner.operation WHERE key = 'k2' AND attempt = 1;

-- A key belongs to its account and its operation.
SELECT mp_begin_operation('send_mail', 'k1', '{"to": "b"}', account => 'smith') ->> 'status' AS account,
       mp_begin_operation('send_fax', 'k1', '{"to": "b"}') ->> 'status' AS operation;

-- Release: as if it had never been used, also by another request.
SELECT mp_begin_operation('op', 'given up', '1') ->> 'token' AS token \gset
SELECT mp_release_operation(:'token'), mp_release_operation(:'token') AS again, mp_complete_operation(:'token', '1') AS complete;
SELECT b ->> 'status' AS status, b ->> 'attempt' AS attempt FROM mp_begin_operation('op', 'given up', '2') b;
-- Tokens that nobody has.
SELECT mp_complete_operation(gen_random_uuid(), '1'), mp_release_operation(gen_random_uuid()),
       mp_complete_operation(NULL, '1'), mp_release_operation(NULL);

-- One transaction: begun, done and completed together or not at all.
BEGIN;
SELECT mp_begin_operation('op', 'rolled back') ->> 'token' AS token \gset
SELECT mp_complete_operation(:'token', '1');
ROLLBACK;
SELECT mp_complete_operation(:'token', '1') AS of_nothing;
BEGIN;
SAVEPOINT s;
SELECT mp_begin_operation('op', 'rolled back') ->> 'status' AS status;
ROLLBACK TO s;
SELECT mp_begin_operation('op', 'rolled back') ->> 'token' AS token \gset
SELECT mp_complete_operation(:'token', '2');
SELECT mp_begin_operation('op', 'rolled back');
COMMIT;
SELECT mp_begin_operation('op', 'rolled back');
-- With one snapshot for all, what it wrote itself is no conflict.
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT mp_begin_operation('op', 'one snapshot') ->> 'token' AS token \gset
SELECT mp_complete_operation(:'token', '2'), mp_check_processed('one snapshot', 'op');
SELECT mp_begin_operation('op', 'one snapshot'), mp_begin_operation('op', 'rolled back');
COMMIT;

-- A lost owner: retry.
SELECT mp_begin_operation('lost', 'retry', '1', lease_seconds => 30) ->> 'token' AS zombie \gset
SET meal_planner.clock_offset = 29;
SELECT mp_begin_operation('lost', 'retry', '1') ->> 'status' AS status;
SET meal_planner.clock_offset = 31;
SELECT key, state, on_owner_lost, attempt, request, token = :'zombie' AS token FROM mp_operations WHERE operation = 'lost';
SELECT mp_begin_operation('lost', 'retry', '2');
SELECT b ->> 'status' AS status, b ->> 'attempt' AS attempt, b ->> 'token' AS token
  FROM mp_begin_operation('lost', 'retry', '1', lease_seconds => 30) b \gset
SELECT :'status' AS status, :'attempt' AS attempt, :'token' <> :'zombie' AS new_token;
-- The zombie changes nothing, before and after the new owner has ended.
SELECT mp_complete_operation(:'zombie', '"zombie"'), mp_release_operation(:'zombie');
SELECT mp_complete_operation(:'token', '"owner"');
SELECT mp_complete_operation(:'zombie', '"zombie"'), mp_release_operation(:'zombie');
SELECT mp_begin_operation('lost', 'retry', '1');
RESET meal_planner.clock_offset;
-- Late, but nobody was faster: that counts.
SELECT mp_begin_operation('lost', 'late', lease_seconds => 30) ->> 'token' AS token \gset
SET meal_planner.clock_offset = 1000;
SELECT mp_complete_operation(:'token', '"late"');
SELECT mp_begin_operation('lost', 'late');
RESET meal_planner.clock_offset;

-- Verify: the next one owns it and looks first.
SELECT mp_begin_operation('lost', 'verify', '{"to": "a"}', lease_seconds => 30, on_owner_lost => 'verify') ->> 'token' AS zombie \gset
SET meal_planner.clock_offset = 31;
SELECT b ->> 'token' AS token, b - 'token' - 'begun_at' - 'lost_at' AS answer,
       (b ->> 'lost_at')::timestamptz - (b ->> 'begun_at')::timestamptz AS lease
  FROM mp_begin_operation('lost', 'verify', '{"to": "a"}', lease_seconds => 30, on_owner_lost => 'verify') b \gset
SELECT :'answer' AS answer, :'lease' AS lease, :'token' <> :'zombie' AS new_token;
SELECT mp_begin_operation('lost', 'verify', '{"to": "a"}') ->> 'status' AS meanwhile, mp_complete_operation(:'zombie', '"zombie"');
SELECT mp_complete_operation(:'token', '"it had happened"');
SELECT mp_begin_operation('lost', 'verify', '{"to": "a"}');
RESET meal_planner.clock_offset;
-- It does not expire before it has ended, however long that takes.
SELECT mp_begin_operation('lost', 'verify long', ttl_seconds => 60, on_owner_lost => 'verify') ->> 'status' AS status;
SET meal_planner.clock_offset = 10000000;
SELECT b ->> 'status' AS status, b ->> 'token' AS token FROM mp_begin_operation('lost', 'verify long', ttl_seconds => 60) b \gset
SELECT :'status' AS status;
SELECT mp_complete_operation(:'token', '1');
SELECT mp_begin_operation('lost', 'verify long');
SET meal_planner.clock_offset = 10000061;
SELECT mp_begin_operation('lost', 'verify long') ->> 'status' AS status;
RESET meal_planner.clock_offset;

-- Block: until an operator has seen to it.
SELECT mp_begin_operation('lost', 'block', lease_seconds => 30, on_owner_lost => 'block') ->> 'token' AS zombie \gset
SET meal_planner.clock_offset = 31;
SELECT mp_begin_operation('lost', 'block', on_owner_lost => 'retry');
\echo :LAST_ERROR_SQLSTATE
SELECT mp_mark_processed('block', 'lost');
SET meal_planner.clock_offset = 100000;
SELECT mp_begin_operation('lost', 'block', on_owner_lost => 'block');
SELECT key, state, on_owner_lost, mp_release_operation(token) FROM mp_operations WHERE key = 'block';
SELECT b ->> 'status' AS status, b ->> 'attempt' AS attempt FROM mp_begin_operation('lost', 'block') b;
RESET meal_planner.clock_offset;
-- The stricter of two wishes counts.
SELECT mp_begin_operation('lost', 'strict', lease_seconds => 30) ->> 'status' AS status;
SET meal_planner.clock_offset = 31;
SELECT mp_begin_operation('lost', 'strict', on_owner_lost => 'block');
SELECT mp_begin_operation('lost', 'strict', on_owner_lost => 'verify') ->> 'status' AS status;
RESET meal_planner.clock_offset;
-- It still counts when the next owner, who asked for less, is lost itself.
SELECT mp_begin_operation('lost', 'strict twice', lease_seconds => 30, on_owner_lost => 'verify') ->> 'status' AS status;
SET meal_planner.clock_offset = 31;
SELECT mp_begin_operation('lost', 'strict twice', lease_seconds => 30) ->> 'status' AS status;
SET meal_planner.clock_offset = 62;
SELECT mp_begin_operation('lost', 'strict twice') ->> 'status' AS status;
RESET meal_planner.clock_offset;

-- The simple face of the same store.
SELECT mp_check_processed('e1', 'mailer'), mp_mark_processed('e1', 'mailer'), mp_check_processed('e1', 'mailer'),
       mp_mark_processed('e1', 'mailer') AS again, mp_check_processed('e1', 'other') AS other, mp_check_processed('e1', 'mailer', 'smith') AS account;
SELECT mp_mark_processed('e2', 'mailer', result => '{"sent": true}');
SELECT mp_begin_operation('mailer', 'e2'), mp_check_processed('k1', 'send_mail');
SELECT mp_mark_processed('k2', 'send_mail'), mp_check_processed('k2', 'send_mail');
\echo :LAST_ERROR_SQLSTATE
BEGIN;
SELECT mp_mark_processed('e3', 'mailer');
ROLLBACK;
SELECT mp_check_processed('e3', 'mailer');
SELECT mp_begin_operation('mailer', 'e4', lease_seconds => 0) ->> 'status' AS status;
SELECT mp_mark_processed('e4', 'mailer') AS taken_over, mp_begin_operation('mailer', 'e4');

-- Arguments.
SELECT mp_begin_operation(NULL, 'k');
SELECT mp_begin_operation('', 'k');
SELECT mp_begin_operation('op', NULL);
SELECT mp_begin_operation('op', repeat('k', 256));
SELECT mp_begin_operation('op', 'k', ttl_seconds => 0);
SELECT mp_begin_operation('op', 'k', ttl_seconds => 'NaN');
SELECT mp_begin_operation('op', 'k', ttl_seconds => 366.1 * 86400);
SELECT mp_begin_operation('op', 'k', lease_seconds => -1);
SELECT mp_begin_operation('op', 'k', lease_seconds => 'Infinity');
SELECT mp_begin_operation('op', 'k', on_owner_lost => 'panic');
SELECT mp_begin_operation('op', 'k', account => '');
SELECT mp_begin_operation('op', 'k', if_busy => 'hurry');
SELECT mp_check_processed(NULL, 'op');
SELECT mp_mark_processed('e', NULL);
SELECT count(*) FROM meal_planner.operation WHERE key IN ('k', 'e');
-- NULL means the default.
SELECT mp_begin_operation('op', 'defaults', NULL, NULL, NULL, NULL, NULL, NULL) ->> 'status' AS status, mp_mark_processed('defaults', 'nulls', NULL, NULL, NULL, NULL);
SELECT account, operation, on_owner_lost, ttl, lease_until - begun_at AS lease, expires_at - begun_at AS kept
  FROM meal_planner.operation WHERE key = 'defaults' ORDER BY operation;

-- Expiry: until its end a result counts, after it no more, purged or not.
SELECT mp_mark_processed('brief', 'expiry', 600), mp_mark_processed('month', 'expiry', 30 * 86400), mp_mark_processed('year', 'expiry', 366 * 86400);
SET meal_planner.clock_offset = 599;
SELECT mp_check_processed('brief', 'expiry'), mp_mark_processed('brief', 'expiry', 600) AS anew;
SET meal_planner.clock_offset = 601;
SELECT mp_check_processed('brief', 'expiry'), mp_begin_operation('expiry', 'brief', '{"other": "request"}') ->> 'status' AS status;
SET meal_planner.clock_offset = 86500;
SELECT mp_check_processed('brief', 'expiry'), mp_check_processed('month', 'expiry'), mp_check_processed('year', 'expiry');
RESET meal_planner.clock_offset;
-- A lease longer than the result is remembered keeps others out to its end.
SELECT mp_begin_operation('expiry', 'long lease', ttl_seconds => 10, lease_seconds => 3600) ->> 'token' AS token \gset
SET meal_planner.clock_offset = 3500;
SELECT mp_begin_operation('expiry', 'long lease') ->> 'status' AS status, mp_complete_operation(:'token', '1');
SET meal_planner.clock_offset = 3512;
SELECT mp_begin_operation('expiry', 'long lease') ->> 'status' AS status, mp_complete_operation(:'token', '1');
RESET meal_planner.clock_offset;

-- Purging: every answer stays the same, and what has expired goes, the files with it.
TRUNCATE meal_planner.operation;
CREATE TABLE kept (key text, ttl float8);
INSERT INTO kept SELECT 'k' || n, ttl FROM unnest('{1, 3600, 43200, 86400, 86401, 604800, 2592000, 2592001, 31622400}'::float8[]) WITH ORDINALITY AS t (ttl, n);
SELECT bool_and(mp_mark_processed(key, 'purge', ttl)) FROM kept;
SELECT mp_begin_operation('purge', 'open', on_owner_lost => 'block') ->> 'status' AS status;
-- In steps of the narrowest buckets for some days, then of the wider ones.
DO $$
DECLARE
    days  float8 := 0;
    wrong record;
BEGIN
    WHILE days < 3 * 370 LOOP
        PERFORM set_config('meal_planner.clock_offset', (days * 86400 + 2)::text, false);
        CREATE TEMP TABLE before AS SELECT k.*, mp_check_processed(k.key, 'purge') AS marked FROM kept k;
        PERFORM meal_planner.sweep_purge();
        FOR wrong IN SELECT * FROM before b WHERE b.marked <> mp_check_processed(b.key, 'purge') OR b.marked <> (b.ttl > days * 86400 + 2) LOOP
            RAISE WARNING 'after % days: %', days, wrong;
        END LOOP;
        DROP TABLE before;
        days := days + CASE WHEN days < 3 THEN 0.25 WHEN days < 100 THEN 5 ELSE 60 END;
    END LOOP;
END $$;
SELECT key, completed_at IS NULL AS open FROM meal_planner.operation;
SELECT n AS bucket_with_a_file FROM generate_series(0, 12) n WHERE pg_relation_size(format('meal_planner.operation_%s', n)) > 0;
RESET meal_planner.clock_offset;
-- The sweep does it; a bucket with something that is not over stays, whatever the clock has been.
TRUNCATE meal_planner.operation;
SELECT 43200 - extract(epoch FROM meal_planner.clock())::bigint % 43200 + 21600 AS in_the_middle \gset
SET meal_planner.clock_offset = :in_the_middle;
SELECT mp_mark_processed('now', 'purge', 60);
INSERT INTO meal_planner.operation
SELECT account, operation, 'odd', meal_planner.operation_spare(0, meal_planner.clock()), fingerprint, request, on_owner_lost, attempt, token, ttl, begun_at, lease_until, completed_at, result, expires_at
  FROM meal_planner.operation;
CALL mp_sweep();
SELECT key FROM meal_planner.operation ORDER BY key;
SELECT :in_the_middle + 100 AS later \gset
SET meal_planner.clock_offset = :later;
CALL mp_sweep();
SELECT key FROM meal_planner.operation ORDER BY key;
RESET meal_planner.clock_offset;

DROP TABLE kept;

-- Keys are found wherever they lie, also when the tables are not as the extension made them.
TRUNCATE meal_planner.operation;
INSERT INTO meal_planner.operation
SELECT 'local', 'anywhere', 'k' || n, n, '', NULL, 'retry', 1, ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, 60,
       meal_planner.clock(), NULL, meal_planner.clock(), to_jsonb(n), 'infinity'
  FROM generate_series(0, 12) n;
CREATE VIEW pg_temp.found AS
SELECT count(*) FILTER (WHERE mp_check_processed('k' || n, 'anywhere')) AS by_key,
       count(*) FILTER (WHERE mp_complete_operation(('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, to_jsonb(n))) AS by_token,
       bool_or(mp_check_processed('k' || n, 'nowhere') OR mp_check_processed('k' || n, 'anywhere', 'smith')) AS others
  FROM generate_series(0, 12) n;
SELECT * FROM pg_temp.found;
REINDEX TABLE CONCURRENTLY meal_planner.operation_3;
SELECT * FROM pg_temp.found;
ALTER TABLE meal_planner.operation ADD COLUMN note text;
SELECT * FROM pg_temp.found;
ALTER TABLE meal_planner.operation DROP COLUMN note;
SELECT * FROM pg_temp.found;
ALTER INDEX meal_planner.operation_5_pkey RENAME TO renamed;
VACUUM FULL meal_planner.operation_5;
SELECT * FROM pg_temp.found;
-- As if Citus were there: statements look.
INSERT INTO pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion)
SELECT 1, 'citus', extowner, extnamespace, false, '' FROM pg_extension WHERE extname = 'meal_planner';
ALTER TABLE meal_planner.operation_5 SET (fillfactor = 90);
SELECT * FROM pg_temp.found;
SELECT mp_mark_processed('e', 's');
SELECT mp_mark_processed('e', 's') AS again, mp_check_processed('e', 's');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT * FROM pg_temp.found;
COMMIT;
DELETE FROM pg_extension WHERE extname = 'citus';
TRUNCATE meal_planner.operation;
SELECT * FROM pg_temp.found;
-- What was learned of them by a look that failed half way is not believed.
BEGIN;
ALTER TABLE meal_planner.operation RENAME TO elsewhere;
ALTER EXTENSION meal_planner DROP TABLE meal_planner.operation_12;
DROP TABLE meal_planner.operation_12;
CREATE TABLE meal_planner.operation_12 PARTITION OF meal_planner.elsewhere FOR VALUES IN (12);
SAVEPOINT look;
SELECT mp_check_processed('k12', 'anywhere');
ROLLBACK TO look;
ALTER TABLE meal_planner.elsewhere RENAME TO operation;
SELECT mp_check_processed('k12', 'anywhere');
ROLLBACK;
