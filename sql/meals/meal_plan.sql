-- Meal plans: which recipe on which day in which portion.

CREATE TABLE meal_planner.meal_plan (
    account    text        NOT NULL,
    id         uuid        NOT NULL,
    start_date date        NOT NULL,
    end_date   date        NOT NULL CHECK (end_date >= start_date),
    status     text        NOT NULL CHECK (status IN ('generated', 'active', 'archived', 'cancelled')),
    seed       bigint      NOT NULL,
    people     int         NOT NULL CHECK (people BETWEEN 1 AND 100),
    criteria   jsonb       NOT NULL,
    goals      jsonb       NOT NULL,
    generated_by text      NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (account, id)
);
COMMENT ON TABLE meal_planner.meal_plan IS 'meal plans, a projection of MealPlanGenerated';
COMMENT ON COLUMN meal_planner.meal_plan.criteria IS 'the request with its defaults filled in: the same again with the same seed gives the same plan';
COMMENT ON COLUMN meal_planner.meal_plan.goals IS '{daily: {nutrient: target}, weekly: {...}} for one person, as they were';
SELECT pg_extension_config_dump('meal_planner.meal_plan', '');

CREATE TABLE meal_planner.meal_plan_entry (
    account   text    NOT NULL,
    plan_id   uuid    NOT NULL,
    day       date    NOT NULL,
    meal_type text    NOT NULL CHECK (meal_type IN ('breakfast', 'lunch', 'dinner', 'snack')),
    recipe_id uuid    NOT NULL,
    name      text    NOT NULL,
    servings  numeric NOT NULL CHECK (servings > 0),
    locked    boolean NOT NULL,
    nutrients jsonb   NOT NULL,
    coverage  numeric NOT NULL,
    PRIMARY KEY (account, plan_id, day, meal_type),
    FOREIGN KEY (account, plan_id) REFERENCES meal_planner.meal_plan (account, id)
);
COMMENT ON TABLE meal_planner.meal_plan_entry IS 'the meals of a plan';
COMMENT ON COLUMN meal_planner.meal_plan_entry.servings IS 'servings of the recipe that one person eats; the plan''s people multiply what is bought and cooked';
COMMENT ON COLUMN meal_planner.meal_plan_entry.nutrients IS 'of these servings, as known when the plan was made; what is unknown has no key';
SELECT pg_extension_config_dump('meal_planner.meal_plan_entry', '');

CREATE FUNCTION meal_planner.plan_search(
    nutrients bigint[], meals bigint[], blocked bigint[], kin bigint[],
    slot_day bigint[], slot_meal bigint[], slot_share bigint[], slot_locked bigint[], slot_portion bigint[],
    daily bigint[], total bigint[], under bigint[], "over" bigint[], day_share bigint[],
    tolerance int, cooldown int, seed bigint)
RETURNS int[]
LANGUAGE c IMMUTABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'mp_plan_search_sql';
COMMENT ON FUNCTION meal_planner.plan_search(bigint[], bigint[], bigint[], bigint[], bigint[], bigint[], bigint[], bigint[],
    bigint[], bigint[], bigint[], bigint[], bigint[], bigint[], int, int, bigint) IS
'the search itself: candidate (from 0) and portion (thousandths) for every slot; amounts in thousandths';

-- Part of a day's goals that a meal is to meet, in thousandths.  Meals outside
-- the plan (a skipped one, or lunch at work) are eaten elsewhere: the planned
-- ones do not make up for them.
CREATE FUNCTION meal_planner.meal_share(meal_type text, meal_types text[]) RETURNS int
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN $2 @> ARRAY['breakfast', 'lunch', 'dinner', 'snack'] AND $1 <> 'snack'
                THEN s.share * 9 / 10 ELSE s.share END
      FROM (VALUES ('breakfast', 250), ('lunch', 350), ('dinner', 400), ('snack', 100)) AS s (meal, share)
     WHERE s.meal = $1
$$;
COMMENT ON FUNCTION meal_planner.meal_share(text, text[]) IS
'thousandths of a day''s goals that a meal is to meet, given the meal types of the plan';

CREATE FUNCTION meal_planner.meal_order(meal_type text) RETURNS int
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$ SELECT array_position(ARRAY['breakfast', 'lunch', 'dinner', 'snack'], $1) - 1 $$;
COMMENT ON FUNCTION meal_planner.meal_order(text) IS 'breakfast 0, lunch 1, dinner 2, snack 3';

