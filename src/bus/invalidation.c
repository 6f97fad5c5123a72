/*
 * invalidation.c
 *		Being told that a relation has changed.
 *
 * A backend has ten places for those who want to know, for the server and all
 * extensions together, and ends when somebody asks for one more.  All of ours
 * share one.
 */
#include "bus/invalidation.h"

#include "utils/inval.h"

#define CALLBACKS	8

static MpRelationChanged callbacks[CALLBACKS];
static int	callback_count = 0;

static void
relation_changed(Datum arg pg_attribute_unused(), Oid relation)
{
	for (int i = 0; i < callback_count; i++)
		callbacks[i] (relation);
}

void
mp_on_relation_change(MpRelationChanged callback)
{
	if (callback_count == CALLBACKS)
		elog(ERROR, "too many callbacks for changes of relations");
	if (callback_count == 0)
		CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
	callbacks[callback_count++] = callback;
}
