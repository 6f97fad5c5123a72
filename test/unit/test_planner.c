/* The search for a meal plan: guarantees, determinism, and how good its plans are. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "core/planner.h"

#define MAX_SLOTS 128

typedef struct Block
{
	struct Block *next;
	max_align_t data[];
} Block;

static void *
block_alloc(void *context, size_t size)
{
	Block	  **list = context;
	Block	   *block = malloc(sizeof(Block) + size);

	if (block == NULL)
		abort();
	memset(block->data, 0xA5, size);
	block->next = *list;
	*list = block;
	return block->data;
}

typedef struct Found
{
	MpPlanStatus status;
	int64_t		cost;
	int32_t		failed_slot;
	MpPlanChoice choice[MAX_SLOTS];
} Found;

static Found
search(const MpPlanProblem *problem)
{
	Block	   *blocks = NULL;
	MpArena		arena = {block_alloc, &blocks};
	Found		found = {0};

	found.status = mp_plan_search(problem, &arena, found.choice, &found.cost, &found.failed_slot);
	while (blocks != NULL)
	{
		Block	   *next = blocks->next;

		free(blocks);
		blocks = next;
	}
	return found;
}

/* 2200 kcal, 130 g protein, 75 g fat, 240 g carbohydrate */
static const MpPlanGoal four_goals[] = {
	{2200000, 0, 10, 12},
	{130000, 0, 12, 6},
	{75000, 0, 6, 10},
	{240000, 0, 8, 8},
};

#define DISHES 45
static MpPlanCandidate dishes[DISHES];
static MpPlanSlot week[28];

static uint32_t
noise(uint32_t *state)
{
	return (*state = *state * 1664525u + 1013904223u) >> 16;
}

/* 45 plausible dishes: 13 breakfasts, 16 lunches, 16 dinners, some for both */
static void
make_dishes(uint32_t seed)
{
	memset(dishes, 0, sizeof(dishes));
	for (int i = 0; i < DISHES; i++)
	{
		int64_t		protein = 8 + (int64_t) (noise(&seed) % 38);
		int64_t		fat = 5 + (int64_t) (noise(&seed) % 30);
		int64_t		carbs = 20 + (int64_t) (noise(&seed) % 75);

		dishes[i].nutrient[0] = 1000 * (4 * protein + 9 * fat + 4 * carbs);
		dishes[i].nutrient[1] = 1000 * protein;
		dishes[i].nutrient[2] = 1000 * fat;
		dishes[i].nutrient[3] = 1000 * carbs;
		dishes[i].meals = i < 13 ? 1u : i < 29 ? 2u : 4u;
		if (i >= 13 && i % 3 == 0)
			dishes[i].meals |= 6u;
		dishes[i].kin = i % 8;
	}
}

static MpPlanProblem
make_week(void)
{
	static const int32_t share[] = {250, 350, 400};

	for (int i = 0; i < 21; i++)
		week[i] = (MpPlanSlot) {i / 3, i % 3, share[i % 3], -1, 0};
	return (MpPlanProblem) {
		.candidates = dishes, .candidate_count = DISHES,
		.slots = week, .slot_count = 21,
		.goals = four_goals, .nutrient_count = 4,
		.day_count = 7, .tolerance = 100, .cooldown = 7,
		.portion_min = 500, .portion_max = 2000, .portion_step = 250,
		.seed = 1, .restarts = 3, .iterations = 20000, .budget = 1000000,
	};
}

static int64_t
day_amount(const MpPlanProblem *p, const Found *found, int32_t day, int32_t nutrient)
{
	int64_t		sum = 0;

	for (int32_t i = 0; i < p->slot_count; i++)
		if (p->slots[i].day == day)
			sum += p->candidates[found->choice[i].candidate].nutrient[nutrient] *
				found->choice[i].portion / 1000;
	return sum;
}

static void
assert_within_tolerance(const MpPlanProblem *p, const Found *found)
{
	for (int32_t d = 0; d < p->day_count; d++)
		for (int32_t n = 0; n < p->nutrient_count; n++)
		{
			int64_t		amount = day_amount(p, found, d, n);
			int64_t		goal = p->goals[n].daily;

			if (llabs(amount - goal) * 1000 > (p->tolerance + 1) * goal)
				fail_msg("seed %u, day %d, nutrient %d: %lld for a goal of %lld",
						 (unsigned) p->seed, d, n, (long long) amount, (long long) goal);
		}
}