-- The request with its defaults, or MP400 naming the option.
CREATE FUNCTION meal_planner.read_plan_request(request jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    result jsonb := jsonb_build_object(
        'start_date', meal_planner.clock()::date, 'days', 7, 'meal_types', '["breakfast", "lunch", "dinner"]'::jsonb,
        'seed', 1, 'tolerance', 0.10, 'cooldown_days', 7, 'people', 1, 'min_coverage', 0.9, 'locked', '[]'::jsonb,
        'skip', '[]'::jsonb, 'require_tags', '[]'::jsonb, 'generated_by', 'user',
        'exclude', '{}'::jsonb);
    options text[] := ARRAY['start_date', 'days', 'meal_types', 'seed', 'tolerance', 'cooldown_days', 'people',
                            'min_coverage', 'locked', 'skip', 'exclude', 'require_tags', 'max_minutes', 'goal',
                            'generated_by'];
    item    record;
    number  numeric;
    list    text[];
    slot    text;
    seen    text[] := '{}';
    first   date;
    last    date;
    on_day  date;
BEGIN
    IF jsonb_typeof(coalesce(request, '{}')) <> 'object' THEN
        PERFORM meal_planner.refuse('MP400', 'request must be a JSON object', 'Send {} for a week with all defaults.');
    END IF;
    FOR item IN SELECT k.key FROM jsonb_object_keys(coalesce(request, '{}')) AS k (key) WHERE k.key <> ALL (options) LOOP
        PERFORM meal_planner.refuse('MP400', format('%s is not an option of a plan', item.key),
                                    'Known: ' || array_to_string(options, ', ') || '.');
    END LOOP;
    result := result || jsonb_strip_nulls(coalesce(request, '{}'));

    first := meal_planner.read_date(result -> 'start_date', 'start_date');
    FOR item IN SELECT * FROM (VALUES ('days', 1, 31, true), ('tolerance', 0.01, 1, false), ('cooldown_days', 0, 60, true),
                                      ('people', 1, 100, true), ('min_coverage', 0, 1, false), ('max_minutes', 1, 9999, true),
                                      ('seed', -9223372036854775808, 9223372036854775807, true))
                            AS o (key, low, high, whole) LOOP
        number := meal_planner.json_number(result -> item.key);
        IF result ? item.key AND (number IS NULL OR number NOT BETWEEN item.low AND item.high
                                  OR (item.whole AND number <> trunc(number))) THEN
            PERFORM meal_planner.refuse('MP400', format('%s must be a %s between %s and %s', item.key,
                CASE WHEN item.whole THEN 'whole number' ELSE 'number' END, item.low, item.high), 'Correct the request.');
        END IF;
    END LOOP;
    last := first + (result ->> 'days')::numeric::int - 1;

    PERFORM meal_planner.check_text_list(result -> 'meal_types', 'meal_types');
    PERFORM meal_planner.check_text_list(result -> 'require_tags', 'require_tags');
    list := meal_planner.text_list(result -> 'meal_types');
    IF cardinality(list) = 0 OR NOT list <@ ARRAY['breakfast', 'lunch', 'dinner', 'snack'] THEN
        PERFORM meal_planner.refuse('MP400', 'meal_types must be of breakfast, lunch, dinner, snack', 'Correct the request.');
    END IF;
    IF jsonb_typeof(result -> 'exclude') <> 'object' THEN
        PERFORM meal_planner.refuse('MP400', 'exclude must be an object', 'Send {"allergens": ["peanut"]} for example.');
    END IF;
    FOR item IN SELECT x.key, x.value FROM jsonb_each(result -> 'exclude') AS x LOOP
        IF item.key NOT IN ('recipes', 'foods', 'allergens', 'tags') THEN
            PERFORM meal_planner.refuse('MP400', format('exclude.%s is not known', item.key),
                                        'Known: recipes, foods, allergens, tags.');
        END IF;
        PERFORM meal_planner.check_text_list(item.value, 'exclude.' || item.key);
    END LOOP;
    -- An exclusion that nothing can match would pass everything: refuse it.
    PERFORM meal_planner.check_allergens(result #> '{exclude,allergens}', 'exclude.allergens');
    FOR item IN SELECT x.name FROM unnest(meal_planner.text_list(result #> '{exclude,foods}')) AS x (name)
                 WHERE meal_planner.resolve_food(x.name) IS NULL LOOP
        PERFORM meal_planner.refuse('MP400', format('exclude.foods has "%s", which is not a known food', item.name),
                                    'Use a name of meal_planner.food or an alias.');
    END LOOP;
    FOR item IN SELECT x.value FROM jsonb_path_query(result, '$.exclude.recipes[*]') AS x (value)
                 WHERE meal_planner.json_uuid(x.value) IS NULL LOOP
        PERFORM meal_planner.refuse('MP400', 'exclude.recipes must be ids of recipes', 'Correct the request.');
    END LOOP;

    FOR item IN SELECT k.option, e.value, e.n - 1 AS at
                  FROM (VALUES ('skip'), ('locked')) AS k (option)
                  CROSS JOIN LATERAL jsonb_array_elements(
                      CASE jsonb_typeof(result -> k.option) WHEN 'array' THEN result -> k.option ELSE '[0]' END)
                      WITH ORDINALITY AS e (value, n) LOOP
        slot := format('%s[%s]', item.option, item.at);
        IF jsonb_typeof(item.value) <> 'object' THEN
            PERFORM meal_planner.refuse('MP400', format('%s must be an array of objects', item.option), 'Correct the request.');
        END IF;
        on_day := meal_planner.read_date(item.value -> 'date', slot || '.date');
        IF on_day NOT BETWEEN first AND last THEN
            PERFORM meal_planner.refuse('MP400', slot || '.date is outside the plan', 'Correct the request.');
        END IF;
        IF coalesce(item.value ->> 'meal_type', '') NOT IN ('breakfast', 'lunch', 'dinner', 'snack') THEN
            PERFORM meal_planner.refuse('MP400', slot || '.meal_type must be breakfast, lunch, dinner or snack', 'Correct the request.');
        END IF;
        IF on_day || ' ' || (item.value ->> 'meal_type') = ANY (seen) THEN
            PERFORM meal_planner.refuse('MP400', slot || ' names a meal that is named before', 'Lock or skip a meal once.');
        END IF;
        seen := seen || (on_day || ' ' || (item.value ->> 'meal_type'));
        IF item.option = 'locked' THEN
            IF meal_planner.json_uuid(item.value -> 'recipe_id') IS NULL THEN
                PERFORM meal_planner.refuse('MP400', slot || '.recipe_id must be a uuid', 'Correct the request.');
            END IF;
            number := meal_planner.json_number(coalesce(item.value -> 'servings', '1'));
            IF number IS NULL OR number NOT BETWEEN 0.1 AND 20 THEN
                PERFORM meal_planner.refuse('MP400', slot || '.servings must be a number between 0.1 and 20', 'Correct the request.');
            END IF;
        END IF;
    END LOOP;
    RETURN result;
END
$$;
COMMENT ON FUNCTION meal_planner.read_plan_request(jsonb) IS 'a plan request with its defaults; MP400 naming the option';

-- Every recipe with the reason why it may not be planned, NULL when it may.
CREATE FUNCTION meal_planner.plan_candidates(account text, request jsonb)
RETURNS TABLE (id uuid, name text, meal_types text[], cuisine text, nutrients jsonb, coverage numeric, reason text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH wish AS MATERIALIZED (
        SELECT coalesce(meal_planner.text_list($2 #> '{exclude,recipes}'), '{}')::uuid[] AS recipes,
               ARRAY(SELECT meal_planner.resolve_food(f) FROM unnest(meal_planner.text_list($2 #> '{exclude,foods}')) AS f) AS foods,
               ARRAY(SELECT lower(f) FROM unnest(meal_planner.text_list($2 #> '{exclude,foods}')) AS f) AS food_words,
               meal_planner.allergen_set($2 #> '{exclude,allergens}') AS allergens,
               ARRAY(SELECT lower(t) FROM unnest(meal_planner.text_list($2 #> '{exclude,tags}')) AS t) AS tags,
               ARRAY(SELECT lower(t) FROM unnest(meal_planner.text_list($2 -> 'require_tags')) AS t) AS require_tags,
               ($2 ->> 'max_minutes')::numeric AS max_minutes,
               ($2 ->> 'min_coverage')::numeric AS min_coverage)
    SELECT r.id, r.name, r.meal_types, r.cuisine, n.nutrients, n.coverage,
           CASE WHEN r.id = ANY (w.recipes) THEN 'excluded recipe'
                -- what nobody declared is not safe
                WHEN w.allergens <> '{}' AND r.allergens IS NULL THEN 'allergens unknown'
                WHEN r.allergens && w.allergens THEN 'excluded allergen'
                WHEN w.foods <> '{}' AND EXISTS (
                    SELECT FROM meal_planner.recipe_ingredient i
                     WHERE i.account = $1 AND i.recipe_id = r.id
                       AND (i.food = ANY (w.foods)
                            -- an unresolved line may still name it
                            OR i.food IS NULL AND EXISTS (
                                SELECT FROM unnest(w.foods || w.food_words) AS f (word)
                                 WHERE position(f.word IN lower(i.raw_text)) > 0)))
                    THEN 'excluded food'
                WHEN r.tags && w.tags THEN 'excluded tag'
                WHEN NOT r.tags @> w.require_tags THEN 'required tag missing'
                WHEN w.max_minutes IS NOT NULL AND r.prep_minutes IS NULL AND r.cook_minutes IS NULL THEN 'time unknown'
                WHEN coalesce(r.prep_minutes, 0) + coalesce(r.cook_minutes, 0) > w.max_minutes THEN 'takes too long'
                WHEN n.kcal IS NULL OR n.protein IS NULL OR n.fat IS NULL OR n.carbs IS NULL THEN 'nutrition unknown'
                WHEN n.coverage < w.min_coverage THEN 'nutrition incomplete'
           END
      FROM meal_planner.recipe r
      CROSS JOIN wish w
      LEFT JOIN meal_planner.recipe_nutrition n ON n.account = $1 AND n.recipe_id = r.id
     WHERE r.account = $1 AND r.status = 'active'
$$;
COMMENT ON FUNCTION meal_planner.plan_candidates(text, jsonb) IS
'recipes of an account with the reason why a request excludes them, NULL when it does not';

-- Days, totals and what is not as wanted, from the entries alone: a stored plan
-- and a plan just made are described by the same words.
CREATE FUNCTION meal_planner.describe_plan(entries jsonb, goals jsonb, criteria jsonb) RETURNS jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
-- the planner overestimates JSON and would compile for a second what runs for ten milliseconds
SET jit = off
AS $$
    WITH entry AS (
        SELECT x.date, x.meal_type, x.recipe_id, x.name, x.servings, x.locked, x.nutrients, x.coverage,
               meal_planner.meal_share(x.meal_type, meal_planner.text_list($3 -> 'meal_types')) AS share
          FROM jsonb_to_recordset($1) AS x (date date, meal_type text, recipe_id uuid, name text, servings numeric,
                                            locked boolean, nutrients jsonb, coverage numeric)),
    calendar AS (
        SELECT ($3 ->> 'start_date')::date + d AS date
          FROM generate_series(0, ($3 ->> 'days')::numeric::int - 1) AS d),
    code AS (
        SELECT c.code, min(c.n) AS n, w.under, w."over"
          FROM (SELECT base.code, base.n FROM unnest(ARRAY['kcal', 'protein', 'fat', 'carbs', 'fiber'])
                                              WITH ORDINALITY AS base (code, n)
                UNION ALL SELECT k, 100 FROM jsonb_object_keys($2 -> 'daily') AS k
                UNION ALL SELECT k, 100 FROM jsonb_object_keys($2 -> 'weekly') AS k) AS c
          CROSS JOIN LATERAL meal_planner.goal_weight(c.code) AS w
         GROUP BY c.code, w.under, w."over"),
    -- more than the whole day is never asked of its meals
    day AS (
        SELECT c.date, least(coalesce(sum(e.share), 0), 1000) AS share
          FROM calendar c LEFT JOIN entry e ON e.date = c.date
         GROUP BY c.date),
    amount AS (
        SELECT d.date, c.code, c.n, c.under, c."over",
               coalesce(sum((e.nutrients ->> c.code)::numeric), 0) AS actual,
               ($2 -> 'daily' ->> c.code)::numeric * d.share / 1000 AS target
          FROM day d CROSS JOIN code c LEFT JOIN entry e ON e.date = d.date
         GROUP BY d.date, d.share, c.code, c.n, c.under, c."over"),
    judged AS (
        SELECT a.*, a.actual / nullif(a.target, 0) - 1 AS deviation,
               a.actual / nullif(a.target, 0) - 1 > ($3 ->> 'tolerance')::numeric AND a."over" > 0
               OR 1 - a.actual / nullif(a.target, 0) > ($3 ->> 'tolerance')::numeric AND a.under > 0 AS missed
          FROM amount a),
    total AS (
        SELECT a.code, a.n, a.under, a."over", sum(a.actual) AS actual,
               ($2 -> 'weekly' ->> a.code)::numeric * (SELECT sum(d.share) FROM day d) / 7000 AS target
          FROM amount a GROUP BY a.code, a.n, a.under, a."over"),
    unmet AS (
        SELECT 1 AS kind, j.date, j.n, j.code AS key, jsonb_build_object(
                   'kind', 'daily goal', 'date', j.date, 'nutrient', j.code, 'target', round(j.target, 1),
                   'actual', round(j.actual, 1), 'deviation', round(j.deviation, 3)) AS item
          FROM judged j WHERE j.missed
        UNION ALL
        SELECT 2, NULL, t.n, t.code, jsonb_build_object(
                   'kind', 'weekly goal', 'nutrient', t.code, 'target', round(t.target, 1), 'actual', round(t.actual, 1),
                   'deviation', round(t.actual / t.target - 1, 3))
          FROM total t
         WHERE t.target > 0 AND (t.actual / t.target - 1 > ($3 ->> 'tolerance')::numeric AND t."over" > 0
                                 OR 1 - t.actual / t.target > ($3 ->> 'tolerance')::numeric AND t.under > 0)
        UNION ALL
        SELECT 3, min(e.date), 0, e.recipe_id::text, jsonb_build_object(
                   'kind', 'repeat', 'recipe_id', e.recipe_id, 'name', min(e.name),
                   'dates', jsonb_agg(DISTINCT e.date ORDER BY e.date))
          FROM entry e
         WHERE EXISTS (SELECT FROM entry o
                        WHERE o.recipe_id = e.recipe_id AND (o.date, o.meal_type) <> (e.date, e.meal_type)
                          AND abs(o.date - e.date) < greatest(($3 ->> 'cooldown_days')::numeric, 1))
         GROUP BY e.recipe_id
        UNION ALL
        SELECT 4, e.date, 0, e.meal_type, jsonb_build_object(
                   'kind', 'incomplete nutrition', 'date', e.date, 'meal_type', e.meal_type, 'recipe_id', e.recipe_id,
                   'name', e.name, 'coverage', e.coverage)
          FROM entry e WHERE e.coverage < 1
        UNION ALL
        SELECT 5, NULL, 0, '', jsonb_build_object('kind', 'no goal')
         WHERE $2 -> 'daily' = '{}' AND $2 -> 'weekly' = '{}')
    SELECT jsonb_build_object(
        'goals', $2,
        'days', (SELECT jsonb_agg(jsonb_build_object(
                            'date', d.date,
                            'meals', (SELECT coalesce(jsonb_agg(jsonb_build_object(
                                                 'meal_type', e.meal_type, 'recipe_id', e.recipe_id, 'name', e.name,
                                                 'servings', trim_scale(e.servings), 'locked', e.locked,
                                                 'kcal', round((e.nutrients ->> 'kcal')::numeric),
                                                 'protein', round((e.nutrients ->> 'protein')::numeric, 1),
                                                 'fat', round((e.nutrients ->> 'fat')::numeric, 1),
                                                 'carbs', round((e.nutrients ->> 'carbs')::numeric, 1))
                                                 ORDER BY meal_planner.meal_order(e.meal_type)), '[]')
                                        FROM entry e WHERE e.date = d.date),
                            'totals', (SELECT jsonb_object_agg(j.code, round(j.actual, CASE j.code WHEN 'kcal' THEN 0 ELSE 1 END))
                                         FROM judged j WHERE j.date = d.date),
                            'targets', (SELECT coalesce(jsonb_object_agg(j.code, trim_scale(round(j.target, 1))), '{}')
                                          FROM judged j WHERE j.date = d.date AND j.target > 0),
                            'deviation', (SELECT coalesce(jsonb_object_agg(j.code, round(j.deviation, 3)), '{}')
                                            FROM judged j WHERE j.date = d.date AND j.target > 0),
                            'within_tolerance', (SELECT coalesce(bool_and(NOT j.missed), true) FROM judged j
                                                  WHERE j.date = d.date AND j.target > 0))
                            ORDER BY d.date)
                   FROM day d),
        'totals', (SELECT jsonb_object_agg(t.code, round(t.actual, CASE t.code WHEN 'kcal' THEN 0 ELSE 1 END)) FROM total t),
        'unmet', (SELECT coalesce(jsonb_agg(u.item ORDER BY u.kind, u.date, u.n, u.key), '[]') FROM unmet u))
$$;
COMMENT ON FUNCTION meal_planner.describe_plan(jsonb, jsonb, jsonb) IS
'{goals, days, totals, unmet} of the entries of a plan';

-- The entries the search chooses for a checked request.
CREATE FUNCTION meal_planner.choose_meals(account text, request jsonb, goals jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
-- the planner overestimates JSON and would compile for a second what runs for ten milliseconds
SET jit = off
AS $$
DECLARE
    first      date := (request ->> 'start_date')::date;
    day_count  int := (request ->> 'days')::numeric::int;
    types      text[] := meal_planner.text_list(request -> 'meal_types');
    cooldown   int := (request ->> 'cooldown_days')::numeric::int;
    codes      text[];
    candidates uuid[];
    slots      record;
    pool       record;
    wanted     record;
    short      record;
    found      int[];
    result     jsonb;
BEGIN
    -- energy first: the search measures the size of a meal by it
    SELECT array_agg(c.code ORDER BY c.code <> 'kcal', c.code) INTO codes
      FROM (SELECT 'kcal' AS code
            UNION SELECT k FROM jsonb_object_keys(goals -> 'daily') AS k
            UNION SELECT k FROM jsonb_object_keys(goals -> 'weekly') AS k) AS c;
    IF cardinality(codes) > 16 THEN
        PERFORM meal_planner.refuse('MP400', 'at most 16 nutrients can have a goal', 'Set fewer goals.');
    END IF;

    SELECT l.at, l.recipe_id, c.id, c.reason INTO short
      FROM (SELECT x.recipe_id, n - 1 AS at
              FROM ROWS FROM (jsonb_to_recordset(request -> 'locked') AS (recipe_id uuid)) WITH ORDINALITY AS x (recipe_id, n)) l
      LEFT JOIN meal_planner.plan_candidates(account, request) AS c ON c.id = l.recipe_id
     WHERE c.id IS NULL OR c.reason IN ('excluded recipe', 'excluded allergen', 'allergens unknown', 'excluded food', 'excluded tag')
     ORDER BY l.at
     LIMIT 1;
    IF short.at IS NOT NULL AND short.id IS NULL THEN
        PERFORM meal_planner.refuse('MP404', format('locked[%s].recipe_id does not exist', short.at), 'Lock a recipe of this account.');
    ELSIF short.at IS NOT NULL THEN
        PERFORM meal_planner.refuse('MP400', format('locked[%s] contradicts the exclusions: %s', short.at, short.reason),
                                    'Unlock the meal or drop the exclusion.');
    END IF;

    SELECT array_agg(c.id ORDER BY c.id) AS ids,
           array_agg(ARRAY(SELECT coalesce(round((c.nutrients ->> k.code)::numeric * 1000), 0)::bigint
                             FROM unnest(codes) WITH ORDINALITY AS k (code, n) ORDER BY k.n) ORDER BY c.id) AS nutrients,
           array_agg(CASE WHEN c.reason IS NOT NULL THEN 0 ELSE
                         (SELECT coalesce(bit_or(1::bigint << meal_planner.meal_order(m)), 0) FROM unnest(c.meal_types) AS m) END
                     ORDER BY c.id) AS meals,
           array_agg((SELECT coalesce(bit_or(1::bigint << d), 0)
                        FROM generate_series(0, day_count - 1) AS d
                       WHERE EXISTS (SELECT FROM meal_planner.meal_plan p
                                       JOIN meal_planner.meal_plan_entry e ON e.account = p.account AND e.plan_id = p.id
                                      WHERE p.account = choose_meals.account AND p.status = 'active' AND e.recipe_id = c.id
                                        AND abs(e.day - (first + d)) < cooldown)) ORDER BY c.id) AS blocked,
           array_agg(CASE WHEN c.cuisine IS NULL THEN -1 ELSE c.kin END ORDER BY c.id) AS kin
      INTO pool
      FROM (SELECT k.*, dense_rank() OVER (ORDER BY lower(k.cuisine)) AS kin
              FROM meal_planner.plan_candidates(account, request) AS k
             WHERE k.reason IS NULL
                OR k.id IN (SELECT x.recipe_id FROM jsonb_to_recordset(request -> 'locked') AS x (recipe_id uuid))) c;
    candidates := coalesce(pool.ids, '{}');

    WITH locked AS (
        SELECT x.date, x.meal_type, x.recipe_id, coalesce(x.servings, 1) AS servings
          FROM jsonb_to_recordset(request -> 'locked') AS x (date date, meal_type text, recipe_id uuid, servings numeric)),
    skipped AS (
        SELECT x.date, x.meal_type FROM jsonb_to_recordset(request -> 'skip') AS x (date date, meal_type text)),
    slot AS (
        SELECT s.date, s.meal_type, l.recipe_id, l.servings
          FROM (SELECT first + d AS date, t AS meal_type
                  FROM generate_series(0, day_count - 1) AS d CROSS JOIN unnest(types) AS t
                 WHERE (first + d, t) NOT IN (SELECT k.date, k.meal_type FROM skipped k)
                UNION
                SELECT l.date, l.meal_type FROM locked l) s
          LEFT JOIN locked l ON (l.date, l.meal_type) = (s.date, s.meal_type)),
    ordered AS (
        SELECT s.*, s.date - first AS day, meal_planner.meal_order(s.meal_type) AS meal,
               meal_planner.meal_share(s.meal_type, types) AS share
          FROM slot s)
    SELECT coalesce(array_agg(o.date ORDER BY o.day, o.meal), '{}') AS dates,
           coalesce(array_agg(o.meal_type ORDER BY o.day, o.meal), '{}') AS types,
           coalesce(array_agg(o.day::bigint ORDER BY o.day, o.meal), '{}') AS day,
           coalesce(array_agg(o.meal::bigint ORDER BY o.day, o.meal), '{}') AS meal,
           coalesce(array_agg(o.share::bigint ORDER BY o.day, o.meal), '{}') AS share,
           coalesce(array_agg(coalesce(array_position(candidates, o.recipe_id) - 1, -1)::bigint ORDER BY o.day, o.meal), '{}') AS locked,
           coalesce(array_agg(coalesce(round(o.servings * 1000), 0)::bigint ORDER BY o.day, o.meal), '{}') AS portion,
           coalesce(array_agg(o.servings ORDER BY o.day, o.meal), '{}') AS servings,
           (SELECT array_agg(least(coalesce((SELECT sum(x.share) FROM ordered x WHERE x.day = d), 0), 1000) ORDER BY d)
              FROM generate_series(0, day_count - 1) AS d) AS day_share
      INTO slots
      FROM ordered o;

    FOR short IN
        SELECT t.meal_type, t.required
          FROM (SELECT s.meal_type, count(*) AS required FROM unnest(slots.types, slots.locked) AS s (meal_type, locked)
                 WHERE s.locked < 0 GROUP BY s.meal_type) t
         WHERE NOT EXISTS (SELECT FROM unnest(pool.meals) AS m (bits)
                            WHERE m.bits & (1::bigint << meal_planner.meal_order(t.meal_type)) <> 0)
         ORDER BY meal_planner.meal_order(t.meal_type)
    LOOP
        PERFORM meal_planner.refuse('MP400', format('no recipe can be planned for %s', short.meal_type),
            'Add recipes or relax the request.',
            jsonb_build_object('category', short.meal_type, 'required', short.required, 'available', 0, 'reasons',
                (SELECT coalesce(jsonb_object_agg(r.reason, r.count), '{}')
                   FROM (SELECT c.reason, count(*) FROM meal_planner.plan_candidates(account, request) AS c
                          WHERE short.meal_type = ANY (c.meal_types) GROUP BY c.reason) r))::text);
    END LOOP;

    SELECT array_agg(coalesce(round((goals -> 'daily' ->> k.code)::numeric * 1000), 0)::bigint ORDER BY k.n) AS daily,
           -- a weekly goal asks of the plan what its days are of a week
           array_agg(coalesce(round((goals -> 'weekly' ->> k.code)::numeric
                                    * (SELECT sum(s) FROM unnest(slots.day_share) AS s) / 7), 0)::bigint ORDER BY k.n) AS total,
           array_agg(w.under::bigint ORDER BY k.n) AS under,
           array_agg(w."over"::bigint ORDER BY k.n) AS "over"
      INTO wanted
      FROM unnest(codes) WITH ORDINALITY AS k (code, n)
      CROSS JOIN LATERAL meal_planner.goal_weight(k.code) AS w;

    found := meal_planner.plan_search(
        coalesce(pool.nutrients, '{}'), coalesce(pool.meals, '{}'), coalesce(pool.blocked, '{}'), coalesce(pool.kin, '{}'),
        slots.day, slots.meal, slots.share, slots.locked, slots.portion,
        wanted.daily, wanted.total, wanted.under, wanted."over", slots.day_share,
        -- the search cuts off fractions of a thousandth
        greatest(floor((request ->> 'tolerance')::numeric * 1000)::int - 1, 1),
        cooldown, (request ->> 'seed')::numeric::bigint);

    SELECT coalesce(jsonb_agg(jsonb_build_object(
               'date', s.date, 'meal_type', s.meal_type, 'recipe_id', c.id, 'name', c.name, 'servings', s.servings,
               'locked', s.locked, 'coverage', coalesce(c.coverage, 0),
               'nutrients', (SELECT coalesce(jsonb_object_agg(x.code, x.amount::numeric * s.servings), '{}')
                               FROM jsonb_each_text(c.nutrients) AS x (code, amount)
                              WHERE x.code = ANY (codes || ARRAY['protein', 'fat', 'carbs', 'fiber'])))
               ORDER BY s.n), '[]')
      INTO result
      FROM (SELECT u.n, u.date, u.meal_type, u.locked >= 0 AS locked, candidates[found[2 * u.n - 1] + 1] AS recipe_id,
                   coalesce(u.servings, found[2 * u.n] / 1000.0) AS servings
              FROM unnest(slots.dates, slots.types, slots.locked, slots.servings)
                   WITH ORDINALITY AS u (date, meal_type, locked, servings, n)) s
      JOIN meal_planner.plan_candidates(account, request) AS c ON c.id = s.recipe_id;

    SELECT e.date, e.meal_type INTO short
      FROM jsonb_to_recordset(result) AS e (date date, meal_type text, recipe_id uuid, locked boolean)
      JOIN jsonb_to_recordset(result) AS o (date date, meal_type text, recipe_id uuid)
        ON o.date = e.date AND o.recipe_id = e.recipe_id AND o.meal_type <> e.meal_type
     WHERE NOT e.locked
     ORDER BY e.date, meal_planner.meal_order(e.meal_type) DESC
     LIMIT 1;
    IF short.date IS NOT NULL THEN
        PERFORM meal_planner.refuse('MP400', format('too few recipes to serve different meals on %s', short.date),
            'Add recipes or relax the request.',
            jsonb_build_object('category', short.meal_type, 'required', 2, 'available', 1)::text);
    END IF;
    RETURN result;
END
$$;
COMMENT ON FUNCTION meal_planner.choose_meals(text, jsonb, jsonb) IS
'entries of a plan for a checked request; MP400 with {category, required, available} when the recipes do not suffice';

CREATE FUNCTION @extschema@.mp_generate_meal_plan(request jsonb DEFAULT '{}', account text DEFAULT 'local') RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tenant   text := coalesce(account, 'local');
    criteria jsonb := meal_planner.read_plan_request(request);
    first    date := (criteria ->> 'start_date')::date;
    goals    jsonb;
    entries  jsonb;
    plan_id  uuid := gen_random_uuid();
BEGIN
    IF criteria ? 'goal' THEN
        goals := jsonb_build_object('daily', '{}'::jsonb, 'weekly', '{}'::jsonb)
            || jsonb_build_object(
                CASE WHEN criteria #>> '{goal,period}' = 'weekly' THEN 'weekly' ELSE 'daily' END,
                (SELECT jsonb_object_agg(g.goal_type, g.target_value)
                   FROM jsonb_to_recordset(meal_planner.read_goal(criteria -> 'goal')) AS g (goal_type text, target_value numeric)));
    ELSE
        goals := jsonb_build_object('daily', meal_planner.goals_on(tenant, first, 'daily'),
                                    'weekly', meal_planner.goals_on(tenant, first, 'weekly'));
    END IF;
    entries := meal_planner.choose_meals(tenant, criteria, goals);
    PERFORM @extschema@.mp_emit_event(
        detail_type => 'MealPlanGenerated',
        detail => jsonb_build_object(
            'plan_id', plan_id, 'generated_by', criteria ->> 'generated_by', 'criteria', criteria, 'goals', goals,
            'start_date', first, 'end_date', first + (criteria ->> 'days')::numeric::int - 1,
            'entries', entries),
        account => tenant,
        stream => 'meal_plan:' || plan_id,
        expected_version => 0);
    RETURN jsonb_build_object('plan_id', plan_id, 'seed', criteria -> 'seed', 'people', criteria -> 'people')
        || meal_planner.describe_plan(entries, goals, criteria);
END
$$;
COMMENT ON FUNCTION @extschema@.mp_generate_meal_plan(jsonb, text) IS
'plans meals that meet the nutrition goals and emits MealPlanGenerated; the same recipes, goals, request and seed give the same meals.
request: start_date (today), days 1..31 (7), meal_types (breakfast, lunch, dinner; also snack), seed (1), goal (instead of the stored ones, as for mp_set_nutrition_goal), tolerance (0.10), locked [{date, meal_type, recipe_id, servings}], skip [{date, meal_type}], exclude {recipes, foods, allergens, tags}, require_tags, cooldown_days (7), max_minutes, people (1), min_coverage (0.9).
Returns {plan_id, seed, people, goals, days [{date, meals, totals, targets, deviation, within_tolerance}], totals, unmet}; kcal and grams, servings per person.
Locked meals are kept, exclusions never broken, no recipe twice on a day; what the recipes do not allow is in unmet. MP400 (too few recipes: detail has category, required, available), MP404';

CREATE FUNCTION meal_planner.on_meal_plan_generated(e meal_planner.event) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    target       uuid := meal_planner.json_uuid(e.detail -> 'plan_id');
    criteria jsonb;
BEGIN
    IF target IS NULL THEN
        PERFORM meal_planner.refuse('MP400', 'detail.plan_id must be a uuid', 'Correct the detail.');
    END IF;
    IF jsonb_typeof(e.detail -> 'entries') IS DISTINCT FROM 'array' THEN
        IF NOT EXISTS (SELECT FROM meal_planner.meal_plan p WHERE p.account = e.account AND p.id = target) THEN
            PERFORM meal_planner.refuse('MP404', format('meal plan %s does not exist and detail.entries is missing', target),
                                        'Send the entries, or call mp_generate_meal_plan.');
        END IF;
        RETURN;
    END IF;
    criteria := meal_planner.read_plan_request(e.detail -> 'criteria');
    INSERT INTO meal_planner.meal_plan
           (account, id, start_date, end_date, status, seed, people, criteria, goals, generated_by, created_at)
    VALUES (e.account, target, (criteria ->> 'start_date')::date,
            (criteria ->> 'start_date')::date + (criteria ->> 'days')::numeric::int - 1, 'generated',
            (criteria ->> 'seed')::numeric::bigint, (criteria ->> 'people')::numeric::int, criteria,
            coalesce(e.detail -> 'goals', '{"daily": {}, "weekly": {}}'),
            coalesce(e.detail ->> 'generated_by', 'user'), e."time")
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        -- the same event again, or somebody else's plan under this id
        IF (SELECT jsonb_agg(jsonb_build_array(x.day, x.meal_type, x.recipe_id, x.servings) ORDER BY x.day, x.meal_type)
              FROM meal_planner.meal_plan_entry x WHERE x.account = e.account AND x.plan_id = target)
           IS DISTINCT FROM
           (SELECT jsonb_agg(jsonb_build_array(x.date, x.meal_type, x.recipe_id, x.servings) ORDER BY x.date, x.meal_type)
              FROM jsonb_to_recordset(e.detail -> 'entries') AS x (date date, meal_type text, recipe_id uuid, servings numeric)) THEN
            PERFORM meal_planner.refuse('MP409', format('meal plan %s exists with other meals', target), 'Send a new plan with a new id.');
        END IF;
        RETURN;
    END IF;
    INSERT INTO meal_planner.meal_plan_entry
           (account, plan_id, day, meal_type, recipe_id, name, servings, locked, nutrients, coverage)
    SELECT e.account, target, x.date, x.meal_type, x.recipe_id, x.name, x.servings, coalesce(x.locked, false),
           coalesce(x.nutrients, '{}'), coalesce(x.coverage, 0)
      FROM jsonb_to_recordset(e.detail -> 'entries') AS x (date date, meal_type text, recipe_id uuid, name text,
                                                           servings numeric, locked boolean, nutrients jsonb, coverage numeric);
END
$$;
COMMENT ON FUNCTION meal_planner.on_meal_plan_generated(meal_planner.event) IS
'handler: stores the plan and its entries; the same plan again changes nothing';

CREATE FUNCTION @extschema@.mp_meal_plan(id uuid, account text DEFAULT 'local') RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tenant text := coalesce(account, 'local');
    plan   record;
BEGIN
    SELECT p.* INTO plan FROM meal_planner.meal_plan p WHERE p.account = tenant AND p.id = $1;
    IF plan.id IS NULL THEN
        PERFORM meal_planner.refuse('MP404', format('meal plan %s does not exist', $1), 'Check the id and the account.');
    END IF;
    RETURN jsonb_build_object('plan_id', plan.id, 'status', plan.status, 'start_date', plan.start_date,
                              'end_date', plan.end_date, 'seed', plan.seed, 'people', plan.people,
                              'created_at', plan.created_at)
        || meal_planner.describe_plan(
            (SELECT coalesce(jsonb_agg(jsonb_build_object(
                        'date', x.day, 'meal_type', x.meal_type, 'recipe_id', x.recipe_id, 'name', x.name,
                        'servings', x.servings, 'locked', x.locked, 'nutrients', x.nutrients, 'coverage', x.coverage)), '[]')
               FROM meal_planner.meal_plan_entry x WHERE x.account = tenant AND x.plan_id = plan.id),
            plan.goals, plan.criteria);
END
$$;
COMMENT ON FUNCTION @extschema@.mp_meal_plan(uuid, text) IS
'a stored plan: what mp_generate_meal_plan returned, with status and dates. MP404';
