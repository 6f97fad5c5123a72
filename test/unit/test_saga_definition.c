/*
 * test_saga_definition.c
 *		Sagas: what a definition compiles to, what does not compile, locks, pictures.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "saga_random.h"
#include "saga_run.h"

/* One step, and what is wrong with it; a whole definition. */
#define STEP(members)	"{'steps':[{'name':'a'," members "}]}"
#define COMP(name, after) "{'name':'" name "','kind':'compensatable','run':'f','undo':'g'" after "}"
#define PIVOT(name)		"{'name':'" name "','kind':'pivot','service':'s'}"
#define OK_STEP			"{'name':'a','kind':'read_only','run':'f'}"
#define HUNDRED			"0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"

static void
a_whole_definition(void **state)
{
	TestArena	arena;
	const MpSagaDefinition *d;
	const MpSagaStep *step;

	(void) state;
	test_arena_init(&arena);
	d = saga_must_compile("{'deadline_seconds':3600,'on_completed':{'emit':'Done'},'on_compensated':{'emit':'Undone'},"
						  "'locks':['plan:{input.plan}','all'],'steps':["
						  "{'name':'mail','kind':'retriable','service':'smtp','undo_service':'smtp2','after':['plan'],'breaker':'mail'},"
						  "{'name':'plan','kind':'compensatable','run':'f(jsonb)','undo':'g(jsonb)','after':[],'timeout_seconds':1.5,"
						  "'undo_retry':{'max_attempts':3}},"
						  "{'name':'list','kind':'pivot','run':'h(jsonb)','retry':{'max_attempts':7,'base_delay':0.5,'multiplier':3,"
						  "'max_delay':9,'jitter':0.25,'max_age':60}},"
						  "{'name':'look','kind':'read_only','service':'eyes'}]}", &arena);
	assert_int_equal(d->step_count, 4);
	assert_int_equal(d->pivot, 2);
	assert_int_equal(d->all, 15);
	assert_int_equal(d->external, 1 | 8);
	assert_int_equal(d->undoable, 1 | 2);
	assert_int_equal(d->turning, 2 | 4);
	assert_true(d->deadline_seconds == 3600);
	assert_string_equal(d->on_completed, "Done");
	assert_string_equal(d->on_compensated, "Undone");
	assert_int_equal(d->lock_count, 2);
	assert_string_equal(d->locks[0], "plan:{input.plan}");

	step = &d->steps[0];
	assert_string_equal(step->name, "mail");
	assert_int_equal(step->kind, MP_SAGA_RETRIABLE);
	assert_null(step->run);
	assert_string_equal(step->service, "smtp");
	assert_null(step->undo);
	assert_string_equal(step->undo_service, "smtp2");
	assert_string_equal(step->breaker, "mail");
	assert_int_equal(step->after, 2);
	assert_int_equal(step->before, 2);
	assert_int_equal(step->behind, 0);
	assert_int_equal(step->retry.max_attempts, 5);
	assert_true(step->retry.base_delay == 2 && step->retry.multiplier == 2 && step->retry.max_delay == 0);
	assert_int_equal(step->undo_retry.max_attempts, 10);
	assert_true(step->undo_retry.max_delay == 60 && step->timeout_seconds == 0);

	step = &d->steps[1];
	assert_string_equal(step->run, "f(jsonb)");
	assert_string_equal(step->undo, "g(jsonb)");
	assert_int_equal(step->behind, 1 | 4 | 8);
	assert_true(step->timeout_seconds == 1.5);
	assert_int_equal(step->undo_retry.max_attempts, 3);
	assert_true(step->undo_retry.max_delay == 60);	/* the rest of the default stays */

	/* by default a step waits for the one before it */
	step = &d->steps[2];
	assert_int_equal(step->after, 2);
	assert_int_equal(step->retry.max_attempts, 7);
	assert_true(step->retry.base_delay == 0.5 && step->retry.multiplier == 3 && step->retry.max_delay == 9 &&
				step->retry.jitter == 0.25 && step->retry.max_age == 60);
	assert_int_equal(d->steps[3].after, 4);
	assert_int_equal(d->steps[3].before, 2 | 4);

	assert_int_equal(mp_saga_find_step(d, "list", 4), 2);
	assert_int_equal(mp_saga_find_step(d, "lis", 3), -1);
	assert_int_equal(mp_saga_find_step(d, "lists", 5), -1);
	test_arena_free(&arena);
}

