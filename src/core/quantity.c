#include "core/quantity.h"

#include <string.h>

/*
 * More digits than this are an article number or nonsense, never an amount;
 * the limits keep every product of two values far from overflow.
 */
#define MAX_WHOLE_DIGITS 6
#define MAX_DECIMALS 6

typedef struct Scanner
{
	const char *text;
	size_t		len;
	size_t		at;
} Scanner;

typedef enum NumberShape
{
	NUMBER_NONE,
	NUMBER_WHOLE,				/* 2 */
	NUMBER_FRACTION,			/* 1/2 or a fraction character, nothing before it */
	NUMBER_OTHER				/* 1.5, 1 1/2, a number word */
} NumberShape;

typedef struct FractionChar
{
	const char *utf8;
	int8_t		num;
	int8_t		den;
} FractionChar;

static const FractionChar fraction_chars[] = {
	{"\xC2\xBC", 1, 4},
	{"\xC2\xBD", 1, 2},
	{"\xC2\xBE", 3, 4},
	{"\xE2\x85\x90", 1, 7},
	{"\xE2\x85\x91", 1, 9},
	{"\xE2\x85\x92", 1, 10},
	{"\xE2\x85\x93", 1, 3},
	{"\xE2\x85\x94", 2, 3},
	{"\xE2\x85\x95", 1, 5},
	{"\xE2\x85\x96", 2, 5},
	{"\xE2\x85\x97", 3, 5},
	{"\xE2\x85\x98", 4, 5},
	{"\xE2\x85\x99", 1, 6},
	{"\xE2\x85\x9A", 5, 6},
	{"\xE2\x85\x9B", 1, 8},
	{"\xE2\x85\x9C", 3, 8},
	{"\xE2\x85\x9D", 5, 8},
	{"\xE2\x85\x9E", 7, 8},
};

typedef struct NumberWord
{
	const char *word;
	int8_t		num;
	int8_t		den;
} NumberWord;

static const NumberWord number_words[] = {
	{"a", 1, 1}, {"an", 1, 1}, {"one", 1, 1}, {"two", 2, 1}, {"three", 3, 1},
	{"four", 4, 1}, {"five", 5, 1}, {"six", 6, 1}, {"seven", 7, 1},
	{"eight", 8, 1}, {"nine", 9, 1}, {"ten", 10, 1}, {"eleven", 11, 1},
	{"twelve", 12, 1}, {"dozen", 12, 1}, {"half", 1, 2}, {"quarter", 1, 4},
};

static const char *const approximate_words[] = {
	"about", "approximately", "approx.", "approx", "around", "roughly", "circa",
	"ca.", "ca", "scant", "heaping", "heaped", "generous", "rounded", "~",
};

/* U+2010 to U+2015 and U+2212 all look like a hyphen to a cook */
static const char *const dashes[] = {
	"-", "\xE2\x80\x90", "\xE2\x80\x91", "\xE2\x80\x92", "\xE2\x80\x93",
	"\xE2\x80\x94", "\xE2\x80\x95", "\xE2\x88\x92",
};

/* no-break, thin, narrow no-break and the other typographic spaces */
static const char *const wide_spaces[] = {
	"\xC2\xA0", "\xE2\x80\x82", "\xE2\x80\x83", "\xE2\x80\x84", "\xE2\x80\x85",
	"\xE2\x80\x86", "\xE2\x80\x87", "\xE2\x80\x88", "\xE2\x80\x89",
	"\xE2\x80\x8A", "\xE2\x80\xAF",
};

/* what lists copied from web pages start their lines with */
static const char *const bullets[] = {
	"*", "-", "\xC2\xB7", "\xE2\x80\xA2", "\xE2\x80\x93", "\xE2\x96\xA1", "\xE2\x96\xA2",
	"\xE2\x96\xAA", "\xE2\x98\x90",
};

#define LENGTH_OF(array) (sizeof(array) / sizeof((array)[0]))

static int64_t
gcd64(int64_t a, int64_t b)
{
	while (b != 0)
	{
		int64_t		r = a % b;

		a = b;
		b = r;
	}
	return a;
}

static MpRational
rational(int64_t num, int64_t den)
{
	int64_t		g = gcd64(num, den);

	return g > 1 ? (MpRational) {num / g, den / g} : (MpRational) {num, den};
}

static MpRational
rational_add(MpRational a, MpRational b)
{
	return rational(a.num * b.den + b.num * a.den, a.den * b.den);
}

static bool
rational_less(MpRational a, MpRational b)
{
	return a.num * b.den < b.num * a.den;
}

static bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* Letters of any script count: every byte above ASCII belongs to a word here. */
static bool
is_word(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (unsigned char) c >= 0x80;
}

static char
peek(const Scanner *s, size_t ahead)
{
	return s->at + ahead < s->len ? s->text[s->at + ahead] : '\0';
}

static bool
take(Scanner *s, const char *token)
{
	size_t		n = strlen(token);

	if (s->len - s->at < n || memcmp(s->text + s->at, token, n) != 0)
		return false;
	s->at += n;
	return true;
}

