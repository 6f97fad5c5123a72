/*
 * saga_admin.c
 *		What operators do with sagas, each noted with who did it and why.
 */
#include "bus/saga.h"

#include "bus/event_json.h"
#include "bus/json_member.h"
#include "bus/position.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

#define LONGEST_REASON 1000

PG_FUNCTION_INFO_V1(mp_cancel_saga);
PG_FUNCTION_INFO_V1(mp_retry_saga);
PG_FUNCTION_INFO_V1(mp_skip_saga_step);
PG_FUNCTION_INFO_V1(mp_migrate_saga);
PG_FUNCTION_INFO_V1(mp_sql_saga_steps);
PG_FUNCTION_INFO_V1(mp_sql_saga_graph);

static char *
reason_argument(FunctionCallInfo fcinfo, int arg)
{
	char	   *reason = PG_ARGISNULL(arg) ? "" : text_to_cstring(PG_GETARG_TEXT_PP(arg));

	if (*reason == '\0' || strlen(reason) > LONGEST_REASON)
		mp_refuse_argument("reason must have between 1 and %d bytes", LONGEST_REASON);
	return reason;
}

/* Who calls, behind SECURITY DEFINER. */
static char *
caller(void)
{
	return GetUserNameFromId(GetOuterUserId(), false);
}

static void
refuse_now(const char *problem, const char *hint)
{
	ereport(ERROR,
			(errcode(MP_ERRCODE_CONFLICT),
			 errmsg("MP409: %s", problem),
			 errhint("%s", hint)));
}

/* The saga of the arguments saga_id and account, locked.  SPI is connected. */
static MpSagaHand *
take_argument(FunctionCallInfo fcinfo, int account_arg)
{
	Datum		account = PG_ARGISNULL(account_arg) ? CStringGetTextDatum("local") : PG_GETARG_DATUM(account_arg);
	MpSagaHand *hand;
	MpSagaInstance *instance;

	if (PG_ARGISNULL(0))
		mp_refuse_argument("saga_id must not be NULL");
	hand = mp_saga_take(account, PG_GETARG_UUID_P(0));
	if (hand->count == 0)
		ereport(ERROR,
				(errcode(MP_ERRCODE_NOT_FOUND),
				 errmsg("MP404: there is no such saga in account \"%s\"", TextDatumGetCString(account)),
				 errhint("retry=no. See mp_sagas.")));
	instance = &hand->instances[0];
	if (instance->broken)
		mp_saga_tell_broken(instance, ERROR);
	return hand;
}

static void
refuse_ended(const MpSagaInstance *instance)
{
	if (mp_saga_has_ended(instance->saga.state))
		refuse_now(psprintf("the saga is %s", mp_saga_state_name(instance->saga.state)),
				   "retry=no. It has ended.");
}

/* Goes on from what was changed; the answer is the saga's state. */
static text *
finish(MpSagaHand *hand)
{
	MpSagaInstance *instance = &hand->instances[0];
	const char *state;

	instance->changed = true;
	mp_saga_note_state(hand, instance);
	mp_saga_go_on(hand, instance);
	state = mp_saga_state_name(instance->saga.state);
	mp_saga_put_down(hand);
	mp_saga_wake_sweep(hand);
	mp_spi_finish();
	return cstring_to_text(state);
}

Datum
mp_cancel_saga(PG_FUNCTION_ARGS)
{
	char	   *reason = reason_argument(fcinfo, 1);
	MpSagaHand *hand;
	MpSagaInstance *instance;
	MpSagaCause cause;

	mp_require_preload();
	mp_spi_connect();
	hand = take_argument(fcinfo, 2);
	instance = &hand->instances[0];
	cause = instance->saga.cause;
	switch (mp_saga_stop(instance->program->definition, &instance->saga, MP_SAGA_CAUSE_CANCEL))
	{
		case MP_SAGA_OK:
		case MP_SAGA_UNDECIDED:
			mp_saga_note(hand, instance, "cancel")->detail = mp_json_of_texts("role", caller(), "reason", reason, NULL);
			mp_saga_keep_error(instance, cause, -1, "cancelled", NULL, reason);
			break;
		case MP_SAGA_UNCHANGED:
			break;
		case MP_SAGA_TOO_LATE:
			refuse_now("the pivot of the saga has succeeded",
					   "retry=no. There is no way back: it goes on to its end.");
			break;
		default:
			refuse_ended(instance);
			refuse_now("the saga cannot be cancelled now", "retry=yes. See mp_saga.");
	}
	PG_RETURN_TEXT_P(finish(hand));
}

