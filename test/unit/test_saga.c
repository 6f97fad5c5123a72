/*
 * test_saga.c
 *		Sagas: what each outcome, operator and passing of time does to an instance.
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

typedef struct Row
{
	const char *definition;
	const char *from;			/* as mp_saga_write has it; see there for the letters */
	const char *what;
	MpSagaAnswer answer;
	const char *to;				/* NULL: as before */
	MpSagaState state;
} Row;

/* The rows of a test, to the first without a definition. */
static void
check_rows(void **state)
{
	for (const Row *row = *state; row->definition != NULL; row++)
	{
		TestArena	arena;
		const MpSagaDefinition *definition;
		MpSaga		before;
		MpSaga		saga;
		MpSagaAnswer answer;
		char		text[MP_SAGA_TEXT_SIZE];
		const char *broken;

		test_arena_init(&arena);
		definition = saga_must_compile(row->definition, &arena);
		if (!mp_saga_read(definition, row->from, &saga))
			fail_msg("%s: cannot be read", row->from);
		broken = saga_broken_law(definition, &saga);
		if (broken != NULL)
			fail_msg("%s is no saga: %s", row->from, broken);
		before = saga;
		answer = saga_do(definition, &saga, row->what);
		mp_saga_write(definition, &saga, text);
		if (answer != row->answer || strcmp(text, row->to == NULL ? row->from : row->to) != 0 || saga.state != row->state)
			fail_msg("%s, %s: answer %d, %s, %s instead of answer %d, %s, %s", row->from, row->what,
					 answer, text, mp_saga_state_name(saga.state),
					 row->answer, row->to == NULL ? row->from : row->to, mp_saga_state_name(row->state));
		broken = saga_broken_law(definition, &saga);
		if (broken == NULL)
			broken = saga_broken_step(definition, &before, &saga);
		if (broken != NULL)
			fail_msg("%s, %s, %s: %s", row->from, row->what, text, broken);
		test_arena_free(&arena);
	}
}

/* A test that is nothing but its rows. */
#define TABLE(rows) {#rows, check_rows, NULL, NULL, (void *) rows}

static const Row a_step_begins_when_all_before_it_is_done[] = {
	{SEQUENTIAL, ">- p p p p", "begin 0", MP_SAGA_OK, ">- a1 p p p", MP_SAGA_RUNNING},
	{SEQUENTIAL, ">- p p p p", "begin 1", MP_SAGA_NOT_NOW, NULL, MP_SAGA_RUNNING},
	{SEQUENTIAL, ">- p p p p", "begin 7", MP_SAGA_NOT_NOW, NULL, MP_SAGA_RUNNING},
	{SEQUENTIAL, ">- p p p p", "begin -1", MP_SAGA_NOT_NOW, NULL, MP_SAGA_RUNNING},
	{SEQUENTIAL, ">- a1 p p p", "begin 0", MP_SAGA_NOT_NOW, NULL, MP_SAGA_RUNNING},
	{SEQUENTIAL, ">- w1 p p p", "begin 1", MP_SAGA_NOT_NOW, NULL, MP_SAGA_RUNNING},
	{SEQUENTIAL, ">- w1 p p p", "begin 0", MP_SAGA_OK, ">- a2 p p p", MP_SAGA_RUNNING},
	{SEQUENTIAL, ">- s1 p p p", "begin 1", MP_SAGA_OK, ">- s1 a1 p p", MP_SAGA_RUNNING},
	{SEQUENTIAL, ">- s1 p p p", "begin 0", MP_SAGA_NOT_NOW, NULL, MP_SAGA_RUNNING},
	{SEQUENTIAL, ">- s1 p p p", "undo 0", MP_SAGA_NOT_NOW, NULL, MP_SAGA_RUNNING},
	{SEQUENTIAL, ">- x s1 s1 p", "begin 3", MP_SAGA_OK, ">- x s1 s1 a1", MP_SAGA_RUNNING},
	{SEQUENTIAL, ">- s1 s1 a1 p", "begin 3", MP_SAGA_NOT_NOW, NULL, MP_SAGA_RUNNING},
	{PARALLEL, ">- s1 s1 a1 p", "begin 3", MP_SAGA_OK, ">- s1 s1 a1 a1", MP_SAGA_RUNNING},
	/* a skipped step does not stand for those before it */
	{SEQUENTIAL, ">- a1 x p p", "begin 2", MP_SAGA_NOT_NOW, NULL, MP_SAGA_RUNNING},
	{SEQUENTIAL, ">- s1 s1 s1 s1", "begin 0", MP_SAGA_ENDED, NULL, MP_SAGA_COMPLETED},
	{DIAMOND, ">- s1 p p p", "begin 1", MP_SAGA_OK, ">- s1 a1 p p", MP_SAGA_RUNNING},
	{DIAMOND, ">- s1 a1 p p", "begin 2", MP_SAGA_OK, ">- s1 a1 a1 p", MP_SAGA_RUNNING},
	{DIAMOND, ">- s1 s1 a1 p", "begin 3", MP_SAGA_NOT_NOW, NULL, MP_SAGA_RUNNING},
	{NULL, NULL, NULL, MP_SAGA_OK, NULL, MP_SAGA_RUNNING}
};