static void
what_is_missing_is_none(void **state)
{
	TestArena	arena;
	const MpSagaDefinition *d;

	(void) state;
	test_arena_init(&arena);
	d = saga_must_compile("{'steps':[" OK_STEP "]}", &arena);
	assert_int_equal(d->pivot, -1);
	assert_int_equal(d->turning, 1);
	assert_true(d->deadline_seconds == 0);
	assert_null(d->on_completed);
	assert_null(d->on_compensated);
	assert_int_equal(d->lock_count, 0);
	assert_null(d->steps[0].breaker);
	test_arena_free(&arena);
}

static void
what_does_not_compile(void **state)
{
	static const struct
	{
		const char *definition;
		int			step;
		const char *message;
	}			cases[] = {
		{"[]", 0, "the definition must be an object"},
		{"null", 0, "the definition must be an object"},
		{"{}", 0, "steps is missing"},
		{"{'steps':null}", 0, "steps must be an array of 1 to 64 steps"},
		{"{'steps':[]}", 0, "steps must be an array of 1 to 64 steps"},
		{"{'steps':{'a':1}}", 0, "steps must be an array of 1 to 64 steps"},
		{"{'steps':[" OK_STEP "],'stepz':1}", 0, "unknown key \"stepz\""},
		{"{'steps':[" OK_STEP "],'a\\nb':1}", 0, "unknown key \"a?b\""},
		{"{'steps':[" OK_STEP "],'x" HUNDRED "':1}", 0, "unknown key \"x012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678...\""},
		{"{'steps':[" OK_STEP "],'deadline_seconds':0}", 0, "deadline_seconds must be a number between 0.001 and 3.1536e+07"},
		{"{'steps':[" OK_STEP "],'deadline_seconds':'1'}", 0, "deadline_seconds must be a number between 0.001 and 3.1536e+07"},
		{"{'steps':[" OK_STEP "],'on_completed':'Done'}", 0, "on_completed must be {\"emit\": a detail type of 1 to 128 characters}"},
		{"{'steps':[" OK_STEP "],'on_completed':{}}", 0, "on_completed must be {\"emit\": a detail type of 1 to 128 characters}"},
		{"{'steps':[" OK_STEP "],'on_completed':{'emit':''}}", 0, "on_completed must be {\"emit\": a detail type of 1 to 128 characters}"},
		{"{'steps':[" OK_STEP "],'on_compensated':{'emit':'A','b':1}}", 0, "on_compensated must be {\"emit\": a detail type of 1 to 128 characters}"},
		{"{'steps':[" OK_STEP "],'on_compensated':{'emit':'A\\u0007'}}", 0, "on_compensated must be {\"emit\": a detail type of 1 to 128 characters}"},
		{"{'steps':[" OK_STEP "],'on_compensated':{'emit':'" HUNDRED HUNDRED "'}}", 0, "on_compensated must be {\"emit\": a detail type of 1 to 128 characters}"},
		{"{'steps':[" OK_STEP "],'locks':'a'}", 0, "locks must be an array of up to 16 names of locks"},
		{"{'steps':[" OK_STEP "],'locks':[1]}", 0, "a lock must be a text of 1 to 255 bytes without control characters"},
		{"{'steps':[" OK_STEP "],'locks':['']}", 0, "a lock must be a text of 1 to 255 bytes without control characters"},
		{"{'steps':[" OK_STEP "],'locks':['a:{inputs.x}']}", 0, "lock \"a:{inputs.x}\": braces must hold input. and the name of a field, as {input.order_id}"},
		{"{'steps':[" OK_STEP "],'locks':['a:{input.}']}", 0, "lock \"a:{input.}\": braces must hold input. and the name of a field, as {input.order_id}"},
		{"{'steps':[" OK_STEP "],'locks':['a:{input.a..b}']}", 0, "lock \"a:{input.a..b}\": braces must hold input. and the name of a field, as {input.order_id}"},
		{"{'steps':[" OK_STEP "],'locks':['a:{input.a.}']}", 0, "lock \"a:{input.a.}\": braces must hold input. and the name of a field, as {input.order_id}"},
		{"{'steps':[" OK_STEP "],'locks':['a:{input.x']}", 0, "lock \"a:{input.x\": braces must hold input. and the name of a field, as {input.order_id}"},
		{"{'steps':[" OK_STEP "],'locks':['a}']}", 0, "lock \"a}\": braces must hold input. and the name of a field, as {input.order_id}"},
		{"{'steps':[" OK_STEP "],'locks':['a:{input.{input.x}}']}", 0, "lock \"a:{input.{input.x}}\": braces must hold input. and the name of a field, as {input.order_id}"},
		/* a step by itself */
		{"{'steps':['a']}", 1, "step 1: must be an object"},
		{"{'steps':[{}]}", 1, "step 1: name is missing"},
		{"{'steps':[" OK_STEP ",{'kind':'pivot'}]}", 2, "step 2: name is missing"},
		{"{'steps':[{'name':''}]}", 1, "step 1: name must be a text of 1 to 100 bytes without control characters"},
		{"{'steps':[{'name':1}]}", 1, "step 1: name must be a text of 1 to 100 bytes without control characters"},
		{"{'steps':[{'name':'a\\tb'}]}", 1, "step 1: name must be a text of 1 to 100 bytes without control characters"},
		{"{'steps':[{'name':'x" HUNDRED "'}]}", 1, "step 1: name must be a text of 1 to 100 bytes without control characters"},
		{"{'steps':[" OK_STEP "," OK_STEP "]}", 2, "step \"a\": has the name of step 1"},
		{STEP("'run':'f'"), 1, "step \"a\": kind is missing"},
		{STEP("'kind':'retryable','run':'f'"), 1, "step \"a\": kind must be compensatable, read_only, pivot or retriable"},
		{STEP("'kind':null,'run':'f'"), 1, "step \"a\": kind must be compensatable, read_only, pivot or retriable"},
		{STEP("'kind':'read_only'"), 1, "step \"a\": run or service is missing"},
		{STEP("'kind':'read_only','run':'f','service':'s'"), 1, "step \"a\": has run and service, and needs one of them"},
		{STEP("'kind':'read_only','run':null"), 1, "step \"a\": run must be a text of 1 to 512 bytes without control characters"},
		{STEP("'kind':'read_only','service':'x" HUNDRED "'"), 1, "step \"a\": service must be a text of 1 to 100 bytes without control characters"},
		{STEP("'kind':'read_only','run':'f','runs':1"), 1, "step \"a\": unknown key \"runs\""},
		{STEP("'kind':'compensatable','run':'f','undo':'g','undo_service':'s'"), 1, "step \"a\": has undo and undo_service, and needs one of them at most"},
		{STEP("'kind':'compensatable','run':'f'"), 1, "step \"a\": undo or undo_service is missing, and a compensatable step needs one"},
		{STEP("'kind':'read_only','run':'f','undo':'g'"), 1, "step \"a\": has an undo, and a read_only step leaves nothing to undo"},
		{STEP("'kind':'pivot','run':'f','undo':'g'"), 1, "step \"a\": has an undo, and a pivot that is a function leaves nothing when it fails"},
		{STEP("'kind':'read_only','run':'f','undo_retry':{}"), 1, "step \"a\": has undo_retry but no undo"},
		{STEP("'kind':'read_only','run':'f','retry':5"), 1, "step \"a\": retry must be an object"},
		{STEP("'kind':'read_only','run':'f','retry':{'max_attempts':0}"), 1, "step \"a\": retry.max_attempts must be an integer between 1 and 1000"},
		{STEP("'kind':'read_only','run':'f','retry':{'max_attempts':1.5}"), 1, "step \"a\": retry.max_attempts must be an integer between 1 and 1000"},
		{STEP("'kind':'read_only','run':'f','retry':{'max_attempts':1e99}"), 1, "step \"a\": retry.max_attempts must be an integer between 1 and 1000"},
		{STEP("'kind':'read_only','run':'f','retry':{'jitter':2}"), 1, "step \"a\": retry.jitter must be a number between 0 and 1"},
		{STEP("'kind':'compensatable','run':'f','undo':'g','undo_retry':{'delay':2}"), 1, "step \"a\": unknown key \"undo_retry.delay\""},
		{STEP("'kind':'read_only','run':'f','timeout_seconds':0"), 1, "step \"a\": timeout_seconds must be a number between 0.001 and 86400"},
		{STEP("'kind':'read_only','run':'f','timeout_seconds':86401"), 1, "step \"a\": timeout_seconds must be a number between 0.001 and 86400"},
		{STEP("'kind':'read_only','run':'f','timeout_seconds':1.0000000000000000000000000000000000000000000000000000000000000000001"), 1, "step \"a\": timeout_seconds must be a number between 0.001 and 86400"},
		{STEP("'kind':'read_only','run':'f','after':'b'"), 1, "step \"a\": after must be an array of the names of steps"},
		{STEP("'kind':'read_only','run':'f','after':[1]"), 1, "step \"a\": after must be an array of the names of steps"},
		{STEP("'kind':'read_only','run':'f','after':['b']"), 1, "step \"a\": after names \"b\", and there is no such step"},
		/* steps together */
		{STEP("'kind':'read_only','run':'f','after':['a']"), 1, "step \"a\": waits for itself, by way of \"a\""},
		{"{'steps':[" COMP("a", ",'after':['c']") "," COMP("b", "") "," COMP("c", "") "," COMP("d", "") "]}", 1,
		"step \"a\": waits for itself, by way of \"c\", \"b\", \"a\""},
		{"{'steps':[" COMP("a", "") "," COMP("b", ",'after':['c']") "," COMP("c", "") "]}", 2,
		"step \"b\": waits for itself, by way of \"c\", \"b\""},
		/* what leads into a circle is not on it */
		{"{'steps':[" COMP("a", ",'after':['b']") "," COMP("b", ",'after':['c']") "," COMP("c", ",'after':['b']") "]}", 2,
		"step \"b\": waits for itself, by way of \"c\", \"b\""},
		{"{'steps':[" PIVOT("a") "," PIVOT("b") "]}", 2, "step \"b\": is a second pivot, \"a\" is the first; there can be one"},
		{"{'steps':[" PIVOT("a") "," COMP("b", "") "]}", 2, "step \"b\": is compensatable and must come before the pivot \"a\"; where it stands it can be retriable"},
		{"{'steps':[" PIVOT("a") "," COMP("b", ",'after':[]") "]}", 2, "step \"b\": is compensatable and must come before the pivot \"a\"; where it stands it can be retriable"},
		{STEP("'kind':'retriable','run':'f'"), 1, "step \"a\": is retriable, which only a saga with a pivot can have"},
		{"{'steps':[{'name':'a','kind':'retriable','run':'f'}," PIVOT("b") "]}", 1, "step \"a\": is retriable and must not come before the pivot \"b\""},
		{"{'steps':[" PIVOT("a") ",{'name':'b','kind':'retriable','run':'f','undo':'g'}]}", 2, "step \"b\": comes after the pivot \"a\", so that its undo could never run"},
		{"{'steps':[" PIVOT("a") ",{'name':'b','kind':'retriable','run':'f','after':[]}]}", 2,
		"step \"b\": can run beside the pivot \"a\" and needs an undo for the case that it fails, or the pivot in its after"},
	};

	(void) state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		TestArena	arena;
		MpSagaError error;

		test_arena_init(&arena);
		if (saga_compile(cases[i].definition, &arena, &error) != NULL)
			fail_msg("%s compiles", cases[i].definition);
		if (error.step != cases[i].step || strcmp(error.message, cases[i].message) != 0)
			fail_msg("%s: step %d, %s", cases[i].definition, error.step, error.message);
		test_arena_free(&arena);
	}
}

