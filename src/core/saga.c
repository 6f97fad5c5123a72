/*
 * saga.c
 *		Sagas: the machine.
 *
 * Two directions.  Forward, a step may begin when all that comes before it is
 * done.  Once the saga has turned back nothing begins forward any more; attempts
 * in flight settle, and then what has an effect is undone, a step after all that
 * comes behind it.  It never turns again.
 */
#include "core/saga.h"

#include <string.h>

static MpSagaSteps
steps_in(const MpSagaDefinition *definition, const MpSaga *saga, MpSagaStepState state)
{
	MpSagaSteps steps = 0;

	for (int i = 0; i < definition->step_count; i++)
	{
		if (saga->step[i].state == state)
			steps |= MP_SAGA_STEP(i);
	}
	return steps;
}

static bool
is_valid_step(const MpSagaDefinition *definition, int step)
{
	return step >= 0 && step < definition->step_count;
}

static bool
is_in(int step, MpSagaSteps steps)
{
	return (steps & MP_SAGA_STEP(step)) != 0;
}

/* Whether the pivot belongs to the past: there is no way back. */
static bool
has_passed(const MpSagaDefinition *definition, const MpSaga *saga)
{
	MpSagaStepState state;

	if (definition->pivot < 0)
		return false;
	state = saga->step[definition->pivot].state;
	return state == MP_SAGA_STEP_SUCCEEDED || state == MP_SAGA_STEP_SKIPPED;
}

/* Whether it is known only of a later attempt, or of an operator, if it has an effect. */
static bool
is_open(const MpSagaDefinition *definition, const MpSaga *saga, int step)
{
	const MpSagaStepRecord *record = &saga->step[step];

	if (record->state == MP_SAGA_STEP_STARTED)
		return true;
	return record->unknown && !is_in(step, definition->undoable) &&
		(record->state == MP_SAGA_STEP_WAITING || record->state == MP_SAGA_STEP_PARKED);
}

static bool
is_undecided(const MpSagaDefinition *definition, const MpSaga *saga)
{
	return definition->pivot >= 0 && is_open(definition, saga, definition->pivot);
}

/*
 * A function has an effect when it has succeeded; what a service did once it had
 * begun, nobody here can know.
 */
static MpSagaSteps
touched(const MpSagaDefinition *definition, const MpSaga *saga)
{
	MpSagaSteps steps = 0;

	for (int i = 0; i < definition->step_count; i++)
	{
		const MpSagaStepRecord *record = &saga->step[i];

		if (record->state == MP_SAGA_STEP_SUCCEEDED || record->state >= MP_SAGA_STEP_UNDO_STARTED ||
			(record->run > 0 && is_in(i, definition->external)))
			steps |= MP_SAGA_STEP(i);
	}
	return steps;
}

MpSagaSteps
mp_saga_effects(const MpSagaDefinition *definition, const MpSaga *saga)
{
	return touched(definition, saga) & definition->undoable &
		~steps_in(definition, saga, MP_SAGA_STEP_UNDONE) & ~steps_in(definition, saga, MP_SAGA_STEP_UNDO_SKIPPED);
}

MpSagaState
mp_saga_state_of(const MpSagaDefinition *definition, const MpSaga *saga)
{
	MpSagaSteps done = steps_in(definition, saga, MP_SAGA_STEP_SUCCEEDED) |
		steps_in(definition, saga, MP_SAGA_STEP_SKIPPED);

	if (!saga->back)
	{
		if (steps_in(definition, saga, MP_SAGA_STEP_PARKED) != 0)
			return MP_SAGA_STUCK;
		return done == definition->all ? MP_SAGA_COMPLETED : MP_SAGA_RUNNING;
	}
	if (steps_in(definition, saga, MP_SAGA_STEP_UNDO_PARKED) != 0)
		return MP_SAGA_STUCK;
	if (steps_in(definition, saga, MP_SAGA_STEP_STARTED) != 0 || mp_saga_effects(definition, saga) != 0)
		return MP_SAGA_COMPENSATING;
	return saga->cause == MP_SAGA_CAUSE_CANCEL ? MP_SAGA_CANCELLED : MP_SAGA_COMPENSATED;
}

