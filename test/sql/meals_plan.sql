-- Meal plans: what is guaranteed, what is refused, what is reported.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS meal_planner;
\pset null '-'

CREATE FUNCTION pg_temp.error_of(request jsonb, account text DEFAULT 'plans') RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    message text;
    details text;
BEGIN
    PERFORM mp_generate_meal_plan(request, account);
    RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, details = PG_EXCEPTION_DETAIL;
    RETURN message || coalesce(' | ' || nullif(details, ''), '');
END
$$;

-- One line per meal of a plan.
CREATE FUNCTION pg_temp.meals(plan jsonb)
RETURNS TABLE (date date, meal_type text, recipe_id uuid, name text, servings numeric, locked boolean) LANGUAGE sql AS $$
    SELECT (d.value ->> 'date')::date, m.meal_type, m.recipe_id, m.name, m.servings, m.locked
      FROM jsonb_array_elements(plan -> 'days') AS d
      CROSS JOIN jsonb_to_recordset(d.value -> 'meals') AS m (meal_type text, recipe_id uuid, name text, servings numeric, locked boolean)
$$;

CREATE FUNCTION pg_temp.id_of(name text) RETURNS uuid LANGUAGE sql AS $$ SELECT md5(name)::uuid $$;

-- Dishes of pure protein, fat and carbohydrate: 16 for every meal.
INSERT INTO meal_planner.food (name, aisle) VALUES ('pure protein', 'Other'), ('pure fat', 'Other'), ('pure carbs', 'Other');
INSERT INTO meal_planner.food_nutrient (food, nutrient, per_100g) VALUES
    ('pure protein', 'kcal', 400), ('pure protein', 'protein', 100), ('pure protein', 'fat', 0), ('pure protein', 'carbs', 0),
    ('pure fat', 'kcal', 900), ('pure fat', 'protein', 0), ('pure fat', 'fat', 100), ('pure fat', 'carbs', 0),
    ('pure carbs', 'kcal', 400), ('pure carbs', 'protein', 0), ('pure carbs', 'fat', 0), ('pure carbs', 'carbs', 100);
SELECT count(mp_create_recipe(jsonb_build_object(
           'id', pg_temp.id_of(meal || i), 'name', meal || i, 'servings', 1, 'meal_types', jsonb_build_array(meal),
           'tags', CASE WHEN i % 2 = 0 THEN '["even"]' ELSE '["odd"]' END::jsonb,
           'allergens', CASE WHEN i % 4 = 0 THEN '["fish"]' ELSE '[]' END::jsonb,
           'prep_minutes', 5 * i, 'cook_minutes', 10,
           'ingredients', jsonb_build_array((20 + i * 7 % 23 * k) || ' g pure protein', (8 + i * 5 % 11 * k) || ' g pure fat',
                                            (35 + i * 11 % 31 * k) || ' g pure carbs')), 'plans')) AS recipes
  FROM (VALUES ('breakfast', 1), ('lunch', 1), ('dinner', 2)) AS m (meal, k) CROSS JOIN generate_series(1, 16) AS i;
SELECT mp_set_nutrition_goal('{"kcal": 2000, "protein": 120, "fat": 60, "carbs": 245, "start_date": "2026-01-01"}', 'plans');

-- a week with all defaults
CREATE TEMP TABLE plan AS
SELECT mp_generate_meal_plan('{"start_date": "2026-11-30"}', 'plans') AS p;
SELECT jsonb_array_length(p -> 'days') AS days, p -> 'unmet' AS unmet, p -> 'seed' AS seed, p -> 'goals' AS goals,
       (SELECT bool_and((d.value ->> 'within_tolerance')::boolean) FROM jsonb_array_elements(p -> 'days') AS d) AS all_within,
       (SELECT max(abs(x.value::numeric)) <= 0.1 FROM jsonb_array_elements(p -> 'days') AS d,
               jsonb_each_text(d.value -> 'deviation') AS x) AS deviations_small
  FROM plan;
SELECT m.meal_type, count(*) AS meals, count(DISTINCT m.name) AS dishes, bool_and(m.name LIKE m.meal_type || '%') AS fits,
       bool_and(m.servings BETWEEN 0.5 AND 2 AND m.servings * 4 = trunc(m.servings * 4)) AS portions
  FROM plan CROSS JOIN pg_temp.meals(p) AS m GROUP BY 1 ORDER BY 1;
