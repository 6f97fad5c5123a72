/*
 * Event patterns: what each literal and matcher matches.
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
test_literals(void **state)
{
	static const Case cases[] = {
		{LEAF("\"x\""), A("\"x\""), YES},
		{LEAF("\"x\""), A("\"X\""), NO},
		{LEAF("\"x\""), A("\"xx\""), NO},
		{LEAF("\"\""), A("\"\""), YES},
		{LEAF("\"\""), A("null"), NO},
		{LEAF("\"x\",1,true,null"), A("null"), YES},
		{LEAF("\"x\",1,true,null"), A("1"), YES},
		{LEAF("\"x\",1,true,null"), A("false"), NO},
		{LEAF("\"x\",\"x\""), A("\"x\""), YES},
		{LEAF("\"1\""), A("1"), NO},
		{LEAF("1"), A("\"1\""), NO},
		{LEAF("true"), A("\"true\""), NO},
		{LEAF("\"true\""), A("true"), NO},
		{LEAF("true"), A("true"), YES},
		{LEAF("true"), A("false"), NO},
		{LEAF("false"), A("false"), YES},
		{LEAF("null"), A("null"), YES},
		{LEAF("null"), "{}", NO},
		{LEAF("null"), A("\"null\""), NO},
		{LEAF("null"), A("[]"), NO},
		{LEAF("\"caf\\u00e9\""), A("\"caf\xC3\xA9\""), YES},
		{LEAF("\"a\\u0000b\""), A("\"a\\u0000b\""), YES},
		{LEAF("\"a\\u0000b\""), A("\"a\\u0000c\""), NO},
		/* text that looks like an address is text */
		{LEAF("\"2001:db8::1\""), A("\"2001:0db8::1\""), NO},
		{LEAF("\"x\""), "[\"x\"]", NO},
		{LEAF("\"x\""), "\"x\"", NO},
	};

	(void) state;
	RUN(cases);
}

static void
test_numbers(void **state)
{
	static const Case cases[] = {
		{LEAF("1"), A("1.0"), YES},
		{LEAF("1"), A("1e0"), YES},
		{LEAF("1"), A("0.1E+1"), YES},
		{LEAF("1"), A("2"), NO},
		{LEAF("1"), A("-1"), NO},
		{LEAF("100"), A("1e2"), YES},
		{LEAF("1e2"), A("100.00"), YES},
		{LEAF("0"), A("-0"), YES},
		{LEAF("-0.0"), A("0"), YES},
		{LEAF("0"), A("0e99999999999999999999"), YES},
		{LEAF("0.1"), A("0.10"), YES},
		{LEAF("5000000001"), A("5000000001.0"), YES},
		{LEAF("1e-7"), A("0.0000001"), YES},
		/* beyond binary64: by text */
		{LEAF("9007199254740993"), A("9007199254740993"), YES},
		{LEAF("9007199254740993"), A("9007199254740992"), NO},
		{LEAF("9007199254740992"), A("9007199254740993"), NO},
		{LEAF("9007199254740993"), A("9007199254740993.0"), NO},
		{LEAF("12345678901234567890"), A("12345678901234567891"), NO},
		{LEAF("12345678901234567890"), A("12345678901234567890"), YES},
		{LEAF("1e400"), A("1e400"), YES},
		{LEAF("1e400"), A("1E400"), NO},
		{LEAF("1e-400"), A("0"), NO},
		{LEAF("0.3"), A("0.30000000000000001"), NO},
		/* 16 and 17 digits that binary64 does hold */
		{LEAF("0.1234567890123456"), A("1.234567890123456e-1"), YES},
		{LEAF("0.30000000000000004"), A("3.0000000000000004e-1"), YES},
		{LEAF("9007199254740992"), A("9.007199254740992e15"), YES},
		{LEAF("1e308"), A("10e307"), YES},
		{LEAF("1.7976931348623157e308"), A("17976931348623157e292"), YES},
		{LEAF("5e-324"), A("0.5e-323"), YES},
	};

	(void) state;
	RUN(cases);
}