/*
 * What waits is given up.  An attempt that changes nothing need not be waited
 * for; the others in flight settle.
 */
static void
turn_back(const MpSagaDefinition *definition, MpSaga *saga)
{
	saga->back = true;
	for (int i = 0; i < definition->step_count; i++)
	{
		MpSagaStepRecord *record = &saga->step[i];

		if (record->state == MP_SAGA_STEP_WAITING || record->state == MP_SAGA_STEP_PARKED ||
			(record->state == MP_SAGA_STEP_STARTED && definition->steps[i].kind == MP_SAGA_READ_ONLY))
			record->state = MP_SAGA_STEP_FAILED;
	}
}

/* After every change. */
static MpSagaAnswer
settle(const MpSagaDefinition *definition, MpSaga *saga)
{
	if (!saga->back && saga->cause != MP_SAGA_CAUSE_NONE)
	{
		if (has_passed(definition, saga))
			saga->cause = MP_SAGA_CAUSE_NONE;
		else if (!is_undecided(definition, saga))
			turn_back(definition, saga);
	}
	saga->state = mp_saga_state_of(definition, saga);
	return MP_SAGA_OK;
}

bool
mp_saga_has_ended(MpSagaState state)
{
	return state == MP_SAGA_COMPLETED || state == MP_SAGA_COMPENSATED || state == MP_SAGA_CANCELLED;
}

void
mp_saga_init(const MpSagaDefinition *definition, MpSaga *saga)
{
	memset(saga, 0, sizeof(*saga));
	saga->failed_step = -1;
	(void) settle(definition, saga);
}

/*
 * While it waits for the pivot's outcome, only the pivot goes on; and only when a
 * further attempt is what tells it.
 */
static MpSagaSteps
may_go_forward(const MpSagaDefinition *definition, const MpSaga *saga)
{
	MpSagaSteps done = steps_in(definition, saga, MP_SAGA_STEP_SUCCEEDED) |
		steps_in(definition, saga, MP_SAGA_STEP_SKIPPED);
	MpSagaSteps steps = 0;

	for (int i = 0; i < definition->step_count; i++)
	{
		MpSagaStepState state = saga->step[i].state;

		if ((state == MP_SAGA_STEP_PENDING || state == MP_SAGA_STEP_WAITING) &&
			(definition->steps[i].before & ~done) == 0 &&
			(saga->cause == MP_SAGA_CAUSE_NONE || i == definition->pivot))
			steps |= MP_SAGA_STEP(i);
	}
	return steps;
}

/* Whatever lies between them, an effect goes before those it came after. */
static MpSagaSteps
may_be_undone(const MpSagaDefinition *definition, const MpSaga *saga)
{
	MpSagaSteps effects = mp_saga_effects(definition, saga);
	MpSagaSteps steps = 0;

	for (int i = 0; i < definition->step_count; i++)
	{
		MpSagaStepState state = saga->step[i].state;

		if (is_in(i, effects) && state != MP_SAGA_STEP_UNDO_STARTED && state != MP_SAGA_STEP_UNDO_PARKED &&
			(definition->steps[i].behind & effects) == 0)
			steps |= MP_SAGA_STEP(i);
	}
	return steps;
}

MpSagaNext
mp_saga_next(const MpSagaDefinition *definition, const MpSaga *saga)
{
	MpSagaNext	next = {0};

	if (mp_saga_has_ended(saga->state))
		return next;
	next.in_flight = steps_in(definition, saga, MP_SAGA_STEP_STARTED);
	next.undo_in_flight = steps_in(definition, saga, MP_SAGA_STEP_UNDO_STARTED);
	next.parked = steps_in(definition, saga, MP_SAGA_STEP_PARKED) |
		steps_in(definition, saga, MP_SAGA_STEP_UNDO_PARKED);
	if (!saga->back)
		next.forward = may_go_forward(definition, saga);
	else if (next.in_flight == 0)
		next.undo = may_be_undone(definition, saga);
	return next;
}

