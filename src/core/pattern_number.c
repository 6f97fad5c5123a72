/*
 * pattern_number.c
 *		Comparison of JSON numbers by their decimal text.
 *
 * Two numbers that binary64 holds under shortest round trip are the same double
 * exactly when they are the same decimal, and are ordered as the decimals are.
 * So all comparing is done on normalised decimals, and binary floating point is
 * used for one question only: does binary64 hold this decimal?
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pattern_internal.h"

/* Any decimal of so few digits survives the way to binary64 and back ... */
#define SAFE_DIGITS 15
/* ... unless its magnitude comes near the ends of binary64. */
#define SAFE_EXPONENT 300
/* Beyond these it is infinite, or zero, without looking. */
#define HIGHEST_EXPONENT 310
#define LOWEST_EXPONENT (-330)

/* The exponent of a text saturates here, which is far beyond any use of it. */
#define EXPONENT_LIMIT 1000000000

static bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/*
 * Reads an optional "e+12" at the end of a number; false when what is there is
 * anything else.
 */
static bool
parse_exponent(const char *p, const char *end, int64_t *exponent)
{
	bool		negative = false;
	int64_t		value = 0;

	*exponent = 0;
	if (p == end)
		return true;
	if (*p != 'e' && *p != 'E')
		return false;
	p++;
	if (p < end && (*p == '+' || *p == '-'))
		negative = *p++ == '-';
	if (p == end)
		return false;
	for (; p < end; p++)
	{
		if (!is_digit(*p))
			return false;
		if (value < EXPONENT_LIMIT)
			value = value * 10 + (*p - '0');
	}
	*exponent = negative ? -value : value;
	return true;
}

/*
 * Does binary64 hold the decimal?  It does when the shortest print of the
 * nearest double that reads back as the same double is the decimal itself.
 *
 * strtod and snprintf follow LC_NUMERIC, but the text read first has no radix
 * character, and of the text printed only the digits and the exponent are
 * looked at, so that the answer is the same in every locale (the server runs
 * with LC_NUMERIC=C anyway).
 */
static bool
survives_round_trip(const MpDecimal *d)
{
	char		text[64];
	double		value;
	int			precision;

	snprintf(text, sizeof(text), "%.*se%d", d->ndigits, d->digits,
			 d->exponent - d->ndigits);
	value = strtod(text, NULL);
	if (isinf(value) || value == 0.0)
		return false;

	/*
	 * Within the safe range no shorter decimal can read back unless the one
	 * of SAFE_DIGITS does, and its trailing zeros are dropped below.
	 */
	precision = abs(d->exponent) <= SAFE_EXPONENT ? SAFE_DIGITS : 1;
	for (; precision <= MP_DECIMAL_DIGITS; precision++)
	{
		char		digits[MP_DECIMAL_DIGITS];
		int			ndigits = 0;
		const char *p;

		snprintf(text, sizeof(text), "%.*e", precision - 1, value);
		if (strtod(text, NULL) != value)
			continue;

		for (p = text; *p != 'e' && *p != '\0'; p++)
		{
			if (is_digit(*p) && ndigits < MP_DECIMAL_DIGITS)
				digits[ndigits++] = *p;
		}
		while (ndigits > 0 && digits[ndigits - 1] == '0')
			ndigits--;
		if (*p == 'e')
			p++;

		/* The print is D.DDDe+X; ours is 0.DDDD x 10^(X + 1). */
		return ndigits == d->ndigits &&
			memcmp(digits, d->digits, (size_t) ndigits) == 0 &&
			strtol(p, NULL, 10) + 1 == d->exponent;
	}
	return false;
}

/*
 * Reads the text of a JSON number.  What is no number, or one that binary64
 * does not hold, is not comparable.
 */
void
mp_decimal_parse(const char *text, size_t len, MpDecimal *result)
{
	const char *p = text;
	const char *end;
	bool		negative = false;
	bool		fraction = false;
	bool		any = false;
	int64_t		point = 0;		/* exponent before the text's own is added */
	int64_t		ndigits = 0;	/* up to the last digit that is not zero */
	int64_t		seen = 0;		/* significant digits, trailing zeros as well */
	int64_t		exponent;

	memset(result, 0, sizeof(*result));
	if (len == 0)
		return;
	end = text + len;

	if (p < end && *p == '-')
	{
		negative = true;
		p++;
	}
	for (; p < end; p++)
	{
		if (*p == '.' && any && !fraction)
		{
			fraction = true;
			continue;
		}
		if (!is_digit(*p))
			break;
		any = true;
		if (seen == 0 && *p == '0')
		{
			if (fraction)
				point--;
			continue;
		}
		if (!fraction)
			point++;
		if (seen < MP_DECIMAL_DIGITS)
			result->digits[seen] = *p;
		seen++;
		if (*p != '0')
			ndigits = seen;
	}
	if (!any || !is_digit(p[-1]) || !parse_exponent(p, end, &exponent))
		return;

	if (ndigits == 0)
	{
		result->comparable = true;	/* zero, whatever its exponent and sign */
		return;
	}
	exponent += point;
	if (ndigits > MP_DECIMAL_DIGITS ||
		exponent > HIGHEST_EXPONENT || exponent < LOWEST_EXPONENT)
		return;

	result->negative = negative;
	result->ndigits = (int) ndigits;
	result->exponent = (int) exponent;
	result->comparable =
		(ndigits <= SAFE_DIGITS && llabs(exponent) <= SAFE_EXPONENT) ||
		survives_round_trip(result);
}

/* Order of two comparable decimals: negative, zero or positive. */
int
mp_decimal_compare(const MpDecimal *a, const MpDecimal *b)
{
	int			sign = a->negative ? -1 : 1;
	int			order;

	if (a->ndigits == 0 || b->ndigits == 0)
	{
		if (a->ndigits == b->ndigits)
			return 0;
		return a->ndigits == 0 ? (b->negative ? 1 : -1) : sign;
	}
	if (a->negative != b->negative)
		return sign;
	if (a->exponent != b->exponent)
		return a->exponent < b->exponent ? -sign : sign;

	order = memcmp(a->digits, b->digits,
				   (size_t) (a->ndigits < b->ndigits ? a->ndigits : b->ndigits));
	if (order == 0)
		order = a->ndigits - b->ndigits;
	return order < 0 ? -sign : (order > 0 ? sign : 0);
}

/*
 * Is the text the same number?  By value where binary64 holds it, else by
 * text.  (If it holds one of two equal decimals it holds the other.)
 */
bool
mp_decimal_equal_text(const MpNumber *number, const char *text, size_t len)
{
	MpDecimal	other;

	if (len == number->text.len &&
		(len == 0 || memcmp(text, number->text.text, len) == 0))
		return true;
	if (!number->value.comparable)
		return false;
	mp_decimal_parse(text, len, &other);
	return other.comparable && mp_decimal_compare(&number->value, &other) == 0;
}

/* Is the number written in text within the range? */
bool
mp_range_contains(const MpRange *range, const char *text, size_t len)
{
	MpDecimal	value;
	int			order;

	mp_decimal_parse(text, len, &value);
	if (!value.comparable)
		return false;
	if (range->has_low)
	{
		order = mp_decimal_compare(&value, &range->low);
		if (order < 0 || (order == 0 && !range->low_inclusive))
			return false;
	}
	if (range->has_high)
	{
		order = mp_decimal_compare(&value, &range->high);
		if (order > 0 || (order == 0 && !range->high_inclusive))
			return false;
	}
	return true;
}
