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
jitter_only_shortens(void **state)
{
	MpRetryPolicy policy = MP_RETRY_POLICY_DEFAULT;

	(void) state;
	policy.jitter = 0.5;
	assert_float_equal(mp_backoff_delay(&policy, 4, 0), 8, 0);
	assert_float_equal(mp_backoff_delay(&policy, 4, 0.5), 6, 1e-12);
	policy.jitter = 1;
	assert_float_equal(mp_backoff_delay(&policy, 4, 0.75), 2, 1e-12);
}

static void
five_attempts_and_no_more(void **state)
{
	MpRetryPolicy policy = MP_RETRY_POLICY_DEFAULT;
	double		delay = -1;

	(void) state;
	for (int attempt = 1; attempt <= 4; attempt++)
	{
		MpFailedAttempt failed = {.attempt = attempt};

		assert_int_equal(mp_retry_verdict(&policy, &failed, 0, &delay), MP_VERDICT_RETRY);
		assert_float_equal(delay, mp_backoff_delay(&policy, attempt + 1, 0), 0);
	}
	assert_int_equal(mp_retry_verdict(&policy, &(MpFailedAttempt) {.attempt = 5}, 0, &delay),
					 MP_VERDICT_MAX_ATTEMPTS);
	policy.max_attempts = 1;
	assert_int_equal(mp_retry_verdict(&policy, &(MpFailedAttempt) {.attempt = 1}, 0, &delay),
					 MP_VERDICT_MAX_ATTEMPTS);
}

static void
the_gravest_reason_is_told(void **state)
{
	MpRetryPolicy policy = MP_RETRY_POLICY_DEFAULT;
	double		delay;

	(void) state;
	policy.max_age = 1;
	assert_int_equal(mp_retry_verdict(&policy, &(MpFailedAttempt) {.attempt = 1, .permanent = true}, 0, &delay),
					 MP_VERDICT_PERMANENT);
	assert_int_equal(mp_retry_verdict(&policy, &(MpFailedAttempt) {.attempt = 9, .permanent = true,
																	.crashes = MP_MAX_CRASHES}, 0, &delay),
					 MP_VERDICT_CRASH);
	policy.max_age = 0;
	assert_int_equal(mp_retry_verdict(&policy, &(MpFailedAttempt) {.attempt = 1, .crashes = MP_MAX_CRASHES - 1},
									  0, &delay),
					 MP_VERDICT_RETRY);
}

static void
an_old_event_is_given_up(void **state)
{
	MpRetryPolicy policy = MP_RETRY_POLICY_DEFAULT;
	double		delay;

	(void) state;
	policy.max_age = 10;
	/* the next attempt, two seconds later, would still be in time */
	assert_int_equal(mp_retry_verdict(&policy, &(MpFailedAttempt) {.attempt = 1, .age = 8}, 0, &delay),
					 MP_VERDICT_RETRY);
	assert_int_equal(mp_retry_verdict(&policy, &(MpFailedAttempt) {.attempt = 1, .age = 8.001}, 0, &delay),
					 MP_VERDICT_MAX_AGE);
}

static void
every_verdict_has_its_word(void **state)
{
	(void) state;
	assert_string_equal(mp_verdict_reason(MP_VERDICT_PERMANENT), "permanent");
	assert_string_equal(mp_verdict_reason(MP_VERDICT_MAX_ATTEMPTS), "max_attempts");
	assert_string_equal(mp_verdict_reason(MP_VERDICT_MAX_AGE), "max_age");
	assert_string_equal(mp_verdict_reason(MP_VERDICT_CRASH), "crash");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_default_schedule),
		cmocka_unit_test(a_ceiling_holds),
		cmocka_unit_test(jitter_only_shortens),
		cmocka_unit_test(five_attempts_and_no_more),
		cmocka_unit_test(the_gravest_reason_is_told),
		cmocka_unit_test(an_old_event_is_given_up),
		cmocka_unit_test(every_verdict_has_its_word)
	};

	return cmocka_run_group_tests_name("backoff", tests, NULL, NULL);
}
