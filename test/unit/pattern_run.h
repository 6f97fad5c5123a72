/*
 * pattern_run.h
 *		Runs of a pattern on an event, both given as JSON text.
 */
#ifndef PATTERN_RUN_H
#define PATTERN_RUN_H

#include "core/pattern.h"
#include "json_tree.h"

typedef enum Outcome
{
	NO,
	YES,
	INVALID,					/* the pattern does not compile */
	UNREADABLE					/* the pattern or the event is not JSON */
} Outcome;

/* As the file of vectors names them. */
extern const char *const outcome_names[];

typedef struct Case
{
	const char *pattern;
	const char *event;
	Outcome		expected;
} Case;

extern const MpPattern *compile_tree(const JsonTree *tree, TestArena *arena,
									 MpPatternError *error);
extern Outcome run(const char *pattern, const char *event, MpPatternError *error);

/* What is wrong with the first case that is, or NULL. */
extern const char *first_mismatch(const Case *cases, size_t ncases);

/* A macro, because fuzzers link the .c file without cmocka. */
#define RUN(cases) \
	do { \
		const char *mismatch = first_mismatch(cases, sizeof(cases) / sizeof((cases)[0])); \
		if (mismatch != NULL) \
			fail_msg("%s", mismatch); \
	} while (0)

/* One leaf named a, on both sides, and the matchers in it. */
#define LEAF(tests) "{\"a\":[" tests "]}"
#define A(value) "{\"a\":" value "}"
#define NUMERIC(operands) LEAF("{\"numeric\":[" operands "]}")
#define WILDCARD(text) LEAF("{\"wildcard\":\"" text "\"}")
#define CIDR(text) LEAF("{\"cidr\":\"" text "\"}")
#define BUT(value) LEAF("{\"anything-but\":" value "}")

#endif							/* PATTERN_RUN_H */
