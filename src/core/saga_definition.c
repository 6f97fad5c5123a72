/*
 * saga_definition.c
 *		From the JSON of a saga's definition to its compiled form.
 *
 *	{"steps": [...], "deadline_seconds": n, "on_completed": {"emit": detail type},
 *	 "on_compensated": {"emit": detail type}, "locks": ["meal_plan:{input.meal_plan_id}"]}
 *
 * and a step
 *
 *	{"name", "kind": compensatable | read_only | pivot | retriable,
 *	 "run": function | "service": name, "undo": function | "undo_service": name,
 *	 "after": [names], "retry": policy, "undo_retry": policy, "timeout_seconds": n,
 *	 "breaker": name}
 *
 * Names are resolved when all steps have been read: a step may wait for one that
 * is written later.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/envelope.h"
#include "core/saga_definition.h"
#include "core/utf8.h"

#define MAX_SECONDS	86400.0		/* of an attempt */

/* What the visitors carry. */
typedef struct Build
{
	const MpJsonReader *reader;
	MpArena    *arena;
	MpSagaError *error;
	MpSagaDefinition *definition;
	MpSagaStep *steps;
	MpJson		after[MP_SAGA_MAX_STEPS];	/* as it is written, or absent */
	int			at;				/* the step being read; -1: none */
	MpRetryPolicy *policy;		/* the policy being read, and */
	const char *policy_name;	/* the key it stands under */
} Build;

typedef struct TextKey
{
	const char *name;
	size_t		offset;
	size_t		limit;			/* bytes */
} TextKey;

static const TextKey step_texts[] = {
	{"name", offsetof(MpSagaStep, name), MP_SAGA_NAME_BYTES},
	{"run", offsetof(MpSagaStep, run), MP_SAGA_FUNCTION_BYTES},
	{"service", offsetof(MpSagaStep, service), MP_SAGA_NAME_BYTES},
	{"undo", offsetof(MpSagaStep, undo), MP_SAGA_FUNCTION_BYTES},
	{"undo_service", offsetof(MpSagaStep, undo_service), MP_SAGA_NAME_BYTES},
	{"breaker", offsetof(MpSagaStep, breaker), MP_SAGA_NAME_BYTES}
};

/* The bounds are those of a subscription's policy. */
typedef struct NumberKey
{
	const char *name;
	double		low;
	double		high;
	bool		integer;
	size_t		offset;
} NumberKey;

static const NumberKey policy_numbers[] = {
	{"max_attempts", 1, 1000, true, offsetof(MpRetryPolicy, max_attempts)},
	{"base_delay", 0, 86400, false, offsetof(MpRetryPolicy, base_delay)},
	{"multiplier", 1, 100, false, offsetof(MpRetryPolicy, multiplier)},
	{"max_delay", 0.001, MP_MAX_DELAY, false, offsetof(MpRetryPolicy, max_delay)},
	{"jitter", 0, 1, false, offsetof(MpRetryPolicy, jitter)},
	{"max_age", 0.001, MP_MAX_DELAY, false, offsetof(MpRetryPolicy, max_age)}
};

static const NumberKey timeout_number = {
	"timeout_seconds", 0.001, MAX_SECONDS, false, offsetof(MpSagaStep, timeout_seconds)
};

static const NumberKey deadline_number = {
	"deadline_seconds", 0.001, MP_MAX_DELAY, false, offsetof(MpSagaDefinition, deadline_seconds)
};

#define LENGTH_OF(array)	(sizeof(array) / sizeof((array)[0]))

/* Control characters would forge log lines; a cut falls between two characters. */
MpSagaQuote
mp_saga_quote(const char *text, size_t len)
{
	MpSagaQuote quote;
	size_t		used = len;

	if (len > MP_SAGA_NAME_BYTES)
	{
		used = MP_SAGA_NAME_BYTES;
		while (used > 0 && ((unsigned char) text[used] & 0xC0) == 0x80)
			used--;
	}
	for (size_t i = 0; i < used; i++)
	{
		unsigned char c = (unsigned char) text[i];

		quote.text[i] = c < 0x20 || c == 0x7F ? '?' : (char) c;
	}
	strcpy(quote.text + used, used < len ? "..." : "");
	return quote;
}

