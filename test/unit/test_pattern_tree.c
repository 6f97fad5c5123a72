/*
 * Event patterns: arrays, missing fields, $or, and what a pattern pins down.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "pattern_run.h"

static void
test_exists(void **state)
{
	static const Case cases[] = {
		{LEAF("{\"exists\":true}"), A("1"), YES},
		{LEAF("{\"exists\":true}"), A("null"), YES},
		{LEAF("{\"exists\":true}"), A("false"), YES},
		{LEAF("{\"exists\":true}"), A("\"\""), YES},
		{LEAF("{\"exists\":true}"), "{\"b\":1}", NO},
		{LEAF("{\"exists\":true}"), "{}", NO},
		{LEAF("{\"exists\":true}"), A("[]"), NO},
		{LEAF("{\"exists\":true}"), A("{}"), NO},
		{LEAF("{\"exists\":true}"), A("[[],[null]]"), YES},
		{LEAF("{\"exists\":true}"), A("{\"b\":1}"), NO},
		{LEAF("{\"exists\":true}"), A("[{\"b\":1}]"), NO},
		{LEAF("{\"exists\":false}"), A("1"), NO},
		{LEAF("{\"exists\":false}"), A("null"), NO},
		{LEAF("{\"exists\":false}"), "{\"b\":1}", YES},
		{LEAF("{\"exists\":false}"), "{}", YES},
		{LEAF("{\"exists\":false}"), A("[]"), YES},
		{LEAF("{\"exists\":false}"), A("[[],{}]"), YES},
		{LEAF("{\"exists\":false}"), A("{}"), YES},
		{LEAF("{\"exists\":false}"), A("{\"b\":1}"), YES},
		{LEAF("{\"exists\":false},\"x\""), A("\"x\""), YES},
		{LEAF("{\"exists\":false},\"x\""), A("\"y\""), NO},
		{LEAF("{\"exists\":false},\"x\""), "{}", YES},
		{LEAF("{\"exists\":false},{\"exists\":true}"), "{}", YES},
		{A("{\"b\":[{\"exists\":false}]}"), A("1"), YES},
		{A("{\"b\":[{\"exists\":false}]}"), "{}", YES},
		{A("{\"b\":[{\"exists\":false}]}"), A("{\"b\":1}"), NO},
		{A("{\"b\":[{\"exists\":false}]}"), A("{\"c\":1}"), YES},
		/* in an array: the element that the other fields chose ... */
		{A("{\"b\":[\"x\"],\"c\":[{\"exists\":false}]}"),
		A("[{\"b\":\"x\"},{\"c\":1}]"), YES},
		{A("{\"b\":[\"x\"],\"c\":[{\"exists\":false}]}"),
		A("[{\"b\":\"x\",\"c\":1},{\"b\":\"y\"}]"), NO},
		{A("{\"c\":[\"x\"],\"b\":[{\"exists\":false}]}"),
		A("[{\"c\":\"x\"},{\"b\":1}]"), YES},
		/* ... and where there are none, every element */
		{A("{\"c\":[{\"exists\":false}]}"), A("[{\"b\":\"x\"},{\"c\":1}]"), NO},
		{A("{\"c\":[{\"exists\":false}]}"), A("[{\"b\":\"x\"},{\"d\":1}]"), YES},
		{A("{\"c\":[{\"exists\":false}]}"), A("[[{\"b\":1}],[[{\"c\":1}]]]"), NO},
		{A("{\"c\":[{\"exists\":false}]}"), A("[]"), YES},
		{A("{\"c\":[{\"exists\":false}],\"d\":[\"x\",{\"exists\":false}]}"),
		A("[{\"d\":\"x\"},{\"c\":1}]"), YES},
		{A("{\"c\":[{\"exists\":false}],\"d\":[\"y\",{\"exists\":false}]}"),
		A("[{\"d\":\"x\"},{\"c\":1}]"), NO},
		{A("{\"b\":{\"c\":[{\"exists\":false}]}}"),
		A("[{\"b\":[{\"x\":1}]},{\"b\":{\"c\":[[2]]}}]"), NO},
		{A("{\"b\":{\"c\":[{\"exists\":false}]}}"),
		A("[{\"b\":[{\"x\":1}]},{\"b\":{\"c\":[{}]}}]"), YES},
		/* one branch must be missing from all, not another from each */
		{A("{\"$or\":[{\"b\":[{\"exists\":false}]},{\"c\":[{\"exists\":false}]}]}"),
		A("[{\"b\":1},{\"c\":1}]"), NO},
		{A("{\"$or\":[{\"b\":[{\"exists\":false}]},{\"c\":[{\"exists\":false}]}]}"),
		A("[{\"b\":1},{\"b\":2}]"), YES},
		{"{\"r\":{\"a\":{\"$or\":[{\"b\":[{\"exists\":false}]},{\"c\":[{\"exists\":false}]}]}}}",
		"{\"r\":[{\"a\":{\"b\":1}},{\"a\":{\"c\":1}}]}", NO},
		{A("{\"$or\":[{\"b\":[{\"exists\":false}]},{\"c\":[1]}],\"d\":[1]}"),
		A("[{\"b\":1,\"d\":1},{\"d\":2}]"), NO},
		{A("{\"$or\":[{\"b\":[{\"exists\":false}]},{\"c\":[1]}],\"d\":[1]}"),
		A("[{\"b\":1,\"d\":2},{\"d\":1}]"), YES},
	};

	(void) state;
	RUN(cases);
}

