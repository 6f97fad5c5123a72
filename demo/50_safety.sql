-- Two handlers as a user would write them, for the live part of the demo.

CREATE SCHEMA kitchen;

-- What a failed attempt writes is rolled back with it, so the attempts are
-- counted by a sequence: nextval is not.
CREATE SEQUENCE kitchen.oven_attempt;
CREATE TABLE kitchen.dinner (
    event_id uuid PRIMARY KEY,
    dish     text NOT NULL,
    ready_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Fails three times in a way that passes: class 08 is a lost connection.
CREATE FUNCTION kitchen.cook_dinner(e meal_planner.event) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF nextval('kitchen.oven_attempt') <= 3 THEN
        RAISE EXCEPTION 'the oven does not answer' USING ERRCODE = '08006';
    END IF;
    INSERT INTO kitchen.dinner (event_id, dish) VALUES (e.id, e.detail ->> 'dish');
END
$$;

-- Correct code; what is wrong is the event: grams that are no number.
CREATE TABLE kitchen.pantry (
    food  text PRIMARY KEY,
    grams numeric NOT NULL
);
CREATE FUNCTION kitchen.stock_pantry(e meal_planner.event) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO kitchen.pantry AS p (food, grams)
    VALUES (e.detail ->> 'food', (e.detail ->> 'grams')::numeric)
    ON CONFLICT (food) DO UPDATE SET grams = p.grams + excluded.grams
$$;

SELECT mp_subscribe('cook dinner', '{"detail-type": ["DinnerStarted"]}', 'kitchen.cook_dinner(meal_planner.event)');
SELECT mp_subscribe('stock pantry', '{"detail-type": ["GroceriesBought"]}', 'kitchen.stock_pantry(meal_planner.event)');
