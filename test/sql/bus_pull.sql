-- Pull subscriptions: claims under a lease, acknowledged or failed.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS meal_planner CASCADE;
CREATE EXTENSION meal_planner;
RESET client_min_messages;
\set SHOW_CONTEXT never

CREATE TEMP TABLE held (name text PRIMARY KEY, token uuid);
CREATE FUNCTION pg_temp.emit(n int, type text DEFAULT 'Pulled', due timestamptz DEFAULT NULL) RETURNS uuid
LANGUAGE sql AS $$
    SELECT mp_emit_event(type, jsonb_build_object('n', n), source => 'pull-test', deliver_after => due)
$$;
-- Claims, keeps the token under a name and tells what was claimed.
CREATE FUNCTION pg_temp.take(consumer text, most int DEFAULT 100, lease float8 DEFAULT 30)
RETURNS TABLE (n int, attempt int, same_token boolean)
LANGUAGE plpgsql AS $$
DECLARE
    got record;
BEGIN
    DELETE FROM pg_temp.held h WHERE h.name = consumer;
    FOR got IN SELECT * FROM mp_claim('pulled', most, lease, consumer) LOOP
        INSERT INTO pg_temp.held VALUES (consumer, got.token) ON CONFLICT DO NOTHING;
        n := got.event -> 'detail' -> 'n';
        attempt := got.attempt;
        same_token := (SELECT h.token = got.token FROM pg_temp.held h WHERE h.name = consumer);
        ASSERT got.event = mp_event(got.event_id);
        RETURN NEXT;
    END LOOP;
END
$$;
CREATE FUNCTION pg_temp.token(consumer text) RETURNS uuid
LANGUAGE sql AS $$ SELECT h.token FROM pg_temp.held h WHERE h.name = consumer $$;
CREATE FUNCTION pg_temp.id(wanted int) RETURNS uuid
LANGUAGE sql AS $$
    SELECT e.id FROM meal_planner.event e WHERE e.source = 'pull-test' AND e.detail = jsonb_build_object('n', wanted)
$$;
CREATE FUNCTION pg_temp.clock_goes(seconds float8) RETURNS text
LANGUAGE sql AS $$
    SELECT set_config('meal_planner.clock_offset',
                      (current_setting('meal_planner.clock_offset')::float8 + seconds)::text, false)
$$;
CREATE VIEW pg_temp.state AS
SELECT (SELECT count(*) FROM meal_planner.consumer_claim) AS claims,
       (SELECT count(*) FROM meal_planner.delivery WHERE subscription = 'pulled') AS deliveries,
       (SELECT count(*) FROM meal_planner.dead_letter WHERE subscription = 'pulled' AND status = 'dead') AS dead;

SELECT mp_subscribe('pulled', '{"source":["pull-test"],"detail-type":["Pulled"]}', mode => 'pull');
SELECT count(pg_temp.emit(n)) FROM generate_series(1, 7) n;

-- Two consumers share the subscription: nobody gets what another holds.
SELECT * FROM pg_temp.take('a', 3);
SELECT * FROM pg_temp.take('b', 3);
SELECT * FROM pg_temp.take('c', 3);
SELECT * FROM pg_temp.take('d', 3);
SELECT worker, remaining, deliveries, settled FROM meal_planner.consumer_claim ORDER BY number;
SELECT in_flight, lag_events FROM mp_subscriptions WHERE name = 'pulled';

-- All of a claim is acknowledged, once.
SELECT mp_ack(pg_temp.token('a'));
SELECT mp_ack(pg_temp.token('a')) AS again;
-- Some of it; twice does no harm.
SELECT mp_ack(pg_temp.token('b'), ARRAY[pg_temp.id(4)]), mp_ack(pg_temp.token('b'), ARRAY[pg_temp.id(4)]) AS again;
SELECT remaining FROM meal_planner.consumer_claim WHERE worker = 'b';
\set VERBOSITY sqlstate
SELECT mp_ack(pg_temp.token('b'), ARRAY[pg_temp.id(1)]) AS not_mine;
\set VERBOSITY default
-- The last one closes the claim.
SELECT mp_ack(pg_temp.token('b'), ARRAY[pg_temp.id(5), pg_temp.id(6)]);
SELECT mp_ack(pg_temp.token('b')) AS closed;

