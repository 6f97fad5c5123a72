/*
 * pattern_matcher.c
 *		Compiles the members of a leaf: literals and matcher objects.
 */
#include <string.h>

#include "pattern_compile.h"

/* The one member of a matcher object. */
typedef struct Only
{
	size_t		count;
	const char *key;
	size_t		key_len;
	MpJson		value;
} Only;

static bool
visit_only(const char *key, size_t key_len, const MpJson *value, void *context)
{
	Only	   *only = context;

	only->key = key;
	only->key_len = key_len;
	only->value = *value;
	return ++only->count < 2;
}

/* Finds the one member of an object, and its place. */
static bool
only_member(const MpCompiler *c, const MpJson *object, const MpPlace *place,
			Only *only, MpPlace *inner)
{
	*only = (Only) {0};
	(void) c->reader->each(object, visit_only, only);
	*inner = (MpPlace) {.outer = place,.key = only->key,.key_len = only->key_len};
	return only->count == 1 ||
		mp_compiler_fail(c, place, "a matcher must be an object of exactly one key");
}

/* A matcher that takes a string, within anything-but or alone. */
static bool
compile_string(const MpCompiler *c, MpTestKind kind, const MpJson *value,
			   const MpPlace *place, MpTest *test)
{
	const char *problem = NULL;

	test->kind = kind;
	if (value->kind != MP_JSON_STRING)
		return mp_compiler_fail(c, place, "must be a string");
	switch (kind)
	{
		case MP_TEST_FOLDED:
		case MP_TEST_FOLDED_PREFIX:
		case MP_TEST_FOLDED_SUFFIX:
			mp_folded_compile(value->text, value->len, c->arena, &test->u.folded);
			break;
		case MP_TEST_WILDCARD:
			problem = mp_wildcard_compile(value->text, value->len, c->arena,
										  &test->u.wildcard);
			break;
		case MP_TEST_CIDR:
			problem = mp_cidr_parse(value->text, value->len, &test->u.cidr);
			break;
		default:
			test->u.string = mp_compiler_copy(c, value->text, value->len);
			break;
	}
	return problem == NULL || mp_compiler_fail(c, place, problem);
}

/* prefix and suffix: a string, or {"equals-ignore-case": string}. */
static bool
compile_affix(const MpCompiler *c, MpTestKind plain, MpTestKind folded,
			  const MpJson *value, const MpPlace *place, MpTest *test)
{
	Only		only;
	MpPlace		inner;

	if (value->kind == MP_JSON_STRING)
		return compile_string(c, plain, value, place, test);
	if (value->kind != MP_JSON_OBJECT)
		return mp_compiler_fail(c, place, "must be a string or {\"equals-ignore-case\": string}");
	if (!only_member(c, value, place, &only, &inner))
		return false;
	if (!mp_key_is(only.key, only.key_len, "equals-ignore-case"))
		return mp_compiler_fail(c, &inner, "only equals-ignore-case may stand here");
	return compile_string(c, folded, &only.value, &inner, test);
}

/* The operands of numeric, gathered by one walk. */
typedef struct Operands
{
	size_t		count;
	MpJson		values[4];
} Operands;

static bool
visit_operand(const char *key, size_t key_len, const MpJson *value, void *context)
{
	Operands   *operands = context;

	(void) key;
	(void) key_len;
	if (operands->count < 4)
		operands->values[operands->count] = *value;
	return ++operands->count <= 4;
}

static bool
operand_number(const MpCompiler *c, const MpJson *value, const MpPlace *place,
			   MpDecimal *result)
{
	if (value->kind != MP_JSON_NUMBER)
		return mp_compiler_fail(c, place, "must be a number");
	mp_decimal_parse(value->text, value->len, result);
	return result->comparable ||
		mp_compiler_fail(c, place, "number cannot be compared without loss of precision");
}

