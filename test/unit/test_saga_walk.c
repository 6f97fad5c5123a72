/*
 * test_saga_walk.c
 *		Sagas: thousands of random definitions, each run in a small world in which
 *		attempts fail, workers die with or without having had their effect, late
 *		ones come back, transactions are lost, and operators interfere.
 *
 * The world keeps the truth, which the machine does not see: whose effect is
 * there.  What must hold of it are the invariants of docs/sagas.md.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "saga_random.h"
#include "saga_run.h"

#define WORKERS 256

/* A service's worker that holds an attempt, or held it. */
typedef struct Worker
{
	int			step;
	bool		undo;
	int32_t		run;
	bool		dead;			/* will not report */
} Worker;

/* What the world knows of a step. */
typedef struct Truth
{
	bool		effect;			/* is there now */
	int			forward;		/* commits of its effect */
	int			undone;			/* commits of its undo that found an effect */
} Truth;

typedef struct World
{
	Random		random;
	const MpSagaDefinition *definition;
	MpSaga		saga;
	char		stored[MP_SAGA_TEXT_SIZE];	/* what the last commit left */
	Truth		truth[MP_SAGA_MAX_STEPS];
	Worker		worker[WORKERS];
	int			worker_count;
	bool		calm;			/* no more faults */
	char		log[8000];
} World;

__attribute__((format(printf, 2, 3)))
static void
note(World *w, const char *format,...)
{
	size_t		used = strlen(w->log);
	va_list		arguments;

	va_start(arguments, format);
	vsnprintf(w->log + used, sizeof(w->log) - used, format, arguments);
	va_end(arguments);
}

static bool
chance(World *w, int percent)
{
	return !w->calm && random_below(&w->random, 100) < percent;
}

static int
pick(World *w, MpSagaSteps steps)
{
	int			nth = random_below(&w->random, __builtin_popcountll(steps));

	while (nth-- > 0)
		steps &= steps - 1;
	return __builtin_ctzll(steps);
}

static void
check(World *w, const char *broken)
{
	if (broken != NULL)
	{
		print_error("%s%s\n", w->log, w->stored);
		fail_msg("%s", broken);
	}
}

/* After every call: the laws, and the text of it is the saga. */
static void
commit(World *w)
{
	MpSaga		before;
	MpSaga		again;

	assert_true(mp_saga_read(w->definition, w->stored, &before));
	mp_saga_write(w->definition, &w->saga, w->stored);
	check(w, saga_broken_law(w->definition, &w->saga));
	assert_true(mp_saga_read(w->definition, w->stored, &again));
	if (again.state != w->saga.state || again.back != w->saga.back || again.cause != w->saga.cause)
		check(w, "the text is another saga");
	/* a function's begin and report are one commit, so that fences may rise */
	if (before.back && !again.back)
		check(w, "it has turned twice");
}

/* The process is gone: what was not committed has not happened. */
static void
crash(World *w)
{
	assert_true(mp_saga_read(w->definition, w->stored, &w->saga));
	note(w, "crash\n");
}

static void
commit_effect(World *w, int step, bool undo)
{
	Truth	   *truth = &w->truth[step];
	const MpSagaStep *definition = &w->definition->steps[step];

	if (!undo)
	{
		if (w->saga.step[step].state >= MP_SAGA_STEP_UNDO_STARTED)
			check(w, "I18: an effect after its compensation began");
		if (truth->undone > 0)
			check(w, "I18: an effect after its compensation");
		if (definition->kind == MP_SAGA_READ_ONLY || truth->effect)
			return;				/* its idempotency key is known */
		truth->effect = true;
		truth->forward++;
		return;
	}
	for (int i = 0; i < w->definition->step_count; i++)
	{
		if ((definition->behind & MP_SAGA_STEP(i)) != 0 && w->truth[i].effect &&
			w->saga.step[i].state != MP_SAGA_STEP_UNDO_SKIPPED)
			check(w, "I18: compensated before what came behind it");
	}
	if (w->definition->pivot >= 0 && (w->definition->turning & MP_SAGA_STEP(step)) != 0 &&
		step != w->definition->pivot && w->truth[w->definition->pivot].effect &&
		w->saga.step[w->definition->pivot].state != MP_SAGA_STEP_UNDO_SKIPPED)
		check(w, "I19: compensated although the pivot has had its effect");
	truth->undone += truth->effect;
	truth->effect = false;
}

static MpSagaAnswer
report(World *w, int step, bool undo, int32_t run, MpSagaOutcome outcome)
{
	MpSagaSettled settled;
	MpSagaReport report = {.step = step,.undo = undo,.run = run,.outcome = outcome};

	return mp_saga_report(w->definition, &w->saga, &report, &settled);
}

