/*
 * The parts of the objective that the search for a meal plan adds and subtracts.
 * Every one is a pure function of its arguments.
 */
#ifndef MP_PLAN_COST_H
#define MP_PLAN_COST_H

#include "core/planner.h"

/* thousandths of a nutrient in this portion */
extern int64_t mp_plan_amount(const MpPlanProblem *problem, MpPlanChoice choice, int32_t nutrient);

/* how far the sums of a day (of the plan) are from the goals */
extern int64_t mp_plan_day_cost(const MpPlanProblem *problem, int32_t day, const int64_t *sum);
extern int64_t mp_plan_total_cost(const MpPlanProblem *problem, const int64_t *sum);

/* what a choice costs in its slot, whatever else is planned */
extern int64_t mp_plan_slot_cost(const MpPlanProblem *problem, int32_t slot, MpPlanChoice choice);

/* what two choices cost because they are alike; symmetric */
extern int64_t mp_plan_pair_cost(const MpPlanProblem *problem, int32_t a, MpPlanChoice x,
								 int32_t b, MpPlanChoice y);

/* how well a choice alone does its part of the day: guides the first filling only */
extern int64_t mp_plan_share_cost(const MpPlanProblem *problem, int32_t slot, MpPlanChoice choice);

#endif
