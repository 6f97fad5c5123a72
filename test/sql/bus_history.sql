-- Histories: every failed attempt is kept, with the delivery and with its dead letter, and is gone when that is.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS meal_planner CASCADE;
CREATE EXTENSION meal_planner;
RESET client_min_messages;
\set SHOW_CONTEXT never

-- Fails as often as the detail says, each time with another message.
CREATE FUNCTION attempt_of(name text, e meal_planner.event) RETURNS int LANGUAGE sql STABLE AS $$
    SELECT coalesce((SELECT d.attempt FROM meal_planner.delivery d
                      WHERE d.account = e.account AND d.subscription = name AND d.position = e.position), 1) $$;
CREATE FUNCTION cook(name text, e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF attempt_of(name, e) <= (e.detail ->> 'fails')::int THEN
        RAISE EXCEPTION 'failure % of %', attempt_of(name, e), e.detail ->> 'dish'
            USING ERRCODE = coalesce(e.detail ->> 'code', 'MPT01'), DETAIL = 'The detail.', HINT = 'The hint.';
    END IF;
END $$;
CREATE FUNCTION on_inline(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM cook('inline', e); END $$;
CREATE FUNCTION on_worker(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM cook('worker', e); END $$;
SELECT mp_subscribe('inline', '{"detail-type": ["Inline"]}', 'on_inline(meal_planner.event)', options => '{"max_attempts": 3}'),
       mp_subscribe('worker', '{"detail-type": ["Worker"]}', 'on_worker(meal_planner.event)', 'worker', '{"max_attempts": 3}'),
       mp_subscribe('pull', '{"detail-type": ["Pull"]}', mode => 'pull', options => '{"max_attempts": 3}');
CREATE VIEW history AS
SELECT a.subscription, e.detail ->> 'dish' AS dish, a.replay, a.attempt, a.counted, a.sqlstate, a.error_message AS message, a.verdict,
       a.seconds >= 0 AS took, a.pid = pg_backend_pid() AS here, a.worker, a.live
  FROM mp_attempts a JOIN meal_planner.event e ON e.id = a.event_id
 ORDER BY e.position, a.subscription, a.live, a.number;
-- What each history must say: as many attempts as were used up.
CREATE VIEW wrong AS
SELECT d.subscription, d.event_id, d.attempt - (d.token IS NOT NULL)::int AS used,
       (SELECT count(*) FROM mp_attempts a
         WHERE a.live AND a.account = d.account AND a.subscription = d.subscription AND a.event_id = d.event_id AND a.counted) AS kept
  FROM meal_planner.delivery d
 WHERE d.attempt - (d.token IS NOT NULL)::int
       <> (SELECT count(*) FROM mp_attempts a
            WHERE a.live AND a.account = d.account AND a.subscription = d.subscription AND a.event_id = d.event_id AND a.counted)
 UNION ALL
SELECT l.subscription, l.event_id, l.retry_count + 1, (SELECT count(*) FROM mp_dlq_attempts(l.id) a WHERE a.counted AND a.replay = l.replay_count)
  FROM mp_dlq l
 WHERE l.status = 'dead' AND l.reason IN ('permanent', 'max_attempts', 'max_age', 'crash') AND l.subscription <> 'mailer'
   AND l.retry_count + 1 <> (SELECT count(*) FROM mp_dlq_attempts(l.id) a WHERE a.counted AND a.replay = l.replay_count);

-- All goes well: nothing is kept.
SELECT count(mp_emit_event(t, '{"fails": 0}')) AS emitted FROM unnest(ARRAY['Inline', 'Worker', 'Pull']) t;
CALL mp_sweep();
SELECT mp_ack(token) FROM mp_claim('pull');
SELECT * FROM history;

-- Fails and is retried: it can be seen meanwhile, and goes when it succeeds.
SELECT mp_emit_event('Inline', '{"dish": "soup", "fails": 2}') IS NOT NULL AS emitted;
SELECT mp_emit_event('Worker', '{"dish": "stew", "fails": 2}') IS NOT NULL AS emitted;
CALL mp_sweep();
SELECT * FROM history;
SELECT error_detail, error_hint, error_context IS NOT NULL AS context, failed_at BETWEEN meal_planner.clock() - interval '1 min' AND meal_planner.clock() AS now
  FROM mp_attempts;
SET meal_planner.clock_offset = 1000;
CALL mp_sweep();
SELECT dish, attempt, message, verdict FROM history;
SELECT failed_at > meal_planner.clock() - interval '1 min' AS later FROM mp_attempts ORDER BY event_id, number;
SELECT * FROM wrong;
SET meal_planner.clock_offset = 2000;
CALL mp_sweep();
RESET meal_planner.clock_offset;
SELECT * FROM history;
SELECT count(*) AS dead FROM mp_dlq;

-- Dead: the first error and the last, and all between; what ended it is the last verdict.
SELECT mp_emit_event('Inline', '{"dish": "pie", "fails": 9}') AS event_id \gset
SELECT mp_emit_event('Worker', '{"dish": "tart", "fails": 9}') IS NOT NULL AS emitted;
\set sweeps 'CALL mp_sweep(); SET meal_planner.clock_offset = 1000; CALL mp_sweep(); SET meal_planner.clock_offset = 2000; CALL mp_sweep(); RESET meal_planner.clock_offset;'
:sweeps
SELECT * FROM history;
SELECT subscription, reason, sqlstate, error_message, first_sqlstate, first_error_message, attempts, retry_count, replay_count FROM mp_dlq ORDER BY id;
SELECT id AS letter FROM mp_dlq WHERE subscription = 'inline' \gset
SELECT replay, attempt, counted, sqlstate, error_message, verdict FROM mp_dlq_attempts(:letter);
SELECT * FROM wrong;
-- Replayed and dead again: after which replay it was; the letter goes on.
SELECT mp_replay_dlq(:letter);
SELECT replay, attempt, error_message, verdict FROM mp_dlq_attempts(:letter);
SELECT live, count(*) FROM mp_attempts WHERE dlq_id = :letter GROUP BY live ORDER BY live;
:sweeps
SELECT status, attempts, first_error_message, error_message FROM mp_dlq WHERE id = :letter;
SELECT * FROM wrong;
-- Replayed once more, fails once and succeeds: resolved, with all of it.
SELECT mp_replay_dlq(:letter, '{"dish": "pie", "fails": 1}');
:sweeps
SELECT status, replay_count, attempts FROM mp_dlq WHERE id = :letter;
SELECT replay, attempt, error_message, verdict FROM mp_dlq_attempts(:letter);
-- By a redrive: the same.
SELECT mp_redrive_dlq('{"subscription": "worker"}') ->> 'letters' AS letters;
:sweeps
SELECT a.replay, a.attempt, a.error_message, a.verdict FROM mp_dlq l, mp_dlq_attempts(l.id) a WHERE l.subscription = 'worker';
SELECT * FROM wrong;
-- A permanent error: the one attempt there was.
SELECT mp_emit_event('Inline', '{"dish": "cake", "fails": 9, "code": "22012"}') IS NOT NULL AS emitted;
SELECT attempt, counted, sqlstate, verdict FROM history WHERE dish = 'cake';
-- Sent by hand, first and once more; nothing was tried.
SELECT mp_send_to_dlq(:'event_id', 'transient', 'busy', 7, 'mailer') AS sent \gset
SELECT mp_send_to_dlq(:'event_id', 'permanent', 'no such mailbox', 8, 'mailer') = :sent AS same;
SELECT replay, attempt, counted, error_message, verdict FROM mp_dlq_attempts(:sent);
SELECT first_error_message, error_message, attempts FROM mp_dlq WHERE id = :sent;
SELECT * FROM mp_dlq_attempts(-1);

-- Contention does not count at first.
SELECT mp_emit_event('Inline', '{"dish": "tofu", "fails": 9, "code": "40P01"}') IS NOT NULL AS emitted;
SELECT attempt, counted, sqlstate, verdict FROM history WHERE dish = 'tofu';
SELECT * FROM wrong;
DELETE FROM meal_planner.delivery WHERE sqlstate = '40P01';
SELECT count(*) AS left FROM history WHERE dish = 'tofu';

-- Consumers: who had it, how long; a lease that ends is an attempt, too.
SELECT mp_emit_event('Pull', '{"dish": "bread"}') AS a, mp_emit_event('Pull', '{"dish": "rolls"}') AS b \gset
SELECT count(*) AS claimed, min(token::text) AS token FROM mp_claim('pull', 10, 30, 'oven 1') \gset
SELECT mp_fail(:'token', :'a', 'transient', 'too cold');
SET meal_planner.clock_offset = 1000;
SELECT attempt, event #>> '{detail,dish}' AS dish FROM mp_claim('pull', 10, 30, 'oven 2');
SELECT * FROM history WHERE subscription = 'pull';
SELECT * FROM wrong;
SET meal_planner.clock_offset = 2000;
SELECT count(*) AS claimed, min(token::text) AS token FROM mp_claim('pull') \gset
SELECT mp_fail(:'token', :'b', 'transient', 'still cold', 5);
SET meal_planner.clock_offset = 3000;
SELECT count(*) AS claimed, min(token::text) AS token FROM mp_claim('pull') \gset
SELECT mp_fail(:'token', :'a', 'permanent', 'burnt'), mp_fail(:'token', :'b', 'transient', 'cold to the end');
SELECT dish, attempt, counted, message, verdict, worker, live FROM history WHERE subscription = 'pull';
SELECT seconds BETWEEN 900 AND 1100 AS held_so_long FROM mp_attempts WHERE subscription = 'pull' AND worker = 'oven 2';
SELECT * FROM wrong;
-- What was not tried has not failed.
SELECT mp_emit_event('Pull', '{"dish": "buns"}') AS c \gset
SELECT mp_fail(token, event_id, 'deferred', 'the oven is taken', 0), attempt FROM mp_claim('pull');
SELECT mp_fail(token, event_id, 'transient', 'too hot', 0), attempt FROM mp_claim('pull');
SELECT attempt, counted, message, verdict FROM history WHERE dish = 'buns';
SELECT * FROM wrong;
SELECT mp_ack(token) FROM mp_claim('pull');
SELECT count(*) AS left FROM history WHERE dish = 'buns';
-- The only attempt ends with its lease.
SELECT mp_subscribe('once', '{"detail-type": ["Once"]}', mode => 'pull', options => '{"max_attempts": 1}');
SELECT mp_emit_event('Once', '{"dish": "egg"}') IS NOT NULL AS emitted;
SELECT count(*) AS claimed FROM mp_claim('once', worker => 'pan');
SET meal_planner.clock_offset = 4000;
SELECT count(*) AS claimed FROM mp_claim('once');
RESET meal_planner.clock_offset;
SELECT dish, attempt, counted, message, verdict, worker, live FROM history WHERE subscription = 'once';
SELECT * FROM wrong;

-- A batch that fails is tried one by one: only that is an attempt.
SELECT mp_put_events('[{"Source": "x", "DetailType": "Inline", "Detail": {"dish": "b1", "fails": 0}},
                       {"Source": "x", "DetailType": "Inline", "Detail": {"dish": "b2", "fails": 1}},
                       {"Source": "x", "DetailType": "Inline", "Detail": {"dish": "b3", "fails": 1}}]') -> 'FailedEntryCount' AS failed;
SELECT dish, attempt, verdict FROM history WHERE dish LIKE 'b_';
SELECT count(mp_emit_event('Worker', jsonb_build_object('dish', 'w' || n, 'fails', n % 2))) AS emitted FROM generate_series(1, 4) n;
CALL mp_sweep();
SELECT dish, attempt, verdict FROM history WHERE dish LIKE 'w_';
SELECT * FROM wrong;
:sweeps
SELECT count(*) AS left FROM meal_planner.delivery;

-- What is not counted: a handler that cannot run, and a probe of a breaker.
CREATE FUNCTION on_missing(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN INSERT INTO nowhere VALUES (1); END $$;
SELECT mp_subscribe('missing', '{"detail-type": ["Missing"]}', 'on_missing(meal_planner.event)');
SELECT mp_emit_event('Missing', '{"dish": "tea"}') IS NOT NULL AS emitted;
SELECT mp_resume_subscription('missing');
CALL mp_sweep();
SELECT attempt, counted, sqlstate, verdict FROM history WHERE dish = 'tea';
SELECT mp_breaker_configure('stove', '{"failure_threshold": 1}'),
       mp_subscribe('inline', '{"detail-type": ["Inline"]}', 'on_inline(meal_planner.event)', options => '{"breaker": "stove"}');
SELECT mp_emit_event('Inline', '{"dish": "roast", "fails": 1}') IS NOT NULL AS emitted;
SET meal_planner.clock_offset = 10;
CALL mp_sweep();
-- Refused: no call, no entry.
SELECT attempt, counted, verdict FROM history WHERE dish = 'roast';
UPDATE meal_planner.delivery d SET detail = '{"dish": "roast", "fails": 3}' WHERE d.subscription = 'inline';
SET meal_planner.clock_offset = 1000;
CALL mp_sweep();
SELECT attempt, counted, verdict FROM history WHERE dish = 'roast';
SELECT * FROM wrong;
SELECT mp_breaker_force('stove', 'closed');
SET meal_planner.clock_offset = 2000;
CALL mp_sweep();
SET meal_planner.clock_offset = 3000;
CALL mp_sweep();
SET meal_planner.clock_offset = 4000;
CALL mp_sweep();
RESET meal_planner.clock_offset;
SELECT count(*) AS left FROM meal_planner.delivery WHERE subscription = 'inline';
SELECT mp_unsubscribe('missing', 'discard');

-- A worker that dies, here one whose sweep is cancelled.
SET mp_test.cancel = on;
CREATE FUNCTION on_fatal(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('mp_test.cancel') = 'on' THEN
        PERFORM pg_cancel_backend(pg_backend_pid());
        PERFORM pg_sleep(60);
    END IF;
END $$;
SELECT mp_subscribe('fatal', '{"detail-type": ["Fatal"]}', 'on_fatal(meal_planner.event)', 'worker');
SELECT mp_emit_event('Fatal', '{"dish": "fugu"}') IS NOT NULL AS emitted;
CALL mp_sweep();
CALL mp_sweep();
SELECT attempt, counted, message, verdict, took, here FROM history WHERE dish = 'fugu';
SELECT * FROM wrong;
SET meal_planner.clock_offset = 1000;
CALL mp_sweep();
CALL mp_sweep();
RESET meal_planner.clock_offset;
SET mp_test.cancel = off;
SELECT attempt, counted, message, verdict, live FROM history WHERE dish = 'fugu';
SELECT * FROM wrong;

-- With an order key: the head fails, those behind it wait and have not failed.
SELECT mp_subscribe('inline', '{"detail-type": ["Inline"]}', 'on_inline(meal_planner.event)',
                    options => '{"order_key": "detail.table", "on_dead": "block_key", "max_attempts": 2}');
SELECT mp_emit_event('Inline', '{"dish": "first", "table": 1, "fails": 2}') IS NOT NULL AS emitted;
SELECT mp_emit_event('Inline', '{"dish": "second", "table": 1, "fails": 1}') IS NOT NULL AS emitted;
:sweeps
SELECT dish, attempt, verdict, live FROM history WHERE dish IN ('first', 'second');
SELECT mp_replay_dlq(id, '{"dish": "first", "table": 1, "fails": 0}') FROM mp_dlq WHERE event #>> '{detail,dish}' = 'first';
CALL mp_sweep();
SELECT dish, attempt, verdict, live FROM history WHERE dish IN ('first', 'second');
SELECT * FROM wrong;
:sweeps
SELECT dish, attempt, verdict, live FROM history WHERE dish IN ('first', 'second');

-- Delivered by a replay of the log.
SELECT mp_subscribe('late', '{"detail-type": ["Inline"], "detail": {"dish": ["first"]}}', 'on_inline(meal_planner.event)');
SELECT mp_replay('late');
CALL mp_sweep();
SELECT subscription, attempt, replay_name IS NOT NULL AS of_a_replay FROM mp_attempts WHERE subscription = 'late';
-- Unsubscribed meanwhile: the letter has what there was, also that of a replay.
SELECT mp_unsubscribe('late');
SELECT subscription, attempt, verdict, live FROM history WHERE subscription = 'late';
SELECT reason, attempts, first_error_message = error_message AS same FROM mp_dlq WHERE subscription = 'late';
SELECT mp_subscribe('late', '{"detail-type": ["Never"]}', 'on_inline(meal_planner.event)');
SELECT mp_replay_dlq(id) FROM mp_dlq WHERE subscription = 'late';
SELECT mp_unsubscribe('late');
SELECT replay, attempt, verdict, live FROM history WHERE subscription = 'late';
SELECT reason, status, attempts FROM mp_dlq WHERE subscription = 'late';

-- Very many: the first and the last 99, however many there are.  Long texts are cut.
CREATE FUNCTION on_long(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% %', attempt_of('long', e), repeat('ä', 5000) USING ERRCODE = 'MPT01';
END $$;
SELECT mp_subscribe('long', '{"detail-type": ["Long"]}', 'on_long(meal_planner.event)', options => '{"base_delay": 0, "max_attempts": 60}');
SELECT mp_emit_event('Long', '{"dish": "oats"}') IS NOT NULL AS emitted;
CALL mp_sweep();
SELECT id AS letter, retry_count, attempts FROM mp_dlq WHERE subscription = 'long' \gset
SELECT :retry_count AS retry_count, :attempts AS attempts;
SELECT mp_replay_dlq(:letter);
CALL mp_sweep();
SELECT attempts, left(first_error_message, 3) AS first, left(error_message, 3) AS last FROM mp_dlq WHERE id = :letter;
SELECT replay, min(attempt), max(attempt), count(*), max(octet_length(error_message)) AS bytes FROM mp_dlq_attempts(:letter) GROUP BY replay ORDER BY replay;
SELECT array_agg(attempt ORDER BY n) FROM (SELECT attempt, row_number() OVER () AS n FROM mp_dlq_attempts(:letter) LIMIT 3) a;

-- The emitter's rollback takes the attempts along.
BEGIN;
SELECT mp_emit_event('Inline', '{"dish": "ghost", "fails": 1}') IS NOT NULL AS emitted;
SELECT dish, attempt FROM history WHERE dish = 'ghost';
ROLLBACK;
SELECT count(*) AS left FROM mp_attempts a WHERE NOT EXISTS (SELECT FROM meal_planner.event e WHERE e.id = a.event_id);

-- How long it is kept: what is settled goes, what waits stays.
SELECT status, count(*) FROM mp_dlq GROUP BY status ORDER BY status;
SELECT mp_discard_dlq(:letter, 'too many');
SELECT count(*) AS alerts FROM meal_planner.alert WHERE dead_letter_id = :letter;
SELECT count(*) AS redrives FROM meal_planner.redrive;
INSERT INTO meal_planner.breaker_history (name, epoch, reason, at, from_state, to_state, event_id)
VALUES ('old', 1, 'consecutive_failures', meal_planner.clock(), 'closed', 'open', gen_random_uuid());
SET meal_planner.clock_offset = 7689600; -- 89 days
CALL mp_sweep();
SELECT status, count(*) FROM mp_dlq GROUP BY status ORDER BY status;
SELECT count(*) AS changes FROM meal_planner.breaker_history WHERE name = 'old';
RESET meal_planner.clock_offset;
SELECT mp_set_retention(1, 'history');
SET meal_planner.clock_offset = 90000;
SELECT meal_planner.sweep_history() AS more;
SELECT status, count(*) FROM mp_dlq GROUP BY status ORDER BY status;
SELECT count(*) AS changes FROM meal_planner.breaker_history WHERE name = 'old';
SELECT count(*) AS alerts FROM meal_planner.alert WHERE dead_letter_id = :letter;
SELECT count(*) AS pauses FROM meal_planner.alert WHERE kind = 'paused';
SELECT count(*) AS redrives FROM meal_planner.redrive;
SELECT meal_planner.sweep_history() AS more;
RESET meal_planner.clock_offset;
SELECT mp_set_retention(NULL, 'history');
SELECT mp_set_retention(1, 'dead letters');
SELECT * FROM meal_planner.retention;

DROP VIEW history, wrong;
SELECT mp_unsubscribe(name, 'discard') FROM mp_subscriptions WHERE NOT builtin;
DROP FUNCTION attempt_of, cook, on_inline, on_worker, on_missing, on_fatal, on_long;