static const Row forward_outcomes[] = {
	{SEQUENTIAL, ">- a1 p p p", "report 0 success", MP_SAGA_OK, ">- s1 p p p", MP_SAGA_RUNNING},
	{SEQUENTIAL, ">- s1 s1 s1 a1", "report 3 success", MP_SAGA_OK, ">- s1 s1 s1 s1", MP_SAGA_COMPLETED},
	{SEQUENTIAL, ">- s1 x s1 a1", "report 3 success", MP_SAGA_OK, ">- s1 x s1 s1", MP_SAGA_COMPLETED},
	/* attempts are left, and are used up; a function is rolled back whatever happened */
	{SEQUENTIAL, ">- a1 p p p", "report 0 transient", MP_SAGA_OK, ">- w1 p p p", MP_SAGA_RUNNING},
	{SEQUENTIAL, ">- a1 p p p", "report 0 unknown", MP_SAGA_OK, ">- w1 p p p", MP_SAGA_RUNNING},
	{SEQUENTIAL, ">- a2 p p p", "report 0 transient", MP_SAGA_OK, "<f0 f2 p p p", MP_SAGA_COMPENSATED},
	{SEQUENTIAL, ">- a2 p p p", "report 0 unknown", MP_SAGA_OK, "<f0 f2 p p p", MP_SAGA_COMPENSATED},
	{SEQUENTIAL, ">- a1 p p p", "report 0 permanent", MP_SAGA_OK, "<f0 f1 p p p", MP_SAGA_COMPENSATED},
	{SEQUENTIAL, ">- s1 a1 p p", "report 1 unknown", MP_SAGA_OK, ">- s1 w1? p p", MP_SAGA_RUNNING},
	{SEQUENTIAL, ">- s1 a2? p p", "report 1 success", MP_SAGA_OK, ">- s1 s2 p p", MP_SAGA_RUNNING},
	{SEQUENTIAL, ">- s1 a2? p p", "report 1 transient", MP_SAGA_OK, "<f1 s1 f2? p p", MP_SAGA_COMPENSATING},
	{SEQUENTIAL, ">- s1 a1 p p", "report 1 permanent", MP_SAGA_OK, "<f1 s1 f1 p p", MP_SAGA_COMPENSATING},
	{SEQUENTIAL, ">- s1 s1 a1 p", "report 2 permanent", MP_SAGA_OK, "<f2 s1 s1 f1 p", MP_SAGA_COMPENSATING},
	{SEQUENTIAL, ">- s1 s1 a1 p", "report 2 transient", MP_SAGA_OK, ">- s1 s1 w1 p", MP_SAGA_RUNNING},
	/* behind the pivot there is no way back */
	{SEQUENTIAL, ">- s1 s1 s1 a1", "report 3 transient", MP_SAGA_OK, ">- s1 s1 s1 w1", MP_SAGA_RUNNING},
	{SEQUENTIAL, ">- s1 s1 s1 a2", "report 3 transient", MP_SAGA_OK, ">- s1 s1 s1 k2", MP_SAGA_STUCK},
	{SEQUENTIAL, ">- s1 s1 s1 a1", "report 3 permanent", MP_SAGA_OK, ">- s1 s1 s1 k1", MP_SAGA_STUCK},
	{SEQUENTIAL, ">- s1 s1 s1 a2", "report 3 unknown", MP_SAGA_OK, ">- s1 s1 s1 k2?", MP_SAGA_STUCK},
	/* beside it a step is parked as well, and the pivot decides */
	{PARALLEL, ">- s1 s1 p a1", "report 3 permanent", MP_SAGA_OK, ">- s1 s1 p k1", MP_SAGA_STUCK},
	{PARALLEL, ">- s1 s1 p k1", "begin 2", MP_SAGA_OK, ">- s1 s1 a1 k1", MP_SAGA_STUCK},
	{PARALLEL, ">- s1 s1 a1 k1", "report 2 success", MP_SAGA_OK, ">- s1 s1 s1 k1", MP_SAGA_STUCK},
	{PARALLEL, ">- s1 s1 a1 k1", "report 2 permanent", MP_SAGA_OK, "<f2 s1 s1 f1 f1", MP_SAGA_COMPENSATING},
	{REVOCABLE, ">- s1 a1 k1", "report 1 success", MP_SAGA_OK, ">- s1 s1 k1", MP_SAGA_STUCK},
	{NULL, NULL, NULL, MP_SAGA_OK, NULL, MP_SAGA_RUNNING}
};

