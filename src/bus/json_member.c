/*
 * json_member.c
 *		Members of a jsonb object that is being made.
 */
#include "bus/json_member.h"

#include "utils/numeric.h"

static void
push_string(JsonbParseState **state, JsonbIteratorToken token, const char *text, size_t len)
{
	JsonbValue	value = {.type = jbvString};

	value.val.string.val = unconstify(char *, text);
	value.val.string.len = (int) len;
	pushJsonbValue(state, token, &value);
}

void
mp_json_add_name(JsonbParseState **state, const char *name)
{
	push_string(state, WJB_KEY, name, strlen(name));
}

void
mp_json_add_bytes(JsonbParseState **state, const char *name, const char *text, size_t len)
{
	mp_json_add_name(state, name);
	push_string(state, WJB_VALUE, text, len);
}

void
mp_json_add_text(JsonbParseState **state, const char *name, const char *text)
{
	if (text != NULL)
		mp_json_add_bytes(state, name, text, strlen(text));
}

void
mp_json_add_number(JsonbParseState **state, const char *name, Numeric number)
{
	JsonbValue	value = {.type = jbvNumeric};

	mp_json_add_name(state, name);
	value.val.numeric = number;
	pushJsonbValue(state, WJB_VALUE, &value);
}

void
mp_json_add_integer(JsonbParseState **state, const char *name, int64 number)
{
	mp_json_add_number(state, name, int64_to_numeric(number));
}

void
mp_json_add_jsonb(JsonbParseState **state, const char *name, Jsonb *jsonb)
{
	JsonbValue	value;

	mp_json_add_name(state, name);
	JsonbToJsonbValue(jsonb, &value);
	pushJsonbValue(state, WJB_VALUE, &value);
}

Jsonb *
mp_json_of_texts(const char *name,...)
{
	JsonbParseState *state = NULL;
	va_list		args;

	va_start(args, name);
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (; name != NULL; name = va_arg(args, const char *))
		mp_json_add_text(&state, name, va_arg(args, const char *));
	va_end(args);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}
