-- mp_put_events: one answer per entry, in order; a bad entry does not fail the others.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS meal_planner CASCADE;
CREATE EXTENSION meal_planner;
RESET client_min_messages;

-- What is stored of an answer's ids, so that outputs do not vary.
CREATE FUNCTION pg_temp.put(entries jsonb, account text DEFAULT NULL)
RETURNS TABLE (entry bigint, detail_type text, code text, message text) LANGUAGE sql AS $$
    WITH answer AS MATERIALIZED (SELECT mp_put_events(entries, account) AS a)
    SELECT 0, NULL, a ->> 'FailedEntryCount', 'of ' || jsonb_array_length(a -> 'Entries')
           || coalesce(', other keys: ' || nullif(array_to_string(ARRAY(SELECT jsonb_object_keys(a - '{FailedEntryCount,Entries}'::text[])), ','), ''), '')
      FROM answer
    UNION ALL
    SELECT n, e.detail_type, r ->> 'ErrorCode', r ->> 'ErrorMessage'
      FROM answer, jsonb_array_elements(a -> 'Entries') WITH ORDINALITY AS x (r, n)
      LEFT JOIN meal_planner.event e ON e.account = coalesce($2, 'local') AND e.id = (r ->> 'EventId')::uuid
     ORDER BY 1
$$;
\pset null '-'

-- Order and length; every field; lines apart from each other.
SELECT * FROM pg_temp.put('[
  {"Source": "tablet", "DetailType": "A", "Detail": {"n": 1}, "Resources": ["r1", "r2"], "Time": "2026-11-23T12:00:00.25+02:00",
   "IdempotencyKey": "k1", "Stream": "s"},
  {"Source": "tablet", "DetailType": "B", "Detail": "{\"n\": 2}"},
  {"Source": "tablet"},
  {"Source": "tablet", "DetailType": "C", "Detail": {}, "Unknown": 1, "EventBusName": "default", "Resources": null, "Time": null}
]', 'smith');
SELECT detail_type, source, detail, resources, time AT TIME ZONE 'UTC' AS time, stream, version, idempotency_key, region
  FROM meal_planner.event WHERE account = 'smith' AND detail_type IN ('A') ORDER BY position;
SELECT array_agg(detail_type ORDER BY position) FROM meal_planner.event WHERE account = 'smith';
SELECT array_agg(event -> 'detail' ORDER BY position) FROM mp_read_events(account => 'smith');

-- Every way an entry can be wrong.
SELECT * FROM pg_temp.put('[
  1, "text", null, [], {},
  {"DetailType": "T", "Detail": {}},
  {"Source": "s", "Detail": {}},
  {"Source": "s", "DetailType": "T"},
  {"Source": 1, "DetailType": "T", "Detail": {}},
  {"Source": "s", "DetailType": ["T"], "Detail": {}},
  {"Source": "", "DetailType": "T", "Detail": {}},
  {"Source": "s", "DetailType": "", "Detail": {}},
  {"Source": "s", "DetailType": "T", "Detail": []},
  {"Source": "s", "DetailType": "T", "Detail": 7},
  {"Source": "s", "DetailType": "T", "Detail": ""},
  {"Source": "s", "DetailType": "T", "Detail": "[]"},
  {"Source": "s", "DetailType": "T", "Detail": "null"},
  {"Source": "s", "DetailType": "T", "Detail": "{\n  \"a\": 1,\n  \"b\": }"},
  {"Source": "s", "DetailType": "T", "Detail": "{\"a\": \"\\u0000\"}"},
  {"Source": "s", "DetailType": "T", "Detail": {}, "Resources": "r"},
  {"Source": "s", "DetailType": "T", "Detail": {}, "Resources": ["r", 1]},
  {"Source": "s", "DetailType": "T", "Detail": {}, "Resources": [""]},
  {"Source": "s", "DetailType": "T", "Detail": {}, "Time": "yesterday"},
  {"Source": "s", "DetailType": "T", "Detail": {}, "Time": true},
  {"Source": "s", "DetailType": "T", "Detail": {}, "Time": -1},
  {"Source": "s", "DetailType": "T", "Detail": {}, "Time": 253402300800},
  {"Source": "s", "DetailType": "T", "Detail": {}, "Time": 1e400},
  {"Source": "s", "DetailType": "T", "Detail": {}, "IdempotencyKey": 5},
  {"Source": "s", "DetailType": "T", "Detail": {}, "IdempotencyKey": ""},
  {"Source": "s", "DetailType": "T", "Detail": {}, "Stream": {}},
  {"Source": "s", "DetailType": "T", "Detail": {}, "Stream": ""}
]');
SELECT count(*) AS written FROM meal_planner.event WHERE account = 'local';

