/*
 * handler.c
 *		Calls of a handler: in a subtransaction, as the subscriber.
 *
 * Three things of the emitter must not reach the handler, or the emitter could
 * make the subscriber's rights its own: its role, its search_path (with its
 * temporary schema, which the server searches first unless told otherwise),
 * and, when the roles differ, its session: what the handler leaves behind for
 * commit time would run as the emitter.  SECURITY_RESTRICTED_OPERATION forbids
 * just that (deferred triggers, temporary objects, SET ROLE).  Settings are
 * not among it, and a search_path left behind would make the emitter's next
 * statement the subscriber's: they end with the call.
 */
#include "bus/handler.h"

#include "access/xact.h"
#include "bus/dispatch.h"
#include "bus/metrics.h"
#include "bus/time_limit.h"
#include "miscadmin.h"
#include "pgcompat.h"
#include "portability/instr_time.h"
#include "utils/datum.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

/* How many handlers stand between the event being handled and its client. */
static int	current_hops = 0;

/* The replay that delivers the event being handled; NULL: none does. */
static const text *current_replay = NULL;

PG_FUNCTION_INFO_V1(mp_replay_name);

int
mp_handler_hops(void)
{
	return current_hops;
}

int
mp_handler_set_hops(int hops)
{
	int			former = current_hops;

	current_hops = hops;
	return former;
}

Datum
mp_replay_name(PG_FUNCTION_ARGS)
{
	if (current_replay == NULL)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(datumCopy(PointerGetDatum(current_replay), false, -1));
}

/*
 * The error of somebody or something else, not of the handler.  A shutdown of
 * this server is FATAL and never comes here; 57P01 as an ERROR is news of
 * another server, which a handler spoke to.
 */
bool
mp_error_must_get_through(int sqlerrcode)
{
	switch (sqlerrcode)
	{
		case ERRCODE_QUERY_CANCELED:
		case ERRCODE_OUT_OF_MEMORY:
			return true;
		case ERRCODE_T_R_SERIALIZATION_FAILURE:
			/* with one snapshot per transaction only a new transaction can help */
			return IsolationUsesXactSnapshot();
		default:
			return false;
	}
}

static MpFailure
failure_of_error(const ErrorData *error, int event)
{
	return (MpFailure)
	{
		.sqlstate = pstrdup(unpack_sql_state(error->sqlerrcode)),
			.message = pstrdup(error->message ? error->message : "no message"),
			.detail = error->detail ? pstrdup(error->detail) : NULL,
			.hint = error->hint ? pstrdup(error->hint) : NULL,
			.context = error->context ? pstrdup(error->context) : NULL,
			.event = event,
			.pid = MyProcPid
	};
}

/*
 * The server undoes role, settings, snapshots and SPI connections of what was
 * called with its subtransaction, which has to end here also when the error
 * goes on: nobody above knows of it.
 */
ErrorData *
mp_end_failed(MemoryContext memory, ResourceOwner owner)
{
	ErrorData  *error;

	MemoryContextSwitchTo(memory);
	error = CopyErrorData();
	FlushErrorState();
	RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(memory);
	CurrentResourceOwner = owner;
	return error;
}

bool
mp_failure_of_call(ErrorData *error, bool limit_is_over, int event, MpFailure *failure)
{
	bool		took_too_long = limit_is_over && error->sqlerrcode == ERRCODE_QUERY_CANCELED;

	if (!took_too_long && mp_error_must_get_through(error->sqlerrcode))
		ReThrowError(error);
	*failure = failure_of_error(error, event);
	FreeErrorData(error);
	return took_too_long;
}