static void
test_arrays(void **state)
{
	static const Case cases[] = {
		{LEAF("1"), A("[3,1]"), YES},
		{LEAF("1"), A("[[1,2],[3]]"), YES},
		{LEAF("4"), A("[[1,2],[3]]"), NO},
		{A("{\"b\":[\"x\"]}"), A("[{\"b\":\"y\"},{\"b\":\"x\"}]"), YES},
		{A("{\"b\":[\"x\"]}"), A("[{\"b\":\"y\"},\"x\",1]"), NO},
		{A("{\"b\":[\"x\"],\"c\":[\"z\"]}"),
		A("[{\"b\":\"x\",\"c\":\"1\"},{\"b\":\"2\",\"c\":\"z\"}]"), NO},
		{A("{\"b\":[\"x\"],\"c\":[\"z\"]}"),
		A("[{\"b\":\"x\",\"c\":\"1\"},{\"b\":\"x\",\"c\":\"z\"}]"), YES},
		{A("{\"b\":[\"x\"],\"c\":[\"z\"]}"), A("[[{\"b\":\"x\"}],[{\"c\":\"z\"}]]"), NO},
		{A("{\"b\":[\"x\"],\"c\":[\"z\"]}"), A("[[],[[{\"b\":\"x\",\"c\":\"z\"}]]]"), YES},
		/* the outer element binds what is deeper */
		{A("{\"b\":{\"x\":[1]},\"c\":{\"y\":[2]}}"),
		A("[{\"b\":[{\"x\":1}],\"c\":[{\"y\":3}]},{\"b\":[{\"x\":4}],\"c\":[{\"y\":2}]}]"), NO},
		{A("{\"b\":{\"x\":[1]},\"c\":{\"y\":[2]}}"),
		A("[{\"b\":[{\"x\":0},{\"x\":1}],\"c\":[{\"y\":2},{\"y\":3}]}]"), YES},
		/* independent arrays cross freely */
		{"{\"a\":{\"x\":[1]},\"b\":{\"y\":[2]}}",
		"{\"a\":[{\"x\":0},{\"x\":1}],\"b\":[{\"y\":2},{\"y\":3}]}", YES},
		{"{\"a\":[1],\"b\":[4]}", "{\"a\":[0,1],\"b\":[4,5]}", YES},
		{A("{\"b\":[1]}"), A("{\"b\":{\"c\":1}}"), NO},
		/* dots are characters */
		{A("{\"b\":[\"x\"]}"), "{\"a.b\":\"x\"}", NO},
		{"{\"a.b\":[\"x\"]}", A("{\"b\":\"x\"}"), NO},
		{"{\"a.b\":[\"x\"]}", "{\"a.b\":\"x\"}", YES},
		{"{\"\":[\"x\"]}", "{\"a\":\"x\"}", NO},
		{"{\"\":[\"x\"]}", "{\"\":\"x\"}", YES},
	};

	(void) state;
	RUN(cases);
}

