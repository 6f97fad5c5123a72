/*
 * saga_migrate.c
 *		An instance of a saga under another version of its definition.
 */
#include <string.h>

#include "core/saga_definition.h"

static MpSagaAnswer
refuse(MpSagaError *error, int step, const char *name, const char *reason)
{
	(void) mp_saga_refuse(error, step, name, "%s", reason);
	return MP_SAGA_NOT_NOW;
}

/* What has begun has to be the same thing there; NULL: it is. */
static const char *
difference(const MpSagaDefinition *from, int old, const MpSagaDefinition *to, int new)
{
	MpSagaSteps old_bit = MP_SAGA_STEP(old);
	MpSagaSteps new_bit = MP_SAGA_STEP(new);

	if (from->steps[old].kind != to->steps[new].kind)
		return "has begun, and is of another kind in the new version";
	if (((from->external & old_bit) != 0) != ((to->external & new_bit) != 0))
		return "has begun, and is a function in one version, of a service in the other";
	if (((from->undoable & old_bit) != 0) != ((to->undoable & new_bit) != 0))
		return "has begun, and has an undo in one version only";
	return NULL;
}

/* Does the second hold all that the first does? */
static bool
holds_as_much(const MpSagaDefinition *first, const MpSagaDefinition *second)
{
	bool		found = true;

	for (int i = 0; i < first->lock_count && found; i++)
	{
		found = false;
		for (int n = 0; n < second->lock_count && !found; n++)
			found = strcmp(first->locks[i], second->locks[n]) == 0;
	}
	return found;
}

MpSagaAnswer
mp_saga_migrate(const MpSagaDefinition *from, const MpSaga *saga, const MpSagaDefinition *to, MpSaga *migrated,
				MpSagaError *error)
{
	MpSagaNext	next = mp_saga_next(from, saga);
	MpSagaSteps begun = 0;
	MpSagaSteps done = 0;

	if (mp_saga_has_ended(saga->state))
		return MP_SAGA_ENDED;
	if ((next.in_flight | next.undo_in_flight) != 0)
		return MP_SAGA_IN_FLIGHT;
	/* it has them from its start to its end */
	if (!holds_as_much(from, to) || !holds_as_much(to, from))
		return refuse(error, -1, NULL, "it would hold other names");
	mp_saga_init(to, migrated);
	migrated->cause = saga->cause;
	migrated->back = saga->back;
	for (int old = 0; old < from->step_count; old++)
	{
		const MpSagaStepRecord *record = &saga->step[old];
		const char *name = from->steps[old].name;
		const char *reason;
		int			new = mp_saga_find_step(to, name, strlen(name));

		if (record->state == MP_SAGA_STEP_PENDING)
			continue;
		if (new < 0)
			return refuse(error, old, name, "has begun, and is not in the new version");
		reason = difference(from, old, to, new);
		if (reason != NULL)
			return refuse(error, old, name, reason);
		migrated->step[new] = *record;
		/* what was skipped ahead of its turn has waited for nothing */
		if (record->state != MP_SAGA_STEP_SKIPPED)
			begun |= MP_SAGA_STEP(new);
		if (record->state == MP_SAGA_STEP_SUCCEEDED || record->state == MP_SAGA_STEP_SKIPPED)
			done |= MP_SAGA_STEP(new);
		if (old == saga->failed_step)
			migrated->failed_step = new;
	}
	for (int new = 0; new < to->step_count && !saga->back; new++)
	{
		if ((begun & MP_SAGA_STEP(new)) != 0 && (to->steps[new].before & ~done) != 0)
			return refuse(error, new, to->steps[new].name,
						  "has begun, and comes behind a step in the new version that is not done");
	}
	migrated->state = mp_saga_state_of(to, migrated);
	return MP_SAGA_OK;
}
