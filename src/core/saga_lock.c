/*
 * saga_lock.c
 *		The locks that a saga holds: names made of templates and its input.
 *
 * A template is text with places for fields of the input, "order:{input.order.id}".
 * It has no escapes: a brace is always a place.
 */
#include <string.h>

#include "core/saga_definition.h"

#define PLACE	"{input."

/*
 * The field names of a place, dots between them, when one begins here; NULL when
 * none does.
 */
static const char *
place_at(const char *template, size_t len, size_t *path_len)
{
	size_t		head = strlen(PLACE);
	const char *end;

	if (len <= head || memcmp(template, PLACE, head) != 0)
		return NULL;
	end = memchr(template, '}', len);
	if (end == NULL)
		return NULL;
	*path_len = (size_t) (end - template) - head;
	template += head;
	for (size_t i = 0; i <= *path_len; i++)
	{
		if (i < *path_len && template[i] == '{')
			return NULL;
		if ((i == *path_len || template[i] == '.') && (i == 0 || template[i - 1] == '.'))
			return NULL;		/* an empty name */
	}
	return template;
}

bool
mp_saga_check_lock(const char *template, size_t len, MpSagaError *error)
{
	MpSagaQuote quote = mp_saga_quote(template, len);

	for (size_t i = 0; i < len;)
	{
		size_t		path_len;

		if (template[i] != '{' && template[i] != '}')
			i++;
		else if (place_at(template + i, len - i, &path_len) != NULL)
			i += strlen(PLACE) + path_len + 1;
		else
			return mp_saga_refuse(error, -1, NULL, "lock \"%s\": braces must hold input. and the name of a field, as {input.order_id}",
								  quote.text);
	}
	return true;
}

static MpJson
follow(const MpJsonReader *reader, const MpJson *input, const char *path, size_t len)
{
	MpJson		value = *input;
	size_t		from = 0;

	while (from <= len)
	{
		const char *dot = memchr(path + from, '.', len - from);
		size_t		to = dot == NULL ? len : (size_t) (dot - path);

		if (value.kind != MP_JSON_OBJECT)
			return (MpJson) {.kind = MP_JSON_ABSENT};
		value = reader->field(&value, path + from, to - from);
		from = to + 1;
	}
	return value;
}

static bool
append(char *name, size_t *used, const char *text, size_t len)
{
	if (len > MP_SAGA_LOCK_BYTES - *used)
		return false;
	for (size_t i = 0; i < len; i++)
	{
		if ((unsigned char) text[i] < 0x20 || text[i] == 0x7F)
			return false;
		name[(*used)++] = text[i];
	}
	return true;
}

/* The value as it stands in a name; nothing for what no name is made of. */
static MpJson
printed(const MpJson *value)
{
	MpJson		text = *value;

	if (value->kind == MP_JSON_BOOL)
	{
		text.text = value->boolean ? "true" : "false";
		text.len = strlen(text.text);
	}
	else if (value->kind != MP_JSON_STRING && value->kind != MP_JSON_NUMBER)
		text.len = 0;
	return text;
}

static bool
make_name(const char *template, const MpJsonReader *reader, const MpJson *input, char *name, MpSagaError *error)
{
	size_t		len = strlen(template);
	size_t		used = 0;

	for (size_t i = 0; i < len;)
	{
		size_t		path_len;
		const char *path = place_at(template + i, len - i, &path_len);
		MpJson		value = {.kind = MP_JSON_STRING,.text = template + i,.len = 1};
		MpSagaQuote quote;

		if (path != NULL)
		{
			value = follow(reader, input, path, path_len);
			value = printed(&value);
		}
		if (value.len == 0 || !append(name, &used, value.text, value.len))
		{
			quote = mp_saga_quote(template, len);
			return mp_saga_refuse(error, -1, NULL,
								  "lock \"%s\": the input must have a short text, a number or a boolean for each place", quote.text);
		}
		i += path == NULL ? 1 : strlen(PLACE) + path_len + 1;
	}
	name[used] = '\0';
	return true;
}

/* Puts a name at its place in the sorted list, unless it is there. */
static void
insert_name(const char **list, int *count, const char *name)
{
	int			at = 0;

	while (at < *count && strcmp(list[at], name) < 0)
		at++;
	if (at < *count && strcmp(list[at], name) == 0)
		return;
	memmove(&list[at + 1], &list[at], (size_t) (*count - at) * sizeof(*list));
	list[at] = name;
	++*count;
}

bool
mp_saga_locks(const MpSagaDefinition *definition, const MpJsonReader *reader, const MpJson *input, MpArena *arena,
			  const char *const **names, int *count, MpSagaError *error)
{
	const char **list = arena->alloc(arena->context, (size_t) (definition->lock_count + 1) * sizeof(*list));

	*names = list;
	*count = 0;
	for (int i = 0; i < definition->lock_count; i++)
	{
		char	   *name = arena->alloc(arena->context, MP_SAGA_LOCK_BYTES + 1);

		if (!make_name(definition->locks[i], reader, input, name, error))
			return false;
		insert_name(list, count, name);
	}
	return true;
}
