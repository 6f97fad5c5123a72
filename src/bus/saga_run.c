/*
 * saga_run.c
 *		Going on with sagas: outcomes told to the machine, what is next begun.
 *
 * What a step has done, the entry that says so and the begin of what follows
 * are one transaction.
 */
#include "bus/saga.h"

#include "bus/json_member.h"
#include "bus/position.h"

/* ------------------------------------------------------------------------
 * Outcomes
 * ------------------------------------------------------------------------ */

static const MpSagaStep *
step_of(const MpSagaInstance *instance, int step)
{
	return &instance->program->definition->steps[step];
}

void
mp_saga_note_state(MpSagaHand *hand, MpSagaInstance *instance)
{
	if (instance->saga.state == instance->noted_state)
		return;
	(void) mp_saga_note(hand, instance, mp_saga_state_name(instance->saga.state));
	instance->noted_state = instance->saga.state;
	instance->changed = true;
	if (instance->saga.state == MP_SAGA_COMPLETED)
		instance->error = NULL;	/* it was overcome; the log knows */
}

/*
 * Of a saga that has to go back, why; before that, of a step that somebody has
 * to see to.
 */
void
mp_saga_keep_error(MpSagaInstance *instance, MpSagaCause cause_before, int step, const char *type,
				   const char *sqlstate, const char *message)
{
	if (instance->error == NULL || cause_before != instance->saga.cause)
		instance->error = mp_json_of_texts("step", step < 0 ? NULL : step_of(instance, step)->name, "type", type,
										   "sqlstate", sqlstate, "message", message, NULL);
}

/* It waits for its next attempt, or is no more. */
static void
settle_out(MpSagaHand *hand, MpSagaInstance *instance, const MpSagaAttempt *attempt,
		   const MpSagaSettled *settled)
{
	const MpSagaStepRecord *record = &instance->saga.step[attempt->step];
	MpSagaOut  *out = &instance->out[attempt->step];

	out->changed = true;
	out->wanted = settled->again;
	out->leased = false;
	if (!settled->again)
		return;
	if (out->first_at == 0 || out->undo != attempt->undo)
		out->first_at = hand->now;
	out->undo = attempt->undo;
	out->attempt = record->attempt;
	out->run = record->run;
	out->due_at = hand->now + (int64) (settled->delay * USECS_PER_SEC);
}

static void
note_failure(MpSagaHand *hand, MpSagaInstance *instance, const MpSagaAttempt *attempt, int number,
			 MpSagaCause cause_before, const MpSagaSettled *settled)
{
	const MpSagaStepRecord *record = &instance->saga.step[attempt->step];
	bool		parked = record->state == MP_SAGA_STEP_PARKED || record->state == MP_SAGA_STEP_UNDO_PARKED;
	MpSagaEntry *entry = mp_saga_note(hand, instance, attempt->crashed ? "crashed"
									  : attempt->outcome == MP_SAGA_OUTCOME_UNKNOWN ? "unknown" : "failed");

	entry->step = attempt->step;
	entry->undo = attempt->undo;
	entry->attempt = number;
	entry->detail = mp_json_of_texts("type", attempt->error_type, "sqlstate", attempt->sqlstate,
									 "message", attempt->message,
									 "then", settled->again ? "retry" : parked ? "parked" : "given up",
									 "after_seconds", settled->again ? psprintf("%g", settled->delay) : NULL, NULL);
	if (settled->again)
		return;
	if (!attempt->undo || parked)
		mp_saga_keep_error(instance, cause_before, attempt->step, attempt->error_type, attempt->sqlstate, attempt->message);
	if (parked)
		mp_saga_note_alert(hand, instance, attempt->step, true,
						   attempt->sqlstate ? attempt->sqlstate : attempt->error_type, attempt->message);
}

