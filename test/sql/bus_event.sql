-- mp_emit_event and mp_event: the envelope, its limits, positions and ids.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS meal_planner CASCADE;
CREATE EXTENSION meal_planner;
RESET client_min_messages;

CREATE FUNCTION pg_temp.refusal(call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    state text; message text; hint text;
BEGIN
    EXECUTE call;
    RETURN 'accepted';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
    RETURN CASE WHEN message LIKE state || ': %' THEN '' ELSE '(' || state || ') ' END || message || ' / ' || hint;
END $$;

-- Everything said, and nothing said: NULL means the default everywhere.
SELECT mp_emit_event(
    detail_type => 'RecipeRated', detail => '{"stars": 5, "by": null, "tags": ["quick", {"a": 1.50}]}',
    source => 'tablet', resources => '{recipe/1,recipe/2}', account => 'smith', region => 'kitchen',
    event_time => '2026-11-23 12:00:00.5+02', idempotency_key => 'k1', stream => 'recipe/1',
    expected_version => 0, deliver_after => '2026-11-24 00:00+00') AS id \gset full_
SELECT mp_emit_event('Plain', '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL) AS id \gset plain_

SELECT key, CASE key WHEN 'id' THEN (value #>> '{}' = :'full_id')::text ELSE value::text END
  FROM jsonb_each(mp_event(:'full_id', 'smith')) ORDER BY key;
SELECT key, CASE key WHEN 'id' THEN (value #>> '{}' = :'plain_id')::text
                     WHEN 'time' THEN ((value #>> '{}')::timestamptz BETWEEN now() - interval '1 minute' AND clock_timestamp())::text
                     ELSE value::text END
  FROM jsonb_each(mp_event(:'plain_id')) ORDER BY key;
SELECT mp_event(:'plain_id', NULL) = mp_event(:'plain_id') AS null_account_is_local;

-- The row has what the envelope does not.
SELECT account, detail_type, stream, version, deliver_after AT TIME ZONE 'UTC' AS deliver_after, idempotency_key, hops
  FROM meal_planner.event ORDER BY position;

-- Of another account, or unknown, or no id of this extension: nothing.
SELECT mp_event(:'full_id') IS NULL AS other_account,
       mp_event(gen_random_uuid()) IS NULL AS random_id,
       mp_event('018cc251-f7e8-7000-8000-000000000000') IS NULL AS not_there,
       mp_event(NULL) IS NULL AS no_id;

-- The id leads to the position by arithmetic.
SELECT count(*) AS events,
       bool_and(position = meal_planner.event_position(id)) AS by_arithmetic,
       bool_and(meal_planner.position_at(meal_planner.position_time(position)) >> 10 = position >> 10) AS and_back,
       bool_and(position & 1023 = current_setting('meal_planner.node_id')::int) AS node
  FROM meal_planner.event;
SELECT meal_planner.position_at('2024-01-01 00:00:01+00') AS one_second,
       meal_planner.position_time(1024000000) = '2024-01-01 00:00:01+00' AS and_back,
       meal_planner.event_position('018cc251-f7e8-7000-8000-000000000000') AS of_id,
       meal_planner.event_position('018cc251-f7e8-701c-8050-ffffffffffff') AS tick_7_node_5,
       meal_planner.event_position('018cc251-f7e8-4000-8000-000000000000') AS of_version_4,
       meal_planner.event_position('018cc251-f7e8-7000-c000-000000000000') AS of_other_variant,
       meal_planner.event_position('018cc251-f7e8-7fff-8000-000000000000') AS of_microsecond_1023;
SELECT meal_planner.position_at('infinity') > meal_planner.position_at('2300-01-01') AS latest,
       meal_planner.position_at('-infinity') AS earliest, meal_planner.position_at('1999-01-01') AS before_epoch,
       meal_planner.position_time(-1) AS of_nothing;

-- The clock set back an hour: times go back, positions and ids do not.
SELECT count(mp_emit_event('Tick', jsonb_build_object('n', n), account => 'clock')) FROM generate_series(1, 3) n;
SET meal_planner.clock_offset = -3600;
SELECT count(mp_emit_event('Tick', jsonb_build_object('n', n), account => 'clock')) FROM generate_series(4, 6) n;
RESET meal_planner.clock_offset;
SELECT count(mp_emit_event('Tick', jsonb_build_object('n', n), account => 'clock')) FROM generate_series(7, 9) n;
SELECT array_agg((detail ->> 'n')::int ORDER BY position) AS by_position,
       array_agg((detail ->> 'n')::int ORDER BY id) AS by_id,
       count(DISTINCT position) AS positions,
       max(time) FILTER (WHERE detail ->> 'n' IN ('4', '5', '6')) < min(time) - interval '-1 second' AS times_went_back,
       max(time) - min(time) > interval '59 minutes' AS by_an_hour
  FROM meal_planner.event WHERE account = 'clock';
-- Only a superuser may shift it.
CREATE ROLE mp_test_plain;
SET ROLE mp_test_plain;
SET meal_planner.clock_offset = 1;
RESET ROLE;
DROP ROLE mp_test_plain;

-- What is refused names the field.
SELECT refusal.* FROM (VALUES
    ($$NULL, '{}'$$), ($$'', '{}'$$), ($$repeat('x', 129), '{}'$$), ($$E'two\nlines', '{}'$$),
    ($$'T', NULL$$), ($$'T', '[]'$$), ($$'T', '"x"'$$), ($$'T', 'null'$$), ($$'T', '1'$$),
    ($$'T', '{}', source => ''$$), ($$'T', '{}', source => repeat('x', 257)$$), ($$'T', '{}', source => E'a\tb'$$),
    ($$'T', '{}', account => ''$$), ($$'T', '{}', account => repeat('x', 129)$$), ($$'T', '{}', account => E'\x7f'$$),
    ($$'T', '{}', region => ''$$), ($$'T', '{}', region => repeat('x', 65)$$),
    ($$'T', '{}', stream => ''$$), ($$'T', '{}', stream => repeat('x', 256)$$),
    ($$'T', '{}', idempotency_key => ''$$), ($$'T', '{}', idempotency_key => repeat('x', 256)$$),
    ($$'T', '{}', resources => '{a,NULL}'$$), ($$'T', '{}', resources => '{{a},{b}}'$$), ($$'T', '{}', resources => '{""}'$$),
    ($$'T', '{}', resources => array_fill('r'::text, ARRAY[101])$$),
    ($$'T', '{}', resources => ARRAY[repeat('x', 2049)]$$),
    ($$'T', '{}', event_time => 'infinity'$$), ($$'T', '{}', deliver_after => '-infinity'$$),
    ($$'T', '{}', event_time => '0044-03-15 BC'$$), ($$'T', '{}', event_time => '10000-01-01 00:00+00'$$),
    ($$'T', '{}', expected_version => 1$$), ($$'T', '{}', stream => 's', expected_version => -1$$),
    ($$'T', jsonb_build_object('x', repeat('x', 1048576))$$),
    ($$'T', jsonb_build_object('x', repeat('x', 1000000)), resources => array_fill(repeat('x', 1000), ARRAY[60])$$)
  ) AS t (arguments),
  LATERAL (SELECT arguments, pg_temp.refusal('SELECT mp_emit_event(' || arguments || ')')) refusal;

-- The longest that is accepted; characters are counted, not bytes.
SELECT accepted.* FROM (VALUES
    ($$repeat('ü', 128), '{}'$$), ($$'T', '{}', source => repeat('ü', 256)$$), ($$'T', '{}', account => repeat('ü', 128)$$),
    ($$'T', '{}', region => repeat('x', 64)$$), ($$'T', '{}', stream => repeat('ü', 255)$$),
    ($$'T', '{}', idempotency_key => repeat('ü', 255)$$), ($$'T', '{}', idempotency_key => E'any\nthing'$$),
    ($$'T', '{}', resources => array_fill(repeat('x', 2048), ARRAY[100])$$),
    ($$'T', jsonb_build_object('x', repeat('x', 1048000))$$),
    ($$'T', '{}', event_time => '0001-01-01 00:00+00'$$), ($$'T', '{}', event_time => '9999-12-31 23:59:59.999999+00'$$)
  ) AS t (arguments),
  LATERAL (SELECT arguments, pg_temp.refusal('SELECT mp_emit_event(' || arguments || ')')) accepted;

-- A refused event leaves nothing.
SELECT count(*) FROM meal_planner.event WHERE account IN ('local') AND detail_type IN ('', E'two\nlines');

-- Handlers that emit to each other are stopped: the client's event, and max_hops behind it.
CREATE FUNCTION on_echo(e meal_planner.event) RETURNS void LANGUAGE sql AS
$$ SELECT mp_emit_event('Echo', jsonb_build_object('n', (e.detail ->> 'n')::int + 1), account => e.account) $$;
SELECT mp_subscribe('echo', '{"detail-type": ["Echo"]}', 'on_echo(meal_planner.event)');
SELECT mp_emit_event('Echo', '{"n": 0}', account => 'echo') IS NOT NULL AS emitted;
SELECT count(*) AS events, max(hops) AS hops, bool_and(hops = (detail ->> 'n')::int) AS counted
  FROM meal_planner.event WHERE account = 'echo';
SELECT subscription, error_type, sqlstate, error_message, error_hint, event -> 'detail' AS detail
  FROM mp_dlq WHERE account = 'echo';
SET meal_planner.max_hops = 0;
SELECT mp_emit_event('Echo', '{"n": 0}', account => 'echo0') IS NOT NULL AS emitted;
RESET meal_planner.max_hops;
SELECT count(*) AS events FROM meal_planner.event WHERE account = 'echo0';
SELECT sqlstate, error_message FROM mp_dlq WHERE account = 'echo0';
SELECT mp_unsubscribe('echo');

-- Rows that a client did not emit (a restore) fire no handler, and the clock stays above them.
CREATE FUNCTION on_restored(e meal_planner.event) RETURNS void LANGUAGE sql AS $$ SELECT 1 / 0 $$;
SELECT mp_subscribe('restored', '{"account": ["restore"]}', 'on_restored(meal_planner.event)');
SELECT mp_emit_event('Old', '{}', account => 'elsewhere') AS id \gset old_
INSERT INTO meal_planner.event
SELECT 'restore', position + (1000000 << 10), id, detail_type, source, time, region, resources, detail, stream, version,
       deliver_after, idempotency_key, hops
  FROM meal_planner.event WHERE account = 'elsewhere';
SELECT count(*) AS handled FROM meal_planner.dead_letter WHERE account = 'restore';
SELECT mp_emit_event('New', '{}', account => 'elsewhere') AS id \gset new_
SELECT meal_planner.event_position(:'new_id') > max(position) AS above_it FROM meal_planner.event WHERE account = 'restore';
SELECT mp_unsubscribe('restored');

DROP FUNCTION on_echo, on_restored;
