-- What a serving of a recipe contains, and how much of it is known.

CREATE TABLE meal_planner.recipe_nutrition (
    account            text        NOT NULL,
    recipe_id          uuid        NOT NULL,
    kcal               numeric,
    protein            numeric,
    fat                numeric,
    carbs              numeric,
    fiber              numeric,
    nutrients          jsonb       NOT NULL,
    coverage           numeric     NOT NULL CHECK (coverage BETWEEN 0 AND 1),
    nutrient_coverage  jsonb       NOT NULL,
    missing            jsonb       NOT NULL,
    calculated_at      timestamptz NOT NULL,
    PRIMARY KEY (account, recipe_id)
);
COMMENT ON TABLE meal_planner.recipe_nutrition IS
'nutrients per serving, a projection of NutritionCalculated; NULL is unknown, not zero';
COMMENT ON COLUMN meal_planner.recipe_nutrition.coverage IS
'share of the ingredient lines with an amount whose weight, energy, protein, fat and carbohydrate are known';
COMMENT ON COLUMN meal_planner.recipe_nutrition.nutrient_coverage IS
'the same share for single nutrients, where it is below the recipe''s';
SELECT pg_extension_config_dump('meal_planner.recipe_nutrition', '');

-- Per serving, from the stored lines.  A line of unknown weight or a food
-- without a figure adds nothing and lowers the coverage; lines to taste count
-- neither way.
CREATE FUNCTION meal_planner.calculate_nutrition(account text, recipe_id uuid) RETURNS jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH line AS (
        SELECT i.line_no, i.raw_text, i.food, i.grams, i.problem,
               ARRAY(SELECT c.code FROM unnest(ARRAY['kcal', 'protein', 'fat', 'carbs']) AS c (code)
                      WHERE NOT EXISTS (SELECT FROM meal_planner.food_nutrient n
                                         WHERE n.food = i.food AND n.nutrient = c.code)) AS unknown
          FROM meal_planner.recipe_ingredient i
         WHERE i.account = $1 AND i.recipe_id = $2 AND NOT i.no_amount),
    total AS (
        SELECT n.nutrient, trim_scale(sum(l.grams * n.per_100g) / (100 * r.servings)) AS amount, count(*) AS known
          FROM line l
          JOIN meal_planner.food_nutrient n ON n.food = l.food
          JOIN meal_planner.recipe r ON r.account = $1 AND r.id = $2
         WHERE l.grams IS NOT NULL
         GROUP BY n.nutrient, r.servings),
    counted AS (
        SELECT count(*) AS lines,
               count(*) FILTER (WHERE l.grams IS NOT NULL AND l.unknown = '{}') AS known,
               coalesce(jsonb_agg(jsonb_build_object('line_no', l.line_no, 'text', l.raw_text,
                                                     'reason', coalesce(l.problem, 'no figure for ' || array_to_string(l.unknown, ', ')))
                                  ORDER BY l.line_no)
                            FILTER (WHERE l.grams IS NULL OR l.unknown <> '{}'), '[]') AS missing
          FROM line l)
    SELECT jsonb_build_object(
               'calories', (SELECT t.amount FROM total t WHERE t.nutrient = 'kcal'),
               'protein', (SELECT t.amount FROM total t WHERE t.nutrient = 'protein'),
               'carbs', (SELECT t.amount FROM total t WHERE t.nutrient = 'carbs'),
               'fat', (SELECT t.amount FROM total t WHERE t.nutrient = 'fat'),
               'fiber', (SELECT t.amount FROM total t WHERE t.nutrient = 'fiber'),
               'nutrients', (SELECT coalesce(jsonb_object_agg(t.nutrient, t.amount), '{}') FROM total t),
               'coverage', CASE WHEN c.lines = 0 THEN 0 ELSE round(c.known::numeric / c.lines, 4) END,
               'nutrient_coverage', (SELECT coalesce(jsonb_object_agg(t.nutrient, round(t.known::numeric / c.lines, 4)), '{}')
                                       FROM total t WHERE t.known < c.known),
               'missing', c.missing)
      FROM counted c
$$;
COMMENT ON FUNCTION meal_planner.calculate_nutrition(text, uuid) IS
'detail of NutritionCalculated for a stored recipe, without its identity';

CREATE FUNCTION meal_planner.on_recipe_created(e meal_planner.event) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    document jsonb := e.detail -> 'recipe';
    target       uuid;
    made_at  timestamptz := e."time";
BEGIN
    -- a bare event need not invent an id: its own is as good, and the same again at a retry
    target := CASE WHEN e.detail ->> 'recipe_id' IS NULL THEN e.id ELSE meal_planner.json_uuid(e.detail -> 'recipe_id') END;
    IF target IS NULL THEN
        PERFORM meal_planner.refuse('MP400', 'detail.recipe_id must be a uuid', 'Correct the detail.');
    END IF;
    IF document IS NULL THEN
        IF NOT EXISTS (SELECT FROM meal_planner.recipe r WHERE r.account = e.account AND r.id = target) THEN
            PERFORM meal_planner.refuse('MP404', format('recipe %s does not exist and detail.recipe is missing', target),
                                        'Send the recipe document in detail.recipe.');
        END IF;
        RETURN;
    END IF;
    PERFORM meal_planner.check_recipe(document);
    IF NOT meal_planner.project_recipe(e.account, target, document, made_at) THEN
        RETURN;
    END IF;
    PERFORM @extschema@.mp_emit_event(
        detail_type => 'NutritionCalculated',
        detail => jsonb_build_object('entity_type', 'recipe', 'entity_id', target, 'calculated_at', made_at)
                  || meal_planner.calculate_nutrition(e.account, target),
        account => e.account);