static void
where_kinds_may_stand(void **state)
{
	static const char *const good[] = {
		SEQUENTIAL, PARALLEL, UNDECIDABLE, REVOCABLE, DIAMOND,
		"{'steps':[" PIVOT("a") "]}",
		/* reading goes everywhere */
		"{'steps':[" OK_STEP ",{'name':'b','kind':'pivot','run':'f','after':[]},{'name':'c','kind':'read_only','run':'f'}]}",
		/* a pivot of a service may have either undo */
		STEP("'kind':'pivot','service':'s','undo':'g'"),
		STEP("'kind':'pivot','service':'s','undo_service':'g'"),
		"{'steps':[" COMP("a", ",'after':['c','b']") "," COMP("b", ",'after':['c']") "," COMP("c", ",'after':[]") "]}",
		"{'steps':[" COMP("a", "") "," COMP("b", ",'after':['a','a']") "]}",
	};

	(void) state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
	{
		TestArena	arena;

		test_arena_init(&arena);
		(void) saga_must_compile(good[i], &arena);
		test_arena_free(&arena);
	}
}

static void
as_many_steps_as_bits(void **state)
{
	(void) state;
	for (int count = 63; count <= 65; count++)
	{
		char		text[8000] = "{'steps':[";
		TestArena	arena;
		MpSagaError error;
		const MpSagaDefinition *d;

		for (int i = 0; i < count; i++)
			sprintf(text + strlen(text), "%s{'name':'s%d','kind':'compensatable','run':'f','undo':'g'}", i == 0 ? "" : ",", i);
		strcat(text, "]}");
		test_arena_init(&arena);
		d = saga_compile(text, &arena, &error);
		assert_true((d != NULL) == (count <= 64));
		if (d != NULL)
		{
			assert_int_equal(__builtin_popcountll(d->all), count);
			assert_int_equal(__builtin_popcountll(d->steps[count - 1].before), count - 1);
			assert_int_equal(__builtin_popcountll(d->steps[0].behind), count - 1);
		}
		test_arena_free(&arena);
	}
}