/* Both variants of the issue: step 3 of 4 fails. */
static const Row the_meal_plan[] = {
	/* behind: the mail was never started, and never can be */
	{SEQUENTIAL, "<f2 s1 s1 f1 p", "begin 3", MP_SAGA_NOT_NOW, NULL, MP_SAGA_COMPENSATING},
	{SEQUENTIAL, "<f2 s1 s1 f1 p", "undo 3", MP_SAGA_NOT_NOW, NULL, MP_SAGA_COMPENSATING},
	{SEQUENTIAL, "<f2 s1 s1 f1 p", "undo 2", MP_SAGA_NOT_NOW, NULL, MP_SAGA_COMPENSATING},
	{SEQUENTIAL, "<f2 s1 s1 f1 p", "undo 1", MP_SAGA_NOT_NOW, NULL, MP_SAGA_COMPENSATING},
	{SEQUENTIAL, "<f2 s1 s1 f1 p", "undo 0", MP_SAGA_OK, "<f2 A1.2 s1 f1 p", MP_SAGA_COMPENSATING},
	{SEQUENTIAL, "<f2 A1.2 s1 f1 p", "report-undo 0 success", MP_SAGA_OK, "<f2 U1.2 s1 f1 p", MP_SAGA_COMPENSATED},
	/* beside: not started, no correction */
	{PARALLEL, ">- s1 s1 a1 p", "report 2 permanent", MP_SAGA_OK, "<f2 s1 s1 f1 p", MP_SAGA_COMPENSATING},
	{PARALLEL, "<f2 s1 s1 f1 p", "undo 3", MP_SAGA_NOT_NOW, NULL, MP_SAGA_COMPENSATING},
	{PARALLEL, "<f2 A1.2 s1 f1 p", "report-undo 0 success", MP_SAGA_OK, "<f2 U1.2 s1 f1 p", MP_SAGA_COMPENSATED},
	/* sent: one correction; the plan came before it and goes after it */
	{PARALLEL, ">- s1 s1 a1 s1", "report 2 permanent", MP_SAGA_OK, "<f2 s1 s1 f1 s1", MP_SAGA_COMPENSATING},
	{PARALLEL, "<f2 s1 s1 f1 s1", "undo 3", MP_SAGA_OK, "<f2 s1 s1 f1 A1.2", MP_SAGA_COMPENSATING},
	{PARALLEL, "<f2 s1 s1 f1 s1", "undo 0", MP_SAGA_NOT_NOW, NULL, MP_SAGA_COMPENSATING},
	{PARALLEL, "<f2 s1 s1 f1 U1.2", "undo 0", MP_SAGA_OK, "<f2 A1.2 s1 f1 U1.2", MP_SAGA_COMPENSATING},
	{PARALLEL, "<f2 s1 s1 f1 U1.2", "undo 3", MP_SAGA_NOT_NOW, NULL, MP_SAGA_COMPENSATING},
	/* in flight: it settles first */
	{PARALLEL, ">- s1 s1 a1 a1", "report 2 permanent", MP_SAGA_OK, "<f2 s1 s1 f1 a1", MP_SAGA_COMPENSATING},
	{PARALLEL, "<f2 s1 s1 f1 a1", "undo 0", MP_SAGA_NOT_NOW, NULL, MP_SAGA_COMPENSATING},
	{PARALLEL, "<f2 s1 s1 f1 a1", "undo 3", MP_SAGA_NOT_NOW, NULL, MP_SAGA_COMPENSATING},
	{PARALLEL, "<f2 s1 s1 f1 a1", "report 3 success", MP_SAGA_OK, "<f2 s1 s1 f1 s1", MP_SAGA_COMPENSATING},
	{PARALLEL, "<f2 s1 s1 f1 a1", "report 3 transient", MP_SAGA_OK, "<f2 s1 s1 f1 f1", MP_SAGA_COMPENSATING},
	{PARALLEL, "<f2 s1 s1 f1 a1", "report 3 unknown", MP_SAGA_OK, "<f2 s1 s1 f1 f1?", MP_SAGA_COMPENSATING},
	{PARALLEL, "<f2 s1 s1 f1 f1?", "undo 3", MP_SAGA_OK, "<f2 s1 s1 f1 A1.2?", MP_SAGA_COMPENSATING},
	{PARALLEL, ">- s1 s1 a1 w1", "report 2 permanent", MP_SAGA_OK, "<f2 s1 s1 f1 f1", MP_SAGA_COMPENSATING},
	{NULL, NULL, NULL, MP_SAGA_OK, NULL, MP_SAGA_RUNNING}
};

static const Row compensation[] = {
	/* the reverse order holds across a step that has no undo */
	{DIAMOND, "<f3 s1 s1 s1 f1", "undo 0", MP_SAGA_NOT_NOW, NULL, MP_SAGA_COMPENSATING},
	{DIAMOND, "<f3 s1 s1 s1 f1", "undo 1", MP_SAGA_NOT_NOW, NULL, MP_SAGA_COMPENSATING},
	/* what a service may have done is undone although it said that it failed */
	{DIAMOND, "<f3 s1 s1 s1 f1", "undo 3", MP_SAGA_OK, "<f3 s1 s1 s1 A1.2", MP_SAGA_COMPENSATING},
	{DIAMOND, "<f3 s1 s1 s1 A1.2", "undo 1", MP_SAGA_NOT_NOW, NULL, MP_SAGA_COMPENSATING},
	{DIAMOND, "<f3 s1 s1 s1 U1.2", "undo 1", MP_SAGA_OK, "<f3 s1 A1.2 s1 U1.2", MP_SAGA_COMPENSATING},
	{DIAMOND, "<f3 s1 U1.2 s1 U1.2", "undo 0", MP_SAGA_OK, "<f3 A1.2 U1.2 s1 U1.2", MP_SAGA_COMPENSATING},
	{DIAMOND, "<f3 A1.2 U1.2 s1 U1.2", "report-undo 0 success", MP_SAGA_OK, "<f3 U1.2 U1.2 s1 U1.2", MP_SAGA_COMPENSATED},
	/* a function that failed left nothing, one that only reads is not waited for */
	{DIAMOND, ">- s1 a1 a1 p", "report 1 permanent", MP_SAGA_OK, "<f1 s1 f1 f1 p", MP_SAGA_COMPENSATING},
	{DIAMOND, "<f1 s1 f1 f1 p", "report 2 success", MP_SAGA_TOO_LATE, NULL, MP_SAGA_COMPENSATING},
	{DIAMOND, "<f1 s1 f1 f1 p", "undo 1", MP_SAGA_NOT_NOW, NULL, MP_SAGA_COMPENSATING},
	{DIAMOND, "<f1 s1 f1 f1 p", "undo 0", MP_SAGA_OK, "<f1 A1.2 f1 f1 p", MP_SAGA_COMPENSATING},
	/* it fails: again, and then an operator */
	{DIAMOND, "<f1 A1.2 f1 f1 p", "report-undo 0 transient", MP_SAGA_OK, "<f1 W1.2 f1 f1 p", MP_SAGA_COMPENSATING},
	{DIAMOND, "<f1 A1.2 f1 f1 p", "report-undo 0 unknown", MP_SAGA_OK, "<f1 W1.2 f1 f1 p", MP_SAGA_COMPENSATING},
	{DIAMOND, "<f1 A1.2 f1 f1 p", "report-undo 0 permanent", MP_SAGA_OK, "<f1 K1.2 f1 f1 p", MP_SAGA_STUCK},
	{DIAMOND, "<f1 W1.2 f1 f1 p", "undo 0", MP_SAGA_OK, "<f1 A2.3 f1 f1 p", MP_SAGA_COMPENSATING},
	{DIAMOND, "<f1 A2.3 f1 f1 p", "report-undo 0 transient", MP_SAGA_OK, "<f1 K2.3 f1 f1 p", MP_SAGA_STUCK},
	{DIAMOND, "<f1 K2.3 f1 f1 p", "undo 0", MP_SAGA_NOT_NOW, NULL, MP_SAGA_STUCK},
	{DIAMOND, "<f3 s1 s1 s1 K2.3", "undo 1", MP_SAGA_NOT_NOW, NULL, MP_SAGA_STUCK},
	{DIAMOND, "<f3 U1.2 U1.2 s1 U1.2", "undo 0", MP_SAGA_ENDED, NULL, MP_SAGA_COMPENSATED},
	{NULL, NULL, NULL, MP_SAGA_OK, NULL, MP_SAGA_RUNNING}
};

