-- mp_claim_json: the events of mp_claim, as the text that jsonb would print.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS meal_planner CASCADE;
CREATE EXTENSION meal_planner;
RESET client_min_messages;
\set SHOW_CONTEXT never

SELECT mp_subscribe('texts', '{"source":["json-test"]}', mode => 'pull');

-- What it looks like.
SELECT mp_emit_event('Written', '{"b": [1, 2.50, -0.0, 1e3, {}], "a": {"z": null, "": [], "y": [true, false]}}', 'json-test',
                     ARRAY['arn:one', 'a "quoted" one'], event_time => '2026-11-23 08:00:00.5+00') AS id \gset
SELECT replace(event::text, :'id', '...') AS event, pg_typeof(event), event_id = :'id' AS same, attempt,
       event::text = mp_event(:'id')::text AS equal, mp_ack(token)
  FROM mp_claim_json('texts');

-- Strings: each character that is escaped, at every place in a word of eight; plain ones of every length; names, too.
SELECT count(mp_emit_event('Written', jsonb_build_object(
           repeat('k', at) || c, repeat('x', at) || c || repeat('y', 9 - at), 's', ARRAY[c, repeat('z', at), repeat(c, at)]), 'json-test')) AS strings
  FROM generate_series(0, 9) at,
       unnest(ARRAY['"', '\', '/', E'\b', E'\f', E'\n', E'\r', E'\t', E'\x7f', ' ', '!', '#', '[', ']', 'é', '€', '𝄞', U&'\2028',
                    U&'\0080', '<', '&'] || ARRAY(SELECT chr(n) FROM generate_series(1, 31) n)) c;
-- Numbers: large, small, with zeroes behind the point, and those that JSON writes with an exponent.
SELECT count(mp_emit_event('Written', jsonb_build_object('n', n::numeric, 'f', n::float8, 'a', ARRAY[n::numeric, -n::numeric]), 'json-test')) AS numbers
  FROM unnest(string_to_array('0 1 -1 9999 10000 99999999 100000000 1.0 1.50 0.000001 1e20 1e-20 1.7976931348623157e308 5e-324 123456789012345678901234567890.123456789'
                              || ' 9223372036854775807 0.1 3.14159265358979', ' ')) n;
SELECT mp_emit_event('Written', ('{"huge": 1' || repeat('0', 2000) || ', "tiny": 1e-500, "exponent": [1e5, 1.5E+10, 2E-3]}')::jsonb, 'json-test') IS NOT NULL AS emitted;
SELECT setseed(0.17) IS NOT NULL AS seeded;
SELECT count(mp_emit_event('Written', d, 'json-test')) AS numbers
  FROM (SELECT jsonb_build_object(s::text, jsonb_agg(round(((random() - 0.5) * 10.0 ^ (random() * 2 * s - s))::numeric, (random() * s)::int)
                                                     * CASE WHEN n % 7 = 0 THEN 10::numeric ^ (n % 80) ELSE 1 END)) AS d
          FROM generate_series(1, 70) s, generate_series(1, 100) n GROUP BY s) x;
-- Containers: more entries than a stretch of offsets has, empty ones, deep ones, a long string.
SELECT mp_emit_event('Written', jsonb_object_agg('k' || n, n), 'json-test') IS NOT NULL AS wide_object FROM generate_series(1, 200) n;
SELECT mp_emit_event('Written', jsonb_build_object('a', jsonb_agg(CASE n % 4 WHEN 0 THEN to_jsonb(n) WHEN 1 THEN '"s"' WHEN 2 THEN '{}' ELSE '[[]]' END)), 'json-test')
       IS NOT NULL AS wide_array FROM generate_series(1, 200) n;
SELECT mp_emit_event('Written', (repeat('{"a":[', 200) || repeat(']}', 200))::jsonb, 'json-test') IS NOT NULL AS deep;
SELECT mp_emit_event('Written', jsonb_build_object('long', repeat(E'0123456\n', 50000)), 'json-test', ARRAY['x', '"', '\é']) IS NOT NULL AS long;
SELECT mp_emit_event(repeat('"', 128), '{"names": "of the envelope"}', 'json-test', region => 'r\"1"', stream => 's') IS NOT NULL AS names;

