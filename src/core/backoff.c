#include "core/backoff.h"

#include <math.h>

static double
ceiling_of(const MpRetryPolicy *policy)
{
	return policy->max_delay > 0 && policy->max_delay < MP_MAX_DELAY ? policy->max_delay : MP_MAX_DELAY;
}

/* first * factor^steps; pow may reach infinity, the comparison also refuses a NaN. */
static double
grown(double first, double factor, int steps, double ceiling)
{
	double		delay = first * pow(factor, steps);

	return delay < ceiling ? delay : ceiling;
}

double
mp_backoff_delay(const MpRetryPolicy *policy, int attempt, double random)
{
	if (attempt <= 1)
		return 0;
	return grown(policy->base_delay, policy->multiplier, attempt - 2, ceiling_of(policy)) *
		(1 - policy->jitter * random);
}

double
mp_retry_span(const MpRetryPolicy *policy)
{
	double		span = 0;

	for (int attempt = 2; attempt <= policy->max_attempts; attempt++)
		span += mp_backoff_delay(policy, attempt, 0);
	return policy->max_age > 0 && policy->max_age < span ? policy->max_age : span;
}

/* Always with jitter: those who were in each other's way would be again. */
static double
contention_delay(const MpRetryPolicy *policy, int contentions, double random)
{
	return grown(MP_CONTENTION_DELAY, 2, contentions - 1, fmin(policy->base_delay, ceiling_of(policy))) *
		(1 - MP_JITTER_EQUAL * random);
}

/* Those that count as an attempt. */
static MpVerdict
next_attempt(const MpRetryPolicy *policy, const MpFailedAttempt *failed, double random, MpRetryPlan *plan)
{
	MpRetryPolicy longer = *policy;

	if (failed->attempt >= policy->max_attempts)
		return MP_VERDICT_MAX_ATTEMPTS;
	if (failed->class == MP_CLASS_RESOURCE)
		longer.base_delay *= MP_RESOURCE_FACTOR;
	plan->delay = mp_backoff_delay(&longer, failed->attempt + 1, random);
	return MP_VERDICT_RETRY;
}

static MpVerdict
verdict_of_class(const MpRetryPolicy *policy, const MpFailedAttempt *failed, double random, MpRetryPlan *plan)
{
	switch (failed->class)
	{
		case MP_CLASS_PERMANENT:
			return MP_VERDICT_PERMANENT;
		case MP_CLASS_DEPLOY:
			plan->attempt--;
			plan->delay = policy->base_delay;
			return MP_VERDICT_PAUSE;
		case MP_CLASS_SHUTDOWN:
			plan->attempt--;
			plan->delay = mp_backoff_delay(policy, failed->attempt + 1, random);
			return MP_VERDICT_RETRY;
		case MP_CLASS_CONTENTION:
			if (failed->contentions >= MP_MAX_CONTENTIONS)
				break;
			plan->attempt--;
			plan->contentions++;
			plan->delay = contention_delay(policy, plan->contentions, random);
			return MP_VERDICT_RETRY;
		case MP_CLASS_UNKNOWN_OUTCOME:
			if (policy->stop_if_unknown)
				return MP_VERDICT_UNKNOWN_OUTCOME;
			break;
		case MP_CLASS_TRANSIENT:
		case MP_CLASS_RESOURCE:
		case MP_CLASS_TIMEOUT:
			break;
	}
	return next_attempt(policy, failed, random, plan);
}

MpRetryPlan
mp_retry_plan(const MpRetryPolicy *policy, const MpFailedAttempt *failed, double random)
{
	MpRetryPlan plan = {.attempt = failed->attempt, .contentions = failed->contentions};

	if (failed->crashes >= MP_MAX_CRASHES)
	{
		plan.verdict = MP_VERDICT_CRASH;
		return plan;
	}
	plan.verdict = verdict_of_class(policy, failed, random, &plan);
	if (plan.verdict != MP_VERDICT_RETRY)
		return plan;
	if (failed->has_retry_after)
		plan.delay = fmin(fmax(failed->retry_after, 0), MP_MAX_DELAY);
	if (policy->max_age > 0 && failed->age + plan.delay > policy->max_age)
		plan.verdict = MP_VERDICT_MAX_AGE;
	return plan;
}

bool
mp_verdict_is_dead(MpVerdict verdict)
{
	return verdict != MP_VERDICT_RETRY && verdict != MP_VERDICT_PAUSE;
}

const char *
mp_verdict_reason(MpVerdict verdict)
{
	switch (verdict)
	{
		case MP_VERDICT_RETRY:
			break;
		case MP_VERDICT_PAUSE:
			return "deploy";
		case MP_VERDICT_PERMANENT:
			return "permanent";
		case MP_VERDICT_MAX_ATTEMPTS:
			return "max_attempts";
		case MP_VERDICT_MAX_AGE:
			return "max_age";
		case MP_VERDICT_CRASH:
			return "crash";
		case MP_VERDICT_UNKNOWN_OUTCOME:
			return "unknown_outcome";
	}
	return "retry";
}
