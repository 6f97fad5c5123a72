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
#include "bus/json_member.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/numeric.h"

/* A handler can put as much as it likes into an error; a history is for reading. */
#define TEXT_BYTES	4000

static void
add_text(JsonbParseState **state, const char *name, const char *text)
{
	if (text != NULL)
		mp_json_add_bytes(state, name, text, pg_mbcliplen(text, (int) strlen(text), TEXT_BYTES));
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
	mp_json_add_integer(&state, "attempt", attempt);
	mp_json_add_name(&state, "counted");
	is_counted.val.boolean = counted;
	pushJsonbValue(&state, WJB_VALUE, &is_counted);
	mp_format_time(mp_clock_now(), at);
	mp_json_add_bytes(&state, "at", at, MP_TIME_TEXT);
	if (failure->seconds > 0)
		mp_json_add_number(&state, "seconds",
						   DatumGetNumeric(DirectFunctionCall1(float8_numeric,
															   Float8GetDatum(rint(failure->seconds * 1e6) / 1e6))));
	add_text(&state, "sqlstate", failure->sqlstate);
	add_text(&state, "message", failure->message);
	add_text(&state, "detail", failure->detail);
	add_text(&state, "hint", failure->hint);
	add_text(&state, "context", failure->context);
	add_text(&state, "verdict", verdict);
	add_text(&state, "worker", failure->worker);
	if (failure->pid != 0)
		mp_json_add_integer(&state, "pid", failure->pid);
	if (event->replay_name != NULL)
		mp_json_add_bytes(&state, "replay_name", VARDATA_ANY(event->replay_name), VARSIZE_ANY_EXHDR(event->replay_name));
	pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	return PointerGetDatum(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_ARRAY, NULL)));
}