bool
mp_saga_refuse(MpSagaError *error, int step, const char *name, const char *format,...)
{
	size_t		used = 0;
	va_list		arguments;

	error->step = step + 1;
	if (step >= 0 && name != NULL)
		used = (size_t) snprintf(error->message, sizeof(error->message), "step \"%s\": ", name);
	else if (step >= 0)
		used = (size_t) snprintf(error->message, sizeof(error->message), "step %d: ", step + 1);
	va_start(arguments, format);
	vsnprintf(error->message + used, sizeof(error->message) - used, format, arguments);
	va_end(arguments);
	return false;
}

/* About the step being read, or about the definition. */
#define REFUSE(b, ...) \
	mp_saga_refuse((b)->error, (b)->at, (b)->at < 0 ? NULL : (b)->steps[(b)->at].name, __VA_ARGS__)

static void *
take(const Build *b, size_t count, size_t size)
{
	size_t		bytes = count == 0 ? 1 : count * size;

	return memset(b->arena->alloc(b->arena->context, bytes), 0, bytes);
}

static bool
is_key(const char *key, size_t len, const char *name)
{
	return len == strlen(name) && memcmp(key, name, len) == 0;
}

static bool
is_plain(const MpJson *value)
{
	for (size_t i = 0; i < value->len; i++)
	{
		unsigned char c = (unsigned char) value->text[i];

		if (c < 0x20 || c == 0x7F)
			return false;
	}
	return true;
}

static bool
set_text(Build *b, const char *key, const MpJson *value, size_t limit, const char **text)
{
	char	   *copy;

	if (value->kind != MP_JSON_STRING || value->len < 1 || value->len > limit || !is_plain(value))
		return REFUSE(b, "%s must be a text of 1 to %zu bytes without control characters", key, limit);
	copy = take(b, value->len + 1, 1);
	memcpy(copy, value->text, value->len);
	*text = copy;
	return true;
}

/* Longer texts of numbers are none that anybody means. */
static bool
read_number(const MpJson *value, double *number)
{
	char		text[64];

	if (value->kind != MP_JSON_NUMBER || value->len >= sizeof(text))
		return false;
	memcpy(text, value->text, value->len);
	text[value->len] = '\0';
	*number = strtod(text, NULL);
	return true;
}

static bool
set_number(Build *b, const char *within, const NumberKey *key, const MpJson *value, void *structure)
{
	double		number;

	if (!read_number(value, &number) || !(number >= key->low && number <= key->high) ||
		(key->integer && number != (int) number))
		return REFUSE(b, "%s%s%s must be %s between %g and %g", within, *within == '\0' ? "" : ".", key->name,
					  key->integer ? "an integer" : "a number", key->low, key->high);
	if (key->integer)
		*(int *) ((char *) structure + key->offset) = (int) number;
	else
		*(double *) ((char *) structure + key->offset) = number;
	return true;
}

static bool
unknown_key(Build *b, const char *within, const char *key, size_t len)
{
	MpSagaQuote quote = mp_saga_quote(key, len);

	return REFUSE(b, "unknown key \"%s%s%s\"", within, *within == '\0' ? "" : ".", quote.text);
}

static bool
visit_policy(const char *key, size_t key_len, const MpJson *value, void *context)
{
	Build	   *b = context;

	for (size_t i = 0; i < LENGTH_OF(policy_numbers); i++)
	{
		if (is_key(key, key_len, policy_numbers[i].name))
			return set_number(b, b->policy_name, &policy_numbers[i], value, b->policy);
	}
	return unknown_key(b, b->policy_name, key, key_len);
}

static bool
set_policy(Build *b, const char *name, const MpJson *value, MpRetryPolicy *policy)
{
	if (value->kind != MP_JSON_OBJECT)
		return REFUSE(b, "%s must be an object", name);
	b->policy_name = name;
	b->policy = policy;
	return b->reader->each(value, visit_policy, b);
}

static bool
set_kind(Build *b, const MpJson *value, MpSagaKind *kind)
{
	for (int i = MP_SAGA_COMPENSATABLE; i <= MP_SAGA_RETRIABLE; i++)
	{
		if (value->kind == MP_JSON_STRING && is_key(value->text, value->len, mp_saga_kind_name((MpSagaKind) i)))
		{
			*kind = (MpSagaKind) i;
			return true;
		}
	}
	return REFUSE(b, "kind must be compensatable, read_only, pivot or retriable");
}

