/*
 * event.c
 *		mp_emit_event: a client's draft becomes an event of the log.
 *
 * Order of the steps.  The idempotency key is looked up first, since a
 * duplicate has nothing else to do.  The stream is locked and its version
 * checked before a position is taken: the loser of a conflict leaves no trace,
 * and within a stream the order of positions is the order of versions.  Then
 * the position is taken, which holds readers below it, and the key is claimed
 * for the id that follows from it.  Last the row is inserted, in one statement
 * with the dispatch of its inline subscriptions.
 *
 * These functions are SECURITY DEFINER without a SET clause, which would cost
 * an emit some 5 %: all SQL is static, in kept plans, with qualified names.
 */
#include "bus/event.h"

#include "bus/dispatch.h"
#include "bus/event_json.h"
#include "bus/partition.h"
#include "bus/position.h"
#include "catalog/pg_type.h"
#include "core/envelope.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datetime.h"

/* Arguments of mp_emit_event */
enum
{
	ARG_DETAIL_TYPE,
	ARG_DETAIL,
	ARG_SOURCE,
	ARG_RESOURCES,
	ARG_ACCOUNT,
	ARG_REGION,
	ARG_EVENT_TIME,
	ARG_IDEMPOTENCY_KEY,
	ARG_STREAM,
	ARG_EXPECTED_VERSION,
	ARG_DELIVER_AFTER
};

/* The times that RFC 3339, and so the envelope, can write */
#define FIRST_TIME	((int64) (date2j(0, 1, 1) - POSTGRES_EPOCH_JDATE) * USECS_PER_DAY)
#define END_OF_TIME	((int64) (date2j(10000, 1, 1) - POSTGRES_EPOCH_JDATE) * USECS_PER_DAY)

int			mp_max_hops = 16;

PG_FUNCTION_INFO_V1(mp_emit_event);

/* ------------------------------------------------------------------------
 * The draft
 * ------------------------------------------------------------------------ */

static MpEnvelopeText
envelope_text(const text *value)
{
	if (value == NULL)
		return (MpEnvelopeText) {NULL, 0};
	return (MpEnvelopeText) {VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value)};
}

const char *
mp_check_draft(const MpDraft *draft, const char **field)
{
	MpEnvelopeError error;
	MpEnvelope	envelope;
	Datum	   *resources = NULL;
	bool	   *nulls = NULL;
	int			count = 0;

	memset(&envelope, 0, sizeof(envelope));
	envelope.detail_type = envelope_text(draft->detail_type);
	envelope.source = envelope_text(draft->source);
	envelope.account = envelope_text(draft->account);
	envelope.region = envelope_text(draft->region);
	envelope.stream = envelope_text(draft->stream);
	envelope.idempotency_key = envelope_text(draft->idempotency_key);
	envelope.detail_is_object = draft->detail != NULL && JB_ROOT_IS_OBJECT(draft->detail);
	envelope.detail_bytes = draft->detail ? VARSIZE(draft->detail) : 0;

	if (ARR_NDIM(draft->resources) > 1)
	{
		*field = "resources";
		return "resources must be a one-dimensional array";
	}
	if (ARR_NDIM(draft->resources) > 0)
		deconstruct_array(draft->resources, TEXTOID, -1, false, TYPALIGN_INT, &resources, &nulls, &count);
	envelope.resource_count = count;
	if (count > 0)
	{
		MpEnvelopeText *texts = palloc(sizeof(MpEnvelopeText) * count);

		for (int i = 0; i < count; i++)
		{
			if (nulls[i])
			{
				*field = "resources";
				return "resources must not contain NULL";
			}
			texts[i] = envelope_text(DatumGetTextPP(resources[i]));
		}
		envelope.resources = texts;
	}
	if (!mp_envelope_check(&envelope, &error))
	{
		*field = error.field;
		return pstrdup(error.message);
	}

	*field = "event_time";
	if (draft->has_time && TIMESTAMP_NOT_FINITE(draft->time))
		return "event_time must be finite";
	if (draft->has_time && (draft->time < FIRST_TIME || draft->time >= END_OF_TIME))
		return "event_time must lie between the years 0 and 9999";
	*field = "deliver_after";
	if (draft->has_deliver_after && TIMESTAMP_NOT_FINITE(draft->deliver_after))
		return "deliver_after must be finite";
	*field = "expected_version";
	if (draft->has_expected_version && draft->stream == NULL)
		return "expected_version needs a stream";
	if (draft->has_expected_version && draft->expected_version < 0)
		return "expected_version must not be negative";
	*field = NULL;
	return NULL;
}

