-- Retry policies: jitter, contention, shortages, and what costs no attempt, in all three modes.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS meal_planner CASCADE;
CREATE EXTENSION meal_planner;
RESET client_min_messages;
\set SHOW_CONTEXT never

-- Jitter: a share, or what AWS calls it.
SELECT jitter, min(wait) >= 8 * (1 - share) AS not_less, max(wait) <= 8 AS not_more, count(DISTINCT wait) > 1 AS vary
  FROM (VALUES ('0'::jsonb, 0), ('"none"', 0), ('"equal"', 0.5), ('"full"', 1), ('0.25', 0.25)) j (jitter, share),
       LATERAL (SELECT extract(epoch FROM mp_backoff(4, jsonb_build_object('jitter', jitter))) AS wait FROM generate_series(1, 200)) w
 GROUP BY jitter, share ORDER BY jitter::text;
SELECT mp_backoff(4, '{"jitter": "some"}');
SELECT mp_backoff(4, '{"jitter": 2}');
SELECT mp_backoff(4, '{"jitter": null}');

-- What fails, and what it fails with.
CREATE TABLE weather (code text);
INSERT INTO weather VALUES (NULL);
CREATE TABLE seen (n serial, subscription text, event int, at timestamptz);
CREATE FUNCTION on_e(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    failure text := (SELECT code FROM weather);
BEGIN
    IF failure IS NOT NULL THEN
        RAISE EXCEPTION 'weather: %', failure USING ERRCODE = failure;
    END IF;
    INSERT INTO seen (event, at) VALUES ((e.detail ->> 'n')::int, meal_planner.clock());
END $$;
CREATE VIEW state AS
SELECT string_agg(d.attempt || '+' || d.contentions, ' ' ORDER BY d.position) AS attempts, string_agg(d.sqlstate, ' ') AS code,
       (SELECT string_agg(l.reason || ' ' || l.retry_count, ' ') FROM mp_dlq l) AS dead,
       (SELECT count(*) FROM seen) AS seen
  FROM meal_planner.delivery d;

-- One try; a sweep would go on with the next as soon as that is due.
CREATE FUNCTION try() RETURNS text LANGUAGE sql
AS $$ SELECT meal_planner.attempt_delivery(c.account, c.subscription, c.position) FROM meal_planner.claim_delivery(1) c WHERE c.account IS NOT NULL $$;

-- Contention: ten tries that are no attempts, soon after each other; then it is an error like others.
UPDATE weather SET code = '40001';
SELECT mp_subscribe('s', '{"detail-type": ["E"]}', 'on_e(meal_planner.event)');
SELECT mp_emit_event('E', '{"n": 1}') IS NOT NULL AS emitted;
SELECT *, (SELECT next_attempt_at < meal_planner.clock() + interval '0.1 s' FROM meal_planner.delivery) AS soon FROM state;
\set ECHO none
\o /dev/null
SELECT format('SET meal_planner.clock_offset = %s', n * 3), 'SELECT try()' FROM generate_series(1, 9) n \gexec
\o
\set ECHO all
SELECT * FROM state;
SET meal_planner.clock_offset = 30;
SELECT try();
SELECT * FROM state;
SET meal_planner.clock_offset = 100;
SELECT try();
SELECT * FROM state;
-- what comes between does not bring new tries, and an attempt that succeeds ends it all
UPDATE weather SET code = NULL;
SET meal_planner.clock_offset = 200;
CALL mp_sweep();
SELECT * FROM state;
-- it is never dead for contention before it has had ten tries and five attempts
UPDATE weather SET code = '55P03';
SELECT mp_emit_event('E', '{"n": 2}') IS NOT NULL AS emitted;
\set ECHO none
\o /dev/null
SELECT format('SET meal_planner.clock_offset = %s', 200 + n * 20), 'SELECT try()' FROM generate_series(1, 13) n \gexec
\o
\set ECHO all
SELECT * FROM state;
SET meal_planner.clock_offset = 1000;
SELECT try();
SELECT * FROM state;
DELETE FROM meal_planner.dead_letter;

-- A shutdown of a server is nobody's fault: it is tried again however long it takes.
UPDATE weather SET code = '57P01';
SELECT mp_emit_event('E', '{"n": 3}') IS NOT NULL AS emitted;
\set ECHO none
SELECT format('SET meal_planner.clock_offset = %s', 1000 + n * 20), 'CALL mp_sweep()' FROM generate_series(1, 20) n \gexec
\set ECHO all
SELECT * FROM state;
-- a shortage waits ten times longer, and counts
UPDATE weather SET code = '53300';
SET meal_planner.clock_offset = 2000;
SELECT meal_planner.clock() AS before \gset
CALL mp_sweep();
SELECT *, (SELECT next_attempt_at BETWEEN :'before'::timestamptz + interval '20 s' AND meal_planner.clock() + interval '20 s' FROM meal_planner.delivery) AS ten_times FROM state;
SET meal_planner.clock_offset = 2100;
SELECT meal_planner.clock() AS before \gset
CALL mp_sweep();
SELECT *, (SELECT next_attempt_at BETWEEN :'before'::timestamptz + interval '40 s' AND meal_planner.clock() + interval '40 s' FROM meal_planner.delivery) AS ten_times FROM state;
UPDATE weather SET code = NULL;
SET meal_planner.clock_offset = 2200;
CALL mp_sweep();
SELECT * FROM state;
-- an age includes the wait that somebody asked for
SELECT mp_subscribe('s', '{"detail-type": ["E"]}', 'on_e(meal_planner.event)', options => '{"max_age": 50}');
CREATE OR REPLACE FUNCTION on_e(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'busy' USING ERRCODE = 'MPT01', DETAIL = 'retry_after=60';
END $$;
SELECT mp_emit_event('E', '{"n": 4}') IS NOT NULL AS emitted;
SELECT * FROM state;
RESET meal_planner.clock_offset;
SELECT mp_unsubscribe('s');
DELETE FROM meal_planner.dead_letter;
TRUNCATE seen;

-- An outage of an hour, in all three modes: while the breaker is open nothing is tried and no attempt is counted.
UPDATE weather SET code = 'MPT01';
CREATE OR REPLACE FUNCTION on_e(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT code FROM weather) IS NOT NULL THEN
        RAISE EXCEPTION 'weather' USING ERRCODE = 'MPT01';
    END IF;
    INSERT INTO seen (subscription, event) VALUES ('handler', (e.detail ->> 'n')::int);
END $$;
-- A consumer asks before it calls; what it may not call it gives back.
CREATE FUNCTION consume() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    claim  record;
    answer jsonb;
BEGIN
    FOR claim IN SELECT * FROM mp_claim('pull', 100) LOOP
        answer := mp_breaker_acquire('pull');
        IF NOT (answer ->> 'allowed')::boolean THEN
            PERFORM mp_fail(claim.token, claim.event_id, 'deferred', 'breaker', (answer ->> 'retry_after')::float8);
        ELSIF (SELECT code FROM weather) IS NOT NULL THEN
            PERFORM mp_breaker_report('pull', (answer ->> 'permit')::bigint, 'failure');
            PERFORM mp_fail(claim.token, claim.event_id, 'deferred', 'it is down', 30);
        ELSE
            PERFORM mp_breaker_report('pull', (answer ->> 'permit')::bigint, 'success');
            INSERT INTO seen (subscription, event) VALUES ('consumer', (claim.event -> 'detail' ->> 'n')::int);
            PERFORM mp_ack(claim.token, ARRAY[claim.event_id]);
        END IF;
    END LOOP;
END $$;
SELECT mp_subscribe('inline', '{"detail-type": ["E"]}', 'on_e(meal_planner.event)', options => '{"breaker": "inline"}'),
       mp_subscribe('worker', '{"detail-type": ["E"]}', 'on_e(meal_planner.event)', 'worker', '{"breaker": "worker"}'),
       mp_subscribe('pull', '{"detail-type": ["E"]}', mode => 'pull');
SELECT count(mp_emit_event('E', jsonb_build_object('n', n))) FROM generate_series(1, 12) n;
\set ECHO none
\o /dev/null
SELECT format('SET meal_planner.clock_offset = %s', n * 120), 'CALL mp_sweep()', 'SELECT consume()' FROM generate_series(1, 30) n \gexec
\o
\set ECHO all
SELECT name, state FROM mp_breakers ORDER BY name;
SELECT d.subscription, max(d.attempt) AS most_attempts, count(*) > 0 AS wait FROM meal_planner.delivery d GROUP BY d.subscription ORDER BY 1;
SELECT count(*) AS dead FROM mp_dlq;
SELECT calls < 100 AS only_probes FROM (SELECT sum(calls) AS calls FROM mp_handler_stats WHERE subscription IN ('inline', 'worker')) s;
UPDATE weather SET code = NULL;
\set ECHO none
\o /dev/null
SELECT format('SET meal_planner.clock_offset = %s', 3600 + n * 200), 'CALL mp_sweep()', 'SELECT consume()' FROM generate_series(1, 5) n \gexec
\o
\set ECHO all
SELECT subscription, count(*), count(DISTINCT event) FROM seen GROUP BY subscription ORDER BY 1;
SELECT count(*) AS left FROM meal_planner.delivery;
SELECT count(*) AS dead FROM mp_dlq;

RESET meal_planner.clock_offset;
DROP VIEW state;
DROP TABLE seen, weather;
DROP FUNCTION on_e, consume, try;
