/*
 * batch.c
 *		mp_put_events: many drafts in one call, errors entry by entry.
 *
 * What is wrong with an entry is found before anything is written for it, and
 * told as a value, not raised: an entry needs no subtransaction of its own.
 */
#include "bus/event.h"

#include "bus/event_json.h"
#include "catalog/pg_type.h"
#include "core/document.h"
#include "core/envelope.h"
#include "datatype/timestamp.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#define MAX_DETAIL_DEPTH	1000
#define MAX_ENTRIES			10000

/* What is wrong with an entry, in PutEvents' words; code NULL: nothing. */
typedef struct EntryError
{
	const char *code;
	const char *message;
} EntryError;

typedef struct Batch
{
	text	   *account;
	JsonbParseState *results;
	int			failed;
} Batch;

PG_FUNCTION_INFO_V1(mp_put_events);

static void
set_error(EntryError *error, const char *code, const char *message)
{
	if (error->code == NULL)
		*error = (EntryError) {code, message};
}

static MpJson
entry_field(const MpJson *entry, const char *name)
{
	MpJson		value = mp_json_reader.field(entry, name, strlen(name));

	if (value.kind == MP_JSON_NULL)
		value.kind = MP_JSON_ABSENT;
	return value;
}

static text *
entry_text(const MpJson *entry, const char *name, EntryError *error)
{
	MpJson		value = entry_field(entry, name);

	if (value.kind == MP_JSON_STRING)
		return cstring_to_text_with_len(value.text, value.len);
	if (value.kind != MP_JSON_ABSENT)
		set_error(error, "InvalidArgument", psprintf("MP400: %s must be a string", name));
	return NULL;
}

/* An object, or a JSON text of one, which has not been checked by anybody yet. */
static Jsonb *
entry_detail(const MpJson *entry, EntryError *error)
{
	MpJson		value = entry_field(entry, "Detail");
	MpDocumentError problem;

	if (value.kind == MP_JSON_OBJECT)
		return mp_jsonb_of_json(&value);
	if (value.kind != MP_JSON_STRING)
		set_error(error, "MalformedDetail", "MP400: Detail must be a JSON object or the text of one");
	else if (mp_document_check(value.text, value.len, MP_ENVELOPE_BYTES_MAX, MAX_DETAIL_DEPTH, &problem))
		return DatumGetJsonbP(DirectFunctionCall1(jsonb_in,
												  CStringGetDatum(pnstrdup(value.text, value.len))));
	else
		set_error(error, "MalformedDetail",
				  problem.line == 0 ? psprintf("MP400: Detail %s", problem.message) :
				  psprintf("MP400: Detail, line %d, column %d: %s", problem.line, problem.column, problem.message));
	return NULL;
}

