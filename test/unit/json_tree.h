/*
 * json_tree.h
 *		A JSON tree that implements MpJsonReader over jansson, and an arena, for
 *		unit tests and fuzzers.
 *
 * jansson turns numbers into binary values, or refuses them; the core compares
 * them by their decimal text.  So each number of the text is handed to jansson
 * as a string with a mark in front, and read back from it.
 */
#ifndef JSON_TREE_H
#define JSON_TREE_H

#include <stddef.h>

#include "core/arena.h"
#include "core/json_value.h"

typedef struct JsonTree JsonTree;

/* NULL when the text is not JSON; the root may be any kind of value. */
extern JsonTree *json_tree_parse(const char *text, size_t len);
extern void json_tree_free(JsonTree *tree);
extern MpJson json_tree_root(const JsonTree *tree);

extern const MpJsonReader json_tree_reader;

/* An arena of malloc'd blocks, all freed at once. */
typedef struct TestArena
{
	MpArena		arena;
	struct TestBlock *blocks;
} TestArena;

extern void test_arena_init(TestArena *arena);
extern void test_arena_free(TestArena *arena);

#endif							/* JSON_TREE_H */
