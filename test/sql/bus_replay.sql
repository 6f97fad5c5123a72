-- mp_replay: events of the log once more, to one subscription, in order.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS meal_planner CASCADE;
CREATE EXTENSION meal_planner;
RESET client_min_messages;
\set SHOW_CONTEXT never

CREATE TABLE seen (n serial, subscription text, account text, event int, replay text);
CREATE TABLE broken (event int, sqlstate text);
CREATE FUNCTION work(name text, e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO seen (subscription, account, event, replay)
    VALUES (name, e.account, (e.detail ->> 'n')::int, mp_replay_name());
    IF EXISTS (SELECT FROM broken b WHERE b.event = (e.detail ->> 'n')::int) THEN
        RAISE EXCEPTION 'event % is broken', e.detail ->> 'n'
            USING ERRCODE = (SELECT b.sqlstate FROM broken b WHERE b.event = (e.detail ->> 'n')::int);
    END IF;
END $$;
CREATE FUNCTION on_w(e meal_planner.event) RETURNS void LANGUAGE sql AS $$ SELECT work('w', e) $$;
CREATE FUNCTION on_i(e meal_planner.event) RETURNS void LANGUAGE sql AS $$ SELECT work('i', e) $$;
CREATE FUNCTION emit(low int, high int, account text DEFAULT 'local', type text DEFAULT 'Work') RETURNS bigint LANGUAGE sql
AS $$ SELECT count(mp_emit_event(type, jsonb_build_object('n', n, 'even', n % 2 = 0), account => account))
        FROM generate_series(low, high) n $$;
CREATE VIEW summary AS
    SELECT s.subscription, s.account, s.replay, count(*) AS events, count(DISTINCT s.event) AS different,
           min(s.event) AS first, max(s.event) AS last, bool_and(s.ok) AS in_order
      FROM (SELECT *, event > lag(event, 1, -1) OVER (PARTITION BY subscription, account, replay ORDER BY n) AS ok
              FROM seen) s
     GROUP BY s.subscription, s.account, s.replay ORDER BY 1, 2, 3;
CREATE VIEW left_behind AS
    SELECT (SELECT count(*) FROM meal_planner.replay) AS replays, (SELECT count(*) FROM meal_planner.replay_cursor) AS cursors,
           (SELECT count(*) FROM meal_planner.worker_batch) AS batches, (SELECT count(*) FROM meal_planner.delivery) AS deliveries,
           (SELECT count(*) FROM meal_planner.consumer_claim) AS claims;

SELECT emit(1, 20), emit(1001, 1003, 'smith');
SELECT mp_subscribe('w', '{"detail-type": ["Work"]}', 'on_w(meal_planner.event)', 'worker'),
       mp_subscribe('i', '{"detail-type": ["Work"]}', 'on_i(meal_planner.event)');
SELECT pg_sleep(0.002);
SELECT meal_planner.position_time(meal_planner.next_position()) AS middle \gset
SELECT emit(21, 160), emit(1, 5, type => 'Other'), emit(1004, 1005, 'smith');
CALL mp_sweep();
SELECT * FROM summary;
SELECT count(*) AS events FROM meal_planner.event \gset before_

-- Errors.
SELECT mp_replay('none');
SELECT mp_replay(NULL);
SELECT mp_replay('w', from_time => '2026-01-02', to_time => '2026-01-01');
SELECT mp_replay('w', pattern => '{"detail-type": "Work"}');
SELECT mp_replay('w', max_per_second => 0);
SELECT mp_replay('w', max_per_second => 'NaN');
SELECT mp_replay('w', max_per_second => 1e-300);
SELECT mp_replay('w', name => '');
SELECT mp_cancel_replay(1);
SELECT * FROM left_behind;

-- Worker: all there is, what was before it subscribed included; in every account; to nobody else.
TRUNCATE seen;
SELECT mp_replay('w', name => 'all');
SELECT name, subscription, account, pattern, events, delivered, status, from_time < to_time AS window,
       reached_time <= from_time AS at_start FROM mp_replays ORDER BY account;
CALL mp_sweep();
SELECT * FROM summary;
SELECT * FROM left_behind;
-- Nothing was appended, and outside of a handler there is no replay.
SELECT count(*) = :before_events AS not_archived_again FROM meal_planner.event;
SELECT mp_replay_name();

-- Inline: by the sweep too, and only what is asked for.
TRUNCATE seen;
SELECT mp_replay('i', from_time => :'middle', pattern => '{"detail": {"even": [true]}}', account => 'local', name => 'even');
SELECT mp_replay('i', to_time => :'middle', account => 'smith', name => 'early smith');
SELECT mp_replay('i', to_time => '2024-02-01'), mp_replay('i', from_time => '2100-01-01'), mp_replay('i', account => 'nobody');
SELECT mp_replay('i', pattern => '{"detail-type": ["Other"]}') AS not_its_own;
SELECT count(*) AS seen FROM seen;
CALL mp_sweep();
SELECT * FROM summary;
SELECT * FROM left_behind;

-- An event that is new meanwhile is none of the replay, and a handler's own events are new ones.
TRUNCATE seen;
CREATE FUNCTION on_chain(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM work('chain before', e);
    PERFORM mp_emit_event('Chained', e.detail, account => e.account);
    PERFORM work('chain after', e);
END $$;
CREATE FUNCTION on_chained(e meal_planner.event) RETURNS void LANGUAGE sql AS $$ SELECT work('chained', e) $$;
SELECT mp_subscribe('chain', '{"detail-type": ["Work"]}', 'on_chain(meal_planner.event)', 'worker'),
       mp_subscribe('chained', '{"detail-type": ["Chained"]}', 'on_chained(meal_planner.event)');
SELECT mp_replay('chain', to_time => :'middle', account => 'smith', name => 'chain');
SELECT emit(1006, 1006, 'smith');
CALL mp_sweep();
SELECT * FROM summary;
SELECT mp_unsubscribe('chain'), mp_unsubscribe('chained');

-- Failures are retried with the mark, in every other way like others; others of the stretch go on.
TRUNCATE seen;
INSERT INTO broken VALUES (30, 'MPT01'), (40, '22000');
SELECT mp_replay('w', from_time => :'middle', account => 'local', name => 'failing');
CALL mp_sweep();
SELECT * FROM summary;
SELECT e.detail -> 'n' AS event, d.attempt, d.replay_name, d.error_message
  FROM meal_planner.delivery d JOIN meal_planner.event e USING (account, position);
SELECT event -> 'detail' ->> 'n' AS event, subscription, reason FROM mp_dlq;
-- An event with a live delivery is left to that: it is not run twice.
SELECT mp_replay('w', from_time => :'middle', account => 'local', name => 'over it',
                 pattern => '{"detail": {"n": [29, 30, 31]}}');
CALL mp_sweep();
SELECT event, replay FROM seen WHERE replay = 'over it';
TRUNCATE broken;
SET meal_planner.clock_offset = 1000;
CALL mp_sweep();
RESET meal_planner.clock_offset;
SELECT event, replay FROM seen WHERE event = 30;
SELECT * FROM left_behind;

-- A handler that cannot run pauses the subscription: the replay waits where it is.
TRUNCATE seen;
INSERT INTO broken VALUES (25, '42883');
SELECT mp_replay('w', from_time => :'middle', account => 'local', name => 'deploy');
CALL mp_sweep();
SELECT * FROM summary;
SELECT name, events, delivered, status FROM mp_replays;
TRUNCATE broken;
CALL mp_sweep();
SELECT count(*) AS seen FROM seen;
SELECT mp_resume_subscription('w');
SET meal_planner.clock_offset = 1000;
CALL mp_sweep();
RESET meal_planner.clock_offset;
SELECT * FROM summary;
SELECT * FROM left_behind;

-- Paused by hand: it waits, and so do those behind it. They come one after the other.
TRUNCATE seen;
SELECT mp_pause_subscription('w', 'maintenance');
SELECT mp_replay('w', to_time => :'middle', account => 'smith', name => 'first'),
       mp_replay('w', to_time => :'middle', account => 'smith', name => 'second');
CALL mp_sweep();
SELECT name, delivered, status FROM mp_replays ORDER BY id;
SELECT mp_resume_subscription('w');
SELECT name, delivered, status FROM mp_replays ORDER BY id;
CALL mp_sweep();
SELECT replay, event FROM seen ORDER BY n;

-- A rate: a second's worth at a time, and nothing is made up for after a pause.
TRUNCATE seen;
SELECT mp_replay('w', account => 'local', max_per_second => 10, name => 'slow');
CALL mp_sweep();
SELECT delivered > 0 AND delivered % 10 = 0 AS by_the_second, delivered < events AS slow, max_per_second FROM mp_replays;
SELECT count(*) = (SELECT delivered FROM mp_replays) AS counted FROM seen;
SET meal_planner.clock_offset = 100;
CALL mp_sweep();
CALL mp_sweep();
SELECT delivered > 10 AS goes_on, delivered % 10 = 0 AS by_the_second, delivered < events AS no_burst FROM mp_replays;
SELECT meal_planner.next_due() IS NOT NULL AS will_wake;
-- Cancelled: what is left does not come; the sweep has nothing to wake for.
SELECT id AS slow FROM mp_replays \gset
SELECT mp_cancel_replay(:slow), mp_cancel_replay(:slow);
SELECT count(*) AS seen FROM seen \gset cancelled_
SET meal_planner.clock_offset = 300;
CALL mp_sweep();
RESET meal_planner.clock_offset;
SELECT count(*) = :cancelled_seen AS cancelled FROM seen;
SELECT * FROM left_behind;
SELECT meal_planner.next_due();
-- less than one a second
TRUNCATE seen;
SELECT mp_replay('w', account => 'smith', max_per_second => 0.01);
CALL mp_sweep();
SELECT count(*) FROM seen;
SET meal_planner.clock_offset = 50;
CALL mp_sweep();
SELECT count(*) FROM seen;
SET meal_planner.clock_offset = 101;
CALL mp_sweep();
RESET meal_planner.clock_offset;
SELECT count(*), bool_and(replay = 'replay-' || (SELECT id FROM mp_replays)) AS named_by_id FROM seen;
SELECT mp_cancel_replay(id) FROM mp_replays;

-- It survives what ends its worker: a cancelled stretch is taken apart, with the mark.
TRUNCATE seen;
CREATE FUNCTION on_cancel(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM work('w', e);
    IF e.detail ->> 'n' = '30' AND current_setting('mp_test.cancel', true) = 'on' THEN
        PERFORM pg_cancel_backend(pg_backend_pid());
        PERFORM pg_sleep(60);
    END IF;
END $$;
SELECT mp_subscribe('w', '{"detail-type": ["Work"]}', 'on_cancel(meal_planner.event)', 'worker');
SELECT mp_replay('w', from_time => :'middle', account => 'local', name => 'cut');
SET mp_test.cancel = on;
CALL mp_sweep();
SET mp_test.cancel = off;
SELECT count(*) AS seen FROM seen;
SELECT mp_replay_name();
SELECT name, delivered FROM mp_replays;
CALL mp_sweep();
SELECT subscription, replay, events, different FROM summary;
SELECT * FROM left_behind;

-- Not beyond the subscription's own place in the log, where the events come anyway.
TRUNCATE seen;
SELECT emit(161, 165);
SELECT mp_replay('w', account => 'local', pattern => '{"detail": {"n": [{"numeric": [">", 158]}]}}', name => 'not yet');
CALL mp_sweep();
SELECT replay, event FROM seen WHERE subscription = 'w' ORDER BY n;

-- Another mode, and it goes on; unsubscribed, and it is gone.
TRUNCATE seen;
SELECT mp_replay('w', account => 'smith', name => 'new mode', max_per_second => 2);
CALL mp_sweep();
SELECT mp_subscribe('w', '{"detail-type": ["Work"]}', 'on_w(meal_planner.event)');
SET meal_planner.clock_offset = 10;
CALL mp_sweep();
SET meal_planner.clock_offset = 20;
CALL mp_sweep();
SET meal_planner.clock_offset = 30;
CALL mp_sweep();
RESET meal_planner.clock_offset;
SELECT * FROM summary;
SELECT mp_replay('w');
SELECT mp_unsubscribe('w');
SELECT * FROM left_behind;

-- Pull: consumers claim it, marked in the envelope; nobody else gets what one holds.
CREATE TABLE held (token uuid);
CREATE FUNCTION take(most int DEFAULT 100, lease float8 DEFAULT 30, account text DEFAULT 'smith')
RETURNS TABLE (n int, attempt int, replay text) LANGUAGE sql AS $$
    WITH got AS MATERIALIZED (SELECT * FROM mp_claim('p', most, lease, account => take.account)),
         kept AS (INSERT INTO held SELECT DISTINCT token FROM got)
    SELECT (event -> 'detail' ->> 'n')::int, attempt, event ->> 'replay-name' FROM got
$$;
CREATE FUNCTION ack() RETURNS TABLE (acked boolean) LANGUAGE sql AS $$
    WITH gone AS (DELETE FROM held RETURNING token) SELECT mp_ack(token) FROM gone
$$;
SELECT mp_subscribe('p', '{"detail-type": ["Work"]}', mode => 'pull');
SELECT * FROM take();
SELECT mp_replay('p', account => 'smith', name => 'pulled');
SELECT * FROM take(2);
SELECT * FROM take(2);
SELECT name, events, delivered, status FROM mp_replays;
SELECT * FROM ack();
SELECT * FROM take();
SELECT * FROM take();
SELECT * FROM ack();
SELECT * FROM left_behind;

-- The log and a replay take turns.
SELECT mp_replay('p', account => 'smith', name => 'turns', to_time => :'middle');
SELECT emit(1011, 1014, 'smith');
SELECT * FROM take(1);
SELECT * FROM take(1);
SELECT * FROM take(1);
SELECT * FROM take(1);
SELECT * FROM take(1);
SELECT * FROM take(1);
SELECT * FROM take(1);
SELECT * FROM take(1);
SELECT * FROM ack();

-- Failed, and not acknowledged in time: retried with the mark. A pattern: what it leaves out is not held.
SELECT mp_replay('p', account => 'smith', name => 'some', pattern => '{"detail": {"even": [true]}}');
SELECT * FROM take(100, 60);
SELECT mp_ack((SELECT token FROM held), ARRAY(SELECT id FROM meal_planner.event WHERE detail_type = 'Work' AND detail ->> 'n' IN ('1002', '1003')));
SELECT remaining, replay_name FROM meal_planner.consumer_claim;
SELECT mp_fail((SELECT token FROM held), (SELECT id FROM meal_planner.event WHERE detail_type = 'Work' AND detail ->> 'n' = '1004'), 'transient', 'not now');
SET meal_planner.clock_offset = 50;
SELECT * FROM take();
SELECT * FROM ack();
SELECT * FROM left_behind;
RESET meal_planner.clock_offset;
SELECT mp_replay('p', account => 'smith', name => 'some', pattern => '{"detail": {"even": [true]}}', to_time => :'middle');
SELECT * FROM take(100, 1);
TRUNCATE held;
SET meal_planner.clock_offset = 100;
SELECT * FROM take(), ack();
SET meal_planner.clock_offset = 200;
SELECT * FROM take();
SELECT * FROM ack();
RESET meal_planner.clock_offset;
SELECT * FROM left_behind;

-- What a consumer holds is not handed out again, and what waits for its retry is left to that.
SELECT emit(1021, 1023, 'smith');
SELECT * FROM take(2, 60);
SELECT mp_replay('p', account => 'smith', name => 'held', pattern => '{"detail": {"n": [1014, 1021, 1022]}}');
CREATE TABLE first_claim AS TABLE held;
TRUNCATE held;
SELECT * FROM take(100, 60);
SELECT * FROM take(100, 60);
SELECT * FROM take(100, 60);
SELECT mp_fail(token, (SELECT id FROM meal_planner.event WHERE detail_type = 'Work' AND detail ->> 'n' = '1021'), 'transient', 'not now') FROM first_claim;
SELECT mp_ack(token) FROM first_claim;
SELECT * FROM take(100, 60);
SELECT * FROM take(100, 60);
SELECT * FROM ack();
SET meal_planner.clock_offset = 20;
SELECT * FROM take();
SELECT * FROM ack();
RESET meal_planner.clock_offset;
SELECT * FROM left_behind;

-- A rate, a pause, a cancel; other accounts have their own.
SELECT mp_replay('p', name => 'slow', max_per_second => 0.01, to_time => :'middle');
SELECT * FROM take();
SELECT * FROM take();
SELECT * FROM take(account => 'local');
SET meal_planner.clock_offset = 101;
SELECT mp_pause_subscription('p');
SELECT * FROM take();
SELECT mp_resume_subscription('p');
SELECT * FROM take();
SELECT mp_cancel_replay(min(id)) FROM mp_replays;
SET meal_planner.clock_offset = 300;
SELECT * FROM mp_claim('p', account => 'jones');
RESET meal_planner.clock_offset;
SELECT * FROM ack();
SELECT mp_unsubscribe('p');
SELECT * FROM left_behind;

-- In the order of a key: one that is retried keeps the later ones of the replay back.
CREATE FUNCTION on_k(e meal_planner.event) RETURNS void LANGUAGE sql AS $$ SELECT work('k', e) $$;
SELECT mp_subscribe('k', '{"detail-type": ["Work"]}', 'on_k(meal_planner.event)', 'worker', '{"order_key": "detail.even"}');
TRUNCATE seen;
INSERT INTO broken VALUES (1002, 'MPT01');
SELECT mp_replay('k', account => 'smith', name => 'keys', to_time => :'middle'),
       mp_replay('k', account => 'smith', name => 'keys', pattern => '{"detail": {"n": [1004, 1005, 1006]}}');
CALL mp_sweep();
SELECT event, replay FROM seen ORDER BY n;
SELECT e.detail -> 'n' AS event, d.replay_name, d.attempt, d.next_attempt_at = 'infinity' AS blocked
  FROM meal_planner.delivery d JOIN meal_planner.event e USING (account, position) ORDER BY 1;
TRUNCATE broken;
SET meal_planner.clock_offset = 10;
CALL mp_sweep();
RESET meal_planner.clock_offset;
SELECT event, replay FROM seen ORDER BY n;
SELECT mp_unsubscribe('k');
-- The same for consumers.
SELECT mp_subscribe('p', '{"detail-type": ["Work"]}', mode => 'pull', options => '{"order_key": "detail.even"}');
SELECT mp_replay('p', account => 'smith', name => 'keys', to_time => :'middle');
SELECT * FROM take();
SELECT mp_fail((SELECT token FROM held), (SELECT id FROM meal_planner.event WHERE detail_type = 'Work' AND detail ->> 'n' = '1001'), 'transient', 'not now');
SELECT * FROM ack();
SELECT e.detail -> 'n' AS event, d.replay_name, d.attempt
  FROM meal_planner.delivery d JOIN meal_planner.event e USING (account, position) ORDER BY 1;
SET meal_planner.clock_offset = 10;
SELECT * FROM take();
SELECT * FROM ack();
SELECT * FROM take();
SELECT * FROM ack();
RESET meal_planner.clock_offset;
SELECT mp_unsubscribe('p');
SELECT * FROM left_behind;

-- Retention does not drop what a replay still needs.
SELECT meal_planner.partition_holder(p.partition) FROM meal_planner.event_partition p
 WHERE p.lower <= meal_planner.next_position() AND p.upper > meal_planner.next_position();
SELECT mp_replay('i') > 0 AS replaying;
SELECT meal_planner.partition_holder(p.partition) FROM meal_planner.event_partition p
 WHERE p.lower <= meal_planner.next_position() AND p.upper > meal_planner.next_position();
SELECT mp_unsubscribe('i');
SELECT * FROM left_behind;

DROP VIEW summary, left_behind;
DROP TABLE seen, broken, held, first_claim;
DROP FUNCTION take, ack, on_k, work, on_w, on_i, on_chain, on_chained, on_cancel, emit;
