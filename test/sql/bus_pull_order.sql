-- Order keys of pull subscriptions: of a key at most one claim is out, and its
-- events are handed out in order, through retries and dead letters.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS meal_planner CASCADE;
CREATE EXTENSION meal_planner;
RESET client_min_messages;
\set SHOW_CONTEXT never

CREATE TEMP TABLE held (name text PRIMARY KEY, token uuid);
-- Events are named by their key and a number: a1, a2, b1 ...
CREATE FUNCTION pg_temp.emit(VARIADIC names text[]) RETURNS bigint LANGUAGE sql AS $$
    SELECT count(mp_emit_event('Ordered', jsonb_build_object('name', n) ||
                               CASE WHEN n LIKE '-%' THEN '{}' ELSE jsonb_build_object('key', left(n, 1)) END, source => 'order'))
      FROM unnest(names) n
$$;
CREATE FUNCTION pg_temp.take(consumer text, most int DEFAULT 100, sub text DEFAULT 'ordered') RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    got  text;
    mine uuid;
BEGIN
    DELETE FROM pg_temp.held h WHERE h.name = consumer;
    SELECT string_agg(c.event -> 'detail' ->> 'name' || CASE WHEN c.attempt > 1 THEN '/' || c.attempt ELSE '' END, ' '), (array_agg(c.token))[1]
      INTO got, mine FROM mp_claim(sub, most, 30, consumer) c;
    INSERT INTO pg_temp.held SELECT consumer, mine WHERE mine IS NOT NULL;
    RETURN coalesce(got, 'nothing');
END $$;
CREATE FUNCTION pg_temp.token(consumer text) RETURNS uuid LANGUAGE sql AS $$ SELECT h.token FROM pg_temp.held h WHERE h.name = consumer $$;
CREATE FUNCTION pg_temp.id(wanted text) RETURNS uuid LANGUAGE sql AS $$
    SELECT e.id FROM meal_planner.event e WHERE e.source = 'order' AND e.detail ->> 'name' = wanted
$$;
CREATE FUNCTION pg_temp.clock_goes(seconds float8) RETURNS boolean LANGUAGE sql AS $$
    SELECT set_config('meal_planner.clock_offset', (current_setting('meal_planner.clock_offset')::float8 + seconds)::text, false) IS NOT NULL
$$;
CREATE VIEW pg_temp.waiting AS
SELECT e.detail ->> 'name' AS name, d.attempt, d.next_attempt_at = 'infinity' AS blocked, d.token IS NOT NULL AS claimed
  FROM meal_planner.delivery d JOIN meal_planner.event e USING (account, position) ORDER BY d.position;

SELECT mp_subscribe('ordered', '{"source":["order"]}', mode => 'pull', options => '{"order_key": "detail.key"}');
SELECT pg_temp.emit('a1', 'a2', 'b1', 'a3', '-1', 'b2', 'c1');

-- The second consumer gets no event of a key that the first one holds; what it passes waits.
SELECT pg_temp.take('x', 2), pg_temp.take('y', 2), pg_temp.take('z');
SELECT * FROM pg_temp.waiting;
SELECT worker, keys FROM meal_planner.consumer_claim ORDER BY number;
-- The key comes free with the claim, and its events come in order.
SELECT mp_ack(pg_temp.token('x'));
SELECT pg_temp.take('x');
SELECT pg_temp.emit('a4', 'd1');
SELECT pg_temp.take('v');
SELECT mp_ack(pg_temp.token('y')), mp_ack(pg_temp.token('x')), mp_ack(pg_temp.token('z')), mp_ack(pg_temp.token('v'));
SELECT pg_temp.take('x');
SELECT mp_ack(pg_temp.token('x'));
SELECT pg_temp.take('x');
SELECT * FROM pg_temp.waiting;
-- Nothing but events of a held key: they stay in the log.
SELECT pg_temp.emit('e1');
SELECT pg_temp.take('x');
SELECT pg_temp.emit('e2', 'e3');
SELECT pg_temp.take('y');
SELECT count(*) AS parked FROM meal_planner.delivery;
SELECT mp_ack(pg_temp.token('x'));
SELECT pg_temp.take('y');
SELECT mp_ack(pg_temp.token('y'));

