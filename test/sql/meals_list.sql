-- Shopping lists: servings, people, units, aisles, and what is not understood.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS meal_planner;
\pset null '-'

INSERT INTO meal_planner.aisle (name, sort_order) VALUES ('Test stalls', 1), ('Test shelves', 2);
INSERT INTO meal_planner.food (name, plural, aisle, grams_per_ml, liquid) VALUES
    ('shop grain', 'shop grains', 'Test shelves', NULL, false), ('shop milk', NULL, 'Test shelves', 1.03, true),
    ('shop spice', NULL, 'Test shelves', 0.5, false), ('shop apple', 'shop apples', 'Test stalls', NULL, false),
    ('shop garlic', NULL, 'Test stalls', NULL, false), ('shop herb', NULL, 'Test stalls', NULL, false),
    ('shop bean', 'shop beans', 'Test shelves', NULL, false), ('shop salt', NULL, 'Test shelves', 1.2, false),
    ('shop star', 'shop stars', 'Test stalls', NULL, false);
INSERT INTO meal_planner.food_measure (food, unit, grams) VALUES
    ('shop grain', 'cup', 160), ('shop apple', 'piece', 150), ('shop garlic', 'clove', 3), ('shop garlic', 'head', 40),
    ('shop herb', 'sprig', 1), ('shop herb', 'bunch', 30), ('shop bean', 'can', 240);

SELECT mp_create_recipe(recipe, 'lists') FROM unnest(ARRAY[
    '{"id": "00000000-0000-4000-8000-0000000000a1", "name": "First", "servings": 2, "ingredients": ["200 g shop grain",
      "1 cup shop grain", "600 ml shop milk", "1 tsp shop spice", "3 shop apples", "4 cloves shop garlic", "2-3 sprigs shop herb",
      "1 can shop beans", "salt and magic", "shop salt to taste", "1 dollop of mystery cream", "2 shop stars", "500 ml water"]}',
    '{"id": "00000000-0000-4000-8000-0000000000a2", "name": "Second", "servings": 4, "ingredients": ["1 lb shop grain",
      "1 l shop milk", "200 g shop apple", "1 tsp shop salt", "1 dollop of mystery cream", "pepper <to taste>"]}']::jsonb[]) AS recipe \g /dev/null

-- one plan by hand: First twice (1 and 1.5 portions), Second once, for two people
SELECT mp_emit_event('MealPlanGenerated', '{"plan_id": "00000000-0000-4000-8000-0000000000b1", "generated_by": "user",
    "criteria": {"start_date": "2026-11-30", "days": 3, "people": 2, "meal_types": ["dinner"]}, "goals": {"daily": {}, "weekly": {}},
    "entries": [
      {"date": "2026-11-30", "meal_type": "dinner", "recipe_id": "00000000-0000-4000-8000-0000000000a1", "name": "First", "servings": 1},
      {"date": "2026-12-01", "meal_type": "dinner", "recipe_id": "00000000-0000-4000-8000-0000000000a2", "name": "Second", "servings": 2},
      {"date": "2026-12-02", "meal_type": "dinner", "recipe_id": "00000000-0000-4000-8000-0000000000a1", "name": "First", "servings": 1.5}]}',
    account => 'lists') \g /dev/null

-- First is cooked 2.5 times over (5 of 2 servings), Second once (4 of 4)
SELECT mp_create_shopping_list('00000000-0000-4000-8000-0000000000b1', 'lists') AS list \gset
SELECT aisle, label, display, trim_scale(round(quantity, 4)) AS quantity, unit, trim_scale(round(grams, 4)) AS grams, to_taste
  FROM meal_planner.shopping_list_item WHERE account = 'lists' AND list_id = :'list' ORDER BY item_no;
-- grain: 200 g + 1 cup of 160 g, 2.5 times, and one pound
SELECT 2.5 * (200 + 160) + 453.59237 AS grams_of_grain;
-- who needs it
SELECT i.label, s.name, trim_scale(s.servings) AS servings, trim_scale(round(s.grams, 2)) AS grams
  FROM meal_planner.shopping_list_item_source s
  JOIN meal_planner.shopping_list_item i ON (i.account, i.list_id, i.item_no) = (s.account, s.list_id, s.item_no)
 WHERE s.account = 'lists' AND i.label IN ('shop grains', 'shop apples', '1 dollop of mystery cream') ORDER BY 1, 2;
SELECT l - 'list_id' - 'created_at' - 'aisles' AS list, jsonb_array_length(l -> 'aisles') AS aisles,
       l #> '{aisles,0,items,0}' AS first_item
  FROM mp_shopping_list(:'list', 'lists') AS l;

-- the event: fat, and the same again changes nothing
SELECT detail ->> 'item_count' AS item_count, jsonb_array_length(detail -> 'items') AS items
  FROM meal_planner.event WHERE account = 'lists' AND detail_type = 'ShoppingListCreated';
SELECT mp_emit_event('ShoppingListCreated', e.detail, account => 'lists') FROM meal_planner.event e
 WHERE e.account = 'lists' AND e.detail_type = 'ShoppingListCreated' \g /dev/null
SELECT mp_emit_event('ShoppingListCreated', jsonb_set(e.detail, '{items,0,display}', '"all of them"'), account => 'lists')
  FROM meal_planner.event e WHERE e.account = 'lists' AND e.detail_type = 'ShoppingListCreated' LIMIT 1 \g /dev/null
SELECT mp_emit_event('ShoppingListCreated', '{"list_id": "00000000-0000-4000-8000-0000000000b2"}', account => 'lists') \g /dev/null
SELECT sqlstate, error_type, regexp_replace(error_message, '[0-9a-f]{8}-[0-9a-f-]{27}', '<id>') AS error_message
  FROM mp_dlq WHERE account = 'lists' ORDER BY id;
SELECT count(*) AS items FROM meal_planner.shopping_list_item WHERE account = 'lists';

-- amounts as one buys them
SELECT q, meal_planner.show_amount(q, 'g', 'kg') AS amount, meal_planner.show_spoons(q) AS spoons,
       meal_planner.show_count(q, 'piece') AS pieces, meal_planner.show_count(q, 'can') AS cans
  FROM unnest(ARRAY[0.2, 0.9999, 1, 1.0004, 1.01, 4.93, 20, 20.1, 99, 101, 995, 996, 1001, 1550]::numeric[]) AS q;

\set VERBOSITY terse
SELECT mp_create_shopping_list('00000000-0000-4000-8000-0000000000ff', 'lists');
SELECT mp_create_shopping_list('00000000-0000-4000-8000-0000000000b1', 'another account');
SELECT mp_shopping_list('00000000-0000-4000-8000-0000000000ff', 'lists');

DELETE FROM meal_planner.food_measure WHERE food LIKE 'shop %';
DELETE FROM meal_planner.food WHERE name LIKE 'shop %';
DELETE FROM meal_planner.aisle WHERE name LIKE 'Test %';
