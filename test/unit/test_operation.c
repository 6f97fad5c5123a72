/*
 * test_operation.c
 *		Idempotent operations: every state a key can be in.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/operation.h"

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

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_absent_starts),
		cmocka_unit_test(another_request_gets_nothing),
		cmocka_unit_test(what_is_completed_stays_so),
		cmocka_unit_test(a_lease_keeps_others_out),
		cmocka_unit_test(of_a_lost_owner_the_stricter_wish_counts)
	};

	return cmocka_run_group_tests_name("operation", tests, NULL, NULL);
}
