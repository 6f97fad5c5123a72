/*
 * The first look at a JSON text from outside.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "core/document.h"
#include "core/utf8.h"

#define MAX_BYTES 1000
#define MAX_DEPTH 4

/* An exact copy without terminator, so that a sanitizer sees an overread. */
static bool
check(const char *text, size_t len, MpDocumentError *error)
{
	char	   *copy = malloc(len > 0 ? len : 1);
	bool		result;

	assert_non_null(copy);
	memcpy(copy, text, len);
	memset(error, 'x', sizeof(*error));
	result = mp_document_check(copy, len, MAX_BYTES, MAX_DEPTH, error);
	free(copy);
	return result;
}

static void
accept(const char *text)
{
	MpDocumentError error;

	if (!check(text, strlen(text), &error))
		fail_msg("%s: %d:%d %s", text, error.line, error.column, error.message);
}

/*
 * The message is compared as far as it is given: the rest is jansson's, as is
 * the column (-1: any) where it stops in the middle of a token.
 */
static void
refuse(const char *text, int line, int column, const char *message)
{
	MpDocumentError error;

	if (check(text, strlen(text), &error))
		fail_msg("%s: accepted", text);
	if (error.line != line || (column >= 0 && error.column != column) ||
		strncmp(error.message, message, strlen(message)) != 0)
		fail_msg("%s: %d:%d %s", text, error.line, error.column, error.message);
}

static void
test_accepts(void **state)
{
	(void) state;
	accept("{}");
	accept(" \t\r\n{\"a\": [1, -2.5e3, true, false, null, \"x\"]}\n ");
	accept("{\"a\":{\"b\":{\"c\":{}}}}");
	accept("{\"a\":[[[]]],\"b\":[[[]]]}");
	accept("{\"a\":9223372036854775807,\"b\":-9223372036854775808}");
	accept("{\"\xC3\xA9\":\"\xF0\x9F\x8D\x9E\",\"b\":\"\\ud83d\\ude00\"}");
	/* brackets in strings are text */
	accept("{\"[[[[[\":\"{{{{{\\\"[[[[[\\\\\"}");
	accept("{\"a\":\"\\\\\",\"b\":\"]]]]]\"}");
}

static void
test_refuses(void **state)
{
	(void) state;
	refuse("", 1, 0, "must be a JSON object");
	refuse("  \n ", 2, 1, "must be a JSON object");
	refuse("[]", 1, 1, "must be a JSON object");
	refuse("\n  \"x\"", 2, 3, "must be a JSON object");
	refuse("null", 1, 1, "must be a JSON object");
	refuse("1", 1, 1, "must be a JSON object");
	refuse("\xEF\xBB\xBF{}", 1, 1, "must be a JSON object");
	refuse("{", 1, 1, "string or '}' expected");
	refuse("{\"a\":1,}", 1, 8, "string or '}' expected");
	refuse("{\"a\":1\n\"b\":2}", 2, 3, "'}' expected near '\"b\"'");
	refuse("{\"\xC3\xA9\xC3\xA9\":x}", 1, 7, "invalid token near 'x'");
	refuse("{} {}", 1, 4, "end of file expected");
	refuse("{}x", 1, 3, "end of file expected");
	refuse("{\"a\":\"x", 1, -1, "premature end of input");
	refuse("{\"a\":\"x\ny\"}", 1, -1, "unexpected newline");
	refuse("{\"a\":\"\\", 1, -1, "invalid escape");
	refuse("{\"a\":01}", 1, -1, "invalid token");
	refuse("{\"a\":NaN}", 1, -1, "invalid token");
	refuse("{'a':1}", 1, 2, "string or '}' expected");
	refuse("{\"a\":\"\\u0000\"}", 1, -1, "\\u0000 is not allowed");
	refuse("{\"a\":\"\\ud83d\"}", 1, -1, "invalid Unicode");
	refuse("{\"a\":9223372036854775808}", 1, -1, "too big integer");
	refuse("{\"a\":1e400}", 1, -1, "real number overflow");
	refuse("{\"a\":]", 1, 6, "unexpected token");
	refuse("{\"a\":[}]", 1, 7, "unexpected token");
}

static void
test_depth(void **state)
{
	(void) state;
	refuse("{\"a\":[[[[]]]]}", 1, 9, "must not be nested deeper than 4 levels");
	refuse("{\"a\":\n{\"\xC3\xA9\":{\"c\":{\"d\":[1]}}}}", 2, 16, "must not be nested deeper than 4 levels");
	/* a string that is never closed hides nothing from the parser */
	refuse("{\"a\":\"[[[[[[", 1, -1, "premature end of input");
}

/* So deep that a parser that recursed into it would run out of stack. */
static void
test_hostile_depth(void **state)
{
	enum
	{
		LENGTH = 1000000
	};
	char	   *text = malloc(LENGTH);
	MpDocumentError error;

	(void) state;
	assert_non_null(text);
	memset(text, '[', LENGTH);
	memcpy(text, "{\"a\":", 5);
	assert_false(mp_document_check(text, LENGTH, LENGTH, 1000, &error));
	assert_string_equal(error.message, "must not be nested deeper than 1000 levels");
	/* and beyond what jansson knows of, it refuses by itself */
	assert_false(mp_document_check(text, LENGTH, LENGTH, LENGTH, &error));
	assert_string_equal(error.message, "maximum parsing depth reached near '['");
	free(text);
}

static void
test_size(void **state)
{
	char		text[MAX_BYTES + 2];
	MpDocumentError error;

	(void) state;
	memset(text, ' ', sizeof(text));
	memcpy(text, "{}", 2);
	assert_true(check(text, MAX_BYTES, &error));
	assert_false(check(text, MAX_BYTES + 1, &error));
	assert_string_equal(error.message, "must not be larger than 1000 bytes");
	assert_int_equal(error.line, 0);
	assert_int_equal(error.column, 0);
}

/* What a message quotes of a broken text is fit to be shown. */
static void
test_clean_messages(void **state)
{
	static const char *const texts[] = {
		"{\"a\":\"\xC3\"}", "{\"a\":\xFF}", "{\"a\":x\xE2\x82}", "{\"a\":\"\x01\"}", "{\x7F}",
		"{\"a\":\"\xE2\x82\xAC\xE2\x82\xAC\xE2\x82\xAC\xE2\x82\xAC\xE2\x82", "{\"a\":\"x\r\n\"}",
		"{\"\xF0\x9F\x8D\x9E\" 1}", "{\"a\":\"\xED\xA0\x80\"}", "{\"a\" \"b\nc\"}"
	};

	(void) state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
	{
		MpDocumentError error;
		size_t		len;

		assert_false(check(texts[i], strlen(texts[i]), &error));
		len = strlen(error.message);
		assert_in_range(len, 1, sizeof(error.message) - 1);
		for (size_t at = 0; at < len;)
		{
			uint32_t	code;

			at += mp_utf8_decode(error.message + at, len - at, &code);
			if (code < 0x20 || code == 0x7F || code >= MP_UTF8_INVALID)
				fail_msg("case %zu: %s", i, error.message);
		}
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_accepts),
		cmocka_unit_test(test_refuses),
		cmocka_unit_test(test_depth),
		cmocka_unit_test(test_hostile_depth),
		cmocka_unit_test(test_size),
		cmocka_unit_test(test_clean_messages),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