-- A failure is retried after 2 s, for whoever claims then.
SELECT mp_fail(pg_temp.token('c'), pg_temp.id(7), 'transient', 'no answer');
SELECT mp_fail(pg_temp.token('c'), pg_temp.id(7), 'transient', 'no answer') AS again;
SELECT * FROM pg_temp.state;
SELECT * FROM pg_temp.take('a');
SELECT pg_temp.clock_goes(2.1) IS NOT NULL AS later;
SELECT * FROM pg_temp.take('a');
SELECT in_flight, retrying FROM mp_subscriptions WHERE name = 'pulled';
-- The consumer knows better when.
SELECT mp_fail(pg_temp.token('a'), pg_temp.id(7), 'transient', 'too many requests', 60);
SELECT pg_temp.clock_goes(59) IS NOT NULL AS later;
SELECT * FROM pg_temp.take('a');
SELECT pg_temp.clock_goes(2) IS NOT NULL AS later;
SELECT * FROM pg_temp.take('a');
-- Permanent: a dead letter, an alert.
SELECT mp_fail(pg_temp.token('a'), pg_temp.id(7), 'permanent', 'no such recipe');
SELECT error_type, reason, error_message, retry_count, status
  FROM meal_planner.dead_letter WHERE subscription = 'pulled';
SELECT * FROM pg_temp.state;

-- A lease that ends is a failed attempt of every event still held.
SELECT count(pg_temp.emit(n)) FROM generate_series(11, 14) n;
SELECT * FROM pg_temp.take('a', 10, 30);
SELECT mp_ack(pg_temp.token('a'), ARRAY[pg_temp.id(12)]);
SELECT pg_temp.clock_goes(29) IS NOT NULL AS later;
SELECT * FROM pg_temp.take('b');
SELECT mp_extend(pg_temp.token('a'), 30);
SELECT pg_temp.clock_goes(29) IS NOT NULL AS later;
SELECT * FROM pg_temp.take('b');
SELECT pg_temp.clock_goes(2) IS NOT NULL AS later;
-- Nobody has noticed yet, but the lease is over.
SELECT mp_ack(pg_temp.token('a')), mp_extend(pg_temp.token('a'), 30),
       mp_fail(pg_temp.token('a'), pg_temp.id(11), 'transient', 'late');
SELECT * FROM pg_temp.take('b');
SELECT pg_temp.clock_goes(2.1) IS NOT NULL AS later;
SELECT * FROM pg_temp.take('b', lease => 10);
SELECT mp_ack(pg_temp.token('b'), ARRAY[pg_temp.id(11)]);
SELECT * FROM pg_temp.state;
-- The attempts go on counting until they are used up.
SELECT pg_temp.clock_goes(11) IS NOT NULL AS later;
SELECT * FROM pg_temp.take('b');
SELECT pg_temp.clock_goes(4.1) IS NOT NULL AS later;
SELECT * FROM pg_temp.take('b', lease => 10);
SELECT pg_temp.clock_goes(11) IS NOT NULL AS later;
SELECT * FROM pg_temp.take('b');
SELECT pg_temp.clock_goes(8.1) IS NOT NULL AS later;
SELECT * FROM pg_temp.take('b', lease => 10);
SELECT pg_temp.clock_goes(11) IS NOT NULL AS later;
SELECT * FROM pg_temp.take('b');
SELECT pg_temp.clock_goes(16.1) IS NOT NULL AS later;
SELECT * FROM pg_temp.take('b', lease => 10);
SELECT pg_temp.clock_goes(11) IS NOT NULL AS later;
SELECT * FROM pg_temp.take('b');
SELECT * FROM pg_temp.state;
SELECT e.detail, l.reason, l.retry_count, l.error_message
  FROM meal_planner.dead_letter l JOIN meal_planner.event e USING (account, position)
 WHERE l.subscription = 'pulled' ORDER BY l.position;

-- A first attempt can be the last: the next one would come too late.
SELECT mp_subscribe('hurried', '{"source":["pull-test"],"detail-type":["Hurried"]}', mode => 'pull',
                    options => '{"base_delay": 100, "max_age": 50}');
SELECT count(pg_temp.emit(n, 'Hurried')) FROM generate_series(15, 16) n;
SELECT mp_fail(token, event_id, 'transient', 'no answer') FROM mp_claim('hurried', 1);
SELECT count(*) FROM mp_claim('hurried', 1, 10);
SELECT pg_temp.clock_goes(11) IS NOT NULL AS later;
SELECT * FROM mp_claim('hurried');
SELECT e.detail, l.reason, l.retry_count, l.error_message
  FROM meal_planner.dead_letter l JOIN meal_planner.event e USING (account, position)
 WHERE l.subscription = 'hurried' ORDER BY l.position;
SELECT mp_unsubscribe('hurried');

-- A lease made shorter ends sooner.
SELECT count(pg_temp.emit(n)) FROM generate_series(21, 22) n;
SELECT * FROM pg_temp.take('a', lease => 3600);
SELECT mp_extend(pg_temp.token('a'), 5);
SELECT pg_temp.clock_goes(6) IS NOT NULL AS later;
SELECT count(*) FROM pg_temp.take('b');
SELECT pg_temp.clock_goes(2.1) IS NOT NULL AS later;
SELECT * FROM pg_temp.take('b');
SELECT mp_ack(pg_temp.token('b'));

