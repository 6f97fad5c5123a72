-- What somebody wants to eat: targets per nutrient, valid from a day on.

-- A goal holds until the next one of the same kind begins, so no row ever
-- changes when a new one comes, in whatever order the events arrive.
CREATE TABLE meal_planner.nutrition_goal (
    account    text        NOT NULL,
    goal_type  text        NOT NULL,
    period     text        NOT NULL CHECK (period IN ('daily', 'weekly')),
    valid_from date        NOT NULL,
    target     numeric     NOT NULL CHECK (target > 0),
    set_at     timestamptz NOT NULL,
    PRIMARY KEY (account, goal_type, period, valid_from)
);
COMMENT ON TABLE meal_planner.nutrition_goal IS
'targets per nutrient code and period, a projection of NutritionGoalSet; valid until the next row of the same kind';
SELECT pg_extension_config_dump('meal_planner.nutrition_goal', '');

-- 'calories' of the events is the nutrient kcal of the tables.
CREATE FUNCTION meal_planner.goal_nutrient(goal_type text) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT n.code FROM meal_planner.nutrient n
     WHERE n.code = CASE lower($1) WHEN 'calories' THEN 'kcal' WHEN 'energy' THEN 'kcal'
                                   WHEN 'carbohydrates' THEN 'carbs' ELSE lower($1) END
$$;
COMMENT ON FUNCTION meal_planner.goal_nutrient(text) IS 'nutrient code of a goal type, or NULL';

