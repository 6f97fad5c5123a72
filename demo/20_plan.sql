-- Sets a goal, plans next week for two and writes the shopping list.
\set ON_ERROR_STOP on
\pset footer off
\pset null ''
\pset linestyle unicode
\pset border 1

SELECT (date_trunc('week', current_date) + interval '7 days')::date AS monday \gset
SELECT mp_set_nutrition_goal('{"kcal": 2200, "protein": 130, "fat": 75, "carbs": 240}') \g /dev/null

SELECT plan ->> 'plan_id' AS plan_id, plan ->> 'unmet' AS unmet
  FROM mp_generate_meal_plan(jsonb_build_object('start_date', :'monday', 'people', 2, 'seed', 1)) AS plan \gset
SELECT mp_create_shopping_list(:'plan_id') AS list_id \gset

\echo 'The week, portions and figures for one person; the goal is 2200 kcal, 130 g protein, 75 g fat, 240 g carbohydrate:'
\echo
WITH plan AS (SELECT mp_meal_plan(:'plan_id') AS p),
day AS (
    SELECT d.value AS d, d.n, (d.value ->> 'date')::date AS date
      FROM plan CROSS JOIN jsonb_array_elements(p -> 'days') WITH ORDINALITY AS d (value, n)),
line AS (
    SELECT d.n, m.n AS m, CASE m.n WHEN 1 THEN to_char(d.date, 'Dy DD Mon') END AS day, m.value ->> 'meal_type' AS meal,
           m.value ->> 'name' AS dish, to_char((m.value ->> 'servings')::numeric, 'FM90.00') AS portion,
           m.value ->> 'kcal' AS kcal, round((m.value ->> 'protein')::numeric)::text AS protein,
           round((m.value ->> 'fat')::numeric)::text AS fat, round((m.value ->> 'carbs')::numeric)::text AS carbs
      FROM day d CROSS JOIN jsonb_array_elements(d.d -> 'meals') WITH ORDINALITY AS m (value, n)
    UNION ALL
    SELECT d.n, 98, NULL, NULL, '    of the goal', NULL, x.kcal, x.protein, x.fat, x.carbs
      FROM day d
      CROSS JOIN LATERAL (
          SELECT max(s.share) FILTER (WHERE s.code = 'kcal'), max(s.share) FILTER (WHERE s.code = 'protein'),
                 max(s.share) FILTER (WHERE s.code = 'fat'), max(s.share) FILTER (WHERE s.code = 'carbs')
            FROM (SELECT v.key, round(100 * (1 + v.value::numeric)) || ' %' FROM jsonb_each_text(d.d -> 'deviation') AS v) AS s (code, share)
      ) AS x (kcal, protein, fat, carbs)
    UNION ALL
    SELECT d.n, 99, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL FROM day d WHERE d.n < 7)
SELECT day AS "Day", meal AS "Meal", dish AS "Dish", lpad(portion, 7) AS "Portion", lpad(kcal, 5) AS "kcal",
       lpad(protein, 9) AS "Protein g", lpad(fat, 5) AS "Fat g", lpad(carbs, 7) AS "Carbs g"
  FROM line ORDER BY n, m;

SELECT CASE WHEN :'unmet' = '[]' THEN 'Every day is within 10 % of the goal; no dish comes twice.'
            ELSE 'Not as wanted: ' || :'unmet' END AS verdict \gset
\echo :verdict
\echo
\echo 'The shopping list for two people:'
\echo
WITH item AS (
    SELECT i.aisle, i.item_no, i.label, i.display, min(i.item_no) OVER (PARTITION BY i.aisle) AS first,
           (SELECT count(*) FROM meal_planner.shopping_list_item_source s
             WHERE s.account = i.account AND s.list_id = i.list_id AND s.item_no = i.item_no) AS dishes
      FROM meal_planner.shopping_list_item i
     WHERE i.account = 'local' AND i.list_id = :'list_id')
SELECT CASE item_no WHEN first THEN aisle END AS "Aisle", label AS "Food", display AS "Quantity", dishes AS "For dishes"
  FROM item ORDER BY item_no;