-- A failure takes the events behind it out of the claim.
SELECT pg_temp.emit('f1', 'f2', 'g1', 'f3');
SELECT pg_temp.take('x');
SELECT mp_ack(pg_temp.token('x'), ARRAY[pg_temp.id('f1')]), mp_fail(pg_temp.token('x'), pg_temp.id('f2'), 'transient', 'no');
SELECT * FROM pg_temp.waiting;
SELECT remaining FROM meal_planner.consumer_claim;
-- They are not done, whoever says so; nor is what is acknowledged together with them.
SELECT mp_ack(pg_temp.token('x'), ARRAY[pg_temp.id('f3')]) AS behind, mp_ack(pg_temp.token('x'), ARRAY[pg_temp.id('f2')]) AS failed,
       mp_ack(pg_temp.token('x'), ARRAY[pg_temp.id('g1'), pg_temp.id('f3')]) AS with_another, mp_ack(pg_temp.token('x'), ARRAY[pg_temp.id('f1')]) AS again,
       mp_fail(pg_temp.token('x'), pg_temp.id('f3'), 'transient', 'no') AS fail;
SELECT * FROM pg_temp.waiting;
SELECT remaining FROM meal_planner.consumer_claim;
SELECT mp_ack(pg_temp.token('x'));
SELECT pg_temp.emit('f4');
SELECT pg_temp.take('y');
SELECT pg_temp.clock_goes(2.1);
SELECT pg_temp.take('y'), pg_temp.take('x');
SELECT mp_ack(pg_temp.token('y'));
SELECT pg_temp.take('y'), pg_temp.take('x');
SELECT mp_ack(pg_temp.token('y'));
SELECT pg_temp.take('y');
SELECT mp_ack(pg_temp.token('y'));
SELECT * FROM pg_temp.waiting;

-- on_dead skip: a dead letter lets the next one go.
SELECT pg_temp.emit('h1', 'h2');
SELECT pg_temp.take('x', 1);
SELECT mp_fail(pg_temp.token('x'), pg_temp.id('h1'), 'permanent', 'no');
SELECT pg_temp.take('x');
SELECT mp_ack(pg_temp.token('x'));

-- block_key: it holds them back, in the log or parked, until it is discarded.
SELECT mp_subscribe('ordered', '{"source":["order"]}', mode => 'pull', options => '{"order_key": "detail.key", "on_dead": "block_key"}');
SELECT pg_temp.emit('i1', 'i2');
SELECT pg_temp.take('x');
SELECT mp_fail(pg_temp.token('x'), pg_temp.id('i1'), 'permanent', 'no');
SELECT pg_temp.emit('i3', 'j1');
SELECT pg_temp.take('x');
SELECT mp_ack(pg_temp.token('x'));
SELECT * FROM pg_temp.waiting;
SELECT pg_temp.clock_goes(3600);
SELECT pg_temp.take('x');
SELECT name, retrying, blocked, dead FROM mp_subscriptions WHERE name = 'ordered';
SELECT mp_discard_dlq(l.id, 'not needed') FROM meal_planner.dead_letter l WHERE l.event_id = pg_temp.id('i1');
SELECT pg_temp.take('x');
SELECT mp_ack(pg_temp.token('x'));
SELECT pg_temp.take('x');
SELECT mp_ack(pg_temp.token('x'));
SELECT pg_temp.take('x');

-- A lease that ends: in order again, one after the other.
SELECT pg_temp.emit('k1', 'k2', 'l1');
SELECT pg_temp.take('x');
SELECT pg_temp.clock_goes(31);
SELECT pg_temp.take('y');
SELECT pg_temp.clock_goes(2.1);
SELECT pg_temp.take('y');
SELECT * FROM pg_temp.waiting;
SELECT mp_ack(pg_temp.token('y'));
SELECT pg_temp.take('y');
SELECT mp_ack(pg_temp.token('y'));

-- A delayed event holds back what comes behind it.
SELECT mp_emit_event('Ordered', '{"name": "m1", "key": "m"}', source => 'order', deliver_after => meal_planner.clock() + interval '10 s') IS NOT NULL AS emitted,
       pg_temp.emit('m2', 'n1');
SELECT pg_temp.take('x');
SELECT mp_ack(pg_temp.token('x'));
SELECT pg_temp.clock_goes(11);
SELECT pg_temp.take('x');
SELECT mp_ack(pg_temp.token('x'));
SELECT pg_temp.take('x');
SELECT mp_ack(pg_temp.token('x'));
SELECT * FROM pg_temp.waiting;
SELECT count(*) FROM meal_planner.consumer_claim;
SELECT mp_unsubscribe('ordered');
RESET meal_planner.clock_offset;