static void
test_ranges(void **state)
{
	static const Case cases[] = {
		{NUMERIC("\"=\",5"), A("5.0"), YES},
		{NUMERIC("\"=\",5"), A("5.1"), NO},
		{NUMERIC("\"<\",5"), A("4.999999"), YES},
		{NUMERIC("\"<\",5"), A("5"), NO},
		{NUMERIC("\"<=\",5"), A("5"), YES},
		{NUMERIC("\"<=\",5"), A("5.01"), NO},
		{NUMERIC("\">\",5"), A("5"), NO},
		{NUMERIC("\">\",5"), A("50"), YES},
		{NUMERIC("\">=\",5"), A("5"), YES},
		{NUMERIC("\">=\",5"), A("4"), NO},
		{NUMERIC("\">\",0,\"<=\",5"), A("5"), YES},
		{NUMERIC("\">\",0,\"<=\",5"), A("0"), NO},
		{NUMERIC("\">\",0,\"<=\",5"), A("-0"), NO},
		{NUMERIC("\">\",0,\"<=\",5"), A("1e-300"), YES},
		{NUMERIC("\">=\",-2,\"<\",-1"), A("-1.5"), YES},
		{NUMERIC("\">=\",-2,\"<\",-1"), A("-2"), YES},
		{NUMERIC("\">=\",-2,\"<\",-1"), A("-1"), NO},
		{NUMERIC("\">=\",-2,\"<\",-1"), A("-15"), NO},
		{NUMERIC("\"<\",0"), A("-0.001"), YES},
		{NUMERIC("\"<\",0"), A("0"), NO},
		{NUMERIC("\">\",-1"), A("0"), YES},
		{NUMERIC("\"<\",0.0000001"), A("0.00000009"), YES},
		{NUMERIC("\">\",123"), A("124"), YES},
		{NUMERIC("\">\",123"), A("123.0001"), YES},
		{NUMERIC("\">\",123"), A("1.2e2"), NO},
		{NUMERIC("\">\",9"), A("10"), YES},
		{NUMERIC("\">\",1"), A("\"9\""), NO},
		{NUMERIC("\">\",1"), A("true"), NO},
		/* no range contains what binary64 does not hold */
		{NUMERIC("\">\",1"), A("9007199254740993"), NO},
		{NUMERIC("\">\",1"), A("9007199254740992"), YES},
		{NUMERIC("\">\",0"), A("0.30000000000000001"), NO},
		{NUMERIC("\">\",0"), A("1e400"), NO},
		{NUMERIC("\">=\",0"), A("1e-400"), NO},
	};

	(void) state;
	RUN(cases);
}

