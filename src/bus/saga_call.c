/*
 * saga_call.c
 *		One call of a step's function: as the role that defined the saga.
 *
 * As for handlers, see handler.c, nothing of whoever goes on with the saga
 * reaches the function, and what it sets ends with the call.
 */
#include "bus/saga.h"

#include "access/xact.h"
#include "bus/dispatch.h"
#include "bus/event_json.h"
#include "bus/json_member.h"
#include "pgcompat.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

/* ------------------------------------------------------------------------
 * The argument
 * ------------------------------------------------------------------------ */

char *
mp_saga_step_key(const MpSagaInstance *instance, int step, bool undo)
{
	char		id[MP_UUID_TEXT];

	mp_format_uuid(&instance->id, id);
	return psprintf("saga:%.*s:%s:%s", MP_UUID_TEXT, id, instance->program->definition->steps[step].name,
					undo ? "compensate" : "forward");
}

Jsonb *
mp_saga_argument(const MpSagaInstance *instance, int step, bool undo, int attempt)
{
	const MpSagaDefinition *definition = instance->program->definition;
	const text *account = DatumGetTextPP(instance->account);
	JsonbParseState *state = NULL;
	char		id[MP_UUID_TEXT];

	mp_format_uuid(&instance->id, id);
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	mp_json_add_bytes(&state, "saga_id", id, MP_UUID_TEXT);
	mp_json_add_bytes(&state, "account", VARDATA_ANY(account), VARSIZE_ANY_EXHDR(account));
	mp_json_add_text(&state, "step", definition->steps[step].name);
	mp_json_add_text(&state, "direction", undo ? "compensate" : "forward");
	mp_json_add_integer(&state, "attempt", attempt);
	mp_json_add_text(&state, "idempotency_key", mp_saga_step_key(instance, step, undo));
	mp_json_add_jsonb(&state, "input", instance->input);
	mp_json_add_name(&state, "results");
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < definition->step_count; i++)
		if (instance->results[i] != NULL)
			mp_json_add_jsonb(&state, definition->steps[i].name, instance->results[i]);
	pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/* ------------------------------------------------------------------------
 * The call
 * ------------------------------------------------------------------------ */

static void
refuse_result(const Jsonb *result)
{
	if (VARSIZE(result) > MP_SAGA_RESULT_BYTES)
		ereport(ERROR,
				(errcode(MP_ERRCODE_INVALID),
				 errmsg("MP400: result of a step must not be larger than %d KiB", MP_SAGA_RESULT_BYTES / 1024),
				 errhint("retry=no. Store it, and return its key.")));
}

/* The result lives in the memory of the caller, all else goes. */
static Jsonb *
call_function(MpSagaRoutine *routine, Jsonb *argument, MemoryContext caller)
{
	LOCAL_FCINFO(fcinfo, 1);
	Datum		result;
	Jsonb	   *copy = NULL;

	InitFunctionCallInfoData(*fcinfo, &routine->function, 1, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = JsonbPGetDatum(argument);
	fcinfo->args[0].isnull = false;
	PushActiveSnapshot(GetTransactionSnapshot());
	result = FunctionCallInvoke(fcinfo);
	/* one that returns void may have left anything */
	if (!fcinfo->isnull && routine->returns_result)
	{
		MemoryContext old = MemoryContextSwitchTo(caller);

		copy = DatumGetJsonbPCopy(result);
		MemoryContextSwitchTo(old);
		refuse_result(copy);
	}
	PopActiveSnapshot();
	return copy;
}

Jsonb *
mp_saga_invoke(MpSagaInstance *instance, int step, bool undo, MpSagaRoutine *routine, MpTimeLimit *limit)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext context = AllocSetContextCreate(caller, "meal_planner saga step", ALLOCSET_SMALL_SIZES);
	int			attempt = instance->saga.step[step].attempt;
	int			former = mp_handler_set_hops(instance->hops);
	Jsonb	   *result;

	/* it sees what the one before did */
	CommandCounterIncrement();
	MemoryContextSwitchTo(context);
	mp_time_limit_begin(limit, instance->program->definition->steps[step].timeout_seconds);
	result = call_function(routine, mp_saga_argument(instance, step, undo, attempt), caller);
	(void) mp_time_limit_end(limit);
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
	mp_handler_set_hops(former);
	return result;
}

bool
mp_saga_try(void (*body) (void *), void *argument, MpTimeLimit *limit, MpFailure *failure)
{
	MemoryContext caller_memory = CurrentMemoryContext;
	ResourceOwner caller_owner = CurrentResourceOwner;
	ErrorContextCallback *caller_error_context = error_context_stack;
	int			caller_hops = mp_handler_hops();
	volatile bool succeeded = false;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(caller_memory);
	PG_TRY();
	{
		/* The context of an error is to be the function's, not how it was reached. */
		error_context_stack = NULL;
		body(argument);
		error_context_stack = caller_error_context;
		ReleaseCurrentSubTransaction();
		succeeded = true;
	}
	PG_CATCH();
	{
		bool		limit_is_over = mp_time_limit_end(limit);

		mp_handler_set_hops(caller_hops);
		if (mp_failure_of_call(mp_end_failed(caller_memory, caller_owner), limit_is_over, 0, failure))
			failure->message = "the step took longer than its timeout_seconds";
	}
	PG_END_TRY();

	MemoryContextSwitchTo(caller_memory);
	CurrentResourceOwner = caller_owner;
	return succeeded;
}
