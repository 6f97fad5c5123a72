/*
 * test_position.c
 *		Positions and ids: arithmetic both ways, order, foreign ids refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/position.h"

#define SECOND	INT64_C(1000000)

static const uint8_t ones[16] = {
	0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff
};
static const uint8_t zeros[16] = {0};

static void
ticks_and_nodes_come_apart(void **state)
{
	static const int64_t ticks[] = {1, 2, 999, 1000, 1001, INT64_C(91357200123456), MP_TICK_MAX};
	static const int nodes[] = {0, 1, 511, MP_NODE_MAX};

	(void) state;
	for (size_t t = 0; t < sizeof(ticks) / sizeof(ticks[0]); t++)
		for (size_t n = 0; n < sizeof(nodes) / sizeof(nodes[0]); n++)
		{
			int64_t		position = mp_position_make(ticks[t], nodes[n]);

			assert_true(position > 0);
			assert_int_equal(mp_position_tick(position), ticks[t]);
			assert_int_equal(mp_position_node(position), nodes[n]);
			assert_true(position <= mp_position_last_of_tick(ticks[t]));
			assert_true(ticks[t] == MP_TICK_MAX ||
						mp_position_last_of_tick(ticks[t]) < mp_position_make(ticks[t] + 1, 0));
		}
}

static void
an_id_leads_to_its_position(void **state)
{
	static const int64_t ticks[] = {1, 999, 1000, INT64_C(91357200123456), INT64_C(8000000000000000)};

	(void) state;
	for (size_t t = 0; t < sizeof(ticks) / sizeof(ticks[0]); t++)
		for (int node = 0; node <= MP_NODE_MAX; node += 341)
		{
			int64_t		position = mp_position_make(ticks[t], node);
			int64_t		found;
			uint8_t		low[16];
			uint8_t		high[16];

			mp_position_to_uuid(position, zeros, low);
			mp_position_to_uuid(position, ones, high);
			assert_true(mp_uuid_to_position(low, &found));
			assert_int_equal(found, position);
			assert_true(mp_uuid_to_position(high, &found));
			assert_int_equal(found, position);
			assert_int_equal(low[6] >> 4, 7);	/* version */
			assert_int_equal(low[8] >> 6, 2);	/* variant */
			assert_memory_not_equal(low, high, 16);
		}
}

static void
ids_sort_as_their_positions(void **state)
{
	uint8_t		before[16];
	uint8_t		after[16];

	(void) state;
	for (int64_t tick = 1; tick < 3000; tick++)
	{
		mp_position_to_uuid(mp_position_make(tick, MP_NODE_MAX), ones, before);
		mp_position_to_uuid(mp_position_make(tick + 1, 0), zeros, after);
		assert_true(memcmp(before, after, 16) < 0);
	}
}

static void
an_id_tells_the_time(void **state)
{
	/* 2026-11-23 08:00:00.123456 UTC */
	int64_t		unix_us = INT64_C(1795420800) * SECOND + 123456;
	uint8_t		uuid[16];
	uint64_t	ms = 0;

	(void) state;
	mp_position_to_uuid(mp_position_make(mp_tick_of_unix_us(unix_us), 5), zeros, uuid);
	for (int i = 0; i < 6; i++)
		ms = (ms << 8) | uuid[i];
	assert_int_equal(ms, unix_us / 1000);
	assert_int_equal(mp_tick_to_unix_us(mp_tick_of_unix_us(unix_us)), unix_us);
}

static void
ids_of_others_are_refused(void **state)
{
	uint8_t		uuid[16];
	int64_t		position;

	(void) state;
	mp_position_to_uuid(mp_position_make(1000, 0), zeros, uuid);
	uuid[6] = (uint8_t) (0x40 | (uuid[6] & 0x0f));	/* version 4 */
	assert_false(mp_uuid_to_position(uuid, &position));

	mp_position_to_uuid(mp_position_make(1000, 0), zeros, uuid);
	uuid[8] &= 0x3f;			/* another variant */
	assert_false(mp_uuid_to_position(uuid, &position));

	mp_position_to_uuid(mp_position_make(1000, 0), zeros, uuid);
	uuid[6] = 0x7f;				/* 1023 microseconds in a millisecond */
	uuid[7] = 0xff;
	assert_false(mp_uuid_to_position(uuid, &position));

	mp_position_to_uuid(mp_position_make(1000, 0), zeros, uuid);
	memset(uuid, 0, 6);			/* 1970 */
	assert_false(mp_uuid_to_position(uuid, &position));
	assert_false(mp_uuid_to_position(zeros, &position));
}

static void
the_clock_never_stands_still_or_goes_back(void **state)
{
	(void) state;
	assert_int_equal(mp_tick_next(10, 20), 20);
	assert_int_equal(mp_tick_next(20, 20), 21);
	assert_int_equal(mp_tick_next(20, 3), 21);
	assert_int_equal(mp_tick_next(0, 0), 1);
}

static void
a_wrong_clock_makes_no_negative_position(void **state)
{
	(void) state;
	assert_int_equal(mp_tick_of_unix_us(0), 1);
	assert_int_equal(mp_tick_of_unix_us(MP_EPOCH_UNIX_US), 1);
	assert_int_equal(mp_tick_of_unix_us(MP_EPOCH_UNIX_US + 7), 7);
	assert_int_equal(mp_tick_of_unix_us(INT64_MAX), MP_TICK_MAX);
	assert_true(mp_position_make(MP_TICK_MAX, MP_NODE_MAX) > 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ticks_and_nodes_come_apart),
		cmocka_unit_test(an_id_leads_to_its_position),
		cmocka_unit_test(ids_sort_as_their_positions),
		cmocka_unit_test(an_id_tells_the_time),
		cmocka_unit_test(ids_of_others_are_refused),
		cmocka_unit_test(the_clock_never_stands_still_or_goes_back),
		cmocka_unit_test(a_wrong_clock_makes_no_negative_position)
	};

	return cmocka_run_group_tests_name("position", tests, NULL, NULL);
}
