-- The saga the project exists for: a meal plan with its nutrition, its shopping
-- list and a mail.  Input: {"request": as mp_generate_meal_plan takes it, ...};
-- whatever else is in it is for the workers, such as whom to mail.
--
-- The list is the pivot: once it is there the plan is a fact, and the mail is
-- sent however long it takes.  Before that, what fails leaves a cancelled plan,
-- no list, no mail, and one event MealPlanCreationFailed.

CREATE FUNCTION meal_planner.saga_create_plan(step jsonb) RETURNS jsonb
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    plan jsonb := @extschema@.mp_generate_meal_plan(coalesce(step #> '{input,request}', '{}'), step ->> 'account');
BEGIN
    -- Its handler makes the plan of the event.  What failed there would be tried
    -- again one day; the step is not done before it has worked.
    IF NOT EXISTS (SELECT FROM meal_planner.meal_plan p
                    WHERE p.account = step ->> 'account' AND p.id = (plan ->> 'plan_id')::uuid) THEN
        RAISE EXCEPTION 'MPT01: the plan was not stored'
            USING ERRCODE = 'MPT01', HINT = 'retry=yes. The handler of its event failed.';
    END IF;
    RETURN jsonb_build_object('plan_id', plan -> 'plan_id', 'unmet', jsonb_array_length(plan -> 'unmet'));
END
$$;
COMMENT ON FUNCTION meal_planner.saga_create_plan(jsonb) IS 'step create_plan: {plan_id, unmet: how many wishes could not be met}';

CREATE FUNCTION meal_planner.saga_cancel_plan(step jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    target uuid := meal_planner.json_uuid(step #> '{results,create_plan,plan_id}');
BEGIN
    PERFORM @extschema@.mp_emit_event(
        detail_type => 'MealPlanCancelled',
        detail => jsonb_build_object('plan_id', target, 'reason', 'saga', 'saga_id', step -> 'saga_id'),
        account => step ->> 'account',
        stream => 'meal_plan:' || target);
    IF NOT EXISTS (SELECT FROM meal_planner.meal_plan p
                    WHERE p.account = step ->> 'account' AND p.id = target AND p.status = 'cancelled') THEN
        RAISE EXCEPTION 'MPT01: the plan was not cancelled'
            USING ERRCODE = 'MPT01', HINT = 'retry=yes. The handler of its event failed.';
    END IF;
END
$$;
COMMENT ON FUNCTION meal_planner.saga_cancel_plan(jsonb) IS 'undoes create_plan: the plan is cancelled, its events stay';

CREATE FUNCTION meal_planner.on_meal_plan_cancelled(e meal_planner.event) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    target uuid := meal_planner.json_uuid(e.detail -> 'plan_id');
BEGIN
    IF target IS NULL THEN
        PERFORM meal_planner.refuse('MP400', 'detail.plan_id must be a uuid', 'Correct the detail.');
    END IF;
    UPDATE meal_planner.meal_plan p SET status = 'cancelled' WHERE p.account = e.account AND p.id = target;
    IF NOT FOUND THEN
        PERFORM meal_planner.refuse('MP404', format('meal plan %s does not exist', target), 'Check the id and the account.');
    END IF;
END
$$;
COMMENT ON FUNCTION meal_planner.on_meal_plan_cancelled(meal_planner.event) IS 'handler: marks a plan as cancelled; the same again changes nothing';

CREATE FUNCTION meal_planner.saga_create_list(step jsonb) RETURNS jsonb
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    list uuid := @extschema@.mp_create_shopping_list(
        meal_planner.json_uuid(step #> '{results,create_plan,plan_id}'), step ->> 'account');
BEGIN
    IF NOT EXISTS (SELECT FROM meal_planner.shopping_list l WHERE l.account = step ->> 'account' AND l.id = list) THEN
        RAISE EXCEPTION 'MPT01: the list was not stored'
            USING ERRCODE = 'MPT01', HINT = 'retry=yes. The handler of its event failed.';
    END IF;
    RETURN jsonb_build_object('list_id', list);
END
$$;
COMMENT ON FUNCTION meal_planner.saga_create_list(jsonb) IS 'step generate_shopping_list: {list_id}';

SELECT meal_planner.define_builtin_saga('create_meal_plan', '{
    "steps": [
        {"name": "create_plan", "kind": "compensatable", "run": "meal_planner.saga_create_plan(jsonb)", "undo": "meal_planner.saga_cancel_plan(jsonb)"},
        {"name": "calculate_nutrition", "kind": "read_only", "service": "nutrition"},
        {"name": "generate_shopping_list", "kind": "pivot", "run": "meal_planner.saga_create_list(jsonb)"},
        {"name": "send_email", "kind": "retriable", "service": "email"}],
    "on_completed": {"emit": "MealPlanCreated"},
    "on_compensated": {"emit": "MealPlanCreationFailed"}}');

-- The same with the mail beside the list: sooner, but when the list fails and
-- the mail has begun, a correction follows.
SELECT meal_planner.define_builtin_saga('create_meal_plan_parallel', '{
    "steps": [
        {"name": "create_plan", "kind": "compensatable", "run": "meal_planner.saga_create_plan(jsonb)", "undo": "meal_planner.saga_cancel_plan(jsonb)"},
        {"name": "calculate_nutrition", "kind": "read_only", "service": "nutrition"},
        {"name": "generate_shopping_list", "kind": "pivot", "run": "meal_planner.saga_create_list(jsonb)"},
        {"name": "send_email", "kind": "retriable", "service": "email", "undo_service": "email", "after": ["calculate_nutrition"]}],
    "on_completed": {"emit": "MealPlanCreated"},
    "on_compensated": {"emit": "MealPlanCreationFailed"}}');