static void
test_strings(void **state)
{
	static const Case cases[] = {
		{LEAF("{\"prefix\":\"ab\"}"), A("\"abc\""), YES},
		{LEAF("{\"prefix\":\"ab\"}"), A("\"ab\""), YES},
		{LEAF("{\"prefix\":\"ab\"}"), A("\"a\""), NO},
		{LEAF("{\"prefix\":\"ab\"}"), A("\"cab\""), NO},
		{LEAF("{\"prefix\":\"\"}"), A("\"\""), YES},
		{LEAF("{\"prefix\":\"\"}"), A("\"x\""), YES},
		{LEAF("{\"prefix\":\"\"}"), A("1"), NO},
		{LEAF("{\"prefix\":\"1\"}"), A("12"), NO},
		{LEAF("{\"suffix\":\"bc\"}"), A("\"abc\""), YES},
		{LEAF("{\"suffix\":\"bc\"}"), A("\"bc\""), YES},
		{LEAF("{\"suffix\":\"bc\"}"), A("\"c\""), NO},
		{LEAF("{\"suffix\":\"bc\"}"), A("\"bcd\""), NO},
		{LEAF("{\"suffix\":\"\"}"), A("\"\""), YES},
		{LEAF("{\"suffix\":\"\"}"), A("null"), NO},
		{LEAF("{\"prefix\":{\"equals-ignore-case\":\"AB\"}}"), A("\"abc\""), YES},
		{LEAF("{\"prefix\":{\"equals-ignore-case\":\"AB\"}}"), A("\"a\""), NO},
		{LEAF("{\"prefix\":{\"equals-ignore-case\":\"\"}}"), A("\"\""), YES},
		{LEAF("{\"prefix\":{\"equals-ignore-case\":\"\xC3\x89t\"}}"), A("\"\xC3\xA9T\xC3\xA9\""), YES},
		{LEAF("{\"suffix\":{\"equals-ignore-case\":\"BC\"}}"), A("\"abc\""), YES},
		{LEAF("{\"suffix\":{\"equals-ignore-case\":\"BC\"}}"), A("\"c\""), NO},
		{LEAF("{\"suffix\":{\"equals-ignore-case\":\"\"}}"), A("\"\""), YES},
		{LEAF("{\"suffix\":{\"equals-ignore-case\":\"T\xC3\x89\"}}"), A("\"\xC3\xA9t\xC3\xA9\""), YES},
		{LEAF("{\"suffix\":{\"equals-ignore-case\":\"\xE2\xB1\xA5\"}}"), A("\"x\xC8\xBA\""), YES},
		{LEAF("{\"equals-ignore-case\":\"AbC\"}"), A("\"aBc\""), YES},
		{LEAF("{\"equals-ignore-case\":\"AbC\"}"), A("\"aBcd\""), NO},
		{LEAF("{\"equals-ignore-case\":\"AbC\"}"), A("\"ab\""), NO},
		{LEAF("{\"equals-ignore-case\":\"\"}"), A("\"\""), YES},
		{LEAF("{\"equals-ignore-case\":\"\"}"), A("\"x\""), NO},
		{LEAF("{\"equals-ignore-case\":\"1\"}"), A("1"), NO},
		/* neighbours of the ASCII letters */
		{LEAF("{\"equals-ignore-case\":\"@[`{\"}"), A("\"@[`{\""), YES},
		{LEAF("{\"equals-ignore-case\":\"@\"}"), A("\"`\""), NO},
		{LEAF("{\"equals-ignore-case\":\"[\"}"), A("\"{\""), NO},
		/* Latin-1, Latin Extended-A, Greek, Cyrillic, and two lengths in UTF-8 */
		{LEAF("{\"equals-ignore-case\":\"\xC3\x89T\xC3\x89\"}"), A("\"\xC3\xA9t\xC3\xA9\""), YES},
		{LEAF("{\"equals-ignore-case\":\"\xC3\x97\"}"), A("\"\xC3\xB7\""), NO},
		{LEAF("{\"equals-ignore-case\":\"\xC5\x81\xC3\xB3\"}"), A("\"\xC5\x82\xC3\x93\""), YES},
		{LEAF("{\"equals-ignore-case\":\"\xC5\xB8\"}"), A("\"\xC3\xBF\""), YES},
		{LEAF("{\"equals-ignore-case\":\"\xCE\xA3\"}"), A("\"\xCF\x83\""), YES},
		{LEAF("{\"equals-ignore-case\":\"\xCE\xA3\"}"), A("\"\xCF\x82\""), NO},
		{LEAF("{\"equals-ignore-case\":\"\xD0\x91\xD0\xBE\xD1\x80\xD1\x89\"}"),
		A("\"\xD0\xB1\xD0\x9E\xD0\xA0\xD0\xA9\""), YES},
		{LEAF("{\"equals-ignore-case\":\"\xC8\xBA\"}"), A("\"\xE2\xB1\xA5\""), YES},
		/* what is no pair: sharp s, dotless i, dotted I, Kelvin, long s */
		{LEAF("{\"equals-ignore-case\":\"STRASSE\"}"), A("\"stra\xC3\x9F" "e\""), NO},
		{LEAF("{\"equals-ignore-case\":\"I\"}"), A("\"\xC4\xB1\""), NO},
		{LEAF("{\"equals-ignore-case\":\"\xC4\xB1\"}"), A("\"I\""), NO},
		{LEAF("{\"equals-ignore-case\":\"i\"}"), A("\"\xC4\xB0\""), NO},
		{LEAF("{\"equals-ignore-case\":\"K\"}"), A("\"\\u212a\""), NO},
		{LEAF("{\"equals-ignore-case\":\"S\"}"), A("\"\xC5\xBF\""), NO},
	};

	(void) state;
	RUN(cases);
}