static void
assert_sound(const MpPlanProblem *p, const Found *found)
{
	assert_int_equal(found->status, MP_PLAN_OK);
	assert_true(found->cost == mp_plan_cost(p, found->choice));
	for (int32_t i = 0; i < p->slot_count; i++)
	{
		MpPlanChoice c = found->choice[i];

		if (p->slots[i].locked >= 0)
		{
			assert_int_equal(c.candidate, p->slots[i].locked);
			assert_int_equal(c.portion, p->slots[i].locked_portion);
			continue;
		}
		assert_in_range(c.candidate, 0, p->candidate_count - 1);
		assert_true(p->candidates[c.candidate].meals >> p->slots[i].meal & 1);
		assert_in_range(c.portion, p->portion_min, p->portion_max);
		assert_int_equal((c.portion - p->portion_min) % p->portion_step, 0);
	}
}

static int
pairs_of_same(const MpPlanProblem *p, const Found *found, int within_days)
{
	int			pairs = 0;

	for (int32_t i = 0; i < p->slot_count; i++)
		for (int32_t j = 0; j < i; j++)
			if (found->choice[i].candidate == found->choice[j].candidate &&
				abs(p->slots[i].day - p->slots[j].day) < within_days)
				pairs++;
	return pairs;
}

static void
test_week_meets_goals(void **state)
{
	(void) state;
	for (uint32_t seed = 1; seed <= 12; seed++)
	{
		MpPlanProblem p = make_week();
		Found		found;

		make_dishes(seed);
		p.seed = seed;
		found = search(&p);
		assert_sound(&p, &found);
		assert_within_tolerance(&p, &found);
		assert_int_equal(pairs_of_same(&p, &found, 7), 0);
	}
}

static void
test_same_seed_same_plan(void **state)
{
	MpPlanProblem p = make_week();
	Found		first;
	Found		again;
	Found		other;

	(void) state;
	make_dishes(5);
	first = search(&p);
	again = search(&p);
	assert_memory_equal(first.choice, again.choice, sizeof(first.choice));
	p.seed = 2;
	other = search(&p);
	assert_memory_not_equal(first.choice, other.choice, sizeof(first.choice));
}

static void
test_locked_is_kept(void **state)
{
	MpPlanProblem p = make_week();
	Found		found;

	(void) state;
	make_dishes(3);
	week[2].locked = 40;
	week[2].locked_portion = 1100;	/* not on the grid of portions */
	week[10].locked = 0;		/* a breakfast at lunch: asked for, so kept */
	week[10].locked_portion = 1000;
	found = search(&p);
	assert_sound(&p, &found);
	/* the locked dishes appear nowhere else */
	assert_int_equal(pairs_of_same(&p, &found, 7), 0);
	assert_within_tolerance(&p, &found);
}

static void
test_locked_repeats_are_kept(void **state)
{
	MpPlanProblem p = make_week();
	Found		found;

	(void) state;
	make_dishes(3);
	for (int i = 0; i < 21; i++)
	{
		week[i].locked = 7;
		week[i].locked_portion = 1000;
	}
	found = search(&p);
	assert_sound(&p, &found);
}

static void
test_no_candidate(void **state)
{
	MpPlanProblem p = make_week();
	Found		found;

	(void) state;
	make_dishes(1);
	for (int i = 0; i < DISHES; i++)
		dishes[i].meals &= ~2u;
	found = search(&p);
	assert_int_equal(found.status, MP_PLAN_NO_CANDIDATE);
	assert_int_equal(week[found.failed_slot].meal, 1);
	/* a locked slot needs none */
	for (int i = 1; i < 21; i += 3)
	{
		week[i].locked = 20;
		week[i].locked_portion = 1000;
	}
	found = search(&p);
	assert_sound(&p, &found);
}

/* Two dinners for seven days: they alternate, and never stand twice on one day. */
static void
test_small_pool_is_spread(void **state)
{
	MpPlanProblem p = make_week();
	Found		found;

	(void) state;
	make_dishes(2);
	for (int i = 0; i < DISHES; i++)
		dishes[i].meals = i < 13 ? 1u : i < 15 ? 6u : 0u;
	found = search(&p);
	assert_sound(&p, &found);
	assert_int_equal(pairs_of_same(&p, &found, 1), 0);
}

/* A dish blocked by an earlier plan is left alone while there are others. */
static void
test_blocked_days(void **state)
{
	MpPlanProblem p = make_week();
	Found		found;

	(void) state;
	make_dishes(4);
	for (int i = 0; i < DISHES; i += 2)
		dishes[i].blocked = 0x0F;	/* the first four days */
	p.slot_count = 12;
	p.day_count = 4;
	found = search(&p);
	assert_sound(&p, &found);
	for (int i = 0; i < 12; i++)
		assert_int_equal(found.choice[i].candidate % 2, 1);
}

