/*
 * subscription.c
 *		Subscriptions in force, compiled, per backend.
 *
 * They are read and compiled as a set when first needed.  A change in any
 * session reaches all others through the relcache invalidation of the table,
 * which its statement trigger sends; a change of a handler function or of a
 * role arrives through the syscache.  Either makes the set stale, and the next
 * use builds another.  A set in use by a handler further up the stack is kept
 * until that has ended.
 *
 * The set is built with the newest snapshot, also under REPEATABLE READ: it
 * outlives the transaction that builds it.
 */
#include "bus/subscription.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "bus/event_json.h"
#include "bus/invalidation.h"
#include "bus/subscription_index.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "pgcompat.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/regproc.h"
#include "utils/varlena.h"
#include "utils/rel.h"
#include "utils/syscache.h"

struct MpSubscriptions
{
	MemoryContext context;		/* a child of CacheMemoryContext; owns all */
	int			holders;
	uint64		generation;		/* of the table it was read at */
	struct MpSubscriptions *next_stale;

	int			count;			/* sorted by name */
	MpSubscription *all;
	bool		has_inline;

	MpSubscriptionIndex index;	/* of the inline ones, by number */
};

static MpSubscriptions *current = NULL;

/* Counts the changes that this backend was told of. */
static uint64 generation = 0;

/* Replaced while in use. */
static MpSubscriptions *stale_sets = NULL;

static Oid	subscription_relation = InvalidOid;

PG_FUNCTION_INFO_V1(mp_subscription_changed);
PG_FUNCTION_INFO_V1(mp_subscription_is_broken);

/* ------------------------------------------------------------------------
 * Going out of date
 * ------------------------------------------------------------------------ */

/* These run whenever messages arrive: no catalog access, no memory. */
static void
relation_changed(Oid relation)
{
	if (relation == InvalidOid || relation == subscription_relation)
		generation++;
}

static void
catalog_changed(Datum arg pg_attribute_unused(), int cache pg_attribute_unused(),
				uint32 hash pg_attribute_unused())
{
	generation++;
}

/* An error leaves holds behind; with the transaction all of them are over. */
static void
end_of_transaction(XactEvent event, void *arg pg_attribute_unused())
{
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT)
		return;
	if (current != NULL)
		current->holders = 0;
	while (stale_sets != NULL)
	{
		MpSubscriptions *set = stale_sets;

		stale_sets = set->next_stale;
		MemoryContextDelete(set->context);
	}
}

static void
register_callbacks(void)
{
	static bool registered = false;

	if (registered)
		return;
	mp_on_relation_change(relation_changed);
	CacheRegisterSyscacheCallback(PROCOID, catalog_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHOID, catalog_changed, (Datum) 0);
	RegisterXactCallback(end_of_transaction, NULL);
	registered = true;
}

/* Statement trigger on meal_planner.subscription. */
Datum
mp_subscription_changed(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		elog(ERROR, "mp_subscription_changed must be fired as a trigger");
	CacheInvalidateRelcache(((TriggerData *) fcinfo->context)->tg_relation);
	return PointerGetDatum(NULL);
}

/* ------------------------------------------------------------------------
 * Building
 * ------------------------------------------------------------------------ */

static char *
column_text(HeapTuple row, TupleDesc desc, int column, MemoryContext context)
{
	bool		isnull;
	Datum		value = SPI_getbinval(row, desc, column, &isnull);

	return isnull ? NULL : MemoryContextStrdup(context, TextDatumGetCString(value));
}

static MpMode
mode_of(const char *name)
{
	if (strcmp(name, "inline") == 0)
		return MP_INLINE;
	return strcmp(name, "worker") == 0 ? MP_WORKER : MP_PULL;
}

/*
 * mp_subscribe lets nothing through that does not compile, but a row may be
 * written by hand, or by another version.  It must not fail everybody's emits:
 * it matches nothing, and whoever loads it is told.  Only errors of the pure
 * reading are caught, which leave nothing behind but memory; hence no
 * subtransaction.
 */
