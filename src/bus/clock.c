/*
 * clock.c
 *		The one clock of all timers: the wall clock, which tests may shift.
 */
#include "bus/clock.h"

#include <math.h>

#include "fmgr.h"

double		mp_clock_offset = 0;

PG_FUNCTION_INFO_V1(mp_clock);

TimestampTz
mp_clock_now(void)
{
	TimestampTz now = GetCurrentTimestamp();

	if (mp_clock_offset != 0)
		now += (int64) rint(mp_clock_offset * USECS_PER_SEC);
	return now;
}

Datum
mp_clock(PG_FUNCTION_ARGS)
{
	PG_RETURN_TIMESTAMPTZ(mp_clock_now());
}
