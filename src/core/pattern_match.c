/*
 * pattern_match.c
 *		Matching an event against a compiled pattern.
 *
 * A match assigns to each leaf of the pattern either a leaf of the event that
 * satisfies it, or the absence of any; leaves of one sub-pattern come from one
 * element of each array they lie in.  Hence the three verdicts: a sub-pattern
 * is found (at least one of its leaves is satisfied by a leaf of the event, so
 * that it chooses the array element it was found in), missing (all it asks for
 * is absence, and there is no leaf that says otherwise), or refused.
 */
#include <string.h>

#include "pattern_internal.h"

typedef enum Verdict
{
	REFUSED,
	MISSING,
	FOUND
} Verdict;

/* What the visitors of arrays carry. */
typedef struct Walk
{
	const MpJsonReader *reader;
	const MpNode *node;			/* either this */
	const MpLeaf *leaf;			/* or this is looked for */
	bool		any_leaf;		/* out: there was a scalar or a null */
} Walk;

typedef struct PathWalk
{
	const MpJsonReader *reader;
	const MpBytes *path;
	int			path_length;
} PathWalk;

static Verdict match_object(const MpJsonReader *reader, const MpNode *node,
							const MpJson *object);

static void
guard(const MpJsonReader *reader)
{
	if (reader->guard != NULL)
		reader->guard();
}

static bool
is_leaf(const MpJson *value)
{
	return value->kind != MP_JSON_ABSENT && value->kind != MP_JSON_ARRAY &&
		value->kind != MP_JSON_OBJECT;
}

static bool
bytes_equal(const MpBytes *bytes, const char *text)
{
	return bytes->len == 0 || memcmp(bytes->text, text, bytes->len) == 0;
}

/* Does a string satisfy a test that only strings can satisfy? */
static bool
test_string(const MpTest *test, const char *text, size_t len)
{
	switch (test->kind)
	{
		case MP_TEST_STRING:
			return len == test->u.string.len && bytes_equal(&test->u.string, text);
		case MP_TEST_PREFIX:
			return len >= test->u.string.len && bytes_equal(&test->u.string, text);
		case MP_TEST_SUFFIX:
			return len >= test->u.string.len &&
				(len == 0 ||
				 bytes_equal(&test->u.string, text + (len - test->u.string.len)));
		case MP_TEST_FOLDED:
			return mp_folded_equal(&test->u.folded, text, len);
		case MP_TEST_FOLDED_PREFIX:
			return mp_folded_prefix(&test->u.folded, text, len);
		case MP_TEST_FOLDED_SUFFIX:
			return mp_folded_suffix(&test->u.folded, text, len);
		case MP_TEST_WILDCARD:
			return mp_wildcard_match(&test->u.wildcard, text, len);
		case MP_TEST_CIDR:
			return mp_cidr_contains(&test->u.cidr, text, len);
		default:
			return false;
	}
}

/* Does a leaf of the event satisfy the test? */
static bool
test_leaf(const MpTest *test, const MpJson *value)
{
	switch (test->kind)
	{
		case MP_TEST_MISSING:
			return false;
		case MP_TEST_PRESENT:
			return true;
		case MP_TEST_NULL:
			return value->kind == MP_JSON_NULL;
		case MP_TEST_BOOL:
			return value->kind == MP_JSON_BOOL && value->boolean == test->u.boolean;
		case MP_TEST_NUMBER:
			return value->kind == MP_JSON_NUMBER &&
				mp_decimal_equal_text(&test->u.number, value->text, value->len);
		case MP_TEST_RANGE:
			return value->kind == MP_JSON_NUMBER &&
				mp_range_contains(&test->u.range, value->text, value->len);
		case MP_TEST_ANYTHING_BUT:
			/* its tests are plain ones: no deeper than this one call */
			for (size_t i = 0; i < test->u.excluded.ntests; i++)
			{
				if (test_leaf(&test->u.excluded.tests[i], value))
					return false;
			}
			return true;
		default:
			return value->kind == MP_JSON_STRING &&
				test_string(test, value->text, value->len);
	}
}

/* Visitor: goes on until a leaf within the value satisfies the pattern's. */
static bool
visit_leaves(const char *key, size_t key_len, const MpJson *value, void *context)
{
	Walk	   *walk = context;

	(void) key;
	(void) key_len;
	if (value->kind == MP_JSON_ARRAY)
	{
		guard(walk->reader);
		return walk->reader->each(value, visit_leaves, walk);
	}
	if (!is_leaf(value))
		return true;
	walk->any_leaf = true;
	for (size_t i = 0; i < walk->leaf->ntests; i++)
	{
		if (test_leaf(&walk->leaf->tests[i], value))
			return false;
	}
	return true;
}

static Verdict
match_leaf(const MpJsonReader *reader, const MpLeaf *leaf, const MpJson *value)
{
	Walk		walk = {.reader = reader,.leaf = leaf};

	if (!visit_leaves(NULL, 0, value, &walk))
		return FOUND;
	return leaf->may_be_missing && !walk.any_leaf ? MISSING : REFUSED;
}

