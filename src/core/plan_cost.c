#include "core/plan_cost.h"

/*
 * The weights of the objective. Only their order of magnitude matters: a recipe twice
 * on one day is worse than any number of repeats inside the cooldown, a repeat is
 * worse than any missed goal, a missed goal (outside the tolerance) is worse than
 * any blemish, and the blemishes shape what is left.
 */
#define COST_SAME_DAY INT64_C(100000000000)
#define COST_COOLDOWN INT64_C(10000000)
#define COST_COOLDOWN_PER_DAY INT64_C(100000)
#define COST_MISSED INT64_C(20000)
#define COST_MISSED_PER_MILLE INT64_C(200)
#define COST_REPEAT INT64_C(2000)
#define COST_KIN_SAME_DAY INT64_C(400)
#define COST_KIN_NEXT_DAY INT64_C(150)
#define COST_PORTION INT64_C(30)	/* of a quarter; quadratic */

#define QUARTER (MP_PLAN_ONE_PORTION / 4)
#define DEVIATION_LIMIT 3000	/* per mille; beyond that everything is equally bad */

static int64_t
per_mille_off(int64_t amount, int64_t goal)
{
	int64_t		off = (amount - goal) * 1000 / goal;

	return off > DEVIATION_LIMIT ? DEVIATION_LIMIT : off < -DEVIATION_LIMIT ? -DEVIATION_LIMIT : off;
}

int64_t
mp_plan_amount(const MpPlanProblem *p, MpPlanChoice choice, int32_t nutrient)
{
	return p->candidates[choice.candidate].nutrient[nutrient] * choice.portion / MP_PLAN_ONE_PORTION;
}

/* Quadratic inside the tolerance; a weight of zero means that this side is fine. */
static int64_t
goal_cost(const MpPlanGoal *goal, int64_t target, int64_t amount, int32_t tolerance)
{
	int64_t		off = per_mille_off(amount, target);
	int64_t		weight = off < 0 ? goal->under : goal->over;
	int64_t		size = off < 0 ? -off : off;
	int64_t		cost = weight * size * size / 100;

	if (weight > 0 && size > tolerance)
		cost += COST_MISSED + COST_MISSED_PER_MILLE * (size - tolerance);
	return cost;
}

/* A goal below a thousandth of its unit is none. */
static int64_t
share_of(int64_t daily, int64_t share)
{
	return daily / 1000 * share;
}

int64_t
mp_plan_day_cost(const MpPlanProblem *p, int32_t day, const int64_t *sum)
{
	int64_t		cost = 0;

	for (int32_t n = 0; n < p->nutrient_count; n++)
	{
		int64_t		target = share_of(p->goals[n].daily, p->day_share ? p->day_share[day] : 1000);

		if (target > 0)
			cost += goal_cost(&p->goals[n], target, sum[n], p->tolerance);
	}
	return cost;
}

int64_t
mp_plan_total_cost(const MpPlanProblem *p, const int64_t *sum)
{
	int64_t		cost = 0;
	int64_t		share = 0;

	for (int32_t d = 0; d < p->day_count; d++)
		share += p->day_share ? p->day_share[d] : 1000;
	for (int32_t n = 0; n < p->nutrient_count; n++)
	{
		const MpPlanGoal *goal = &p->goals[n];
		int64_t		target = share_of(goal->daily, share);

		if (goal->total > 0)
			cost += goal_cost(goal, goal->total, sum[n], p->tolerance) * p->day_count;
		else if (target > 0)
		{
			/* days that err to the same side add up: a nudge towards the middle */
			int64_t		off = per_mille_off(sum[n], target);

			cost += (off < 0 ? goal->under : goal->over) * off * off / 50;
		}
	}
	return cost;
}

int64_t
mp_plan_slot_cost(const MpPlanProblem *p, int32_t slot, MpPlanChoice choice)
{
	const MpPlanSlot *s = &p->slots[slot];
	int64_t		off_one = choice.portion - MP_PLAN_ONE_PORTION;
	int64_t		cost = COST_PORTION * off_one * off_one / QUARTER / QUARTER;

	if (p->candidates[choice.candidate].blocked >> s->day & 1)
		cost += COST_COOLDOWN;
	if (p->nutrient_count > 0)
	{
		int64_t		goal = share_of(p->goals[0].daily, s->share);

		if (goal > 0)
		{
			int64_t		off = per_mille_off(mp_plan_amount(p, choice, 0), goal);

			cost += off * off / 2000;
		}
	}
	return cost;
}

int64_t
mp_plan_pair_cost(const MpPlanProblem *p, int32_t a, MpPlanChoice x, int32_t b, MpPlanChoice y)
{
	int32_t		gap = p->slots[a].day - p->slots[b].day;

	if (gap < 0)
		gap = -gap;
	if (x.candidate == y.candidate)
	{
		if (gap == 0)
			return COST_SAME_DAY;
		return gap < p->cooldown ?
			COST_COOLDOWN + COST_COOLDOWN_PER_DAY * (p->cooldown - gap) : COST_REPEAT;
	}
	if (gap > 1 || p->candidates[x.candidate].kin < 0 ||
		p->candidates[x.candidate].kin != p->candidates[y.candidate].kin)
		return 0;
	if (gap == 0)
		return COST_KIN_SAME_DAY;
	return p->slots[a].meal == p->slots[b].meal ? COST_KIN_NEXT_DAY : 0;
}

/* How well a dish by itself does its part of the day. */
int64_t
mp_plan_share_cost(const MpPlanProblem *p, int32_t slot, MpPlanChoice choice)
{
	int64_t		cost = 0;

	for (int32_t n = 0; n < p->nutrient_count; n++)
	{
		int64_t		goal = share_of(p->goals[n].daily, p->slots[slot].share);

		if (goal > 0)
		{
			int64_t		off = per_mille_off(mp_plan_amount(p, choice, n), goal);

			cost += (off < 0 ? p->goals[n].under : p->goals[n].over) * off * off / 1000;
		}
	}
	return cost;
}

int64_t
mp_plan_cost(const MpPlanProblem *p, const MpPlanChoice *choices)
{
	int64_t		total[MP_PLAN_MAX_NUTRIENTS] = {0};
	int64_t		cost = 0;

	for (int32_t d = 0; d < p->day_count; d++)
	{
		int64_t		sum[MP_PLAN_MAX_NUTRIENTS] = {0};

		for (int32_t i = 0; i < p->slot_count; i++)
			for (int32_t n = 0; p->slots[i].day == d && n < p->nutrient_count; n++)
				sum[n] += mp_plan_amount(p, choices[i], n);
		for (int32_t n = 0; n < p->nutrient_count; n++)
			total[n] += sum[n];
		cost += mp_plan_day_cost(p, d, sum);
	}
	for (int32_t i = 0; i < p->slot_count; i++)
	{
		cost += mp_plan_slot_cost(p, i, choices[i]);
		for (int32_t j = 0; j < i; j++)
			cost += mp_plan_pair_cost(p, i, choices[i], j, choices[j]);
	}
	return cost + mp_plan_total_cost(p, total);
}