-- Too deep, too large, and just not.
SELECT entry, detail_type, code, message FROM pg_temp.put(jsonb_build_array(
    jsonb_build_object('Source', 's', 'DetailType', 'Deep', 'Detail', '{"a":' || repeat('[', 999) || repeat(']', 999) || '}'),
    jsonb_build_object('Source', 's', 'DetailType', 'TooDeep', 'Detail', '{"a":' || repeat('[', 1000) || repeat(']', 1000) || '}'),
    jsonb_build_object('Source', 's', 'DetailType', 'TooLongText', 'Detail', '{"a":"' || repeat('x', 1048576) || '"}'),
    jsonb_build_object('Source', 's', 'DetailType', 'TooLarge', 'Detail', jsonb_build_object('a', repeat('x', 1048576))),
    jsonb_build_object('Source', 's', 'DetailType', 'Large', 'Detail', jsonb_build_object('a', repeat('x', 1048000)))));

-- Numbers: what numeric does not keep is the entry's error, not the batch's.
SELECT entry, detail_type, code, message FROM pg_temp.put('[
  {"Source": "s", "DetailType": "Small", "Detail": "{\"a\": [1.5e-16382, -0.1E+3, 1e300]}"},
  {"Source": "s", "DetailType": "T", "Detail": "{\"a\": 1.5e-16383}"},
  {"Source": "s", "DetailType": "T", "Detail": "{\"e\": \"1e-99999\", \"a\": [0, 1e-99999999999]}"},
  {"Source": "s", "DetailType": "Text", "Detail": "{\"e\": \"1e-99999\"}"},
  {"Source": "s", "DetailType": "T", "Detail": "{\"a\": 1e400}"},
  {"Source": "s", "DetailType": "T", "Detail": "{\"a\": 12345678901234567890}"}]', 'numbers');