/* A function: attempt, effect and outcome in one transaction. */
static void
run_function(World *w, int step, bool undo)
{
	Truth		before = w->truth[step];
	MpSagaOutcome outcome = chance(w, 30) ? MP_SAGA_OUTCOME_TRANSIENT
		: chance(w, 15) ? MP_SAGA_OUTCOME_PERMANENT : MP_SAGA_OUTCOME_SUCCESS;

	note(w, "function %d%s: %d\n", step, undo ? " undo" : "", outcome);
	if (mp_saga_begin(w->definition, &w->saga, step, undo) != MP_SAGA_OK)
		check(w, "what may begin cannot");
	if (outcome == MP_SAGA_OUTCOME_SUCCESS)
		commit_effect(w, step, undo);
	if (report(w, step, undo, w->saga.step[step].run, outcome) != MP_SAGA_OK)
		check(w, "a function's outcome is refused");
	if (chance(w, 10))
	{
		w->truth[step] = before;
		crash(w);
	}
	else
		commit(w);
}

static void
claim(World *w, int step, bool undo)
{
	note(w, "claim %d%s\n", step, undo ? " undo" : "");
	if (mp_saga_begin(w->definition, &w->saga, step, undo) != MP_SAGA_OK)
		check(w, "what may begin cannot");
	if (chance(w, 10))
	{
		crash(w);
		return;
	}
	commit(w);
	if (w->worker_count < WORKERS)
		w->worker[w->worker_count++] = (Worker) {step, undo, w->saga.step[step].run, false};
}

static void
begin_something(World *w)
{
	MpSagaNext	next = mp_saga_next(w->definition, &w->saga);
	MpSagaSteps steps = next.forward | next.undo;
	bool		undo = next.undo != 0;
	int			step;

	if (steps == 0)
		return;
	if (next.forward != 0 && next.undo != 0)
		check(w, "it goes both ways");
	step = pick(w, steps);
	if (undo ? w->definition->steps[step].undo != NULL : w->definition->steps[step].run != NULL)
		run_function(w, step, undo);
	else
		claim(w, step, undo);
}

static bool
holds_lease(const World *w, const Worker *worker)
{
	const MpSagaStepRecord *record = &w->saga.step[worker->step];

	return record->run == worker->run &&
		record->state == (worker->undo ? MP_SAGA_STEP_UNDO_STARTED : MP_SAGA_STEP_STARTED);
}

/* Some time within its lease, or long after it. */
static void
let_worker_act(World *w, Worker *worker)
{
	Truth	   *truth = &w->truth[worker->step];
	bool		in_time = holds_lease(w, worker);
	MpSagaOutcome outcome = MP_SAGA_OUTCOME_SUCCESS;
	MpSagaAnswer answer;

	if (chance(w, 25))
		outcome = MP_SAGA_OUTCOME_TRANSIENT;
	else if (chance(w, 15))
		outcome = MP_SAGA_OUTCOME_PERMANENT;

	/*
	 * The resource looks at the token.  What is said of a pivot is true; of
	 * other steps a part may have happened although the worker says it failed.
	 */
	if (in_time && (outcome == MP_SAGA_OUTCOME_SUCCESS ||
					(worker->step != w->definition->pivot && !worker->undo && chance(w, 30))))
		commit_effect(w, worker->step, worker->undo);
	if (outcome == MP_SAGA_OUTCOME_PERMANENT && worker->step == w->definition->pivot && !worker->undo && truth->effect)
		outcome = MP_SAGA_OUTCOME_SUCCESS;	/* so an earlier attempt has done it */
	if (in_time && chance(w, 20))
	{
		note(w, "worker of %d%s dies\n", worker->step, worker->undo ? " undo" : "");
		worker->dead = true;
		return;
	}
	answer = report(w, worker->step, worker->undo, worker->run, outcome);
	note(w, "worker of %d%s run %d: %d, answer %d\n", worker->step, worker->undo ? " undo" : "", worker->run,
		 outcome, answer);
	if (answer != (in_time ? MP_SAGA_OK : MP_SAGA_TOO_LATE))
		check(w, "a completion in time is refused, or a late one accepted");
	commit(w);
	*worker = w->worker[--w->worker_count];
}

