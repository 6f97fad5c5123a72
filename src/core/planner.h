/*
 * The search for a meal plan: which recipe in which slot, in which portion, so that
 * every day comes close to its goals and the week stays varied.
 *
 * Everything is integer arithmetic with a seeded generator and no clock: the same
 * problem gives the same plan on every machine, which a replay relies on.
 */
#ifndef MP_PLANNER_H
#define MP_PLANNER_H

#include <stdbool.h>
#include <stdint.h>

#include "core/arena.h"

#define MP_PLAN_MAX_NUTRIENTS 16
#define MP_PLAN_MAX_DAYS 31
#define MP_PLAN_MAX_MEALS 31
#define MP_PLAN_ONE_PORTION 1000

/* The largest amount of a nutrient a candidate or a goal may have, in thousandths. */
#define MP_PLAN_MAX_AMOUNT INT64_C(10000000000)

/* Nutrient 0 is energy: the share of a meal in its day is measured by it. */
typedef struct MpPlanGoal
{
	int64_t		daily;			/* thousandths per day; 0: none */
	int64_t		total;			/* thousandths over the whole plan; 0: none */
	int32_t		under;			/* how much a shortfall weighs, 0 to 100 */
	int32_t		over;			/* how much an excess weighs, 0 to 100 */
} MpPlanGoal;

typedef struct MpPlanCandidate
{
	int64_t		nutrient[MP_PLAN_MAX_NUTRIENTS];	/* thousandths per serving */
	uint32_t	meals;			/* bit m: fits meal m */
	uint32_t	blocked;		/* bit d: too close on day d to a use outside this plan */
	int32_t		kin;			/* recipes alike have the same number; negative: like none */
} MpPlanCandidate;

typedef struct MpPlanSlot
{
	int32_t		day;
	int32_t		meal;
	int32_t		share;			/* part of the day's energy in thousandths */
	int32_t		locked;			/* index of the candidate that must stay, or -1 */
	int32_t		locked_portion;
} MpPlanSlot;

typedef struct MpPlanProblem
{
	const MpPlanCandidate *candidates;
	int32_t		candidate_count;
	const MpPlanSlot *slots;
	int32_t		slot_count;
	const MpPlanGoal *goals;
	int32_t		nutrient_count;
	const int32_t *day_share;	/* thousandths of the daily goals that the slots of a day are to
								 * meet (fewer when a meal is eaten out); NULL: all of them */
	int32_t		day_count;
	int32_t		tolerance;		/* thousandths of the goal */
	int32_t		cooldown;		/* days between two uses of one recipe */
	int32_t		portion_min;
	int32_t		portion_max;
	int32_t		portion_step;
	uint64_t	seed;
	int32_t		restarts;
	int32_t		iterations;		/* of each restart */
	int64_t		budget;			/* no new refinement after that many changes in all */
	void		(*check) (void);	/* called often; may longjmp; may be NULL */
} MpPlanProblem;

typedef struct MpPlanChoice
{
	int32_t		candidate;
	int32_t		portion;
} MpPlanChoice;

typedef enum MpPlanStatus
{
	MP_PLAN_OK,
	MP_PLAN_INVALID,			/* an index or a number of the problem is out of range */
	MP_PLAN_NO_CANDIDATE		/* *failed_slot has nothing to choose from */
} MpPlanStatus;

/*
 * Fills choices[slot_count] and *cost. Locked slots are kept exactly; a meal bit is
 * never violated; repeats inside the cooldown and on one day are avoided wherever
 * the candidates allow it. Memory comes from the arena and stays there.
 */
extern MpPlanStatus mp_plan_search(const MpPlanProblem *problem, MpArena *arena,
								   MpPlanChoice *choices, int64_t *cost, int32_t *failed_slot);

/* The objective, computed from scratch: what the search minimises. */
extern int64_t mp_plan_cost(const MpPlanProblem *problem, const MpPlanChoice *choices);

#endif
