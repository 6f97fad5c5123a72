/*
 * pattern_compile.c
 *		From the JSON of an event pattern to its compiled form: the tree of
 *		objects, its leaves, and the path in an error.
 *
 * Each container is walked twice: once to count its members, so that the arena
 * is asked for exact sizes, and once to compile them.
 */
#include <stdio.h>
#include <string.h>

#include "pattern_compile.h"

/* The fields around an object, from the innermost outwards. */
typedef struct Chain
{
	const struct Chain *outer;
	const MpField *field;
} Chain;

/* The surroundings of an object of the pattern. */
typedef struct Scope
{
	const Chain *chain;			/* NULL at the root */
	int			depth;			/* the length of the chain */
	int			level;			/* of objects, $or branches included */
	bool		in_choice;
} Scope;

/* What the visitors of an object and of a $or carry. */
typedef struct Build
{
	const MpCompiler *compiler;
	const MpPlace *place;
	const Scope *scope;
	MpNode	   *node;
	MpChoice   *choice;
} Build;

/* What the visitor of a leaf carries. */
typedef struct LeafBuild
{
	const MpCompiler *compiler;
	const MpPlace *place;
	MpLeaf	   *leaf;
} LeafBuild;

typedef struct PathWriter
{
	char	   *text;
	size_t		size;
	size_t		used;
	bool		full;
} PathWriter;

static bool compile_node(const MpCompiler *c, const MpJson *value,
						 const MpPlace *place, const Scope *scope, MpNode *node);

/* Takes zeroed memory from the arena. */
void *
mp_compiler_alloc(const MpCompiler *c, size_t count, size_t size)
{
	/* the pattern is in memory already, so that the product cannot overflow */
	size_t		bytes = count == 0 ? 1 : count * size;

	return memset(c->arena->alloc(c->arena->context, bytes), 0, bytes);
}

MpBytes
mp_compiler_copy(const MpCompiler *c, const char *text, size_t len)
{
	char	   *copy = mp_compiler_alloc(c, len + 1, 1);

	if (len > 0)
		memcpy(copy, text, len);
	return (MpBytes) {.text = copy,.len = len};
}

/*
 * Appends to a path.  One that does not fit ends in dots, which there is always
 * room for; no UTF-8 sequence is cut in two, for the path becomes part of a
 * message.
 */
static void
path_append(PathWriter *w, const char *text, size_t len)
{
	static const char dots[] = "...";
	size_t		room = w->size - w->used - sizeof(dots);

	if (w->full)
		return;
	if (len > room)
	{
		w->full = true;
		len = room;
		while (len > 0 && ((unsigned char) text[len] & 0xC0) == 0x80)
			len--;
	}
	memcpy(w->text + w->used, text, len);
	w->used += len;
	memcpy(w->text + w->used, w->full ? dots : "", w->full ? sizeof(dots) : 1);
}

static bool
is_plain_key(const char *key, size_t len)
{
	for (size_t i = 0; i < len; i++)
	{
		char		c = key[i];

		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
			  (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '$'))
			return false;
	}
	return len > 0;
}

/* A key as .key, or where that would be ambiguous as ["key"]. */
static void
path_append_key(PathWriter *w, const char *key, size_t len)
{
	size_t		start = 0;

	if (is_plain_key(key, len))
	{
		path_append(w, ".", 1);
		path_append(w, key, len);
		return;
	}
	path_append(w, "[\"", 2);
	for (size_t i = 0; i < len; i++)
	{
		unsigned char c = (unsigned char) key[i];
		char		escape[8];

		if (c >= 0x20 && c != '"' && c != '\\' && c != 0x7F)
			continue;
		if (i > start)
			path_append(w, key + start, i - start);
		start = i + 1;
		if (c == '"' || c == '\\')
			snprintf(escape, sizeof(escape), "\\%c", c);
		else
			snprintf(escape, sizeof(escape), "\\u%04x", c);
		path_append(w, escape, strlen(escape));
	}
	if (len > start)
		path_append(w, key + start, len - start);
	path_append(w, "\"]", 2);
}

/* Recursion is bounded by the depth that patterns may have. */
static void
path_write(PathWriter *w, const MpPlace *place)
{
	char		index[32];

	if (place->outer == NULL)
	{
		path_append(w, "$", 1);
		return;
	}
	path_write(w, place->outer);
	if (place->key != NULL)
	{
		path_append_key(w, place->key, place->key_len);
		return;
	}
	snprintf(index, sizeof(index), "[%zu]", place->index);
	path_append(w, index, strlen(index));
}