/* A success counts for its breaker once it is committed, a failure at once. */
static void
tell_breaker(const MpSagaHand *hand, const MpSagaInstance *instance, int step, const MpSagaOut *out,
			 MpSagaOutcome outcome)
{
	MpBreakerCall call = {.name = instance->program->definition->steps[step].breaker, .permit = out->permit};
	double		seconds = (hand->now - out->started_at) / (double) USECS_PER_SEC;
	TimestampTz retry_at;

	if (call.name == NULL || out->permit == 0)
		return;
	call.place = mp_breaker_find_if_room(call.name);
	if (outcome == MP_SAGA_OUTCOME_SUCCESS)
		mp_breaker_succeeded(&call, 1, seconds);
	else
		(void) mp_breaker_failed(&call, outcome == MP_SAGA_OUTCOME_PERMANENT ? MP_CLASS_PERMANENT : MP_CLASS_TRANSIENT,
								 seconds, &retry_at);
}

/* Of an attempt that nobody waits for any more: it has told nothing of the service. */
static void
give_permit_back(const MpSagaHand *hand, const MpSagaInstance *instance, int step, const MpSagaOut *out)
{
	tell_breaker(hand, instance, step, out, MP_SAGA_OUTCOME_PERMANENT);
}

bool
mp_saga_settle(MpSagaHand *hand, MpSagaInstance *instance, const MpSagaAttempt *attempt)
{
	MpSagaOut  *out = &instance->out[attempt->step];
	bool		same = out->wanted && out->undo == attempt->undo;
	int			number = instance->saga.step[attempt->step].attempt;
	MpSagaCause cause_before = instance->saga.cause;
	MpSagaSettled settled = {0};
	MpSagaReport report = {
		.step = attempt->step, .undo = attempt->undo, .run = attempt->run, .outcome = attempt->outcome,
		.age = same && out->first_at != 0 ? (hand->now - out->first_at) / (double) USECS_PER_SEC : 0,
		.crashes = same ? out->crashes : 0, .random = mp_random_share()
	};

	if (attempt->crashed)
		report.crashes++;
	switch (mp_saga_report(instance->program->definition, &instance->saga, &report, &settled))
	{
		case MP_SAGA_OK:
		case MP_SAGA_UNDECIDED:
			break;
		default:
			return false;
	}
	instance->changed = true;
	if (out->leased)
		tell_breaker(hand, instance, attempt->step, out, attempt->outcome);
	if (attempt->outcome == MP_SAGA_OUTCOME_SUCCESS)
	{
		MpSagaEntry *entry = mp_saga_note(hand, instance, "succeeded");

		entry->step = attempt->step;
		entry->undo = attempt->undo;
		entry->attempt = number;
		entry->result = attempt->result;
		if (!attempt->undo)
			instance->results[attempt->step] = attempt->result;
		out->changed |= out->wanted;
		out->wanted = out->leased = false;
	}
	else
	{
		settle_out(hand, instance, attempt, &settled);
		out->crashes = report.crashes;
		note_failure(hand, instance, attempt, number, cause_before, &settled);
	}
	mp_saga_note_state(hand, instance);
	return true;
}

/* ------------------------------------------------------------------------
 * What is next
 * ------------------------------------------------------------------------ */

static TimestampTz
deadline_of(const MpSagaInstance *instance)
{
	double		seconds = instance->program->definition->deadline_seconds;

	return seconds > 0 ? instance->started_at + (int64) (seconds * USECS_PER_SEC) : DT_NOEND;
}

static void
check_deadline(MpSagaHand *hand, MpSagaInstance *instance)
{
	MpSagaAnswer answer;

	if (deadline_of(instance) > hand->now || instance->saga.cause != MP_SAGA_CAUSE_NONE)
		return;
	answer = mp_saga_stop(instance->program->definition, &instance->saga, MP_SAGA_CAUSE_DEADLINE);
	if (answer != MP_SAGA_OK && answer != MP_SAGA_UNDECIDED)
		return;
	instance->changed = true;
	(void) mp_saga_note(hand, instance, "deadline");
	mp_saga_keep_error(instance, MP_SAGA_CAUSE_NONE, -1, "deadline", NULL, "the deadline has passed");
	mp_saga_note_state(hand, instance);
}

static void
end_leases(MpSagaHand *hand, MpSagaInstance *instance)
{
	for (int step = 0; step < instance->program->definition->step_count; step++)
	{
		MpSagaOut  *out = &instance->out[step];
		MpSagaAttempt attempt = {
			.step = step, .undo = out->undo, .run = out->run, .outcome = MP_SAGA_OUTCOME_UNKNOWN,
			.error_type = "unknown", .message = "the lease has ended"
		};

		if (!out->wanted || !out->leased || out->lease_until > hand->now)
			continue;
		(void) mp_saga_settle(hand, instance, &attempt);
	}
}

