/*
 * json_tree.c
 *		A JSON tree that implements MpJsonReader over jansson.
 */
#include <jansson.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "json_tree.h"

/* Stands before the text of a number; no string of a test starts so. */
#define MARK "\001N"
#define MARK_ESCAPED "\\u0001N"

struct JsonTree
{
	json_t	   *root;
};

/* Aligned for whatever stands behind it. */
struct TestBlock
{
	_Alignas(max_align_t) struct TestBlock *next;
};

static bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* The length of the JSON number at the start of the text, 0 when none. */
static size_t
number_length(const char *text, size_t len)
{
	size_t		at = 0;
	size_t		start;

	if (at < len && text[at] == '-')
		at++;
	start = at;
	while (at < len && is_digit(text[at]))
		at++;
	if (at == start || (text[start] == '0' && at - start > 1))
		return 0;
	if (at < len && text[at] == '.')
	{
		start = ++at;
		while (at < len && is_digit(text[at]))
			at++;
		if (at == start)
			return 0;
	}
	if (at < len && (text[at] == 'e' || text[at] == 'E'))
	{
		at++;
		if (at < len && (text[at] == '+' || text[at] == '-'))
			at++;
		start = at;
		while (at < len && is_digit(text[at]))
			at++;
		if (at == start)
			return 0;
	}
	return at;
}

/* Writes the text with its numbers as marked strings; returns its length. */
static size_t
mark_numbers(const char *text, size_t len, char *out)
{
	size_t		used = 0;
	size_t		at = 0;

	while (at < len)
	{
		size_t		number = number_length(text + at, len - at);

		if (number > 0)
		{
			out[used++] = '"';
			memcpy(out + used, MARK_ESCAPED, strlen(MARK_ESCAPED));
			used += strlen(MARK_ESCAPED);
			memcpy(out + used, text + at, number);
			used += number;
			out[used++] = '"';
			at += number;
		}
		else if (text[at] == '"')
		{
			do
			{
				if (text[at] == '\\' && at + 1 < len)
					out[used++] = text[at++];
				out[used++] = text[at++];
			} while (at < len && text[at] != '"');
			if (at < len)
				out[used++] = text[at++];
		}
		else
			out[used++] = text[at++];
	}
	return used;
}

static MpJson
wrap(const json_t *node)
{
	MpJson		value = {.kind = MP_JSON_ABSENT,.node = node};

	if (node == NULL)
		return value;
	switch (json_typeof(node))
	{
		case JSON_NULL:
			value.kind = MP_JSON_NULL;
			break;
		case JSON_TRUE:
		case JSON_FALSE:
			value.kind = MP_JSON_BOOL;
			value.boolean = json_is_true(node);
			break;
		case JSON_STRING:
			value.kind = MP_JSON_STRING;
			value.text = json_string_value(node);
			value.len = json_string_length(node);
			if (value.len >= strlen(MARK) && memcmp(value.text, MARK, strlen(MARK)) == 0)
			{
				value.kind = MP_JSON_NUMBER;
				value.text += strlen(MARK);
				value.len -= strlen(MARK);
			}
			if (value.len == 0)
				value.text = NULL;	/* readers may: the core must not mind */
			break;
		case JSON_ARRAY:
			value.kind = MP_JSON_ARRAY;
			break;
		case JSON_OBJECT:
			value.kind = MP_JSON_OBJECT;
			break;
		default:
			abort();			/* the numbers were all marked */
	}
	return value;
}

static MpJson
tree_field(const MpJson *object, const char *key, size_t key_len)
{
	return wrap(json_object_getn(object->node, key, key_len));
}

static bool
tree_each(const MpJson *container, MpJsonVisit visit, void *context)
{
	json_t	   *node = (json_t *) container->node;

	if (container->kind == MP_JSON_ARRAY)
	{
		for (size_t i = 0; i < json_array_size(node); i++)
		{
			MpJson		value = wrap(json_array_get(node, i));

			if (!visit(NULL, 0, &value, context))
				return false;
		}
		return true;
	}
	for (void *at = json_object_iter(node); at != NULL;
		 at = json_object_iter_next(node, at))
	{
		MpJson		value = wrap(json_object_iter_value(at));

		if (!visit(json_object_iter_key(at), json_object_iter_key_len(at),
				   &value, context))
			return false;
	}
	return true;
}

/* Counts nothing: it is there so that the calls are made. */
static void
tree_guard(void)
{
}

const MpJsonReader json_tree_reader = {
	.field = tree_field,
	.each = tree_each,
	.guard = tree_guard
};

JsonTree *
json_tree_parse(const char *text, size_t len)
{
	/* the mark and two quotes for each number, which has at least a digit */
	char	   *marked = malloc(len * (strlen(MARK_ESCAPED) + 3) + 1);
	JsonTree   *tree = NULL;
	json_t	   *root;

	if (marked == NULL)
		abort();
	root = json_loadb(marked, mark_numbers(text, len, marked),
					  JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
	free(marked);
	if (root != NULL)
	{
		tree = malloc(sizeof(JsonTree));
		if (tree == NULL)
			abort();
		tree->root = root;
	}
	return tree;
}

void
json_tree_free(JsonTree *tree)
{
	if (tree == NULL)
		return;
	json_decref(tree->root);
	free(tree);
}

MpJson
json_tree_root(const JsonTree *tree)
{
	return wrap(tree->root);
}

static void *
test_alloc(void *context, size_t size)
{
	TestArena  *arena = context;
	struct TestBlock *block = malloc(sizeof(struct TestBlock) + size);

	if (block == NULL)
		abort();
	block->next = arena->blocks;
	arena->blocks = block;
	memset(block + 1, 0xA5, size);	/* the core must not rely on zeros */
	return block + 1;
}

void
test_arena_init(TestArena *arena)
{
	arena->arena.alloc = test_alloc;
	arena->arena.context = arena;
	arena->blocks = NULL;
}

void
test_arena_free(TestArena *arena)
{
	while (arena->blocks != NULL)
	{
		struct TestBlock *block = arena->blocks;

		arena->blocks = block->next;
		free(block);
	}
}