/* Fills the error in; always false, to be returned. */
bool
mp_compiler_fail(const MpCompiler *c, const MpPlace *place, const char *message)
{
	PathWriter	writer = {.text = c->error->path,.size = sizeof(c->error->path)};

	path_write(&writer, place);
	snprintf(c->error->message, sizeof(c->error->message), "%s", message);
	return false;
}

bool
mp_key_is(const char *key, size_t len, const char *name)
{
	return len == strlen(name) && memcmp(key, name, len) == 0;
}

static bool
visit_count(const char *key, size_t key_len, const MpJson *value, void *context)
{
	(void) key;
	(void) key_len;
	(void) value;
	(*(size_t *) context)++;
	return true;
}

size_t
mp_compiler_count(const MpCompiler *c, const MpJson *container)
{
	size_t		count = 0;

	(void) c->reader->each(container, visit_count, &count);
	return count;
}

static bool
visit_test(const char *key, size_t key_len, const MpJson *value, void *context)
{
	LeafBuild  *build = context;
	MpTest	   *test = &build->leaf->tests[build->leaf->ntests];
	MpPlace		place = {.outer = build->place,.index = build->leaf->ntests};

	(void) key;
	(void) key_len;
	if (!mp_compile_test(build->compiler, value, &place, test))
		return false;
	if (test->kind == MP_TEST_MISSING)
		build->leaf->may_be_missing = true;
	build->leaf->ntests++;
	return true;
}

/* Gathers a top-level leaf's strings for mp_pattern_literals. */
static void
collect_literals(const MpCompiler *c, MpLeaf *leaf)
{
	const char **literals;
	size_t	   *lengths;

	for (size_t i = 0; i < leaf->ntests; i++)
	{
		if (leaf->tests[i].kind != MP_TEST_STRING)
			return;
	}
	literals = mp_compiler_alloc(c, leaf->ntests, sizeof(*literals));
	lengths = mp_compiler_alloc(c, leaf->ntests, sizeof(*lengths));
	for (size_t i = 0; i < leaf->ntests; i++)
	{
		literals[i] = leaf->tests[i].u.string.text;
		lengths[i] = leaf->tests[i].u.string.len;
	}
	leaf->literals = literals;
	leaf->literal_lengths = lengths;
}

static bool
compile_leaf(const MpCompiler *c, const MpJson *value, const MpPlace *place,
			 const Chain *chain, int depth, MpLeaf *leaf)
{
	LeafBuild	build = {.compiler = c,.place = place,.leaf = leaf};
	size_t		count = mp_compiler_count(c, value);

	if (count == 0)
		return mp_compiler_fail(c, place, "a list of values must not be empty");
	leaf->tests = mp_compiler_alloc(c, count, sizeof(MpTest));
	if (!c->reader->each(value, visit_test, &build))
		return false;

	if (leaf->may_be_missing)
	{
		MpBytes    *path = mp_compiler_alloc(c, (size_t) depth, sizeof(MpBytes));

		leaf->path = path;
		leaf->path_length = depth;
		for (int i = depth - 1; i >= 0; i--, chain = chain->outer)
			path[i] = chain->field->key;
	}
	if (depth == 1)
		collect_literals(c, leaf);
	return true;
}

static bool
visit_branch(const char *key, size_t key_len, const MpJson *value, void *context)
{
	Build	   *build = context;
	MpChoice   *choice = build->choice;
	MpPlace		place = {.outer = build->place,.index = choice->nbranches};
	Scope		scope = *build->scope;

	(void) key;
	(void) key_len;
	scope.level++;
	scope.in_choice = true;
	if (!compile_node(build->compiler, value, &place, &scope,
					  &choice->branches[choice->nbranches]))
		return false;
	choice->nbranches++;
	return true;
}

static bool
compile_choice(const MpCompiler *c, const MpJson *value, const MpPlace *place,
			   const Scope *scope, MpChoice *choice)
{
	Build		build = {.compiler = c,.place = place,.scope = scope,
	.choice = choice};
	size_t		count = mp_compiler_count(c, value);

	if (count < 2)
		return mp_compiler_fail(c, place, "$or must have at least two objects");
	choice->branches = mp_compiler_alloc(c, count, sizeof(MpNode));
	return c->reader->each(value, visit_branch, &build);
}

