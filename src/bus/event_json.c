/*
 * event_json.c
 *		Events and jsonb as the pure core reads JSON.
 *
 * An event is read as if it were its envelope, so that patterns are matched
 * without building one.  What a reader returns points into the jsonb or the
 * event, or is palloc'd in the current context.
 */
#include "bus/event_json.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

/*
 * What an MpJson's node points to, where it is not a JsonbContainer: its text,
 * which containers have no use for, says so.
 */
static const char an_event[] = "event";
static const char a_text_array[] = "text[]";

PG_FUNCTION_INFO_V1(mp_match);
PG_FUNCTION_INFO_V1(mp_matches_event);

static MpJson
absent(void)
{
	return (MpJson) {.kind = MP_JSON_ABSENT};
}

static MpJson
string(const char *text, size_t len)
{
	return (MpJson) {.kind = MP_JSON_STRING, .text = text, .len = len};
}

static MpJson
string_of_text(Datum datum)
{
	text	   *value = DatumGetTextPP(datum);

	return string(VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));
}

static MpJson
json_of_container(const JsonbContainer *container)
{
	return (MpJson)
	{
		.kind = JsonContainerIsObject(container) ? MP_JSON_OBJECT : MP_JSON_ARRAY,
		.node = container
	};
}

static MpJson
json_of_jsonb_value(const JsonbValue *value)
{
	switch (value->type)
	{
		case jbvNull:
			return (MpJson) {.kind = MP_JSON_NULL};
		case jbvBool:
			return (MpJson) {.kind = MP_JSON_BOOL, .boolean = value->val.boolean};
		case jbvNumeric:
			{
				char	   *number = DatumGetCString(DirectFunctionCall1(numeric_out,
																		 NumericGetDatum(value->val.numeric)));

				return (MpJson) {.kind = MP_JSON_NUMBER, .text = number, .len = strlen(number)};
			}
		case jbvString:
			return string(value->val.string.val, value->val.string.len);
		case jbvBinary:
			return json_of_container(value->val.binary.data);
		default:
			elog(ERROR, "unexpected jsonb value type %d", (int) value->type);
	}
	return absent();			/* keep the compiler quiet */
}

MpJson
mp_json_of_jsonb(Jsonb *jsonb)
{
	if (JB_ROOT_IS_SCALAR(jsonb))
	{
		JsonbValue *value = getIthJsonbValueFromContainer(&jsonb->root, 0);

		return json_of_jsonb_value(value);
	}
	return json_of_container(&jsonb->root);
}

Jsonb *
mp_jsonb_of_json(const MpJson *container)
{
	JsonbIterator *iterator = JsonbIteratorInit((JsonbContainer *) container->node);
	JsonbParseState *state = NULL;
	JsonbIteratorToken token;
	JsonbValue	value;
	JsonbValue *root = NULL;

	while ((token = JsonbIteratorNext(&iterator, &value, false)) != WJB_DONE)
		root = pushJsonbValue(&state, token, token < WJB_BEGIN_ARRAY ? &value : NULL);
	return JsonbValueToJsonb(root);
}

MpJson
mp_json_of_event(const MpEvent *event)
{
	return (MpJson) {.kind = MP_JSON_OBJECT, .text = an_event, .node = event};
}

static bool
key_is(const char *key, size_t len, const char *name)
{
	return strlen(name) == len && memcmp(key, name, len) == 0;
}

static MpJson
field_of_event(const MpEvent *event, const char *key, size_t len)
{
	if (key_is(key, len, "detail-type"))
		return string_of_text(event->values[MP_EVENT_DETAIL_TYPE]);
	if (key_is(key, len, "source"))
		return string_of_text(event->values[MP_EVENT_SOURCE]);
	if (key_is(key, len, "detail"))
		return mp_json_of_jsonb(DatumGetJsonbP(event->values[MP_EVENT_DETAIL]));
	if (key_is(key, len, "account"))
		return string_of_text(event->values[MP_EVENT_ACCOUNT]);
	if (key_is(key, len, "region"))
		return string_of_text(event->values[MP_EVENT_REGION]);
	if (key_is(key, len, "resources"))
		return (MpJson)
	{
		.kind = MP_JSON_ARRAY, .text = a_text_array,
			.node = DatumGetArrayTypeP(event->values[MP_EVENT_RESOURCES])
	};
	if (key_is(key, len, "id"))
	{
		char	   *id = palloc(MP_UUID_TEXT);

		mp_format_uuid(DatumGetUUIDP(event->values[MP_EVENT_ID]), id);
		return string(id, MP_UUID_TEXT);
	}
	if (key_is(key, len, "time"))
	{
		char	   *time = palloc(MP_TIME_TEXT);

		mp_format_time(DatumGetTimestampTz(event->values[MP_EVENT_TIME]), time);
		return string(time, MP_TIME_TEXT);
	}
	if (key_is(key, len, "version"))
		return string(MP_ENVELOPE_VERSION, strlen(MP_ENVELOPE_VERSION));
	return absent();
}