static void
compile_subscription(MpSubscription *subscription, Jsonb *options, Jsonb *pattern, MemoryContext context)
{
	MemoryContext caller_memory = CurrentMemoryContext;

	PG_TRY();
	{
		MpOptions	checked;

		MemoryContextSwitchTo(context);
		checked = mp_options_of_jsonb(options);
		MemoryContextSwitchTo(caller_memory);
		subscription->policy = checked.policy;
		subscription->order_path = checked.order_path;
		subscription->block_key = checked.block_key;
		subscription->timeout = checked.timeout;
		subscription->breaker = checked.breaker;
		subscription->budget = checked.budget;
		subscription->pattern = mp_compile_pattern(pattern, context);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(caller_memory);
		error = CopyErrorData();
		FlushErrorState();
		if (error->sqlerrcode != MP_ERRCODE_INVALID &&
			ERRCODE_TO_CATEGORY(error->sqlerrcode) != ERRCODE_DATA_EXCEPTION)
			ReThrowError(error);
		ereport(WARNING,
				(errcode(MP_ERRCODE_INVALID),
				 errmsg("MP400: subscription \"%s\" is broken and gets no events", subscription->name),
				 errdetail("%s", error->message),
				 errhint("retry=no. Replace it with mp_subscribe.")));
		FreeErrorData(error);
		subscription->broken = true;
		subscription->policy = mp_options_of_jsonb(NULL).policy;
		/* every event has a source */
		subscription->pattern =
			mp_compile_pattern(DatumGetJsonbP(DirectFunctionCall1(jsonb_in,
																  CStringGetDatum("{\"source\": [{\"exists\": false}]}"))),
							   context);
	}
	PG_END_TRY();
}

static void
build_subscription(HeapTuple row, TupleDesc desc, MemoryContext context, MpSubscription *subscription)
{
	bool		isnull;
	Jsonb	   *options = DatumGetJsonbP(SPI_getbinval(row, desc, 6, &isnull));
	Jsonb	   *pattern = DatumGetJsonbP(SPI_getbinval(row, desc, 7, &isnull));

	memset(subscription, 0, sizeof(*subscription));
	subscription->name = column_text(row, desc, 1, context);
	subscription->mode = mode_of(column_text(row, desc, 2, context));
	subscription->handler = column_text(row, desc, 3, context);
	subscription->owner = column_text(row, desc, 4, context);
	subscription->handler_path = column_text(row, desc, 5, context);
	subscription->paused = DatumGetBool(SPI_getbinval(row, desc, 8, &isnull));
	subscription->start_position = DatumGetInt64(SPI_getbinval(row, desc, 9, &isnull));
	compile_subscription(subscription, options, pattern, context);
}

static void
build_index(MpSubscriptions *set)
{
	set->index.context = set->context;
	for (int i = 0; i < set->count; i++)
	{
		if (set->all[i].mode != MP_INLINE || set->all[i].broken)
			continue;
		set->has_inline = true;
		mp_subscription_index_add(&set->index, set->all[i].pattern, i);
	}
	mp_subscription_index_sort(&set->index);
}

static MpSubscriptions *
build(void)
{
	static MpPlan plan = {
		.sql = "SELECT s.name, s.mode, s.handler, s.owner, s.handler_path, s.options, s.pattern,"
		" s.paused_at IS NOT NULL, s.start_position FROM meal_planner.subscription s"
		" ORDER BY s.name COLLATE pg_catalog.\"C\""};
	MemoryContext context;
	MpSubscriptions *set;
	register_callbacks();
	/* Under the current context until complete: an error then frees it. */
	context = AllocSetContextCreate(CurrentMemoryContext, "meal_planner subscriptions",
									ALLOCSET_SMALL_SIZES);
	set = MemoryContextAllocZero(context, sizeof(MpSubscriptions));
	set->context = context;
	/* before reading: a change that arrives meanwhile makes the set stale */
	set->generation = generation;

	subscription_relation = get_relname_relid("subscription", get_namespace_oid("meal_planner", false));

	mp_spi_connect();
	mp_plan_read_latest(&plan, NULL, NULL, 0);
	set->count = (int) SPI_processed;
	set->all = MemoryContextAllocZero(context, sizeof(MpSubscription) * Max(set->count, 1));
	for (int i = 0; i < set->count; i++)
		build_subscription(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, context, &set->all[i]);
	mp_spi_finish();
	build_index(set);
	MemoryContextSetParent(context, CacheMemoryContext);
	return set;
}

MpSubscriptions *
mp_subscriptions_hold(void)
{
	while (current == NULL || current->generation != generation)
	{
		MpSubscriptions *old = current;
		MpSubscriptions *fresh;

		if (old != NULL && old->holders > 0)
		{
			old->next_stale = stale_sets;
			stale_sets = old;
			current = NULL;
		}
		else if (old != NULL)
		{
			current = NULL;
			MemoryContextDelete(old->context);
		}
		fresh = build();
		if (current != NULL)	/* a nested build was faster */
			MemoryContextDelete(fresh->context);
		else
			current = fresh;
	}
	current->holders++;
	return current;
}

void
mp_subscriptions_release(MpSubscriptions *subscriptions)
{
	/* A set that went out of date meanwhile goes at the end of the transaction. */
	subscriptions->holders--;
}