-- the totals are the sums of the meals
SELECT bool_and(abs((d.value #>> '{totals,kcal}')::numeric
                    - (SELECT sum((m.value ->> 'kcal')::numeric) FROM jsonb_array_elements(d.value -> 'meals') AS m)) <= 2) AS totals_add_up
  FROM plan CROSS JOIN jsonb_array_elements(p -> 'days') AS d;

-- the same inputs and seed: the same plan; another seed: another one
SELECT (mp_generate_meal_plan('{"start_date": "2026-11-30"}', 'plans') - 'plan_id') = (p - 'plan_id') AS same_plan,
       (mp_generate_meal_plan('{"start_date": "2026-11-30", "seed": 1, "days": 7}', 'plans') - 'plan_id') = (p - 'plan_id') AS defaults_spelled_out,
       (mp_generate_meal_plan('{"start_date": "2026-11-30", "seed": 2}', 'plans') -> 'days') <> (p -> 'days') AS other_seed_differs
  FROM plan;
-- what is stored reads the same as what was returned
SELECT mp_meal_plan((p ->> 'plan_id')::uuid, 'plans') - ARRAY['status', 'start_date', 'end_date', 'created_at'] = p AS stored,
       mp_meal_plan((p ->> 'plan_id')::uuid, 'plans') ->> 'status' AS status FROM plan;

-- locked meals stay exactly, also off the grid of portions and at another meal; skipped ones stay empty
CREATE TEMP TABLE locked AS
SELECT mp_generate_meal_plan(jsonb_build_object('start_date', '2026-11-30', 'locked', jsonb_build_array(
           jsonb_build_object('date', '2026-12-01', 'meal_type', 'dinner', 'recipe_id', pg_temp.id_of('dinner3'), 'servings', 1.3),
           jsonb_build_object('date', '2026-12-02', 'meal_type', 'lunch', 'recipe_id', pg_temp.id_of('breakfast1')),
           jsonb_build_object('date', '2026-12-03', 'meal_type', 'snack', 'recipe_id', pg_temp.id_of('breakfast2'), 'servings', 0.5)),
           'skip', '[{"date": "2026-12-04", "meal_type": "dinner"}, {"date": "2026-12-05", "meal_type": "breakfast"}]'::jsonb), 'plans') AS p;
SELECT m.date, m.meal_type, m.name, m.servings FROM locked CROSS JOIN pg_temp.meals(p) AS m WHERE m.locked ORDER BY 1;
SELECT count(*) FILTER (WHERE m.name IN ('dinner3', 'breakfast1', 'breakfast2')) AS uses_of_locked, count(*) AS meals,
       count(*) FILTER (WHERE (m.date, m.meal_type) IN (('2026-12-04', 'dinner'), ('2026-12-05', 'breakfast'))) AS skipped
  FROM locked CROSS JOIN pg_temp.meals(p) AS m;
-- what is skipped is eaten elsewhere: the other meals do not make up for it
SELECT d.value ->> 'date' AS date, d.value #>> '{targets,kcal}' AS target, d.value ->> 'within_tolerance' AS within
  FROM locked CROSS JOIN jsonb_array_elements(p -> 'days') AS d WHERE d.value ->> 'date' IN ('2026-12-03', '2026-12-04', '2026-12-05');

-- exclusions hold
SELECT mp_create_recipe('{"name": "nobody said", "servings": 1, "meal_types": ["lunch"], "ingredients": ["80 g pure carbs", "30 g pure protein", "20 g pure fat"]}', 'plans') \g /dev/null
SELECT count(*) AS violations
  FROM (VALUES ('{"exclude": {"allergens": ["Fish"]}}'), ('{"exclude": {"tags": ["even"]}}'), ('{"require_tags": ["odd"]}'),
               ('{"max_minutes": 60}')) AS r (request)
  CROSS JOIN LATERAL pg_temp.meals(mp_generate_meal_plan(request::jsonb || '{"start_date": "2026-11-30"}', 'plans')) AS m
  JOIN meal_planner.recipe c ON c.account = 'plans' AND c.id = m.recipe_id
 WHERE request ~ 'allergens' AND (c.allergens IS NULL OR 'fish' = ANY (c.allergens))
    OR request ~ '"tags"' AND 'even' = ANY (c.tags)
    OR request ~ 'require_tags' AND NOT 'odd' = ANY (c.tags)
    OR request ~ 'max_minutes' AND c.prep_minutes + c.cook_minutes > 60;
SELECT count(*) FILTER (WHERE m.recipe_id = pg_temp.id_of('lunch1')) AS excluded_recipe
  FROM pg_temp.meals(mp_generate_meal_plan(jsonb_build_object('exclude', jsonb_build_object('recipes', ARRAY[pg_temp.id_of('lunch1')])), 'plans')) AS m;
SELECT pg_temp.error_of('{"exclude": {"foods": ["pure fat"]}}') AS excluded_food;

-- why recipes are left out
SELECT c.reason, count(*) FROM meal_planner.plan_candidates('plans', meal_planner.read_plan_request(
    '{"exclude": {"allergens": ["fish"], "tags": ["odd"]}, "max_minutes": 50}')) AS c GROUP BY 1 ORDER BY 1;

-- recipes of unknown or incomplete nutrition are not planned unless asked for
SELECT mp_create_recipe('{"name": "mystery", "servings": 1, "meal_types": ["snack"], "ingredients": ["1 kg mystery"]}', 'plans') \g /dev/null
SELECT mp_create_recipe('{"name": "half mystery", "servings": 1, "meal_types": ["snack"],
    "ingredients": ["10 g pure carbs", "1 kg mystery"]}', 'plans') \g /dev/null
SELECT pg_temp.error_of('{"meal_types": ["snack"], "days": 1}') AS incomplete;
SELECT m.name, p -> 'unmet' -> -1 ->> 'kind' AS kind, p -> 'unmet' -> -1 ->> 'coverage' AS coverage
  FROM mp_generate_meal_plan('{"meal_types": ["snack"], "days": 1, "start_date": "2026-11-30", "min_coverage": 0.4}', 'plans') AS p
  CROSS JOIN pg_temp.meals(p) AS m;

-- too few recipes: repeated as late as possible, and said so
SELECT count(mp_create_recipe(jsonb_build_object('name', n, 'servings', 1, 'meal_types', t, 'allergens', '[]'::jsonb,
           'ingredients', '["40 g pure protein", "20 g pure fat", "80 g pure carbs"]'::jsonb, 'id', pg_temp.id_of('few ' || n)), 'few')) AS recipes
  FROM (VALUES ('a', '["lunch"]'::jsonb), ('b', '["lunch"]'::jsonb), ('c', '["dinner"]'::jsonb), ('d', '["dinner"]'::jsonb)) AS r (n, t);
CREATE TEMP TABLE few AS
SELECT mp_generate_meal_plan('{"meal_types": ["lunch", "dinner"], "start_date": "2026-11-30", "days": 4, "goal": {"kcal": 2000}}', 'few') AS p;
SELECT u.value ->> 'kind' AS kind, u.value ->> 'name' AS name, jsonb_array_length(u.value -> 'dates') AS times
  FROM few CROSS JOIN jsonb_array_elements(p -> 'unmet') AS u WHERE u.value ->> 'kind' = 'repeat' ORDER BY 2;
SELECT bool_and(b.name <> a.name) AS alternate
  FROM few CROSS JOIN pg_temp.meals(p) AS a JOIN LATERAL pg_temp.meals(p) AS b ON b.meal_type = a.meal_type AND b.date = a.date + 1;
-- one recipe for two meals of a day does not do
SELECT mp_create_recipe('{"name": "only one", "servings": 1, "meal_types": ["lunch", "dinner"], "ingredients": ["80 g pure carbs", "1 g pure fat", "1 g pure protein"]}', 'one') \g /dev/null
SELECT pg_temp.error_of('{"meal_types": ["lunch", "dinner"], "start_date": "2026-11-30"}', 'one');
SELECT pg_temp.error_of('{"start_date": "2026-11-30"}', 'nobody');

-- goals: weekly ones, none at all, one that cannot be met
SELECT (p #>> '{totals,protein}')::numeric BETWEEN 0.9 * 910 AND 1.1 * 910 AS weekly_protein_met, p -> 'unmet' AS unmet
  FROM mp_generate_meal_plan('{"start_date": "2026-11-30", "goal": {"protein": 910, "period": "weekly"}}', 'plans') AS p;
SELECT p -> 'unmet' AS unmet FROM mp_generate_meal_plan('{"start_date": "2026-11-30", "days": 2, "meal_types": ["lunch"]}', 'few') AS p;
SELECT u.value ->> 'kind' AS kind, u.value ->> 'nutrient' AS nutrient, u.value ->> 'target' AS target, (u.value ->> 'deviation')::numeric < -0.1 AS too_low
  FROM mp_generate_meal_plan('{"start_date": "2026-11-30", "days": 1, "goal": {"kcal": 9000}}', 'plans') AS p
  CROSS JOIN jsonb_array_elements(p -> 'unmet') AS u;

-- an active plan keeps its dishes out of the days around it, on both sides
CREATE FUNCTION pg_temp.too_soon() RETURNS bigint LANGUAGE sql AS $$
    SELECT count(*)
      FROM (VALUES ('2026-12-07'), ('2026-11-23')) AS s (start)
      CROSS JOIN LATERAL pg_temp.meals(mp_generate_meal_plan(jsonb_build_object('start_date', start, 'days', 3), 'plans')) AS m
      JOIN meal_planner.meal_plan_entry e ON e.account = 'plans' AND e.plan_id = (SELECT (p ->> 'plan_id')::uuid FROM plan)
       AND e.recipe_id = m.recipe_id AND abs(e.day - m.date) < 7
$$;
SELECT pg_temp.too_soon() > 0 AS before_it_is_active;
UPDATE meal_planner.meal_plan SET status = 'active' WHERE account = 'plans' AND id = (SELECT (p ->> 'plan_id')::uuid FROM plan);
SELECT pg_temp.too_soon() AS when_active;

-- the event: the same again changes nothing, other meals under the same id are refused
SELECT mp_emit_event('MealPlanGenerated', e.detail, account => 'plans') FROM meal_planner.event e, plan
 WHERE e.account = 'plans' AND e.detail ->> 'plan_id' = p ->> 'plan_id' AND e.detail_type = 'MealPlanGenerated' \g /dev/null
SELECT mp_emit_event('MealPlanGenerated', jsonb_set(e.detail, '{entries,0,servings}', '1.9'), account => 'plans') FROM meal_planner.event e, plan
 WHERE e.account = 'plans' AND e.detail ->> 'plan_id' = p ->> 'plan_id' AND e.detail_type = 'MealPlanGenerated' LIMIT 1 \g /dev/null
SELECT mp_emit_event('MealPlanGenerated', '{"plan_id": "00000000-0000-4000-8000-00000000000b"}', account => 'plans') \g /dev/null
SELECT sqlstate, error_type, regexp_replace(error_message, '[0-9a-f]{8}-[0-9a-f-]{27}', '<id>') AS error_message FROM mp_dlq
 WHERE account = 'plans' ORDER BY id;
SELECT count(*) AS entries FROM meal_planner.meal_plan_entry WHERE account = 'plans' AND plan_id = (SELECT (p ->> 'plan_id')::uuid FROM plan);

-- every option is checked by name
SELECT r AS request, pg_temp.error_of(r::jsonb) AS error
  FROM unnest(ARRAY[
    '[]',
    '{"day": 7}',
    '{"days": 0}',
    '{"days": 32}',
    '{"days": "7"}',
    '{"start_date": "30.11.2026"}',
    '{"tolerance": 0}',
    '{"seed": 1.5}',
    '{"people": 0}',
    '{"meal_types": []}',
    '{"meal_types": ["brunch"]}',
    '{"goal": {"kcal": -1}}',
    '{"exclude": []}',
    '{"exclude": {"words": []}}',
    '{"exclude": {"allergens": ["kryptonite"]}}',
    '{"exclude": {"foods": ["kryptonite"]}}',
    '{"exclude": {"recipes": ["kryptonite"]}}',
    '{"skip": {}}',
    '{"skip": [{"date": "2026-12-24", "meal_type": "dinner"}], "start_date": "2026-11-30"}',
    '{"skip": [{"date": "2026-11-30", "meal_type": "brunch"}], "start_date": "2026-11-30"}',
    '{"locked": [{"date": "2026-11-30", "meal_type": "dinner"}], "start_date": "2026-11-30"}',
    '{"locked": [{"date": "2026-11-30", "meal_type": "dinner", "recipe_id": "00000000-0000-4000-8000-00000000000c"}], "start_date": "2026-11-30"}',
    '{"locked": [{"date": "2026-11-30", "meal_type": "dinner", "recipe_id": "00000000-0000-4000-8000-00000000000c"}],
      "skip": [{"date": "2026-11-30", "meal_type": "dinner"}], "start_date": "2026-11-30"}']) AS r;
SELECT pg_temp.error_of(jsonb_build_object('start_date', '2026-11-30', 'exclude', '{"allergens": ["fish"]}'::jsonb, 'locked',
    jsonb_build_array(jsonb_build_object('date', '2026-11-30', 'meal_type', 'dinner', 'recipe_id', pg_temp.id_of('dinner4'))))) AS locked_and_excluded;
\set VERBOSITY terse
SELECT mp_meal_plan('00000000-0000-4000-8000-00000000000d', 'plans');

-- the shopping list test needs its own foods only
DELETE FROM meal_planner.food_nutrient WHERE food LIKE 'pure %';
DELETE FROM meal_planner.food WHERE name LIKE 'pure %';