static void
test_wildcards(void **state)
{
	static const Case cases[] = {
		{WILDCARD("abc"), A("\"abc\""), YES},
		{WILDCARD("abc"), A("\"abcd\""), NO},
		{WILDCARD(""), A("\"\""), YES},
		{WILDCARD(""), A("\"x\""), NO},
		{WILDCARD("*"), A("\"\""), YES},
		{WILDCARD("*"), A("\"x\""), YES},
		{WILDCARD("*"), A("1"), NO},
		{WILDCARD("*"), A("null"), NO},
		{WILDCARD("*a*"), A("\"\""), NO},
		{WILDCARD("*a*"), A("\"a\""), YES},
		{WILDCARD("a*"), A("\"\""), NO},
		{WILDCARD("*.png"), A("\"a.png\""), YES},
		{WILDCARD("*.png"), A("\".png\""), YES},
		{WILDCARD("*.png"), A("\"a.pngx\""), NO},
		{WILDCARD("a*a"), A("\"a\""), NO},
		{WILDCARD("a*a"), A("\"aa\""), YES},
		{WILDCARD("a*c"), A("\"abcc\""), YES},
		{WILDCARD("a*b*c"), A("\"aXbYc\""), YES},
		{WILDCARD("a*b*c"), A("\"abc\""), YES},
		{WILDCARD("a*b*c"), A("\"acb\""), NO},
		{WILDCARD("*ab*ab*"), A("\"abab\""), YES},
		{WILDCARD("*ab*ab*"), A("\"aba\""), NO},
		{WILDCARD("*aab*"), A("\"aaab\""), YES},
		{WILDCARD("*abcabd*"), A("\"xabcabcabdx\""), YES},
		{WILDCARD("*abcabd*"), A("\"xabcabcabcx\""), NO},
		{WILDCARD("a*bc*c"), A("\"abc\""), NO},
		{WILDCARD("?b"), A("\"ab\""), NO},
		{WILDCARD("?b"), A("\"?b\""), YES},
		{WILDCARD("\xC3\xA9*"), A("\"\xC3\xA9t\xC3\xA9\""), YES},
		{WILDCARD("*\xC3\xA9*"), A("\"\xC3\xA8\xC3\xA9\""), YES},
		{WILDCARD("a\\\\*c"), A("\"a*c\""), YES},
		{WILDCARD("a\\\\*c"), A("\"abc\""), NO},
		{WILDCARD("a\\\\\\\\c"), A("\"a\\\\c\""), YES},
		{WILDCARD("a\\\\\\\\*"), A("\"a\\\\xyz\""), YES},
		{WILDCARD("*\\\\**"), A("\"a*b\""), YES},
		{WILDCARD("*\\\\**"), A("\"ab\""), NO},
		{WILDCARD("\\\\*\\\\*"), A("\"**\""), YES},
	};

	(void) state;
	RUN(cases);
}

/*
 * The classic way to make a naive matcher slow: with backtracking this takes
 * longer than the test may run.
 */
static void
test_wildcard_is_linear(void **state)
{
	enum
	{
		LENGTH = 1000000, HALF = 2000
	};
	char	   *pattern = malloc(HALF * 2 + 64);
	char	   *event = malloc(LENGTH + 64);
	size_t		at;
	MpPatternError error;

	(void) state;
	assert_true(pattern != NULL && event != NULL);

	at = (size_t) sprintf(pattern, "{\"a\":[{\"wildcard\":\"");
	for (int i = 0; i < HALF / 2; i++)
	{
		memcpy(pattern + at, "*a", 2);
		at += 2;
	}
	memcpy(pattern + at, "*", 1);
	at++;
	memset(pattern + at, 'a', HALF);
	at += HALF;
	memcpy(pattern + at, "b*\"}]}", 7);

	at = (size_t) sprintf(event, "{\"a\":\"");
	memset(event + at, 'a', LENGTH);
	memcpy(event + at + LENGTH, "\"}", 3);

	assert_int_equal(run(pattern, event, &error), NO);
	free(pattern);
	free(event);
}

