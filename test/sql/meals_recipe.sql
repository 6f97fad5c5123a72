-- Recipes and their nutrition: validation, projection, coverage.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS meal_planner;
\pset null '-'

-- What a statement fails with; the context would only repeat line numbers.
CREATE FUNCTION pg_temp.error_of(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    message text;
    hint    text;
BEGIN
    EXECUTE statement;
    RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
    RETURN format('%s | %s | %s', SQLSTATE, message, hint);
END
$$;

-- Foods of round numbers: 100 g have 100 kcal, 10 g protein, 1 g fat, 5 g carbs.
INSERT INTO meal_planner.food (name, plural, aisle) VALUES ('round food', 'round foods', 'Other'), ('half known', NULL, 'Other');
INSERT INTO meal_planner.food_measure (food, unit, grams) VALUES ('round food', 'piece', 50), ('round food', 'cup', 200);
INSERT INTO meal_planner.food_nutrient (food, nutrient, per_100g) VALUES
    ('round food', 'kcal', 100), ('round food', 'protein', 10), ('round food', 'fat', 1), ('round food', 'carbs', 5),
    ('round food', 'fiber', 2), ('half known', 'kcal', 50), ('half known', 'protein', 1);

-- a recipe is refused with the name of the field
SELECT recipe, pg_temp.error_of(format('SELECT mp_create_recipe(%L)', recipe)) AS error
  FROM unnest(ARRAY[
    '[]',
    '{}',
    '{"name": "  ", "servings": 2, "ingredients": ["1 egg"]}',
    '{"name": "x", "ingredients": ["1 egg"]}',
    '{"name": "x", "servings": 0, "ingredients": ["1 egg"]}',
    '{"name": "x", "servings": 2.5, "ingredients": ["1 egg"]}',
    '{"name": "x", "servings": "2", "ingredients": ["1 egg"]}',
    '{"name": "x", "servings": 2}',
    '{"name": "x", "servings": 2, "ingredients": []}',
    '{"name": "x", "servings": 2, "ingredients": ["1 egg", 7]}',
    '{"name": "x", "servings": 2, "ingredients": [{"quantity": 2}]}',
    '{"name": "x", "servings": 2, "ingredients": [{"food": "egg", "quantity": 0}]}',
    '{"name": "x", "servings": 2, "ingredients": [{"food": "egg", "quantity": 3, "quantity_max": 2}]}',
    '{"name": "x", "servings": 2, "ingredients": ["1 egg"], "meal_types": ["brunch"]}',
    '{"name": "x", "servings": 2, "ingredients": ["1 egg"], "meal_types": "lunch"}',
    '{"name": "x", "servings": 2, "ingredients": ["1 egg"], "allergens": ["kryptonite"]}',
    '{"name": "x", "servings": 2, "ingredients": ["1 egg"], "steps": ["", "eat"]}',
    '{"name": "x", "servings": 2, "ingredients": ["1 egg"], "prep_minutes": -5}',
    '{"name": "x", "servings": 2, "ingredients": ["1 egg"], "id": "7"}']) AS recipe;

-- a recipe of two servings: 300 g of round food make 150 kcal a serving
SELECT mp_create_recipe('{"id": "00000000-0000-4000-8000-000000000001", "name": "All known", "servings": 2,
    "ingredients": ["250 g round food", {"food": "round food", "quantity": 1}, "salt to taste"],
    "steps": ["Mix."], "allergens": ["shellfish", "eggs"], "tags": ["Quick"]}', 'recipes');
SELECT mp_recipe_nutrition('00000000-0000-4000-8000-000000000001', 'recipes') - 'calculated_at' AS nutrition;
SELECT name, servings, meal_types, tags, allergens, source, status FROM meal_planner.recipe WHERE account = 'recipes';
SELECT line_no, raw_text, food, quantity_low, unit, no_amount, grams, problem
  FROM meal_planner.recipe_ingredient WHERE account = 'recipes' ORDER BY line_no;

-- the same again changes nothing, other content is a conflict, another account is another world
SELECT mp_create_recipe('{"id": "00000000-0000-4000-8000-000000000001", "name": "All known", "servings": 2,
    "ingredients": ["250 g round food", {"food": "round food", "quantity": 1}, "salt to taste"],
    "steps": ["Mix."], "allergens": ["shellfish", "eggs"], "tags": ["Quick"]}', 'recipes');
SELECT pg_temp.error_of($$SELECT mp_create_recipe('{"id": "00000000-0000-4000-8000-000000000001", "name": "Other", "servings": 2,
    "ingredients": ["1 egg"]}', 'recipes')$$) AS conflict;
SELECT mp_create_recipe('{"id": "00000000-0000-4000-8000-000000000001", "name": "Other", "servings": 2,
    "ingredients": ["100 g round food"]}', 'recipes too');
SELECT detail_type, account, count(*) FROM meal_planner.event
 WHERE account IN ('recipes', 'recipes too') GROUP BY 1, 2 ORDER BY 2, 1;
SELECT pg_temp.error_of($$SELECT mp_recipe_nutrition('00000000-0000-4000-8000-000000000009', 'recipes')$$) AS unknown_recipe;

-- what is not known lowers the coverage and is never counted as zero
SELECT mp_create_recipe('{"id": "00000000-0000-4000-8000-000000000002", "name": "Half known", "servings": 1, "ingredients":
    ["100 g round food", "2 unobtainium", "1 bunch round food", "100 g half known", "round food", "pepper to taste", "2-4 round foods"]}',
    'recipes');
SELECT n ->> 'kcal' AS kcal, n ->> 'fat' AS fat, n ->> 'coverage' AS coverage, n -> 'nutrient_coverage' AS nutrient_coverage,
       m ->> 'line_no' AS line_no, m ->> 'text' AS missing, m ->> 'reason' AS reason
  FROM mp_recipe_nutrition('00000000-0000-4000-8000-000000000002', 'recipes') AS n
  CROSS JOIN jsonb_array_elements(n -> 'missing') AS m;

-- nothing known at all: unknown, not zero
SELECT mp_create_recipe('{"id": "00000000-0000-4000-8000-000000000003", "name": "Unknown", "servings": 1, "ingredients": ["1 kg unobtainium"]}', 'recipes');
SELECT n -> 'kcal' AS kcal, n -> 'nutrients' AS nutrients, n -> 'coverage' AS coverage
  FROM mp_recipe_nutrition('00000000-0000-4000-8000-000000000003', 'recipes') AS n;

-- a bare event with the document does the same; without an id the event's own is taken
SELECT mp_emit_event('RecipeCreated', '{"recipe": {"name": "Bare", "servings": 1, "ingredients": ["100 g round food"]}}',
                     account => 'recipes') AS bare \gset
SELECT name, kcal FROM meal_planner.recipe r JOIN meal_planner.recipe_nutrition n ON n.account = r.account AND n.recipe_id = r.id
 WHERE r.account = 'recipes' AND r.id = :'bare';
-- a thin event whose recipe is there is fine; others are dead letters at once
SELECT mp_emit_event('RecipeCreated', jsonb_build_object('recipe_id', :'bare', 'name', 'Bare'), account => 'recipes') \g /dev/null
SELECT mp_emit_event('RecipeCreated', '{"recipe_id": "00000000-0000-4000-8000-00000000000a", "name": "Thin"}', account => 'recipes') \g /dev/null
SELECT mp_emit_event('RecipeCreated', '{"recipe_id": "ten", "name": "Thin"}', account => 'recipes') \g /dev/null
SELECT mp_emit_event('RecipeCreated', '{"recipe": {"name": "Bad", "servings": 1}}', account => 'recipes') \g /dev/null
SELECT mp_emit_event('RecipeCreated', jsonb_build_object('recipe_id', :'bare', 'recipe', '{"name": "Taken", "servings": 1, "ingredients": ["1 egg"]}'::jsonb),
                     account => 'recipes') \g /dev/null
SELECT subscription, error_type, sqlstate, regexp_replace(error_message, '[0-9a-f]{8}-[0-9a-f-]{27}', '<id>') AS error_message
  FROM mp_dlq WHERE account = 'recipes' ORDER BY id;
-- not ours: another source with the same detail type
SELECT mp_emit_event('RecipeCreated', '{"recipe": {"name": "Foreign", "servings": 1, "ingredients": ["1 egg"]}}',
                     source => 'tandoor', account => 'recipes') \g /dev/null
SELECT count(*) AS foreign_recipes FROM meal_planner.recipe WHERE account = 'recipes' AND name = 'Foreign';

-- a calculation that arrives late does not replace a newer one
SELECT mp_emit_event('NutritionCalculated', jsonb_build_object('entity_type', 'recipe', 'entity_id', :'bare', 'calories', c,
                                                               'calculated_at', at), account => 'recipes')
  FROM (VALUES (777, '2099-01-02'), (666, '2099-01-01')) AS late (c, at) \g /dev/null
SELECT kcal, protein, coverage FROM meal_planner.recipe_nutrition WHERE account = 'recipes' AND recipe_id = :'bare';
-- of a day: not the recipe handler's business
SELECT mp_emit_event('NutritionCalculated', '{"entity_type": "day", "entity_id": "2026-11-23", "calories": 1}', account => 'recipes') \g /dev/null
SELECT mp_emit_event('NutritionCalculated', jsonb_build_object('entity_type', 'recipe', 'entity_id', :'bare', 'calories', -1), account => 'recipes') \g /dev/null
SELECT subscription, sqlstate, error_message FROM mp_dlq WHERE account = 'recipes' AND subscription = 'nutrition_calculated';

-- words for allergens mean the same on both sides
SELECT word, meal_planner.allergens_named(word) AS allergens
  FROM unnest(ARRAY['dairy', 'Milk', 'tree_nuts', 'nuts', 'peanuts', 'shellfish', 'seafood', 'wheat', 'eggs', 'soya', 'sulfites', 'glass']) AS word;

DELETE FROM meal_planner.food_nutrient WHERE food IN ('round food', 'half known');
DELETE FROM meal_planner.food_measure WHERE food = 'round food';
DELETE FROM meal_planner.food WHERE name IN ('round food', 'half known');
