/*
 * test_error_class.c
 *		Classes of errors, and what a handler says in the detail of one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/error_class.h"

static void
every_class_has_a_name(void **state)
{
	static const char *const names[] = {
		"transient", "contention", "resource", "shutdown", "timeout", "unknown_outcome", "permanent", "deploy"
	};

	(void) state;
	for (int i = 0; i < MP_ERROR_CLASSES; i++)
	{
		MpErrorClass class = MP_ERROR_CLASSES;

		assert_string_equal(mp_error_class_name((MpErrorClass) i), names[i]);
		assert_true(mp_error_class_of_name(names[i], &class));
		assert_int_equal(class, i);
	}
	assert_false(mp_error_class_of_name("", &(MpErrorClass) {0}));
	assert_false(mp_error_class_of_name("Transient", &(MpErrorClass) {0}));
	assert_false(mp_error_class_of_name("transients", &(MpErrorClass) {0}));
}

static void
only_three_tell_of_the_service(void **state)
{
	(void) state;
	for (int i = 0; i < MP_ERROR_CLASSES; i++)
		assert_int_equal(mp_error_class_tells_of_service((MpErrorClass) i),
						 i == MP_CLASS_TRANSIENT || i == MP_CLASS_TIMEOUT || i == MP_CLASS_UNKNOWN_OUTCOME);
}

static void
a_detail_has_words(void **state)
{
	static const struct
	{
		const char *detail;
		const char *code;
		double		retry_after;	/* -1: none */
	}			table[] = {
		{NULL, "", -1},
		{"", "", -1},
		{"The detail.", "", -1},
		{"code=http:429", "http:429", -1},
		{"retry_after=30", "", 30},
		{"retry_after=0", "", 0},
		{"retry_after=0.25", "", 0.25},
		{"code=fatsecret:12 retry_after=60", "fatsecret:12", 60},
		{"retry_after=60 code=fatsecret:12", "fatsecret:12", 60},
		{"It says\ncode=http:503\tretry_after=5\nand no more.", "http:503", 5},
		/* words begin after a space, and the first one counts */
		{"barcode=4711 http_retry_after=3", "", -1},
		{"Key (x)=(retry_after=3) is there.", "", -1},
		{"retry_after=1 retry_after=2", "", 1},
		/* what is no number of seconds */
		{"retry_after=", "", -1},
		{"retry_after=-1", "", -1},
		{"retry_after=soon", "", -1},
		{"retry_after=inf", "", -1},
		{"retry_after=nan", "", -1},
		{"retry_after=0x10", "", -1},
		{"retry_after=1e3", "", -1},
		{"retry_after=1.2.3", "", -1},
		{"retry_after=12s", "", -1},
		{"retry_after =3", "", -1},
		{"code=", "", -1},
		{"code= http:429", "", -1},
		{"code=0123456789012345678901234567890123456789012345678901234567890123", "", -1},
		{"code=012345678901234567890123456789012345678901234567890123456789012",
		"012345678901234567890123456789012345678901234567890123456789012", -1}
	};

	(void) state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
	{
		MpErrorAdvice advice = mp_error_advice(table[i].detail, 1e9);

		assert_string_equal(advice.code, table[i].code);
		assert_int_equal(advice.has_retry_after, table[i].retry_after >= 0);
		assert_float_equal(advice.retry_after, table[i].retry_after >= 0 ? table[i].retry_after : 0, 0);
	}
}

/* Retry-After may be a date, in three forms. */
static void
a_date_may_say_when(void **state)
{
	static const double now = 784111777;	/* Sun, 06 Nov 1994 08:49:37 GMT */
	static const struct
	{
		const char *date;
		double		wait;			/* -1: it is none */
	}			table[] = {
		{"Sun, 06 Nov 1994 08:49:37 GMT", 0},
		{"Sun, 06 Nov 1994 08:50:37 GMT", 60},
		{"Sunday, 06-Nov-94 08:50:37 GMT", 60},
		{"Sun Nov  6 08:50:37 1994", 60},
		{"Mon, 07 Nov 1994 08:49:37 GMT", 86400},
		/* what is over is now */
		{"Sat, 05 Nov 1994 08:49:37 GMT", 0},
		{"Thu, 01 Jan 1970 00:00:00 GMT", 0},
		{"Tue, 29 Feb 2000 00:00:00 GMT", 951782400 - 784111777.0},
		{"Wed, 01 Mar 2000 00:00:00 GMT", 951868800 - 784111777.0},
		{"Fri, 31 Dec 1999 23:59:60 GMT", 946684800 - 784111777.0},
		{"Mon, 23 Nov 2026 15:00:00 GMT", 1795446000 - 784111777.0},
		/* two digits: no more than 50 years ahead */
		{"Saturday, 01-Jan-00 00:00:00 GMT", 946684800 - 784111777.0},
		{"Friday, 01-Jan-44 00:00:00 GMT", 2335219200 - 784111777.0},
		{"Saturday, 01-Jan-45 00:00:00 GMT", -1},
		{"Sunday, 01-Jan-95 00:00:00 GMT", 788918400 - 784111777.0},
		{"Sunday, 06 Nov 1994 08:50:37 GMT", -1},
		{"Sun, 06 Nov 1994 08:50:37 CET", -1},
		{"Sun, 06 Nov 1994 08:50:37", -1},
		{"Sun, 06 Nov 1994", -1},
		{"Sun, 00 Nov 1994 08:50:37 GMT", -1},
		{"Sun, 32 Nov 1994 08:50:37 GMT", -1},
		{"Sun, 06 Nev 1994 08:50:37 GMT", -1},
		{"Sun, 06 Nov 1994 24:50:37 GMT", -1},
		{"Sun, 06 Nov 1994 08:60:37 GMT", -1},
		{"Sun, 06 Nov 1994 08:50:61 GMT", -1},
		{"Sun, 06 Nov 1894 08:50:37 GMT", -1},
		{"1994-11-06T08:50:37Z", -1}
	};

	(void) state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
	{
		char		detail[100] = "code=http:503 retry_after=";
		MpErrorAdvice advice;

		strcat(detail, table[i].date);
		advice = mp_error_advice(detail, now);
		assert_string_equal(advice.code, "http:503");
		assert_int_equal(advice.has_retry_after, table[i].wait >= 0);
		assert_float_equal(advice.retry_after, table[i].wait >= 0 ? table[i].wait : 0, 0);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_class_has_a_name),
		cmocka_unit_test(only_three_tell_of_the_service),
		cmocka_unit_test(a_detail_has_words),
		cmocka_unit_test(a_date_may_say_when)
	};

	return cmocka_run_group_tests_name("error_class", tests, NULL, NULL);
}
