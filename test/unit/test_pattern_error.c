/*
 * Event patterns: what does not compile, and the path in the error.
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

/* What is wrong, and where. */
static void
test_errors(void **state)
{
	static const struct
	{
		const char *pattern;
		const char *path;
		const char *message;
	}			cases[] = {
		{"[]", "$", "a pattern must be an object"},
		{"\"x\"", "$", "a pattern must be an object"},
		{"null", "$", "a pattern must be an object"},
		{"{}", "$", "an object must not be empty"},
		{A("[]"), "$.a", "a list of values must not be empty"},
		{A("{}"), "$.a", "an object must not be empty"},
		{A("{\"b\":{}}"), "$.a.b", "an object must not be empty"},
		{A("\"x\""), "$.a", "must be a list of values or an object"},
		{A("null"), "$.a", "must be a list of values or an object"},
		{A("1"), "$.a", "must be a list of values or an object"},
		{LEAF("\"x\",[\"x\"]"), "$.a[1]", "must be a string, a number, true, false, null or a matcher object"},
		{LEAF("{}"), "$.a[0]", "a matcher must be an object of exactly one key"},
		{LEAF("{\"prefix\":\"x\",\"suffix\":\"y\"}"), "$.a[0]", "a matcher must be an object of exactly one key"},
		{LEAF("{\"bogus\":\"x\"}"), "$.a[0].bogus", "unknown matcher"},
		{LEAF("{\"Prefix\":\"x\"}"), "$.a[0].Prefix", "unknown matcher"},
		{LEAF("{\"exactly\":\"x\"}"), "$.a[0].exactly", "unknown matcher"},
		{"{\"detail-type\":[\"x\"],\"detail\":{\"name\":[1,{\"prefix\":1}]}}", "$.detail.name[1].prefix",
		"must be a string or {\"equals-ignore-case\": string}"},
		{LEAF("{\"suffix\":[\"x\"]}"), "$.a[0].suffix", "must be a string or {\"equals-ignore-case\": string}"},
		{LEAF("{\"prefix\":{}}"), "$.a[0].prefix", "a matcher must be an object of exactly one key"},
		{LEAF("{\"prefix\":{\"wildcard\":\"x\"}}"), "$.a[0].prefix.wildcard", "only equals-ignore-case may stand here"},
		{LEAF("{\"prefix\":{\"equals-ignore-case\":1}}"), "$.a[0].prefix.equals-ignore-case", "must be a string"},
		{LEAF("{\"equals-ignore-case\":[\"a\",\"b\"]}"), "$.a[0].equals-ignore-case", "must be a string"},
		{LEAF("{\"wildcard\":1}"), "$.a[0].wildcard", "must be a string"},
		{WILDCARD("a**b"), "$.a[0].wildcard", "a wildcard must not have two stars in a row"},
		{WILDCARD("a\\\\b"), "$.a[0].wildcard", "a backslash in a wildcard must precede * or a backslash"},
		{WILDCARD("a\\\\"), "$.a[0].wildcard", "a wildcard must not end in a single backslash"},
		{LEAF("{\"exists\":\"true\"}"), "$.a[0].exists", "must be true or false"},
		{LEAF("{\"exists\":null}"), "$.a[0].exists", "must be true or false"},
		{LEAF("{\"numeric\":5}"), "$.a[0].numeric", "must be an array"},
		{NUMERIC(""), "$.a[0].numeric", "must have one or two pairs of operator and number"},
		{NUMERIC("\">\""), "$.a[0].numeric", "must have one or two pairs of operator and number"},
		{NUMERIC("\">\",1,\"<\""), "$.a[0].numeric", "must have one or two pairs of operator and number"},
		{NUMERIC("\">\",1,\"<\",2,\"<\",3"), "$.a[0].numeric", "must have one or two pairs of operator and number"},
		{NUMERIC("1,1"), "$.a[0].numeric[0]", "must be one of = < <= > >="},
		{NUMERIC("\"==\",1"), "$.a[0].numeric[0]", "must be one of = < <= > >="},
		{NUMERIC("\"\",1"), "$.a[0].numeric[0]", "must be one of = < <= > >="},
		{NUMERIC("\">\",\"1\""), "$.a[0].numeric[1]", "must be a number"},
		{NUMERIC("\"<\",5,\">\",1"), "$.a[0].numeric[0]", "the first of two operators must be > or >="},
		{NUMERIC("\"=\",1,\"=\",1"), "$.a[0].numeric[0]", "the first of two operators must be > or >="},
		{NUMERIC("\">\",1,\">\",2"), "$.a[0].numeric[2]", "the second of two operators must be < or <="},
		{NUMERIC("\">\",1,\"=\",2"), "$.a[0].numeric[2]", "the second of two operators must be < or <="},
		{NUMERIC("\">\",1,\"<\",null"), "$.a[0].numeric[3]", "must be a number"},
		{NUMERIC("\">\",5,\"<\",1"), "$.a[0].numeric", "the lower bound must be less than the upper bound"},
		{NUMERIC("\">=\",1,\"<=\",1.0"), "$.a[0].numeric", "the lower bound must be less than the upper bound"},
		{NUMERIC("\"<\",1e309"), "$.a[0].numeric[1]", "number cannot be compared without loss of precision"},
		{NUMERIC("\"=\",9007199254740993"), "$.a[0].numeric[1]", "number cannot be compared without loss of precision"},
		{LEAF("{\"cidr\":1}"), "$.a[0].cidr", "must be a string"},
		{CIDR("10.0.0.1"), "$.a[0].cidr", "a network must be written as address/bits"},
		{CIDR(""), "$.a[0].cidr", "a network must be written as address/bits"},
		{CIDR("10.0.0/24"), "$.a[0].cidr", "not an IPv4 or IPv6 address"},
		{CIDR("/24"), "$.a[0].cidr", "not an IPv4 or IPv6 address"},
		{CIDR("::ffff:10.0.0.0/120"), "$.a[0].cidr", "not an IPv4 or IPv6 address"},
		{CIDR("10.0.0.0/33"), "$.a[0].cidr", "the prefix length of an IPv4 network must be between 0 and 32"},
		{CIDR("10.0.0.0/"), "$.a[0].cidr", "the prefix length of an IPv4 network must be between 0 and 32"},
		{CIDR("10.0.0.0/+8"), "$.a[0].cidr", "the prefix length of an IPv4 network must be between 0 and 32"},
		{CIDR("10.0.0.0/8/8"), "$.a[0].cidr", "the prefix length of an IPv4 network must be between 0 and 32"},
		{CIDR("::/129"), "$.a[0].cidr", "the prefix length of an IPv6 network must be between 0 and 128"},
		{BUT("true"), "$.a[0].anything-but", "must be a string or a number"},
		{BUT("null"), "$.a[0].anything-but", "must be a string or a number"},
		{BUT("[]"), "$.a[0].anything-but", "a list must not be empty"},
		{BUT("[\"x\",1]"), "$.a[0].anything-but[1]", "strings and numbers cannot be mixed in one list"},
		{BUT("[1,true]"), "$.a[0].anything-but[1]", "must be a string or a number"},
		{BUT("[[1]]"), "$.a[0].anything-but[0]", "must be a string or a number"},
		{BUT("9007199254740993"), "$.a[0].anything-but", "number cannot be compared without loss of precision"},
		{BUT("{}"), "$.a[0].anything-but", "a matcher must be an object of exactly one key"},
		{BUT("{\"numeric\":[\"=\",1]}"), "$.a[0].anything-but.numeric",
		"anything-but knows only prefix, suffix, equals-ignore-case and wildcard"},
		{BUT("{\"prefix\":\"\"}"), "$.a[0].anything-but.prefix", "an empty string would exclude every string"},
		{BUT("{\"suffix\":[\"x\",\"\"]}"), "$.a[0].anything-but.suffix[1]", "an empty string would exclude every string"},
		{BUT("{\"prefix\":[]}"), "$.a[0].anything-but.prefix", "a list must not be empty"},
		{BUT("{\"equals-ignore-case\":[]}"), "$.a[0].anything-but.equals-ignore-case", "a list must not be empty"},
		{BUT("{\"wildcard\":[]}"), "$.a[0].anything-but.wildcard", "a list must not be empty"},
		{BUT("{\"wildcard\":\"**\"}"), "$.a[0].anything-but.wildcard", "a wildcard must not have two stars in a row"},
		{BUT("{\"prefix\":1}"), "$.a[0].anything-but.prefix", "must be a string"},
		{BUT("{\"prefix\":{\"equals-ignore-case\":\"x\"}}"), "$.a[0].anything-but.prefix", "must be a string"},
		{"{\"$or\":[]}", "$.$or", "$or must have at least two objects"},
		{"{\"$or\":[{\"a\":[1]}]}", "$.$or", "$or must have at least two objects"},
		{"{\"$or\":[{\"a\":[1]},2]}", "$.$or[1]", "must be an object"},
		{"{\"$or\":[{\"a\":[1]},{}]}", "$.$or[1]", "an object must not be empty"},
		{"{\"$or\":[{\"a\":[1]},{\"b\":[]}]}", "$.$or[1].b", "a list of values must not be empty"},
		{"{\"$or\":[{\"prefix\":\"x\"},{\"b\":[\"y\"]}]}", "$.$or[0].prefix", "the name of a matcher cannot be a field within $or"},
		{"{\"$or\":[{\"a\":{\"numeric\":[\"y\"]}},{\"b\":[\"y\"]}]}", "$.$or[0].a.numeric", "the name of a matcher cannot be a field within $or"},
		{"{\"$or\":\"x\"}", "$.$or", "must be a list of values or an object"},
		{"{\"detail\":{\"$or\":[{\"b\":[1]},{\"c\":{\"d\":[{\"x\":1}]}}]}}", "$.detail.$or[1].c.d[0].x", "unknown matcher"},
		/* keys that a plain path would make ambiguous */
		{"{\"a.b\":[]}", "$[\"a.b\"]", "a list of values must not be empty"},
		{"{\"\":[]}", "$[\"\"]", "a list of values must not be empty"},
		{"{\"a\\\"\\\\\\n\xC3\xA9\":[]}", "$[\"a\\\"\\\\\\u000a\xC3\xA9\"]", "a list of values must not be empty"},
	};

	(void) state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		MpPatternError error;
		Outcome		outcome = run(cases[i].pattern, "{}", &error);

		if (outcome != INVALID || strcmp(error.path, cases[i].path) != 0 ||
			strcmp(error.message, cases[i].message) != 0)
			fail_msg("%s: %s, %s: %s", cases[i].pattern, outcome_names[outcome],
					 outcome == INVALID ? error.path : "-",
					 outcome == INVALID ? error.message : "-");
	}
}