static MpJson
read_field(const MpJson *object, const char *key, size_t key_len)
{
	JsonbValue	value;

	if (object->kind != MP_JSON_OBJECT)
		return absent();
	if (object->text == an_event)
		return field_of_event(object->node, key, key_len);
	if (getKeyJsonValueFromContainer((JsonbContainer *) object->node, key, (int) key_len, &value) == NULL)
		return absent();
	return json_of_jsonb_value(&value);
}

static bool
each_text(const ArrayType *array, MpJsonVisit visit, void *context)
{
	Datum	   *elements;
	bool	   *nulls;
	int			count;
	bool		finished = true;

	deconstruct_array((ArrayType *) array, TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &count);
	for (int i = 0; i < count && finished; i++)
	{
		MpJson		value = nulls[i] ? (MpJson) {.kind = MP_JSON_NULL} : string_of_text(elements[i]);

		finished = visit(NULL, 0, &value, context);
	}
	return finished;
}

static bool
read_each(const MpJson *container, MpJsonVisit visit, void *context)
{
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	key = {.type = jbvNull};
	JsonbValue	value;
	bool		is_object = container->kind == MP_JSON_OBJECT;

	if (container->text == a_text_array)
		return each_text(container->node, visit, context);
	if (container->text == an_event)
		elog(ERROR, "an event is read by its fields");

	iterator = JsonbIteratorInit((JsonbContainer *) container->node);
	(void) JsonbIteratorNext(&iterator, &value, true);	/* begin */
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		MpJson		json;

		if (token == WJB_KEY)
			key = value;
		if (token != WJB_VALUE && token != WJB_ELEM)
			continue;
		json = json_of_jsonb_value(&value);
		if (!visit(is_object ? key.val.string.val : NULL, is_object ? key.val.string.len : 0, &json, context))
			return false;
	}
	return true;
}

const MpJsonReader mp_json_reader = {
	.field = read_field,
	.each = read_each,
	.guard = check_stack_depth
};

/* ------------------------------------------------------------------------
 * Patterns
 * ------------------------------------------------------------------------ */

static void *
arena_alloc(void *context, size_t size)
{
	return MemoryContextAlloc(context, size);
}

const MpPattern *
mp_compile_pattern(Jsonb *pattern, MemoryContext context)
{
	MpArena		arena = {.alloc = arena_alloc, .context = context};
	MpJson		root = mp_json_of_jsonb(pattern);
	MpPatternError error;
	const MpPattern *compiled = mp_pattern_compile(&mp_json_reader, &root, &arena, &error);

	if (compiled == NULL)
		ereport(ERROR,
				(errcode(MP_ERRCODE_INVALID),
				 errmsg("MP400: invalid event pattern at %s: %s", error.path, error.message),
				 errhint("retry=no. Correct the pattern.")));
	return compiled;
}

Datum
mp_match(PG_FUNCTION_ARGS)
{
	const MpPattern *pattern;
	MpJson		event;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	pattern = mp_compile_pattern(PG_GETARG_JSONB_P(0), CurrentMemoryContext);
	event = mp_json_of_jsonb(PG_GETARG_JSONB_P(1));
	if (event.kind != MP_JSON_OBJECT)
		ereport(ERROR,
				(errcode(MP_ERRCODE_INVALID),
				 errmsg("MP400: event must be a JSON object"),
				 errhint("retry=no. Give an envelope as mp_event does.")));
	PG_RETURN_BOOL(mp_pattern_match(pattern, &mp_json_reader, &event));
}

/* The pattern of the call before, compiled: the sweep matches row after row. */
typedef struct MatchCache
{
	Jsonb	   *source;
	const MpPattern *pattern;
	MemoryContext context;
} MatchCache;

static const MpPattern *
pattern_of_call(FunctionCallInfo fcinfo, Jsonb *pattern)
{
	MatchCache *cache = fcinfo->flinfo->fn_extra;

	if (cache == NULL)
	{
		cache = MemoryContextAllocZero(fcinfo->flinfo->fn_mcxt, sizeof(MatchCache));
		cache->context = AllocSetContextCreate(fcinfo->flinfo->fn_mcxt, "meal_planner pattern",
											   ALLOCSET_SMALL_SIZES);
		fcinfo->flinfo->fn_extra = cache;
	}
	if (cache->source == NULL || VARSIZE(cache->source) != VARSIZE(pattern) ||
		memcmp(cache->source, pattern, VARSIZE(pattern)) != 0)
	{
		cache->source = NULL;
		MemoryContextReset(cache->context);
		cache->pattern = mp_compile_pattern(pattern, cache->context);
		cache->source = MemoryContextAlloc(cache->context, VARSIZE(pattern));
		memcpy(cache->source, pattern, VARSIZE(pattern));
	}
	return cache->pattern;
}

Datum
mp_matches_event(PG_FUNCTION_ARGS)
{
	const MpPattern *pattern;
	MpEvent		event;
	MpJson		json;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	pattern = pattern_of_call(fcinfo, PG_GETARG_JSONB_P(0));
	if (!mp_event_from_row(PG_GETARG_HEAPTUPLEHEADER(1), &event))
		PG_RETURN_NULL();
	json = mp_json_of_event(&event);
	PG_RETURN_BOOL(mp_pattern_match(pattern, &mp_json_reader, &json));
}
