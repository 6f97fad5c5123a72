-- Order per key: one event of a key after the other, whatever happens to the first.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS meal_planner CASCADE;
CREATE EXTENSION meal_planner;
RESET client_min_messages;
\set SHOW_CONTEXT never

CREATE TABLE seen (n serial, subscription text, key text, event int, attempt text);
CREATE TABLE broken (event int, sqlstate text);
CREATE FUNCTION work(name text, e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    fault text := (SELECT b.sqlstate FROM broken b WHERE b.event = (e.detail ->> 'n')::int);
BEGIN
    IF fault IS NOT NULL THEN
        RAISE EXCEPTION 'event % is broken', e.detail ->> 'n' USING ERRCODE = fault;
    END IF;
    INSERT INTO seen (subscription, key, event) VALUES (name, e.detail ->> 'k', (e.detail ->> 'n')::int);
END $$;
CREATE FUNCTION on_i(e meal_planner.event) RETURNS void LANGUAGE sql AS $$ SELECT work('i', e) $$;
CREATE FUNCTION on_w(e meal_planner.event) RETURNS void LANGUAGE sql AS $$ SELECT work('w', e) $$;
CREATE FUNCTION emit(key text, event int, delay interval DEFAULT NULL) RETURNS boolean LANGUAGE sql AS $$
    SELECT mp_emit_event('E', jsonb_strip_nulls(jsonb_build_object('k', key, 'n', event)),
                         deliver_after => meal_planner.clock() + delay) IS NOT NULL
$$;
CREATE VIEW handled AS
SELECT subscription, key, array_agg(event ORDER BY n) AS events FROM seen GROUP BY subscription, key ORDER BY 1, 2;
CREATE VIEW live AS
SELECT d.subscription, d.order_key, (e.detail ->> 'n')::int AS event, d.attempt,
       CASE WHEN d.next_attempt_at = 'infinity' THEN 'blocked'
            WHEN d.next_attempt_at <= meal_planner.clock() THEN 'due' ELSE 'later' END AS state
  FROM meal_planner.delivery d JOIN meal_planner.event e USING (account, position) ORDER BY 1, 2, 3;

-- The key of an event: a scalar that the path leads to; long ones are cut and stay different.
SELECT mp_emit_event('K', '{"s": "x", "n": 1.5, "b": true, "z": null, "o": {"p": {"q": "deep"}}, "a": [1]}', stream => 'st-1') IS NOT NULL AS emitted;
SELECT path, meal_planner.order_key(path, e)
  FROM meal_planner.event e,
       unnest('{detail.s,detail.n,detail.b,detail.z,detail.o,detail.o.p.q,detail.o.p.q.r,detail.a,detail.none,stream,source,detail-type,account,region}'::text[])
       WITH ORDINALITY AS p (path, nr)
 ORDER BY nr;
SELECT count(mp_emit_event('Long', jsonb_build_object('s', repeat('é', 5000) || n % 2))) AS emitted FROM generate_series(1, 4) n;
SELECT count(DISTINCT meal_planner.order_key('detail.s', e)) AS keys, max(octet_length(meal_planner.order_key('detail.s', e))) AS bytes
  FROM meal_planner.event e WHERE e.detail_type = 'Long';
SELECT meal_planner.order_key(NULL, e) IS NULL AS no_path, meal_planner.order_key('stream', e) IS NULL AS no_stream
  FROM meal_planner.event e WHERE e.detail_type = 'Long' LIMIT 1;
CREATE FUNCTION pg_temp.refusal(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    RETURN 'accepted';
EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE || ' ' || SQLERRM;
END $$;
SELECT options, pg_temp.refusal(format($$SELECT mp_subscribe('x', '{"account": ["nobody"]}', 'on_i(meal_planner.event)', options => %L)$$, options))
  FROM (VALUES ('{"order_key": "detail.k"}'), ('{"order_key": "stream"}'), ('{"order_key": "detail.k", "on_dead": "block_key"}'),
               ('{"order_key": "detail.k", "on_dead": "skip"}'), ('{"on_dead": "skip"}'),
               ('{"on_dead": "block_key"}'), ('{"order_key": "detail.k", "on_dead": "wait"}'), ('{"order_key": ""}'),
               ('{"order_key": "detail"}'), ('{"order_key": "detail..k"}'), ('{"order_key": "detail.k."}'), ('{"order_key": ".k"}'),
               ('{"order_key": "stream.x"}'), ('{"order_key": "nothing"}'), ('{"order_key": "resources"}'), ('{"order_key": 1}'), ('{"order_key": null}')
       ) AS o (options);
SELECT mp_unsubscribe('x');

-- Inline, on_dead skip: a failure keeps its key back and no other.
SELECT mp_subscribe('i', '{"detail-type": ["E"]}', 'on_i(meal_planner.event)', options => '{"order_key": "detail.k"}');
INSERT INTO broken VALUES (1, 'MPT01');
SELECT emit('a', 1), emit('b', 2), emit('a', 3), emit(NULL, 4), emit('a', 5), emit('b', 6);
SELECT * FROM handled;
SELECT * FROM live;
-- The sweep finds that they have to wait; no attempt is burnt.
CALL mp_sweep();
SELECT * FROM live;
SELECT name, in_flight, retrying, blocked, dead FROM mp_subscriptions WHERE name = 'i';
SELECT meal_planner.next_due() < 'infinity' AS next_is_the_retry;
-- It fails again: still the first.
SET meal_planner.clock_offset = 3;
CALL mp_sweep();
SELECT emit('a', 7);
SELECT * FROM live;
-- Repaired, it lets the others go, in order.
DELETE FROM broken;
SET meal_planner.clock_offset = 60;
CALL mp_sweep();
SELECT * FROM live;
SELECT * FROM handled;
RESET meal_planner.clock_offset;
-- Given up, it lets them go too.
TRUNCATE seen;
INSERT INTO broken VALUES (11, 'MPT01'), (14, 'MPP01');
SELECT emit('a', 11), emit('a', 12), emit('a', 13);
CALL mp_sweep();
SET meal_planner.clock_offset = 1000;
CALL mp_sweep();
SET meal_planner.clock_offset = 2000;
CALL mp_sweep();
SET meal_planner.clock_offset = 3000;
CALL mp_sweep();
SELECT * FROM handled;
SET meal_planner.clock_offset = 4000;
CALL mp_sweep();
RESET meal_planner.clock_offset;
SELECT * FROM handled;
-- A permanent error does not stop the key at all.
SELECT emit('a', 14), emit('a', 15);
SELECT * FROM handled;
SELECT event -> 'detail' ->> 'n' AS event, status FROM mp_dlq ORDER BY id;
-- Such a letter is replayed out of order and blocks nobody.
SELECT mp_replay_dlq(id) FROM mp_dlq WHERE event -> 'detail' ->> 'n' = '14';
SELECT emit('a', 16);
DELETE FROM broken;
SELECT mp_replay_dlq(id) FROM mp_dlq ORDER BY id;
SELECT * FROM handled;
SELECT count(*) AS left FROM live;

-- on_dead block_key: the dead letter keeps its key back until somebody has seen to it.
TRUNCATE seen;
SELECT mp_subscribe('i', '{"detail-type": ["E"]}', 'on_i(meal_planner.event)', options => '{"order_key": "detail.k", "on_dead": "block_key"}');
INSERT INTO broken VALUES (21, 'MPP01'), (24, 'MPP01');
SELECT emit('a', 21), emit('a', 22), emit('b', 23), emit('a', 24), emit('a', 25);
CALL mp_sweep();
SELECT * FROM live;
SELECT blocked, retrying, dead FROM mp_subscriptions WHERE name = 'i';
SELECT meal_planner.next_due() IS NULL AS nothing_is_due;
SELECT busy FROM meal_planner.busy_keys('local', 'i', '{a,b,c,a}') busy;
-- Replayed in vain it goes on blocking.
SELECT mp_replay_dlq(id) FROM mp_dlq WHERE status = 'dead';
CALL mp_sweep();
SELECT * FROM live;
-- Replayed with success it lets the next run; the one after that dies and blocks.
DELETE FROM broken WHERE event = 21;
SELECT mp_replay_dlq(id) FROM mp_dlq WHERE status = 'dead';
CALL mp_sweep();
SELECT * FROM handled;
SELECT * FROM live;
-- Discarded: the last one runs, and new ones run in the emitter again.
SELECT mp_discard_dlq(id, 'test') FROM mp_dlq WHERE status = 'dead';
CALL mp_sweep();
SELECT emit('a', 26);
SELECT * FROM handled;
SELECT count(*) AS left FROM live;
-- A replay that has to be retried blocks until its retry is done.
TRUNCATE seen;
INSERT INTO broken VALUES (31, 'MPP01');
SELECT emit('a', 31), emit('a', 32);
UPDATE broken SET sqlstate = 'MPT01';
SELECT mp_replay_dlq(id) FROM mp_dlq WHERE status = 'dead';
CALL mp_sweep();
SELECT * FROM live;
TRUNCATE broken;
SET meal_planner.clock_offset = 10;
CALL mp_sweep();
RESET meal_planner.clock_offset;
SELECT * FROM handled;
SELECT event -> 'detail' ->> 'n' AS event, status FROM mp_dlq WHERE event -> 'detail' ->> 'n' = '31';
-- Sent by hand out of its retries: it blocks as any other; sent again it blocks on.
TRUNCATE seen;
INSERT INTO broken VALUES (41, 'MPT01');
SELECT emit('a', 41), emit('a', 42);
SELECT mp_send_to_dlq(e.id, 'permanent', 'by hand', 0, 'i') IS NOT NULL AS sent
  FROM meal_planner.event e, generate_series(1, 2) WHERE e.detail ->> 'n' = '41';
CALL mp_sweep();
SELECT * FROM live;
SELECT mp_discard_dlq(id, 'test') FROM mp_dlq WHERE status = 'dead';
CALL mp_sweep();
SELECT * FROM handled;
-- An event that was handled long ago blocks nothing when it is sent by hand.
SELECT mp_send_to_dlq(e.id, 'transient', 'by hand', 0, 'i') IS NOT NULL AS sent
  FROM meal_planner.event e WHERE e.detail ->> 'n' = '42';
SELECT emit('a', 43);
SELECT * FROM handled;
SELECT mp_discard_dlq(id, 'test') FROM mp_dlq WHERE status = 'dead';
TRUNCATE broken;

-- A delayed event keeps its key back as well.
TRUNCATE seen;
SELECT emit('a', 51), emit('a', 52, '1 hour'), emit('a', 53), emit('b', 54), emit('a', 55, '2 hours');
CALL mp_sweep();
SELECT * FROM live;
SET meal_planner.clock_offset = 3601;
CALL mp_sweep();
SELECT * FROM live;
SET meal_planner.clock_offset = 7201;
CALL mp_sweep();
RESET meal_planner.clock_offset;
SELECT * FROM handled;

-- Paused: what came meanwhile is handled in order, and what comes later waits for it.
TRUNCATE seen;
SELECT mp_pause_subscription('i');
SELECT emit('a', 61), emit('a', 62);
SELECT mp_resume_subscription('i');
SELECT emit('a', 63);
SELECT * FROM handled;
CALL mp_sweep();
SELECT * FROM handled;

-- One transaction, a snapshot of its own: the failure before counts.
TRUNCATE seen;
INSERT INTO broken VALUES (71, 'MPT01');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT emit('a', 71);
SELECT emit('a', 72);
COMMIT;
SELECT mp_put_events('[{"Source":"s","DetailType":"E","Detail":{"k":"a","n":73}},{"Source":"s","DetailType":"E","Detail":{"k":"b","n":74}},{"Source":"s","DetailType":"E","Detail":{"k":"a","n":75}}]') ->> 'FailedEntryCount' AS failed;
SELECT * FROM live;
SELECT * FROM handled;
TRUNCATE broken;
SET meal_planner.clock_offset = 10;
CALL mp_sweep();
RESET meal_planner.clock_offset;
SELECT * FROM handled;

-- A blocked delivery that waits for nothing is released by the next sweep.
TRUNCATE seen;
INSERT INTO broken VALUES (81, 'MPT01');
SELECT emit('a', 81), emit('a', 82), emit('b', 83);
CALL mp_sweep();
DELETE FROM meal_planner.delivery d USING meal_planner.event e WHERE e.position = d.position AND e.detail ->> 'n' = '81';
SELECT * FROM live;
CALL mp_sweep();
SELECT * FROM handled;
SELECT count(*) AS left FROM live;

-- Subscribed anew with another key, or none: nothing stays blocked, and the new order holds.
TRUNCATE seen;
TRUNCATE broken;
INSERT INTO broken VALUES (91, 'MPP01'), (93, 'MPT01');
SELECT emit('a', 91), emit('a', 92), emit('b', 93), emit('b', 94);
CALL mp_sweep();
SELECT * FROM live;
SELECT mp_subscribe('i', '{"detail-type": ["E"]}', 'on_i(meal_planner.event)', options => '{"order_key": "source"}');
SELECT * FROM live;
CALL mp_sweep();
SELECT * FROM live;
SELECT * FROM handled;
SELECT mp_subscribe('i', '{"detail-type": ["E"]}', 'on_i(meal_planner.event)');
SELECT * FROM live;
CALL mp_sweep();
SELECT * FROM live;
SELECT * FROM handled;
-- A dead letter of before blocks nothing under the new rule.
SELECT mp_subscribe('i', '{"detail-type": ["E"]}', 'on_i(meal_planner.event)', options => '{"order_key": "detail.k", "on_dead": "block_key"}');
SELECT emit('a', 95);
SELECT * FROM live;
SELECT mp_unsubscribe('i');

-- Worker: within a batch and across batches.
TRUNCATE seen;
TRUNCATE broken;
SELECT mp_subscribe('w', '{"detail-type": ["E"]}', 'on_w(meal_planner.event)', 'worker', '{"order_key": "detail.k", "on_dead": "block_key"}');
INSERT INTO broken VALUES (102, 'MPT01'), (105, 'MPP01');
SELECT emit('a', 101), emit('a', 102), emit('b', 103), emit('a', 104), emit('b', 105), emit('b', 106), emit(NULL, 107), emit('c', 108);
CALL mp_sweep();
SELECT * FROM live;
SELECT * FROM handled;
SELECT emit('a', 109), emit('b', 110), emit('c', 111, '1 hour'), emit('c', 112);
CALL mp_sweep();
SELECT * FROM live;
SELECT lag_events, retrying, blocked, dead FROM mp_subscriptions WHERE name = 'w';
TRUNCATE broken;
SELECT mp_replay_dlq(id) FROM mp_dlq WHERE status = 'dead' AND subscription = 'w';
SET meal_planner.clock_offset = 10;
CALL mp_sweep();
SELECT * FROM live;
SET meal_planner.clock_offset = 3610;
CALL mp_sweep();
RESET meal_planner.clock_offset;
SELECT * FROM handled;
SELECT count(*) AS left FROM live;
-- A long queue behind one: taken apart in order, each once.
TRUNCATE seen;
INSERT INTO broken VALUES (1000, 'MPT01');
SELECT count(emit('a', n)) FROM generate_series(1000, 1199) n;
CALL mp_sweep();
SELECT state, count(*) FROM live GROUP BY state ORDER BY state;
TRUNCATE broken;
SET meal_planner.clock_offset = 10;
CALL mp_sweep();
RESET meal_planner.clock_offset;
SELECT count(*), array_agg(event ORDER BY n) = array_agg(event ORDER BY event) AS in_order FROM seen;
SELECT mp_unsubscribe('w');

DROP VIEW handled, live;
DROP TABLE seen, broken;
DROP FUNCTION work, on_i, on_w, emit;