/* A pattern of so many levels of objects, with the leaf innermost. */
static Outcome
run_nested(int levels, const char *open, const char *close, MpPatternError *error)
{
	char	   *text = malloc((size_t) levels * 64 + 64);
	size_t		at = 0;
	Outcome		outcome;

	assert_non_null(text);
	for (int i = 1; i < levels; i++)
		at += (size_t) sprintf(text + at, "%s", open);
	at += (size_t) sprintf(text + at, "{\"a\":[1]}");
	for (int i = 1; i < levels; i++)
		at += (size_t) sprintf(text + at, "%s", close);
	outcome = run(text, "{}", error);
	free(text);
	return outcome;
}

static void
test_depth(void **state)
{
	MpPatternError error;

	(void) state;
	assert_int_equal(run_nested(64, "{\"a\":", "}", &error), NO);
	assert_int_equal(run_nested(65, "{\"a\":", "}", &error), INVALID);
	assert_string_equal(error.message, "a pattern must not be nested deeper than 64 levels");
	assert_int_equal(run_nested(64, "{\"$or\":[", ",{\"b\":[1]}]}", &error), NO);
	assert_int_equal(run_nested(65, "{\"$or\":[", ",{\"b\":[1]}]}", &error), INVALID);
	assert_string_equal(error.message, "a pattern must not be nested deeper than 64 levels");
}

/* A long path ends in dots, within its size, and in whole characters. */
static void
test_long_path(void **state)
{
	(void) state;
	for (size_t shift = 0; shift < 8; shift++)
	{
		char		text[2048];
		size_t		at = (size_t) sprintf(text, "{\"%.*s", (int) shift, "xxxxxxxx");
		MpPatternError error;
		size_t		len;

		for (int i = 0; i < 200; i++)
			at += (size_t) sprintf(text + at, "\xE2\x82\xAC");
		sprintf(text + at, "\":{\"b\":[]}}");
		assert_int_equal(run(text, "{}", &error), INVALID);
		len = strlen(error.path);
		assert_true(len < sizeof(error.path) && len > sizeof(error.path) - 8);
		assert_string_equal(error.path + len - 3, "...");
		for (size_t i = 3 + shift; i < len - 3; i += 3)
			assert_memory_equal(error.path + i, "\xE2\x82\xAC", 3);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_depth),
		cmocka_unit_test(test_long_path),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