static const Row late_completions[] = {
	/* the lease was lost, and the step waits or is in flight again */
	{DIAMOND, ">- w1? p p p", "report 0 success", MP_SAGA_TOO_LATE, NULL, MP_SAGA_RUNNING},
	{DIAMOND, ">- a2? p p p", "report 0 success 1", MP_SAGA_TOO_LATE, NULL, MP_SAGA_RUNNING},
	{DIAMOND, ">- a2? p p p", "report 0 success 3", MP_SAGA_TOO_LATE, NULL, MP_SAGA_RUNNING},
	{DIAMOND, ">- a2? p p p", "report 0 success 2", MP_SAGA_OK, ">- s2 p p p", MP_SAGA_RUNNING},
	{DIAMOND, ">- s1 p p p", "report 0 success", MP_SAGA_TOO_LATE, NULL, MP_SAGA_RUNNING},
	{DIAMOND, ">- s1 p p p", "report 1 success", MP_SAGA_TOO_LATE, NULL, MP_SAGA_RUNNING},
	{DIAMOND, ">- s1 p p p", "report 9 success 0", MP_SAGA_TOO_LATE, NULL, MP_SAGA_RUNNING},
	/* it was given up, is being undone, is undone */
	{DIAMOND, "<f3 s1 s1 s1 f2?", "report 3 success", MP_SAGA_TOO_LATE, NULL, MP_SAGA_COMPENSATING},
	{DIAMOND, "<f3 s1 s1 s1 A1.3?", "report 3 success 2", MP_SAGA_TOO_LATE, NULL, MP_SAGA_COMPENSATING},
	{DIAMOND, "<f3 s1 s1 s1 A1.3?", "report 3 success 3", MP_SAGA_TOO_LATE, NULL, MP_SAGA_COMPENSATING},
	{DIAMOND, "<f3 s1 s1 s1 U1.3?", "report 3 success 2", MP_SAGA_TOO_LATE, NULL, MP_SAGA_COMPENSATING},
	/* an undo of yesterday, a forward attempt that says it was an undo */
	{DIAMOND, "<f3 s1 s1 s1 A2.4", "report-undo 3 success 3", MP_SAGA_TOO_LATE, NULL, MP_SAGA_COMPENSATING},
	{DIAMOND, ">- a1 p p p", "report-undo 0 success", MP_SAGA_TOO_LATE, NULL, MP_SAGA_RUNNING},
	{SEQUENTIAL, ">- s1 s1 s1 s1", "report 3 success", MP_SAGA_TOO_LATE, NULL, MP_SAGA_COMPLETED},
	{NULL, NULL, NULL, MP_SAGA_OK, NULL, MP_SAGA_RUNNING}
};