-- What does not match is passed; a delayed event comes when it is due.
SELECT pg_temp.emit(31, due => meal_planner.clock() + interval '1 hour') IS NOT NULL AS delayed,
       pg_temp.emit(32) IS NOT NULL AS at_once, pg_temp.emit(33, 'Other') IS NOT NULL AS other;
SELECT * FROM pg_temp.take('a');
SELECT remaining, cardinality(settled) AS settled FROM meal_planner.consumer_claim;
SELECT mp_ack(pg_temp.token('a'));
SELECT pg_temp.emit(34, 'Other') IS NOT NULL AS other;
SELECT * FROM pg_temp.take('a');
SELECT pg_temp.clock_goes(3601) IS NOT NULL AS later;
SELECT * FROM pg_temp.take('a');
SELECT mp_ack(pg_temp.token('a'));
SELECT * FROM pg_temp.state;
SELECT count(*) = 1 AS one_cursor FROM meal_planner.subscription_cursor WHERE subscription = 'pulled';

-- A claim may hold both; the sweep ends leases where nobody claims any more.
SELECT pg_temp.emit(41) IS NOT NULL AS emitted;
SELECT * FROM pg_temp.take('a');
SELECT mp_fail(pg_temp.token('a'), pg_temp.id(41), 'transient', 'no answer', 0);
SELECT pg_temp.emit(42) IS NOT NULL AS emitted;
SELECT * FROM pg_temp.take('a', lease => 10);
SELECT remaining, deliveries FROM meal_planner.consumer_claim;
SELECT pg_temp.clock_goes(11) IS NOT NULL AS later;
SELECT meal_planner.sweep_maintain();
SELECT * FROM pg_temp.state;
SELECT pg_temp.clock_goes(10) IS NOT NULL AS later;
SELECT * FROM pg_temp.take('a');
SELECT mp_ack(pg_temp.token('a'));
SELECT * FROM pg_temp.state;

-- Paused: nothing is handed out, nothing is lost.
SELECT pg_temp.emit(51) IS NOT NULL AS emitted, mp_pause_subscription('pulled', 'night');
SELECT * FROM pg_temp.take('a');
SELECT mp_resume_subscription('pulled');
SELECT * FROM pg_temp.take('a');
SELECT mp_ack(pg_temp.token('a'));

-- Two hold a retry each: who acknowledges all has done its own.
SELECT count(pg_temp.emit(n)) FROM generate_series(52, 53) n;
SELECT * FROM pg_temp.take('a');
SELECT mp_fail(pg_temp.token('a'), pg_temp.id(n), 'transient', 'no answer', 0) FROM generate_series(52, 53) n;
SELECT * FROM pg_temp.take('a', 1);
SELECT * FROM pg_temp.take('b', 1);
SELECT mp_ack(pg_temp.token('a'));
SELECT * FROM pg_temp.state;
SELECT mp_ack(pg_temp.token('b'));
SELECT * FROM pg_temp.state;

-- Another account has a cursor of its own.
SELECT mp_emit_event('Pulled', '{"n": 61}', source => 'pull-test', account => 'other') IS NOT NULL AS emitted;
SELECT event -> 'detail' AS detail FROM mp_claim('pulled', account => 'other');
SELECT * FROM pg_temp.take('a');

-- Waiting: nothing comes, then something is there already.
SELECT count(*) FROM mp_claim('pulled', wait_seconds => 0.05);

-- What is wrong with a call is said.
SELECT mp_claim('nobody');
CREATE FUNCTION on_nothing(e meal_planner.event) RETURNS void LANGUAGE sql AS '';
SELECT mp_subscribe('inline', '{"source":["x"]}', 'on_nothing(meal_planner.event)');
SELECT mp_claim('inline');
SELECT mp_subscribe('pulled', '{"source":["x"]}', 'on_nothing(meal_planner.event)', 'pull');
SELECT mp_claim('pulled', 0);
SELECT mp_claim('pulled', lease_seconds => 0);
SELECT mp_claim('pulled', wait_seconds => 3600);
SELECT mp_claim(NULL);
SELECT mp_fail('01a20852-dae2-75a1-8003-de63285ecf6a', '01a20852-dae2-75a1-8003-de63285ecf6a', 'fatal', 'x');
SELECT mp_fail(NULL, NULL, 'transient', 'x');
SELECT mp_extend('01a20852-dae2-75a1-8003-de63285ecf6a', -1);
SELECT mp_ack(NULL) AS null_token, mp_ack('00000000-0000-0000-0000-000000000000') AS no_token,
       mp_ack('01a20852-dae2-75a1-8003-de63285ecf6a') AS unknown;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT mp_claim('pulled');
ROLLBACK;
SELECT mp_unsubscribe('pulled');
SELECT * FROM meal_planner.consumer_claim;
RESET meal_planner.clock_offset;
