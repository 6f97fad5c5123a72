/*
 * Fuzzes the pattern compiler and the matcher.
 *
 * The input is a pattern and an event, two JSON texts, with a line feed between
 * them (JSON needs none).  Beyond what the sanitizers find, it checks laws that
 * hold for any pattern P and event E:
 *
 * - compiling says the same every time, and an error has a path and a message;
 * - {"$or": [P, P]} matches as P does;
 * - [[E]] in the place of E, one level down, matches as E does, for a pattern
 *	 that has P one level down;
 * - where no literal pins a field, the matcher's answer is its own; where one
 *	 does, an event with another string there does not match.
 */
#include <stdint.h>

#include "core/pattern.h"
#include "json_tree.h"
#include "law.h"

static const MpPattern *
compile(const JsonTree *tree, TestArena *arena, MpPatternError *error)
{
	MpJson		root = json_tree_root(tree);
	const MpPattern *pattern;

	memset(error, 0, sizeof(*error));
	pattern = mp_pattern_compile(&json_tree_reader, &root, &arena->arena, error);
	if (pattern == NULL)
	{
		LAW(error->path[0] == '$' && memchr(error->path, '\0', sizeof(error->path)) != NULL);
		LAW(error->message[0] != '\0' &&
			memchr(error->message, '\0', sizeof(error->message)) != NULL);
	}
	return pattern;
}

static bool
match(const MpPattern *pattern, const JsonTree *event)
{
	MpJson		root = json_tree_root(event);

	return mp_pattern_match(pattern, &json_tree_reader, &root);
}

/* The text between a head and a tail, as a tree; NULL when it is no JSON. */
static JsonTree *
wrapped(const char *head, const char *text, size_t len, const char *tail)
{
	size_t		head_len = strlen(head);
	size_t		tail_len = strlen(tail);
	char	   *joined = malloc(head_len + len + tail_len + 1);
	JsonTree   *tree;

	if (joined == NULL)
		abort();
	memcpy(joined, head, head_len);
	memcpy(joined + head_len, text, len);
	memcpy(joined + head_len + len, tail, tail_len);
	tree = json_tree_parse(joined, head_len + len + tail_len);
	free(joined);
	return tree;
}

/* Matches a wrapped pattern; -1 when the wrapping went beyond a limit. */
static int
match_wrapped(const char *head, const char *text, size_t len, const char *tail,
			  const JsonTree *event)
{
	JsonTree   *tree = wrapped(head, text, len, tail);
	TestArena	arena;
	MpPatternError error;
	const MpPattern *pattern;
	int			result = -1;

	test_arena_init(&arena);
	pattern = tree != NULL && event != NULL ? compile(tree, &arena, &error) : NULL;
	if (pattern != NULL)
		result = match(pattern, event);
	test_arena_free(&arena);
	json_tree_free(tree);
	return result;
}

static char *
doubled(const char *text, size_t len, size_t *doubled_len)
{
	char	   *result = malloc(len * 2 + 2);

	if (result == NULL)
		abort();
	memcpy(result, text, len);
	result[len] = ',';
	memcpy(result + len + 1, text, len);
	*doubled_len = len * 2 + 1;
	return result;
}

static void
check_laws(const MpPattern *pattern, const char *pattern_text, size_t pattern_len,
		   const JsonTree *event, const char *event_text, size_t event_len)
{
	bool		result = match(pattern, event);
	size_t		twice_len;
	char	   *twice = doubled(pattern_text, pattern_len, &twice_len);
	JsonTree   *inner = wrapped("{\"k\":", event_text, event_len, "}");
	JsonTree   *nested = wrapped("{\"k\":[[],[[", event_text, event_len, "]]]}");
	const char *const *literals;
	const size_t *lengths;
	int			count;
	int			other;

	/* within $or the name of a matcher is refused, so that it may be invalid */
	other = match_wrapped("{\"$or\":[", twice, twice_len, "]}", event);
	LAW(other < 0 || other == result);
	free(twice);

	if (json_tree_root(event).kind == MP_JSON_OBJECT)
	{
		other = match_wrapped("{\"k\":", pattern_text, pattern_len, "}", inner);
		LAW(other < 0 || other == result);
		other = match_wrapped("{\"k\":", pattern_text, pattern_len, "}", nested);
		LAW(other < 0 || other == result);
	}
	json_tree_free(inner);
	json_tree_free(nested);

	count = mp_pattern_literals(pattern, "a", &literals, &lengths);
	LAW(count == -1 || count > 0);
	if (count > 0 && result)
	{
		MpJson		root = json_tree_root(event);
		MpJson		value = json_tree_reader.field(&root, "a", 1);
		bool		found = value.kind != MP_JSON_STRING;

		for (int i = 0; i < count && !found; i++)
			found = value.len == lengths[i] &&
				(value.len == 0 || memcmp(value.text, literals[i], value.len) == 0);
		LAW(found);
	}
}

int			LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *at = (const char *) data;
	Part		text = next_part(&at, &size);
	JsonTree   *pattern_tree = json_tree_parse(text.text, text.len);
	JsonTree   *event;
	TestArena	arena;
	MpPatternError errors[2];
	const MpPattern *pattern;
	const MpPattern *again;

	if (pattern_tree == NULL)
		return 0;
	event = json_tree_parse(at, size);

	test_arena_init(&arena);
	pattern = compile(pattern_tree, &arena, &errors[0]);
	again = compile(pattern_tree, &arena, &errors[1]);
	LAW((pattern == NULL) == (again == NULL));
	LAW(strcmp(errors[0].path, errors[1].path) == 0 &&
		strcmp(errors[0].message, errors[1].message) == 0);
	json_tree_free(pattern_tree);

	if (pattern != NULL && event != NULL)
		check_laws(pattern, text.text, text.len, event, at, size);
	test_arena_free(&arena);
	json_tree_free(event);
	return 0;
}
