/*
 * subscribe.c
 *		mp_subscribe: checks a subscription and saves it.
 *
 * It is not SECURITY DEFINER, since it has to know its caller: the handler will
 * run as that role.  It saves as the owner of the tables.
 */
#include "bus/breaker.h"
#include "bus/event.h"
#include "bus/event_json.h"
#include "bus/position.h"
#include "bus/subscription.h"

#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "nodes/pg_list.h"
#include "miscadmin.h"
#include "pgcompat.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/varlena.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(mp_subscribe);

static void
refuse(const char *problem, const char *hint)
{
	ereport(ERROR,
			(errcode(MP_ERRCODE_INVALID),
			 errmsg("MP400: %s", problem),
			 errhint("retry=no. %s", hint)));
}

bool
mp_is_function_of(Oid function, Oid argument)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Form_pg_proc form;
	bool		good;

	if (!HeapTupleIsValid(tuple))
		return false;
	form = (Form_pg_proc) GETSTRUCT(tuple);
	good = form->prokind == PROKIND_FUNCTION && !form->proretset && form->pronargs == 1 &&
		form->proargtypes.values[0] == argument &&
		(form->prorettype == VOIDOID || form->prorettype == JSONBOID);
	ReleaseSysCache(tuple);
	return good;
}

/*
 * The caller's search_path, made fit to run a function with: without pg_temp
 * at its end the emitter's temporary tables would come first.
 */
char *
mp_path_of_caller(void)
{
	const char *path = GetConfigOption("search_path", false, false);
	StringInfoData fit;
	List	   *names;
	ListCell   *cell;

	initStringInfo(&fit);
	if (!SplitIdentifierString(pstrdup(path), ',', &names))
		elog(ERROR, "invalid search_path \"%s\"", path);
	foreach(cell, names)
	{
		const char *name = lfirst(cell);

		if (strcmp(name, "pg_temp") != 0)
			appendStringInfo(&fit, "%s, ", quote_identifier(name));
	}
	if (fit.len == 0)
		appendStringInfoString(&fit, "pg_catalog, ");
	appendStringInfoString(&fit, "pg_temp");
	return fit.data;
}

static void
check_handler(Oid handler, const char *mode)
{
	if (strcmp(mode, "pull") == 0)
	{
		if (OidIsValid(handler))
			refuse("handler must be NULL for mode pull", "A consumer claims the events instead.");
		return;
	}
	if (!OidIsValid(handler))
		refuse("handler must be given", "Only mode pull has none.");
	if (!mp_is_function_of(handler, mp_event_type()))
		refuse("handler must be a function f(meal_planner.event) that returns void or jsonb",
			   "Give the signature, as in 'my_handler(meal_planner.event)'.");
	if (!mp_may_execute(handler, GetUserId()))
		ereport(ERROR,
				(errcode(MP_ERRCODE_FORBIDDEN),
				 errmsg("MP403: permission denied for handler %s", format_procedure(handler)),
				 errhint("retry=no. It would run as \"%s\", who may not execute it.",
						 GetUserNameFromId(GetUserId(), false))));
	(void) mp_handler_sets_path(handler);
}

/*
 * Whoever remembers what an event has done (its idempotency key, operations
 * named by its id) has to remember it as long as the event may come again.
 */
static void
check_memory(const MpOptions *options)
{
	double		span = mp_retry_span(&options->policy);

	if (options->redrive_window > 0 && options->redrive_window <= span)
		refuse(psprintf("redrive_window must be longer than the retries, which go on for %.15g s", span),
			   "Letters die when it is over: none could be redriven.");
	if (options->redrive_window >= mp_idempotency_ttl)
		refuse(psprintf("redrive_window must be shorter than meal_planner.idempotency_ttl, which is %d s", mp_idempotency_ttl),
			   "What is replayed later than that may take effect twice.");
	if (span >= mp_idempotency_ttl)
		ereport(WARNING,
				(errmsg("retries go on for %.15g s, longer than idempotency keys are remembered (%d s)", span, mp_idempotency_ttl),
				 errhint("Retry for a shorter time (max_attempts, max_delay, max_age), or raise meal_planner.idempotency_ttl.")));
}

Datum
mp_subscribe(PG_FUNCTION_ARGS)
{
	static MpPlan plan = {
		.sql = "SELECT meal_planner.save_subscription($1, $2, $3, $4, $5, $6, $7)",
	.types = {TEXTOID, JSONBOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, JSONBOID}};
	Oid			handler = PG_ARGISNULL(2) ? InvalidOid : PG_GETARG_OID(2);
	char	   *mode = PG_ARGISNULL(3) ? "inline" : text_to_cstring(PG_GETARG_TEXT_PP(3));
	Datum		values[7];
	bool		nulls[7] = {false};
	Oid			caller;
	int			caller_context;
	MpOptions	options;
	char	   *breaker;

	mp_require_preload();
	if (PG_ARGISNULL(0) || VARSIZE_ANY_EXHDR(PG_GETARG_TEXT_PP(0)) == 0 ||
		VARSIZE_ANY_EXHDR(PG_GETARG_TEXT_PP(0)) > 100)
		refuse("name must have between 1 and 100 bytes", "Correct the argument.");
	if (PG_ARGISNULL(1))
		refuse("pattern must not be NULL", "Use {\"source\":[{\"exists\":true}]} for every event.");
	if (strcmp(mode, "inline") != 0 && strcmp(mode, "worker") != 0 && strcmp(mode, "pull") != 0)
		refuse("mode must be inline, worker or pull", "Correct the argument.");
	(void) mp_compile_pattern(PG_GETARG_JSONB_P(1), CurrentMemoryContext);
	options = mp_options_of_jsonb(PG_ARGISNULL(4) ? NULL : PG_GETARG_JSONB_P(4));
	breaker = options.breaker;
	if (breaker != NULL && strcmp(mode, "pull") == 0)
		refuse("option breaker needs a handler", "A consumer asks with mp_breaker_acquire before it calls its service.");
	check_handler(handler, mode);
	check_memory(&options);

	values[0] = PG_GETARG_DATUM(0);
	values[1] = PG_GETARG_DATUM(1);
	values[2] = CStringGetTextDatum(mode);
	values[3] = mp_text_or_null(OidIsValid(handler) ? format_procedure_qualified(handler) : NULL, &nulls[3]);
	values[4] = CStringGetTextDatum(GetUserNameFromId(GetUserId(), false));
	values[5] = CStringGetTextDatum(mp_path_of_caller());
	values[6] = PG_ARGISNULL(4) ? DirectFunctionCall1(jsonb_in, CStringGetDatum("{}")) : PG_GETARG_DATUM(4);

	/* The server restores the caller if this fails. */
	GetUserIdAndSecContext(&caller, &caller_context);
	SetUserIdAndSecContext(mp_owner(), caller_context | SECURITY_LOCAL_USERID_CHANGE);
	/* no place for it is an error of this call, not of its first event */
	if (breaker != NULL)
		(void) mp_breaker_find(breaker);
	mp_spi_connect();
	mp_plan_execute(&plan, values, nulls, 1);
	mp_spi_finish();
	SetUserIdAndSecContext(caller, caller_context);
	PG_RETURN_VOID();
}
