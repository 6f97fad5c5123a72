/*
 * test_retry_budget.c
 *		Buckets of tokens for retries.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/retry_budget.h"

#define S INT64_C(1000000)

static const MpRetryBudget two_per_second = {.per_second = 2, .burst = 5};

static int
take(const MpRetryBudget *budget, MpBucket *bucket, int64_t now, int wanted)
{
	mp_bucket_fill(budget, bucket, now, bucket->successes);
	return mp_bucket_take(bucket, wanted);
}

static void
it_fills_with_time(void **state)
{
	static const struct
	{
		int64_t		now;
		int			wanted;
		int			taken;
	}			table[] = {
		{0, 1, 0},				/* it was empty */
		{S / 2 - 1000, 1, 0},
		{S / 2, 1, 1},
		{S / 2, 1, 0},
		{S, 3, 1},
		{2 * S, 3, 2},
		{12 * S, 100, 5},		/* it holds no more */
		{12 * S, 1, 0},
		{13 * S, 1, 1},
		{13 * S, 1, 1},
		{13 * S, 1, 0},
		{13 * S, 0, 0}
	};
	MpBucket	bucket = mp_bucket_since(&two_per_second, 0, 0, 0);

	(void) state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		assert_int_equal(take(&two_per_second, &bucket, table[i].now, table[i].wanted), table[i].taken);
}

/* However often one asks, in any stretch of time there are no more than it may be. */
static void
never_more_than_promised(void **state)
{
	MpRetryBudget budget = {.per_second = 0.7, .burst = 3};
	MpBucket	bucket = mp_bucket_since(&budget, 0, 1000 * S, 0);
	int			taken = 0;

	(void) state;
	for (int64_t now = 1000 * S; now <= 1100 * S; now += 3333)
		taken += take(&budget, &bucket, now, 1);
	assert_in_range(taken, 72, 73);
}

static void
a_start_is_with_what_has_come_since(void **state)
{
	(void) state;
	assert_float_equal(mp_bucket_since(&two_per_second, 0, S, 7).tokens, 2, 1e-9);
	assert_float_equal(mp_bucket_since(&two_per_second, 0, 1000 * S, 7).tokens, 5, 1e-9);
	assert_float_equal(mp_bucket_since(&two_per_second, 10 * S, S, 7).tokens, 0, 1e-9);
}

static void
when_it_is_ready_there_is_one(void **state)
{
	static const double rates[] = {0.0001, 0.3, 1, 3, 7, 1000, 1000000};

	(void) state;
	for (size_t i = 0; i < sizeof(rates) / sizeof(rates[0]); i++)
	{
		MpRetryBudget budget = {.per_second = rates[i], .burst = 1};
		MpBucket	bucket = mp_bucket_since(&budget, 0, 0, 0);

		for (int n = 0; n < 100; n++)
		{
			int64_t		ready_at = mp_bucket_ready_at(&budget, &bucket);

			assert_true(ready_at > bucket.filled_at);
			assert_int_equal(take(&budget, &bucket, ready_at, 1), 1);
		}
	}
}

static void
what_is_there_is_ready_now(void **state)
{
	MpBucket	bucket = {.tokens = 1, .filled_at = 17};

	(void) state;
	assert_int_equal(mp_bucket_ready_at(&two_per_second, &bucket), 17);
	bucket.tokens = 0.5;
	assert_int_equal(mp_bucket_ready_at(&two_per_second, &bucket), 17 + S / 4);
}

static void
success_brings_tokens(void **state)
{
	MpRetryBudget budget = {.per_second = 0.001, .burst = 10, .per_success = 0.1};
	MpBucket	bucket = mp_bucket_since(&budget, 0, 0, 100);

	(void) state;
	mp_bucket_fill(&budget, &bucket, 0, 109);
	assert_int_equal(mp_bucket_take(&bucket, 5), 0);
	mp_bucket_fill(&budget, &bucket, 0, 110);
	assert_int_equal(mp_bucket_take(&bucket, 5), 1);
	/* each is paid for once */
	mp_bucket_fill(&budget, &bucket, 0, 110);
	assert_int_equal(mp_bucket_take(&bucket, 5), 0);
	/* a count that began anew */
	mp_bucket_fill(&budget, &bucket, 0, 3);
	assert_int_equal(mp_bucket_take(&bucket, 5), 0);
	mp_bucket_fill(&budget, &bucket, 0, 23);
	assert_int_equal(mp_bucket_take(&bucket, 5), 2);
	mp_bucket_fill(&budget, &bucket, 0, 1000000);
	assert_int_equal(mp_bucket_take(&bucket, 50), 10);
}

static void
what_was_not_needed_goes_back(void **state)
{
	MpBucket	bucket = {.tokens = 3};

	(void) state;
	assert_int_equal(mp_bucket_take(&bucket, 3), 3);
	mp_bucket_give_back(&two_per_second, &bucket, 2);
	assert_int_equal(mp_bucket_take(&bucket, 3), 2);
	mp_bucket_give_back(&two_per_second, &bucket, 100);
	assert_int_equal(mp_bucket_take(&bucket, 100), 5);
}

static void
a_clock_that_goes_back_brings_nothing(void **state)
{
	MpBucket	bucket = mp_bucket_since(&two_per_second, 0, 1000 * S, 0);

	(void) state;
	assert_int_equal(take(&two_per_second, &bucket, 1000 * S, 5), 5);
	assert_int_equal(take(&two_per_second, &bucket, 10 * S, 5), 0);
	/* and goes on from there */
	assert_int_equal(take(&two_per_second, &bucket, 11 * S, 5), 2);
}

/* Options may become others: what is in it is no more than it holds. */
static void
a_smaller_one_holds_less(void **state)
{
	MpRetryBudget smaller = {.per_second = 1, .burst = 2};
	MpBucket	bucket = mp_bucket_since(&two_per_second, 0, 1000 * S, 0);

	(void) state;
	assert_int_equal(take(&smaller, &bucket, 1000 * S, 5), 2);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_fills_with_time),
		cmocka_unit_test(never_more_than_promised),
		cmocka_unit_test(a_start_is_with_what_has_come_since),
		cmocka_unit_test(when_it_is_ready_there_is_one),
		cmocka_unit_test(what_is_there_is_ready_now),
		cmocka_unit_test(success_brings_tokens),
		cmocka_unit_test(what_was_not_needed_goes_back),
		cmocka_unit_test(a_clock_that_goes_back_brings_nothing),
		cmocka_unit_test(a_smaller_one_holds_less)
	};

	return cmocka_run_group_tests_name("retry_budget", tests, NULL, NULL);
}