END
$$;
COMMENT ON FUNCTION meal_planner.on_recipe_created(meal_planner.event) IS
'handler: stores the recipe, reads its ingredients, emits NutritionCalculated; the same recipe again changes nothing';

CREATE FUNCTION meal_planner.on_nutrition_calculated(e meal_planner.event) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    target    uuid := meal_planner.json_uuid(e.detail -> 'entity_id');
    field text;
    at    timestamptz;
BEGIN
    IF e.detail ->> 'entity_type' IS DISTINCT FROM 'recipe' THEN
        RETURN;
    END IF;
    IF target IS NULL THEN
        PERFORM meal_planner.refuse('MP400', 'detail.entity_id must be a uuid', 'Correct the detail.');
    END IF;
    IF NOT EXISTS (SELECT FROM meal_planner.recipe r WHERE r.account = e.account AND r.id = target) THEN
        PERFORM meal_planner.refuse('MP404', format('recipe %s does not exist', target), 'Create the recipe first.');
    END IF;
    FOREACH field IN ARRAY ARRAY['calories', 'protein', 'fat', 'carbs', 'fiber', 'coverage'] LOOP
        IF e.detail -> field IS NOT NULL AND e.detail -> field <> 'null'
           AND NOT coalesce(meal_planner.json_number(e.detail -> field) >= 0, false) THEN
            PERFORM meal_planner.refuse('MP400', format('detail.%s must be a number not below 0', field), 'Correct the detail.');
        END IF;
    END LOOP;
    at := coalesce((e.detail ->> 'calculated_at')::timestamptz, e."time");
    INSERT INTO meal_planner.recipe_nutrition AS n
           (account, recipe_id, kcal, protein, fat, carbs, fiber, nutrients, coverage, nutrient_coverage, missing,
            calculated_at)
    VALUES (e.account, target, (e.detail ->> 'calories')::numeric, (e.detail ->> 'protein')::numeric,
            (e.detail ->> 'fat')::numeric, (e.detail ->> 'carbs')::numeric, (e.detail ->> 'fiber')::numeric,
            coalesce(e.detail -> 'nutrients', jsonb_strip_nulls(jsonb_build_object(
                'kcal', e.detail -> 'calories', 'protein', e.detail -> 'protein', 'fat', e.detail -> 'fat',
                'carbs', e.detail -> 'carbs', 'fiber', e.detail -> 'fiber'))),
            coalesce((e.detail ->> 'coverage')::numeric, 1), coalesce(e.detail -> 'nutrient_coverage', '{}'),
            coalesce(e.detail -> 'missing', '[]'), at)
    ON CONFLICT ON CONSTRAINT recipe_nutrition_pkey DO UPDATE
       SET kcal = excluded.kcal, protein = excluded.protein, fat = excluded.fat, carbs = excluded.carbs,
           fiber = excluded.fiber, nutrients = excluded.nutrients, coverage = excluded.coverage,
           nutrient_coverage = excluded.nutrient_coverage, missing = excluded.missing,
           calculated_at = excluded.calculated_at
     -- events may arrive late; an older calculation never replaces a newer one
     WHERE n.calculated_at <= excluded.calculated_at;
END
$$;
COMMENT ON FUNCTION meal_planner.on_nutrition_calculated(meal_planner.event) IS
'handler: stores the nutrition of a recipe unless a newer calculation is stored; other entities are not its business';

CREATE FUNCTION @extschema@.mp_recipe_nutrition(id uuid, account text DEFAULT 'local') RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    result jsonb;
BEGIN
    SELECT jsonb_build_object(
               'recipe_id', r.id, 'name', r.name, 'servings', r.servings, 'basis', 'per serving',
               'kcal', round(n.kcal), 'protein', round(n.protein, 1), 'fat', round(n.fat, 1),
               'carbs', round(n.carbs, 1), 'fiber', round(n.fiber, 1),
               'nutrients', (SELECT coalesce(jsonb_object_agg(x.code, trim_scale(round(x.amount::numeric, 3))), '{}')
                               FROM jsonb_each_text(n.nutrients) AS x (code, amount)),
               'coverage', n.coverage, 'nutrient_coverage', n.nutrient_coverage, 'missing', n.missing,
               -- far from the stored energy: a figure of some food is odd
               'atwater_kcal', round(4 * n.protein + 4 * n.carbs + 9 * n.fat),
               'calculated_at', n.calculated_at)
      INTO result
      FROM meal_planner.recipe r
      LEFT JOIN meal_planner.recipe_nutrition n ON n.account = r.account AND n.recipe_id = r.id
     WHERE r.account = coalesce($2, 'local') AND r.id = $1;
    IF result IS NULL THEN
        PERFORM meal_planner.refuse('MP404', format('recipe %s does not exist', $1), 'Check the id and the account.');
    END IF;
    RETURN result;
END
$$;
COMMENT ON FUNCTION @extschema@.mp_recipe_nutrition(uuid, text) IS
'nutrition per serving: kcal, grams of protein, fat, carbs, fiber, all nutrients in the units of meal_planner.nutrient, coverage 0..1 and the lines missing from it; null is unknown. MP404';
