-- Nutrition goals: accepted forms, intervals, errors.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS meal_planner;
\set VERBOSITY terse

SELECT mp_set_nutrition_goal('{"kcal": 2200, "protein": 130, "fat": 75.5, "carbs": 240, "start_date": "2026-11-01"}', 'goals');
SELECT mp_set_nutrition_goal('{"goal_type": "calories", "target_value": 2000, "period": "daily", "start_date": "2026-12-01"}', 'goals');
SELECT mp_set_nutrition_goal('{"goals": [{"goal_type": "fiber", "target_value": 210}], "period": "weekly", "start_date": "2026-11-01"}', 'goals');
SELECT detail - 'set_at' AS detail FROM meal_planner.event WHERE account = 'goals' ORDER BY position;
SELECT goal_type, period, valid_from, target FROM meal_planner.nutrition_goal WHERE account = 'goals' ORDER BY 1, 2, 3;

-- a goal holds until the next one of its kind begins
SELECT day, meal_planner.goals_on('goals', day, 'daily') AS daily, meal_planner.goals_on('goals', day, 'weekly') AS weekly
  FROM unnest(ARRAY['2026-10-31', '2026-11-30', '2026-12-01']::date[]) AS day;

-- events that arrive out of order end in the same goals
SELECT mp_emit_event('NutritionGoalSet', jsonb_build_object('goal_type', 'protein', 'target_value', g, 'period', 'daily',
                                                            'start_date', '2027-01-01', 'set_at', at), account => 'goals')
  FROM (VALUES (150, '2026-11-20T10:00:00Z'), (140, '2026-11-20T09:00:00Z')) AS e (g, at) \g /dev/null
SELECT target FROM meal_planner.nutrition_goal WHERE account = 'goals' AND goal_type = 'protein' AND valid_from = '2027-01-01';

SELECT mp_set_nutrition_goal('[]', 'goals');
SELECT mp_set_nutrition_goal('{}', 'goals');
SELECT mp_set_nutrition_goal('{"happiness": 10}', 'goals');
SELECT mp_set_nutrition_goal('{"kcal": 0}', 'goals');
SELECT mp_set_nutrition_goal('{"kcal": "2000"}', 'goals');
SELECT mp_set_nutrition_goal('{"goal_type": "calories"}', 'goals');
SELECT mp_set_nutrition_goal('{"kcal": 2000, "period": "monthly"}', 'goals');
SELECT mp_set_nutrition_goal('{"kcal": 2000, "start_date": "2026-02-30"}', 'goals');
SELECT mp_set_nutrition_goal('{"kcal": 2000, "start_date": "tomorrow"}', 'goals');
SELECT mp_emit_event('NutritionGoalSet', '{"goal_type": "kcal", "target_value": -1}', account => 'goals') \g /dev/null
SELECT subscription, error_type, sqlstate, error_message FROM mp_dlq WHERE account = 'goals';
