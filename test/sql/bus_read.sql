-- mp_read_events: the log in order, page by page, never past what is in flight.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS meal_planner CASCADE;
CREATE EXTENSION meal_planner;
RESET client_min_messages;

SELECT count(mp_emit_event(CASE WHEN n % 10 = 0 THEN 'Tenth' ELSE 'Other' END, jsonb_build_object('n', n),
                           account => CASE WHEN n % 2 = 0 THEN 'even' ELSE 'odd' END))
  FROM generate_series(1, 2500) n;
SELECT mp_emit_event('Local', '{"n": 0}') IS NOT NULL AS emitted;

-- An account reads its own events and no others, 1000 at a time unless told otherwise.
SELECT count(*), bool_and((event -> 'detail' ->> 'n')::int % 2 = 0) AS own FROM mp_read_events(account => 'even');
SELECT count(*) FROM mp_read_events(account => 'even', max_events => 5000);
SELECT count(*) FROM mp_read_events();
SELECT count(*) FROM mp_read_events(NULL, NULL, NULL, NULL);
SELECT count(*) FROM mp_read_events(account => 'nobody');
SELECT count(*) FROM mp_read_events(max_events => 0);
SELECT count(*) FROM mp_read_events(max_events => -1);
SELECT count(*) FROM mp_read_events(after_position => -1, account => 'odd', max_events => 7);

-- In position order, although nothing sorts.
SELECT bool_and(ok) AS in_order FROM (
    SELECT position > lag(position, 1, 0::bigint) OVER (ROWS UNBOUNDED PRECEDING) AS ok
      FROM mp_read_events(account => 'even', max_events => 2000)) r;
SELECT bool_and(r.event = mp_event(e.id, 'odd')) AS envelopes
  FROM mp_read_events(account => 'odd', max_events => 20) r
  JOIN meal_planner.event e ON e.account = 'odd' AND e.position = r.position;

-- Page by page: nothing twice, nothing missed.
CREATE FUNCTION pages(page int, pattern jsonb DEFAULT NULL) RETURNS TABLE (pages int, events int, first int, last int, in_order boolean)
LANGUAGE plpgsql AS $$
DECLARE
    after bigint := 0;
    r     record;
    got   int;
    prior int;
BEGIN
    pages := 0; events := 0; in_order := true;
    LOOP
        got := 0;
        FOR r IN SELECT e.position, (e.event -> 'detail' ->> 'n')::int AS n
                   FROM mp_read_events(after, page, pattern, 'even') e LOOP
            in_order := in_order AND (prior IS NULL OR r.n > prior) AND r.position > after;
            first := coalesce(first, r.n);
            prior := r.n;
            after := r.position;
            got := got + 1;
        END LOOP;
        EXIT WHEN got = 0;
        pages := pages + 1;
        events := events + got;
    END LOOP;
    last := prior;
    RETURN NEXT;
END $$;
SELECT * FROM pages(1000);
SELECT * FROM pages(333);
SELECT * FROM pages(1250);
SELECT * FROM pages(50, '{"detail-type": ["Tenth"]}');
SELECT * FROM pages(2000, '{"detail": {"n": [{"numeric": [">", 2400]}]}}');
SELECT * FROM pages(10, '{"detail-type": ["Nothing"]}');
SELECT * FROM mp_read_events(pattern => '{"detail-type": []}');
\echo :LAST_ERROR_SQLSTATE

-- Own events only once they are committed: a reader that goes on from here misses nothing.
BEGIN;
SELECT count(mp_emit_event('Own', '{}', account => 'own')) FROM generate_series(1, 3);
SELECT count(*) AS uncommitted FROM mp_read_events(account => 'own');
SELECT account, pid = pg_backend_pid() AS mine, since > now() AS since_append,
       read_position < (SELECT min(position) FROM meal_planner.event WHERE account = 'own') AS below
  FROM mp_in_flight;
-- Other accounts are not held back.
SELECT count(*) AS others FROM mp_read_events(account => 'local');
-- With a second account in the transaction both are.
SELECT mp_emit_event('Own', '{}', account => 'own2') IS NOT NULL AS emitted;
SELECT account FROM mp_in_flight;
SELECT count(*) AS uncommitted FROM mp_read_events(account => 'own2');
COMMIT;
SELECT count(*) AS committed FROM mp_read_events(account => 'own');
SELECT count(*) AS in_flight FROM mp_in_flight;
BEGIN;
SELECT mp_emit_event('Own', '{}', account => 'own') IS NOT NULL AS emitted;
ROLLBACK;
SELECT count(*) AS in_flight FROM mp_in_flight;
SELECT count(*) AS committed FROM mp_read_events(account => 'own');
-- A savepoint rolled back ends nothing: its transaction goes on.
BEGIN;
SAVEPOINT s;
SELECT mp_emit_event('Own', '{}', account => 'own') IS NOT NULL AS emitted;
ROLLBACK TO s;
SELECT count(*) AS in_flight FROM mp_in_flight;
COMMIT;
SELECT count(*) AS in_flight FROM mp_in_flight;

-- An old snapshot could skip events: refused.
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM mp_read_events();
\echo :LAST_ERROR_SQLSTATE
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT count(*) FROM mp_read_events();
ROLLBACK;
-- Emitting in one is fine.
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT mp_emit_event('Serial', '{}', stream => 's', expected_version => 0, idempotency_key => 's') IS NOT NULL AS emitted;
COMMIT;
SELECT count(*) FROM mp_read_events(pattern => '{"detail-type": ["Serial"]}');

-- Two-phase commit would hide events from the readers' bound: refused.
BEGIN;
SELECT mp_emit_event('Prepared', '{}') IS NOT NULL AS emitted;
PREPARE TRANSACTION 'mp_prepared';
\echo :LAST_ERROR_SQLSTATE
SELECT count(*) AS in_flight FROM mp_in_flight;

-- In the middle of a query that stops early, and twice in one query.
SELECT event -> 'detail' ->> 'n' AS n FROM mp_read_events(account => 'even') LIMIT 2;
SELECT count(*) FROM mp_read_events(account => 'even') a JOIN mp_read_events(account => 'even') b USING (position);

DROP FUNCTION pages;
