/*
 * history.h
 *		What is kept of a failed attempt.
 */
#ifndef MP_BUS_HISTORY_H
#define MP_BUS_HISTORY_H

#include "bus/handler.h"

/*
 * The history of one failed attempt, as meal_planner.failed_attempt describes
 * it.  `counted`: it used its number up.  `verdict`: what follows.
 * Of what was not tried it is empty.
 */
extern Datum mp_failed_attempt(const MpEvent *event, int attempt, bool counted,
							   const MpFailure *failure, const char *verdict);

#endif							/* MP_BUS_HISTORY_H */