/* NULL means the default, also where the caller spelt it out. */
static text *
text_argument(FunctionCallInfo fcinfo, int arg, const char *otherwise)
{
	if (!PG_ARGISNULL(arg))
		return PG_GETARG_TEXT_PP(arg);
	return otherwise ? cstring_to_text(otherwise) : NULL;
}

static MpDraft
draft_of_arguments(FunctionCallInfo fcinfo)
{
	MpDraft		draft;

	memset(&draft, 0, sizeof(draft));
	draft.detail_type = text_argument(fcinfo, ARG_DETAIL_TYPE, NULL);
	draft.detail = PG_ARGISNULL(ARG_DETAIL) ? NULL : PG_GETARG_JSONB_P(ARG_DETAIL);
	draft.source = text_argument(fcinfo, ARG_SOURCE, "meal-planner");
	draft.resources = PG_ARGISNULL(ARG_RESOURCES)
		? construct_empty_array(TEXTOID) : PG_GETARG_ARRAYTYPE_P(ARG_RESOURCES);
	draft.account = text_argument(fcinfo, ARG_ACCOUNT, "local");
	draft.region = text_argument(fcinfo, ARG_REGION, "us-east-1");
	draft.idempotency_key = text_argument(fcinfo, ARG_IDEMPOTENCY_KEY, NULL);
	draft.stream = text_argument(fcinfo, ARG_STREAM, NULL);
	draft.has_time = !PG_ARGISNULL(ARG_EVENT_TIME);
	if (draft.has_time)
		draft.time = PG_GETARG_TIMESTAMPTZ(ARG_EVENT_TIME);
	draft.has_expected_version = !PG_ARGISNULL(ARG_EXPECTED_VERSION);
	if (draft.has_expected_version)
		draft.expected_version = PG_GETARG_INT64(ARG_EXPECTED_VERSION);
	draft.has_deliver_after = !PG_ARGISNULL(ARG_DELIVER_AFTER);
	if (draft.has_deliver_after)
		draft.deliver_after = PG_GETARG_TIMESTAMPTZ(ARG_DELIVER_AFTER);
	return draft;
}

/* ------------------------------------------------------------------------
 * The log
 * ------------------------------------------------------------------------ */

static void
insert_event(MpEvent *event)
{
	/* for a row that has to be routed */
	static MpPlan plan = {
		.sql = "INSERT INTO meal_planner.event (account, position, id, detail_type, source, time, region,"
		" resources, detail, stream, version, deliver_after, idempotency_key, hops)"
		" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
		.types = {TEXTOID, INT8OID, UUIDOID, TEXTOID, TEXTOID, TIMESTAMPTZOID, TEXTOID,
		TEXTARRAYOID, JSONBOID, TEXTOID, INT8OID, TIMESTAMPTZOID, TEXTOID, INT2OID}
	};

	mp_recording_begin(mp_event_position(event), mp_event_position(event));
	if (!mp_insert_into_partition(event))
		mp_plan_execute(&plan, event->values, event->nulls, 0);
}

static void
set_text(MpEvent *event, MpEventColumn column, text *value)
{
	event->nulls[column] = (value == NULL);
	event->values[column] = PointerGetDatum(value);
}

void
mp_event_of_draft(const MpDraft *draft, const MpPlace *place, MpEvent *event)
{
	memset(event, 0, sizeof(*event));
	set_text(event, MP_EVENT_ACCOUNT, draft->account);
	event->values[MP_EVENT_POSITION] = Int64GetDatum(place->position);
	event->values[MP_EVENT_ID] = UUIDPGetDatum(place->id);
	set_text(event, MP_EVENT_DETAIL_TYPE, draft->detail_type);
	set_text(event, MP_EVENT_SOURCE, draft->source);
	event->values[MP_EVENT_TIME] = TimestampTzGetDatum(draft->has_time ? draft->time : place->now);
	set_text(event, MP_EVENT_REGION, draft->region);
	event->values[MP_EVENT_RESOURCES] = PointerGetDatum(draft->resources);
	event->values[MP_EVENT_DETAIL] = JsonbPGetDatum(draft->detail);
	set_text(event, MP_EVENT_STREAM, draft->stream);
	event->nulls[MP_EVENT_VERSION] = (draft->stream == NULL);
	event->values[MP_EVENT_VERSION] = Int64GetDatum(place->version);
	event->nulls[MP_EVENT_DELIVER_AFTER] = !draft->has_deliver_after;
	event->values[MP_EVENT_DELIVER_AFTER] = TimestampTzGetDatum(draft->deliver_after);
	set_text(event, MP_EVENT_IDEMPOTENCY_KEY, draft->idempotency_key);
	event->values[MP_EVENT_HOPS] = Int16GetDatum(place->hops);
}

