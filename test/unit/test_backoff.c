/*
 * test_backoff.c
 *		The retry schedule and the verdict on a failed attempt.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/backoff.h"

static void
the_default_schedule(void **state)
{
	static const double delays[] = {0, 2, 4, 8, 16, 32, 64};
	MpRetryPolicy policy = MP_RETRY_POLICY_DEFAULT;

	(void) state;
	for (int attempt = 1; attempt <= 7; attempt++)
		assert_float_equal(mp_backoff_delay(&policy, attempt, 0), delays[attempt - 1], 0);
	assert_float_equal(mp_backoff_delay(&policy, 0, 0), 0, 0);
	assert_float_equal(mp_backoff_delay(&policy, -5, 0), 0, 0);
	/* without jitter chance has no say */
	assert_float_equal(mp_backoff_delay(&policy, 5, 0.999), 16, 0);
}

static void
a_ceiling_holds(void **state)
{
	MpRetryPolicy policy = MP_RETRY_POLICY_DEFAULT;

	(void) state;
	policy.max_delay = 10;
	assert_float_equal(mp_backoff_delay(&policy, 4, 0), 8, 0);
	assert_float_equal(mp_backoff_delay(&policy, 5, 0), 10, 0);
	assert_float_equal(mp_backoff_delay(&policy, 1000000, 0), 10, 0);
	policy.max_delay = 0;
	/* 2^999998 is no number any more */
	assert_float_equal(mp_backoff_delay(&policy, 1000000, 0), MP_MAX_DELAY, 0);
	policy.max_delay = MP_MAX_DELAY * 10;
	assert_float_equal(mp_backoff_delay(&policy, 1000000, 0), MP_MAX_DELAY, 0);
	policy.base_delay = 0;		/* 0 * infinity */
	policy.max_delay = 3;
	assert_float_equal(mp_backoff_delay(&policy, 1000000, 0), 3, 0);
	assert_float_equal(mp_backoff_delay(&policy, 3, 0), 0, 0);
}

static void
retries_end_after_their_span(void **state)
{
	MpRetryPolicy policy = MP_RETRY_POLICY_DEFAULT;

	(void) state;
	assert_float_equal(mp_retry_span(&policy), 2 + 4 + 8 + 16, 0);
	policy.jitter = 1;			/* it may be that long */
	assert_float_equal(mp_retry_span(&policy), 30, 0);
	policy.max_delay = 5;
	assert_float_equal(mp_retry_span(&policy), 2 + 4 + 5 + 5, 0);
	policy.max_age = 17;
	assert_float_equal(mp_retry_span(&policy), 16, 0);
	policy.max_age = 15;
	assert_float_equal(mp_retry_span(&policy), 15, 0);
	policy.max_attempts = 1;
	assert_float_equal(mp_retry_span(&policy), 0, 0);
}

static void
jitter_only_shortens(void **state)
{
	MpRetryPolicy policy = MP_RETRY_POLICY_DEFAULT;

	(void) state;
	policy.jitter = MP_JITTER_EQUAL;
	assert_float_equal(mp_backoff_delay(&policy, 4, 0), 8, 0);
	assert_float_equal(mp_backoff_delay(&policy, 4, 0.5), 6, 1e-12);
	assert_float_equal(mp_backoff_delay(&policy, 4, 0.9999999), 4, 1e-6);
	policy.jitter = MP_JITTER_FULL;
	assert_float_equal(mp_backoff_delay(&policy, 4, 0.75), 2, 1e-12);
	assert_float_equal(mp_backoff_delay(&policy, 4, 0.9999999), 0, 1e-6);
	/* of the delay that the ceiling leaves */
	policy.max_delay = 4;
	assert_float_equal(mp_backoff_delay(&policy, 5, 0.5), 2, 1e-12);
}