Datum
mp_retry_saga(PG_FUNCTION_ARGS)
{
	MpSagaHand *hand;
	MpSagaInstance *instance;

	mp_require_preload();
	mp_spi_connect();
	hand = take_argument(fcinfo, 1);
	instance = &hand->instances[0];
	refuse_ended(instance);
	if (mp_saga_retry(instance->program->definition, &instance->saga, ~UINT64_C(0)) == MP_SAGA_OK)
		mp_saga_note(hand, instance, "retry")->detail = mp_json_of_texts("role", caller(), NULL);
	/* what waits for its next attempt need not wait */
	for (int step = 0; step < instance->program->definition->step_count; step++)
	{
		MpSagaOut  *out = &instance->out[step];

		if (!out->wanted || out->leased || out->due_at <= hand->now)
			continue;
		out->due_at = hand->now;
		out->changed = true;
	}
	PG_RETURN_TEXT_P(finish(hand));
}

Datum
mp_skip_saga_step(PG_FUNCTION_ARGS)
{
	char	   *name = PG_ARGISNULL(1) ? "" : text_to_cstring(PG_GETARG_TEXT_PP(1));
	char	   *reason = reason_argument(fcinfo, 2);
	MpSagaHand *hand;
	MpSagaInstance *instance;
	MpSagaEntry *entry;
	int			step;

	mp_require_preload();
	mp_spi_connect();
	hand = take_argument(fcinfo, 3);
	instance = &hand->instances[0];
	refuse_ended(instance);
	step = mp_saga_find_step(instance->program->definition, name, strlen(name));
	if (step < 0)
		ereport(ERROR,
				(errcode(MP_ERRCODE_NOT_FOUND),
				 errmsg("MP404: saga \"%s\" has no step \"%s\"", instance->program->name, name),
				 errhint("retry=no. See mp_saga.")));
	switch (mp_saga_skip(instance->program->definition, &instance->saga, step))
	{
		case MP_SAGA_OK:
		case MP_SAGA_UNDECIDED:
			break;
		case MP_SAGA_IN_FLIGHT:
			refuse_now(psprintf("step \"%s\" is running", name),
					   "retry=yes. Wait until it has ended, or until its lease has.");
			break;
		default:
			refuse_now(psprintf("step \"%s\" cannot be skipped now", name),
					   "retry=no. It is done already, or it is the pivot, which can only be skipped once it is parked.");
	}
	entry = mp_saga_note(hand, instance, "skipped");
	entry->step = step;
	entry->undo = instance->saga.back;
	entry->detail = mp_json_of_texts("role", caller(), "reason", reason, NULL);
	instance->out[step].changed |= instance->out[step].wanted;
	instance->out[step].wanted = false;
	PG_RETURN_TEXT_P(finish(hand));
}

/* What is known of each step, in the places of the new definition. */
static void
rearrange(MpSagaInstance *instance, MpSagaProgram *to)
{
	const MpSagaDefinition *former = instance->program->definition;
	int			count = to->definition->step_count;
	MpSagaOut  *out = palloc0(sizeof(MpSagaOut) * count);
	Jsonb	  **results = palloc0(sizeof(Jsonb *) * count);

	for (int i = 0; i < count; i++)
	{
		const char *name = to->definition->steps[i].name;
		int			step = mp_saga_find_step(former, name, strlen(name));

		if (step < 0)
			continue;
		out[i] = instance->out[step];
		/* its service may be another one */
		out[i].changed = out[i].wanted;
		results[i] = instance->results[step];
	}
	instance->program = to;
	instance->out = out;
	instance->results = results;
}

/* Rows of steps that the new version does not have. */
static void
drop_outs(const MpSagaHand *hand, const MpSagaInstance *instance, const MpSagaDefinition *to)
{
	static MpPlan plan = {
		.sql = "DELETE FROM meal_planner.saga_step o WHERE o.account OPERATOR(pg_catalog.=) $1"
		" AND o.saga_id OPERATOR(pg_catalog.=) $2 AND o.step OPERATOR(pg_catalog.=) $3",
	.types = {TEXTOID, UUIDOID, TEXTOID}, .in_index_order = true};

	for (int step = 0; step < instance->program->definition->step_count; step++)
	{
		const char *name = instance->program->definition->steps[step].name;
		Datum		values[3] = {hand->account, UUIDPGetDatum(&instance->id), CStringGetTextDatum(name)};

		if (instance->out[step].stored && mp_saga_find_step(to, name, strlen(name)) < 0)
			mp_plan_execute(&plan, values, NULL, 0);
	}
}