/* Visitor: goes on while there is no leaf at the rest of the path. */
static bool
visit_path(const char *key, size_t key_len, const MpJson *value, void *context)
{
	PathWalk   *walk = context;

	(void) key;
	(void) key_len;
	if (value->kind == MP_JSON_ARRAY)
	{
		guard(walk->reader);
		return walk->reader->each(value, visit_path, walk);
	}
	if (walk->path_length == 0)
		return !is_leaf(value);
	if (value->kind == MP_JSON_OBJECT)
	{
		PathWalk	deeper = {.reader = walk->reader,.path = walk->path + 1,
		.path_length = walk->path_length - 1};
		MpJson		member = walk->reader->field(value, walk->path->text,
												 walk->path->len);

		guard(walk->reader);
		return visit_path(NULL, 0, &member, &deeper);
	}
	return true;
}

/*
 * Does the sub-pattern accept that none of its leaves is anywhere within the
 * value, and is that so?  The value stands at the given depth; it is the same
 * for the whole sub-pattern, because a branch of $or must be missing from all
 * array elements at once, not a different branch from each.
 */
static bool
node_missing(const MpJsonReader *reader, const MpNode *node,
			 const MpJson *value, int depth)
{
	if (!node->may_be_missing)
		return false;
	guard(reader);
	for (size_t i = 0; i < node->nfields; i++)
	{
		const MpField *field = &node->fields[i];
		const MpLeaf *leaf = field->leaf;

		if (leaf != NULL)
		{
			PathWalk	walk = {.reader = reader,.path = leaf->path + depth,
			.path_length = leaf->path_length - depth};

			if (!visit_path(NULL, 0, value, &walk))
				return false;
		}
		else if (!node_missing(reader, field->node, value, depth))
			return false;
	}
	for (size_t i = 0; i < node->nchoices; i++)
	{
		const MpChoice *choice = &node->choices[i];
		bool		any = false;

		for (size_t j = 0; j < choice->nbranches && !any; j++)
			any = node_missing(reader, &choice->branches[j], value, depth);
		if (!any)
			return false;
	}
	return true;
}

/* Visitor: goes on until the sub-pattern is found in an element. */
static bool
visit_elements(const char *key, size_t key_len, const MpJson *value, void *context)
{
	Walk	   *walk = context;

	(void) key;
	(void) key_len;
	if (value->kind == MP_JSON_ARRAY)
	{
		guard(walk->reader);
		return walk->reader->each(value, visit_elements, walk);
	}
	return value->kind != MP_JSON_OBJECT ||
		match_object(walk->reader, walk->node, value) != FOUND;
}

static Verdict
match_node(const MpJsonReader *reader, const MpNode *node, const MpJson *value)
{
	if (value->kind == MP_JSON_OBJECT)
		return match_object(reader, node, value);
	if (value->kind == MP_JSON_ARRAY)
	{
		Walk		walk = {.reader = reader,.node = node};

		if (!visit_elements(NULL, 0, value, &walk))
			return FOUND;
	}
	return node_missing(reader, node, value, node->depth) ? MISSING : REFUSED;
}

static Verdict
match_choice(const MpJsonReader *reader, const MpChoice *choice,
			 const MpJson *object)
{
	Verdict		best = REFUSED;

	for (size_t i = 0; i < choice->nbranches && best != FOUND; i++)
	{
		Verdict		verdict = match_object(reader, &choice->branches[i], object);

		if (verdict > best)
			best = verdict;
	}
	return best;
}

static Verdict
match_object(const MpJsonReader *reader, const MpNode *node, const MpJson *object)
{
	Verdict		all = MISSING;

	guard(reader);
	for (size_t i = 0; i < node->nfields; i++)
	{
		const MpField *field = &node->fields[i];
		MpJson		value = reader->field(object, field->key.text, field->key.len);
		Verdict		verdict = field->leaf != NULL
			? match_leaf(reader, field->leaf, &value)
			: match_node(reader, field->node, &value);

		if (verdict == REFUSED)
			return REFUSED;
		if (verdict > all)
			all = verdict;
	}
	for (size_t i = 0; i < node->nchoices; i++)
	{
		Verdict		verdict = match_choice(reader, &node->choices[i], object);

		if (verdict == REFUSED)
			return REFUSED;
		if (verdict > all)
			all = verdict;
	}
	return all;
}

bool
mp_pattern_match(const MpPattern *pattern, const MpJsonReader *reader,
				 const MpJson *event)
{
	return event->kind == MP_JSON_OBJECT &&
		match_object(reader, &pattern->root, event) != REFUSED;
}

int
mp_pattern_literals(const MpPattern *pattern, const char *field,
					const char *const **literals, const size_t **lengths)
{
	size_t		len = strlen(field);

	for (size_t i = 0; i < pattern->root.nfields; i++)
	{
		const MpField *candidate = &pattern->root.fields[i];

		if (candidate->key.len == len && bytes_equal(&candidate->key, field) &&
			candidate->leaf != NULL && candidate->leaf->literals != NULL)
		{
			*literals = candidate->leaf->literals;
			*lengths = candidate->leaf->literal_lengths;
			return (int) candidate->leaf->ntests;
		}
	}
	return -1;
}