static void
test_addresses(void **state)
{
	static const Case cases[] = {
		{CIDR("10.0.0.0/24"), A("\"10.0.0.0\""), YES},
		{CIDR("10.0.0.0/24"), A("\"10.0.0.255\""), YES},
		{CIDR("10.0.0.0/24"), A("\"10.0.1.0\""), NO},
		{CIDR("10.0.0.7/24"), A("\"10.0.0.9\""), YES},
		{CIDR("10.0.0.0/9"), A("\"10.127.255.255\""), YES},
		{CIDR("10.0.0.0/9"), A("\"10.128.0.0\""), NO},
		{CIDR("10.0.0.5/32"), A("\"10.0.0.5\""), YES},
		{CIDR("10.0.0.5/32"), A("\"10.0.0.4\""), NO},
		{CIDR("10.0.0.5/31"), A("\"10.0.0.4\""), YES},
		{CIDR("0.0.0.0/0"), A("\"255.1.2.3\""), YES},
		{CIDR("0.0.0.0/0"), A("\"::1\""), NO},
		{CIDR("::/0"), A("\"10.0.0.1\""), NO},
		{CIDR("::/0"), A("\"fe80::1\""), YES},
		{CIDR("10.0.0.0/24"), A("\"010.0.0.1\""), YES},
		{CIDR("10.0.0.0/24"), A("\"10.0.0.33/32\""), NO},
		{CIDR("10.0.0.0/24"), A("\"10.0.0\""), NO},
		{CIDR("10.0.0.0/24"), A("\"10.0.0.1.\""), NO},
		{CIDR("10.0.0.0/24"), A("\"10.0.0.256\""), NO},
		{CIDR("10.0.0.0/24"), A("\"10.0.0.\""), NO},
		{CIDR("10.0.0.0/24"), A("\" 10.0.0.1\""), NO},
		{CIDR("10.0.0.0/24"), A("\"\""), NO},
		{CIDR("10.0.0.0/24"), A("\"nope\""), NO},
		{CIDR("10.0.0.0/24"), A("10"), NO},
		{CIDR("2001:db8::/32"), A("\"2001:db8::1\""), YES},
		{CIDR("2001:db8::/32"), A("\"2001:0DB8:0:0:0:0:0:1\""), YES},
		{CIDR("2001:db8::/32"), A("\"2001:db9::1\""), NO},
		{CIDR("2001:db8::/33"), A("\"2001:db8:8000::\""), NO},
		{CIDR("2001:db8::1/128"), A("\"2001:db8:0::0:1\""), YES},
		{CIDR("2001:db8::1/128"), A("\"2001:db8::2\""), NO},
		{CIDR("1:2:3:4:5:6:7::/112"), A("\"1:2:3:4:5:6:7:8\""), YES},
		{CIDR("::/8"), A("\"::\""), YES},
		{CIDR("::/8"), A("\"::1:2:3:4:5:6:7\""), YES},
		{CIDR("::/8"), A("\"::1:2:3:4:5:6:7:8\""), NO},
		{CIDR("::/0"), A("\"1::2::3\""), NO},
		{CIDR("::/0"), A("\":1:2:3:4:5:6:7\""), NO},
		{CIDR("::/0"), A("\"1:2:3:4:5:6:7:\""), NO},
		{CIDR("::/0"), A("\"1:2:3:4:5:6:7\""), NO},
		{CIDR("::/0"), A("\"1:2:3:4:5:6:7:8:9\""), NO},
		{CIDR("::/0"), A("\"12345::\""), NO},
		{CIDR("::/0"), A("\":::\""), NO},
		{CIDR("::/0"), A("\":\""), NO},
		{CIDR("::/0"), A("\"::g\""), NO},
		{CIDR("::/0"), A("\"::ffff:10.0.0.1\""), NO},
		{CIDR("::/0"), A("\"fe80::1%eth0\""), NO},
	};

	(void) state;
	RUN(cases);
}