static bool
visit_step(const char *key, size_t key_len, const MpJson *value, void *context)
{
	Build	   *b = context;
	MpSagaStep *step = &b->steps[b->at];

	for (size_t i = 0; i < LENGTH_OF(step_texts); i++)
	{
		/* the name was read first, so that all errors have it */
		if (is_key(key, key_len, step_texts[i].name))
			return i == 0 || set_text(b, step_texts[i].name, value, step_texts[i].limit,
									  (const char **) ((char *) step + step_texts[i].offset));
	}
	if (is_key(key, key_len, "kind"))
		return set_kind(b, value, &step->kind);
	if (is_key(key, key_len, "retry"))
		return set_policy(b, "retry", value, &step->retry);
	if (is_key(key, key_len, "undo_retry"))
		return set_policy(b, "undo_retry", value, &step->undo_retry);
	if (is_key(key, key_len, timeout_number.name))
		return set_number(b, "", &timeout_number, value, step);
	if (is_key(key, key_len, "after"))
	{
		b->after[b->at] = *value;
		return value->kind == MP_JSON_ARRAY || REFUSE(b, "after must be an array of the names of steps");
	}
	return unknown_key(b, "", key, key_len);
}

static bool
has(const Build *b, const MpJson *object, const char *key)
{
	return b->reader->field(object, key, strlen(key)).kind != MP_JSON_ABSENT;
}

/* What is wrong with a step whatever the others are. */
static bool
check_step(Build *b, const MpJson *value)
{
	const MpSagaStep *step = &b->steps[b->at];

	if (!has(b, value, "kind"))
		return REFUSE(b, "kind is missing");
	if (step->run == NULL && step->service == NULL)
		return REFUSE(b, "run or service is missing");
	if (step->run != NULL && step->service != NULL)
		return REFUSE(b, "has run and service, and needs one of them");
	if (step->undo != NULL && step->undo_service != NULL)
		return REFUSE(b, "has undo and undo_service, and needs one of them at most");
	if (step->undo == NULL && step->undo_service == NULL && has(b, value, "undo_retry"))
		return REFUSE(b, "has undo_retry but no undo");
	return true;
}

static bool
read_step(const char *key, size_t key_len, const MpJson *value, void *context)
{
	Build	   *b = context;
	MpSagaStep *step;
	MpJson		name;

	(void) key;
	(void) key_len;
	step = &b->steps[++b->at];
	step->retry = MP_RETRY_POLICY_DEFAULT;
	step->undo_retry = MP_SAGA_UNDO_RETRY_DEFAULT;
	b->after[b->at].kind = MP_JSON_ABSENT;
	if (b->reader->guard != NULL)
		b->reader->guard();
	if (value->kind != MP_JSON_OBJECT)
		return REFUSE(b, "must be an object");
	name = b->reader->field(value, "name", strlen("name"));
	if (name.kind == MP_JSON_ABSENT)
		return REFUSE(b, "name is missing");
	if (!set_text(b, "name", &name, MP_SAGA_NAME_BYTES, &step->name))
		return false;
	for (int i = 0; i < b->at; i++)
	{
		if (strcmp(b->steps[i].name, step->name) == 0)
			return REFUSE(b, "has the name of step %d", i + 1);
	}
	return b->reader->each(value, visit_step, b) && check_step(b, value);
}

static bool
count_element(const char *key, size_t key_len, const MpJson *value, void *context)
{
	int		   *count = context;

	(void) key;
	(void) key_len;
	(void) value;
	return ++*count <= MP_SAGA_MAX_STEPS;
}

/* A name in after. */
static bool
visit_after(const char *key, size_t key_len, const MpJson *value, void *context)
{
	Build	   *b = context;
	MpSagaQuote quote;
	int			found;

	(void) key;
	(void) key_len;
	if (value->kind != MP_JSON_STRING)
		return REFUSE(b, "after must be an array of the names of steps");
	found = mp_saga_find_step(b->definition, value->text, value->len);
	if (found < 0)
	{
		quote = mp_saga_quote(value->text, value->len);
		return REFUSE(b, "after names \"%s\", and there is no such step", quote.text);
	}
	b->steps[b->at].after |= MP_SAGA_STEP(found);
	return true;
}

