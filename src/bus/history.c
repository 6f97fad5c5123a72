/*
 * history.c
 *		What is kept of a failed attempt.
 *
 * A jsonb array of objects: a delivery carries those of its attempts along, and
 * nobody looks into them but who reads the history.
 */
#include "bus/history.h"

#include <math.h>

#include "bus/event_json.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/numeric.h"

/* A handler can put as much as it likes into an error; a history is for reading. */
#define TEXT_BYTES	4000

static void
push_key(JsonbParseState **state, const char *key)
{
	JsonbValue	value = {.type = jbvString};

	value.val.string.val = unconstify(char *, key);
	value.val.string.len = (int) strlen(key);
	pushJsonbValue(state, WJB_KEY, &value);
}

static void
push_bytes(JsonbParseState **state, const char *key, const char *text, int len)
{
	JsonbValue	value = {.type = jbvString};

	push_key(state, key);
	value.val.string.val = unconstify(char *, text);
	value.val.string.len = pg_mbcliplen(text, len, TEXT_BYTES);
	pushJsonbValue(state, WJB_VALUE, &value);
}

static void
push_text(JsonbParseState **state, const char *key, const char *text)
{
	if (text != NULL)
		push_bytes(state, key, text, (int) strlen(text));
}

static void
push_number(JsonbParseState **state, const char *key, Datum number)
{
	JsonbValue	value = {.type = jbvNumeric};

	push_key(state, key);
	value.val.numeric = DatumGetNumeric(number);
	pushJsonbValue(state, WJB_VALUE, &value);
}

static void
push_integer(JsonbParseState **state, const char *key, int number)
{
	push_number(state, key, NumericGetDatum(int64_to_numeric(number)));
}

Datum
mp_failed_attempt(const MpEvent *event, int attempt, bool counted, const MpFailure *failure, const char *verdict)
{
	JsonbParseState *state = NULL;
	JsonbValue	is_counted = {.type = jbvBool};
	char		at[MP_TIME_TEXT];

	pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	if (failure->untried)
		return PointerGetDatum(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_ARRAY, NULL)));
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	push_integer(&state, "attempt", attempt);
	push_key(&state, "counted");
	is_counted.val.boolean = counted;
	pushJsonbValue(&state, WJB_VALUE, &is_counted);
	mp_format_time(mp_clock_now(), at);
	push_bytes(&state, "at", at, MP_TIME_TEXT);
	if (failure->seconds > 0)
		push_number(&state, "seconds", DirectFunctionCall1(float8_numeric,
														   Float8GetDatum(rint(failure->seconds * 1e6) / 1e6)));
	push_text(&state, "sqlstate", failure->sqlstate);
	push_text(&state, "message", failure->message);
	push_text(&state, "detail", failure->detail);
	push_text(&state, "hint", failure->hint);
	push_text(&state, "context", failure->context);
	push_text(&state, "verdict", verdict);
	push_text(&state, "worker", failure->worker);
	if (failure->pid != 0)
		push_integer(&state, "pid", failure->pid);
	if (event->replay_name != NULL)
		push_bytes(&state, "replay_name", VARDATA_ANY(event->replay_name),
				   (int) VARSIZE_ANY_EXHDR(event->replay_name));
	pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	return PointerGetDatum(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_ARRAY, NULL)));
}
