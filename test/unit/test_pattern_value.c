/*
 * Event patterns: the comparisons of values that matchers are built from.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "core/pattern_internal.h"
#include "pattern_run.h"

/* Which decimals binary64 holds, against what is known of it. */
static void
test_representable(void **state)
{
	static const struct
	{
		const char *text;
		bool		comparable;
	}			cases[] = {
		{"0", true}, {"-0.000e5", true}, {"0.1", true}, {"123456789012345", true},
		{"9007199254740991", true}, {"9007199254740992", true},
		{"9007199254740993", false}, {"9007199254740994", true},
		{"99999999999999999", false}, {"100000000000000000", true},
		{"0.30000000000000001", false}, {"0.30000000000000004", true},
		{"1.7976931348623157e308", true}, {"1.7976931348623158e308", false},
		{"1e308", true}, {"1e309", false}, {"2.2250738585072014e-308", true},
		{"5e-324", true}, {"4e-324", false}, {"4.9e-324", false}, {"1e-323", true},
		{"2e-323", true}, {"1e-324", false}, {"1e-1000000000000", false},
		{"1e99999999999999999999", false}, {"123456789012345678", false},
		/* not JSON numbers, which a reader might still hand over */
		{"", false}, {"-", false}, {".5", false}, {"5.", false}, {"1e", false},
		{"1e+", false}, {"1x", false}, {"NaN", false}, {"Infinity", false},
		{"1.5.5", false}, {"+1", false}, {" 1", false}, {"1e5x", false},
	};

	(void) state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		MpDecimal	d;

		mp_decimal_parse(cases[i].text, strlen(cases[i].text), &d);
		if (d.comparable != cases[i].comparable)
			fail_msg("%s: %d", cases[i].text, d.comparable);
	}
}

/* Decimals made from doubles are ordered as the doubles are. */
static void
test_decimal_order(void **state)
{
	uint64_t	seed = 88172645463325252u;

	(void) state;
	for (int i = 0; i < 20000; i++)
	{
		double		values[2];
		MpDecimal	decimals[2];
		int			expected;

		for (int j = 0; j < 2; j++)
		{
			char		text[64];
			int			precision = 1;

			do
			{
				seed ^= seed << 13;
				seed ^= seed >> 7;
				seed ^= seed << 17;
				memcpy(&values[j], &seed, sizeof(double));
			} while (values[j] != values[j] || values[j] - values[j] != 0);
			if (i % 3 == 1)
				values[j] = (double) (int64_t) (seed >> 44) - 500000;
			if (i % 3 == 2)
				values[j] = (double) (seed >> 52) / 16 - 100;
			do
				sprintf(text, "%.*e", precision - 1, values[j]);
			while (strtod(text, NULL) != values[j] && precision++ < 17);
			mp_decimal_parse(text, strlen(text), &decimals[j]);
			assert_true(decimals[j].comparable);
		}
		expected = (values[0] > values[1]) - (values[0] < values[1]);
		assert_int_equal(mp_decimal_compare(&decimals[0], &decimals[1]), expected);
		assert_int_equal(mp_decimal_compare(&decimals[1], &decimals[0]), -expected);
		assert_int_equal(mp_decimal_compare(&decimals[0], &decimals[0]), 0);
	}
}

/* Every upper case code point leads to a lower case that leads nowhere. */
static void
test_folding(void **state)
{
	int			pairs = 0;

	(void) state;
	for (uint32_t code = 0; code < 0x110000; code++)
	{
		uint32_t	lower = mp_fold(code);

		if (lower == code)
			continue;
		pairs++;
		if (lower >= 0x110000 || mp_fold(lower) != lower)
			fail_msg("U+%04X", code);
	}
	assert_int_equal(pairs, 26 + 1370);
}

/* Text that is not UTF-8 is compared byte by byte, and never read beyond. */
static void
test_invalid_utf8(void **state)
{
	static const char *const texts[] = {
		"\x80", "\xC3", "\xC3x", "\xE2\x82", "\xE2\x82x", "\xF0\x9F\x98", "\xC0\x80",
		"\xED\xA0\x80", "\xF4\x90\x80\x80", "\xFF", "a\xFF", "\xC3\xA9\xA9", "\xA9\xC3\xA9"
	};

	(void) state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
	{
		size_t		len = strlen(texts[i]);
		char	   *exact = malloc(len);
		TestArena	arena;
		MpFolded	folded;

		assert_non_null(exact);
		memcpy(exact, texts[i], len);
		test_arena_init(&arena);
		mp_folded_compile(exact, len, &arena.arena, &folded);
		assert_true(mp_folded_equal(&folded, exact, len));
		assert_true(mp_folded_prefix(&folded, exact, len));
		assert_true(mp_folded_suffix(&folded, exact, len));
		assert_false(mp_folded_equal(&folded, exact, len - 1));
		assert_false(mp_folded_suffix(&folded, exact, len - 1));
		test_arena_free(&arena);
		free(exact);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_representable),
		cmocka_unit_test(test_decimal_order),
		cmocka_unit_test(test_folding),
		cmocka_unit_test(test_invalid_utf8),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
