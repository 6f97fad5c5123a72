/*
 * saga_run.c
 *		Definitions and instances of sagas for the tests, given as text.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "saga_run.h"

const MpSagaDefinition *
saga_compile(const char *text, TestArena *arena, MpSagaError *error)
{
	char	   *json = strdup(text);
	const MpSagaDefinition *definition;
	JsonTree   *tree;
	MpJson		root;

	for (char *at = json; *at != '\0'; at++)
	{
		if (*at == '\'')
			*at = '"';
	}
	tree = json_tree_parse(json, strlen(json));
	free(json);
	if (tree == NULL)
	{
		fprintf(stderr, "not JSON: %s\n", text);
		abort();
	}
	memset(error, 'x', sizeof(*error));
	root = json_tree_root(tree);
	definition = mp_saga_compile(&json_tree_reader, &root, &arena->arena, error);
	/* the compiled form must not need the tree it was made from */
	json_tree_free(tree);
	return definition;
}

const MpSagaDefinition *
saga_must_compile(const char *text, TestArena *arena)
{
	MpSagaError error;
	const MpSagaDefinition *definition = saga_compile(text, arena, &error);

	if (definition == NULL)
	{
		fprintf(stderr, "%s: %s\n", text, error.message);
		abort();
	}
	return definition;
}

static MpSagaOutcome
outcome_of(const char *word)
{
	static const char *const words[] = {"success", "transient", "permanent", "unknown"};

	for (int i = 0; i < 4; i++)
	{
		if (strcmp(word, words[i]) == 0)
			return (MpSagaOutcome) i;
	}
	abort();
}

MpSagaAnswer
saga_do(const MpSagaDefinition *definition, MpSaga *saga, const char *what)
{
	char		verb[20];
	char		word[20];
	int			step = 0;
	int			run = 0;
	int			words = sscanf(what, "%19s %d %19s %d", verb, &step, word, &run);

	if (strcmp(verb, "begin") == 0 || strcmp(verb, "undo") == 0)
		return mp_saga_begin(definition, saga, step, verb[0] == 'u');
	if (strncmp(verb, "report", 6) == 0)
	{
		MpSagaSettled settled;
		MpSagaReport report = {
			.step = step,
			.undo = verb[6] != '\0',
			.run = words == 4 ? run : saga->step[step].run,
			.outcome = outcome_of(word)
		};

		return mp_saga_report(definition, saga, &report, &settled);
	}
	if (strcmp(verb, "deadline") == 0)
		return mp_saga_stop(definition, saga, MP_SAGA_CAUSE_DEADLINE);
	if (strcmp(verb, "cancel") == 0)
		return mp_saga_stop(definition, saga, MP_SAGA_CAUSE_CANCEL);
	if (strcmp(verb, "retry") == 0)
		return mp_saga_retry(definition, saga, ~UINT64_C(0));
	if (strcmp(verb, "skip") == 0)
		return mp_saga_skip(definition, saga, step);
	abort();
}

bool
saga_go_on(const MpSagaDefinition *definition, MpSaga *saga, const char **broken)
{
	MpSagaNext	next = mp_saga_next(definition, saga);
	MpSagaSteps begin = saga->back ? next.undo : next.forward;
	MpSagaSteps in_flight = next.in_flight | next.undo_in_flight;

	*broken = NULL;
	if (in_flight != 0)
	{
		MpSagaSettled settled;
		MpSagaReport report = {.step = __builtin_ctzll(in_flight),.outcome = MP_SAGA_OUTCOME_SUCCESS};

		report.undo = (next.undo_in_flight & MP_SAGA_STEP(report.step)) != 0;
		report.run = saga->step[report.step].run;
		if (mp_saga_report(definition, saga, &report, &settled) != MP_SAGA_OK)
			*broken = "an attempt in flight cannot be reported";
		return true;
	}
	if (begin != 0)
	{
		if (mp_saga_begin(definition, saga, __builtin_ctzll(begin), saga->back) != MP_SAGA_OK)
			*broken = "what may begin cannot";
		return true;
	}
	return false;
}

static bool
is_done(const MpSagaStepRecord *record)
{
	return record->state == MP_SAGA_STEP_SUCCEEDED || record->state == MP_SAGA_STEP_SKIPPED;
}

static bool
is_parked(const MpSagaStepRecord *record)
{
	return record->state == MP_SAGA_STEP_PARKED || record->state == MP_SAGA_STEP_UNDO_PARKED;
}