static bool
compile_numeric(const MpCompiler *c, const MpJson *value, const MpPlace *place,
				MpTest *test)
{
	MpRange    *range = &test->u.range;
	Operands	operands = {0};

	test->kind = MP_TEST_RANGE;
	*range = (MpRange) {0};
	if (value->kind != MP_JSON_ARRAY)
		return mp_compiler_fail(c, place, "must be an array");
	(void) c->reader->each(value, visit_operand, &operands);
	if (operands.count != 2 && operands.count != 4)
		return mp_compiler_fail(c, place, "must have one or two pairs of operator and number");

	for (size_t i = 0; i < operands.count; i += 2)
	{
		const MpJson *op = &operands.values[i];
		MpPlace		op_place = {.outer = place,.index = i};
		MpPlace		number_place = {.outer = place,.index = i + 1};
		bool		low;
		bool		high;
		bool		inclusive;
		MpDecimal	number;

		if (op->kind != MP_JSON_STRING)
			return mp_compiler_fail(c, &op_place, "must be one of = < <= > >=");
		inclusive = op->len > 0 && op->text[op->len - 1] == '=';
		low = mp_key_is(op->text, op->len, ">") || mp_key_is(op->text, op->len, ">=");
		high = mp_key_is(op->text, op->len, "<") || mp_key_is(op->text, op->len, "<=");
		if (mp_key_is(op->text, op->len, "="))
			low = high = true;
		if (!low && !high)
			return mp_compiler_fail(c, &op_place, "must be one of = < <= > >=");
		if (operands.count == 4 && i == 0 && (!low || high))
			return mp_compiler_fail(c, &op_place, "the first of two operators must be > or >=");
		if (operands.count == 4 && i == 2 && (low || !high))
			return mp_compiler_fail(c, &op_place, "the second of two operators must be < or <=");

		if (!operand_number(c, &operands.values[i + 1], &number_place, &number))
			return false;
		if (low)
		{
			range->has_low = true;
			range->low_inclusive = inclusive;
			range->low = number;
		}
		if (high)
		{
			range->has_high = true;
			range->high_inclusive = inclusive;
			range->high = number;
		}
	}
	if (operands.count == 4 && mp_decimal_compare(&range->low, &range->high) >= 0)
		return mp_compiler_fail(c, place, "the lower bound must be less than the upper bound");
	return true;
}

/* The values that anything-but excludes. */
typedef struct Exclusion
{
	const MpCompiler *compiler;
	const MpPlace *place;			/* of the list */
	MpTestKind	kind;			/* of each test; STRING means numbers as well */
	MpJsonKind	values;			/* of the list, set by its first */
	MpTest	   *tests;
	size_t		ntests;
} Exclusion;

static bool
compile_excluded(Exclusion *x, const MpJson *value, const MpPlace *place)
{
	const MpCompiler *c = x->compiler;
	MpTest	   *test = &x->tests[x->ntests++];

	if (x->kind == MP_TEST_STRING)
	{
		if (value->kind != MP_JSON_STRING && value->kind != MP_JSON_NUMBER)
			return mp_compiler_fail(c, place, "must be a string or a number");
		if (x->values != MP_JSON_ABSENT && x->values != value->kind)
			return mp_compiler_fail(c, place, "strings and numbers cannot be mixed in one list");
		x->values = value->kind;
	}
	if (value->kind == MP_JSON_NUMBER && x->kind == MP_TEST_STRING)
	{
		test->kind = MP_TEST_NUMBER;
		test->u.number.text = mp_compiler_copy(c, value->text, value->len);
		return operand_number(c, value, place, &test->u.number.value);
	}
	if ((x->kind == MP_TEST_PREFIX || x->kind == MP_TEST_SUFFIX) &&
		value->kind == MP_JSON_STRING && value->len == 0)
		return mp_compiler_fail(c, place, "an empty string would exclude every string");
	return compile_string(c, x->kind, value, place, test);
}

static bool
visit_excluded(const char *key, size_t key_len, const MpJson *value, void *context)
{
	Exclusion  *x = context;
	MpPlace		place = {.outer = x->place,.index = x->ntests};

	(void) key;
	(void) key_len;
	return compile_excluded(x, value, &place);
}

/* One value or a list of them, each a test of the given kind. */
static bool
compile_exclusion(const MpCompiler *c, MpTestKind kind, const MpJson *value,
				  const MpPlace *place, MpTest *test)
{
	Exclusion	x = {.compiler = c,.place = place,.kind = kind};
	size_t		count = value->kind == MP_JSON_ARRAY ? mp_compiler_count(c, value) : 1;

	if (count == 0)
		return mp_compiler_fail(c, place, "a list must not be empty");
	x.tests = mp_compiler_alloc(c, count, sizeof(MpTest));
	if (value->kind == MP_JSON_ARRAY)
	{
		if (!c->reader->each(value, visit_excluded, &x))
			return false;
	}
	else if (!compile_excluded(&x, value, place))
		return false;
	test->u.excluded.tests = x.tests;
	test->u.excluded.ntests = x.ntests;
	return true;
}

