/*
 * test_operation.c
 *		Idempotent operations: every state a key can be in, and the buckets.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/operation.h"

#define SECOND	INT64_C(1000000)
#define HOUR	(3600 * SECOND)
#define DAY		(24 * HOUR)

static void
what_is_absent_starts(void **state)
{
	(void) state;
	for (int same = 0; same <= 1; same++)
		for (int over = 0; over <= 1; over++)
			for (int owner = 0; owner <= 2; owner++)
				for (int caller = 0; caller <= 2; caller++)
					assert_int_equal(mp_operation_step(MP_OPERATION_ABSENT, same, over, owner, caller), MP_STEP_START);
}

static void
another_request_gets_nothing(void **state)
{
	(void) state;
	for (int known = MP_OPERATION_STARTED; known <= MP_OPERATION_COMPLETED; known++)
		for (int over = 0; over <= 1; over++)
			for (int owner = 0; owner <= 2; owner++)
				for (int caller = 0; caller <= 2; caller++)
					assert_int_equal(mp_operation_step(known, false, over, owner, caller), MP_STEP_OTHER_REQUEST);
}

static void
what_is_completed_stays_so(void **state)
{
	(void) state;
	for (int over = 0; over <= 1; over++)
		for (int owner = 0; owner <= 2; owner++)
			for (int caller = 0; caller <= 2; caller++)
				assert_int_equal(mp_operation_step(MP_OPERATION_COMPLETED, true, over, owner, caller), MP_STEP_COMPLETED);
}

static void
a_lease_keeps_others_out(void **state)
{
	(void) state;
	for (int owner = 0; owner <= 2; owner++)
		for (int caller = 0; caller <= 2; caller++)
			assert_int_equal(mp_operation_step(MP_OPERATION_STARTED, true, false, owner, caller), MP_STEP_IN_PROGRESS);
}

static void
of_a_lost_owner_the_stricter_wish_counts(void **state)
{
	static const MpOperationStep steps[3][3] = {
		{MP_STEP_TAKE_OVER, MP_STEP_VERIFY, MP_STEP_BLOCKED},
		{MP_STEP_VERIFY, MP_STEP_VERIFY, MP_STEP_BLOCKED},
		{MP_STEP_BLOCKED, MP_STEP_BLOCKED, MP_STEP_BLOCKED}
	};

	(void) state;
	for (int owner = 0; owner <= 2; owner++)
		for (int caller = 0; caller <= 2; caller++)
			assert_int_equal(mp_operation_step(MP_OPERATION_STARTED, true, true, owner, caller), steps[owner][caller]);
}

/* Whoever writes while a bucket is spare does not write to it, nor has it held anything live. */
static void
the_spare_bucket_has_expired(void **state)
{
	static const double longest[] = {86400, 30 * 86400.0, MP_KEPT_MAX};

	(void) state;
	srand(20240101);
	for (int level = 0; level < MP_BUCKET_LEVELS; level++)
		for (int n = 0; n < 200000; n++)
		{
			int64_t		written = -1000 * DAY + (int64_t) (rand() / (RAND_MAX + 1.0) * 20000) * DAY
				+ (int64_t) (rand() / (RAND_MAX + 1.0) * (double) DAY);
			double		kept = longest[level] * (n % 10 == 0 ? 1 : rand() / (RAND_MAX + 1.0));
			int64_t		expires = written + (int64_t) (kept * 1e6);
			int			bucket = mp_operation_bucket(expires, kept);
			int			its_level = bucket / MP_BUCKET_RING;

			assert_in_range(bucket, 0, MP_BUCKET_FOREVER - 1);
			assert_true(its_level <= level);
			/* from the moment it is written until it expires */
			for (int i = 0; i <= 20; i++)
			{
				int64_t		now = written + (expires - written) / 20 * i;

				assert_true(now <= expires);
				assert_int_not_equal(mp_operation_spare(its_level, now), bucket);
			}
			assert_int_not_equal(mp_operation_spare(its_level, expires), bucket);
		}
}

static void
every_bucket_becomes_spare(void **state)
{
	static const int64_t widths[] = {12 * HOUR, 15 * DAY, 183 * DAY};

	(void) state;
	for (int level = 0; level < MP_BUCKET_LEVELS; level++)
		for (int n = -8; n < 8; n++)
		{
			int			bucket = mp_operation_bucket(n * widths[level], 2.0 * (double) widths[level] / 1e6);

			assert_int_equal(bucket / MP_BUCKET_RING, level);
			assert_int_equal(mp_operation_spare(level, (n + 1) * widths[level]), bucket);
			assert_int_equal(mp_operation_spare(level, (n + 2) * widths[level] - 1), bucket);
			assert_int_not_equal(mp_operation_spare(level, (n + 2) * widths[level]), bucket);
		}
}

static void
what_never_expires_has_its_bucket(void **state)
{
	(void) state;
	assert_int_equal(mp_operation_bucket(INT64_MAX, 1), MP_BUCKET_FOREVER);
	assert_int_equal(mp_operation_bucket(0, MP_KEPT_MAX * 10) / MP_BUCKET_RING, MP_BUCKET_LEVELS - 1);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_absent_starts),
		cmocka_unit_test(another_request_gets_nothing),
		cmocka_unit_test(what_is_completed_stays_so),
		cmocka_unit_test(a_lease_keeps_others_out),
		cmocka_unit_test(of_a_lost_owner_the_stricter_wish_counts),
		cmocka_unit_test(the_spare_bucket_has_expired),
		cmocka_unit_test(every_bucket_becomes_spare),
		cmocka_unit_test(what_never_expires_has_its_bucket)
	};

	return cmocka_run_group_tests_name("operation", tests, NULL, NULL);
}
