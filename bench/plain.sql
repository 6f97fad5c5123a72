-- What meal_planner is measured against when nobody else's queue is: plain SQL
-- written well, with the columns of meal_planner.event, an identity key, a
-- unique id and the index a consumer by type would want.  This file goes into
-- the template of every database of the benchmark.

CREATE TABLE plain (
    account         text        NOT NULL,
    position        bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id              uuid        NOT NULL UNIQUE DEFAULT gen_random_uuid(),
    detail_type     text        NOT NULL,
    source          text        NOT NULL,
    "time"          timestamptz NOT NULL DEFAULT clock_timestamp(),
    region          text        NOT NULL,
    resources       text[]      NOT NULL,
    detail          jsonb       NOT NULL,
    stream          text,
    version         bigint,
    deliver_after   timestamptz,
    idempotency_key text,
    hops            smallint    NOT NULL
);
CREATE INDEX ON plain (detail_type, "time");

-- The same as a queue: what is done is deleted, and only the key is needed.
CREATE TABLE plain_queue (LIKE plain INCLUDING DEFAULTS INCLUDING IDENTITY, PRIMARY KEY (position));

-- The same with a handler the usual way: a trigger that catches its errors.
CREATE TABLE plain_handled (LIKE plain INCLUDING ALL);
CREATE TABLE plain_effect (id uuid, name text);
CREATE TABLE effect (id uuid, name text);

CREATE FUNCTION handle_plainly() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    BEGIN
        INSERT INTO plain_effect VALUES (new.id, new.detail ->> 'name');
    EXCEPTION WHEN OTHERS THEN
        RAISE WARNING '%', sqlerrm;
    END;
    RETURN NULL;
END
$$;
CREATE TRIGGER handle AFTER INSERT ON plain_handled FOR EACH ROW EXECUTE FUNCTION handle_plainly();

CREATE FUNCTION handle(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO effect VALUES (e.id, e.detail ->> 'name');
END
$$;
CREATE FUNCTION handle_in_sql(e meal_planner.event) RETURNS void LANGUAGE sql AS $$
    INSERT INTO effect VALUES ((e).id, (e).detail ->> 'name')
$$;
CREATE FUNCTION handle_in_c(e meal_planner.event) RETURNS void LANGUAGE c
AS :'handler_library', 'bench_handle_in_c';
CREATE FUNCTION handle_not(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN END $$;

-- A circuit breaker the simple way: a row that everybody updates.
CREATE TABLE plain_breaker (name text PRIMARY KEY, calls bigint NOT NULL);
INSERT INTO plain_breaker VALUES ('bench', 0);
CREATE FUNCTION do_nothing(name text) RETURNS jsonb LANGUAGE c
AS :'handler_library', 'bench_do_nothing';

-- What a worker did, and when.
CREATE TABLE done (position bigint NOT NULL, recorded_at timestamptz NOT NULL, done_at timestamptz NOT NULL);
CREATE FUNCTION note_done(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO done VALUES (e.position, e."time", clock_timestamp());
END
$$;

-- A saga of three steps, each of which writes a row.
CREATE TABLE saga_effect (saga_id text NOT NULL, step text NOT NULL, n int NOT NULL);
CREATE FUNCTION saga_write(s jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO saga_effect (saga_id, step, n) VALUES (s ->> 'saga_id', s ->> 'step', (s #>> '{input,n}')::int);
    RETURN jsonb_build_object('wrote', s ->> 'step');
END
$$;
CREATE FUNCTION saga_unwrite(s jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM saga_effect e WHERE e.saga_id = s ->> 'saga_id' AND e.step = s ->> 'step';
END
$$;

-- A thousand events to put at once, as a client sends them and as rows of text.
-- They are not compressed, so that no run measures how fast that is undone.
CREATE TABLE batch (entries jsonb NOT NULL);
ALTER TABLE batch ALTER COLUMN entries SET STORAGE EXTERNAL;
CREATE TABLE batch_100 (LIKE batch INCLUDING ALL);
INSERT INTO batch
SELECT jsonb_agg(jsonb_build_object('Source', 'meal-planner', 'DetailType', 'RecipeCreated', 'Detail', :'detail'::jsonb))
  FROM generate_series(1, 1000);
INSERT INTO batch_100
SELECT jsonb_agg(jsonb_build_object('Source', 'meal-planner', 'DetailType', 'RecipeCreated', 'Detail', :'detail'::jsonb))
  FROM generate_series(1, 100);

-- fill(statement, n): run a statement that makes a thousand events n times, each
-- time in a transaction of its own.
CREATE PROCEDURE fill(statement text, n int) LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1..n LOOP
        EXECUTE statement;
        COMMIT;
    END LOOP;
END
$$;

-- The shipped subscriptions have no part in this.
DELETE FROM meal_planner.subscription;