static bool
compile_anything_but(const MpCompiler *c, const MpJson *value, const MpPlace *place,
					 MpTest *test)
{
	static const struct
	{
		const char *name;
		MpTestKind	kind;
	}			forms[] =
	{
		{"prefix", MP_TEST_PREFIX},
		{"suffix", MP_TEST_SUFFIX},
		{"equals-ignore-case", MP_TEST_FOLDED},
		{"wildcard", MP_TEST_WILDCARD},
	};
	Only		only;
	MpPlace		inner;

	test->kind = MP_TEST_ANYTHING_BUT;
	if (value->kind != MP_JSON_OBJECT)
		return compile_exclusion(c, MP_TEST_STRING, value, place, test);
	if (!only_member(c, value, place, &only, &inner))
		return false;
	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++)
	{
		if (mp_key_is(only.key, only.key_len, forms[i].name))
			return compile_exclusion(c, forms[i].kind, &only.value, &inner, test);
	}
	return mp_compiler_fail(c, &inner, "anything-but knows only prefix, suffix, "
				"equals-ignore-case and wildcard");
}

typedef enum MatcherName
{
	NAME_PREFIX,
	NAME_SUFFIX,
	NAME_FOLDED,
	NAME_WILDCARD,
	NAME_NUMERIC,
	NAME_CIDR,
	NAME_EXISTS,
	NAME_ANYTHING_BUT,
	NAME_UNKNOWN
} MatcherName;

static MatcherName
matcher_name(const char *key, size_t len)
{
	static const char *const names[NAME_UNKNOWN] = {
		"prefix", "suffix", "equals-ignore-case", "wildcard",
		"numeric", "cidr", "exists", "anything-but"
	};

	for (int i = 0; i < NAME_UNKNOWN; i++)
	{
		if (mp_key_is(key, len, names[i]))
			return (MatcherName) i;
	}
	return NAME_UNKNOWN;
}

static bool
compile_matcher(const MpCompiler *c, const MpJson *object, const MpPlace *place,
				MpTest *test)
{
	Only		only;
	MpPlace		inner;
	const MpJson *value = &only.value;

	if (!only_member(c, object, place, &only, &inner))
		return false;
	switch (matcher_name(only.key, only.key_len))
	{
		case NAME_PREFIX:
			return compile_affix(c, MP_TEST_PREFIX, MP_TEST_FOLDED_PREFIX,
								 value, &inner, test);
		case NAME_SUFFIX:
			return compile_affix(c, MP_TEST_SUFFIX, MP_TEST_FOLDED_SUFFIX,
								 value, &inner, test);
		case NAME_FOLDED:
			return compile_string(c, MP_TEST_FOLDED, value, &inner, test);
		case NAME_WILDCARD:
			return compile_string(c, MP_TEST_WILDCARD, value, &inner, test);
		case NAME_NUMERIC:
			return compile_numeric(c, value, &inner, test);
		case NAME_CIDR:
			return compile_string(c, MP_TEST_CIDR, value, &inner, test);
		case NAME_EXISTS:
			if (value->kind != MP_JSON_BOOL)
				return mp_compiler_fail(c, &inner, "must be true or false");
			test->kind = value->boolean ? MP_TEST_PRESENT : MP_TEST_MISSING;
			return true;
		case NAME_ANYTHING_BUT:
			return compile_anything_but(c, value, &inner, test);
		case NAME_UNKNOWN:
			break;
	}
	return mp_compiler_fail(c, &inner, "unknown matcher");
}

/* Is it a word that names a matcher? */
bool
mp_is_matcher_name(const char *key, size_t len)
{
	return matcher_name(key, len) != NAME_UNKNOWN;
}

/* Compiles one member of a leaf. */
bool
mp_compile_test(const MpCompiler *c, const MpJson *value, const MpPlace *place,
				MpTest *test)
{
	switch (value->kind)
	{
		case MP_JSON_NULL:
			test->kind = MP_TEST_NULL;
			return true;
		case MP_JSON_BOOL:
			test->kind = MP_TEST_BOOL;
			test->u.boolean = value->boolean;
			return true;
		case MP_JSON_NUMBER:
			test->kind = MP_TEST_NUMBER;
			test->u.number.text = mp_compiler_copy(c, value->text, value->len);
			mp_decimal_parse(value->text, value->len, &test->u.number.value);
			return true;
		case MP_JSON_STRING:
			return compile_string(c, MP_TEST_STRING, value, place, test);
		case MP_JSON_OBJECT:
			return compile_matcher(c, value, place, test);
		case MP_JSON_ARRAY:
		case MP_JSON_ABSENT:
			break;
	}
	return mp_compiler_fail(c, place, "must be a string, a number, true, false, "
							"null or a matcher object");
}