-- A goal in any accepted form as [{goal_type, target_value}], checked.
CREATE FUNCTION meal_planner.read_goal(goal jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    result jsonb := '[]';
    pairs  jsonb := '{}';
    item   record;
BEGIN
    IF jsonb_typeof(goal) IS DISTINCT FROM 'object' THEN
        PERFORM meal_planner.refuse('MP400', 'goal must be a JSON object', 'Send for example {"kcal": 2200, "protein": 130}.');
    END IF;
    IF goal ? 'goals' THEN
        IF jsonb_typeof(goal -> 'goals') <> 'array' THEN
            PERFORM meal_planner.refuse('MP400', 'goals must be an array', 'Correct the goal.');
        END IF;
        FOR item IN SELECT e.value FROM jsonb_array_elements(goal -> 'goals') AS e (value) LOOP
            pairs := pairs || jsonb_build_object(coalesce(item.value ->> 'goal_type', ''), item.value -> 'target_value');
        END LOOP;
    ELSIF goal ? 'goal_type' THEN
        pairs := jsonb_build_object(coalesce(goal ->> 'goal_type', ''), goal -> 'target_value');
    ELSE
        pairs := goal - 'period' - 'start_date' - 'user_id' - 'set_at';
    END IF;
    FOR item IN SELECT p.key, p.value, meal_planner.goal_nutrient(p.key) AS code FROM jsonb_each(pairs) AS p ORDER BY 1 LOOP
        IF item.code IS NULL THEN
            PERFORM meal_planner.refuse('MP400', format('goal_type "%s" is not a nutrient', item.key),
                                        'Use calories or a code of meal_planner.nutrient.');
        END IF;
        IF NOT coalesce(meal_planner.json_number(item.value) > 0 AND meal_planner.json_number(item.value) <= 100000, false) THEN
            PERFORM meal_planner.refuse('MP400', format('the target of %s must be a number above 0', item.key), 'Correct the goal.');
        END IF;
        result := result || jsonb_build_object('goal_type', item.code, 'target_value', item.value);
    END LOOP;
    IF result = '[]' THEN
        PERFORM meal_planner.refuse('MP400', 'goal names no nutrient', 'Send for example {"kcal": 2200, "protein": 130}.');
    END IF;
    RETURN result;
END
$$;
COMMENT ON FUNCTION meal_planner.read_goal(jsonb) IS '[{goal_type (nutrient code), target_value}] of a goal document; MP400';

CREATE FUNCTION meal_planner.read_date(value jsonb, field text) RETURNS date
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF jsonb_typeof(value) = 'string' AND value #>> '{}' ~ '^\d{4}-\d\d-\d\d$' THEN
        RETURN (value #>> '{}')::date;
    END IF;
    PERFORM meal_planner.refuse('MP400', field || ' must be a date like 2026-11-23', 'Correct the date.');
    RETURN NULL;
EXCEPTION
    WHEN datetime_field_overflow OR invalid_datetime_format THEN
        PERFORM meal_planner.refuse('MP400', field || ' must be a date like 2026-11-23', 'Correct the date.');
        RETURN NULL;
END
$$;
COMMENT ON FUNCTION meal_planner.read_date(jsonb, text) IS 'an ISO date of JSON; MP400 naming the field';

CREATE FUNCTION @extschema@.mp_set_nutrition_goal(goal jsonb, account text DEFAULT 'local') RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tenant text := coalesce(account, 'local');
    goals  jsonb := meal_planner.read_goal(goal);
    period text := coalesce(goal ->> 'period', 'daily');
    start  date;
    now    timestamptz := meal_planner.clock();
BEGIN
    IF period NOT IN ('daily', 'weekly') THEN
        PERFORM meal_planner.refuse('MP400', 'period must be daily or weekly', 'Correct the goal.');
    END IF;
    start := CASE WHEN goal ->> 'start_date' IS NULL THEN now::date
                  ELSE meal_planner.read_date(goal -> 'start_date', 'start_date') END;
    PERFORM @extschema@.mp_emit_event(
        detail_type => 'NutritionGoalSet',
        detail => jsonb_build_object('user_id', tenant, 'period', period, 'start_date', start, 'set_at', now, 'goals', goals)
                  -- one nutrient alone also in the plain form
                  || CASE WHEN jsonb_array_length(goals) = 1 THEN goals -> 0 ELSE '{}' END,
        account => tenant);
END
$$;
COMMENT ON FUNCTION @extschema@.mp_set_nutrition_goal(jsonb, text) IS
'sets targets from a day on; emits one NutritionGoalSet. goal: {"kcal": 2200, "protein": 130, ...} with codes of meal_planner.nutrient (kcal or g, mg, mcg as there), or {"goal_type", "target_value"}; "period" daily (default) or weekly; "start_date" default today. MP400';

CREATE FUNCTION meal_planner.on_nutrition_goal_set(e meal_planner.event) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    kind  text := coalesce(e.detail ->> 'period', 'daily');
    start date := e."time"::date;
    at    timestamptz := coalesce((e.detail ->> 'set_at')::timestamptz, e."time");
BEGIN
    IF kind NOT IN ('daily', 'weekly') THEN
        PERFORM meal_planner.refuse('MP400', 'detail.period must be daily or weekly', 'Correct the detail.');
    END IF;
    IF e.detail ->> 'start_date' IS NOT NULL THEN
        start := meal_planner.read_date(e.detail -> 'start_date', 'detail.start_date');
    END IF;
    INSERT INTO meal_planner.nutrition_goal AS g (account, goal_type, period, valid_from, target, set_at)
    SELECT e.account, x.goal_type, kind, start, x.target_value, at
      FROM jsonb_to_recordset(meal_planner.read_goal(e.detail)) AS x (goal_type text, target_value numeric)
    ON CONFLICT ON CONSTRAINT nutrition_goal_pkey DO UPDATE
       SET target = excluded.target, set_at = excluded.set_at
     WHERE g.set_at <= excluded.set_at;
END
$$;
COMMENT ON FUNCTION meal_planner.on_nutrition_goal_set(meal_planner.event) IS
'handler: stores the targets; a later event for the same day wins';

-- The targets of one day: {nutrient code: target}.
CREATE FUNCTION meal_planner.goals_on(account text, day date, period text) RETURNS jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(jsonb_object_agg(g.goal_type, g.target), '{}')
      FROM (SELECT DISTINCT ON (g.goal_type) g.goal_type, g.target
              FROM meal_planner.nutrition_goal g
             WHERE g.account = $1 AND g.period = $3 AND g.valid_from <= $2
             ORDER BY g.goal_type, g.valid_from DESC) g
$$;
COMMENT ON FUNCTION meal_planner.goals_on(text, date, text) IS 'targets in force on a day as {nutrient code: target}';

-- How much a shortfall and an excess of a nutrient weigh; 0: that side is fine.
CREATE FUNCTION meal_planner.goal_weight(nutrient text, OUT under int, OUT "over" int)
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(w.under, 5), coalesce(w."over", 0)
      FROM (SELECT $1) AS asked (nutrient)
      LEFT JOIN (VALUES ('kcal', 10, 12), ('protein', 12, 6), ('fat', 6, 10), ('carbs', 8, 8),
                        ('sodium', 0, 6), ('saturated_fat', 0, 6), ('sugar', 0, 6), ('trans_fat', 0, 6),
                        ('cholesterol', 0, 6), ('alcohol', 0, 6), ('caffeine', 0, 6))
             AS w (nutrient, under, "over") ON w.nutrient = asked.nutrient
$$;
COMMENT ON FUNCTION meal_planner.goal_weight(text) IS
'weights of the objective: energy and macronutrients count on both sides, sodium and the like only when over, all others only when under';