static bool
read_steps(Build *b, const MpJson *value)
{
	MpSagaDefinition *definition = b->definition;
	int			count = 0;

	if (value->kind == MP_JSON_ABSENT)
		return REFUSE(b, "steps is missing");
	if (value->kind != MP_JSON_ARRAY || !b->reader->each(value, count_element, &count) || count == 0)
		return REFUSE(b, "steps must be an array of 1 to %d steps", MP_SAGA_MAX_STEPS);
	b->steps = take(b, (size_t) count, sizeof(MpSagaStep));
	if (!b->reader->each(value, read_step, b))
		return false;
	definition->steps = b->steps;
	definition->step_count = count;

	for (b->at = 0; b->at < count; b->at++)
	{
		if (b->after[b->at].kind == MP_JSON_ABSENT)
			b->steps[b->at].after = b->at == 0 ? 0 : MP_SAGA_STEP(b->at - 1);
		else if (!b->reader->each(&b->after[b->at], visit_after, b))
			return false;
	}
	b->at = -1;
	return mp_saga_order(b->steps, count, b->error) && mp_saga_check_kinds(definition, b->error);
}

static bool
set_event(Build *b, const char *name, const MpJson *value, const char **detail_type)
{
	MpJson		emit = {.kind = MP_JSON_ABSENT};
	int			keys = 0;

	if (value->kind == MP_JSON_OBJECT)
	{
		emit = b->reader->field(value, "emit", strlen("emit"));
		(void) b->reader->each(value, count_element, &keys);
	}
	if (keys != 1 || emit.kind != MP_JSON_STRING || emit.len < 1 || !is_plain(&emit) ||
		mp_utf8_length(emit.text, emit.len) > MP_ENVELOPE_DETAIL_TYPE_MAX)
		return REFUSE(b, "%s must be {\"emit\": a detail type of 1 to %d characters}", name,
					  MP_ENVELOPE_DETAIL_TYPE_MAX);
	return set_text(b, name, &emit, emit.len, detail_type);
}

static bool
visit_lock(const char *key, size_t key_len, const MpJson *value, void *context)
{
	Build	   *b = context;
	const char **locks = (const char **) b->definition->locks;

	(void) key;
	(void) key_len;
	return set_text(b, "a lock", value, MP_SAGA_LOCK_BYTES, &locks[b->definition->lock_count]) &&
		mp_saga_check_lock(value->text, value->len, b->error) &&
		++b->definition->lock_count > 0;
}

static bool
set_locks(Build *b, const MpJson *value)
{
	int			count = 0;

	if (value->kind != MP_JSON_ARRAY || !b->reader->each(value, count_element, &count) || count > MP_SAGA_MAX_LOCKS)
		return REFUSE(b, "locks must be an array of up to %d names of locks", MP_SAGA_MAX_LOCKS);
	b->definition->locks = take(b, (size_t) count, sizeof(const char *));
	return b->reader->each(value, visit_lock, b);
}

/* The steps come last, for the rest is quickly looked through. */
static bool
visit_definition(const char *key, size_t key_len, const MpJson *value, void *context)
{
	Build	   *b = context;

	if (is_key(key, key_len, "steps"))
		return true;
	if (is_key(key, key_len, deadline_number.name))
		return set_number(b, "", &deadline_number, value, b->definition);
	if (is_key(key, key_len, "on_completed"))
		return set_event(b, "on_completed", value, &b->definition->on_completed);
	if (is_key(key, key_len, "on_compensated"))
		return set_event(b, "on_compensated", value, &b->definition->on_compensated);
	if (is_key(key, key_len, "locks"))
		return set_locks(b, value);
	return unknown_key(b, "", key, key_len);
}

const MpSagaDefinition *
mp_saga_compile(const MpJsonReader *reader, const MpJson *root, MpArena *arena, MpSagaError *error)
{
	Build		b = {.reader = reader,.arena = arena,.error = error,.at = -1};
	MpJson		steps;

	if (root->kind != MP_JSON_OBJECT)
	{
		(void) REFUSE(&b, "the definition must be an object");
		return NULL;
	}
	b.definition = take(&b, 1, sizeof(MpSagaDefinition));
	steps = reader->field(root, "steps", strlen("steps"));
	if (!reader->each(root, visit_definition, &b) || !read_steps(&b, &steps))
		return NULL;
	return b.definition;
}

int
mp_saga_find_step(const MpSagaDefinition *definition, const char *name, size_t len)
{
	for (int i = 0; i < definition->step_count; i++)
	{
		if (is_key(name, len, definition->steps[i].name))
			return i;
	}
	return -1;
}

const char *
mp_saga_kind_name(MpSagaKind kind)
{
	static const char *const names[] = {"compensatable", "read_only", "pivot", "retriable"};

	return names[kind];
}