MpSagaAnswer
mp_saga_begin(const MpSagaDefinition *definition, MpSaga *saga, int step, bool undo)
{
	MpSagaNext	next = mp_saga_next(definition, saga);
	MpSagaStepRecord *record;

	if (mp_saga_has_ended(saga->state))
		return MP_SAGA_ENDED;
	if (!is_valid_step(definition, step) || !is_in(step, undo ? next.undo : next.forward))
		return MP_SAGA_NOT_NOW;
	record = &saga->step[step];
	if (undo && record->state != MP_SAGA_STEP_UNDO_WAITING)
		record->attempt = 0;
	record->attempt++;
	record->run++;
	record->state = undo ? MP_SAGA_STEP_UNDO_STARTED : MP_SAGA_STEP_STARTED;
	return settle(definition, saga);
}

/* Given up in the forward direction. */
static void
give_up(const MpSagaDefinition *definition, MpSaga *saga, int step)
{
	MpSagaStepRecord *record = &saga->step[step];

	/* what may have happened, and cannot be undone, must not be taken for a failure */
	bool		guess = step == definition->pivot && record->unknown && !is_in(step, definition->undoable);

	if (!is_in(step, definition->turning) || guess)
	{
		record->state = MP_SAGA_STEP_PARKED;
		return;
	}
	record->state = MP_SAGA_STEP_FAILED;
	if (saga->cause == MP_SAGA_CAUSE_NONE)
	{
		saga->cause = MP_SAGA_CAUSE_FAILURE;
		saga->failed_step = step;
	}
}

static void
fail(const MpSagaDefinition *definition, MpSaga *saga, const MpSagaReport *report, MpSagaSettled *settled)
{
	const MpSagaStep *step = &definition->steps[report->step];
	MpSagaStepRecord *record = &saga->step[report->step];
	MpFailedAttempt failed = {
		.attempt = record->attempt,
		.crashes = report->crashes,
		.class = report->outcome == MP_SAGA_OUTCOME_PERMANENT ? MP_CLASS_PERMANENT : MP_CLASS_TRANSIENT,
		.age = report->age
	};
	MpRetryPlan plan = mp_retry_plan(report->undo ? &step->undo_retry : &step->retry, &failed, report->random);

	settled->verdict = plan.verdict;
	settled->delay = plan.delay;
	if (report->undo)
		record->state = settled->verdict == MP_VERDICT_RETRY ? MP_SAGA_STEP_UNDO_WAITING : MP_SAGA_STEP_UNDO_PARKED;
	else if (saga->back)
		record->state = MP_SAGA_STEP_FAILED;
	else if (settled->verdict == MP_VERDICT_RETRY)
		record->state = MP_SAGA_STEP_WAITING;
	else
		give_up(definition, saga, report->step);
}

MpSagaAnswer
mp_saga_report(const MpSagaDefinition *definition, MpSaga *saga, const MpSagaReport *report, MpSagaSettled *settled)
{
	MpSagaStepRecord *record;

	*settled = (MpSagaSettled) {.verdict = MP_VERDICT_RETRY};
	if (!is_valid_step(definition, report->step))
		return MP_SAGA_TOO_LATE;
	record = &saga->step[report->step];
	if (record->run != report->run ||
		record->state != (report->undo ? MP_SAGA_STEP_UNDO_STARTED : MP_SAGA_STEP_STARTED))
		return MP_SAGA_TOO_LATE;

	/*
	 * All attempts of a step have one idempotency key, so that a clear answer to
	 * one answers for those before it.
	 */
	if (!report->undo)
	{
		if (report->outcome == MP_SAGA_OUTCOME_SUCCESS || report->outcome == MP_SAGA_OUTCOME_PERMANENT)
			record->unknown = false;
		else if (report->outcome == MP_SAGA_OUTCOME_UNKNOWN && is_in(report->step, definition->external))
			record->unknown = true;
	}
	if (report->outcome == MP_SAGA_OUTCOME_SUCCESS)
		record->state = report->undo ? MP_SAGA_STEP_UNDONE : MP_SAGA_STEP_SUCCEEDED;
	else
		fail(definition, saga, report, settled);
	(void) settle(definition, saga);
	settled->again = record->state == MP_SAGA_STEP_WAITING || record->state == MP_SAGA_STEP_UNDO_WAITING;
	return MP_SAGA_OK;
}