/* The result means nothing, NULL included: a void function in SQL returns it. */
static void
invoke(FmgrInfo *function, Datum argument)
{
	LOCAL_FCINFO(fcinfo, 1);

	InitFunctionCallInfoData(*fcinfo, function, 1, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = argument;
	fcinfo->args[0].isnull = false;
	(void) FunctionCallInvoke(fcinfo);
}

/*
 * What a language keeps in an FmgrInfo stands for one running call, and a
 * handler that emits may be called again inside itself: the inner call gets an
 * FmgrInfo of its own.
 */
static void
invoke_handler(MpSubscription *subscription, Datum argument)
{
	MpStatement *statement = mp_statement_of_handler(subscription);
	FmgrInfo	nested;

	if (statement != NULL)
	{
		mp_statement_run(statement, argument);
		return;
	}
	if (subscription->running == 1)
	{
		invoke(&subscription->function, argument);
		return;
	}
	fmgr_info_cxt(subscription->function.fn_oid, &nested, CurrentMemoryContext);
	invoke(&nested, argument);
}

MpGuise
mp_guise_begin(Oid role, const char *path)
{
	MpGuise		guise;
	int			context;

	GetUserIdAndSecContext(&guise.caller, &guise.caller_context);
	context = guise.caller_context | SECURITY_LOCAL_USERID_CHANGE;
	if (role != GetOuterUserId())
		context |= SECURITY_RESTRICTED_OPERATION;
	SetUserIdAndSecContext(role, context);
	guise.guc_level = NewGUCNestLevel();
	if (path != NULL)
		(void) set_config_option("search_path", path,
								 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	return guise;
}

/* What was set meanwhile, a search_path included, goes with it. */
void
mp_guise_end(const MpGuise *guise)
{
	AtEOXact_GUC(false, guise->guc_level);
	SetUserIdAndSecContext(guise->caller, guise->caller_context);
}

static void
call_handler(MpSubscription *subscription, const MpEvent *events, int count, MemoryContext per_call,
			 volatile int *at, MpTimeLimit *limit)
{
	MpGuise		guise;

	mp_subscription_resolve(subscription);
	guise = mp_guise_begin(subscription->role, subscription->sets_path ? NULL : subscription->handler_path);
	subscription->running++;
	for (int i = 0; i < count; i++)
	{
		*at = i;
		current_hops = mp_event_hops(&events[i]) + 1;
		current_replay = events[i].replay_name;
		/* each call sees what the one before did */
		if (i > 0)
			CommandCounterIncrement();
		PushActiveSnapshot(GetTransactionSnapshot());
		mp_time_limit_begin(limit, subscription->timeout);
		invoke_handler(subscription, mp_event_to_row(&events[i]));
		(void) mp_time_limit_end(limit);
		PopActiveSnapshot();
		MemoryContextReset(per_call);
	}

	subscription->running--;
	mp_guise_end(&guise);
}

/* Of a run that failed one call is counted: the others will be made again. */
static void
count_calls(const MpSubscription *subscription, int count, bool succeeded, double milliseconds)
{
	for (int i = 0; i < count; i++)
		mp_metrics_count(subscription->name, milliseconds / count, !succeeded);
}

bool
mp_handler_run(MpSubscription *subscription, const MpEvent *events, int count, MpFailure *failure)
{
	MemoryContext caller_memory = CurrentMemoryContext;
	ResourceOwner caller_owner = CurrentResourceOwner;
	ErrorContextCallback *caller_error_context = error_context_stack;
	MemoryContext handler_memory;
	int			caller_hops = current_hops;
	const text *caller_replay = current_replay;
	int			caller_running = subscription->running;
	volatile bool succeeded = false;
	volatile int at = 0;
	MpTimeLimit limit = {0, 0};
	instr_time	start;
	instr_time	duration;
	MpBreakerCall call;

	switch (mp_breaker_begin(subscription->breaker, count, &call))
	{
		case MP_CALL_ALLOWED:
			break;
		case MP_CALL_ONE_ONLY:
			*failure = (MpFailure) {.event = 1};
			return false;
		case MP_CALL_REFUSED:
			*failure = (MpFailure) {.call = call};
			return false;
	}

	/* What a handler leaves behind must not pile up in the emitter. */
	handler_memory = AllocSetContextCreate(caller_memory, "meal_planner handler", ALLOCSET_SMALL_SIZES);
	INSTR_TIME_SET_CURRENT(start);

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(handler_memory);
	PG_TRY();
	{
		/* The context of an error is to be the handler's, not how it was reached. */
		error_context_stack = NULL;
		call_handler(subscription, events, count, handler_memory, &at, &limit);
		current_hops = caller_hops;
		current_replay = caller_replay;
		error_context_stack = caller_error_context;
		ReleaseCurrentSubTransaction();
		succeeded = true;
	}
	PG_CATCH();
	{
		bool		limit_is_over = mp_time_limit_end(&limit);

		current_hops = caller_hops;
		current_replay = caller_replay;
		subscription->running = caller_running;
		if (mp_failure_of_call(mp_end_failed(caller_memory, caller_owner), limit_is_over, at, failure))
			failure->message = psprintf("the handler took longer than %g s", subscription->timeout);
	}
	PG_END_TRY();

	MemoryContextSwitchTo(caller_memory);
	CurrentResourceOwner = caller_owner;
	MemoryContextDelete(handler_memory);

	INSTR_TIME_SET_CURRENT(duration);
	INSTR_TIME_SUBTRACT(duration, start);
	count_calls(subscription, succeeded ? count : 1, succeeded, INSTR_TIME_GET_MILLISEC(duration));
	if (succeeded)
		mp_breaker_succeeded(&call, count, INSTR_TIME_GET_DOUBLE(duration));
	else
	{
		failure->call = call;
		failure->seconds = INSTR_TIME_GET_DOUBLE(duration);
	}
	return succeeded;
}
