-- Circuit breakers as callers outside see them.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS meal_planner CASCADE;
CREATE EXTENSION meal_planner;
RESET client_min_messages;
\set SHOW_CONTEXT never
\set VERBOSITY default

-- One call that ended so; NULL when it was refused.
CREATE FUNCTION call(name text, outcome text, duration_ms float8 DEFAULT NULL) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    answer jsonb := mp_breaker_acquire(name);
BEGIN
    RETURN CASE WHEN (answer ->> 'allowed')::boolean
                THEN mp_breaker_report(name, (answer ->> 'permit')::bigint, outcome, duration_ms) END;
END $$;
CREATE VIEW breakers AS
SELECT name, state, consecutive_failures AS failures, permits, retry_at - opened_at AS open_for, open_count, forced, stored
  FROM mp_breakers ORDER BY name;

-- A name that nobody configured has the defaults.
SELECT jsonb_object_keys(a), a -> 'allowed', a -> 'state' FROM mp_breaker_acquire('one') a;
SELECT call('one', 'failure') FROM generate_series(1, 4);
SELECT call('one', 'success');
SELECT call('one', 'failure') FROM generate_series(1, 4);
SELECT call('one', 'ignored');
SELECT * FROM breakers;
-- The fifth in a row, in a transaction that rolls back.
BEGIN;
SELECT call('one', 'failure');
ROLLBACK;
SELECT * FROM breakers;
SELECT s.state, s.epoch = b.epoch AS same_epoch, s.open_until - s.opened_at AS open_for FROM meal_planner.breaker_state s JOIN mp_breakers b USING (name);
SELECT a -> 'allowed' AS allowed, a -> 'state' AS state, (a ->> 'retry_after')::float8 BETWEEN 20 AND 30 AS soon, a ? 'permit' AS permit FROM mp_breaker_acquire('one') a;
SELECT call('one', 'failure') IS NULL AS refused;

-- After 30 seconds one caller may try.
SET meal_planner.clock_offset = 31;
SELECT mp_breaker_acquire('one') AS probe \gset
SELECT :'probe'::jsonb -> 'allowed' AS allowed, :'probe'::jsonb -> 'state' AS state;
SELECT a - 'retry_after' AS answer, (a ->> 'retry_after')::float8 <= 1 AS soon FROM mp_breaker_acquire('one') a;
SELECT mp_breaker_report('one', 17, 'success') AS late;
SELECT mp_breaker_report('one', (:'probe'::jsonb ->> 'permit')::bigint, 'ignored');
SELECT mp_breaker_report('one', (:'probe'::jsonb ->> 'permit')::bigint, 'failure') AS told_before;
SELECT mp_breaker_acquire('one') AS probe \gset
SELECT mp_breaker_report('one', (:'probe'::jsonb ->> 'permit')::bigint, 'failure');
SELECT * FROM breakers;
SET meal_planner.clock_offset = 62;
SELECT call('one', 'success');
SELECT * FROM breakers;
SELECT mp_breaker_report('one', (:'probe'::jsonb ->> 'permit')::bigint, 'failure') AS late;
SELECT counters FROM mp_breakers;
SELECT from_state, to_state, reason, epoch - min(epoch) OVER () AS epoch FROM meal_planner.breaker_history ORDER BY epoch;

-- A probe that nobody hears of again: its lease ends, and it is open again.
SELECT call('one', 'failure') FROM generate_series(1, 5);
SET meal_planner.clock_offset = 100;
SELECT a -> 'state' AS state FROM mp_breaker_acquire('one') a;
SET meal_planner.clock_offset = 130;
SELECT state, permits FROM mp_breakers;
SET meal_planner.clock_offset = 161;
SELECT state, permits FROM mp_breakers;
SELECT a -> 'state' AS state, a -> 'allowed' AS allowed FROM mp_breaker_acquire('one') a;
SET meal_planner.clock_offset = 191;
SELECT call('one', 'success');

-- Sweeps make events of it, once.
CALL mp_sweep();
CALL mp_sweep();
SELECT event ->> 'detail-type' AS type, event -> 'detail' ->> 'breaker' AS breaker, event -> 'detail' ->> 'reason' AS reason
  FROM mp_read_events() ORDER BY (event -> 'detail' ->> 'epoch')::bigint;
RESET meal_planner.clock_offset;

-- Configured.
SELECT mp_breaker_configure('two', '{"failure_threshold": 2, "open_seconds": 10, "growth": 3, "max_open_seconds": 50, "success_threshold": 2, "half_open_permits": 2}');
SELECT call('two', 'failure') FROM generate_series(1, 2);
SELECT * FROM breakers WHERE name = 'two';
SET meal_planner.clock_offset = 11;
SELECT call('two', 'success');
SELECT call('two', 'failure');
SELECT open_for FROM breakers WHERE name = 'two';
SET meal_planner.clock_offset = 42;
SELECT call('two', 'failure');
SELECT open_for FROM breakers WHERE name = 'two';
SET meal_planner.clock_offset = 93;
SELECT count(*) FILTER (WHERE (mp_breaker_acquire('two') ->> 'allowed')::boolean) FROM generate_series(1, 4);
SELECT state, permits FROM mp_breakers WHERE name = 'two';
RESET meal_planner.clock_offset;