/* Is the member a $or?  With an object as its value it is a field. */
static bool
is_choice(const char *key, size_t key_len, const MpJson *value)
{
	return value->kind == MP_JSON_ARRAY && mp_key_is(key, key_len, "$or");
}

static bool
visit_choice_count(const char *key, size_t key_len, const MpJson *value,
				   void *context)
{
	if (is_choice(key, key_len, value))
		(*(size_t *) context)++;
	return true;
}

static bool
visit_member(const char *key, size_t key_len, const MpJson *value, void *context)
{
	Build	   *build = context;
	const MpCompiler *c = build->compiler;
	const Scope *scope = build->scope;
	MpNode	   *node = build->node;
	MpPlace		place = {.outer = build->place,.key = key,.key_len = key_len};
	MpField    *field;
	Chain		chain;

	if (is_choice(key, key_len, value))
	{
		return compile_choice(c, value, &place, scope,
							  &node->choices[node->nchoices++]);
	}
	if (scope->in_choice && mp_is_matcher_name(key, key_len))
		return mp_compiler_fail(c, &place, "the name of a matcher cannot be a field within $or");

	field = &node->fields[node->nfields++];
	field->key = mp_compiler_copy(c, key, key_len);
	chain = (Chain) {.outer = scope->chain,.field = field};
	if (value->kind == MP_JSON_ARRAY)
	{
		field->leaf = mp_compiler_alloc(c, 1, sizeof(MpLeaf));
		return compile_leaf(c, value, &place, &chain, scope->depth + 1, field->leaf);
	}
	if (value->kind == MP_JSON_OBJECT)
	{
		Scope		inner = {.chain = &chain,.depth = scope->depth + 1,
		.level = scope->level + 1,.in_choice = scope->in_choice};

		field->node = mp_compiler_alloc(c, 1, sizeof(MpNode));
		return compile_node(c, value, &place, &inner, field->node);
	}
	return mp_compiler_fail(c, &place, "must be a list of values or an object");
}

/* Would the object match where the event has none of its fields? */
static bool
node_may_be_missing(const MpNode *node)
{
	for (size_t i = 0; i < node->nfields; i++)
	{
		const MpField *field = &node->fields[i];

		if (!(field->leaf != NULL ? field->leaf->may_be_missing
			  : field->node->may_be_missing))
			return false;
	}
	for (size_t i = 0; i < node->nchoices; i++)
	{
		const MpChoice *choice = &node->choices[i];
		bool		any = false;

		for (size_t j = 0; j < choice->nbranches && !any; j++)
			any = choice->branches[j].may_be_missing;
		if (!any)
			return false;
	}
	return true;
}

static bool
compile_node(const MpCompiler *c, const MpJson *value, const MpPlace *place,
			 const Scope *scope, MpNode *node)
{
	Build		build = {.compiler = c,.place = place,.scope = scope,
	.node = node};
	size_t		count;
	size_t		nchoices = 0;

	if (c->reader->guard != NULL)
		c->reader->guard();
	if (value->kind != MP_JSON_OBJECT)
		return mp_compiler_fail(c, place, scope->in_choice
								? "must be an object"
								: "a pattern must be an object");
	if (scope->level > MP_PATTERN_MAX_DEPTH)
		return mp_compiler_fail(c, place, "a pattern must not be nested deeper than 64 levels");
	count = mp_compiler_count(c, value);
	if (count == 0)
		return mp_compiler_fail(c, place, "an object must not be empty");
	(void) c->reader->each(value, visit_choice_count, &nchoices);

	node->depth = scope->depth;
	node->choices = mp_compiler_alloc(c, nchoices, sizeof(MpChoice));
	node->fields = mp_compiler_alloc(c, count - nchoices, sizeof(MpField));
	if (!c->reader->each(value, visit_member, &build))
		return false;
	node->may_be_missing = node_may_be_missing(node);
	return true;
}

const MpPattern *
mp_pattern_compile(const MpJsonReader *reader, const MpJson *root,
				   MpArena *arena, MpPatternError *error)
{
	MpCompiler	compiler = {.reader = reader,.arena = arena,.error = error};
	MpPlace		place = {0};
	Scope		scope = {.level = 1};
	MpPattern  *pattern = mp_compiler_alloc(&compiler, 1, sizeof(MpPattern));

	if (!compile_node(&compiler, root, &place, &scope, &pattern->root))
		return NULL;
	return pattern;
}