/* RFC 3339, or seconds since 1970 as the AWS SDKs send. */
static bool
entry_time(const MpJson *entry, TimestampTz *time, EntryError *error)
{
	MpJson		value = entry_field(entry, "Time");
	int64		unix_us;

	if (value.kind == MP_JSON_ABSENT)
		return false;
	if (value.kind == MP_JSON_STRING && mp_rfc3339_parse(value.text, value.len, &unix_us))
	{
		*time = unix_us - (int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;
		return true;
	}
	if (value.kind == MP_JSON_NUMBER)
	{
		double		seconds = strtod(pnstrdup(value.text, value.len), NULL);

		/* years 1970 to 9999 */
		if (seconds >= 0 && seconds < 253402300800.0)
		{
			*time = DatumGetTimestampTz(DirectFunctionCall1(float8_timestamptz, Float8GetDatum(seconds)));
			return true;
		}
	}
	set_error(error, "InvalidArgument", "MP400: Time must be an RFC 3339 time or seconds since 1970");
	return false;
}

typedef struct Texts
{
	ArrayBuildState *array;
	bool		all_strings;
} Texts;

static bool
collect_text(const char *key pg_attribute_unused(), size_t key_len pg_attribute_unused(),
			 const MpJson *value, void *context)
{
	Texts	   *texts = context;

	texts->all_strings = value->kind == MP_JSON_STRING;
	if (texts->all_strings)
		texts->array = accumArrayResult(texts->array,
										PointerGetDatum(cstring_to_text_with_len(value->text, value->len)),
										false, TEXTOID, CurrentMemoryContext);
	return texts->all_strings;
}

static ArrayType *
entry_resources(const MpJson *entry, EntryError *error)
{
	MpJson		value = entry_field(entry, "Resources");
	Texts		texts = {.array = NULL, .all_strings = true};

	if (value.kind == MP_JSON_ARRAY)
		(void) mp_json_reader.each(&value, collect_text, &texts);
	else
		texts.all_strings = value.kind == MP_JSON_ABSENT;
	if (!texts.all_strings)
		set_error(error, "InvalidArgument", "MP400: Resources must be an array of strings");
	if (texts.array == NULL)
		return construct_empty_array(TEXTOID);
	return DatumGetArrayTypeP(makeArrayResult(texts.array, CurrentMemoryContext));
}

static MpDraft
draft_of_entry(const MpJson *entry, text *account, EntryError *error)
{
	MpDraft		draft;

	memset(&draft, 0, sizeof(draft));
	draft.account = account;
	draft.region = cstring_to_text("us-east-1");
	draft.source = entry_text(entry, "Source", error);
	draft.detail_type = entry_text(entry, "DetailType", error);
	draft.resources = entry_resources(entry, error);
	draft.detail = entry_detail(entry, error);
	draft.has_time = entry_time(entry, &draft.time, error);
	draft.idempotency_key = entry_text(entry, "IdempotencyKey", error);
	draft.stream = entry_text(entry, "Stream", error);
	if (draft.source == NULL)
		set_error(error, "InvalidArgument", "MP400: Source is required");
	if (draft.detail_type == NULL)
		set_error(error, "InvalidArgument", "MP400: DetailType is required");
	return draft;
}

static void
push_member(JsonbParseState **state, const char *name, const char *text)
{
	JsonbValue	key = {.type = jbvString};
	JsonbValue	value = {.type = jbvString};

	key.val.string.val = pstrdup(name);
	key.val.string.len = strlen(name);
	value.val.string.val = pstrdup(text);
	value.val.string.len = strlen(text);
	(void) pushJsonbValue(state, WJB_KEY, &key);
	(void) pushJsonbValue(state, WJB_VALUE, &value);
}

/*
 * A problem of a draft has the name of the argument it is about: put
 * the member of the entry in its place.
 */
static const char *
problem_of_entry(const char *problem, const char *field)
{
	static const char *const members[][2] = {
		{"source", "Source"}, {"detail_type", "DetailType"}, {"detail", "Detail"}, {"resources", "Resources"},
		{"event_time", "Time"}, {"idempotency_key", "IdempotencyKey"}, {"stream", "Stream"}
	};

	for (size_t i = 0; i < lengthof(members); i++)
	{
		const char *name = strcmp(field, members[i][0]) == 0 ? strstr(problem, field) : NULL;

		if (name != NULL)
			return psprintf("MP400: %.*s%s%s", (int) (name - problem), problem, members[i][1],
							name + strlen(field));
	}
	return psprintf("MP400: %s", problem);
}

static bool
put_entry(const char *key pg_attribute_unused(), size_t key_len pg_attribute_unused(),
		  const MpJson *entry, void *context)
{
	Batch	   *batch = context;
	EntryError	error = {NULL, NULL};
	MpDraft		draft;
	MpAppendResult result;
	const char *field;
	const char *problem;

	CHECK_FOR_INTERRUPTS();
	if (entry->kind != MP_JSON_OBJECT)
		set_error(&error, "InvalidArgument", "MP400: an entry must be an object");
	else
		draft = draft_of_entry(entry, batch->account, &error);
	if (error.code == NULL && (problem = mp_check_draft(&draft, &field)) != NULL)
		set_error(&error, strcmp(field, "detail") == 0 ? "MalformedDetail" : "InvalidArgument",
				  problem_of_entry(problem, field));
	if (error.code == NULL && mp_append(&draft, &result) == MP_KEY_REUSED)
		set_error(&error, "IdempotencyConflict",
				  psprintf("MP422: idempotency key \"%s\" was used for other content",
						   text_to_cstring(draft.idempotency_key)));

	(void) pushJsonbValue(&batch->results, WJB_BEGIN_OBJECT, NULL);
	if (error.code == NULL)
		push_member(&batch->results, "EventId",
					DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(&result.id))));
	else
	{
		push_member(&batch->results, "ErrorCode", error.code);
		push_member(&batch->results, "ErrorMessage", error.message);
		batch->failed++;
	}
	(void) pushJsonbValue(&batch->results, WJB_END_OBJECT, NULL);
	return true;
}

static void
push_name(JsonbParseState **state, const char *name)
{
	JsonbValue	key = {.type = jbvString};

	key.val.string.val = pstrdup(name);
	key.val.string.len = strlen(name);
	(void) pushJsonbValue(state, WJB_KEY, &key);
}

Datum
mp_put_events(PG_FUNCTION_ARGS)
{
	Batch		batch = {.account = PG_ARGISNULL(1) ? cstring_to_text("local") : PG_GETARG_TEXT_PP(1)};
	MpJson		entries = {.kind = MP_JSON_ABSENT};
	JsonbValue	failed = {.type = jbvNumeric};

	if (!PG_ARGISNULL(0))
		entries = mp_json_of_jsonb(PG_GETARG_JSONB_P(0));
	if (entries.kind != MP_JSON_ARRAY || JB_ROOT_COUNT(PG_GETARG_JSONB_P(0)) > MAX_ENTRIES)
		ereport(ERROR,
				(errcode(MP_ERRCODE_INVALID),
				 errmsg("MP400: entries must be an array of at most %d entries", MAX_ENTRIES),
				 errhint("retry=no. Correct the argument \"entries\".")));

	(void) pushJsonbValue(&batch.results, WJB_BEGIN_OBJECT, NULL);
	push_name(&batch.results, "Entries");
	(void) pushJsonbValue(&batch.results, WJB_BEGIN_ARRAY, NULL);
	(void) mp_json_reader.each(&entries, put_entry, &batch);
	(void) pushJsonbValue(&batch.results, WJB_END_ARRAY, NULL);
	push_name(&batch.results, "FailedEntryCount");
	failed.val.numeric = DatumGetNumeric(DirectFunctionCall1(int4_numeric, Int32GetDatum(batch.failed)));
	(void) pushJsonbValue(&batch.results, WJB_VALUE, &failed);
	PG_RETURN_JSONB_P(JsonbValueToJsonb(pushJsonbValue(&batch.results, WJB_END_OBJECT, NULL)));
}