static const Row cancelling[] = {
	{SEQUENTIAL, ">- p p p p", "cancel", MP_SAGA_OK, "<c p p p p", MP_SAGA_CANCELLED},
	{SEQUENTIAL, ">- p p p p", "deadline", MP_SAGA_OK, "<d p p p p", MP_SAGA_COMPENSATED},
	{SEQUENTIAL, ">- s1 w1 p p", "cancel", MP_SAGA_OK, "<c s1 f1 p p", MP_SAGA_COMPENSATING},
	{SEQUENTIAL, ">- s1 s1 w1 p", "cancel", MP_SAGA_OK, "<c s1 s1 f1 p", MP_SAGA_COMPENSATING},
	{SEQUENTIAL, "<c A1.2 s1 f1 p", "report-undo 0 success", MP_SAGA_OK, "<c U1.2 s1 f1 p", MP_SAGA_CANCELLED},
	{DIAMOND, ">- a1 p p p", "cancel", MP_SAGA_OK, "<c a1 p p p", MP_SAGA_COMPENSATING},
	{DIAMOND, "<c a1 p p p", "report 0 permanent", MP_SAGA_OK, "<c f1 p p p", MP_SAGA_COMPENSATING},
	/* once is enough, and the first reason stays */
	{DIAMOND, "<c a1 p p p", "cancel", MP_SAGA_UNCHANGED, NULL, MP_SAGA_COMPENSATING},
	{DIAMOND, "<f1 s1 f1 f1 p", "cancel", MP_SAGA_UNCHANGED, NULL, MP_SAGA_COMPENSATING},
	{DIAMOND, "<f1 s1 f1 f1 p", "deadline", MP_SAGA_UNCHANGED, NULL, MP_SAGA_COMPENSATING},
	/* the pivot has succeeded, or nobody knows yet */
	{SEQUENTIAL, ">- s1 s1 s1 p", "cancel", MP_SAGA_TOO_LATE, NULL, MP_SAGA_RUNNING},
	{SEQUENTIAL, ">- s1 s1 s1 k1", "cancel", MP_SAGA_TOO_LATE, NULL, MP_SAGA_STUCK},
	{SEQUENTIAL, ">- s1 s1 s1 p", "deadline", MP_SAGA_TOO_LATE, NULL, MP_SAGA_RUNNING},
	{SEQUENTIAL, ">- s1 s1 s1 s1", "cancel", MP_SAGA_ENDED, NULL, MP_SAGA_COMPLETED},
	{SEQUENTIAL, "<c p p p p", "cancel", MP_SAGA_ENDED, NULL, MP_SAGA_CANCELLED},
	{UNDECIDABLE, ">- s1 a1 p", "cancel", MP_SAGA_UNDECIDED, ">c s1 a1 p", MP_SAGA_RUNNING},
	{UNDECIDABLE, ">- s1 a1 p", "deadline", MP_SAGA_UNDECIDED, ">d s1 a1 p", MP_SAGA_RUNNING},
	{UNDECIDABLE, ">c s1 a1 p", "cancel", MP_SAGA_UNCHANGED, NULL, MP_SAGA_RUNNING},
	{UNDECIDABLE, ">c s1 a1 p", "deadline", MP_SAGA_UNCHANGED, NULL, MP_SAGA_RUNNING},
	{UNDECIDABLE, ">d s1 a1 p", "cancel", MP_SAGA_UNDECIDED, ">c s1 a1 p", MP_SAGA_RUNNING},
	{UNDECIDABLE, ">c s1 a1 p", "report 1 success", MP_SAGA_OK, ">- s1 s1 p", MP_SAGA_RUNNING},
	{UNDECIDABLE, ">c s1 a1 p", "report 1 permanent", MP_SAGA_OK, "<c s1 f1 p", MP_SAGA_COMPENSATING},
	{UNDECIDABLE, ">c s1 a1 p", "report 1 transient", MP_SAGA_OK, "<c s1 f1 p", MP_SAGA_COMPENSATING},
	/* only a further attempt tells, and nothing else goes on meanwhile */
	{UNDECIDABLE, ">c s1 a1 p", "report 1 unknown", MP_SAGA_OK, ">c s1 w1? p", MP_SAGA_RUNNING},
	{UNDECIDABLE, ">- s1 w1? p", "cancel", MP_SAGA_UNDECIDED, ">c s1 w1? p", MP_SAGA_RUNNING},
	{UNDECIDABLE, ">c s1 w1? p", "begin 1", MP_SAGA_OK, ">c s1 a2? p", MP_SAGA_RUNNING},
	{UNDECIDABLE, ">c s1 a2? p", "report 1 permanent", MP_SAGA_OK, "<c s1 f2 p", MP_SAGA_COMPENSATING},
	{PARALLEL, ">c s1 s1 a1 p", "begin 3", MP_SAGA_NOT_NOW, NULL, MP_SAGA_RUNNING},
	{PARALLEL, ">c s1 s1 a1 p", "report 2 success", MP_SAGA_OK, ">- s1 s1 s1 p", MP_SAGA_RUNNING},
	{PARALLEL, ">c s1 s1 a1 w1", "begin 3", MP_SAGA_NOT_NOW, NULL, MP_SAGA_RUNNING},
	{PARALLEL, ">c s1 s1 a1 a1", "report 3 transient", MP_SAGA_OK, ">c s1 s1 a1 w1", MP_SAGA_RUNNING},
	/* a pivot that has an undo need not be known: it is undone */
	{REVOCABLE, ">- s1 w1? p", "cancel", MP_SAGA_OK, "<c s1 f1? p", MP_SAGA_COMPENSATING},
	{REVOCABLE, ">- s1 a1 p", "cancel", MP_SAGA_UNDECIDED, ">c s1 a1 p", MP_SAGA_RUNNING},
	{NULL, NULL, NULL, MP_SAGA_OK, NULL, MP_SAGA_RUNNING}
};

