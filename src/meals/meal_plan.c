/*
 * The planner's search, as SQL sees it: arrays in, one array out.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/memutils.h"

#include "core/planner.h"

PG_FUNCTION_INFO_V1(mp_plan_search_sql);

/*
 * Of each restart; with the refinement after it a week of 21 meals takes about
 * a fifth of a second, and more of it no longer makes better weeks.
 */
#define RESTARTS 3
#define ITERATIONS 30000
#define BUDGET INT64_C(2000000)

typedef struct IntArray
{
	int			count;
	const int64 *value;
} IntArray;

static void *
context_alloc(void *context, size_t size)
{
	return MemoryContextAlloc((MemoryContext) context, size);
}

static void
check_interrupts(void)
{
	CHECK_FOR_INTERRUPTS();
}

/* Without nulls the data of a bigint array is an array of int64, aligned as one. */
static IntArray
get_array(FunctionCallInfo fcinfo, int argument)
{
	ArrayType  *array = PG_ARGISNULL(argument) ? NULL : PG_GETARG_ARRAYTYPE_P(argument);
	size_t		offset;

	if (array == NULL || array_contains_nulls(array))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("argument %d must not be or contain null", argument + 1)));
	Assert(ARR_ELEMTYPE(array) == INT8OID);
	/* ARR_DATA_PTR, without its mix of signed and unsigned */
	offset = ARR_HASNULL(array) ? (size_t) array->dataoffset : ARR_OVERHEAD_NONULLS(ARR_NDIM(array));
	return (IntArray) {ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array)),
		(const int64 *) ((const char *) array + offset)};
}

/* An array that must have as many elements as another one. */
static const int64 *
get_array_of(FunctionCallInfo fcinfo, int argument, int count)
{
	IntArray	array = get_array(fcinfo, argument);

	if (array.count != count)
		ereport(ERROR, (errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
						errmsg("argument %d must have %d elements", argument + 1, count)));
	return array.value;
}

static MpPlanCandidate *
get_candidates(FunctionCallInfo fcinfo, int nutrient_count, int *count)
{
	IntArray	meals = get_array(fcinfo, 1);
	const int64 *nutrients = get_array_of(fcinfo, 0, meals.count * nutrient_count);
	const int64 *blocked = get_array_of(fcinfo, 2, meals.count);
	const int64 *kin = get_array_of(fcinfo, 3, meals.count);
	MpPlanCandidate *candidates = palloc0(sizeof(MpPlanCandidate) * (size_t) Max(meals.count, 1));

	for (int c = 0; c < meals.count; c++)
	{
		for (int n = 0; n < nutrient_count; n++)
			candidates[c].nutrient[n] = nutrients[c * nutrient_count + n];
		candidates[c].meals = (uint32) meals.value[c];
		candidates[c].blocked = (uint32) blocked[c];
		candidates[c].kin = (int32) kin[c];
	}
	*count = meals.count;
	return candidates;
}

static MpPlanSlot *
get_slots(FunctionCallInfo fcinfo, int *count)
{
	IntArray	days = get_array(fcinfo, 4);
	const int64 *meal = get_array_of(fcinfo, 5, days.count);
	const int64 *share = get_array_of(fcinfo, 6, days.count);
	const int64 *locked = get_array_of(fcinfo, 7, days.count);
	const int64 *portion = get_array_of(fcinfo, 8, days.count);
	MpPlanSlot *slots = palloc(sizeof(MpPlanSlot) * (size_t) Max(days.count, 1));

	for (int i = 0; i < days.count; i++)
		slots[i] = (MpPlanSlot) {(int32) days.value[i], (int32) meal[i], (int32) share[i],
			(int32) locked[i], (int32) portion[i]};
	*count = days.count;
	return slots;
}

/*
 * plan_search(nutrients, meals, blocked, kin: of the candidates;
 *             slot_day, slot_meal, slot_share, slot_locked, slot_portion;
 *             daily, total, under, over: of the goals; day_share  -- all bigint[]
 *             tolerance int, cooldown int, seed bigint) returns int[]
 *
 * The result has two elements for every slot: index of the candidate from 0 and
 * portion in thousandths.
 */
Datum
mp_plan_search_sql(PG_FUNCTION_ARGS)
{
	MpArena		arena = {context_alloc, CurrentMemoryContext};
	MpPlanProblem problem = {0};
	IntArray	daily = get_array(fcinfo, 9);
	const int64 *total = get_array_of(fcinfo, 10, daily.count);
	const int64 *under = get_array_of(fcinfo, 11, daily.count);
	const int64 *over = get_array_of(fcinfo, 12, daily.count);
	IntArray	day_share = get_array(fcinfo, 13);
	MpPlanGoal	goals[MP_PLAN_MAX_NUTRIENTS];
	int32		shares[MP_PLAN_MAX_DAYS];
	MpPlanChoice *choices;
	Datum	   *elements;
	int64_t		cost;
	int32_t		failed_slot;

	if (daily.count > MP_PLAN_MAX_NUTRIENTS || day_share.count > MP_PLAN_MAX_DAYS ||
		PG_ARGISNULL(14) || PG_ARGISNULL(15) || PG_ARGISNULL(16))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("at most %d goals and %d days can be planned",
							   MP_PLAN_MAX_NUTRIENTS, MP_PLAN_MAX_DAYS)));
	for (int n = 0; n < daily.count; n++)
		goals[n] = (MpPlanGoal) {daily.value[n], total[n], (int32) under[n], (int32) over[n]};
	for (int d = 0; d < day_share.count; d++)
		shares[d] = (int32) day_share.value[d];

	problem.goals = goals;
	problem.nutrient_count = daily.count;
	problem.candidates = get_candidates(fcinfo, daily.count, &problem.candidate_count);
	problem.slots = get_slots(fcinfo, &problem.slot_count);
	problem.day_share = shares;
	problem.day_count = day_share.count;
	problem.tolerance = PG_GETARG_INT32(14);
	problem.cooldown = PG_GETARG_INT32(15);
	problem.seed = (uint64) PG_GETARG_INT64(16);
	problem.portion_min = MP_PLAN_ONE_PORTION / 2;
	problem.portion_max = MP_PLAN_ONE_PORTION * 2;
	problem.portion_step = MP_PLAN_ONE_PORTION / 4;
	problem.restarts = RESTARTS;
	problem.iterations = ITERATIONS;
	problem.budget = BUDGET;
	problem.check = check_interrupts;

	choices = palloc(sizeof(MpPlanChoice) * (size_t) Max(problem.slot_count, 1));
	switch (mp_plan_search(&problem, &arena, choices, &cost, &failed_slot))
	{
		case MP_PLAN_OK:
			break;
		case MP_PLAN_INVALID:
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("the planning problem has a number out of range")));
			break;
		case MP_PLAN_NO_CANDIDATE:
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("no candidate for slot %d", (int) failed_slot)));
			break;
	}

	elements = palloc(sizeof(Datum) * 2 * (size_t) Max(problem.slot_count, 1));
	for (int i = 0; i < problem.slot_count; i++)
	{
		size_t		at = 2 * (size_t) i;

		elements[at] = Int32GetDatum(choices[i].candidate);
		elements[at + 1] = Int32GetDatum(choices[i].portion);
	}
	PG_RETURN_ARRAYTYPE_P(construct_array(elements, 2 * problem.slot_count, INT4OID,
										  sizeof(int32), true, TYPALIGN_INT));
}