/* The names of a definition's locks with an input, joined by commas; or the error. */
static const char *
locks_of(const char *locks, const char *input)
{
	static char result[1000];
	char		text[2000];
	TestArena	arena;
	MpSagaError error;
	const MpSagaDefinition *d;
	JsonTree   *tree = json_tree_parse(input, strlen(input));
	MpJson		root;
	const char *const *names;
	int			count;

	assert_non_null(tree);
	root = json_tree_root(tree);
	snprintf(text, sizeof(text), "{'steps':[" OK_STEP "],'locks':[%s]}", locks);
	test_arena_init(&arena);
	d = saga_must_compile(text, &arena);
	*result = '\0';
	if (!mp_saga_locks(d, &json_tree_reader, &root, &arena.arena, &names, &count, &error))
	{
		assert_int_equal(error.step, 0);
		strcpy(result, error.message);
	}
	else
		for (int i = 0; i < count; i++)
			sprintf(result + strlen(result), "%s%s", i == 0 ? "" : ",", names[i]);
	test_arena_free(&arena);
	json_tree_free(tree);
	return result;
}

static void
names_of_locks(void **state)
{
	(void) state;
	assert_string_equal(locks_of("", "{}"), "");
	assert_string_equal(locks_of("'all'", "null"), "all");
	assert_string_equal(locks_of("'plan:{input.id}'", "{\"id\":\"4711\"}"), "plan:4711");
	assert_string_equal(locks_of("'plan:{input.id}'", "{\"id\":4711}"), "plan:4711");
	assert_string_equal(locks_of("'{input.a.b}-{input.c}!'", "{\"a\":{\"b\":true},\"c\":false}"), "true-false!");
}