int
mp_hops_of_append(const MpDraft *draft)
{
	int			hops = mp_handler_hops();

	if (hops > mp_max_hops)
		ereport(ERROR,
				(errcode(MP_ERRCODE_LOOP),
				 errmsg("MP508: event \"%s\" would be more than %d handlers away from the first",
						text_to_cstring(draft->detail_type), mp_max_hops),
				 errhint("retry=no. Look for handlers that emit to each other, or raise meal_planner.max_hops.")));
	return hops;
}

static MpAppendOutcome
settle_duplicate(const MpEventKey *key, const bytea *fingerprint, MpAppendResult *result)
{
	MpAppendOutcome outcome = mp_duplicate(key, fingerprint, result);

	mp_spi_finish();
	return outcome;
}

MpAppendOutcome
mp_append(const MpDraft *draft, MpAppendResult *result)
{
	MpEvent		event;
	MpPlace		place = {.id = &result->id, .now = mp_clock_now(), .hops = mp_hops_of_append(draft)};
	MpEventKey	key = {.draft = draft};
	MpEventKey *keys = &key;
	bytea	   *fingerprint = NULL;

	mp_require_preload();
	mp_spi_connect();
	mp_partition_prepare(place.now);

	if (draft->idempotency_key)
	{
		key.fingerprint = fingerprint = mp_draft_fingerprint(draft);
		mp_keys_look_up(&keys, 1, place.now);
		if (key.taken)
			return settle_duplicate(&key, fingerprint, result);
	}

	if (draft->stream)
	{
		int64		version = mp_stream_lock(draft->account, draft->stream);

		if (draft->has_expected_version && draft->expected_version != version)
		{
			mp_spi_finish();
			result->version = version;
			return MP_VERSION_CONFLICT;
		}
		place.version = version + 1;
	}

	place.position = mp_position_append(VARDATA_ANY(draft->account), VARSIZE_ANY_EXHDR(draft->account), 1);
	mp_position_make_uuid(place.position, &result->id);
	if (draft->idempotency_key)
	{
		key.id = result->id;
		mp_keys_claim(&keys, 1, place.now);
		if (key.taken)
			return settle_duplicate(&key, fingerprint, result);
	}

	mp_event_of_draft(draft, &place, &event);
	insert_event(&event);
	mp_spi_finish();
	return MP_APPENDED;
}

Datum
mp_emit_event(PG_FUNCTION_ARGS)
{
	MpDraft		draft = draft_of_arguments(fcinfo);
	MpAppendResult result;
	const char *field;
	const char *problem = mp_check_draft(&draft, &field);
	pg_uuid_t  *id;

	if (problem)
		ereport(ERROR,
				(errcode(MP_ERRCODE_INVALID),
				 errmsg("MP400: %s", problem),
				 errhint("retry=no. Correct the argument \"%s\".", field)));

	switch (mp_append(&draft, &result))
	{
		case MP_APPENDED:
		case MP_DUPLICATE:
			break;
		case MP_KEY_REUSED:
			ereport(ERROR,
					(errcode(MP_ERRCODE_KEY_REUSED),
					 errmsg("MP422: idempotency key \"%s\" was used for other content",
							text_to_cstring(draft.idempotency_key)),
					 errhint("retry=no. Use a new key for a new event.")));
			break;
		case MP_VERSION_CONFLICT:
			ereport(ERROR,
					(errcode(MP_ERRCODE_CONFLICT),
					 errmsg("MP409: stream \"%s\" is at version %lld, not %lld",
							text_to_cstring(draft.stream),
							(long long) result.version, (long long) draft.expected_version),
					 errdetail("The actual version is %lld.", (long long) result.version),
					 errhint("retry=yes. Read the stream and decide anew.")));
			break;
	}

	id = palloc(sizeof(pg_uuid_t));
	*id = result.id;
	PG_RETURN_UUID_P(id);
}