-- Time: RFC 3339 in any offset, or seconds since 1970 as the AWS SDKs send it.
SELECT * FROM pg_temp.put(
  (SELECT jsonb_agg(jsonb_build_object('Source', 'time', 'DetailType', t::text, 'Detail', '{}'::jsonb, 'Time', t) ORDER BY n)
     FROM jsonb_array_elements('["2026-11-23T10:00:00Z", "2026-11-23t10:00:00z", "2026-11-23 10:00:00+00:00", "2026-11-23T11:30:00.123456789+01:30",
                                 "2024-02-29T00:00:00Z", "2023-02-29T00:00:00Z", "2016-12-31T23:59:60Z", "2026-11-23T10:00:00", "2026-11-23",
                                 "9999-12-31T23:59:59Z", "9999-12-31T23:59:59-01:00", "0000-01-01T00:00:00Z", "0000-01-01T00:00:00+01:00",
                                 1763892000, 1763892000.5, 0, "1763892000"]') WITH ORDINALITY AS x (t, n)));
SELECT detail_type, mp_event(id) ->> 'time' AS time FROM meal_planner.event WHERE account = 'local' AND source = 'time' ORDER BY position;

-- Keys inside one batch, and against what is there.
SELECT mp_emit_event('Old', '{}', 'tablet', idempotency_key => 'old', account => 'keys') AS id \gset old_
SELECT mp_put_events('[
  {"Source": "tablet", "DetailType": "A", "Detail": {}, "IdempotencyKey": "k"},
  {"Source": "tablet", "DetailType": "A", "Detail": {}, "IdempotencyKey": "k"},
  {"Source": "tablet", "DetailType": "B", "Detail": {}, "IdempotencyKey": "k"},
  {"Source": "other", "DetailType": "B", "Detail": {}, "IdempotencyKey": "k"},
  {"Source": "tablet", "DetailType": "Old", "Detail": {}, "IdempotencyKey": "old"}]', 'keys') AS answer \gset
SELECT :'answer'::jsonb #>> '{Entries,0,EventId}' = :'answer'::jsonb #>> '{Entries,1,EventId}' AS same_id,
       :'answer'::jsonb #> '{Entries,2}' AS other_content,
       :'answer'::jsonb #>> '{Entries,3,EventId}' <> :'answer'::jsonb #>> '{Entries,0,EventId}' AS other_source,
       :'answer'::jsonb #>> '{Entries,4,EventId}' = :'old_id' AS older_id,
       :'answer'::jsonb -> 'FailedEntryCount' AS failed;
SELECT array_agg(detail_type ORDER BY position) FROM meal_planner.event WHERE account = 'keys';

-- The first entry with a key speaks for it, in whatever order keys are claimed; a bad one does not.
SELECT mp_emit_event('A', '{"old": true}', 's', idempotency_key => 'a', account => 'many') AS id \gset old_
SELECT mp_put_events('[
  {"Source": "s", "DetailType": "Z", "Detail": {}, "IdempotencyKey": "z", "Stream": "k"},
  {"Source": "s", "DetailType": "M", "Detail": 0, "IdempotencyKey": "m", "Stream": "k"},
  {"Source": "s", "DetailType": "M", "Detail": {"n": 1}, "IdempotencyKey": "m", "Stream": "k"},
  {"Source": "s", "DetailType": "A", "Detail": {}, "IdempotencyKey": "a", "Stream": "k"},
  {"Source": "s", "DetailType": "Z", "Detail": {"n": 2}, "IdempotencyKey": "z", "Stream": "k"},
  {"Source": "s", "DetailType": "Free", "Detail": {}, "Stream": "k"},
  {"Source": "s", "DetailType": "Z", "Detail": "{}", "IdempotencyKey": "z", "Stream": "k"},
  {"Source": "s", "DetailType": "A", "Detail": {"old": true}, "IdempotencyKey": "a"},
  {"Source": "s", "DetailType": "M", "Detail": {"n": 1}, "IdempotencyKey": "m", "Stream": "k"}]', 'many') AS answer \gset
SELECT n, coalesce(r ->> 'ErrorMessage', e.detail_type) AS answer, e.version,
       CASE WHEN e.id IS NOT NULL THEN first_value(n) OVER (PARTITION BY e.id ORDER BY n) END AS same_as, e.id = :'old_id' AS old
  FROM jsonb_array_elements(:'answer'::jsonb -> 'Entries') WITH ORDINALITY AS x (r, n)
  LEFT JOIN meal_planner.event e ON e.account = 'many' AND e.id = (r ->> 'EventId')::uuid
 ORDER BY n;
SELECT array_agg(detail_type ORDER BY position) AS written FROM meal_planner.event WHERE account = 'many';
SELECT key, count(*) FROM meal_planner.idempotency_key WHERE account = 'many' GROUP BY key ORDER BY key;
-- The same batch again writes nothing.
CREATE TABLE puts (n int, answer jsonb);
INSERT INTO puts SELECT n, mp_put_events(jsonb_build_array(
    jsonb_build_object('Source', 's', 'DetailType', 'T', 'Detail', '{}'::jsonb, 'IdempotencyKey', 'one', 'Stream', 'r'),
    jsonb_build_object('Source', 's', 'DetailType', 'T', 'Detail', '{}'::jsonb, 'IdempotencyKey', 'two', 'Stream', 'r')), 'again')
  FROM generate_series(1, 2) n;
SELECT count(DISTINCT answer) AS answers, (SELECT count(*) FROM meal_planner.event WHERE account = 'again') AS events FROM puts;
-- A key that has expired is free.
SET meal_planner.clock_offset = 86401;
INSERT INTO puts SELECT 3, mp_put_events(jsonb_build_array(
    jsonb_build_object('Source', 's', 'DetailType', 'T', 'Detail', '{"new": true}'::jsonb, 'IdempotencyKey', 'two', 'Stream', 'r')), 'again');
SELECT p.answer -> 'FailedEntryCount' AS failed, version FROM puts p, mp_read_stream('r', account => 'again') s
 WHERE p.n = 3 AND s.event ->> 'id' = p.answer #>> '{Entries,0,EventId}';
RESET meal_planner.clock_offset;
DROP TABLE puts;

-- Streams: versions in the order of the entries.
SELECT * FROM pg_temp.put('[
  {"Source": "s", "DetailType": "V1", "Detail": {}, "Stream": "plan"},
  {"Source": "s", "DetailType": "bad", "Detail": 0, "Stream": "plan"},
  {"Source": "s", "DetailType": "V2", "Detail": {}, "Stream": "plan"}]', 'streams');
SELECT version, event ->> 'detail-type' AS type FROM mp_read_stream('plan', account => 'streams');

-- Several, mixed, some of them older: each without gaps, and in position order.
SELECT mp_put_events((SELECT jsonb_agg(jsonb_build_object('Source', 's', 'DetailType', 'T', 'Detail', jsonb_build_object('n', n), 'Stream', 'x' || n * 7 % 5)
                                       ORDER BY n) FROM generate_series(1, 20) n), 'streams') -> 'FailedEntryCount' AS failed
  FROM generate_series(1, 3);
SELECT stream, count(*), min(version), max(version), count(DISTINCT version), bool_and(in_order)
  FROM (SELECT stream, version, version > coalesce(lag(version) OVER (PARTITION BY stream ORDER BY position), 0) AS in_order
          FROM meal_planner.event WHERE account = 'streams' AND stream LIKE 'x%') e
 GROUP BY stream ORDER BY stream;

-- A thousand: one position after the other, ids in the order of the entries.
CREATE TABLE thousand AS SELECT mp_put_events((
    SELECT jsonb_agg(CASE WHEN n % 100 = 0 THEN '{}' ELSE
           jsonb_build_object('Source', 's', 'DetailType', 'T', 'Detail', jsonb_build_object('n', n), 'Resources', jsonb_build_array('r' || n)) END ORDER BY n)
      FROM generate_series(1, 1000) n), 'thousand') AS answer;
SELECT answer -> 'FailedEntryCount' AS failed, jsonb_array_length(answer -> 'Entries') AS entries FROM thousand;
SELECT count(*) AS found, bool_and((e.detail ->> 'n')::int = x.n AND e.resources = ARRAY['r' || x.n]) AS theirs,
       bool_and(e.position > x.before) AS in_order, count(DISTINCT e.time) AS times
  FROM (SELECT n, r, lag(meal_planner.event_position((r ->> 'EventId')::uuid), 1, 0::bigint) OVER (ORDER BY n) AS before
          FROM thousand, jsonb_array_elements(answer -> 'Entries') WITH ORDINALITY AS x (r, n) WHERE r ? 'EventId') x
  JOIN meal_planner.event e ON e.account = 'thousand' AND e.id = (x.r ->> 'EventId')::uuid;
SELECT count(*) AS read FROM mp_read_events(0, 2000, account => 'thousand');
DROP TABLE thousand;
-- Nobody else gets rows from its source.
SELECT count(*) FROM meal_planner.batch_rows();

-- Handlers run, and one that fails harms no entry.
CREATE TABLE seen (detail_type text);
CREATE FUNCTION on_put(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO seen VALUES (e.detail_type);
    IF e.detail_type = 'Fails' THEN
        RAISE 'no';
    END IF;
END $$;
SELECT mp_subscribe('put', '{"account": ["handled"]}', 'on_put(meal_planner.event)');
SELECT * FROM pg_temp.put('[
  {"Source": "s", "DetailType": "One", "Detail": {}}, {"Source": "s", "DetailType": "Fails", "Detail": {}},
  {"Source": "s", "DetailType": "Two", "Detail": {}}]', 'handled');
SELECT * FROM seen;
SELECT detail_type, error_message, status FROM mp_dlq;

-- Together: one subtransaction for all events of a subscription, in order.
CREATE TABLE handled (seq serial, subscription text, n int);
CREATE TABLE broken (n int);
CREATE FUNCTION handle(subscription text, e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO handled (subscription, n) VALUES (subscription, (e.detail ->> 'n')::int);
    IF EXISTS (SELECT FROM broken b WHERE b.n = (e.detail ->> 'n')::int) THEN
        RAISE 'broken' USING ERRCODE = 'MPT01';
    END IF;
END $$;
CREATE FUNCTION handle_a(e meal_planner.event) RETURNS void LANGUAGE sql AS $$ SELECT handle('a', e) $$;
CREATE FUNCTION handle_b(e meal_planner.event) RETURNS void LANGUAGE sql AS $$ INSERT INTO handled (subscription, n) VALUES ('b', (e.detail ->> 'n')::int) $$;
SELECT mp_subscribe('a', '{"detail-type": ["Work"]}', 'handle_a(meal_planner.event)'),
       mp_subscribe('b', '{"detail-type": ["Work", "Other"], "detail": {"n": [{"numeric": [">", 5]}]}}', 'handle_b(meal_planner.event)');
CREATE FUNCTION pg_temp.work(first int, last int) RETURNS jsonb LANGUAGE sql AS $$
    SELECT mp_put_events((SELECT jsonb_agg(jsonb_build_object('Source', 's', 'DetailType', CASE WHEN n % 3 = 0 THEN 'Other' ELSE 'Work' END,
                                                              'Detail', jsonb_build_object('n', n)) ORDER BY n)
                            FROM generate_series(first, last) n), 'work') -> 'FailedEntryCount'
$$;
-- What happened to whom since, and in how many subtransactions that lasted; then all is cleared.
CREATE FUNCTION pg_temp.outcome(OUT subscription text, OUT done bigint, OUT subtransactions bigint, OUT in_order boolean,
                                OUT failed bigint, OUT failures text, OUT left_over bigint, OUT first_left bigint, OUT all_due boolean)
RETURNS SETOF record LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY
    SELECT s.name, h.done, h.subtransactions, h.in_order, d.failed, d.failures, d.left_over, d.first_left, d.all_due
      FROM (VALUES ('a'), ('b')) s (name),
           LATERAL (SELECT count(*) AS done, count(DISTINCT x.xmin::text) AS subtransactions, bool_and(x.n > x.before) AS in_order
                      FROM (SELECT xmin, n, lag(n, 1, 0) OVER (ORDER BY seq) AS before FROM handled WHERE handled.subscription = s.name) x) h,
           LATERAL (SELECT count(*) FILTER (WHERE y.attempt = 1) AS failed,
                           string_agg(DISTINCT y.error_message, ', ') AS failures,
                           count(*) FILTER (WHERE y.attempt = 0) AS left_over,
                           min((e.detail ->> 'n')::bigint) FILTER (WHERE y.attempt = 0) AS first_left,
                           bool_and(y.next_attempt_at <= meal_planner.clock()) FILTER (WHERE y.attempt = 0) AS all_due
                      FROM meal_planner.delivery y JOIN meal_planner.event e ON e.account = y.account AND e.position = y.position
                     WHERE y.subscription = s.name) d;
    DELETE FROM handled;
    DELETE FROM broken;
    DELETE FROM meal_planner.delivery;
END $$;
SELECT pg_temp.work(1, 30);
SELECT * FROM handled ORDER BY seq LIMIT 22;
SELECT * FROM pg_temp.outcome();
SELECT pg_temp.work(1, 1000);
SELECT * FROM pg_temp.outcome();
-- One fails: the others are run around it, and the other subscription does not notice.
INSERT INTO broken VALUES (500);
SELECT pg_temp.work(1, 1000);
SELECT * FROM pg_temp.outcome();
-- The first, the last.
INSERT INTO broken VALUES (1), (1000);
SELECT pg_temp.work(1, 1000);
SELECT * FROM pg_temp.outcome();
-- All fail: at most 50 subtransactions, the rest is left to the sweep; not at the cost of the other subscription.
INSERT INTO broken SELECT generate_series(1, 1000);
SELECT pg_temp.work(1, 1000);
SELECT * FROM pg_temp.outcome();
INSERT INTO broken SELECT generate_series(1, 1000, 10);
SELECT pg_temp.work(1, 1000);
SELECT sum(done) + sum(failed) + sum(left_over) = 667 + 995 AS none_lost, sum(failed) AS failed, max(first_left) AS first_left, bool_and(in_order) AS in_order
  FROM pg_temp.outcome();
-- They are the transaction's: a second batch has none left, the next transaction has.
BEGIN;
INSERT INTO broken SELECT generate_series(1, 100);
SELECT pg_temp.work(1, 100), pg_temp.work(101, 110);
COMMIT;
SELECT * FROM pg_temp.outcome();
SELECT pg_temp.work(1, 10);
SELECT * FROM pg_temp.outcome();
BEGIN;
INSERT INTO broken SELECT generate_series(1, 100);
SAVEPOINT s;
SELECT pg_temp.work(1, 100);
ROLLBACK;
SELECT pg_temp.work(1, 10);
SELECT * FROM pg_temp.outcome();
-- What was left is run by the sweep.
BEGIN;
INSERT INTO broken SELECT generate_series(1, 100);
SELECT pg_temp.work(1, 100);
DELETE FROM broken;
COMMIT;
CALL mp_sweep();
SELECT * FROM pg_temp.outcome();
-- A single event has a subtransaction of its own all the same.
BEGIN;
INSERT INTO broken SELECT generate_series(1, 100);
SELECT pg_temp.work(1, 100);
SELECT mp_emit_event('Work', '{"n": 200}') IS NOT NULL AS emitted;
COMMIT;
SELECT subscription, done FROM pg_temp.outcome();
-- Paused: deliveries, no attempt.
SELECT mp_pause_subscription('a');
SELECT pg_temp.work(1, 10);
SELECT * FROM pg_temp.outcome();
SELECT mp_resume_subscription('a');
-- A handler that cannot be called pauses its subscription, and fails no batch.
ALTER FUNCTION handle_a RENAME TO handle_gone;
SELECT pg_temp.work(1, 3);
SELECT subscription, done, failed, failures, left_over FROM pg_temp.outcome();
SELECT subscription, detail_type, error_message FROM mp_dlq WHERE subscription = 'a' ORDER BY id;
ALTER FUNCTION handle_gone RENAME TO handle_a;
SELECT mp_resume_subscription('a');
-- More subscriptions than subtransactions: the last ones, by name, get theirs from the sweep.
SELECT count(mp_subscribe('crowd ' || to_char(n, 'FM00'), '{"detail-type": ["Crowd"]}', 'handle_b(meal_planner.event)')) FROM generate_series(1, 60) n;
SELECT mp_put_events('[{"Source": "s", "DetailType": "Crowd", "Detail": {"n": 6}}, {"Source": "s", "DetailType": "Crowd", "Detail": {"n": 7}}]') -> 'FailedEntryCount' AS failed;
SELECT count(*) AS run FROM handled;
SELECT count(*), min(subscription), max(subscription), max(attempt) AS attempt FROM meal_planner.delivery;
SELECT done FROM pg_temp.outcome() WHERE subscription = 'b';
SELECT count(mp_unsubscribe('crowd ' || to_char(n, 'FM00'))) FROM generate_series(1, 60) n;

-- A handler that emits, one event or a batch of them: their handlers run within it, and go with it.
CREATE FUNCTION on_nest(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM mp_emit_event('Work', jsonb_build_object('n', 1000 + (e.detail ->> 'n')::int), account => 'nest');
    PERFORM mp_put_events(jsonb_build_array(
        jsonb_build_object('Source', 's', 'DetailType', 'Work', 'Detail', jsonb_build_object('n', 2000 + (e.detail ->> 'n')::int)),
        jsonb_build_object('Source', 's', 'DetailType', 'Other', 'Detail', jsonb_build_object('n', 3000 + (e.detail ->> 'n')::int))), 'nest');
    IF (e.detail ->> 'n')::int = 2 THEN
        RAISE 'second thoughts' USING ERRCODE = 'MPT01';
    END IF;
END $$;
SELECT mp_subscribe('nest', '{"detail-type": ["Nest"]}', 'on_nest(meal_planner.event)');
SELECT mp_put_events((SELECT jsonb_agg(jsonb_build_object('Source', 's', 'DetailType', 'Nest', 'Detail', jsonb_build_object('n', n), 'Stream', 'nest') ORDER BY n)
                        FROM generate_series(1, 3) n), 'nest') -> 'FailedEntryCount' AS failed;
SELECT detail_type, detail, version, hops FROM meal_planner.event WHERE account = 'nest' ORDER BY position;
SELECT subscription, n FROM handled ORDER BY seq;
SELECT subscription, attempt, error_message FROM meal_planner.delivery;
DELETE FROM handled;
DELETE FROM meal_planner.delivery;
-- A circle of batches ends.
CREATE FUNCTION on_circle(e meal_planner.event) RETURNS void LANGUAGE sql AS $$
    SELECT mp_put_events('[{"Source": "s", "DetailType": "Circle", "Detail": {}}]', 'circle')
$$;
SELECT mp_subscribe('circle', '{"detail-type": ["Circle"]}', 'on_circle(meal_planner.event)');
SELECT mp_put_events('[{"Source": "s", "DetailType": "Circle", "Detail": {}}]', 'circle') -> 'FailedEntryCount' AS failed;
SELECT count(*), max(hops) FROM meal_planner.event WHERE account = 'circle';
SELECT reason, "sqlstate", left(error_message, 60) AS message FROM mp_dlq WHERE subscription = 'circle';
SELECT mp_unsubscribe('circle'), mp_unsubscribe('nest'), mp_unsubscribe('a'), mp_unsubscribe('b');
DROP FUNCTION on_circle, on_nest, handle_a, handle_b, handle;
DROP TABLE handled, broken;

-- No array; an empty one; a bad account fails every entry.
SELECT mp_put_events('{}');
\echo :LAST_ERROR_SQLSTATE
SELECT mp_put_events('"x"');
SELECT mp_put_events(NULL);
SELECT mp_put_events((SELECT jsonb_agg(0) FROM generate_series(1, 10001)));
SELECT mp_put_events('[]');
SELECT mp_put_events('[{"Source": "s", "DetailType": "T", "Detail": {}}]', '');

SELECT mp_unsubscribe('put');
DROP FUNCTION on_put;
DROP TABLE seen;
