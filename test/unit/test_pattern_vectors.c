/*
 * Event patterns: cases that were run on event-ruler.
 *
 * MP_VECTORS names the file, one JSON object a line.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <jansson.h>

#include "pattern_run.h"

/*
 * The cases that event-ruler decided, and those of them that we decide
 * otherwise on purpose.
 */
static const struct
{
	const char *pattern;
	const char *event;
	Outcome		ours;
	const char *reason;
}			deviations[] = {
	{"{\"a\":[{\"cidr\":\"10.0.0.5/32\"}]}", "{\"a\":\"10.0.0.5\"}", YES,
	"a network of one address is a network"},
	{"{\"a\":{\"b\":[\"x\"]}}", "{\"a.b\":\"x\"}", NO,
	"a dot in a key is a character of the key"},
	{"{\"a\":[\"x\"]} trailing", "{\"a\":\"x\"}", UNREADABLE,
	"what follows the pattern is an error"},
	{"{\"a\":[{\"anything-but\":{\"equals-ignore-case\":[]}}]}", "{\"a\":\"q\"}", INVALID,
	"event-ruler takes the empty list and then breaks on every event"},
	{"{\"a\":[{\"anything-but\":{\"prefix\":[]}}]}", "{\"a\":\"q\"}", INVALID,
	"event-ruler takes the empty list and then breaks on every event"},
	{"{\"a\":[{\"anything-but\":{\"suffix\":[]}}]}", "{\"a\":\"q\"}", INVALID,
	"event-ruler takes the empty list and then breaks on every event"},
	{"{\"a\":[\"x\"]}", "\"x\"", NO,
	"an event that is not an object matches nothing"},
};

static bool
deviates(const char *pattern, const char *event, Outcome outcome)
{
	for (size_t i = 0; i < sizeof(deviations) / sizeof(deviations[0]); i++)
	{
		if (strcmp(deviations[i].pattern, pattern) == 0 &&
			strcmp(deviations[i].event, event) == 0)
			return deviations[i].ours == outcome;
	}
	return false;
}

static void
test_vectors(void **state)
{
	const char *path = getenv("MP_VECTORS");
	FILE	   *file = path != NULL ? fopen(path, "r") : NULL;
	char	   *line = NULL;
	size_t		size = 0;
	int			ncases = 0;
	int			ndeviations = 0;
	int			failures = 0;

	(void) state;
	if (file == NULL)
	{
		print_message("skipped: MP_VECTORS names no file\n");
		skip();
	}
	while (getline(&line, &size, file) > 0)
	{
		json_t	   *vector = json_loads(line, 0, NULL);
		const char *pattern = json_string_value(json_object_get(vector, "pattern"));
		const char *event = json_string_value(json_object_get(vector, "event"));
		const char *expected = json_string_value(json_object_get(vector, "expected"));
		MpPatternError error;
		Outcome		outcome;

		assert_true(pattern != NULL && event != NULL && expected != NULL);
		outcome = run(pattern, event, &error);
		ncases++;
		if (strcmp(expected, "badevent") == 0 ? outcome != UNREADABLE
			: strcmp(expected, outcome_names[outcome]) != 0)
		{
			if (deviates(pattern, event, outcome))
				ndeviations++;
			else
			{
				failures++;
				print_error("%s on %s: %s instead of %s\n", pattern, event,
							outcome_names[outcome], expected);
			}
		}
		json_decref(vector);
	}
	free(line);
	fclose(file);
	print_message("%d vectors, %d deliberate deviations\n", ncases, ndeviations);
	assert_int_equal(failures, 0);
	assert_true(ncases > 0);
	assert_int_equal(ndeviations, sizeof(deviations) / sizeof(deviations[0]));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_vectors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