static const Row a_pivot_of_which_nobody_knows[] = {
	{UNDECIDABLE, ">- s1 a2 p", "report 1 unknown", MP_SAGA_OK, ">- s1 k2? p", MP_SAGA_STUCK},
	{UNDECIDABLE, ">- s1 a2? p", "report 1 transient", MP_SAGA_OK, ">- s1 k2? p", MP_SAGA_STUCK},
	{UNDECIDABLE, ">- s1 a2? p", "report 1 permanent", MP_SAGA_OK, "<f1 s1 f2 p", MP_SAGA_COMPENSATING},
	{UNDECIDABLE, ">- s1 a2 p", "report 1 transient", MP_SAGA_OK, "<f1 s1 f2 p", MP_SAGA_COMPENSATING},
	{UNDECIDABLE, ">d s1 a2 p", "report 1 unknown", MP_SAGA_OK, ">d s1 k2? p", MP_SAGA_STUCK},
	{UNDECIDABLE, ">- s1 k2? p", "deadline", MP_SAGA_UNDECIDED, ">d s1 k2? p", MP_SAGA_STUCK},
	/* an operator asks again, or says that it happened, or that it did not */
	{UNDECIDABLE, ">- s1 k2? p", "retry", MP_SAGA_OK, ">- s1 w0.2? p", MP_SAGA_RUNNING},
	{UNDECIDABLE, ">d s1 k2? p", "retry", MP_SAGA_OK, ">d s1 w0.2? p", MP_SAGA_RUNNING},
	{UNDECIDABLE, ">d s1 w0.2? p", "begin 1", MP_SAGA_OK, ">d s1 a1.3? p", MP_SAGA_RUNNING},
	{UNDECIDABLE, ">- s1 k2? p", "skip 1", MP_SAGA_OK, ">- s1 x2 p", MP_SAGA_RUNNING},
	{UNDECIDABLE, ">d s1 k2? p", "skip 1", MP_SAGA_OK, ">- s1 x2 p", MP_SAGA_RUNNING},
	{UNDECIDABLE, ">- s1 k2? p", "cancel", MP_SAGA_OK, "<c s1 f2 p", MP_SAGA_COMPENSATING},
	{UNDECIDABLE, ">c s1 k2? p", "cancel", MP_SAGA_OK, "<c s1 f2 p", MP_SAGA_COMPENSATING},
	{UNDECIDABLE, ">d s1 k2? p", "cancel", MP_SAGA_OK, "<c s1 f2 p", MP_SAGA_COMPENSATING},
	/* with an undo it is never parked */
	{REVOCABLE, ">- s1 a2 p", "report 1 unknown", MP_SAGA_OK, "<f1 s1 f2? p", MP_SAGA_COMPENSATING},
	{REVOCABLE, "<f1 s1 f2? p", "undo 1", MP_SAGA_OK, "<f1 s1 A1.3? p", MP_SAGA_COMPENSATING},
	{REVOCABLE, "<f1 s1 f2? p", "undo 0", MP_SAGA_NOT_NOW, NULL, MP_SAGA_COMPENSATING},
	{NULL, NULL, NULL, MP_SAGA_OK, NULL, MP_SAGA_RUNNING}
};

static const Row operators[] = {
	{SEQUENTIAL, ">- s1 s1 s1 k2", "retry", MP_SAGA_OK, ">- s1 s1 s1 w0.2", MP_SAGA_RUNNING},
	{SEQUENTIAL, ">- s1 s1 s1 w0.2", "begin 3", MP_SAGA_OK, ">- s1 s1 s1 a1.3", MP_SAGA_RUNNING},
	{SEQUENTIAL, ">- s1 s1 s1 a1.3", "report 3 transient", MP_SAGA_OK, ">- s1 s1 s1 w1.3", MP_SAGA_RUNNING},
	{SEQUENTIAL, ">- s1 s1 s1 w1", "retry", MP_SAGA_UNCHANGED, NULL, MP_SAGA_RUNNING},
	{SEQUENTIAL, ">- s1 s1 s1 s1", "retry", MP_SAGA_ENDED, NULL, MP_SAGA_COMPLETED},
	{DIAMOND, "<f1 K2.3 f1 f1 p", "retry", MP_SAGA_OK, "<f1 W0.3 f1 f1 p", MP_SAGA_COMPENSATING},
	{DIAMOND, "<f1 W0.3 f1 f1 p", "undo 0", MP_SAGA_OK, "<f1 A1.4 f1 f1 p", MP_SAGA_COMPENSATING},
	/* skipping forward */
	{SEQUENTIAL, ">- s1 s1 s1 k2", "skip 3", MP_SAGA_OK, ">- s1 s1 s1 x2", MP_SAGA_COMPLETED},
	{SEQUENTIAL, ">- s1 w1? p p", "skip 1", MP_SAGA_OK, ">- s1 x1 p p", MP_SAGA_RUNNING},
	{SEQUENTIAL, ">- p p p p", "skip 3", MP_SAGA_OK, ">- p p p x", MP_SAGA_RUNNING},
	{SEQUENTIAL, ">- p p p p", "skip 2", MP_SAGA_NOT_NOW, NULL, MP_SAGA_RUNNING},
	{SEQUENTIAL, ">- p p p p", "skip 4", MP_SAGA_NOT_NOW, NULL, MP_SAGA_RUNNING},
	{SEQUENTIAL, ">- s1 s1 w1 p", "skip 2", MP_SAGA_NOT_NOW, NULL, MP_SAGA_RUNNING},
	{SEQUENTIAL, ">- s1 a1 p p", "skip 1", MP_SAGA_IN_FLIGHT, NULL, MP_SAGA_RUNNING},
	{SEQUENTIAL, ">- s1 p p p", "skip 0", MP_SAGA_NOT_NOW, NULL, MP_SAGA_RUNNING},
	{SEQUENTIAL, ">- x p p p", "skip 0", MP_SAGA_NOT_NOW, NULL, MP_SAGA_RUNNING},
	{PARALLEL, ">c s1 s1 a1 p", "skip 3", MP_SAGA_NOT_NOW, NULL, MP_SAGA_RUNNING},
	/* skipped, but a service may have begun it: it is undone all the same */
	{DIAMOND, ">- x1 a1 p p", "report 1 permanent", MP_SAGA_OK, "<f1 x1 f1 p p", MP_SAGA_COMPENSATING},
	{DIAMOND, "<f1 x1 f1 p p", "undo 0", MP_SAGA_OK, "<f1 A1.2 f1 p p", MP_SAGA_COMPENSATING},
	{DIAMOND, ">- x a1 p p", "report 1 permanent", MP_SAGA_OK, "<f1 x f1 p p", MP_SAGA_COMPENSATED},
	/* skipping an undo, before its turn as well */
	{DIAMOND, "<f1 K2.3 f1 f1 p", "skip 0", MP_SAGA_OK, "<f1 X2.3 f1 f1 p", MP_SAGA_COMPENSATED},
	{DIAMOND, "<f3 s1 s1 s1 K2.3", "skip 3", MP_SAGA_OK, "<f3 s1 s1 s1 X2.3", MP_SAGA_COMPENSATING},
	{DIAMOND, "<f3 s1 s1 s1 X2.3", "undo 1", MP_SAGA_OK, "<f3 s1 A1.2 s1 X2.3", MP_SAGA_COMPENSATING},
	{DIAMOND, "<f3 s1 s1 s1 W1.2", "skip 0", MP_SAGA_OK, "<f3 X1 s1 s1 W1.2", MP_SAGA_COMPENSATING},
	{DIAMOND, "<f3 s1 s1 s1 A1.2", "skip 3", MP_SAGA_IN_FLIGHT, NULL, MP_SAGA_COMPENSATING},
	{DIAMOND, "<f3 s1 s1 s1 U1.2", "skip 3", MP_SAGA_NOT_NOW, NULL, MP_SAGA_COMPENSATING},
	{DIAMOND, "<f3 s1 s1 s1 U1.2", "skip 2", MP_SAGA_NOT_NOW, NULL, MP_SAGA_COMPENSATING},
	{DIAMOND, "<f3 U1.2 U1.2 s1 U1.2", "skip 0", MP_SAGA_ENDED, NULL, MP_SAGA_COMPENSATED},
	{NULL, NULL, NULL, MP_SAGA_OK, NULL, MP_SAGA_RUNNING}
};

