/* The amount at the start of an ingredient line. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "core/quantity.h"

static MpQuantity
parse(const char *line)
{
	/* an exact copy without terminator, so that a sanitizer sees an overread */
	size_t		len = strlen(line);
	char	   *copy = malloc(len > 0 ? len : 1);
	MpQuantity	q;

	assert_non_null(copy);
	memcpy(copy, line, len);
	mp_quantity_parse(copy, len, &q);
	free(copy);
	assert_true(q.rest <= len);
	return q;
}

static void
expect(const char *line, int64_t num, int64_t den, const char *rest)
{
	MpQuantity	q = parse(line);

	if (!q.present || q.low.num != num || q.low.den != den ||
		q.high.num != num || q.high.den != den || strcmp(line + q.rest, rest) != 0)
		fail_msg("\"%s\": present %d, low %lld/%lld, high %lld/%lld, rest \"%s\"", line,
				 q.present, (long long) q.low.num, (long long) q.low.den,
				 (long long) q.high.num, (long long) q.high.den, line + q.rest);
}

static void
expect_range(const char *line, int64_t low, int64_t low_den, int64_t high, int64_t high_den,
			 const char *rest)
{
	MpQuantity	q = parse(line);

	if (!q.present || q.low.num != low || q.low.den != low_den || q.high.num != high ||
		q.high.den != high_den || strcmp(line + q.rest, rest) != 0)
		fail_msg("\"%s\": low %lld/%lld, high %lld/%lld, rest \"%s\"", line,
				 (long long) q.low.num, (long long) q.low.den, (long long) q.high.num,
				 (long long) q.high.den, line + q.rest);
}

static void
expect_none(const char *line, const char *rest)
{
	MpQuantity	q = parse(line);

	if (q.present || q.has_each || strcmp(line + q.rest, rest) != 0)
		fail_msg("\"%s\": took %lld/%lld", line, (long long) q.low.num, (long long) q.low.den);
}

static void
test_plain(void **state)
{
	(void) state;
	expect("1 cup rice", 1, 1, "cup rice");
	expect("1.5 cups", 3, 2, "cups");
	expect("1,5 dl milk", 3, 2, "dl milk");
	expect("0,125 l", 1, 8, "l");
	expect("1,500 g flour", 1500, 1, "g flour");
	expect("10,250 g", 10250, 1, "g");
	expect("1,5000 g", 3, 2, "g");
	expect(".5 l", 1, 2, "l");
	expect("500g beef", 500, 1, "g beef");
	expect("  2\teggs", 2, 1, "eggs");
	expect("2\xC2\xA0" "eggs", 2, 1, "eggs");
	expect("2", 2, 1, "");
	expect("- 2 eggs", 2, 1, "eggs");
	expect("\xE2\x96\xA2 1 tbsp yeast", 1, 1, "tbsp yeast");
	expect_none("* salt", "salt");
}

static void
test_fractions(void **state)
{
	(void) state;
	expect("1/2 cup", 1, 2, "cup");
	expect("2/4 cup", 1, 2, "cup");
	expect("1 / 2 cup", 1, 2, "cup");
	expect("1\xE2\x81\x84" "2 cup", 1, 2, "cup");
	expect("1 1/2 cups", 3, 2, "cups");
	expect("1-1/2 cups", 3, 2, "cups");
	expect("1 and 1/2 cups", 3, 2, "cups");
	expect("\xC2\xBD cup", 1, 2, "cup");
	expect("1\xC2\xBD cups", 3, 2, "cups");
	expect("1 \xC2\xBD cups", 3, 2, "cups");
	expect("\xE2\x85\x93 cup", 1, 3, "cup");
	expect("2\xE2\x85\x94 cups", 8, 3, "cups");
	expect("1 5/4 cups", 1, 1, "5/4 cups");
	expect("1 14\xC2\xBD-ounce can", 1, 1, "14\xC2\xBD-ounce can");
}

static void
test_ranges(void **state)
{
	(void) state;
	expect_range("2-3 eggs", 2, 1, 3, 1, "eggs");
	expect_range("2 - 3 eggs", 2, 1, 3, 1, "eggs");
	expect_range("2\xE2\x80\x93" "3 eggs", 2, 1, 3, 1, "eggs");
	expect_range("2 to 3 eggs", 2, 1, 3, 1, "eggs");
	expect_range("2 or 3 eggs", 2, 1, 3, 1, "eggs");
	expect_range("1/2-1 cup", 1, 2, 1, 1, "cup");
	expect_range("1-1\xC2\xBD cups", 1, 1, 3, 2, "cups");
	expect_range("1 1/2 to 2 cups", 3, 2, 2, 1, "cups");
	expect_range("3-2 eggs", 2, 1, 3, 1, "eggs");
	expect("2 tomatoes", 2, 1, "tomatoes");
	expect("2 oranges", 2, 1, "oranges");
}

