/*
 * test_bucket.c
 *		The buckets of what expires: none is emptied too early.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/bucket.h"

#define SECOND	INT64_C(1000000)
#define HOUR	(3600 * SECOND)
#define DAY		(24 * HOUR)

/* Whoever writes while a bucket is spare does not write to it, nor has it held anything live. */
static void
the_spare_bucket_has_expired(void **state)
{
	static const double longest[] = {86400, 30 * 86400.0, MP_KEPT_MAX};

	(void) state;
	srand(20240101);
	for (int level = 0; level < MP_OPERATION_LEVELS; level++)
		for (int n = 0; n < 200000; n++)
		{
			int64_t		written = -1000 * DAY + (int64_t) (rand() / (RAND_MAX + 1.0) * 20000) * DAY
				+ (int64_t) (rand() / (RAND_MAX + 1.0) * (double) DAY);
			double		kept = longest[level] * (n % 10 == 0 ? 1 : rand() / (RAND_MAX + 1.0));
			int64_t		expires = written + (int64_t) (kept * 1e6);
			int			bucket = mp_operation_bucket(expires, kept);
			int			its_level = bucket / MP_OPERATION_RING;

			assert_in_range(bucket, 0, MP_OPERATION_FOREVER - 1);
			assert_true(its_level <= level);
			/* from the moment it is written until it expires */
			for (int i = 0; i <= 20; i++)
			{
				int64_t		now = written + (expires - written) / 20 * i;

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
	for (int level = 0; level < MP_OPERATION_LEVELS; level++)
		for (int n = -8; n < 8; n++)
		{
			int			bucket = mp_operation_bucket(n * widths[level], 2.0 * (double) widths[level] / 1e6);

			assert_int_equal(bucket / MP_OPERATION_RING, level);
			assert_int_equal(mp_operation_spare(level, (n + 1) * widths[level]), bucket);
			assert_int_equal(mp_operation_spare(level, (n + 2) * widths[level] - 1), bucket);
			assert_int_not_equal(mp_operation_spare(level, (n + 2) * widths[level]), bucket);
		}
}

static void
what_never_expires_has_its_bucket(void **state)
{
	(void) state;
	assert_int_equal(mp_operation_bucket(INT64_MAX, 1), MP_OPERATION_FOREVER);
	assert_int_equal(mp_operation_bucket(0, MP_KEPT_MAX * 10) / MP_OPERATION_RING, MP_OPERATION_LEVELS - 1);
}

/* What is written lies in one of the two others until it has expired. */
static void
the_spare_bucket_of_event_keys_has_expired(void **state)
{
	(void) state;
	for (int64_t written = -20 * HOUR; written < 20 * HOUR; written += 7 * 60 * SECOND + 13)
		for (int64_t kept = 60 * SECOND; kept < 9 * HOUR; kept += 97 * 60 * SECOND + 1)
		{
			int			bucket = mp_key_bucket(written + kept, kept);

			assert_in_range(bucket, 0, MP_KEY_BUCKETS - 1);
			for (int i = 0; i <= 10; i++)
				assert_int_not_equal(mp_key_spare(written + kept / 10 * i, kept), bucket);
			assert_int_not_equal(mp_key_spare(written + kept, kept), bucket);
			/* and is spare, for as long again, when its stretch is over */
			assert_int_equal(mp_key_bucket(written + kept, kept), mp_key_spare(written + 2 * kept, kept));
		}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_spare_bucket_has_expired),
		cmocka_unit_test(every_bucket_becomes_spare),
		cmocka_unit_test(what_never_expires_has_its_bucket),
		cmocka_unit_test(the_spare_bucket_of_event_keys_has_expired)
	};

	return cmocka_run_group_tests_name("bucket", tests, NULL, NULL);
}
