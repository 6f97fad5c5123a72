/*
 * saga_order.c
 *		The order of a saga's steps, and which kinds may stand where in it.
 *
 * Behind the pivot nothing is undone any more; so all that has to be undone when
 * a step fails stands before it.  What stands beside it, neither before nor
 * behind, may meet both ends: it is undone when the pivot fails, and it must not
 * fail the saga when the pivot has succeeded.  That is a retriable step with an
 * undo, or a step that only reads.
 */
#include <stdio.h>
#include <string.h>

#include "core/saga_definition.h"

/* Steps whose after lies in what is closed already. */
static MpSagaSteps
close_sets(MpSagaStep *steps, int count)
{
	MpSagaSteps closed = 0;
	bool		more = true;

	while (more)
	{
		more = false;
		for (int i = 0; i < count; i++)
		{
			if ((closed & MP_SAGA_STEP(i)) != 0 || (steps[i].after & ~closed) != 0)
				continue;
			steps[i].before = steps[i].after;
			for (int j = 0; j < count; j++)
			{
				if ((steps[i].after & MP_SAGA_STEP(j)) != 0)
					steps[i].before |= steps[j].before;
			}
			closed |= MP_SAGA_STEP(i);
			more = true;
		}
	}
	return closed;
}

static int
first_of(MpSagaSteps steps)
{
	return __builtin_ctzll(steps);
}

/* Every step that is open waits for another one that is: the walk returns. */
static bool
refuse_circle(const MpSagaStep *steps, MpSagaSteps open, MpSagaError *error)
{
	int			start = first_of(open);
	MpSagaSteps seen = 0;
	char		path[300] = "";
	size_t		used = 0;
	int			at;

	while ((seen & MP_SAGA_STEP(start)) == 0)
	{
		seen |= MP_SAGA_STEP(start);
		start = first_of(steps[start].after & open);
	}
	at = start;
	do
	{
		at = first_of(steps[at].after & open);
		if (used + strlen(steps[at].name) + 12 > sizeof(path))
		{
			snprintf(path + used, sizeof(path) - used, ", ...");
			break;
		}
		used += (size_t) snprintf(path + used, sizeof(path) - used, "%s\"%s\"", used == 0 ? "" : ", ", steps[at].name);
	} while (at != start);
	return mp_saga_refuse(error, start, steps[start].name, "waits for itself, by way of %s", path);
}

bool
mp_saga_order(MpSagaStep *steps, int count, MpSagaError *error)
{
	MpSagaSteps all = count == 64 ? ~UINT64_C(0) : MP_SAGA_STEP(count) - 1;
	MpSagaSteps closed = close_sets(steps, count);

	if (closed != all)
		return refuse_circle(steps, all & ~closed, error);
	for (int i = 0; i < count; i++)
	{
		for (int j = 0; j < count; j++)
		{
			if ((steps[i].before & MP_SAGA_STEP(j)) != 0)
				steps[j].behind |= MP_SAGA_STEP(i);
		}
	}
	return true;
}

static bool
fill_sets(MpSagaDefinition *definition, MpSagaError *error)
{
	definition->pivot = -1;
	for (int i = 0; i < definition->step_count; i++)
	{
		const MpSagaStep *step = &definition->steps[i];

		definition->all |= MP_SAGA_STEP(i);
		if (step->service != NULL)
			definition->external |= MP_SAGA_STEP(i);
		if (step->undo != NULL || step->undo_service != NULL)
			definition->undoable |= MP_SAGA_STEP(i);
		if (step->kind != MP_SAGA_PIVOT)
			continue;
		if (definition->pivot >= 0)
			return mp_saga_refuse(error, i, step->name, "is a second pivot, \"%s\" is the first; there can be one",
								  definition->steps[definition->pivot].name);
		definition->pivot = i;
	}
	definition->turning = definition->pivot < 0 ? definition->all
		: definition->steps[definition->pivot].before | MP_SAGA_STEP(definition->pivot);
	return true;
}

static bool
check_compensatable(const MpSagaDefinition *definition, int at, MpSagaError *error)
{
	const char *name = definition->steps[at].name;

	if ((definition->undoable & MP_SAGA_STEP(at)) == 0)
		return mp_saga_refuse(error, at, name, "undo or undo_service is missing, and a compensatable step needs one");
	if ((definition->turning & MP_SAGA_STEP(at)) == 0)
		return mp_saga_refuse(error, at, name,
							  "is compensatable and must come before the pivot \"%s\"; where it stands it can be retriable",
							  definition->steps[definition->pivot].name);
	return true;
}

static bool
check_retriable(const MpSagaDefinition *definition, int at, MpSagaError *error)
{
	MpSagaSteps bit = MP_SAGA_STEP(at);
	const char *name = definition->steps[at].name;
	const MpSagaStep *pivot;

	if (definition->pivot < 0)
		return mp_saga_refuse(error, at, name, "is retriable, which only a saga with a pivot can have");
	pivot = &definition->steps[definition->pivot];
	if ((pivot->before & bit) != 0)
		return mp_saga_refuse(error, at, name, "is retriable and must not come before the pivot \"%s\"", pivot->name);
	if ((pivot->behind & bit) != 0 && (definition->undoable & bit) != 0)
		return mp_saga_refuse(error, at, name, "comes after the pivot \"%s\", so that its undo could never run",
							  pivot->name);
	if ((pivot->behind & bit) == 0 && (definition->undoable & bit) == 0)
		return mp_saga_refuse(error, at, name,
							  "can run beside the pivot \"%s\" and needs an undo for the case that it fails, or the pivot in its after",
							  pivot->name);
	return true;
}

bool
mp_saga_check_kinds(MpSagaDefinition *definition, MpSagaError *error)
{
	if (!fill_sets(definition, error))
		return false;
	for (int i = 0; i < definition->step_count; i++)
	{
		const MpSagaStep *step = &definition->steps[i];
		bool		undo = (definition->undoable & MP_SAGA_STEP(i)) != 0;

		switch (step->kind)
		{
			case MP_SAGA_COMPENSATABLE:
				if (!check_compensatable(definition, i, error))
					return false;
				break;
			case MP_SAGA_READ_ONLY:
				if (undo)
					return mp_saga_refuse(error, i, step->name, "has an undo, and a read_only step leaves nothing to undo");
				break;
			case MP_SAGA_PIVOT:
				if (undo && step->run != NULL)
					return mp_saga_refuse(error, i, step->name,
										  "has an undo, and a pivot that is a function leaves nothing when it fails");
				break;
			case MP_SAGA_RETRIABLE:
				if (!check_retriable(definition, i, error))
					return false;
				break;
		}
	}
	return true;
}
