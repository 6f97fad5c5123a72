/*
 * clock.h
 *		The one clock of all timers.
 */
#ifndef MP_BUS_CLOCK_H
#define MP_BUS_CLOCK_H

#include "postgres.h"

#include "utils/timestamp.h"

/* Setting meal_planner.clock_offset: seconds added to the wall clock. */
extern double mp_clock_offset;

extern TimestampTz mp_clock_now(void);

#endif							/* MP_BUS_CLOCK_H */