static void
test_each(void **state)
{
	MpQuantity	q;

	(void) state;
	q = parse("2 x 400 g cans");
	assert_true(q.present && q.has_each);
	assert_int_equal(q.low.num, 2);
	assert_int_equal(q.each.num, 400);
	assert_int_equal(q.rest, 8);
	q = parse("2x400g");
	assert_true(q.has_each);
	assert_int_equal(q.rest, 5);
	q = parse("3 \xC3\x97 1\xC2\xBD l");
	assert_true(q.has_each);
	assert_int_equal(q.each.num, 3);
	assert_int_equal(q.each.den, 2);
	expect("2 xl eggs", 2, 1, "xl eggs");
	assert_false(parse("2 x 0 g").has_each);
}

static void
test_words(void **state)
{
	(void) state;
	expect("a pinch of salt", 1, 1, "pinch of salt");
	expect("An onion", 1, 1, "onion");
	expect("two eggs", 2, 1, "eggs");
	expect("half a lemon", 1, 2, "lemon");
	expect("half an onion", 1, 2, "onion");
	expect("a half cup", 1, 2, "cup");
	expect("a dozen eggs", 12, 1, "eggs");
	expect("a quarter cup", 1, 4, "cup");
	expect("1-inch piece ginger", 1, 1, "inch piece ginger");
	expect_none("half-and-half", "half-and-half");
	expect_none("and more", "and more");
	expect_none("a few sprigs thyme", "a few sprigs thyme");
	expect_none("a little oil", "a little oil");
	expect_none("tender peas", "tender peas");
}

static void
test_approximate(void **state)
{
	(void) state;
	expect("about 2 cups", 2, 1, "cups");
	assert_true(parse("about 2 cups").approximate);
	assert_true(parse("~250 g").approximate);
	assert_true(parse("approx. 3").approximate);
	assert_false(parse("2 cups").approximate);
	expect_none("about right", "about right");
	assert_false(parse("about right").approximate);
}

static void
test_none(void **state)
{
	(void) state;
	expect_none("", "");
	expect_none("   ", "");
	expect_none("-", "");
	expect_none("salt to taste", "salt to taste");
	expect_none("2% milk", "2% milk");
	expect_none("100% rye bread", "100% rye bread");
	expect_none("1/0 cup", "1/0 cup");
	expect_none("0 eggs", "0 eggs");
	expect_none("12345678 g", "12345678 g");
	expect_none("1.1234567 g", "1.1234567 g");
	expect_none("\xC3\xA9pices", "\xC3\xA9pices");
}

/* Thirds add up to one: the reason why values are rationals. */
static void
test_exact(void **state)
{
	MpQuantity	q = parse("1/3 cup");

	(void) state;
	assert_int_equal(q.low.num * 3, q.low.den);
	q = parse("999999.999999 g");
	assert_int_equal(q.low.num, 999999999999);
	assert_int_equal(q.low.den, 1000000);
	q = parse("999998 999998/999999 to 999999 999998/999999");
	assert_true(q.present && q.low.num > 0 && q.high.num > q.low.num);
}

/* Any bytes at all: no overread, and the remainder stays inside the line. */
static void
test_noise(void **state)
{
	static const char *const parts[] = {
		"1", "2", "/", ".", ",", "-", " ", "x", "\xC2", "\xBD", "\xC2\xBD", "\xE2\x80\x93",
		"\xE2", "a", "half", "to", "or", "about", "~", "0", "%", "\xC2\xA0", "999999",
	};
	uint32_t	random = 1;

	(void) state;
	for (int round = 0; round < 20000; round++)
	{
		char		line[128] = "";
		int			count;

		random = random * 1664525u + 1013904223u;
		count = (int) (random >> 24) % 9;
		for (int i = 0; i < count; i++)
		{
			random = random * 1664525u + 1013904223u;
			strcat(line, parts[(random >> 16) % (sizeof(parts) / sizeof(parts[0]))]);
		}
		MpQuantity	q = parse(line);

		if (q.present)
		{
			assert_true(q.low.num > 0 && q.low.den > 0 && q.high.den > 0);
			assert_true(q.low.num * q.high.den <= q.high.num * q.low.den);
		}
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plain),
		cmocka_unit_test(test_fractions),
		cmocka_unit_test(test_ranges),
		cmocka_unit_test(test_each),
		cmocka_unit_test(test_words),
		cmocka_unit_test(test_approximate),
		cmocka_unit_test(test_none),
		cmocka_unit_test(test_exact),
		cmocka_unit_test(test_noise),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
