-- The saga that makes a meal plan, in both variants: each step fails in turn,
-- for a while and for good, before its effect and after it.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS meal_planner CASCADE;
CREATE EXTENSION meal_planner;
RESET client_min_messages;
\set SHOW_CONTEXT never

-- What is shipped is what mp_define_saga would accept.
SELECT d.name, mp_define_saga('check ' || d.name, d.definition) AS version, c.routines = d.routines AS same_functions
  FROM meal_planner.saga_definition d
  LEFT JOIN LATERAL (SELECT jsonb_object_agg(t.step ->> 'name', jsonb_strip_nulls(jsonb_build_object('run', t.step -> 'run', 'undo', t.step -> 'undo'))) AS routines
                       FROM jsonb_array_elements(d.definition -> 'steps') t (step) WHERE t.step ? 'run') c ON true
 WHERE d.builtin ORDER BY d.name;
SELECT mp_drop_saga('create_meal_plan', 1);
SELECT mp_saga_graph('create_meal_plan_parallel');

SELECT count(mp_create_recipe(jsonb_build_object('name', 'Dish ' || n, 'servings', 2, 'meal_types', '["dinner"]'::jsonb, 'allergens', '[]'::jsonb,
           'ingredients', jsonb_build_array(n * 50 || ' g rice', '200 g carrots', '20 g butter'))))
  FROM generate_series(1, 4) n;

-- The world outside.  A mail is an effect that cannot be taken back; the service
-- knows the idempotency key, as a good one does.
CREATE TABLE mail (key text PRIMARY KEY, saga_id uuid, kind text);
-- Steps and events that fail: so many times, with that SQLSTATE or error type.
CREATE TABLE failure (place text PRIMARY KEY, how text, times int);
CREATE SEQUENCE failed;
CREATE SEQUENCE failed_undo;
CREATE FUNCTION fails(at text) RETURNS text LANGUAGE plpgsql SET search_path = public AS $$
DECLARE
    f failure;
BEGIN
    SELECT * INTO f FROM failure WHERE place = at;
    -- a sequence counts although what fails is rolled back
    IF FOUND AND nextval(CASE WHEN at IN ('MealPlanCancelled', 'send_email undo') THEN 'failed_undo' ELSE 'failed' END) <= f.times THEN
        RETURN f.how;
    END IF;
    RETURN NULL;
END $$;
-- A step of the database fails behind its effect: when its event is in the log and its handler has run.
CREATE FUNCTION break_event() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS $$
DECLARE
    how text := fails(NEW.detail_type);
BEGIN
    IF how IS NOT NULL THEN
        RAISE EXCEPTION '% cannot be', NEW.detail_type USING ERRCODE = how;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER zz_break AFTER INSERT ON meal_planner.event FOR EACH ROW EXECUTE FUNCTION break_event();

-- A worker: does what it can claim.  before: it fails without an effect.
-- after: it has had its effect and says that it failed, or (lost) says nothing.
CREATE FUNCTION serve(service_name text) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    c    record;
    how  text;
    done int := 0;
BEGIN
    FOR c IN SELECT * FROM mp_claim_saga_steps(service_name, lease_seconds => 5) LOOP
        done := done + 1;
        how := fails(c.step || CASE c.direction WHEN 'compensate' THEN ' undo' ELSE '' END);
        IF how LIKE 'before %' THEN
            PERFORM mp_fail_saga_step(c.token, split_part(how, ' ', 2), 'no luck before');
            CONTINUE;
        END IF;
        IF service_name = 'email' THEN
            INSERT INTO mail VALUES (c.idempotency_key, c.saga_id, CASE c.direction WHEN 'compensate' THEN 'correction' ELSE 'plan ready' END)
            ON CONFLICT DO NOTHING;
        END IF;
        IF how LIKE 'after %' THEN
            PERFORM mp_fail_saga_step(c.token, split_part(how, ' ', 2), 'no luck after');
        ELSIF how IS NULL THEN
            PERFORM mp_complete_saga_step(c.token, jsonb_build_object('by', service_name));
        END IF;
    END LOOP;
    RETURN done;
