/*
 * saga_end.c
 *		What others are told of sagas: events of their ends, and alerts.
 */
#include "bus/saga_end.h"

#include "bus/dispatch.h"
#include "bus/event.h"
#include "bus/event_json.h"
#include "bus/json_member.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"

void
mp_saga_alert(const MpSagaHand *hand, const MpSagaAlert *alert)
{
	const MpSagaInstance *instance = alert->instance;
	static MpPlan plan = {
		.sql = "SELECT meal_planner.raise_saga_alert($1, $2, $3, $4, $5, $6, $7)",
	.types = {TEXTOID, UUIDOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, BOOLOID}};
	bool		nulls[7] = {false};
	Datum		values[7] = {
		hand->account, UUIDPGetDatum(&instance->id), CStringGetTextDatum(instance->program->name),
		mp_text_or_null(alert->step < 0 ? NULL : instance->program->definition->steps[alert->step].name, &nulls[3]),
		CStringGetTextDatum(alert->error), CStringGetTextDatum(alert->message), BoolGetDatum(alert->parked)
	};

	mp_plan_execute(&plan, values, nulls, 0);
}

/* NULL: nobody is to be told. */
static const char *
detail_type_of_end(const MpSagaInstance *instance)
{
	if (!instance->changed || mp_saga_has_ended(instance->stored_state) ||
		!mp_saga_has_ended(instance->saga.state))
		return NULL;
	return instance->saga.state == MP_SAGA_COMPLETED
		? instance->program->definition->on_completed : instance->program->definition->on_compensated;
}

/* {"saga_id", "name", "input", "error": {"step", "type", "message"}} */
static Jsonb *
detail_of_end(const MpSagaInstance *instance)
{
	JsonbParseState *state = NULL;
	char		id[MP_UUID_TEXT];

	mp_format_uuid(&instance->id, id);
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	mp_json_add_bytes(&state, "saga_id", id, MP_UUID_TEXT);
	mp_json_add_text(&state, "name", instance->program->name);
	mp_json_add_jsonb(&state, "input", instance->input);
	if (instance->saga.state != MP_SAGA_COMPLETED && instance->error != NULL)
		mp_json_add_jsonb(&state, "error", instance->error);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

static MpDraft
draft_of_end(const MpSagaHand *hand, const MpSagaInstance *instance)
{
	MpDraft		draft;

	memset(&draft, 0, sizeof(draft));
	draft.account = DatumGetTextPP(hand->account);
	draft.detail_type = cstring_to_text(detail_type_of_end(instance));
	draft.source = cstring_to_text("meal-planner");
	draft.region = cstring_to_text("us-east-1");
	draft.resources = construct_empty_array(TEXTOID);
	draft.detail = detail_of_end(instance);
	return draft;
}

/* Events of one batch have as many handlers behind them. */
static void
append_ends(const MpSagaHand *hand, MpDraft *drafts, int count, int hops)
{
	MpAppendOutcome *outcomes = palloc(sizeof(MpAppendOutcome) * count);
	MpAppendResult *results = palloc(sizeof(MpAppendResult) * count);
	int			former = mp_handler_set_hops(hops);

	PG_TRY();
	{
		if (count == 1)
			(void) mp_append(&drafts[0], &results[0]);
		else
			mp_append_batch(drafts, count, outcomes, results);
	}
	PG_FINALLY();
	{
		/* also of an error, such as the cancel of a handler: what the session emits next is a client's */
		mp_handler_set_hops(former);
	}
	PG_END_TRY();
}

void
mp_saga_tell_ends(MpSagaHand *hand)
{
	MpDraft    *drafts = NULL;

	for (int hops = 0; hops <= mp_max_hops; hops++)
	{
		int			count = 0;
		bool		more = false;

		for (int i = 0; i < hand->count; i++)
		{
			const MpSagaInstance *instance = &hand->instances[i];
			int			own;

			if (detail_type_of_end(instance) == NULL)
				continue;
			/* the setting may have been higher when it was started */
			own = Min(instance->hops, mp_max_hops);
			more |= own > hops;
			if (own != hops)
				continue;
			if (drafts == NULL)
				drafts = palloc(sizeof(MpDraft) * hand->count);
			drafts[count++] = draft_of_end(hand, instance);
		}
		if (count > 0)
			append_ends(hand, drafts, count, hops);
		if (!more)
			break;
	}
}