-- Documents at random.
CREATE FUNCTION pg_temp.random_string() RETURNS text LANGUAGE sql VOLATILE AS $$
    SELECT coalesce(string_agg(CASE WHEN random() < 0.7 THEN chr(97 + (random() * 25)::int)
                                    WHEN random() < 0.5 THEN chr(1 + (random() * 126)::int)
                                    ELSE chr(160 + (random() * 50000)::int) END, ''), '')
      FROM generate_series(1, (random() * random() * 40)::int) AS n
     WHERE n IS NOT NULL
$$;
CREATE FUNCTION pg_temp.random_json(depth int) RETURNS jsonb LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    kind   int := CASE WHEN depth <= 0 THEN 5 ELSE 0 END + floor(random() * CASE WHEN depth <= 0 THEN 5 ELSE 10 END)::int;
    result jsonb;
BEGIN
    CASE
        WHEN kind < 3 THEN
            result := '{}';
            FOR i IN 1 .. (random() * 6)::int LOOP
                result := result || jsonb_build_object(pg_temp.random_string(), pg_temp.random_json(depth - 1));
            END LOOP;
        WHEN kind < 5 THEN
            result := '[]';
            FOR i IN 1 .. (random() * 6)::int LOOP
                result := result || jsonb_build_array(pg_temp.random_json(depth - 1));
            END LOOP;
        WHEN kind < 7 THEN result := to_jsonb(pg_temp.random_string());
        WHEN kind = 7 THEN result := to_jsonb(round((random() * 1e9 - 5e8)::numeric, (random() * 8)::int));
        WHEN kind = 8 THEN result := to_jsonb((random() - 0.5) * 10 ^ (random() * 600 - 300));
        ELSE result := CASE floor(random() * 3)::int WHEN 0 THEN 'null' WHEN 1 THEN 'true' ELSE 'false' END;
    END CASE;
    RETURN result;
END
$$;
SELECT setseed(0.42) IS NOT NULL AS seeded;
SELECT mp_put_events(jsonb_agg(jsonb_build_object('Source', 'json-test', 'DetailType', 'Random',
                                                  'Detail', jsonb_build_object(pg_temp.random_string(), pg_temp.random_json(4)),
                                                  'Resources', CASE WHEN n % 5 = 0 THEN jsonb_build_array('r' || n, '"\' || n) ELSE '[]' END)))
       -> 'FailedEntryCount' AS failed
  FROM generate_series(1, 3000) n;

-- The text of all of them is the one of the envelope as jsonb, which goes another way.
CREATE TEMP TABLE claimed AS SELECT * FROM mp_claim_json('texts', 10000);
SELECT count(*), count(DISTINCT token) AS tokens, count(*) FILTER (WHERE c.event::text = mp_event(c.event_id)::text) = count(*) AS equal,
       max(octet_length(c.event::text)) > 450000 AS has_long
  FROM claimed c;
SELECT c.event_id, c.event, mp_event(c.event_id) FROM claimed c WHERE c.event::text <> mp_event(c.event_id)::text LIMIT 3;
SELECT mp_ack(token) FROM (SELECT DISTINCT token FROM claimed) c;

-- What fails comes again, to either of the two; one token is as good as the other.
SELECT mp_emit_event('Written', '{"n": 1}', 'json-test') IS NOT NULL AS emitted;
SELECT mp_fail(token, event_id, 'transient', 'no', 0) FROM mp_claim('texts');
SELECT attempt, event -> 'detail' AS detail, mp_fail(token, event_id, 'permanent', 'no') FROM mp_claim_json('texts');
-- A dead letter with a corrected detail, and events of a replay, which carry its name.
SELECT mp_replay_dlq(id, '{"corrected": "é\n"}') FROM mp_dlq;
SELECT event -> 'detail' AS detail, mp_ack(token) FROM mp_claim_json('texts');
SELECT mp_replay('texts', name => E'again "1"');
SELECT event ->> 'replay-name' AS replay, event::text = (mp_event(event_id) || jsonb_build_object('replay-name', E'again "1"'))::text AS equal, mp_ack(token)
  FROM mp_claim_json('texts', 1);
-- Errors are those of mp_claim.
SELECT mp_claim_json('nobody');
SELECT mp_claim_json('texts', 0);
