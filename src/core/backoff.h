/*
 * When to try again: backoff arithmetic and the verdict on a failed attempt.
 *
 * Attempts count from 1.  Attempt 1 is immediate; attempt n follows attempt
 * n - 1 after base_delay * multiplier^(n - 2) seconds: 0, 2, 4, 8, 16 s with
 * the defaults.
 */
#ifndef MP_CORE_BACKOFF_H
#define MP_CORE_BACKOFF_H

#include "core/error_class.h"

typedef struct MpRetryPolicy
{
	int			max_attempts;
	double		base_delay;		/* seconds */
	double		multiplier;
	double		max_delay;		/* seconds; 0 = no ceiling but MP_MAX_DELAY */
	double		jitter;			/* 0..1: share of the delay that is random */
	double		max_age;		/* seconds since the first attempt; 0 = no limit */
	bool		stop_if_unknown;	/* what may have been done is not tried again */
} MpRetryPolicy;

#define MP_RETRY_POLICY_DEFAULT \
	((MpRetryPolicy) {.max_attempts = 5, .base_delay = 2, .multiplier = 2})

/* AWS's names for shares: all of the delay, or half of it. */
#define MP_JITTER_FULL	1.0
#define MP_JITTER_EQUAL	0.5

/* Longer than any sane schedule, short enough to add to a timestamp. */
#define MP_MAX_DELAY	(365.0 * 86400.0)

/* A delivery whose handler took its worker down this often is dead. */
#define MP_MAX_CRASHES	2

/*
 * Contention is over soon and has tries of its own, which are no attempts; more
 * of it is like any other error.  The first wait, which doubles up to base_delay:
 */
#define MP_MAX_CONTENTIONS	10
#define MP_CONTENTION_DELAY	0.02

/* Who is short of something is left alone for so many times longer. */
#define MP_RESOURCE_FACTOR	10

typedef enum MpVerdict
{
	MP_VERDICT_RETRY,
	MP_VERDICT_PAUSE,			/* try again, but nothing before somebody has seen to it */
	MP_VERDICT_PERMANENT,		/* the error will not go away */
	MP_VERDICT_MAX_ATTEMPTS,
	MP_VERDICT_MAX_AGE,
	MP_VERDICT_CRASH,
	MP_VERDICT_UNKNOWN_OUTCOME
} MpVerdict;

/* What is known of a failed attempt. */
typedef struct MpFailedAttempt
{
	int			attempt;		/* the attempt that failed, from 1 */
	int			crashes;		/* attempts that took their worker down */
	int			contentions;	/* tries that met contention, before this one */
	MpErrorClass class;
	double		age;			/* seconds since the first attempt */
	bool		has_retry_after;	/* somebody says when, instead of the schedule */
	double		retry_after;	/* seconds */
} MpFailedAttempt;

/* What becomes of it. */
typedef struct MpRetryPlan
{
	MpVerdict	verdict;
	double		delay;			/* before the next attempt, in seconds */
	int			attempt;		/* attempts that count up to now */
	int			contentions;
} MpRetryPlan;

/*
 * Seconds to wait before `attempt`.  `random` in [0, 1) places the delay
 * within its jitter: delay * (1 - jitter) .. delay.
 */
extern double mp_backoff_delay(const MpRetryPolicy *policy, int attempt, double random);

/*
 * The longest time from the first attempt to the start of the last, in seconds:
 * what attempts take, and what defers them, is not in it.
 */
extern double mp_retry_span(const MpRetryPolicy *policy);

/* Whether to try again, and when. */
extern MpRetryPlan mp_retry_plan(const MpRetryPolicy *policy, const MpFailedAttempt *failed, double random);

/* Whether it is not to be tried again by itself: it is a dead letter. */
extern bool mp_verdict_is_dead(MpVerdict verdict);

/* The word for a verdict that ends in a dead letter. */
extern const char *mp_verdict_reason(MpVerdict verdict);

#endif							/* MP_CORE_BACKOFF_H */