/* How long until the next attempt, and why there is none. */
static void
what_follows_a_failure(void **state)
{
	TestArena	arena;
	MpSagaSettled settled;
	MpSagaReport report = {.step = 0,.run = 1,.outcome = MP_SAGA_OUTCOME_TRANSIENT};
	const MpSagaDefinition *definition;
	MpSaga		saga;

	(void) state;
	test_arena_init(&arena);
	definition = saga_must_compile("{'steps':[{'name':'a','kind':'compensatable','service':'s','undo_service':'s',"
								   "'retry':{'max_attempts':3,'base_delay':4,'multiplier':3,'jitter':0.5,'max_age':20}}]}",
								   &arena);

	assert_true(mp_saga_read(definition, ">- a1", &saga));
	assert_int_equal(mp_saga_report(definition, &saga, &report, &settled), MP_SAGA_OK);
	assert_true(settled.again);
	assert_true(settled.delay == 4);

	/* the second wait is three times as long, half of it by chance */
	assert_true(mp_saga_read(definition, ">- a2", &saga));
	report.run = 2;
	report.random = 0.5;
	assert_int_equal(mp_saga_report(definition, &saga, &report, &settled), MP_SAGA_OK);
	assert_true(settled.again && settled.delay == 9);

	assert_true(mp_saga_read(definition, ">- a2", &saga));
	report.age = 12;
	assert_int_equal(mp_saga_report(definition, &saga, &report, &settled), MP_SAGA_OK);
	assert_false(settled.again);
	assert_int_equal(settled.verdict, MP_VERDICT_MAX_AGE);
	assert_int_equal(saga.step[0].state, MP_SAGA_STEP_FAILED);

	assert_true(mp_saga_read(definition, ">- a2", &saga));
	report.age = 0;
	report.crashes = MP_MAX_CRASHES;
	assert_int_equal(mp_saga_report(definition, &saga, &report, &settled), MP_SAGA_OK);
	assert_int_equal(settled.verdict, MP_VERDICT_CRASH);

	/* there are attempts left, but the saga has turned back */
	assert_true(mp_saga_read(definition, "<c a2", &saga));
	report.crashes = 0;
	assert_int_equal(mp_saga_report(definition, &saga, &report, &settled), MP_SAGA_OK);
	assert_false(settled.again);
	assert_int_equal(settled.verdict, MP_VERDICT_RETRY);

	/* an undo has a policy of its own */
	assert_true(mp_saga_read(definition, "<c A9.10", &saga));
	report.undo = true;
	report.run = 10;
	report.random = 0;
	assert_int_equal(mp_saga_report(definition, &saga, &report, &settled), MP_SAGA_OK);
	assert_true(settled.again && settled.delay == 60);
	test_arena_free(&arena);
}

