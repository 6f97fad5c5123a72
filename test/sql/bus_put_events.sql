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

-- Streams: versions in the order of the entries.
SELECT * FROM pg_temp.put('[
  {"Source": "s", "DetailType": "V1", "Detail": {}, "Stream": "plan"},
  {"Source": "s", "DetailType": "bad", "Detail": 0, "Stream": "plan"},
  {"Source": "s", "DetailType": "V2", "Detail": {}, "Stream": "plan"}]', 'streams');
SELECT version, event ->> 'detail-type' AS type FROM mp_read_stream('plan', account => 'streams');

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
