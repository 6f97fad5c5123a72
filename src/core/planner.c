#include "core/plan_cost.h"

#include <string.h>

#define FIRST_THRESHOLD INT64_C(4000)

typedef struct Search
{
	const MpPlanProblem *problem;
	MpPlanChoice *choice;		/* candidate -1: still empty */
	int64_t    *day_sum;		/* [day][nutrient] */
	int64_t    *day_cost;
	int64_t		total_sum[MP_PLAN_MAX_NUTRIENTS];
	int64_t		total_cost;
	int64_t		own_cost;		/* what slots cost by themselves, and in pairs */
	int64_t		days_cost;		/* sum of day_cost */
	int64_t		changes;
	uint64_t	random;
} Search;

/* splitmix64: small, fast, and good enough to pick moves */
static uint64_t
next_random(uint64_t *state)
{
	uint64_t	z = (*state += UINT64_C(0x9E3779B97F4A7C15));

	z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
	return z ^ (z >> 31);
}

static int32_t
random_below(uint64_t *state, int32_t limit)
{
	return (int32_t) ((next_random(state) >> 32) * (uint64_t) limit >> 32);
}

static int64_t
cost_among_others(const Search *s, int32_t slot, MpPlanChoice choice)
{
	int64_t		cost = mp_plan_slot_cost(s->problem, slot, choice);

	for (int32_t i = 0; i < s->problem->slot_count; i++)
		if (i != slot && s->choice[i].candidate >= 0)
			cost += mp_plan_pair_cost(s->problem, slot, choice, i, s->choice[i]);
	return cost;
}

static int64_t
search_cost(const Search *s)
{
	return s->own_cost + s->days_cost + s->total_cost;
}

/* The one place that changes the plan; all sums stay exact, so undoing is doing the reverse. */
static void
put(Search *s, int32_t slot, MpPlanChoice choice)
{
	const MpPlanProblem *p = s->problem;
	int32_t		day = p->slots[slot].day;
	int64_t    *sum = s->day_sum + (size_t) day * MP_PLAN_MAX_NUTRIENTS;
	MpPlanChoice old = s->choice[slot];

	s->changes++;
	if (old.candidate >= 0)
		s->own_cost -= cost_among_others(s, slot, old);
	if (choice.candidate >= 0)
		s->own_cost += cost_among_others(s, slot, choice);
	for (int32_t n = 0; n < p->nutrient_count; n++)
	{
		int64_t		change = (choice.candidate >= 0 ? mp_plan_amount(p, choice, n) : 0) -
			(old.candidate >= 0 ? mp_plan_amount(p, old, n) : 0);

		sum[n] += change;
		s->total_sum[n] += change;
	}
	s->choice[slot] = choice;
	s->days_cost -= s->day_cost[day];
	s->day_cost[day] = mp_plan_day_cost(p, day, sum);
	s->days_cost += s->day_cost[day];
	s->total_cost = mp_plan_total_cost(p, s->total_sum);
}

static bool
fits(const MpPlanProblem *p, int32_t slot, int32_t candidate)
{
	return p->candidates[candidate].meals >> p->slots[slot].meal & 1;
}

static void
clear(Search *s)
{
	const MpPlanProblem *p = s->problem;

	memset(s->day_sum, 0, sizeof(int64_t) * (size_t) p->day_count * MP_PLAN_MAX_NUTRIENTS);
	memset(s->total_sum, 0, sizeof(s->total_sum));
	s->own_cost = 0;
	s->days_cost = 0;
	for (int32_t d = 0; d < p->day_count; d++)
	{
		s->day_cost[d] = mp_plan_day_cost(p, d, s->day_sum);
		s->days_cost += s->day_cost[d];
	}
	s->total_cost = mp_plan_total_cost(p, s->total_sum);
	for (int32_t i = 0; i < p->slot_count; i++)
		s->choice[i].candidate = -1;
	for (int32_t i = 0; i < p->slot_count; i++)
		if (p->slots[i].locked >= 0)
			put(s, i, (MpPlanChoice) {p->slots[i].locked, p->slots[i].locked_portion});
}

