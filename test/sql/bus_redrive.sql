-- mp_redrive_dlq: many dead letters again, as a task of the sweep.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS meal_planner CASCADE;
CREATE EXTENSION meal_planner;
RESET client_min_messages;
\set SHOW_CONTEXT never

CREATE TABLE redriven (n serial, subscription text, account text, event int);
-- what is broken: a subscription, or one event of it
CREATE TABLE broken (subscription text, event int, sqlstate text DEFAULT 'MPP01');
CREATE FUNCTION work(name text, e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    fault text := (SELECT b.sqlstate FROM broken b WHERE b.subscription = name AND coalesce(b.event, (e.detail ->> 'n')::int) = (e.detail ->> 'n')::int LIMIT 1);
BEGIN
    INSERT INTO redriven (subscription, account, event) VALUES (name, e.account, (e.detail ->> 'n')::int);
    IF fault IS NOT NULL THEN
        RAISE EXCEPTION '% of % is broken', e.detail ->> 'n', name USING ERRCODE = fault;
    END IF;
END $$;
CREATE FUNCTION on_a(e meal_planner.event) RETURNS void LANGUAGE sql AS $$ SELECT work('a', e) $$;
CREATE FUNCTION on_b(e meal_planner.event) RETURNS void LANGUAGE sql AS $$ SELECT work('b', e) $$;
CREATE FUNCTION on_other(e meal_planner.event) RETURNS void LANGUAGE sql AS $$ SELECT work('other', e) $$;
CREATE FUNCTION emit_n(type text, low int, high int, account text DEFAULT 'local') RETURNS bigint LANGUAGE sql
AS $$ SELECT count(mp_emit_event(type, jsonb_build_object('n', n, 'key', n % 10), account => account)) FROM generate_series(low, high) n $$;
CREATE FUNCTION ran() RETURNS TABLE (subscription text, runs bigint, events bigint, in_order boolean) LANGUAGE sql AS $$
    SELECT s.subscription, count(*), count(DISTINCT s.event), bool_and(s.ok)
      FROM (SELECT *, event > lag(event, 1, -1) OVER (PARTITION BY subscription, account ORDER BY n) AS ok FROM redriven) s
     GROUP BY s.subscription ORDER BY 1 $$;
CREATE FUNCTION letters() RETURNS TABLE (subscription text, status text, letters bigint, events text, replays int) LANGUAGE sql AS $$
    SELECT subscription, status, count(*), string_agg(event -> 'detail' ->> 'n', ' ' ORDER BY id), max(replay_count)
      FROM mp_dlq GROUP BY 1, 2 ORDER BY 1, 2 $$;
-- the newest one
CREATE VIEW redrive AS
    SELECT state, letters, done, failed, blocked, refused, skipped, in_flight, remaining, trying,
           regexp_replace(state_reason, '\d{10,}', 'N') AS state_reason, waiting_for
      FROM mp_redrives ORDER BY id DESC LIMIT 1;
CREATE VIEW left_behind AS
    SELECT (SELECT count(*) FROM meal_planner.redrive_part) AS parts, (SELECT count(*) FROM mp_redrives WHERE ended_at IS NULL) AS redrives,
           (SELECT count(*) FROM meal_planner.delivery) AS deliveries;
CREATE FUNCTION refusal(filter jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    message text; hint text;
BEGIN
    PERFORM mp_redrive_dlq(filter, dry_run => true);
    RETURN 'accepted';
EXCEPTION WHEN SQLSTATE 'MP400' THEN
    GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
    RETURN message || ' / ' || hint;
END $$;

-- What is no filter, and no argument.
SELECT filter, refusal(filter) FROM unnest('{
    "[]", "{\"subscripton\": \"a\"}", "{\"subscription\": 1}", "{\"subscription\": []}", "{\"subscription\": [\"a\", null]}", "{\"error_type\": \"fatal\"}",
    "{\"status\": \"resolved\"}", "{\"ids\": [\"x\"]}", "{\"ids\": -1}", "{\"ids\": 1.5}", "{\"from_time\": \"soon\"}", "{\"to_time\": null}",
    "{\"to_time\": 2026}", "{\"pattern\": {\"detail-type\": \"Work\"}}", "{\"pattern\": 1}", "{\"force\": true}"}'::jsonb[]) AS filter;
SELECT mp_redrive_dlq('{"account": "local"}', account => 'local');
SELECT mp_redrive_dlq(max_per_second => 0);
SELECT mp_redrive_dlq(max_per_second => 'NaN');
SELECT mp_redrive_dlq(max_per_second => 1e-300);
SELECT mp_redrive_dlq(canary => -1);
SELECT mp_pause_redrive(1);
SELECT mp_resume_redrive(NULL);
SELECT mp_cancel_redrive(1);
-- Nothing is dead.
SELECT mp_redrive_dlq(dry_run => true);
SELECT result - 'id' AS result, result ? 'id' AS has_id FROM mp_redrive_dlq() result;
SELECT * FROM redrive;

-- Letters of every kind.
SELECT mp_subscribe('a', '{"detail-type": ["Work", "Rest"]}', 'on_a(meal_planner.event)'),
       mp_subscribe('b', '{"detail-type": ["Work"]}', 'on_b(meal_planner.event)', 'worker'),
       mp_subscribe('other', '{"detail-type": ["Work", "Rest"]}', 'on_other(meal_planner.event)');
INSERT INTO broken (subscription) VALUES ('a'), ('b');
SELECT emit_n('Work', 1, 3), emit_n('Rest', 11, 12), emit_n('Work', 101, 102, 'smith');
SELECT pg_sleep(0.002);
SELECT meal_planner.clock() AS middle \gset
UPDATE broken SET sqlstate = '22003';
SELECT emit_n('Work', 21, 22);
CALL mp_sweep();
SELECT mp_send_to_dlq(id, 'transient', 'no', 3, 'gone') IS NOT NULL AS sent FROM meal_planner.event WHERE detail ->> 'n' = '1';
SELECT id AS one FROM mp_dlq WHERE subscription = 'a' AND event -> 'detail' ->> 'n' = '1' \gset
SELECT id AS two FROM mp_dlq WHERE subscription = 'b' AND event -> 'detail' ->> 'n' = '22' \gset
SELECT * FROM letters();
-- A dry run tells, and writes nothing.
SELECT jsonb_pretty(mp_redrive_dlq(dry_run => true));
BEGIN READ ONLY;
SELECT filter, r ->> 'letters' AS letters, r -> 'by' -> 0 ->> 'subscription' AS first
  FROM unnest('{
    "{\"subscription\": \"b\"}", "{\"subscription\": [\"a\", \"b\"]}", "{\"account\": \"smith\"}", "{\"detail_type\": \"Rest\"}",
    "{\"error_type\": [\"transient\", \"crash\"]}", "{\"sqlstate\": \"22003\"}", "{\"sqlstate\": [\"22\"]}", "{\"sqlstate\": [\"22\", \"MPP01\"]}",
    "{\"reason\": \"permanent\"}", "{\"reason\": [\"sent\", \"crash\"]}", "{\"pattern\": {\"detail\": {\"n\": [{\"numeric\": [\">\", 20]}]}}}",
    "{\"subscription\": \"a\", \"detail_type\": \"Work\", \"sqlstate\": \"MPP01\"}", "{\"subscription\": \"nobody\"}", "{\"status\": \"parked\"}"}'::jsonb[]) AS filter,
       mp_redrive_dlq(filter, dry_run => true) r;
SELECT mp_redrive_dlq(jsonb_build_object('subscription', 'a', 'from_time', :'middle'), dry_run => true) -> 'letters' AS late,
       mp_redrive_dlq(jsonb_build_object('subscription', 'a', 'to_time', :'middle'), dry_run => true) -> 'letters' AS early,
       mp_redrive_dlq(jsonb_build_object('subscription', 'a', 'from_time', :'middle', 'to_time', :'middle'), dry_run => true) -> 'letters' AS none,
       mp_redrive_dlq(jsonb_build_object('ids', ARRAY[:one, :two, 17]), dry_run => true) -> 'letters' AS two,
       mp_redrive_dlq(jsonb_build_object('ids', :'one'), dry_run => true) -> 'letters' AS one,
       mp_redrive_dlq('{"subscription": "a"}', account => 'smith', dry_run => true) -> 'letters' AS smiths;
COMMIT;
SELECT count(*) AS redrives FROM mp_redrives WHERE letters > 0;

-- Only what was asked for runs, only its own subscription, in order, once.
TRUNCATE broken, redriven;
SELECT mp_redrive_dlq('{"subscription": "b", "account": "local"}', reason => 'b is repaired') - 'id' AS result;
SELECT * FROM redrive;
SELECT requested_by = current_user AS by_me, reason, filter, max_per_second, canary, force, created_at <= clock_timestamp() AS created FROM mp_redrives WHERE letters > 0;
SELECT count(*) AS not_before_the_sweep FROM redriven;
CALL mp_sweep();
SELECT * FROM ran();
SELECT * FROM redrive;
SELECT * FROM letters();
SELECT * FROM left_behind;
SELECT mp_pause_redrive(max(id)), mp_resume_redrive(max(id)), mp_cancel_redrive(max(id)) FROM mp_redrives;
-- A second one of the same finds nothing to do; two at once do everything once. What is no subscription's is refused.
SELECT mp_redrive_dlq('{"subscription": "b", "account": "local"}') - 'id' AS result;
SELECT mp_redrive_dlq() - 'id' AS first, mp_redrive_dlq() - 'id' AS second;
CALL mp_sweep();
SELECT * FROM ran();
SELECT state, letters, done, failed, refused, skipped, remaining FROM mp_redrives ORDER BY id DESC LIMIT 2;
SELECT * FROM letters();
SELECT subscription, refused FROM mp_dlq WHERE status = 'dead';
SELECT * FROM left_behind;

-- A pattern, and a failure: counted, dead again with a new alert, and not run again by this one.
INSERT INTO broken (subscription) VALUES ('a');
SELECT emit_n('Work', 1001, 1006);
UPDATE broken SET event = 1004;
TRUNCATE redriven;
SELECT mp_redrive_dlq('{"pattern": {"detail": {"n": [{"numeric": ["<", 1006]}]}}, "subscription": "a"}') - 'id' AS result;
CALL mp_sweep();
CALL mp_sweep();
SELECT * FROM ran();
SELECT * FROM redrive;
SELECT * FROM letters() WHERE status = 'dead';
SELECT count(*) AS alerts FROM meal_planner.alert a JOIN mp_dlq l ON l.id = a.dead_letter_id WHERE l.event -> 'detail' ->> 'n' = '1004';
-- One that fails for a while is retried as ever; the redrive waits for its end.
UPDATE broken SET sqlstate = 'MPT01';
SELECT mp_redrive_dlq('{"ids": 1, "subscription": "a"}') -> 'letters' AS none;
SELECT mp_redrive_dlq('{"subscription": "a"}') -> 'letters' AS two;
CALL mp_sweep();
SELECT * FROM redrive;
SELECT status, replay_count FROM mp_dlq WHERE event -> 'detail' ->> 'n' = '1004';
TRUNCATE broken;
SET meal_planner.clock_offset = 10;
CALL mp_sweep();
SELECT * FROM redrive;
SELECT * FROM left_behind;

-- A rate: a second's worth at a time, and nothing is made up for.
INSERT INTO broken (subscription) VALUES ('a');
SELECT emit_n('Work', 2001, 2130);
CALL mp_sweep();
TRUNCATE broken, redriven;
SELECT mp_redrive_dlq('{"subscription": "a"}', max_per_second => 10) - 'id' AS result;
CALL mp_sweep();
SELECT state, done > 0 AND done % 10 = 0 AND done < letters AS by_the_second, in_flight, done + remaining = letters AS rest FROM redrive;
SELECT count(*) = (SELECT done FROM redrive) AS counted FROM redriven;
SELECT meal_planner.next_due() - meal_planner.clock() <= '1 s' AS will_wake;
SET meal_planner.clock_offset = 100;
CALL mp_sweep();
SELECT done > 10 AND done % 10 = 0 AND done < letters AS no_burst FROM redrive;
SELECT mp_cancel_redrive(max(id)) FROM mp_redrives;
SELECT meal_planner.next_due() IS NULL AS nothing_to_wake_for;
SELECT mp_redrive_dlq('{"subscription": "a"}') -> 'letters' > '0' AS rest;
CALL mp_sweep();
SELECT * FROM ran();
-- less than one a second
INSERT INTO broken (subscription) VALUES ('a');
SELECT emit_n('Work', 2141, 2143);
TRUNCATE broken, redriven;
SELECT mp_redrive_dlq('{"subscription": "a"}', max_per_second => 0.01) - 'id' AS result;
CALL mp_sweep();
CALL mp_sweep();
SELECT done, remaining FROM redrive;
SET meal_planner.clock_offset = 200;
CALL mp_sweep();
SELECT done, remaining FROM redrive;
SET meal_planner.clock_offset = 250;
CALL mp_sweep();
SELECT done, remaining FROM redrive;

-- Pause, resume, cancel.
SELECT mp_pause_redrive(max(id), 'lunch'), mp_pause_redrive(max(id)) FROM mp_redrives;
SET meal_planner.clock_offset = 400;
CALL mp_sweep();
SELECT * FROM redrive;
SELECT state_by = current_user AS by_me, state_at <= meal_planner.clock() AS at FROM mp_redrives WHERE state = 'paused';
SELECT mp_resume_redrive(max(id)), mp_resume_redrive(max(id)) FROM mp_redrives;
SELECT state, state_reason FROM redrive;
CALL mp_sweep();
SELECT * FROM redrive;
INSERT INTO broken (subscription) VALUES ('a');
SELECT emit_n('Work', 2201, 2203);
UPDATE broken SET sqlstate = 'MPT01', event = 2201;
SELECT mp_redrive_dlq('{"subscription": "a"}', max_per_second => 0.01) - 'id' AS result;
CALL mp_sweep();
SELECT state, in_flight, remaining FROM redrive;
SELECT mp_cancel_redrive(max(id), 'enough'), mp_cancel_redrive(max(id)), mp_pause_redrive(max(id)), mp_resume_redrive(max(id)) FROM mp_redrives;
SELECT * FROM redrive;
-- What it has begun goes on, and is counted; the others stay dead.
TRUNCATE broken;
SET meal_planner.clock_offset = 410;
CALL mp_sweep();
SELECT * FROM redrive;
SELECT * FROM letters() WHERE status = 'dead';
SELECT * FROM left_behind;
-- Cancelled with nothing in flight, when paused.
SELECT mp_redrive_dlq('{"subscription": "a"}') ->> 'id' AS id \gset
SELECT mp_pause_redrive(:id), mp_cancel_redrive(:id);
SELECT * FROM redrive;
SELECT * FROM left_behind;

-- What is seen to meanwhile is skipped and counted.
SELECT mp_redrive_dlq('{"subscription": "a"}') ->> 'id' AS id \gset
SELECT mp_discard_dlq(id, 'by hand') FROM mp_dlq WHERE subscription = 'a' AND status = 'dead' ORDER BY id LIMIT 1;
INSERT INTO broken (subscription) VALUES ('a');
SELECT mp_replay_dlq(id) FROM mp_dlq WHERE subscription = 'a' AND status = 'dead';
SELECT emit_n('Work', 2301, 2301);
TRUNCATE broken, redriven;
CALL mp_sweep();
SELECT * FROM redrive;
SELECT count(*) AS runs FROM redriven;
SELECT * FROM letters() WHERE status = 'dead';

-- Many: more than are in flight at once, or looked at in one step; new ones do not wait for them.
SELECT mp_discard_dlq(id, 'tidy') FROM mp_dlq WHERE status = 'dead';
INSERT INTO broken (subscription) VALUES ('a'), ('b');
SELECT emit_n('Work', 3001, 3620), emit_n('Rest', 3621, 3630), emit_n('Work', 1, 40, 'jones');
CALL mp_sweep();
TRUNCATE broken, redriven;
SELECT mp_redrive_dlq('{"detail_type": "Rest"}') - 'id' AS result;
CALL mp_sweep();
SELECT * FROM redrive;
SELECT * FROM ran();
SELECT mp_redrive_dlq() - 'id' AS result;
SELECT meal_planner.step_redrive(max(id)) FROM mp_redrives;
SELECT in_flight, remaining FROM redrive;
SELECT account, subscription, count(*) FROM meal_planner.delivery GROUP BY 1, 2 ORDER BY 1, 2;
SELECT emit_n('Work', 3701, 3705) AS new_ones;
TRUNCATE redriven;
CALL mp_sweep();
SELECT min(n) FILTER (WHERE event > 3700) < max(n) FILTER (WHERE event < 3700) AS new_ones_in_between FROM redriven WHERE subscription = 'b';
DELETE FROM redriven WHERE event > 3700;
SELECT * FROM ran();
SELECT * FROM redrive;
SELECT * FROM left_behind;

-- Canary: of its subscriptions in turn, and everything else only when they are done.
INSERT INTO broken (subscription) VALUES ('a'), ('b');
SELECT emit_n('Work', 4001, 4010);
CALL mp_sweep();
TRUNCATE redriven;
DELETE FROM broken WHERE subscription = 'a';
UPDATE broken SET sqlstate = 'MPT01';
SELECT mp_redrive_dlq(canary => 4) - 'id' AS result;
CALL mp_sweep();
-- b is still being retried: all wait for it
SELECT * FROM redrive;
SELECT * FROM ran();
UPDATE broken SET sqlstate = 'MPP01', event = 4002;
SET meal_planner.clock_offset = 420;
SELECT count(*) AS alerts FROM meal_planner.alert \gset before_
CALL mp_sweep();
SELECT * FROM redrive;
SELECT kind, subscription, regexp_replace(message, '\d{10,}', 'N', 'g') AS message, dead_letter_status FROM mp_alerts ORDER BY id DESC LIMIT 1;
SELECT state_by IS NULL AS by_itself FROM mp_redrives WHERE state = 'paused';
SELECT count(*) - :before_alerts AS alerts FROM meal_planner.alert;
CALL mp_sweep();
SELECT count(*) - :before_alerts AS alerts FROM meal_planner.alert;
-- Repaired and resumed, it begins with another canary.
SELECT mp_resume_redrive(max(id)) FROM mp_redrives;
UPDATE broken SET event = 4004;
CALL mp_sweep();
SELECT * FROM redrive;
TRUNCATE broken;
SELECT mp_resume_redrive(max(id)) FROM mp_redrives;
CALL mp_sweep();
SELECT * FROM redrive;
SELECT * FROM letters() WHERE status = 'dead';
-- More canaries than letters: that is all of them.
SELECT mp_redrive_dlq('{"subscription": "b"}', canary => 100) - 'id' AS result;
CALL mp_sweep();
SELECT * FROM redrive;
SELECT * FROM left_behind;

-- Paused, or with its breaker open, a subscription's letters wait, and the others go on.
INSERT INTO broken (subscription) VALUES ('a'), ('b');
SELECT emit_n('Work', 5001, 5003);
CALL mp_sweep();
TRUNCATE broken, redriven;
SELECT mp_pause_subscription('a', 'oven'), mp_redrive_dlq() - 'id' AS result;
CALL mp_sweep();
SELECT * FROM redrive;
SELECT * FROM letters() WHERE status IN ('dead', 'replaying');
SELECT mp_resume_subscription('a');
SELECT mp_subscribe('a', '{"detail-type": ["Work", "Rest"]}', 'on_a(meal_planner.event)', options => '{"breaker": "oven"}');
SELECT mp_breaker_force('oven', 'open', meal_planner.clock() + interval '50 s');
CALL mp_sweep();
SELECT * FROM redrive;
SELECT meal_planner.next_due() - meal_planner.clock() BETWEEN '40 s' AND '50 s' AS will_wake;
SELECT status, replay_count FROM mp_dlq WHERE subscription = 'a' AND status = 'dead';
SELECT mp_breaker_force('oven', 'auto');
CALL mp_sweep();
SELECT * FROM redrive;
SELECT * FROM ran();

-- Replayed so often in vain, a letter is parked: a redrive leaves it out.
SELECT mp_subscribe('a', '{"detail-type": ["Work", "Rest"]}', 'on_a(meal_planner.event)', options => '{"max_replays": 2}');
INSERT INTO broken (subscription) VALUES ('a');
SELECT emit_n('Work', 6001, 6002);
SELECT id AS letter FROM mp_dlq WHERE status = 'dead' AND event -> 'detail' ->> 'n' = '6001' \gset
SELECT mp_redrive_dlq(jsonb_build_object('ids', :letter)) -> 'letters' AS letters;
CALL mp_sweep();
SELECT status FROM mp_dlq WHERE id = :letter;
SELECT mp_replay_dlq(:letter);
SELECT status, replay_count FROM mp_dlq WHERE id = :letter;
SELECT subscription, error_type, depth, parked FROM mp_dlq_depth;
SELECT mp_redrive_dlq(dry_run => true);
SELECT mp_redrive_dlq('{"status": "parked"}', dry_run => true) -> 'letters' AS parked, mp_redrive_dlq('{"status": ["dead", "parked"]}', dry_run => true) -> 'letters' AS both,
       mp_redrive_dlq(force => true, dry_run => true) -> 'letters' AS forced, mp_redrive_dlq('{"status": "dead"}', force => true, dry_run => true) -> 'letters' AS not_parked;
SELECT mp_redrive_dlq() - 'id' AS result;
CALL mp_sweep();
SELECT * FROM redrive;
SELECT * FROM letters() WHERE status IN ('dead', 'parked');
-- Somebody who looks at it may replay it, and so may a redrive that asks for it.
SELECT mp_replay_dlq(:letter);
TRUNCATE broken;
SELECT mp_redrive_dlq('{"status": "parked"}') - 'id' AS result;
CALL mp_sweep();
SELECT status, replay_count FROM mp_dlq WHERE id = :letter;
-- With a higher limit it is not parked any more.
SELECT mp_subscribe('a', '{"detail-type": ["Work", "Rest"]}', 'on_a(meal_planner.event)', options => '{"max_replays": 1}');
INSERT INTO broken (subscription) VALUES ('a');
SELECT emit_n('Work', 6003, 6003);
SELECT mp_redrive_dlq() -> 'letters' AS letters;
CALL mp_sweep();
SELECT * FROM letters() WHERE status IN ('dead', 'parked');
SELECT mp_subscribe('a', '{"detail-type": ["Work", "Rest"]}', 'on_a(meal_planner.event)');
TRUNCATE broken;
SELECT mp_redrive_dlq() -> 'letters' AS letters;
CALL mp_sweep();
SELECT * FROM letters() WHERE status IN ('dead', 'parked');

-- An event whose idempotency key has expired may have come again: refused, unless forced.
INSERT INTO broken (subscription) VALUES ('a');
SELECT mp_emit_event('Work', jsonb_build_object('n', 7000 + n), idempotency_key => 'key ' || n) IS NOT NULL AS emitted FROM generate_series(1, 3) n;
SELECT emit_n('Work', 7004, 7004);
TRUNCATE broken, redriven;
SELECT mp_redrive_dlq(dry_run => true) - 'by' AS remembered;
SET meal_planner.clock_offset = 90000;
-- one of them has
SELECT mp_emit_event('Work', '{"n": 7001}', idempotency_key => 'key 1') IS NOT NULL AS emitted_again;
SELECT mp_redrive_dlq(dry_run => true) - 'by' AS expired;
SELECT mp_redrive_dlq() - 'id' AS result;
CALL mp_sweep();
SELECT * FROM redrive;
SELECT event -> 'detail' ->> 'n' AS event, status, replay_count, refused FROM mp_dlq WHERE event -> 'detail' ->> 'n' LIKE '700_' ORDER BY id;
SELECT event, count(*) FROM redriven WHERE subscription = 'a' GROUP BY event ORDER BY event;
-- It makes no difference that they are purged; by hand it is refused, too.
DELETE FROM meal_planner.idempotency_key WHERE expires_at <= meal_planner.clock();
SELECT key FROM meal_planner.idempotency_key;
SELECT mp_redrive_dlq() - 'id' AS result;
CALL mp_sweep();
SELECT done, refused FROM redrive;
SELECT min(id) AS letter FROM mp_dlq WHERE refused = 'key_expired' \gset
DO $$ BEGIN PERFORM mp_replay_dlq(min(id)) FROM mp_dlq WHERE refused = 'key_expired'; EXCEPTION WHEN SQLSTATE 'MP409' THEN RAISE NOTICE '%', regexp_replace(SQLERRM, '\d{10,}', 'N'); END $$;
SELECT mp_replay_dlq(:letter, force => true);
SELECT status, replay_count, refused FROM mp_dlq WHERE id = :letter;
SELECT mp_redrive_dlq('{"subscription": "a"}', force => true, dry_run => true) - 'by' AS forced;
SELECT mp_redrive_dlq('{"subscription": "a"}', force => true) - 'id' AS result;
CALL mp_sweep();
SELECT * FROM redrive;
SELECT event, count(*) FROM redriven WHERE subscription = 'a' GROUP BY event ORDER BY event;

-- A redrive window: what is remembered elsewhere of an event's attempts.
SELECT mp_subscribe('a', '{"detail-type": ["Work"]}', 'on_a(meal_planner.event)', options => '{"redrive_window": 30}');
SELECT mp_subscribe('a', '{"detail-type": ["Work"]}', 'on_a(meal_planner.event)', options => '{"redrive_window": 86400}');
SELECT mp_subscribe('a', '{"detail-type": ["Work"]}', 'on_a(meal_planner.event)', options => '{"redrive_window": 100, "max_attempts": 10}');
SELECT mp_subscribe('a', '{"detail-type": ["Work"]}', 'on_a(meal_planner.event)', options => '{"redrive_window": 100, "max_attempts": 10, "max_age": 80}');
SELECT mp_subscribe('a', '{"detail-type": ["Work"]}', 'on_a(meal_planner.event)', options => '{"max_attempts": 20}');
SELECT mp_subscribe('a', '{"detail-type": ["Work"]}', 'on_a(meal_planner.event)', options => '{"redrive_window": 3600}');
INSERT INTO broken (subscription) VALUES ('a');
SELECT emit_n('Work', 7101, 7101);
TRUNCATE broken;
SET meal_planner.clock_offset = 93500;
SELECT mp_redrive_dlq(dry_run => true) - 'by' AS in_time;
SET meal_planner.clock_offset = 93700;
SELECT mp_redrive_dlq('{"subscription": "a"}') - 'id' AS result;
CALL mp_sweep();
SELECT * FROM redrive;
SELECT refused FROM mp_dlq WHERE status = 'dead' AND subscription = 'a';
DO $$ BEGIN PERFORM mp_replay_dlq(id) FROM mp_dlq WHERE refused = 'window_over'; EXCEPTION WHEN SQLSTATE 'MP409' THEN RAISE NOTICE '%', regexp_replace(SQLERRM, '\d{10,}', 'N'); END $$;
SELECT mp_replay_dlq(id, force => true) FROM mp_dlq WHERE refused = 'window_over';

-- Subscription or event gone: refused, forced or not.
SELECT mp_subscribe('a', '{"detail-type": ["Work"]}', 'on_a(meal_planner.event)');
INSERT INTO broken (subscription) VALUES ('a'), ('b');
SELECT emit_n('Work', 7201, 7202);
CALL mp_sweep();
TRUNCATE broken, redriven;
SELECT mp_redrive_dlq('{"subscription": ["a", "b"]}', force => true) - 'id' AS result;
SELECT mp_unsubscribe('b');
DELETE FROM meal_planner.event WHERE detail ->> 'n' = '7201';
-- (nobody knows the type of one that is gone)
SELECT mp_redrive_dlq('{"subscription": "a", "detail_type": "Work"}', dry_run => true) -> 'letters' AS of_type,
       mp_redrive_dlq('{"subscription": "a", "pattern": {"detail-type": ["Work"]}}') -> 'letters' AS of_pattern,
       mp_redrive_dlq('{"subscription": "a"}', dry_run => true) -> 'refused' AS refused;
SELECT mp_cancel_redrive(max(id)) FROM mp_redrives;
CALL mp_sweep();
SELECT state, letters, done, failed, refused, skipped FROM mp_redrives WHERE force ORDER BY id DESC LIMIT 1;
SELECT * FROM ran();
SELECT subscription, refused, event IS NULL AS event_gone FROM mp_dlq WHERE refused IS NOT NULL AND subscription IN ('a', 'b') ORDER BY id;
SELECT * FROM left_behind;

-- Unsubscribed while letters of it are on their way: they are dead again, and counted.
SELECT mp_discard_dlq(id, 'tidy') FROM mp_dlq WHERE status = 'dead';
SELECT mp_subscribe('b', '{"detail-type": ["Work"]}', 'on_b(meal_planner.event)', 'worker');
INSERT INTO broken (subscription) VALUES ('b');
SELECT emit_n('Work', 7301, 7302);
CALL mp_sweep();
UPDATE broken SET sqlstate = 'MPT01';
SELECT mp_redrive_dlq() - 'id' AS result;
CALL mp_sweep();
SELECT in_flight FROM redrive;
SELECT mp_unsubscribe('b');
CALL mp_sweep();
SELECT * FROM redrive;
TRUNCATE broken;

-- A pull subscription: the next claim.
SELECT mp_discard_dlq(id, 'tidy') FROM mp_dlq WHERE status = 'dead';
SELECT mp_subscribe('p', '{"detail-type": ["Pulled"]}', mode => 'pull');
SELECT emit_n('Pulled', 1, 5);
SELECT mp_fail(token, event_id, 'permanent', 'no') FROM mp_claim('p');
SELECT mp_redrive_dlq('{"subscription": "p"}', canary => 1) - 'id' AS result;
SELECT count(*) AS not_yet FROM mp_claim('p');
CALL mp_sweep();
CREATE TEMP TABLE held AS SELECT * FROM mp_claim('p', worker => 'one');
SELECT event -> 'detail' -> 'n' AS event, attempt FROM held;
CALL mp_sweep();
SELECT * FROM redrive;
SELECT mp_ack(token) FROM held;
CALL mp_sweep();
SELECT * FROM redrive;
TRUNCATE held;
INSERT INTO held SELECT * FROM mp_claim('p', worker => 'two');
SELECT event -> 'detail' -> 'n' AS event, attempt FROM held;
SELECT mp_fail(token, event_id, 'permanent', 'no') FROM held WHERE event -> 'detail' ->> 'n' = '3';
SELECT mp_ack(token) FROM held LIMIT 1;
CALL mp_sweep();
SELECT * FROM redrive;
-- One without a consumer keeps no other one waiting.
INSERT INTO broken (subscription) VALUES ('a');
SELECT emit_n('Pulled', 101, 220), emit_n('Work', 7401, 7550);
SELECT count(mp_fail(token, event_id, 'permanent', 'no')) FROM mp_claim('p', 1000);
TRUNCATE broken, redriven;
SELECT mp_redrive_dlq('{"reason": "permanent"}') - 'id' AS result;
CALL mp_sweep();
SELECT * FROM redrive;
SELECT * FROM ran() WHERE subscription = 'a';
SELECT mp_ack(token), count(*) FROM mp_claim('p', 1000) GROUP BY token;
CALL mp_sweep();
SELECT mp_ack(token), count(*) FROM mp_claim('p', 1000) GROUP BY token;
CALL mp_sweep();
SELECT * FROM redrive;
SELECT mp_unsubscribe('p');
SELECT mp_discard_dlq(id, 'tidy') FROM mp_dlq WHERE status = 'dead';

-- In the order of their key, with on_dead block_key.
CREATE FUNCTION on_k(e meal_planner.event) RETURNS void LANGUAGE sql AS $$ SELECT work('k', e) $$;
SELECT mp_subscribe('k', '{"detail-type": ["Keyed"]}', 'on_k(meal_planner.event)', options => '{"order_key": "detail.key", "on_dead": "block_key"}');
INSERT INTO broken (subscription) VALUES ('k');
SELECT emit_n('Keyed', 1, 2), emit_n('Keyed', 11, 12), emit_n('Keyed', 21, 22);
SELECT * FROM letters() WHERE subscription = 'k';
SELECT count(*) AS waiting FROM meal_planner.delivery;
-- one more of each key is dead: somebody has sent it
SELECT mp_send_to_dlq(id, 'permanent', 'by hand', 0, 'k') IS NOT NULL AS sent FROM meal_planner.event WHERE detail_type = 'Keyed' AND detail ->> 'n' IN ('11', '12');
UPDATE broken SET event = 2;
TRUNCATE redriven;
SELECT mp_redrive_dlq('{"subscription": "k"}') - 'id' AS result;
CALL mp_sweep();
-- 1, 11 and 21 have come in order; 2 is dead again, and 12 waits for it, as 22 does.
SELECT event FROM redriven ORDER BY n;
SELECT * FROM redrive;
SELECT * FROM letters() WHERE subscription = 'k';
SELECT * FROM left_behind;
TRUNCATE broken;
SELECT mp_redrive_dlq('{"subscription": "k"}') - 'id' AS result;
CALL mp_sweep();
SELECT event FROM redriven ORDER BY n;
SELECT * FROM redrive;
SELECT * FROM letters() WHERE subscription = 'k';
SELECT * FROM left_behind;

-- Rolled back with its transaction.
INSERT INTO broken (subscription) VALUES ('a');
SELECT emit_n('Work', 8001, 8001);
TRUNCATE broken;
BEGIN;
SELECT mp_redrive_dlq('{"subscription": "a"}') -> 'letters' AS letters;
ROLLBACK;
CALL mp_sweep();
SELECT status FROM mp_dlq WHERE event -> 'detail' ->> 'n' = '8001';
RESET meal_planner.clock_offset;

-- One step looks at so many letters, although none of them is to run.
INSERT INTO broken (subscription) VALUES ('a');
SELECT count(mp_emit_event('Work', jsonb_build_object('n', 9000 + n), account => 'gone ' || n % 6)) FROM generate_series(1, 600) n;
TRUNCATE broken;
SELECT mp_redrive_dlq('{"subscription": "a", "account": ["gone 0", "gone 1", "gone 2", "gone 3", "gone 4", "gone 5"]}') - 'id' AS result;
SELECT mp_unsubscribe('a');
SELECT meal_planner.step_redrive(max(id)) FROM mp_redrives;
SELECT state, letters, refused, remaining FROM mp_redrives ORDER BY id DESC LIMIT 1;
CALL mp_sweep();
SELECT state, letters, refused, remaining FROM mp_redrives ORDER BY id DESC LIMIT 1;

DROP VIEW redrive, left_behind;
DROP TABLE redriven, broken;
SELECT mp_unsubscribe(name) FROM mp_subscriptions WHERE NOT builtin;
DROP FUNCTION work, on_a, on_b, on_other, on_k, emit_n, ran, letters, refusal;
