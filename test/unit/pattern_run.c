/*
 * pattern_run.c
 *		Runs of a pattern on an event, both given as JSON text.
 */
#include <stdio.h>
#include <string.h>

#include "pattern_run.h"

const char *const outcome_names[] = {"false", "true", "badpattern", "unreadable"};

const MpPattern *
compile_tree(const JsonTree *tree, TestArena *arena, MpPatternError *error)
{
	MpJson		root = json_tree_root(tree);

	memset(error, 'x', sizeof(*error));
	return mp_pattern_compile(&json_tree_reader, &root, &arena->arena, error);
}

Outcome
run(const char *pattern, const char *event, MpPatternError *error)
{
	JsonTree   *pattern_tree = json_tree_parse(pattern, strlen(pattern));
	JsonTree   *event_tree = json_tree_parse(event, strlen(event));
	TestArena	arena;
	Outcome		outcome = UNREADABLE;

	test_arena_init(&arena);
	if (pattern_tree != NULL && event_tree != NULL)
	{
		const MpPattern *compiled = compile_tree(pattern_tree, &arena, error);

		/* the compiled form must not need the tree it was made from */
		json_tree_free(pattern_tree);
		pattern_tree = NULL;
		if (compiled == NULL)
			outcome = INVALID;
		else
		{
			MpJson		root = json_tree_root(event_tree);

			outcome = mp_pattern_match(compiled, &json_tree_reader, &root) ? YES : NO;
		}
	}
	test_arena_free(&arena);
	json_tree_free(pattern_tree);
	json_tree_free(event_tree);
	return outcome;
}

const char *
first_mismatch(const Case *cases, size_t ncases)
{
	static char message[1024];

	for (size_t i = 0; i < ncases; i++)
	{
		MpPatternError error;
		Outcome		outcome = run(cases[i].pattern, cases[i].event, &error);

		if (outcome == cases[i].expected)
			continue;
		snprintf(message, sizeof(message), "%s on %s: %s instead of %s (%s: %s)",
				 cases[i].pattern, cases[i].event, outcome_names[outcome],
				 outcome_names[cases[i].expected],
				 outcome == INVALID ? error.path : "",
				 outcome == INVALID ? error.message : "");
		return message;
	}
	return NULL;
}
