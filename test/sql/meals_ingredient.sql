-- Reading ingredient lines: amount, unit, food, note.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS meal_planner;
\pset null '-'

SELECT line, r ->> 'quantity' AS quantity, r ->> 'quantity_max' AS max, r ->> 'unit' AS unit, r ->> 'food' AS food,
       r ->> 'note' AS note, (r ->> 'known_food')::boolean AS known, (r ->> 'no_amount')::boolean AS no_amount
  FROM unnest(ARRAY[
        '2 cups all-purpose flour',
        '1 1/2 cups whole milk',
        '1-1/2 tsp salt',
        '½ teaspoon salt',
        '1½ T olive oil',
        '1½ t olive oil',
        '500g ground beef',
        '1,5 kg potatoes',
        '2-3 carrots, peeled',
        '2 to 3 tablespoons butter, softened',
        'about 200 ml whole milk',
        'a pinch of salt',
        'half a lemon',
        '3 medium garlic cloves, finely chopped',
        '3 cloves of garlic',
        '2 large eggs',
        '1 large red onion, thinly sliced',
        '2 x 400 g potatoes',
        'salt to taste',
        'Salt and black pepper',
        'butter for greasing',
        'butter',
        'boneless, skinless chicken breast',
        '2 tbsp butter or olive oil',
        '3 oz/85 g cheddar, grated',
        '- 2 eggs',
        '100% mystery powder',
        '1 block mystery',
        '2 heaped tablespoons sugar']) WITH ORDINALITY AS l (line, n)
  CROSS JOIN LATERAL mp_parse_ingredient(line) AS r
 ORDER BY n;

-- what one of them weighs
SELECT line, r ->> 'quantity' AS quantity, r ->> 'unit' AS unit, r -> 'each' AS each, r ->> 'food' AS food, r ->> 'note' AS note
  FROM unnest(ARRAY[
        '1 (14 oz) can black beans, drained',
        '2 cans (400 g) black beans',
        '2 x 400 g cans black beans',
        '1 14½-ounce can black beans',
        '2 (6-ounce) salmon fillets',
        '1 cup (240 ml) whole milk']) WITH ORDINALITY AS l (line, n)
  CROSS JOIN LATERAL mp_parse_ingredient(line) AS r
 ORDER BY n;

-- a third stays a third
SELECT mp_parse_ingredient('1/3 cup butter') ->> 'quantity' AS shown,
       round(3 * low, 15) AS three_of_them FROM meal_planner.parse_quantity('1/3 cup butter');

-- a part of a word is no food, and a word that changes the food is not dropped
SELECT f AS text, meal_planner.resolve_food(f) AS food
  FROM unnest(ARRAY['licorice', 'buckwheat', 'beefsteak', 'cauliflower rice', 'butterscotch', 'smoked egg', 'chocolate milk substitute',
                    'fresh  Butter', 'BUTTER', 'finely chopped onions', 'onions, diced']) AS f;

-- grams: mass is exact; volume and count need a measure of this very food
BEGIN;
INSERT INTO meal_planner.food (name, plural, aisle) VALUES ('test grain', 'test grains', 'Other'), ('test oil', NULL, 'Other'), ('test fruit', 'test fruits', 'Other');
UPDATE meal_planner.food SET grams_per_ml = 0.9 WHERE name = 'test oil';
INSERT INTO meal_planner.food_measure (food, unit, grams) VALUES ('test grain', 'cup', 160), ('test grain', 'tsp', 3), ('test fruit', 'piece', 150);
SELECT food, quantity, unit, round(meal_planner.to_grams(food, quantity, unit), 4) AS grams
  FROM (VALUES ('test grain', 2, 'kg'), ('test grain', 1, 'lb'), ('test grain', 2, 'cup'), ('test grain', 1, 'tsp'),
               ('test grain', 1, 'tbsp'), ('test grain', 100, 'ml'), ('test grain', 1, 'clove'), ('test grain', 2, NULL),
               ('test oil', 1, 'l'), ('test oil', 1, 'tbsp'), ('test oil', 1, 'piece'),
               ('test fruit', 2, NULL), ('test fruit', 1, 'cup'), ('no such food', 5, 'g'), ('test fruit', 5, 'smidge'))
       AS t (food, quantity, unit);
-- the weight printed on a can includes the liquid: a drained one is weighed by its measure
INSERT INTO meal_planner.food_measure (food, unit, grams) VALUES ('test fruit', 'can', 240);
SELECT note, w.* FROM (VALUES ('drained'), (NULL)) AS n (note)
  CROSS JOIN LATERAL meal_planner.weigh('test fruit', 2, 'can', 400, 'g', note) AS w;
ROLLBACK;

\set VERBOSITY terse
SELECT mp_parse_ingredient('');
SELECT mp_parse_ingredient(NULL);
SELECT mp_parse_ingredient(repeat('x', 1001));