static void
test_or(void **state)
{
#define EITHER "{\"$or\":[{\"a\":[\"x\"]},{\"b\":[\"y\"]}]}"
#define NESTED "{\"$or\":[{\"a\":[\"x\"],\"$or\":[{\"m\":[1]},{\"n\":[2]}]},{\"b\":[\"y\"]}]}"
#define BOTH "{\"a\":[\"x\"],\"$or\":[{\"a\":[\"y\"]},{\"b\":[1]}]}"
	static const Case cases[] = {
		{EITHER, "{\"a\":\"x\"}", YES},
		{EITHER, "{\"b\":\"y\"}", YES},
		{EITHER, "{\"c\":\"y\"}", NO},
		{EITHER, "{\"a\":\"y\",\"b\":\"x\"}", NO},
		{NESTED, "{\"a\":\"x\",\"n\":2}", YES},
		{NESTED, "{\"a\":\"x\",\"n\":1}", NO},
		{NESTED, "{\"b\":\"y\"}", YES},
		/* an outer field and a branch must both match */
		{BOTH, "{\"a\":\"x\",\"b\":1}", YES},
		{BOTH, "{\"a\":\"y\"}", NO},
		{BOTH, "{\"a\":[\"x\",\"y\"]}", YES},
		/* and each by itself: not in the same element of d */
		{"{\"d\":{\"a\":[1]},\"$or\":[{\"d\":{\"b\":[2]}},{\"e\":[3]}]}",
		"{\"d\":[{\"a\":1},{\"b\":2}]}", YES},
		/* words that event-ruler reserves are fields like any other */
		{"{\"$or\":[{\"regex\":[1]},{\"exactly\":[2]}]}", "{\"exactly\":2}", YES},
		/* in an array, the branch is of the same element */
		{A("{\"k\":[1],\"$or\":[{\"x\":[1]},{\"y\":[1]}]}"),
		A("[{\"k\":1},{\"x\":1},{\"y\":1}]"), NO},
		{A("{\"k\":[1],\"$or\":[{\"x\":[1]},{\"y\":[1]}]}"),
		A("[{\"x\":1},{\"k\":1,\"y\":1}]"), YES},
		/* with an object as its value it is a field */
		{"{\"$or\":{\"x\":[1]}}", "{\"$or\":{\"x\":1}}", YES},
		{"{\"$or\":{\"x\":[1]}}", "{\"x\":1}", NO},
		/* outside $or the name of a matcher is a field like any other */
		{"{\"prefix\":[\"x\"]}", "{\"prefix\":\"x\"}", YES},
		{"{\"exists\":{\"numeric\":[1]}}", "{\"exists\":{\"numeric\":1}}", YES},
	};

	(void) state;
	RUN(cases);
}

/* A $or expanded to its 2^30 combinations would not end. */
static void
test_or_is_not_expanded(void **state)
{
	char		pattern[8192];
	size_t		at = 0;
	MpPatternError error;

	(void) state;
	for (int i = 0; i < 30; i++)
		at += (size_t) sprintf(pattern + at, "{\"k%d\":{\"$or\":[{\"a\":[1]},{\"b\":[1]}]%s",
							   i, i < 29 ? ",\"o\":" : "");
	for (int i = 0; i < 30; i++)
		at += (size_t) sprintf(pattern + at, "}}");
	assert_int_equal(run(pattern, "{\"k0\":{\"a\":1}}", &error), NO);
}

static void
expect_literals(const char *pattern, const char *field, const char *expected)
{
	JsonTree   *tree = json_tree_parse(pattern, strlen(pattern));
	TestArena	arena;
	MpPatternError error;
	const MpPattern *compiled;
	const char *const *literals;
	const size_t *lengths;
	char		joined[256] = "";
	int			count;

	assert_non_null(tree);
	test_arena_init(&arena);
	compiled = compile_tree(tree, &arena, &error);
	json_tree_free(tree);
	assert_non_null(compiled);
	count = mp_pattern_literals(compiled, field, &literals, &lengths);
	if (count < 0)
		strcpy(joined, "-1");
	for (int i = 0; i < count; i++)
		sprintf(joined + strlen(joined), "%.*s|", (int) lengths[i], literals[i]);
	test_arena_free(&arena);
	assert_string_equal(joined, expected);
}

static void
test_pinned_literals(void **state)
{
	(void) state;
	expect_literals("{\"source\":[\"a\",\"b\"],\"detail\":{\"x\":[1]}}", "source", "a|b|");
	expect_literals("{\"source\":[\"a\"]}", "sourc", "-1");
	expect_literals("{\"source\":[\"\"]}", "source", "|");
	expect_literals("{\"source\":[\"a\"]}", "detail-type", "-1");
	expect_literals("{\"source\":[\"a\",{\"prefix\":\"b\"}]}", "source", "-1");
	expect_literals("{\"source\":[\"a\",1]}", "source", "-1");
	expect_literals("{\"source\":[\"a\",{\"exists\":false}]}", "source", "-1");
	expect_literals("{\"source\":{\"x\":[\"a\"]}}", "source", "-1");
	expect_literals("{\"detail\":{\"source\":[\"a\"]}}", "source", "-1");
	expect_literals("{\"$or\":[{\"source\":[\"a\"]},{\"source\":[\"b\"]}]}", "source", "-1");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_exists),
		cmocka_unit_test(test_arrays),
		cmocka_unit_test(test_or),
		cmocka_unit_test(test_or_is_not_expanded),
		cmocka_unit_test(test_pinned_literals),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
