/*
 * When to try again: backoff arithmetic and the verdict on a failed attempt.
 *
 * Attempts count from 1.  Attempt 1 is immediate; attempt n follows attempt
 * n - 1 after base_delay * multiplier^(n - 2) seconds: 0, 2, 4, 8, 16 s with
 * the defaults.
 */
#ifndef MP_CORE_BACKOFF_H
#define MP_CORE_BACKOFF_H

#include <stdbool.h>

typedef struct MpRetryPolicy
{
	int			max_attempts;
	double		base_delay;		/* seconds */
	double		multiplier;
	double		max_delay;		/* seconds; 0 = no ceiling but MP_MAX_DELAY */
	double		jitter;			/* 0..1: share of the delay that is random */
	double		max_age;		/* seconds since the first attempt; 0 = no limit */
} MpRetryPolicy;

#define MP_RETRY_POLICY_DEFAULT \
	((MpRetryPolicy) {.max_attempts = 5, .base_delay = 2, .multiplier = 2})

/* Longer than any sane schedule, short enough to add to a timestamp. */
#define MP_MAX_DELAY	(365.0 * 86400.0)

/* A delivery whose handler took its worker down this often is dead. */
#define MP_MAX_CRASHES	2

typedef enum MpVerdict
{
	MP_VERDICT_RETRY,
	MP_VERDICT_PERMANENT,		/* the error will not go away */
	MP_VERDICT_MAX_ATTEMPTS,
	MP_VERDICT_MAX_AGE,
	MP_VERDICT_CRASH
} MpVerdict;

/* What is known of a failed attempt. */
typedef struct MpFailedAttempt
{
	int			attempt;		/* the attempt that failed, from 1 */
	int			crashes;		/* attempts that took their worker down */
	bool		permanent;		/* the error's class says so */
	double		age;			/* seconds since the first attempt */
} MpFailedAttempt;

/*
 * Seconds to wait before `attempt`.  `random` in [0, 1) places the delay
 * within its jitter: delay * (1 - jitter) .. delay.
 */
extern double mp_backoff_delay(const MpRetryPolicy *policy, int attempt, double random);

/* Whether to try again; with MP_VERDICT_RETRY *delay is the wait in seconds. */
extern MpVerdict mp_retry_verdict(const MpRetryPolicy *policy, const MpFailedAttempt *failed,
								  double random, double *delay);

/* The word for a verdict that ends in a dead letter. */
extern const char *mp_verdict_reason(MpVerdict verdict);

#endif							/* MP_CORE_BACKOFF_H */
