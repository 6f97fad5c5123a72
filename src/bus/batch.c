/*
 * batch.c
 *		mp_put_events: many drafts in one call, errors entry by entry.
 *
 * What is wrong with an entry is found before anything is written for it, and
 * told as a value, not raised: an entry needs no subtransaction of its own.
 * What is right with the others is appended together.
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

/* The fields of an entry that are read; others are ignored. */
typedef enum Field
{
	FIELD_SOURCE,
	FIELD_DETAIL_TYPE,
	FIELD_RESOURCES,
	FIELD_DETAIL,
	FIELD_TIME,
	FIELD_IDEMPOTENCY_KEY,
	FIELD_STREAM,
	FIELDS
} Field;

#define NAME(name) {name, sizeof(name) - 1}

static const struct
{
	const char *name;
	int			len;
}			fields[FIELDS] = {
	NAME("Source"), NAME("DetailType"), NAME("Resources"), NAME("Detail"), NAME("Time"),
	NAME("IdempotencyKey"), NAME("Stream")
};

/* An entry as it came: jbvNull stands for what was not given, too. */
typedef struct Entry
{
	JsonbValue	values[FIELDS];
} Entry;

/* What is wrong with an entry, in PutEvents' words; code NULL: nothing. */
typedef struct EntryError
{
	const char *code;
	const char *message;
} EntryError;

typedef struct Batch
{
	text	   *account;
	text	   *region;
	ArrayType  *no_resources;
	MemoryContext context;		/* lives as long as the call */
	MemoryContext scratch;		/* lives as long as an entry is looked at */
	int			count;
	EntryError *errors;			/* of every entry */
	int		   *entries;		/* of every draft, the number of its entry */
	MpDraft    *drafts;			/* of the entries without an error */
	int			draft_count;
	MpAppendOutcome *outcomes;
	MpAppendResult *results;
} Batch;

PG_FUNCTION_INFO_V1(mp_put_events);

/* ------------------------------------------------------------------------
 * Reading an entry
 * ------------------------------------------------------------------------ */

static void
set_error(EntryError *error, const char *code, const char *message)
{
	if (error->code == NULL)
		*error = (EntryError) {code, message};
}

/* In one walk: a search for every name would cost more. */
static void
read_entry(JsonbContainer *object, Entry *entry)
{
	JsonbIterator *iterator = JsonbIteratorInit(object);
	JsonbIteratorToken token;
	JsonbValue	value;

	for (int f = 0; f < FIELDS; f++)
		entry->values[f].type = jbvNull;
	(void) JsonbIteratorNext(&iterator, &value, true);	/* begin */
	while ((token = JsonbIteratorNext(&iterator, &value, true)) == WJB_KEY)
	{
		int			f = 0;

		while (f < FIELDS && (fields[f].len != value.val.string.len ||
							  memcmp(fields[f].name, value.val.string.val, value.val.string.len) != 0))
			f++;
		(void) JsonbIteratorNext(&iterator, f < FIELDS ? &entry->values[f] : &value, true);
	}
}

static text *
entry_text(const Entry *entry, Field field, EntryError *error)
{
	const JsonbValue *value = &entry->values[field];

	if (value->type == jbvString)
		return cstring_to_text_with_len(value->val.string.val, value->val.string.len);
	if (value->type != jbvNull)
		set_error(error, "InvalidArgument", psprintf("MP400: %s must be a string", fields[field].name));
	return NULL;
}

static Jsonb *
copy_jsonb(const void *container, int len)
{
	Jsonb	   *jsonb = palloc(VARHDRSZ + len);

	SET_VARSIZE(jsonb, VARHDRSZ + len);
	memcpy(VARDATA(jsonb), container, len);
	return jsonb;
}

/* A JSON text has not been checked by anybody yet. */
static Jsonb *
detail_of_text(const Batch *batch, const char *string, int len, EntryError *error)
{
	MpDocumentError problem;
	MemoryContext caller;
	Jsonb	   *parsed;

	if (!mp_document_check(string, len, MP_ENVELOPE_BYTES_MAX, MAX_DETAIL_DEPTH, &problem))
	{
		set_error(error, "MalformedDetail",
				  problem.line == 0 ? psprintf("MP400: Detail %s", problem.message) :
				  psprintf("MP400: Detail, line %d, column %d: %s", problem.line, problem.column, problem.message));
		return NULL;
	}
	caller = MemoryContextSwitchTo(batch->scratch);
	parsed = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(pnstrdup(string, len))));
	MemoryContextSwitchTo(caller);
	return copy_jsonb(&parsed->root, VARSIZE(parsed) - VARHDRSZ);
}

/* An object, or a JSON text of one. */
static Jsonb *
entry_detail(const Batch *batch, const Entry *entry, EntryError *error)
{
	const JsonbValue *value = &entry->values[FIELD_DETAIL];

	/* a container within a jsonb is one byte by byte */
	if (value->type == jbvBinary && JsonContainerIsObject(value->val.binary.data))
		return copy_jsonb(value->val.binary.data, value->val.binary.len);
	if (value->type == jbvString)
		return detail_of_text(batch, value->val.string.val, value->val.string.len, error);
	set_error(error, "MalformedDetail", "MP400: Detail must be a JSON object or the text of one");
	return NULL;
}