END $$;
-- Everybody works until nothing happens any more; the clock runs ahead of us.
CREATE FUNCTION run(first text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    ahead float8 := current_setting('meal_planner.clock_offset')::float8;
BEGIN
    FOR n IN 1 .. 25 LOOP
        FOR m IN 1 .. 3 LOOP
            IF first = 'mail first' THEN PERFORM serve('email'); END IF;
            WHILE (meal_planner.claim_sagas(1)).account IS NOT NULL LOOP
                PERFORM meal_planner.run_sagas('local', 1);
                IF first = 'mail first' THEN PERFORM serve('email'); END IF;
            END LOOP;
            PERFORM serve('nutrition');
        END LOOP;
        PERFORM serve('email');
        ahead := ahead + 20;
        PERFORM set_config('meal_planner.clock_offset', ahead::text, false);
        EXIT WHEN NOT EXISTS (SELECT FROM meal_planner.saga WHERE due_at IS NOT NULL)
              AND NOT EXISTS (SELECT FROM meal_planner.saga_step);
    END LOOP;
END $$;
-- One saga with one failure, and what is left of it.
CREATE FUNCTION outcome(variant text, place text, how text, times int, first text, also failure,
                        OUT state text, OUT plan text, OUT lists bigint, OUT ready bigint, OUT corrections bigint,
                        OUT created bigint, OUT notified bigint, OUT error text)
LANGUAGE plpgsql AS $$
DECLARE
    saga   uuid;
    plans  uuid[];
BEGIN
    ALTER SEQUENCE failed RESTART;
    ALTER SEQUENCE failed_undo RESTART;
    DELETE FROM failure;
    INSERT INTO failure SELECT (also).* WHERE (also).place IS NOT NULL;
    INSERT INTO failure VALUES ($2, $3, $4);
    saga := mp_start_saga($1, '{"request": {"days": 2, "meal_types": ["dinner"], "start_date": "2026-11-30", "goal": {"kcal": 2000}}, "mail": "cook@example.com"}'
                            || CASE WHEN $2 = 'request' THEN '{"request": {"days": 99}}' ELSE '{}' END::jsonb);
    PERFORM run($5);
    SELECT s.state, (s.error ->> 'step') || ': ' || (s.error ->> 'type') INTO state, error FROM meal_planner.saga s WHERE s.id = saga;
    SELECT array_agg((l.result ->> 'plan_id')::uuid) INTO plans
      FROM meal_planner.saga_log l WHERE l.saga_id = saga AND l.step = 'create_plan' AND l.direction = 'forward' AND l.result IS NOT NULL;
    plan := coalesce((SELECT string_agg(p.status, ', ') FROM meal_planner.meal_plan p WHERE p.id = ANY (plans)), 'none')
            -- none that nobody knows of
            || CASE WHEN (SELECT count(*) FROM meal_planner.meal_plan) > (SELECT count(*) FROM meal_planner.saga_log l WHERE l.result ? 'plan_id') THEN ' and more' ELSE '' END;
    SELECT count(*) INTO lists FROM meal_planner.shopping_list l WHERE l.meal_plan_id = ANY (plans);
    SELECT count(*) FILTER (WHERE m.kind = 'plan ready'), count(*) FILTER (WHERE m.kind = 'correction') INTO ready, corrections
      FROM mail m WHERE m.saga_id = saga;
    SELECT count(*) FILTER (WHERE e.detail_type = 'MealPlanCreated'), count(*) FILTER (WHERE e.detail_type = 'MealPlanCreationFailed')
      INTO created, notified FROM meal_planner.event e WHERE e.detail ->> 'saga_id' = saga::text AND e.detail ? 'input';
END $$;

CREATE TEMP TABLE trial (n serial, place text, how text, times int);
INSERT INTO trial (place, how, times) VALUES
    ('nothing', '-', 0),
    ('request', 'the request is wrong', 0),
    ('MealPlanGenerated', 'MPT01', 1), ('MealPlanGenerated', 'MPT01', 100), ('MealPlanGenerated', '23514', 1),
    ('calculate_nutrition', 'before transient', 2), ('calculate_nutrition', 'before transient', 100), ('calculate_nutrition', 'before permanent', 1),
    ('calculate_nutrition', 'after transient', 1), ('calculate_nutrition', 'after permanent', 1),
    ('calculate_nutrition', 'lost', 1), ('calculate_nutrition', 'lost', 100),
    ('ShoppingListCreated', 'MPT01', 1), ('ShoppingListCreated', 'MPT01', 100), ('ShoppingListCreated', '23514', 1),
    ('send_email', 'before transient', 2), ('send_email', 'before transient', 100), ('send_email', 'before permanent', 1),
    ('send_email', 'after transient', 1), ('send_email', 'after permanent', 1), ('send_email', 'lost', 1), ('send_email', 'lost', 100);

-- One after the other: when the list cannot be made no mail has gone out, nor will one.
SELECT t.place, t.how, t.times, o.* FROM trial t, LATERAL outcome('create_meal_plan', t.place, t.how, t.times, 'list first', NULL) o ORDER BY t.n;
-- Side by side, the list being first, and the mail.
SELECT t.place, t.how, t.times, o.* FROM trial t, LATERAL outcome('create_meal_plan_parallel', t.place, t.how, t.times, 'list first', NULL) o ORDER BY t.n;
SELECT t.place, t.how, t.times, o.* FROM trial t, LATERAL outcome('create_meal_plan_parallel', t.place, t.how, t.times, 'mail first', NULL) o
 WHERE t.place IN ('ShoppingListCreated', 'send_email') ORDER BY t.n;
-- The undo fails, too: first the list, then the cancelling of the plan.
SELECT u.place, u.how, u.times, o.*
  FROM (VALUES ('MealPlanCancelled', 'MPT01', 3), ('MealPlanCancelled', 'MPT01', 100), ('MealPlanCancelled', '23514', 1),
               ('send_email undo', 'before transient', 3), ('send_email undo', 'after transient', 1), ('send_email undo', 'lost', 1), ('send_email undo', 'before permanent', 1)) u (place, how, times),
       LATERAL outcome('create_meal_plan_parallel', 'ShoppingListCreated', '23514', 1, 'mail first', (u.place, u.how, u.times)::failure) o;
SELECT count(*) AS open, count(*) FILTER (WHERE state = 'stuck') AS stuck FROM meal_planner.saga WHERE ended_at IS NULL;
SELECT count(*) AS alerts FROM meal_planner.alert WHERE kind = 'saga';

-- The notification reaches a consumer once, whatever becomes of it there.
SELECT mp_subscribe('failure mails', '{"detail-type": ["MealPlanCreationFailed"]}', mode => 'pull');
SELECT (outcome('create_meal_plan', 'ShoppingListCreated', '23514', 1, 'list first', NULL)).notified;
SELECT event #>> '{detail,name}' AS name, event #> '{detail,error}' AS error, event #>> '{detail,input,mail}' AS mail FROM mp_claim('failure mails');
SELECT count(*) AS again FROM mp_claim('failure mails');

RESET meal_planner.clock_offset;
DROP TRIGGER zz_break ON meal_planner.event;
DROP FUNCTION fails(text), break_event(), serve(text), run(text), outcome(text, text, text, int, text, failure);
DROP TABLE mail, failure;
DROP SEQUENCE failed, failed_undo;