/* What one step may be in, given the others. */
static const char *
broken_law_of_step(const MpSagaDefinition *definition, const MpSaga *saga, int i)
{
	const MpSagaStep *step = &definition->steps[i];
	const MpSagaStepRecord *record = &saga->step[i];
	bool		undo = record->state >= MP_SAGA_STEP_UNDO_STARTED;

	if (undo && !saga->back)
		return "a step is undone although the saga goes forward";
	if (undo && step->undo == NULL && step->undo_service == NULL)
		return "a step is undone that has no undo";
	if (undo && record->state != MP_SAGA_STEP_UNDO_SKIPPED && record->run < 2)
		return "a step is undone that was not started";
	if (record->state == MP_SAGA_STEP_PENDING && record->run > 0)
		return "a step that was started is pending";
	if (saga->back && (record->state == MP_SAGA_STEP_WAITING || record->state == MP_SAGA_STEP_PARKED))
		return "a step waits to go forward although the saga goes back";
	if (!saga->back && record->state == MP_SAGA_STEP_FAILED)
		return "a step has failed and the saga goes forward";
	for (int j = 0; j < definition->step_count; j++)
	{
		const MpSagaStepRecord *other = &saga->step[j];

		if ((step->before & MP_SAGA_STEP(j)) == 0)
			continue;
		if (record->run > 0 && other->state == MP_SAGA_STEP_PENDING)
			return "a step was started before one that it waits for";
		/* who comes behind has to have gone first */
		if (other->state >= MP_SAGA_STEP_UNDO_STARTED && other->state != MP_SAGA_STEP_UNDO_SKIPPED &&
			(mp_saga_effects(definition, saga) & MP_SAGA_STEP(i)) != 0)
			return "a step is undone before one that came behind it";
		if (other->state >= MP_SAGA_STEP_UNDO_STARTED && other->state != MP_SAGA_STEP_UNDO_SKIPPED &&
			record->state == MP_SAGA_STEP_STARTED)
			return "a step is undone while one behind it is in flight";
	}
	return NULL;
}

const char *
saga_broken_law(const MpSagaDefinition *definition, const MpSaga *saga)
{
	MpSagaNext	next = mp_saga_next(definition, saga);
	bool		ended = mp_saga_has_ended(saga->state);
	bool		all_done = true;
	bool		parked = false;
	bool		undoing = false;
	bool		in_flight = false;

	for (int i = 0; i < definition->step_count; i++)
	{
		const MpSagaStepRecord *record = &saga->step[i];
		const char *broken = broken_law_of_step(definition, saga, i);

		if (broken != NULL)
			return broken;
		all_done &= is_done(record);
		parked |= is_parked(record);
		in_flight |= record->state == MP_SAGA_STEP_STARTED;
		undoing |= record->state >= MP_SAGA_STEP_UNDO_STARTED && record->state != MP_SAGA_STEP_UNDO_SKIPPED;
	}
	if (saga->state != mp_saga_state_of(definition, saga))
		return "the state is not the one that follows";
	/* what was in flight when it turned may succeed, and is undone all the same */
	if ((saga->state == MP_SAGA_COMPLETED) != (all_done && !saga->back))
		return "completed, and not all steps are done, or the reverse";
	if ((saga->state == MP_SAGA_STUCK) != parked)
		return "stuck, and nothing is parked, or the reverse";
	if ((saga->state == MP_SAGA_COMPENSATED || saga->state == MP_SAGA_CANCELLED) &&
		(mp_saga_effects(definition, saga) != 0 || in_flight))
		return "compensated, and an effect is left";
	if (definition->pivot >= 0 && is_done(&saga->step[definition->pivot]) &&
		(saga->back || saga->cause != MP_SAGA_CAUSE_NONE))
		return "it goes back although the pivot has succeeded";
	if (undoing && in_flight)
		return "something is undone while a step is in flight";
	if (saga->back != (saga->state == MP_SAGA_COMPENSATING || saga->state == MP_SAGA_COMPENSATED ||
					   saga->state == MP_SAGA_CANCELLED || (saga->state == MP_SAGA_STUCK && saga->back)))
		return "the direction and the state differ";
	if (ended && (next.forward | next.undo | next.in_flight | next.undo_in_flight) != 0)
		return "it has ended, and something may begin";
	if (!ended && (next.forward | next.undo | next.in_flight | next.undo_in_flight | next.parked) == 0)
		return "it has not ended, and nothing can ever happen";
	return NULL;
}

const char *
saga_broken_step(const MpSagaDefinition *definition, const MpSaga *from, const MpSaga *to)
{
	/* rows: from; running, compensating, completed, compensated, stuck, cancelled */
	static const char *const allowed[] = {"111111", "010111", "001000", "000100", "111111", "000001"};

	if (allowed[from->state][to->state] != '1')
		return "the saga goes from one state to another that does not follow it";
	if (from->back && !to->back)
		return "it has turned twice";
	if (from->state == MP_SAGA_STUCK && from->back && (to->state == MP_SAGA_RUNNING || to->state == MP_SAGA_COMPLETED))
		return "it was stuck going back, and goes forward";
	for (int i = 0; i < definition->step_count; i++)
	{
		MpSagaStepState before = from->step[i].state;
		MpSagaStepState after = to->step[i].state;

		if (to->step[i].run < from->step[i].run || to->step[i].run > from->step[i].run + 1)
			return "a fence fell, or rose by more than one";
		if (to->step[i].run > from->step[i].run && after != MP_SAGA_STEP_STARTED && after != MP_SAGA_STEP_UNDO_STARTED)
			return "a fence rose and nothing began";
		if ((before == MP_SAGA_STEP_UNDONE || before == MP_SAGA_STEP_UNDO_SKIPPED) && after != before)
			return "what was undone is something else";
		if (before == MP_SAGA_STEP_SUCCEEDED && after != before && after < MP_SAGA_STEP_UNDO_STARTED)
			return "a success was forgotten";
		if (before >= MP_SAGA_STEP_UNDO_STARTED && after < MP_SAGA_STEP_UNDO_STARTED)
			return "what is being undone goes forward";
	}
	return NULL;
}