/* RFC 3339, or seconds since 1970 as the AWS SDKs send. */
static bool
entry_time(const Entry *entry, TimestampTz *time, EntryError *error)
{
	const JsonbValue *value = &entry->values[FIELD_TIME];
	int64		unix_us;

	if (value->type == jbvNull)
		return false;
	if (value->type == jbvString && mp_rfc3339_parse(value->val.string.val, value->val.string.len, &unix_us))
	{
		*time = unix_us - (int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;
		return true;
	}
	if (value->type == jbvNumeric)
	{
		/* not by numeric_float8, which raises an error for what is too large */
		double		seconds = strtod(DatumGetCString(DirectFunctionCall1(numeric_out,
																		 NumericGetDatum(value->val.numeric))), NULL);

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

static ArrayType *
entry_resources(const Batch *batch, const Entry *entry, EntryError *error)
{
	const JsonbValue *value = &entry->values[FIELD_RESOURCES];
	ArrayBuildState *array = NULL;
	bool		is_array = value->type == jbvBinary && JsonContainerIsArray(value->val.binary.data);
	bool		all_strings = value->type == jbvNull || is_array;

	for (uint32 i = 0; is_array && all_strings && i < JsonContainerSize(value->val.binary.data); i++)
	{
		JsonbValue *element = getIthJsonbValueFromContainer(value->val.binary.data, i);

		all_strings = element->type == jbvString;
		if (all_strings)
			array = accumArrayResult(array, PointerGetDatum(cstring_to_text_with_len(element->val.string.val,
																					 element->val.string.len)),
									 false, TEXTOID, CurrentMemoryContext);
	}
	if (!all_strings)
		set_error(error, "InvalidArgument", "MP400: Resources must be an array of strings");
	if (array == NULL)
		return batch->no_resources;
	return DatumGetArrayTypeP(makeArrayResult(array, CurrentMemoryContext));
}

static MpDraft
draft_of_entry(const Batch *batch, const Entry *entry, EntryError *error)
{
	MpDraft		draft;

	memset(&draft, 0, sizeof(draft));
	draft.account = batch->account;
	draft.region = batch->region;
	draft.source = entry_text(entry, FIELD_SOURCE, error);
	draft.detail_type = entry_text(entry, FIELD_DETAIL_TYPE, error);
	draft.resources = entry_resources(batch, entry, error);
	draft.detail = entry_detail(batch, entry, error);
	draft.has_time = entry_time(entry, &draft.time, error);
	draft.idempotency_key = entry_text(entry, FIELD_IDEMPOTENCY_KEY, error);
	draft.stream = entry_text(entry, FIELD_STREAM, error);
	if (draft.source == NULL)
		set_error(error, "InvalidArgument", "MP400: Source is required");
	if (draft.detail_type == NULL)
		set_error(error, "InvalidArgument", "MP400: DetailType is required");
	return draft;
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

static void
check_draft(const Batch *batch, const MpDraft *draft, EntryError *error)
{
	MemoryContext caller = MemoryContextSwitchTo(batch->scratch);
	const char *field;
	const char *problem = mp_check_draft(draft, &field);

	MemoryContextSwitchTo(caller);
	if (problem != NULL)
		set_error(error, strcmp(field, "detail") == 0 ? "MalformedDetail" : "InvalidArgument",
				  problem_of_entry(problem, field));
}

/* Takes the entries apart into drafts and errors. */
static void
read_entries(Batch *batch, Jsonb *entries)
{
	JsonbIterator *iterator = JsonbIteratorInit(&entries->root);
	JsonbValue	value;
	int			number = 0;

	(void) JsonbIteratorNext(&iterator, &value, true);	/* begin */
	while (JsonbIteratorNext(&iterator, &value, true) == WJB_ELEM)
	{
		EntryError *error = &batch->errors[number];
		Entry		entry;
		MpDraft		draft;

		CHECK_FOR_INTERRUPTS();
		if (value.type != jbvBinary || !JsonContainerIsObject(value.val.binary.data))
			set_error(error, "InvalidArgument", "MP400: an entry must be an object");
		else
		{
			read_entry(value.val.binary.data, &entry);
			draft = draft_of_entry(batch, &entry, error);
		}
		if (error->code == NULL)
			check_draft(batch, &draft, error);
		if (error->code == NULL)
		{
			batch->entries[batch->draft_count] = number;
			batch->drafts[batch->draft_count++] = draft;
		}
		MemoryContextReset(batch->scratch);
		number++;
	}
}

/* ------------------------------------------------------------------------
 * The answer
 * ------------------------------------------------------------------------ */

static void
set_string(JsonbValue *value, const char *string, int len)
{
	value->type = jbvString;
	value->val.string.val = unconstify(char *, string);
	value->val.string.len = len;
}

static void
set_member(JsonbPair *pair, const char *name, const char *string, int len)
{
	set_string(&pair->key, name, strlen(name));
	set_string(&pair->value, string, len);
}

static char *
id_text(const pg_uuid_t *id)
{
	static const char digits[] = "0123456789abcdef";
	char	   *string = palloc(2 * UUID_LEN + 4);
	char	   *p = string;

	for (int i = 0; i < UUID_LEN; i++)
	{
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*p++ = '-';
		*p++ = digits[id->data[i] >> 4];
		*p++ = digits[id->data[i] & 0x0F];
	}
	return string;
}

/*
 * Made as a tree at once.  Names stand in the order in which jsonb keeps them,
 * shorter ones first; nobody sorts them here.
 */
static JsonbValue
answer_of_batch(const Batch *batch)
{
	JsonbValue	root = {.type = jbvObject};
	JsonbPair  *members = palloc0(sizeof(JsonbPair) * 2);
	JsonbValue *answers = palloc0(sizeof(JsonbValue) * Max(batch->count, 1));
	JsonbPair  *pairs = palloc0(sizeof(JsonbPair) * 2 * Max(batch->count, 1));
	int			failed = 0;
	int			draft = 0;

	for (int i = 0; i < batch->count; i++)
	{
		const EntryError *error = &batch->errors[i];

		answers[i].type = jbvObject;
		answers[i].val.object.pairs = &pairs[2 * i];
		if (error->code != NULL)
		{
			answers[i].val.object.nPairs = 2;
			set_member(&pairs[2 * i], "ErrorCode", error->code, strlen(error->code));
			set_member(&pairs[2 * i + 1], "ErrorMessage", error->message, strlen(error->message));
			failed++;
		}
		else
		{
			while (batch->entries[draft] != i)
				draft++;
			answers[i].val.object.nPairs = 1;
			set_member(&pairs[2 * i], "EventId", id_text(&batch->results[draft].id), 2 * UUID_LEN + 4);
		}
	}

	set_string(&members[0].key, "Entries", strlen("Entries"));
	members[0].value.type = jbvArray;
	members[0].value.val.array.nElems = batch->count;
	members[0].value.val.array.elems = answers;
	set_string(&members[1].key, "FailedEntryCount", strlen("FailedEntryCount"));
	members[1].value.type = jbvNumeric;
	members[1].value.val.numeric = DatumGetNumeric(DirectFunctionCall1(int4_numeric, Int32GetDatum(failed)));
	root.val.object.nPairs = 2;
	root.val.object.pairs = members;
	return root;
}

static void
append_drafts(Batch *batch)
{
	if (batch->draft_count == 0)
		return;
	mp_append_batch(batch->drafts, batch->draft_count, batch->outcomes, batch->results);
	for (int i = 0; i < batch->draft_count; i++)
		if (batch->outcomes[i] == MP_KEY_REUSED)
			set_error(&batch->errors[batch->entries[i]], "IdempotencyConflict",
					  psprintf("MP422: idempotency key \"%s\" was used for other content",
							   text_to_cstring(batch->drafts[i].idempotency_key)));
}

Datum
mp_put_events(PG_FUNCTION_ARGS)
{
	Jsonb	   *entries = PG_ARGISNULL(0) ? NULL : PG_GETARG_JSONB_P(0);
	Batch		batch = {.account = PG_ARGISNULL(1) ? NULL : PG_GETARG_TEXT_PP(1)};
	MemoryContext caller;
	JsonbValue	answer;
	Jsonb	   *result;

	if (entries == NULL || !JB_ROOT_IS_ARRAY(entries) || JB_ROOT_IS_SCALAR(entries) ||
		JB_ROOT_COUNT(entries) > MAX_ENTRIES)
		ereport(ERROR,
				(errcode(MP_ERRCODE_INVALID),
				 errmsg("MP400: entries must be an array of at most %d entries", MAX_ENTRIES),
				 errhint("retry=no. Correct the argument \"entries\".")));

	batch.context = AllocSetContextCreate(CurrentMemoryContext, "meal_planner batch", ALLOCSET_DEFAULT_SIZES);
	batch.scratch = AllocSetContextCreate(batch.context, "meal_planner entry", ALLOCSET_DEFAULT_SIZES);
	caller = MemoryContextSwitchTo(batch.context);
	if (batch.account == NULL)
		batch.account = cstring_to_text("local");
	batch.region = cstring_to_text("us-east-1");
	batch.no_resources = construct_empty_array(TEXTOID);
	batch.count = JB_ROOT_COUNT(entries);
	batch.errors = palloc0(sizeof(EntryError) * Max(batch.count, 1));
	batch.entries = palloc(sizeof(int) * Max(batch.count, 1));
	batch.drafts = palloc(sizeof(MpDraft) * Max(batch.count, 1));
	batch.outcomes = palloc(sizeof(MpAppendOutcome) * Max(batch.count, 1));
	batch.results = palloc(sizeof(MpAppendResult) * Max(batch.count, 1));

	read_entries(&batch, entries);
	append_drafts(&batch);
	answer = answer_of_batch(&batch);
	MemoryContextSwitchTo(caller);
	result = JsonbValueToJsonb(&answer);
	MemoryContextDelete(batch.context);
	PG_RETURN_JSONB_P(result);
}