static bool
take_any(Scanner *s, const char *const *tokens, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (take(s, tokens[i]))
			return true;
	return false;
}

static void
skip_spaces(Scanner *s)
{
	for (;;)
	{
		char		c = peek(s, 0);

		if (c == ' ' || c == '\t' || c == '\r' || c == '\n')
			s->at++;
		else if (!take_any(s, wide_spaces, LENGTH_OF(wide_spaces)))
			return;
	}
}

/* A whole word in any letter case; what follows it must not be a letter. */
static bool
take_word(Scanner *s, const char *word)
{
	size_t		n = strlen(word);

	if (s->len - s->at < n)
		return false;
	for (size_t i = 0; i < n; i++)
	{
		char		c = s->text[s->at + i];

		if (c >= 'A' && c <= 'Z')
			c = (char) (c - 'A' + 'a');
		if (c != word[i])
			return false;
	}
	if (is_word(word[n - 1]))
	{
		Scanner		after = {s->text, s->len, s->at + n};
		char		next = peek(&after, 0);

		/* "an" must not be taken from "and", nor "a" from "a's" or "a-frame" */
		if (next == '\'' || next == '-' || is_digit(next))
			return false;
		if (is_word(next) && !take_any(&after, wide_spaces, LENGTH_OF(wide_spaces)))
			return false;
	}
	s->at += n;
	return true;
}

static bool
take_fraction_char(Scanner *s, MpRational *value)
{
	for (size_t i = 0; i < LENGTH_OF(fraction_chars); i++)
		if (take(s, fraction_chars[i].utf8))
		{
			*value = (MpRational) {fraction_chars[i].num, fraction_chars[i].den};
			return true;
		}
	return false;
}

static bool
take_digits(Scanner *s, int64_t *value)
{
	size_t		start = s->at;

	*value = 0;
	while (is_digit(peek(s, 0)))
	{
		if (s->at - start == MAX_WHOLE_DIGITS)
		{
			s->at = start;
			return false;
		}
		*value = *value * 10 + (peek(s, 0) - '0');
		s->at++;
	}
	return s->at > start;
}

/* "/ 4" after a numerator; U+2044 is the fraction slash. A zero below is no fraction. */
static bool
take_denominator(Scanner *s, int64_t *den)
{
	Scanner		ahead = *s;

	skip_spaces(&ahead);
	if (!take(&ahead, "/") && !take(&ahead, "\xE2\x81\x84"))
		return false;
	skip_spaces(&ahead);
	if (!take_digits(&ahead, den) || *den == 0)
		return false;
	*s = ahead;
	return true;
}

/* "1/2" or one fraction character; not "3 1/2" */
static bool
take_fraction(Scanner *s, MpRational *value)
{
	Scanner		ahead = *s;
	int64_t		num;
	int64_t		den;

	if (take_fraction_char(s, value))
		return true;
	if (!take_digits(&ahead, &num) || !take_denominator(&ahead, &den))
		return false;
	*value = rational(num, den);
	*s = ahead;
	return true;
}

/*
 * A comma is decimal as in "1,5", but "1,500" is fifteen hundred: three digits
 * after one to three that do not start with zero are a group of thousands.
 */
static bool
is_thousands_group(const Scanner *s, int64_t whole)
{
	return whole > 0 && whole < 1000 && peek(s, 0) == ',' && is_digit(peek(s, 1)) &&
		is_digit(peek(s, 2)) && is_digit(peek(s, 3)) && !is_digit(peek(s, 4));
}

static bool
take_decimals(Scanner *s, MpRational *value)
{
	char		mark = peek(s, 0);
	int64_t		num = value->num;
	int64_t		den = 1;
	size_t		start = s->at;

	if ((mark != '.' && mark != ',') || !is_digit(peek(s, 1)))
		return true;
	if (is_thousands_group(s, num))
	{
		s->at++;
		for (int i = 0; i < 3; i++, s->at++)
			num = num * 10 + (peek(s, 0) - '0');
		*value = (MpRational) {num, 1};
		return true;
	}
	s->at++;
	while (is_digit(peek(s, 0)))
	{
		if (s->at - start > MAX_DECIMALS)
			return false;
		num = num * 10 + (peek(s, 0) - '0');
		den *= 10;
		s->at++;
	}
	*value = rational(num, den);
	return true;
}

