/*
 * test_saga_states.c
 *		Sagas: every state that an instance of a few definitions can reach, and in
 *		each of them everything that can happen.
 *
 * Each step is tried at most twice, so that there are finitely many states when
 * the fences, which only grow, are left out of the comparison.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "saga_run.h"

#define SLOTS	(1 << 18)
#define KEY		96

/* The states found, in the order found, and a hash table of their places. */
typedef struct Found
{
	int			count;
	char		(*text)[KEY];
	char		(*key)[KEY];	/* the text without its fences */
	int		   *slot;			/* 1 + the place */
} Found;

/* The text with every fence cut down to 0 or 1. */
static void
key_of(const MpSagaDefinition *definition, const MpSaga *saga, char key[KEY])
{
	MpSaga		copy = *saga;
	char		text[MP_SAGA_TEXT_SIZE];

	for (int i = 0; i < definition->step_count; i++)
		copy.step[i].run = copy.step[i].run > 0;
	mp_saga_write(definition, &copy, text);
	assert_true(strlen(text) < KEY);
	strcpy(key, text);
}

/* Adds it; false when it is there. */
static bool
add(Found *found, const MpSagaDefinition *definition, const MpSaga *saga)
{
	char		key[KEY];
	char		text[MP_SAGA_TEXT_SIZE];
	uint32_t	hash = 2166136261u;

	key_of(definition, saga, key);
	for (const char *at = key; *at != '\0'; at++)
		hash = (hash ^ (unsigned char) *at) * 16777619u;
	hash %= SLOTS;
	while (found->slot[hash] != 0)
	{
		if (strcmp(key, found->key[found->slot[hash] - 1]) == 0)
			return false;
		hash = (hash + 1) % SLOTS;
	}
	assert_true(found->count < SLOTS / 2);
	mp_saga_write(definition, saga, text);
	assert_true(strlen(text) < KEY);
	strcpy(found->text[found->count], text);
	strcpy(found->key[found->count], key);
	found->slot[hash] = ++found->count;
	return true;
}

/*
 * From here on nothing fails any more.  Without an operator it ends or is stuck;
 * with one, who has parked steps tried again, it ends.
 */
static const char *
drive(const MpSagaDefinition *definition, MpSaga saga, bool operator)
{
	for (int calls = 0; calls < 1000 && !mp_saga_has_ended(saga.state); calls++)
	{
		const char *broken;

		if (saga_go_on(definition, &saga, &broken))
		{
			if (broken != NULL)
				return broken;
		}
		else if (!operator)
			return saga.state == MP_SAGA_STUCK ? NULL : "it stands still and is not stuck";
		else if (mp_saga_retry(definition, &saga, ~UINT64_C(0)) != MP_SAGA_OK)
			return "what is parked cannot be retried";
	}
	return mp_saga_has_ended(saga.state) ? NULL : "it does not end";
}

/* One thing that happens: the rules between before and after hold. */
static void
happen(Found *found, const MpSagaDefinition *definition, const MpSaga *from, const char *what)
{
	MpSaga		saga = *from;
	char		text[2][MP_SAGA_TEXT_SIZE];
	MpSagaAnswer answer = saga_do(definition, &saga, what);
	const char *broken = NULL;

	mp_saga_write(definition, from, text[0]);
	mp_saga_write(definition, &saga, text[1]);
	if (answer != MP_SAGA_OK && answer != MP_SAGA_UNDECIDED)
		broken = memcmp(from, &saga, sizeof(saga)) != 0 ? "it was refused and changed something" : NULL;
	else
	{
		broken = saga_broken_law(definition, &saga);
		if (broken == NULL)
			broken = saga_broken_step(definition, from, &saga);
		if (broken == NULL && mp_saga_has_ended(from->state))
			broken = "it had ended, and something happened";
	}
	if (broken != NULL)
		fail_msg("%s, %s, %s: %s", text[0], what, text[1], broken);
	(void) add(found, definition, &saga);
}

/* By a lease or more. */
static void
late_ones_are_refused(const MpSagaDefinition *definition, const MpSaga *saga, int step)
{
	MpSaga		copy = *saga;

	for (int late = 1; late <= 2; late++)
	{
		MpSagaReport report = {.step = step,.run = saga->step[step].run - late};
		MpSagaSettled settled;

		assert_int_equal(mp_saga_report(definition, &copy, &report, &settled), MP_SAGA_TOO_LATE);
		report.undo = true;
		assert_int_equal(mp_saga_report(definition, &copy, &report, &settled), MP_SAGA_TOO_LATE);
	}
	assert_memory_equal(&copy, saga, sizeof(copy));
}