static void
fill_slot(Search *s, int32_t slot, int32_t jitter)
{
	const MpPlanProblem *p = s->problem;
	MpPlanChoice best = {-1, 0};
	int64_t		best_cost = 0;

	if (p->check)
		p->check();
	for (int32_t c = 0; c < p->candidate_count; c++)
	{
		int64_t		noise;

		if (!fits(p, slot, c))
			continue;
		noise = jitter > 0 ? random_below(&s->random, jitter) : 0;
		for (int32_t portion = p->portion_min; portion <= p->portion_max; portion += p->portion_step)
		{
			MpPlanChoice choice = {c, portion};
			int64_t		cost = noise + mp_plan_share_cost(p, slot, choice) +
				cost_among_others(s, slot, choice);

			if (best.candidate < 0 || cost < best_cost)
			{
				best = choice;
				best_cost = cost;
			}
		}
	}
	put(s, slot, best);
}

static int32_t
random_portion(Search *s)
{
	const MpPlanProblem *p = s->problem;
	int32_t		steps = (p->portion_max - p->portion_min) / p->portion_step + 1;

	return p->portion_min + p->portion_step * random_below(&s->random, steps);
}

/*
 * Threshold accepting: like annealing, but a worse plan is accepted when it is worse
 * by less than a threshold that shrinks to zero; no exponential, so no rounding that
 * differs between machines.
 */
static void
roam(Search *s, const int32_t *order, int32_t order_count, const int32_t *pool,
	 const int32_t *pool_start, MpPlanChoice *best, int64_t *best_cost)
{
	const MpPlanProblem *p = s->problem;
	int64_t		before = search_cost(s);

	for (int32_t i = 0; i < p->iterations; i++)
	{
		int64_t		left = p->iterations - i;
		int64_t		threshold = FIRST_THRESHOLD * left / p->iterations * left / p->iterations;
		int32_t		a = order[random_below(&s->random, order_count)];
		int32_t		b = a;
		MpPlanChoice old_a = s->choice[a];
		MpPlanChoice old_b = old_a;
		int64_t		after;

		if (p->check && i % 256 == 0)
			p->check();
		switch (random_below(&s->random, 4))
		{
			case 0:
			case 1:
				{
					int32_t		meal = p->slots[a].meal;
					int32_t		at = pool_start[meal] +
						random_below(&s->random, pool_start[meal + 1] - pool_start[meal]);

					put(s, a, (MpPlanChoice) {pool[at], random_portion(s)});
					break;
				}
			case 2:
				put(s, a, (MpPlanChoice) {old_a.candidate, random_portion(s)});
				break;
			default:
				b = order[random_below(&s->random, order_count)];
				old_b = s->choice[b];
				if (a == b || !fits(p, a, old_b.candidate) || !fits(p, b, old_a.candidate))
					continue;
				put(s, a, old_b);
				put(s, b, old_a);
				break;
		}
		after = search_cost(s);
		if (after - before > threshold)
		{
			if (b != a)
				put(s, b, old_b);
			put(s, a, old_a);
			continue;
		}
		before = after;
		if (after < *best_cost)
		{
			*best_cost = after;
			memcpy(best, s->choice, sizeof(*best) * (size_t) p->slot_count);
		}
	}
}

/* The best choice for this slot while all others stay; true when it changed. */
static bool
improve_slot(Search *s, int32_t slot)
{
	const MpPlanProblem *p = s->problem;
	MpPlanChoice best = s->choice[slot];
	MpPlanChoice start = best;
	int64_t		best_cost = search_cost(s);

	for (int32_t c = 0; c < p->candidate_count; c++)
	{
		if (!fits(p, slot, c))
			continue;
		for (int32_t portion = p->portion_min; portion <= p->portion_max; portion += p->portion_step)
		{
			put(s, slot, (MpPlanChoice) {c, portion});
			if (search_cost(s) < best_cost)
			{
				best = s->choice[slot];
				best_cost = search_cost(s);
			}
		}
	}
	put(s, slot, best);
	return best.candidate != start.candidate || best.portion != start.portion;
}