static void
sorted_and_once(void **state)
{
	(void) state;
	assert_string_equal(locks_of("'c','b:{input.x}','a','b:{input.y}','c'", "{\"x\":1,\"y\":1}"), "a,b:1,c");
	assert_string_equal(locks_of("'b:{input.x}','b:{input.y}'", "{\"x\":10,\"y\":9}"), "b:10,b:9");
}

static void
what_the_input_lacks(void **state)
{
	static const char *const inputs[] = {
		"{}", "null", "[1]", "{\"id\":null}", "{\"id\":{}}", "{\"id\":[1]}", "{\"id\":\"\"}", "{\"id\":\"a\\nb\"}",
		"{\"id\":\"" HUNDRED HUNDRED HUNDRED "\"}"
	};

	(void) state;
	for (size_t i = 0; i < sizeof(inputs) / sizeof(inputs[0]); i++)
		assert_string_equal(locks_of("'plan:{input.id}'", inputs[i]),
							"lock \"plan:{input.id}\": the input must have a short text, a number or a boolean for each place");
}

static void
pictures(void **state)
{
	TestArena	arena;
	const MpSagaDefinition *d;
	MpSaga		saga;

	(void) state;
	test_arena_init(&arena);
	d = saga_must_compile(PARALLEL, &arena);
	assert_string_equal(mp_saga_graph(d, NULL, &arena.arena),
						"flowchart TD\n"
						"    s0[\"create plan<br/>compensatable: f(jsonb)<br/>undo: g(jsonb)\"]\n"
						"    s1([\"nutrition<br/>read_only: nutrition\"])\n"
						"    s2{{\"list<br/>pivot: h(jsonb)\"}}\n"
						"    s3([\"mail<br/>retriable: mail<br/>undo: mail\"])\n"
						"    s0 --> s1\n"
						"    s1 --> s2\n"
						"    s1 --> s3\n");
	assert_true(mp_saga_read(d, "<f2 s1 s1 f2 A1.2?", &saga));
	assert_string_equal(mp_saga_graph(d, &saga, &arena.arena),
						"---\ntitle: compensating\n---\n"
						"flowchart TD\n"
						"    s0[\"create plan<br/>compensatable: f(jsonb)<br/>undo: g(jsonb)<br/>succeeded, attempt 1\"]:::succeeded\n"
						"    s1([\"nutrition<br/>read_only: nutrition<br/>succeeded, attempt 1\"]):::succeeded\n"
						"    s2{{\"list<br/>pivot: h(jsonb)<br/>failed, attempt 2\"}}:::failed\n"
						"    s3([\"mail<br/>retriable: mail<br/>undo: mail<br/>undo_started, attempt 1, outcome unknown\"]):::undo_started\n"
						"    s0 --> s1\n"
						"    s1 --> s2\n"
						"    s1 --> s3\n"
						"    classDef succeeded fill:#dcfce7,stroke:#15803d,color:#000\n"
						"    classDef failed fill:#fee2e2,stroke:#b91c1c,color:#000\n"
						"    classDef undo_started fill:#ede9fe,stroke:#6d28d9,color:#000\n");

	/* what would be markup is an entity */
	d = saga_must_compile("{'steps':[{'name':'a\\u0022]<b>&#`;','kind':'read_only','run':'f'}]}", &arena);
	assert_string_equal(mp_saga_graph(d, NULL, &arena.arena),
						"flowchart TD\n    s0[\"a#quot;]#lt;b#gt;#amp;#35;#96;;<br/>read_only: f\"]\n");
	test_arena_free(&arena);
}