static void
expire(World *w, Worker *worker)
{
	if (holds_lease(w, worker))
	{
		note(w, "lease of %d%s is over\n", worker->step, worker->undo ? " undo" : "");
		if (report(w, worker->step, worker->undo, worker->run, MP_SAGA_OUTCOME_UNKNOWN) != MP_SAGA_OK)
			check(w, "a lost lease is refused");
		commit(w);
	}
	if (worker->dead)
		*worker = w->worker[--w->worker_count];
}

/* Somebody who looks before he says whether a pivot has happened. */
static void
interfere(World *w)
{
	int			pivot = w->definition->pivot;
	int			step = random_below(&w->random, w->definition->step_count);
	bool		asked = pivot >= 0 && w->saga.step[pivot].state == MP_SAGA_STEP_PARKED;
	const char *what = "retry";
	char		skip[20];

	if (chance(w, 25) && !(asked && w->truth[pivot].effect))
		what = "cancel";
	else if (chance(w, 20))
		what = "deadline";
	else if (chance(w, 40) && !(asked && step == pivot && !w->truth[pivot].effect))
	{
		snprintf(skip, sizeof(skip), "skip %d", step);
		what = skip;
	}
	note(w, "%s", what);
	note(w, ": %d\n", saga_do(w->definition, &w->saga, what));
	commit(w);
}

/* The end: I17, in terms of what is there. */
static void
check_end(World *w)
{
	for (int i = 0; i < w->definition->step_count; i++)
	{
		const Truth *truth = &w->truth[i];
		MpSagaStepState state = w->saga.step[i].state;

		if (truth->forward > 1 || truth->undone > 1)
			check(w, "I18: an effect twice");
		if (w->definition->steps[i].kind == MP_SAGA_READ_ONLY)
			continue;
		if (w->saga.state == MP_SAGA_COMPLETED)
		{
			if (state == MP_SAGA_STEP_SUCCEEDED && !truth->effect)
				check(w, "I17: completed, and an effect is missing");
			if (truth->undone > 0)
				check(w, "I17: completed, and something was compensated");
		}
		else if (truth->effect && state != MP_SAGA_STEP_UNDO_SKIPPED)
			check(w, "I17: compensated, and an effect is left");
	}
}

static MpSagaState
walk(uint64_t seed)
{
	static World world;
	World	   *w = &world;
	TestArena	arena;
	char		text[8000];
	int			moves;

	memset(w, 0, sizeof(*w));
	w->random.state = seed;
	random_saga(&w->random, 10, text, sizeof(text));
	note(w, "seed %llu %s\n", (unsigned long long) seed, text);
	test_arena_init(&arena);
	w->definition = saga_must_compile(text, &arena);
	mp_saga_init(w->definition, &w->saga);
	mp_saga_write(w->definition, &w->saga, w->stored);
	for (moves = 0; moves < 5000 && !mp_saga_has_ended(w->saga.state); moves++)
	{
		int			move = random_below(&w->random, 100);

		w->calm = moves > 400;
		if (move < 45 || w->worker_count == 0)
			begin_something(w);
		else if (move < 80)
		{
			Worker	   *worker = &w->worker[random_below(&w->random, w->worker_count)];

			if (!worker->dead)
				let_worker_act(w, worker);
		}
		else if (move < 97)
			expire(w, &w->worker[random_below(&w->random, w->worker_count)]);
		if (chance(w, 3) || (w->saga.state == MP_SAGA_STUCK && move % 10 == 0))
			interfere(w);
	}
	if (!mp_saga_has_ended(w->saga.state))
		check(w, "I17: it does not end");
	check_end(w);
	/* whoever comes now comes too late */
	while (w->worker_count > 0)
	{
		Worker		worker = w->worker[--w->worker_count];

		if (report(w, worker.step, worker.undo, worker.run, MP_SAGA_OUTCOME_SUCCESS) != MP_SAGA_TOO_LATE)
			check(w, "a completion after the end is accepted");
	}
	test_arena_free(&arena);
	return w->saga.state;
}

static void
no_invariant_is_broken(void **state)
{
	int			ends[MP_SAGA_CANCELLED + 1] = {0};

	(void) state;
	for (uint64_t seed = 1; seed <= 20000; seed++)
		ends[walk(seed)]++;
	print_message("# %d completed, %d compensated, %d cancelled\n", ends[MP_SAGA_COMPLETED],
				  ends[MP_SAGA_COMPENSATED], ends[MP_SAGA_CANCELLED]);
	assert_true(ends[MP_SAGA_COMPLETED] > 1000 && ends[MP_SAGA_COMPENSATED] > 1000 && ends[MP_SAGA_CANCELLED] > 300);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_invariant_is_broken)
	};

	return cmocka_run_group_tests_name("saga walk", tests, NULL, NULL);
}