/*
 * Rows of steps that services do are there for those that may begin, and no
 * others: what was not claimed when the saga turned back has never begun.
 */
static void
hand_out(MpSagaHand *hand, MpSagaInstance *instance, const MpSagaNext *next)
{
	for (int step = 0; step < instance->program->definition->step_count; step++)
	{
		MpSagaSteps bit = MP_SAGA_STEP(step);
		MpSagaOut  *out = &instance->out[step];
		bool		may_begin = ((next->forward | next->undo) & bit) != 0;
		bool		undo = ((next->undo | next->undo_in_flight) & bit) != 0;
		bool		in_flight = ((next->in_flight | next->undo_in_flight) & bit) != 0;
		const char *service = undo ? step_of(instance, step)->undo_service : step_of(instance, step)->service;

		if (out->wanted && (!(may_begin || in_flight) || out->undo != undo || (out->leased && !in_flight)))
		{
			if (out->leased)
				give_permit_back(hand, instance, step, out);
			out->wanted = out->leased = false;
			out->changed = instance->changed = true;
		}
		if (!may_begin || service == NULL || out->wanted)
			continue;
		*out = (MpSagaOut)
		{
			.stored = out->stored, .wanted = true, .changed = true, .undo = undo, .due_at = hand->now
		};
		instance->changed = true;
	}
}

/* A step that is a function and may begin now; -1: there is none. */
static int
next_function(const MpSagaHand *hand, const MpSagaInstance *instance, const MpSagaNext *next, bool *undo)
{
	for (int step = 0; step < instance->program->definition->step_count; step++)
	{
		MpSagaSteps bit = MP_SAGA_STEP(step);
		const MpSagaOut *out = &instance->out[step];

		*undo = (next->undo & bit) != 0;
		if (!*undo && (next->forward & bit) == 0)
			continue;
		if ((*undo ? step_of(instance, step)->undo : step_of(instance, step)->run) == NULL)
			continue;
		if (!out->wanted || out->due_at <= hand->now)
			return step;
	}
	return -1;
}

static TimestampTz
next_due(const MpSagaHand *hand, const MpSagaInstance *instance)
{
	TimestampTz due = DT_NOEND;

	if (mp_saga_has_ended(instance->saga.state))
		return DT_NOEND;
	for (int step = 0; step < instance->program->definition->step_count; step++)
	{
		const MpSagaOut *out = &instance->out[step];
		const char *service = out->undo ? step_of(instance, step)->undo_service : step_of(instance, step)->service;

		if (out->wanted && out->leased)
			due = Min(due, out->lease_until);
		else if (out->wanted && service == NULL)
			due = Min(due, out->due_at);
	}
	if (instance->saga.cause == MP_SAGA_CAUSE_NONE && deadline_of(instance) > hand->now)
		due = Min(due, deadline_of(instance));
	return due;
}

int
mp_saga_prepare(MpSagaHand *hand, MpSagaInstance *instance, bool *undo)
{
	MpSagaNext	next;
	int			step;

	check_deadline(hand, instance);
	if (instance->blocked && !mp_saga_has_ended(instance->saga.state))
	{
		instance->due_at = next_due(hand, instance);
		instance->changed = true;
		return -1;
	}
	end_leases(hand, instance);
	next = mp_saga_next(instance->program->definition, &instance->saga);
	hand_out(hand, instance, &next);
	step = next_function(hand, instance, &next, undo);
	if (step < 0)
	{
		mp_saga_note_state(hand, instance);
		instance->due_at = next_due(hand, instance);
		instance->changed = true;
	}
	return step;
}

void
mp_saga_put_off(MpSagaHand *hand, MpSagaInstance *instance)
{
	instance->due_at = hand->now;
	instance->changed = true;
}

void
mp_saga_go_on(MpSagaHand *hand, MpSagaInstance *instance)
{
	bool		undo;

	if (mp_saga_prepare(hand, instance, &undo) >= 0)
		mp_saga_put_off(hand, instance);
}