static void
everything_happens(Found *found, const MpSagaDefinition *definition, const MpSaga *saga)
{
	static const char *const outcomes[] = {"success", "transient", "permanent", "unknown"};
	char		what[40];

	for (int step = 0; step < definition->step_count; step++)
	{
		snprintf(what, sizeof(what), "begin %d", step);
		happen(found, definition, saga, what);
		snprintf(what, sizeof(what), "undo %d", step);
		happen(found, definition, saga, what);
		snprintf(what, sizeof(what), "skip %d", step);
		happen(found, definition, saga, what);
		for (int i = 0; i < 4; i++)
		{
			snprintf(what, sizeof(what), "report %d %s", step, outcomes[i]);
			happen(found, definition, saga, what);
			snprintf(what, sizeof(what), "report-undo %d %s", step, outcomes[i]);
			happen(found, definition, saga, what);
		}
		late_ones_are_refused(definition, saga, step);
	}
	happen(found, definition, saga, "deadline");
	happen(found, definition, saga, "cancel");
	happen(found, definition, saga, "retry");
}

/* Unless something is in flight, the version it is on would do as a new one. */
static const char *
migrate_to_itself(const MpSagaDefinition *definition, const MpSaga *saga)
{
	MpSagaNext	next = mp_saga_next(definition, saga);
	MpSagaError error;
	MpSaga		there;
	MpSagaAnswer expected = mp_saga_has_ended(saga->state) ? MP_SAGA_ENDED
		: (next.in_flight | next.undo_in_flight) != 0 ? MP_SAGA_IN_FLIGHT : MP_SAGA_OK;

	if (mp_saga_migrate(definition, saga, definition, &there, &error) != expected)
		return "it cannot go to the version it is on";
	if (expected == MP_SAGA_OK && memcmp(saga, &there, sizeof(there)) != 0)
		return "it is another one on the same version";
	return NULL;
}

static void
explore(const char *text, int at_least)
{
	Found		found = {
		.text = calloc(SLOTS / 2, KEY),
		.key = calloc(SLOTS / 2, KEY),
		.slot = calloc(SLOTS, sizeof(int))
	};
	TestArena	arena;
	const MpSagaDefinition *definition;
	MpSaga		saga;
	bool		seen[MP_SAGA_CANCELLED + 1] = {false};

	assert_true(found.text != NULL && found.key != NULL && found.slot != NULL);
	test_arena_init(&arena);
	definition = saga_must_compile(text, &arena);
	mp_saga_init(definition, &saga);
	assert_null(saga_broken_law(definition, &saga));
	(void) add(&found, definition, &saga);
	for (int i = 0; i < found.count; i++)
	{
		const char *broken;

		assert_true(mp_saga_read(definition, found.text[i], &saga));
		seen[saga.state] = true;
		broken = drive(definition, saga, false);
		if (broken == NULL)
			broken = drive(definition, saga, true);
		if (broken == NULL)
			broken = migrate_to_itself(definition, &saga);
		if (broken != NULL)
			fail_msg("%s: %s", found.text[i], broken);
		everything_happens(&found, definition, &saga);
	}
	for (int i = 0; i <= MP_SAGA_CANCELLED; i++)
		assert_true(seen[i]);
	print_message("# %d states\n", found.count);
	assert_true(found.count >= at_least);
	free(found.text);
	free(found.key);
	free(found.slot);
	test_arena_free(&arena);
}

static void
the_meal_plan(void **state)
{
	(void) state;
	explore(SEQUENTIAL, 2000);
	explore(PARALLEL, 10000);
}

static void
a_pivot_outside(void **state)
{
	(void) state;
	explore(UNDECIDABLE, 700);
	explore(REVOCABLE, 10000);
}

static void
a_diamond(void **state)
{
	(void) state;
	explore(DIAMOND, 30000);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_meal_plan),
		cmocka_unit_test(a_pivot_outside),
		cmocka_unit_test(a_diamond)
	};

	return cmocka_run_group_tests_name("saga states", tests, NULL, NULL);
}