static void
test_anything_but(void **state)
{
	static const Case cases[] = {
		{BUT("\"x\""), A("\"y\""), YES},
		{BUT("\"x\""), A("\"x\""), NO},
		{BUT("\"x\""), A("1"), YES},
		{BUT("\"x\""), A("null"), YES},
		{BUT("\"x\""), A("true"), YES},
		{BUT("\"x\""), "{}", NO},
		{BUT("\"x\""), A("[]"), NO},
		{BUT("\"x\""), A("{}"), NO},
		{BUT("\"x\""), A("[\"x\",\"y\"]"), YES},
		{BUT("\"x\""), A("[\"x\",[\"x\"]]"), NO},
		{BUT("\"\""), A("\"z\""), YES},
		{BUT("[\"\"]"), A("\"\""), NO},
		{BUT("[\"x\",\"y\"]"), A("\"y\""), NO},
		{BUT("[\"x\",\"y\"]"), A("\"z\""), YES},
		{BUT("1"), A("1.0"), NO},
		{BUT("1"), A("2"), YES},
		{BUT("1"), A("null"), YES},
		{BUT("1"), A("\"1\""), YES},
		{BUT("1"), A("9007199254740993"), YES},
		{BUT("[1,2]"), A("2e0"), NO},
		{BUT("[1,2]"), A("3"), YES},
		{BUT("{\"prefix\":\"ab\"}"), A("\"abyz\""), NO},
		{BUT("{\"prefix\":\"ab\"}"), A("\"q\""), YES},
		{BUT("{\"prefix\":\"ab\"}"), A("12"), YES},
		{BUT("{\"prefix\":[\"ab\",\"cd\"]}"), A("\"cde\""), NO},
		{BUT("{\"prefix\":[\"ab\",\"cd\"]}"), A("\"ef\""), YES},
		{BUT("{\"suffix\":\"yz\"}"), A("\"abyz\""), NO},
		{BUT("{\"suffix\":\"yz\"}"), A("null"), YES},
		{BUT("{\"suffix\":[\"yz\",\"x\"]}"), A("\"ax\""), NO},
		{BUT("{\"equals-ignore-case\":\"AbC\"}"), A("\"aBc\""), NO},
		{BUT("{\"equals-ignore-case\":\"AbC\"}"), A("\"abyz\""), YES},
		{BUT("{\"equals-ignore-case\":\"AbC\"}"), A("null"), YES},
		{BUT("{\"equals-ignore-case\":\"\"}"), A("\"q\""), YES},
		{BUT("{\"equals-ignore-case\":[\"A\",\"B\"]}"), A("\"b\""), NO},
		{BUT("{\"wildcard\":\"a*z\"}"), A("\"abz\""), NO},
		{BUT("{\"wildcard\":\"a*z\"}"), A("\"q\""), YES},
		{BUT("{\"wildcard\":\"a*z\"}"), A("null"), YES},
		{BUT("{\"wildcard\":\"\"}"), A("\"q\""), YES},
		{BUT("{\"wildcard\":[\"a*z\",\"zz\"]}"), A("\"zz\""), NO},
		{BUT("{\"wildcard\":[\"a*z\",\"zz\"]}"), A("\"zzz\""), YES},
		{LEAF("{\"anything-but\":\"x\"},\"x\""), A("\"x\""), YES},
	};

	(void) state;
	RUN(cases);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_literals),
		cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_ranges),
		cmocka_unit_test(test_strings),
		cmocka_unit_test(test_wildcards),
		cmocka_unit_test(test_wildcard_is_linear),
		cmocka_unit_test(test_addresses),
		cmocka_unit_test(test_anything_but),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