Datum
mp_migrate_saga(PG_FUNCTION_ARGS)
{
	MpSagaHand *hand;
	MpSagaInstance *instance;
	MpSagaProgram *to;
	MpSaga		migrated;
	MpSagaError error;
	MpSagaAnswer answer;
	int			from;

	mp_require_preload();
	if (PG_ARGISNULL(1))
		mp_refuse_argument("version must not be NULL");
	mp_spi_connect();
	hand = take_argument(fcinfo, 2);
	instance = &hand->instances[0];
	refuse_ended(instance);
	from = instance->program->version;
	mp_saga_keep_out_drop();
	to = mp_saga_program(instance->program->name, PG_GETARG_INT32(1));
	if (to->broken)
		ereport(ERROR,
				(errcode(MP_ERRCODE_NOT_FOUND),
				 errmsg("MP404: saga \"%s\" has no version %d", instance->program->name, PG_GETARG_INT32(1)),
				 errhint("retry=no. See meal_planner.saga_definition.")));
	error.message[0] = '\0';
	answer = mp_saga_migrate(instance->program->definition, &instance->saga, to->definition, &migrated, &error);
	if (answer == MP_SAGA_IN_FLIGHT)
		refuse_now("a step of the saga is running", "retry=yes. Wait until it has ended, or until its lease has.");
	if (answer != MP_SAGA_OK)
		refuse_now(psprintf("the saga cannot go on as version %d: %s", to->version, error.message),
				   "retry=no. It stays on its version.");
	drop_outs(hand, instance, to->definition);
	rearrange(instance, to);
	instance->saga = migrated;
	mp_saga_note(hand, instance, "migrated")->detail =
		mp_json_of_texts("role", caller(), "from_version", psprintf("%d", from), "version", psprintf("%d", to->version), NULL);
	PG_RETURN_TEXT_P(finish(hand));
}

/* ------------------------------------------------------------------------
 * Looking
 * ------------------------------------------------------------------------ */

/* (name, version, progress) -> rows (step, kind, state, attempt, unknown) */
Datum
mp_sql_saga_steps(PG_FUNCTION_ARGS)
{
	Tuplestorestate *store;
	TupleDesc	desc;
	MpSagaProgram *program;
	MpSaga		saga;

	store = mp_begin_rows(fcinfo, &desc);
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		return (Datum) 0;
	program = mp_saga_program(text_to_cstring(PG_GETARG_TEXT_PP(0)), PG_GETARG_INT32(1));
	if (program->broken)
		return (Datum) 0;
	if (PG_ARGISNULL(2))
		mp_saga_init(program->definition, &saga);
	else if (!mp_saga_read(program->definition, text_to_cstring(PG_GETARG_TEXT_PP(2)), &saga))
		return (Datum) 0;
	for (int i = 0; i < program->definition->step_count; i++)
	{
		const MpSagaStep *step = &program->definition->steps[i];
		bool		nulls[4] = {false};
		Datum		values[4] = {
			CStringGetTextDatum(step->name), CStringGetTextDatum(mp_saga_kind_name(step->kind)),
			CStringGetTextDatum(mp_saga_step_state_name(saga.step[i].state)), Int32GetDatum(saga.step[i].attempt)
		};

		tuplestore_putvalues(store, desc, values, nulls);
	}
	return (Datum) 0;
}

static void *
arena_alloc(void *context, size_t size)
{
	return MemoryContextAlloc(context, size);
}

/* (name, version, is_instance, progress) */
Datum
mp_sql_saga_graph(PG_FUNCTION_ARGS)
{
	MpArena		arena = {.alloc = arena_alloc, .context = CurrentMemoryContext};
	MpSagaProgram *program = mp_saga_program(text_to_cstring(PG_GETARG_TEXT_PP(0)), PG_GETARG_INT32(1));
	MpSaga		saga;

	if (program->broken)
		PG_RETURN_NULL();
	mp_saga_init(program->definition, &saga);
	if (!PG_ARGISNULL(3) && !mp_saga_read(program->definition, text_to_cstring(PG_GETARG_TEXT_PP(3)), &saga))
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(mp_saga_graph(program->definition, PG_GETARG_BOOL(2) ? &saga : NULL, &arena)));
}
