-- The handlers of the domain, subscribed to this extension's own events, and
-- who may call what (privileges.sql takes all rights from PUBLIC afterwards).

SELECT meal_planner.subscribe_builtin('recipe_created',
    '{"source": ["meal-planner"], "detail-type": ["RecipeCreated"]}',
    'meal_planner.on_recipe_created(meal_planner.event)');
SELECT meal_planner.subscribe_builtin('nutrition_calculated',
    '{"source": ["meal-planner"], "detail-type": ["NutritionCalculated"]}',
    'meal_planner.on_nutrition_calculated(meal_planner.event)');
SELECT meal_planner.subscribe_builtin('nutrition_goal_set',
    '{"source": ["meal-planner"], "detail-type": ["NutritionGoalSet"]}',
    'meal_planner.on_nutrition_goal_set(meal_planner.event)');
SELECT meal_planner.subscribe_builtin('meal_plan_generated',
    '{"source": ["meal-planner"], "detail-type": ["MealPlanGenerated"]}',
    'meal_planner.on_meal_plan_generated(meal_planner.event)');
SELECT meal_planner.subscribe_builtin('shopping_list_created',
    '{"source": ["meal-planner"], "detail-type": ["ShoppingListCreated"]}',
    'meal_planner.on_shopping_list_created(meal_planner.event)');

SELECT meal_planner.subscribe_builtin('meal_plan_cancelled',
    '{"source": ["meal-planner"], "detail-type": ["MealPlanCancelled"]}',
    'meal_planner.on_meal_plan_cancelled(meal_planner.event)');

-- Other content under a known id stays wrong however often it is tried; the
-- MP409 of a stream is a race and may be retried.
INSERT INTO meal_planner.error_class (service, code, class, builtin, shipped) VALUES
    ('subscription:recipe_created', 'MP409', 'permanent', true, 'permanent'),
    ('subscription:meal_plan_generated', 'MP409', 'permanent', true, 'permanent'),
    ('subscription:shopping_list_created', 'MP409', 'permanent', true, 'permanent');

-- Reference data is nobody's secret.
GRANT SELECT ON meal_planner.unit, meal_planner.unit_alias, meal_planner.aisle, meal_planner.nutrient,
    meal_planner.food, meal_planner.food_alias, meal_planner.food_measure, meal_planner.food_nutrient TO PUBLIC;

INSERT INTO meal_planner.grant_profile (profile, object)
SELECT 'planner', object
  FROM unnest(ARRAY['mp_create_recipe', 'mp_parse_ingredient', 'mp_recipe_nutrition', 'mp_set_nutrition_goal',
                    'mp_generate_meal_plan', 'mp_meal_plan', 'mp_create_shopping_list', 'mp_shopping_list',
                    'mp_start_saga']) AS object;