static bool
improve_by_swap(Search *s, int32_t a, int32_t b)
{
	MpPlanChoice x = s->choice[a];
	MpPlanChoice y = s->choice[b];
	int64_t		before = search_cost(s);

	if (!fits(s->problem, a, y.candidate) || !fits(s->problem, b, x.candidate))
		return false;
	put(s, a, y);
	put(s, b, x);
	if (search_cost(s) < before)
		return true;
	put(s, b, y);
	put(s, a, x);
	return false;
}

static void
descend(Search *s, const int32_t *order, int32_t order_count)
{
	bool		improved = true;

	while (improved)
	{
		improved = false;
		for (int32_t i = 0; i < order_count && s->changes < s->problem->budget; i++)
		{
			if (s->problem->check)
				s->problem->check();
			improved |= improve_slot(s, order[i]);
			for (int32_t j = 0; j < i; j++)
				improved |= improve_by_swap(s, order[i], order[j]);
		}
	}
}

static bool
valid_slot(const MpPlanProblem *p, const MpPlanSlot *slot)
{
	if (slot->day < 0 || slot->day >= p->day_count || slot->meal < 0 ||
		slot->meal >= MP_PLAN_MAX_MEALS || slot->share < 0 || slot->share > 1000)
		return false;
	if (slot->locked < 0)
		return slot->locked == -1;
	return slot->locked < p->candidate_count && slot->locked_portion > 0 &&
		slot->locked_portion <= 100 * MP_PLAN_ONE_PORTION;
}

static bool
valid_problem(const MpPlanProblem *p)
{
	if (p->candidate_count < 0 || p->slot_count < 0 || p->nutrient_count < 0 ||
		p->nutrient_count > MP_PLAN_MAX_NUTRIENTS || p->day_count < 1 ||
		p->day_count > MP_PLAN_MAX_DAYS || p->tolerance < 0 || p->cooldown < 0 ||
		p->portion_min < 1 || p->portion_max < p->portion_min ||
		p->portion_max > 100 * MP_PLAN_ONE_PORTION || p->portion_step < 1 ||
		p->restarts < 1 || p->restarts > 255 || p->iterations < 0)
		return false;
	for (int32_t d = 0; p->day_share != NULL && d < p->day_count; d++)
		if (p->day_share[d] < 0 || p->day_share[d] > 1000)
			return false;
	for (int32_t n = 0; n < p->nutrient_count; n++)
		if (p->goals[n].daily < 0 || p->goals[n].daily > MP_PLAN_MAX_AMOUNT ||
			p->goals[n].total < 0 || p->goals[n].total > MP_PLAN_MAX_AMOUNT ||
			p->goals[n].under < 0 || p->goals[n].under > 100 ||
			p->goals[n].over < 0 || p->goals[n].over > 100)
			return false;
	for (int32_t c = 0; c < p->candidate_count; c++)
		for (int32_t n = 0; n < p->nutrient_count; n++)
			if (p->candidates[c].nutrient[n] < 0 ||
				p->candidates[c].nutrient[n] > MP_PLAN_MAX_AMOUNT)
				return false;
	for (int32_t i = 0; i < p->slot_count; i++)
		if (!valid_slot(p, &p->slots[i]))
			return false;
	return true;
}