/* Against every possible plan of a small problem. */
static void
test_optimum_of_small_problem(void **state)
{
	(void) state;
	for (uint32_t seed = 1; seed <= 8; seed++)
	{
		MpPlanProblem p = make_week();
		MpPlanChoice all[5 * 7];
		MpPlanChoice plan[3];
		int64_t		best = INT64_MAX;
		Found		found;

		make_dishes(seed);
		p.candidate_count = 5;
		p.slot_count = 3;
		p.day_count = 2;
		week[2].day = 1;
		for (int i = 0; i < 5; i++)
			dishes[i].meals = 7u;
		for (int i = 0; i < 35; i++)
			all[i] = (MpPlanChoice) {i / 7, 500 + 250 * (i % 7)};
		for (int a = 0; a < 35; a++)
			for (int b = 0; b < 35; b++)
				for (int c = 0; c < 35; c++)
				{
					int64_t		cost;

					plan[0] = all[a];
					plan[1] = all[b];
					plan[2] = all[c];
					cost = mp_plan_cost(&p, plan);
					if (cost < best)
						best = cost;
				}
		found = search(&p);
		assert_sound(&p, &found);
		assert_true(found.cost == best);
	}
}

static void
test_invalid(void **state)
{
	MpPlanProblem p = make_week();

	(void) state;
	make_dishes(1);
	week[0].day = 7;
	assert_int_equal(search(&p).status, MP_PLAN_INVALID);
	p = make_week();
	week[3].locked = DISHES;
	week[3].locked_portion = 1000;
	assert_int_equal(search(&p).status, MP_PLAN_INVALID);
	p = make_week();
	p.portion_step = 0;
	assert_int_equal(search(&p).status, MP_PLAN_INVALID);
	p = make_week();
	dishes[0].nutrient[0] = -1;
	assert_int_equal(search(&p).status, MP_PLAN_INVALID);
	make_dishes(1);
	p = make_week();
	p.day_count = 32;
	assert_int_equal(search(&p).status, MP_PLAN_INVALID);
}

static void
test_nothing_to_plan(void **state)
{
	MpPlanProblem p = make_week();

	(void) state;
	p.slot_count = 0;
	assert_int_equal(search(&p).status, MP_PLAN_OK);
	p.candidate_count = 0;
	assert_int_equal(search(&p).status, MP_PLAN_OK);
}

static int	checks;

static void
count_check(void)
{
	checks++;
}

static void
test_can_be_interrupted(void **state)
{
	MpPlanProblem p = make_week();

	(void) state;
	make_dishes(1);
	checks = 0;
	p.check = count_check;
	search(&p);
	assert_true(checks > 200);
}

/* A weekly goal steers the sum while single days may differ. */
static void
test_weekly_goal(void **state)
{
	static const MpPlanGoal goals[] = {{2000000, 0, 10, 10}, {0, 910000, 10, 10}};
	MpPlanProblem p = make_week();
	Found		found;
	int64_t		sum = 0;

	(void) state;
	make_dishes(6);
	p.goals = goals;
	p.nutrient_count = 2;
	found = search(&p);
	assert_sound(&p, &found);
	for (int d = 0; d < 7; d++)
		sum += day_amount(&p, &found, d, 1);
	assert_in_range(sum, 819000, 1001000);
}

/* Dinner is eaten out: the other meals of that day do not make up for it. */
static void
test_day_share(void **state)
{
	static const int32_t shares[] = {1000, 600, 1000, 1000, 1000, 1000, 1000};
	MpPlanProblem p = make_week();
	Found		found;

	(void) state;
	make_dishes(7);
	memmove(&week[5], &week[6], sizeof(week[0]) * 15);
	p.slot_count = 20;
	p.day_share = shares;
	found = search(&p);
	assert_sound(&p, &found);
	for (int n = 0; n < 4; n++)
	{
		int64_t		goal = p.goals[n].daily * 6 / 10;

		assert_in_range(day_amount(&p, &found, 1, n), goal * 9 / 10, goal * 11 / 10 + 1);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_week_meets_goals),
		cmocka_unit_test(test_same_seed_same_plan),
		cmocka_unit_test(test_locked_is_kept),
		cmocka_unit_test(test_locked_repeats_are_kept),
		cmocka_unit_test(test_no_candidate),
		cmocka_unit_test(test_small_pool_is_spread),
		cmocka_unit_test(test_blocked_days),
		cmocka_unit_test(test_optimum_of_small_problem),
		cmocka_unit_test(test_invalid),
		cmocka_unit_test(test_nothing_to_plan),
		cmocka_unit_test(test_can_be_interrupted),
		cmocka_unit_test(test_weekly_goal),
		cmocka_unit_test(test_day_share),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
