-- A sweep that has found work in many accounts looks for more when it has done a unit of each.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS meal_planner CASCADE;
CREATE EXTENSION meal_planner;
RESET client_min_messages;
\set SHOW_CONTEXT never
SET track_functions = 'all';
CREATE VIEW looks AS
SELECT coalesce(sum(calls) FILTER (WHERE funcname = 'batch_sources'), 0) AS for_batches,
       coalesce(sum(calls) FILTER (WHERE funcname = 'delivery_queues'), 0) AS for_deliveries
  FROM pg_stat_xact_user_functions;

\set batches 'SELECT for_batches - :before_for_batches AS looks FROM looks;'
\set deliveries 'SELECT for_deliveries - :before_for_deliveries AS looks FROM looks;'

CREATE TABLE visit (account text, name text);
CREATE FUNCTION on_one(e meal_planner.event) RETURNS void LANGUAGE sql AS $$ INSERT INTO visit VALUES (e.account, 'one') $$;
CREATE FUNCTION on_two(e meal_planner.event) RETURNS void LANGUAGE sql AS $$ INSERT INTO visit VALUES (e.account, 'two') $$;
SELECT mp_subscribe('one', '{"detail-type": ["A"]}', 'on_one(meal_planner.event)', 'worker');
SELECT mp_subscribe('two', '{"detail-type": ["A"]}', 'on_two(meal_planner.event)', 'worker');
CALL mp_sweep();
SELECT count(mp_emit_event('A', '{}', account => 'house ' || n)) FROM generate_series(1, 20) n, generate_series(1, 3);

CREATE FUNCTION pg_temp.claim_batches() RETURNS TABLE (place text) LANGUAGE plpgsql AS $$
DECLARE c meal_planner.claim;
BEGIN
    LOOP
        c := meal_planner.claim_batch(1, 1);
        EXIT WHEN c.account IS NULL;
        place := c.account || ' ' || c.subscription;
        RETURN NEXT;
    END LOOP;
END $$;
CREATE FUNCTION pg_temp.claim_deliveries(count int) RETURNS TABLE (place text) LANGUAGE plpgsql AS $$
DECLARE c meal_planner.claim;
BEGIN
    FOR n IN 1 .. count LOOP
        c := meal_planner.claim_delivery(1);
        EXIT WHEN c.account IS NULL;
        place := c.account;
        RETURN NEXT;
    END LOOP;
END $$;
-- One look, and a second one to know that this was all.
BEGIN;
SELECT * FROM looks \gset before_
SELECT count(*) AS claimed, count(DISTINCT place) AS places FROM pg_temp.claim_batches();
:batches
-- A look in vain is believed as far as the caller wants it to be.
SELECT clock_timestamp() AS later \gset
SELECT (meal_planner.claim_batch(1, believed => :'later'::timestamptz - interval '1 min')).account IS NULL AS nothing;
:batches
SELECT (meal_planner.claim_batch(1, believed => :'later')).account IS NULL AS nothing;
:batches
SELECT (meal_planner.claim_batch(1)).account IS NULL AS nothing;
:batches
ROLLBACK;
-- What a look has found is a hint: paused, removed or of another mode by now.
BEGIN;
SELECT (meal_planner.claim_batch(1, 1)).account IS NOT NULL AS claimed;
SELECT mp_pause_subscription('one');
SELECT count(*) AS claimed, count(DISTINCT place) AS places, bool_and(place LIKE '% two') AS of_two FROM pg_temp.claim_batches();
ROLLBACK;
BEGIN;
SELECT (meal_planner.claim_batch(1, 1)).account IS NOT NULL AS claimed;
SELECT mp_unsubscribe('two', 'discard');
SELECT count(*) AS claimed, bool_and(place LIKE '% one') AS of_one FROM pg_temp.claim_batches();
ROLLBACK;

-- The whole sweep: everybody gets everything, once.
CALL mp_sweep();
SELECT name, count(*), count(DISTINCT account) AS accounts FROM visit GROUP BY name ORDER BY name;
TRUNCATE visit;

-- The same for deliveries.
CREATE OR REPLACE FUNCTION on_one(e meal_planner.event) RETURNS void LANGUAGE plpgsql
AS $$ BEGIN RAISE EXCEPTION 'not now' USING ERRCODE = '08006'; END $$;
SELECT mp_unsubscribe('two');
SELECT count(mp_emit_event('A', '{}', account => 'house ' || n)) FROM generate_series(1, 20) n, generate_series(1, 3);
CALL mp_sweep();
BEGIN;
SELECT count(*), count(DISTINCT account) AS accounts FROM meal_planner.delivery;
SET LOCAL meal_planner.clock_offset = 1000;
SELECT * FROM looks \gset before_
-- each account in its turn
SELECT count(*) AS claimed, count(DISTINCT place) AS accounts FROM pg_temp.claim_deliveries(20);
SELECT count(*) AS claimed, count(DISTINCT place) AS accounts FROM pg_temp.claim_deliveries(100);
:deliveries
ROLLBACK;
SELECT mp_pause_subscription('one');
DROP TABLE visit;
DROP VIEW looks;
DROP FUNCTION on_one, on_two;