MpSagaAnswer
mp_saga_stop(const MpSagaDefinition *definition, MpSaga *saga, MpSagaCause cause)
{
	MpSagaStepRecord *pivot = definition->pivot < 0 ? NULL : &saga->step[definition->pivot];
	bool		told;

	if (mp_saga_has_ended(saga->state))
		return MP_SAGA_ENDED;
	if (has_passed(definition, saga))
		return MP_SAGA_TOO_LATE;
	if (saga->back)
		return MP_SAGA_UNCHANGED;

	/* it is parked only when nobody knows: the operator does */
	told = cause == MP_SAGA_CAUSE_CANCEL && pivot != NULL && pivot->state == MP_SAGA_STEP_PARKED;
	if (!told && (saga->cause == cause || saga->cause == MP_SAGA_CAUSE_CANCEL))
		return MP_SAGA_UNCHANGED;
	if (told)
	{
		pivot->state = MP_SAGA_STEP_FAILED;
		pivot->unknown = false;
	}
	saga->cause = cause;
	(void) settle(definition, saga);
	return saga->back ? MP_SAGA_OK : MP_SAGA_UNDECIDED;
}

MpSagaAnswer
mp_saga_retry(const MpSagaDefinition *definition, MpSaga *saga, MpSagaSteps steps)
{
	MpSagaSteps parked = mp_saga_next(definition, saga).parked & steps;

	if (mp_saga_has_ended(saga->state))
		return MP_SAGA_ENDED;
	if (parked == 0)
		return MP_SAGA_UNCHANGED;
	for (int i = 0; i < definition->step_count; i++)
	{
		MpSagaStepRecord *record = &saga->step[i];

		if (!is_in(i, parked))
			continue;
		record->state = record->state == MP_SAGA_STEP_PARKED ? MP_SAGA_STEP_WAITING : MP_SAGA_STEP_UNDO_WAITING;
		record->attempt = 0;
	}
	return settle(definition, saga);
}

MpSagaAnswer
mp_saga_skip(const MpSagaDefinition *definition, MpSaga *saga, int step)
{
	MpSagaStepRecord *record;

	if (mp_saga_has_ended(saga->state))
		return MP_SAGA_ENDED;
	if (!is_valid_step(definition, step))
		return MP_SAGA_NOT_NOW;
	record = &saga->step[step];
	if (record->state == MP_SAGA_STEP_STARTED || record->state == MP_SAGA_STEP_UNDO_STARTED)
		return MP_SAGA_IN_FLIGHT;
	if (saga->back)
	{
		if (!is_in(step, mp_saga_effects(definition, saga)))
			return MP_SAGA_NOT_NOW;
		record->state = MP_SAGA_STEP_UNDO_SKIPPED;
	}
	else
	{
		if (record->state != MP_SAGA_STEP_PARKED &&
			(step == definition->pivot || saga->cause != MP_SAGA_CAUSE_NONE ||
			 (record->state != MP_SAGA_STEP_PENDING && record->state != MP_SAGA_STEP_WAITING)))
			return MP_SAGA_NOT_NOW;
		record->state = MP_SAGA_STEP_SKIPPED;
		record->unknown = false;
	}
	return settle(definition, saga);
}

/* ------------------------------------------------------------------------
 * Names
 * ------------------------------------------------------------------------ */

const char *
mp_saga_state_name(MpSagaState state)
{
	static const char *const names[] = {"running", "compensating", "completed", "compensated", "stuck", "cancelled"};

	return names[state];
}

const char *
mp_saga_step_state_name(MpSagaStepState state)
{
	static const char *const names[MP_SAGA_STEP_STATES] = {
		"pending", "started", "waiting", "succeeded", "failed", "parked", "skipped",
		"undo_started", "undo_waiting", "undo_parked", "undone", "undo_skipped"
	};

	return names[state];
}

const char *
mp_saga_cause_name(MpSagaCause cause)
{
	static const char *const names[] = {"none", "failure", "deadline", "cancel"};

	return names[cause];
}