static void
five_attempts_and_no_more(void **state)
{
	MpRetryPolicy policy = MP_RETRY_POLICY_DEFAULT;

	(void) state;
	for (int attempt = 1; attempt <= 4; attempt++)
	{
		MpRetryPlan plan = mp_retry_plan(&policy, &(MpFailedAttempt) {.attempt = attempt}, 0);

		assert_int_equal(plan.verdict, MP_VERDICT_RETRY);
		assert_int_equal(plan.attempt, attempt);
		assert_float_equal(plan.delay, mp_backoff_delay(&policy, attempt + 1, 0), 0);
	}
	assert_int_equal(mp_retry_plan(&policy, &(MpFailedAttempt) {.attempt = 5}, 0).verdict, MP_VERDICT_MAX_ATTEMPTS);
	policy.max_attempts = 1;
	assert_int_equal(mp_retry_plan(&policy, &(MpFailedAttempt) {.attempt = 1}, 0).verdict, MP_VERDICT_MAX_ATTEMPTS);
}

/* What each class makes of the third attempt and of the last one. */
static void
each_class_has_its_way(void **state)
{
	static const struct
	{
		MpErrorClass class;
		MpVerdict	third;
		MpVerdict	last;
		int			attempts;		/* that count, of three */
		double		delay;
	}			table[] = {
		{MP_CLASS_TRANSIENT, MP_VERDICT_RETRY, MP_VERDICT_MAX_ATTEMPTS, 3, 8},
		{MP_CLASS_TIMEOUT, MP_VERDICT_RETRY, MP_VERDICT_MAX_ATTEMPTS, 3, 8},
		{MP_CLASS_UNKNOWN_OUTCOME, MP_VERDICT_RETRY, MP_VERDICT_MAX_ATTEMPTS, 3, 8},
		{MP_CLASS_RESOURCE, MP_VERDICT_RETRY, MP_VERDICT_MAX_ATTEMPTS, 3, 80},
		{MP_CLASS_CONTENTION, MP_VERDICT_RETRY, MP_VERDICT_RETRY, 2, MP_CONTENTION_DELAY},
		{MP_CLASS_SHUTDOWN, MP_VERDICT_RETRY, MP_VERDICT_RETRY, 2, 8},
		{MP_CLASS_DEPLOY, MP_VERDICT_PAUSE, MP_VERDICT_PAUSE, 2, 2},
		{MP_CLASS_PERMANENT, MP_VERDICT_PERMANENT, MP_VERDICT_PERMANENT, 3, 0}
	};
	MpRetryPolicy policy = MP_RETRY_POLICY_DEFAULT;

	(void) state;
	assert_int_equal(sizeof(table) / sizeof(table[0]), MP_ERROR_CLASSES);
	for (int i = 0; i < MP_ERROR_CLASSES; i++)
	{
		MpFailedAttempt failed = {.attempt = 3, .class = table[i].class};
		MpRetryPlan plan = mp_retry_plan(&policy, &failed, 0);

		assert_int_equal(plan.verdict, table[i].third);
		assert_int_equal(plan.attempt, table[i].attempts);
		assert_float_equal(plan.delay, table[i].delay, 0);
		assert_int_equal(plan.contentions, table[i].class == MP_CLASS_CONTENTION);
		failed.attempt = 5;
		assert_int_equal(mp_retry_plan(&policy, &failed, 0).verdict, table[i].last);
	}
}

