-- What mp_emit_event is measured against: plain SQL written well, with the
-- columns of meal_planner.event, an identity key, a unique id and the index a
-- consumer by type would want.

CREATE TABLE plain (
    account         text        NOT NULL,
    position        bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id              uuid        NOT NULL UNIQUE,
    detail_type     text        NOT NULL,
    source          text        NOT NULL,
    "time"          timestamptz NOT NULL,
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
CREATE FUNCTION handle_not(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN END $$;

-- The shipped subscriptions have no part in this.
DELETE FROM meal_planner.subscription;