/* The candidates of every meal one after the other; pool_start[meal + 1] ends a meal's. */
static int32_t *
make_pools(const MpPlanProblem *p, MpArena *arena, int32_t *pool_start)
{
	int32_t		count = 0;
	int32_t    *pool;

	for (int32_t meal = 0; meal < MP_PLAN_MAX_MEALS; meal++)
		for (int32_t c = 0; c < p->candidate_count; c++)
			if (p->candidates[c].meals >> meal & 1)
				count++;
	pool = arena->alloc(arena->context, sizeof(int32_t) * ((size_t) count + 1));
	count = 0;
	for (int32_t meal = 0; meal < MP_PLAN_MAX_MEALS; meal++)
	{
		pool_start[meal] = count;
		for (int32_t c = 0; c < p->candidate_count; c++)
			if (p->candidates[c].meals >> meal & 1)
				pool[count++] = c;
	}
	pool_start[MP_PLAN_MAX_MEALS] = count;
	return pool;
}

/* Most constrained slot first: the one with fewest candidates, then the earliest. */
static int32_t
order_slots(const MpPlanProblem *p, const int32_t *pool_start, int32_t *order)
{
	int32_t		count = 0;

	for (int32_t i = 0; i < p->slot_count; i++)
	{
		int32_t		meal = p->slots[i].meal;
		int32_t		choices = pool_start[meal + 1] - pool_start[meal];
		int32_t		at = count;

		if (p->slots[i].locked >= 0)
			continue;
		while (at > 0)
		{
			int32_t		other = p->slots[order[at - 1]].meal;

			if (pool_start[other + 1] - pool_start[other] <= choices)
				break;
			order[at] = order[at - 1];
			at--;
		}
		order[at] = i;
		count++;
	}
	return count;
}

MpPlanStatus
mp_plan_search(const MpPlanProblem *p, MpArena *arena, MpPlanChoice *choices,
			   int64_t *cost, int32_t *failed_slot)
{
	Search		s = {.problem = p};
	int32_t		pool_start[MP_PLAN_MAX_MEALS + 1];
	int32_t    *pool;
	int32_t    *order;
	int32_t		order_count;
	MpPlanChoice *best;
	size_t		slots = (size_t) p->slot_count + 1;

	*cost = 0;
	*failed_slot = -1;
	if (!valid_problem(p))
		return MP_PLAN_INVALID;
	s.choice = arena->alloc(arena->context, sizeof(MpPlanChoice) * slots);
	best = arena->alloc(arena->context, sizeof(MpPlanChoice) * slots);
	order = arena->alloc(arena->context, sizeof(int32_t) * slots);
	s.day_sum = arena->alloc(arena->context,
							 sizeof(int64_t) * (size_t) p->day_count * MP_PLAN_MAX_NUTRIENTS);
	s.day_cost = arena->alloc(arena->context, sizeof(int64_t) * (size_t) p->day_count);
	pool = make_pools(p, arena, pool_start);
	order_count = order_slots(p, pool_start, order);
	for (int32_t i = 0; i < order_count; i++)
	{
		int32_t		meal = p->slots[order[i]].meal;

		if (pool_start[meal + 1] == pool_start[meal])
		{
			*failed_slot = order[i];
			return MP_PLAN_NO_CANDIDATE;
		}
	}

	for (int32_t restart = 0; restart < p->restarts; restart++)
	{
		int64_t		found;

		s.random = p->seed ^ ((uint64_t) restart << 56);
		clear(&s);
		for (int32_t i = 0; i < order_count; i++)
			fill_slot(&s, order[i], 200 + 800 * restart);
		found = search_cost(&s);
		memcpy(best, s.choice, sizeof(*best) * (size_t) p->slot_count);
		if (order_count > 0)
			roam(&s, order, order_count, pool, pool_start, best, &found);
		for (int32_t i = 0; i < p->slot_count; i++)
			put(&s, i, best[i]);
		descend(&s, order, order_count);
		found = search_cost(&s);
		if (restart == 0 || found < *cost)
		{
			*cost = found;
			memcpy(choices, s.choice, sizeof(*choices) * (size_t) p->slot_count);
		}
	}
	return MP_PLAN_OK;
}