-- By rates.
SELECT mp_breaker_configure('rate', '{"failure_threshold": 0, "window": "count", "window_size": 10, "minimum_calls": 6, "failure_rate": 0.5}');
SELECT call('rate', CASE WHEN n % 2 = 0 THEN 'failure' ELSE 'success' END) FROM generate_series(1, 6) n;
SELECT mp_breaker_configure('slow', '{"window": "time", "window_size": 60, "minimum_calls": 3, "slow_call_seconds": 0.5, "slow_rate": 0.6}');
SELECT call('slow', 'success', ms) FROM unnest(ARRAY[700, 499, 500]) ms;
SELECT name, reason FROM meal_planner.breaker_history WHERE name IN ('rate', 'slow');
SELECT counters -> 'slow' AS slow FROM mp_breakers WHERE name = 'slow';
-- One that only measures refuses nobody, and tells once.
SELECT mp_breaker_configure('shadow', '{"metrics_only": true}');
SELECT call('shadow', 'failure') FROM generate_series(1, 7);
SELECT state, consecutive_failures, metrics_only, stored FROM mp_breakers WHERE name = 'shadow';
SELECT from_state, to_state, reason FROM meal_planner.breaker_history WHERE name = 'shadow';

-- By force: recorded although the transaction rolls back.
BEGIN;
SELECT mp_breaker_force('three', 'open', reason => 'maintenance');
ROLLBACK;
SELECT mp_breaker_acquire('three');
SELECT state, forced, forced_until, forced_by = current_user AS by_me, forced_reason, retry_at FROM mp_breakers WHERE name = 'three';
SELECT mp_breaker_force('three', 'closed', meal_planner.clock() + interval '1 minute');
SELECT call('three', 'failure') FROM generate_series(1, 6);
SET meal_planner.clock_offset = 61;
SELECT call('three', 'failure') FROM generate_series(1, 5);
RESET meal_planner.clock_offset;
SELECT mp_breaker_force('three', 'open', meal_planner.clock() + interval '1 minute', 'again');
SELECT mp_breaker_force('three', 'auto');
SELECT mp_breaker_force('three', 'auto');
SELECT call('three', 'success');
SELECT from_state, to_state, reason, by_role = current_user AS by_me, note FROM meal_planner.breaker_history WHERE name = 'three' ORDER BY epoch;

-- What is wrong.
SELECT mp_breaker_acquire('');
SELECT mp_breaker_acquire(NULL);
SELECT mp_breaker_acquire(repeat('x', 101));
SELECT name FROM meal_planner.breakers(repeat('x', 101));
INSERT INTO meal_planner.breaker (name, version) VALUES (repeat('x', 101), 0);
SELECT count(*) AS of_no_name FROM mp_breakers WHERE length(name) > 99;
SELECT mp_breaker_report('one', NULL, 'success');
SELECT mp_breaker_report('one', 1, 'fine');
SELECT mp_breaker_report('one', 1, 'success', -1);
SELECT mp_breaker_configure('one', '{"failure_treshold": 3}');
SELECT mp_breaker_configure('one', '{"failure_threshold": 2.5}');
SELECT mp_breaker_configure('one', '{"open_seconds": 1e400}');
SELECT mp_breaker_configure('one', '{"window": "both"}');
SELECT mp_breaker_configure('one', '{"failure_rate": 0.5}');
SELECT mp_breaker_configure('one', '{"slow_rate": 0.5, "window": "count"}');
SELECT mp_breaker_configure('one', '{"window": "count", "window_size": 5, "minimum_calls": 6}');
SELECT mp_breaker_configure('one', '{"open_seconds": 30, "max_open_seconds": 10}');
SELECT mp_breaker_configure('one', '{"metrics_only": 1}');
SELECT mp_breaker_configure('one', '[]');
SELECT mp_breaker_force('one', 'half-open');
SELECT mp_breaker_force('one', 'open', meal_planner.clock() - interval '1 second');
SELECT mp_breaker_force('one', 'auto', meal_planner.clock() + interval '1 hour');

-- Another extension in the same database begins anew.
SET client_min_messages = warning;
DROP EXTENSION meal_planner CASCADE;
CREATE EXTENSION meal_planner;
SELECT * FROM mp_breakers;
SELECT mp_breaker_acquire('two') -> 'allowed' AS allowed;