static void
contention_has_tries_of_its_own(void **state)
{
	MpRetryPolicy policy = MP_RETRY_POLICY_DEFAULT;
	MpFailedAttempt failed = {.class = MP_CLASS_CONTENTION};
	int			tries = 0;
	double		waited = 0;
	MpRetryPlan plan;

	(void) state;
	do
	{
		failed.attempt++;		/* as the claim does */
		tries++;
		plan = mp_retry_plan(&policy, &failed, 0);
		waited += plan.delay;
		if (tries == 1)
			assert_float_equal(plan.delay, 0.02, 1e-12);
		if (tries == 3)
			assert_float_equal(plan.delay, 0.08, 1e-12);
		if (tries == 10)
			assert_float_equal(plan.delay, 2, 1e-12);	/* no longer than the first ordinary one */
		failed.attempt = plan.attempt;
		failed.contentions = plan.contentions;
	} while (!mp_verdict_is_dead(plan.verdict));
	assert_int_equal(tries, MP_MAX_CONTENTIONS + 5);
	assert_int_equal(plan.verdict, MP_VERDICT_MAX_ATTEMPTS);
	assert_float_equal(waited, 0.02 * 127 + 3 * 2 + 2 + 4 + 8 + 16, 1e-9);

	/* half of it is chance */
	failed = (MpFailedAttempt) {.attempt = 1, .class = MP_CLASS_CONTENTION};
	assert_float_equal(mp_retry_plan(&policy, &failed, 0.5).delay, 0.015, 1e-12);
	policy.max_delay = 0.001;
	assert_float_equal(mp_retry_plan(&policy, &failed, 0).delay, 0.001, 1e-12);
	policy.base_delay = 0;
	assert_float_equal(mp_retry_plan(&policy, &failed, 0).delay, 0, 0);
}

static void
a_shortage_waits_longer(void **state)
{
	MpRetryPolicy policy = MP_RETRY_POLICY_DEFAULT;
	MpFailedAttempt failed = {.attempt = 1, .class = MP_CLASS_RESOURCE};

	(void) state;
	assert_float_equal(mp_retry_plan(&policy, &failed, 0).delay, 20, 0);
	policy.max_delay = 15;
	assert_float_equal(mp_retry_plan(&policy, &failed, 0).delay, 15, 0);
}

static void
what_may_be_done_may_stop(void **state)
{
	MpRetryPolicy policy = MP_RETRY_POLICY_DEFAULT;
	MpFailedAttempt failed = {.attempt = 1, .class = MP_CLASS_UNKNOWN_OUTCOME};

	(void) state;
	policy.stop_if_unknown = true;
	assert_int_equal(mp_retry_plan(&policy, &failed, 0).verdict, MP_VERDICT_UNKNOWN_OUTCOME);
	failed.class = MP_CLASS_TIMEOUT;
	assert_int_equal(mp_retry_plan(&policy, &failed, 0).verdict, MP_VERDICT_RETRY);
}

static void
whoever_says_when_is_heard(void **state)
{
	MpRetryPolicy policy = MP_RETRY_POLICY_DEFAULT;
	MpFailedAttempt failed = {.attempt = 2, .has_retry_after = true, .retry_after = 100};

	(void) state;
	policy.max_delay = 10;
	assert_float_equal(mp_retry_plan(&policy, &failed, 0).delay, 100, 0);
	failed.retry_after = 0;
	assert_float_equal(mp_retry_plan(&policy, &failed, 0).delay, 0, 0);
	failed.retry_after = -3;
	assert_float_equal(mp_retry_plan(&policy, &failed, 0).delay, 0, 0);
	failed.retry_after = 1e300;
	assert_float_equal(mp_retry_plan(&policy, &failed, 0).delay, MP_MAX_DELAY, 0);
	for (int class = 0; class < MP_ERROR_CLASSES; class++)
	{
		MpRetryPlan plan;

		failed.class = class;
		failed.retry_after = 3;
		plan = mp_retry_plan(&policy, &failed, 0);
		if (plan.verdict == MP_VERDICT_RETRY)
			assert_float_equal(plan.delay, 3, 0);
	}
	/* it does not add attempts, nor time */
	failed = (MpFailedAttempt) {.attempt = 5, .has_retry_after = true, .retry_after = 1};
	assert_int_equal(mp_retry_plan(&policy, &failed, 0).verdict, MP_VERDICT_MAX_ATTEMPTS);
	policy.max_age = 60;
	failed = (MpFailedAttempt) {.attempt = 1, .age = 50, .has_retry_after = true, .retry_after = 11};
	assert_int_equal(mp_retry_plan(&policy, &failed, 0).verdict, MP_VERDICT_MAX_AGE);
	failed.retry_after = 10;
	assert_int_equal(mp_retry_plan(&policy, &failed, 0).verdict, MP_VERDICT_RETRY);
}