static void
the_text_of_an_instance(void **state)
{
	static const char *const good[] = {
		">- p p p p", ">- a1 p p p", "<f2 U1.2 s1 f1 p", ">d w1000000000.1? s1 k0.2 x", "<c A1.2 f f X1.3?", "<d W a1 f K1.2"
	};
	static const char *const bad[] = {
		"", ">", ">-", ">- p p p", ">- p p p p ", ">- p p p p p", "=- p p p p", ">z p p p p", ">- q p p p", ">-p p p p",
		">- p  p p p", ">- a1. p p p", ">- a1.? p p p", ">- a-1 p p p", ">- a1000000001 p p p", "<f4 p p p p", "<f-1 p p p p",
		">- p p p p?x", ">- p p p P",
		/* no call makes these */
		">- f1 p p p", ">- U1.2 p p p", "<f0 w1 p p p", "<f0 f1 k1 p p", "<f0 s1 U1.2 p p", "<f2 s1 s1 s1 p", "<f2 s1 s1 x p"
	};
	TestArena	arena;
	const MpSagaDefinition *definition;
	MpSaga		saga;
	char		text[MP_SAGA_TEXT_SIZE];

	(void) state;
	test_arena_init(&arena);
	definition = saga_must_compile(PARALLEL, &arena);
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
	{
		assert_true(mp_saga_read(definition, good[i], &saga));
		mp_saga_write(definition, &saga, text);
		assert_string_equal(text, good[i]);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
	{
		if (mp_saga_read(definition, bad[i], &saga))
			fail_msg("%s was read", bad[i]);
	}
	test_arena_free(&arena);
}

static void
another_version(void **state)
{
#define A "{'name':'a','kind':'compensatable','service':'s','undo_service':'s','after':[]}"
#define B "{'name':'b','kind':'pivot','service':'s','after':['a']}"
#define C "{'name':'c','kind':'retriable','service':'s','after':['b']}"
#define N "{'name':'n','kind':'read_only','service':'s','after':[]}"
#define HOLDS(names) "],'locks':[" names
	static const struct
	{
		const char *from;
		const char *instance;
		const char *to;
		MpSagaAnswer answer;
		const char *result;		/* the instance there, or why not */
	}			rows[] = {
		{A "," B "," C, ">- s1 w1? p", N "," A "," B "," C, MP_SAGA_OK, ">- p s1 w1? p"},
		{A "," B "," C, ">- s1 w1? p", A "," B "," N "," C, MP_SAGA_OK, ">- s1 w1? p p"},
		{A "," B "," C, ">- s1 p p", C "," N "," B "," A, MP_SAGA_OK, ">- p p p s1"},
		{A "," B "," C, ">- a1 p p", A "," B "," C, MP_SAGA_IN_FLIGHT, NULL},
		{A "," B "," C, "<f1 A1.2 f1 p", A "," B "," C, MP_SAGA_IN_FLIGHT, NULL},
		{A "," B "," C, ">- s1 s1 s1", A "," B "," C, MP_SAGA_ENDED, NULL},
		{A "," B "," C, ">- s1 p p", "{'name':'a','kind':'read_only','service':'s'}," B, MP_SAGA_NOT_NOW,
		"step \"a\": has begun, and is of another kind in the new version"},
		{A "," B "," C, ">- s1 p p", "{'name':'a','kind':'compensatable','run':'f','undo_service':'s'}," B, MP_SAGA_NOT_NOW,
		"step \"a\": has begun, and is a function in one version, of a service in the other"},
		{A "," B "," C, ">- s1 w1 p", A ",{'name':'b','kind':'pivot','service':'s','undo_service':'s'}", MP_SAGA_NOT_NOW,
		"step \"b\": has begun, and has an undo in one version only"},
		{A "," B "," C, ">- s1 s1 w1", A "," B, MP_SAGA_NOT_NOW, "step \"c\": has begun, and is not in the new version"},
		{A "," B "," C, ">- s1 s1 p", A "," B, MP_SAGA_OK, ">- s1 s1"},
		{A "," B "," C, ">- s1 w1 p", A "," N ",{'name':'b','kind':'pivot','service':'s','after':['a','n']}", MP_SAGA_NOT_NOW,
		"step \"b\": has begun, and comes behind a step in the new version that is not done"},
		/* what an operator skipped ahead waits for nothing */
		{A "," B "," C, ">- p p x", A "," B "," C, MP_SAGA_OK, ">- p p x"},
		/* going back, the order of what never began is of no concern */
		{A "," B "," C, "<f1 K1.2 f1 p", A "," N ",{'name':'b','kind':'pivot','service':'s','after':['a','n']}", MP_SAGA_OK,
		"<f2 K1.2 p f1"},
		/* the names that it holds are those of its start */
		{A "," B HOLDS("'x','y'"), ">- s1 p", A "," B HOLDS("'y','x'"), MP_SAGA_OK, ">- s1 p"},
		{A "," B HOLDS("'x'"), ">- s1 p", A "," B, MP_SAGA_NOT_NOW, "it would hold other names"},
		{A "," B, ">- s1 p", A "," B HOLDS("'x'"), MP_SAGA_NOT_NOW, "it would hold other names"},
		{A "," B HOLDS("'x','x'"), ">- s1 p", A "," B HOLDS("'x','y'"), MP_SAGA_NOT_NOW, "it would hold other names"},
	};

	(void) state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
	{
		TestArena	arena;
		MpSagaError error;
		char		text[2][2000];
		char		result[MP_SAGA_TEXT_SIZE] = "";
		const MpSagaDefinition *from;
		const MpSagaDefinition *to;
		MpSaga		saga;
		MpSaga		there;
		MpSagaAnswer answer;

		test_arena_init(&arena);
		snprintf(text[0], sizeof(text[0]), "{'steps':[%s]}", rows[i].from);
		snprintf(text[1], sizeof(text[1]), "{'steps':[%s]}", rows[i].to);
		from = saga_must_compile(text[0], &arena);
		to = saga_must_compile(text[1], &arena);
		assert_true(mp_saga_read(from, rows[i].instance, &saga));
		answer = mp_saga_migrate(from, &saga, to, &there, &error);
		if (answer == MP_SAGA_OK)
			mp_saga_write(to, &there, result);
		else if (answer == MP_SAGA_NOT_NOW)
			snprintf(result, sizeof(result), "%s", error.message);
		if (answer != rows[i].answer || (rows[i].result != NULL && strcmp(result, rows[i].result) != 0))
			fail_msg("row %zu: answer %d, %s", i, answer, result);
		test_arena_free(&arena);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TABLE(a_step_begins_when_all_before_it_is_done),
		TABLE(forward_outcomes),
		TABLE(the_meal_plan),
		TABLE(compensation),
		TABLE(late_completions),
		TABLE(cancelling),
		TABLE(a_pivot_of_which_nobody_knows),
		TABLE(operators),
		cmocka_unit_test(what_follows_a_failure),
		cmocka_unit_test(the_text_of_an_instance),
		cmocka_unit_test(another_version)
	};

	return cmocka_run_group_tests_name("saga", tests, NULL, NULL);
}