/* Random ones are all valid; their closed sets are what a walk along after finds. */
static void
closed_sets(void **state)
{
	Random		random = {7};

	(void) state;
	for (int n = 0; n < 500; n++)
	{
		char		text[60000];
		TestArena	arena;
		const MpSagaDefinition *d;

		random_saga(&random, n % 10 == 0 ? 64 : 12, text, sizeof(text));
		test_arena_init(&arena);
		d = saga_must_compile(text, &arena);
		for (int i = 0; i < d->step_count; i++)
		{
			MpSagaSteps reached = d->steps[i].after;

			for (int round = 0; round < d->step_count; round++)
				for (int j = 0; j < d->step_count; j++)
					if ((reached & MP_SAGA_STEP(j)) != 0)
						reached |= d->steps[j].after;
			assert_true(reached == d->steps[i].before);
			for (int j = 0; j < d->step_count; j++)
				assert_true(((d->steps[j].behind >> i) & 1) == ((d->steps[i].before >> j) & 1));
		}
		test_arena_free(&arena);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_whole_definition),
		cmocka_unit_test(what_is_missing_is_none),
		cmocka_unit_test(what_does_not_compile),
		cmocka_unit_test(where_kinds_may_stand),
		cmocka_unit_test(as_many_steps_as_bits),
		cmocka_unit_test(names_of_locks),
		cmocka_unit_test(sorted_and_once),
		cmocka_unit_test(what_the_input_lacks),
		cmocka_unit_test(pictures),
		cmocka_unit_test(closed_sets)
	};

	return cmocka_run_group_tests_name("saga definition", tests, NULL, NULL);
}