static NumberShape
take_figures(Scanner *s, MpRational *value)
{
	Scanner		ahead = *s;
	Scanner		tail;
	MpRational	part;
	int64_t		whole = 0;
	bool		point = peek(&ahead, 0) == '.' && is_digit(peek(&ahead, 1));

	if (take_fraction(s, value))
		return NUMBER_FRACTION;
	if (!point && !take_digits(&ahead, &whole))
		return NUMBER_NONE;
	*value = (MpRational) {whole, 1};
	tail = ahead;
	if (!take_decimals(&ahead, value))
		return NUMBER_NONE;
	if (ahead.at != tail.at)
	{
		*s = ahead;
		return NUMBER_OTHER;
	}
	*s = ahead;

	/* "1 1/2", "1½", "1-1/2": only a proper fraction belongs to the whole */
	skip_spaces(&tail);
	if (take_any(&tail, dashes, LENGTH_OF(dashes)) || take_word(&tail, "and"))
		skip_spaces(&tail);
	if (take_fraction(&tail, &part) && part.num < part.den)
	{
		*value = rational_add(*value, part);
		*s = tail;
		return NUMBER_OTHER;
	}
	/* "1/0" and a number too long for a denominator are no amounts */
	return peek(s, 0) == '/' && is_digit(peek(s, 1)) ? NUMBER_NONE : NUMBER_WHOLE;
}

static NumberShape
take_number(Scanner *s, MpRational *value)
{
	Scanner		figures = *s;
	NumberShape shape = take_figures(&figures, value);

	if (shape != NUMBER_NONE)
	{
		/* "2% milk" names the food */
		if (peek(&figures, 0) == '%')
			return NUMBER_NONE;
		*s = figures;
		return shape;
	}
	for (size_t i = 0; i < LENGTH_OF(number_words); i++)
	{
		Scanner		ahead = *s;
		Scanner		next;
		bool		article = i < 2;

		if (!take_word(&ahead, number_words[i].word))
			continue;
		*value = (MpRational) {number_words[i].num, number_words[i].den};
		next = ahead;
		skip_spaces(&next);
		/* "a few sprigs", "a little oil": an article before no number at all */
		if (article && (take_word(&next, "few") || take_word(&next, "little") ||
						take_word(&next, "couple") || take_word(&next, "bit")))
			return NUMBER_NONE;
		if (article && (take_word(&next, "half") || take_word(&next, "quarter") ||
						take_word(&next, "dozen")))
		{
			*value = (next.text[next.at - 1] | 0x20) == 'f' ? (MpRational) {1, 2} :
				(next.text[next.at - 1] | 0x20) == 'r' ? (MpRational) {1, 4} :
				(MpRational) {12, 1};
			ahead = next;
		}
		else if (value->den > 1 && (take_word(&next, "a") || take_word(&next, "an")))
			ahead = next;		/* "half a lemon" */
		*s = ahead;
		return NUMBER_OTHER;
	}
	return NUMBER_NONE;
}

/* "x 400" in "2 x 400 g"; the x of "2 xl eggs" is part of a word */
static bool
take_times(Scanner *s)
{
	Scanner		ahead = *s;
	Scanner		after;

	skip_spaces(&ahead);
	if (!take(&ahead, "x") && !take(&ahead, "X") && !take(&ahead, "\xC3\x97") &&
		!take(&ahead, "*"))
		return false;
	skip_spaces(&ahead);
	after = ahead;
	if (!is_digit(peek(&after, 0)))
	{
		MpRational	ignored;

		if (!take_fraction_char(&after, &ignored))
			return false;
	}
	*s = ahead;
	return true;
}

static bool
take_range(Scanner *s, MpQuantity *q)
{
	Scanner		ahead = *s;
	MpRational	high;

	skip_spaces(&ahead);
	if (!take_any(&ahead, dashes, LENGTH_OF(dashes)) && !take_word(&ahead, "to") &&
		!take_word(&ahead, "or"))
		return false;
	skip_spaces(&ahead);
	if (take_figures(&ahead, &high) == NUMBER_NONE || high.num == 0)
		return false;
	if (rational_less(high, q->low))
	{
		q->high = q->low;
		q->low = high;
	}
	else
		q->high = high;
	*s = ahead;
	return true;
}

void
mp_quantity_parse(const char *line, size_t len, MpQuantity *result)
{
	Scanner		s = {line, len, 0};
	Scanner		start;

	memset(result, 0, sizeof(*result));
	result->low.den = result->high.den = result->each.den = 1;
	do
		skip_spaces(&s);
	while (take_any(&s, bullets, LENGTH_OF(bullets)));
	start = s;
	for (size_t i = 0; i < LENGTH_OF(approximate_words); i++)
		if (take_word(&s, approximate_words[i]))
		{
			result->approximate = true;
			skip_spaces(&s);
			break;
		}
	if (take_number(&s, &result->low) == NUMBER_NONE || result->low.num == 0)
	{
		result->low = (MpRational) {0, 1};
		result->approximate = false;
		result->rest = start.at;
		return;
	}
	result->present = true;
	result->high = result->low;
	(void) take_range(&s, result);
	{
		Scanner		times = s;

		if (take_times(&times) && take_figures(&times, &result->each) != NUMBER_NONE &&
			result->each.num > 0)
		{
			result->has_each = true;
			s = times;
		}
		else
			result->each = (MpRational) {0, 1};
	}
	skip_spaces(&s);
	/* "1-inch piece", "14-ounce can": the hyphen ties the number to its unit */
	if (take_any(&s, dashes, LENGTH_OF(dashes)))
		skip_spaces(&s);
	result->rest = s.at;
}
