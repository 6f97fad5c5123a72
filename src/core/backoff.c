#include "core/backoff.h"

#include <math.h>

double
mp_backoff_delay(const MpRetryPolicy *policy, int attempt, double random)
{
	double		ceiling = policy->max_delay > 0 && policy->max_delay < MP_MAX_DELAY
		? policy->max_delay : MP_MAX_DELAY;
	double		delay;

	if (attempt <= 1)
		return 0;

	/* pow may reach infinity; the comparison below also refuses a NaN */
	delay = policy->base_delay * pow(policy->multiplier, attempt - 2);
	if (!(delay < ceiling))
		delay = ceiling;
	return delay * (1 - policy->jitter * random);
}

MpVerdict
mp_retry_verdict(const MpRetryPolicy *policy, const MpFailedAttempt *failed,
				 double random, double *delay)
{
	if (failed->crashes >= MP_MAX_CRASHES)
		return MP_VERDICT_CRASH;
	if (failed->permanent)
		return MP_VERDICT_PERMANENT;
	if (failed->attempt >= policy->max_attempts)
		return MP_VERDICT_MAX_ATTEMPTS;

	*delay = mp_backoff_delay(policy, failed->attempt + 1, random);
	if (policy->max_age > 0 && failed->age + *delay > policy->max_age)
		return MP_VERDICT_MAX_AGE;
	return MP_VERDICT_RETRY;
}

const char *
mp_verdict_reason(MpVerdict verdict)
{
	switch (verdict)
	{
		case MP_VERDICT_RETRY:
			break;
		case MP_VERDICT_PERMANENT:
			return "permanent";
		case MP_VERDICT_MAX_ATTEMPTS:
			return "max_attempts";
		case MP_VERDICT_MAX_AGE:
			return "max_age";
		case MP_VERDICT_CRASH:
			return "crash";
	}
	return "retry";
}