static void
the_gravest_reason_is_told(void **state)
{
	MpRetryPolicy policy = MP_RETRY_POLICY_DEFAULT;

	(void) state;
	policy.max_age = 1;
	assert_int_equal(mp_retry_plan(&policy, &(MpFailedAttempt) {.attempt = 1, .class = MP_CLASS_PERMANENT}, 0).verdict,
					 MP_VERDICT_PERMANENT);
	for (int class = 0; class < MP_ERROR_CLASSES; class++)
	{
		MpFailedAttempt failed = {.attempt = 9, .class = class, .crashes = MP_MAX_CRASHES};

		assert_int_equal(mp_retry_plan(&policy, &failed, 0).verdict, MP_VERDICT_CRASH);
	}
	policy.max_age = 0;
	assert_int_equal(mp_retry_plan(&policy, &(MpFailedAttempt) {.attempt = 1, .crashes = MP_MAX_CRASHES - 1}, 0).verdict,
					 MP_VERDICT_RETRY);
}

static void
an_old_event_is_given_up(void **state)
{
	MpRetryPolicy policy = MP_RETRY_POLICY_DEFAULT;

	(void) state;
	policy.max_age = 10;
	/* the next attempt, two seconds later, would still be in time */
	assert_int_equal(mp_retry_plan(&policy, &(MpFailedAttempt) {.attempt = 1, .age = 8}, 0).verdict, MP_VERDICT_RETRY);
	assert_int_equal(mp_retry_plan(&policy, &(MpFailedAttempt) {.attempt = 1, .age = 8.001}, 0).verdict,
					 MP_VERDICT_MAX_AGE);
	/* who has paused a subscription may take his time */
	assert_int_equal(mp_retry_plan(&policy, &(MpFailedAttempt) {.attempt = 2, .age = 1e6, .class = MP_CLASS_DEPLOY}, 0).verdict,
					 MP_VERDICT_PAUSE);
}

static void
every_verdict_has_its_word(void **state)
{
	(void) state;
	assert_string_equal(mp_verdict_reason(MP_VERDICT_PERMANENT), "permanent");
	assert_string_equal(mp_verdict_reason(MP_VERDICT_MAX_ATTEMPTS), "max_attempts");
	assert_string_equal(mp_verdict_reason(MP_VERDICT_MAX_AGE), "max_age");
	assert_string_equal(mp_verdict_reason(MP_VERDICT_CRASH), "crash");
	assert_string_equal(mp_verdict_reason(MP_VERDICT_UNKNOWN_OUTCOME), "unknown_outcome");
	for (int verdict = MP_VERDICT_RETRY; verdict <= MP_VERDICT_UNKNOWN_OUTCOME; verdict++)
		assert_int_equal(mp_verdict_is_dead(verdict), verdict > MP_VERDICT_PAUSE);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_default_schedule),
		cmocka_unit_test(a_ceiling_holds),
		cmocka_unit_test(retries_end_after_their_span),
		cmocka_unit_test(jitter_only_shortens),
		cmocka_unit_test(five_attempts_and_no_more),
		cmocka_unit_test(each_class_has_its_way),
		cmocka_unit_test(contention_has_tries_of_its_own),
		cmocka_unit_test(a_shortage_waits_longer),
		cmocka_unit_test(what_may_be_done_may_stop),
		cmocka_unit_test(whoever_says_when_is_heard),
		cmocka_unit_test(the_gravest_reason_is_told),
		cmocka_unit_test(an_old_event_is_given_up),
		cmocka_unit_test(every_verdict_has_its_word)
	};

	return cmocka_run_group_tests_name("backoff", tests, NULL, NULL);
}