/* ------------------------------------------------------------------------
 * Finding
 * ------------------------------------------------------------------------ */

bool
mp_subscriptions_has_inline(const MpSubscriptions *subscriptions)
{
	return subscriptions->has_inline;
}

int
mp_subscriptions_matching(MpSubscriptions *subscriptions, const MpEvent *event,
						  MpSubscription ***matching)
{
	MpJson		json = mp_json_of_event(event);
	MpCandidates candidates;
	int			number;
	int			count = 0;

	*matching = NULL;
	mp_candidates_begin(&subscriptions->index, event, &candidates);
	while ((number = mp_candidates_next(&subscriptions->index, &candidates)) >= 0)
	{
		MpSubscription *candidate = &subscriptions->all[number];

		/* a pattern may list the same string twice */
		if (count > 0 && (*matching)[count - 1] == candidate)
			continue;
		if (!mp_pattern_match(candidate->pattern, &mp_json_reader, &json))
			continue;
		if (*matching == NULL)
			*matching = palloc(sizeof(MpSubscription *) * Max(subscriptions->count, 1));
		(*matching)[count++] = candidate;
	}
	return count;
}

MpSubscription *
mp_subscription_find(MpSubscriptions *subscriptions, const char *name)
{
	int			low = 0;
	int			high = subscriptions->count;

	while (low < high)
	{
		int			middle = low + (high - low) / 2;
		int			order = strcmp(subscriptions->all[middle].name, name);

		if (order == 0)
			return &subscriptions->all[middle];
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

Datum
mp_subscription_is_broken(PG_FUNCTION_ARGS)
{
	MpSubscriptions *subscriptions = mp_subscriptions_hold();
	MpSubscription *subscription = mp_subscription_find(subscriptions, text_to_cstring(PG_GETARG_TEXT_PP(0)));
	bool		broken = subscription != NULL && subscription->broken;

	mp_subscriptions_release(subscriptions);
	PG_RETURN_BOOL(broken);
}

/*
 * The search_path among a function's own settings, NULL when it has none.
 */
static char *
function_path(Oid function)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	char	   *path = NULL;
	bool		isnull;
	Datum		config;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", function);
	config = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_proconfig, &isnull);
	if (!isnull)
	{
		const char *prefix = "search_path=";
		Datum	   *settings;
		int			count;

		deconstruct_array(DatumGetArrayTypeP(config), TEXTOID, -1, false, TYPALIGN_INT,
						  &settings, NULL, &count);
		for (int i = 0; i < count; i++)
		{
			char	   *setting = TextDatumGetCString(settings[i]);

			if (strncmp(setting, prefix, strlen(prefix)) == 0)
				path = setting + strlen(prefix);
		}
	}
	ReleaseSysCache(tuple);
	return path;
}

/*
 * Whether a path searches temporary objects last, as it must when a function
 * runs with it on behalf of somebody else: unless pg_temp is named, the server
 * searches it first, and there the caller can put tables with triggers.
 */
bool
mp_path_ends_with_temp(const char *path)
{
	List	   *names;

	if (!SplitIdentifierString(pstrdup(path), ',', &names) || names == NIL)
		return false;
	for (int i = 0; i < list_length(names); i++)
		if ((strcmp(list_nth(names, i), "pg_temp") == 0) != (i == list_length(names) - 1))
			return false;
	return true;
}

/*
 * Whether a function has a search_path of its own; MP400 when that one would
 * open it to its caller.
 */
bool
mp_handler_sets_path(Oid function)
{
	char	   *path = function_path(function);

	if (path != NULL && !mp_path_ends_with_temp(path))
		ereport(ERROR,
				(errcode(MP_ERRCODE_INVALID),
				 errmsg("MP400: search_path of handler %s must end with pg_temp", format_procedure(function)),
				 errdetail("Temporary objects of whoever emits would come first in \"%s\".", path),
				 errhint("retry=no. Let it end with pg_temp, as in ALTER FUNCTION ... SET search_path = public, pg_temp.")));
	return path != NULL;
}

void
mp_subscription_resolve(MpSubscription *subscription)
{
	Oid			function;

	if (!subscription->resolved)
	{
		subscription->role = get_role_oid(subscription->owner, false);
		function = DatumGetObjectId(DirectFunctionCall1(regprocedurein,
														CStringGetDatum(subscription->handler)));
		subscription->sets_path = mp_handler_sets_path(function);
		fmgr_info_cxt(function, &subscription->function, GetMemoryChunkContext(subscription->name));
		subscription->resolved = true;
	}
	/* at every run: a right may come from a role that changed since */
	if (!mp_may_execute(subscription->function.fn_oid, subscription->role))
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FUNCTION, subscription->handler);
}
