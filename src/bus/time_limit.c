/*
 * time_limit.c
 *		How long a call of a handler may take.
 *
 * A time-out of the server's own kind cancels the query, as statement_timeout
 * does.  Limits nest as handlers do; the alarm is set to the earliest, and a
 * cancel that came of an outer one goes on to the handler it is for.  Of a
 * limit and somebody's cancel within the moment that the server needs to notice
 * the first, one counts, as with the server's own time-outs.
 */
#include "bus/time_limit.h"

#include "miscadmin.h"
#include "utils/timeout.h"

static TimeoutId timeout_id = MAX_TIMEOUTS; /* not registered yet */
static TimestampTz deadline = 0;	/* the earliest in force; 0: none */
static volatile sig_atomic_t fired = false;

/* In a signal handler. */
static void
cancel_query(void)
{
	if (QueryCancelPending)
		return;					/* somebody else's, which must get through */
	fired = true;
	QueryCancelPending = true;
	InterruptPending = true;
}

void
mp_time_limit_begin(MpTimeLimit *limit, double seconds)
{
	limit->outer = deadline;
	limit->own = 0;
	if (seconds <= 0)
		return;
	limit->own = GetCurrentTimestamp() + (int64) (seconds * USECS_PER_SEC);
	if (deadline != 0 && deadline <= limit->own)
		return;					/* the alarm is set for an outer one */
	if (timeout_id == MAX_TIMEOUTS)
		timeout_id = RegisterTimeout(USER_TIMEOUT, cancel_query);
	deadline = limit->own;
	enable_timeout_at(timeout_id, deadline);
}

bool
mp_time_limit_end(MpTimeLimit *limit)
{
	bool		over;

	if (limit->own == 0)
		return false;
	/* no alarm from here on that is not an outer limit's */
	disable_timeout(timeout_id, false);
	over = fired && deadline == limit->own;
	if (over)
	{
		fired = false;
		/* it came when the handler had just ended */
		QueryCancelPending = false;
	}
	deadline = limit->outer;
	/* an outer one that is over has cancelled the query already */
	if (deadline != 0 && !fired)
		enable_timeout_at(timeout_id, deadline);
	limit->own = 0;
	return over;
}
