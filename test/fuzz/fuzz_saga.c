/*
 * Fuzzes the compiler of saga definitions, the text of instances, and the machine.
 *
 * The input is a definition and an input, two JSON texts, then the text of an
 * instance and then bytes that are calls, each part ended by a line feed.  Beyond
 * what the sanitizers find, it checks laws that hold for any of them:
 *
 * - compiling says the same every time, and an error has a message and a step;
 * - an instance that can be read is written as text that reads as the same one;
 * - a call that is refused changes nothing, and what ended stays so;
 * - once nothing fails any more, whatever can be read comes to rest.
 */
#include <stdint.h>

#include "core/saga.h"
#include "law.h"
#include "saga_run.h"

static const MpSagaDefinition *
compile(const JsonTree *tree, TestArena *arena, MpSagaError *error)
{
	MpJson		root = json_tree_root(tree);
	const MpSagaDefinition *definition;

	memset(error, 0, sizeof(*error));
	definition = mp_saga_compile(&json_tree_reader, &root, &arena->arena, error);
	if (definition == NULL)
	{
		LAW(error->message[0] != '\0' && memchr(error->message, '\0', sizeof(error->message)) != NULL);
		LAW(error->step >= 0 && error->step <= MP_SAGA_MAX_STEPS);
	}
	return definition;
}

static void
check_definition(const MpSagaDefinition *d, TestArena *arena)
{
	LAW(d->step_count >= 1 && d->step_count <= MP_SAGA_MAX_STEPS);
	for (int i = 0; i < d->step_count; i++)
	{
		const MpSagaStep *step = &d->steps[i];

		LAW(mp_saga_find_step(d, step->name, strlen(step->name)) == i);
		LAW((step->run == NULL) != (step->service == NULL));
		LAW((step->before & MP_SAGA_STEP(i)) == 0 && (step->behind & MP_SAGA_STEP(i)) == 0);
		LAW((step->after & ~step->before) == 0);
		LAW(step->kind != MP_SAGA_COMPENSATABLE || ((d->undoable & d->turning) & MP_SAGA_STEP(i)) != 0);
	}
	LAW(mp_saga_graph(d, NULL, &arena->arena)[0] == 'f');
}

static void
check_locks(const MpSagaDefinition *d, Part input, TestArena *arena)
{
	JsonTree   *tree = json_tree_parse(input.text, input.len);
	MpSagaError error = {0};
	const char *const *names;
	int			count;
	MpJson		root;

	if (tree == NULL)
		return;
	root = json_tree_root(tree);
	if (mp_saga_locks(d, &json_tree_reader, &root, &arena->arena, &names, &count, &error))
	{
		LAW(count <= d->lock_count);
		for (int i = 0; i < count; i++)
		{
			LAW(names[i][0] != '\0' && strlen(names[i]) <= MP_SAGA_LOCK_BYTES);
			LAW(i == 0 || strcmp(names[i - 1], names[i]) < 0);
		}
	}
	else
		LAW(error.message[0] != '\0');
	json_tree_free(tree);
}

static MpSagaAnswer
call(const MpSagaDefinition *d, MpSaga *saga, unsigned char byte, unsigned char step)
{
	MpSagaReport report = {.step = step % d->step_count,.undo = byte & 1,.outcome = (MpSagaOutcome) (byte >> 1 & 3)};
	MpSagaSettled settled;

	report.run = saga->step[report.step].run - (byte >> 3 & 1);
	switch (byte >> 4)
	{
		case 0:
			return mp_saga_stop(d, saga, byte & 1 ? MP_SAGA_CAUSE_CANCEL : MP_SAGA_CAUSE_DEADLINE);
		case 1:
			return mp_saga_retry(d, saga, ~UINT64_C(0));
		case 2:
			return mp_saga_skip(d, saga, report.step);
		case 3:
		case 4:
		case 5:
		case 6:
			return mp_saga_begin(d, saga, report.step, report.undo);
		default:
			return mp_saga_report(d, saga, &report, &settled);
	}
}

static void
check_call(const MpSagaDefinition *d, MpSaga *saga, unsigned char byte, unsigned char step)
{
	MpSaga		before = *saga;
	MpSagaAnswer answer = call(d, saga, byte, step);

	if (answer != MP_SAGA_OK && answer != MP_SAGA_UNDECIDED)
		LAW(memcmp(&before, saga, sizeof(before)) == 0);
	LAW(!mp_saga_has_ended(before.state) || saga->state == before.state);
	LAW(!before.back || saga->back);
	LAW(saga->state == mp_saga_state_of(d, saga));
}

/* Nothing fails any more, and what is parked is tried again. */
static void
check_rest(const MpSagaDefinition *d, MpSaga saga)
{
	for (int calls = 0; calls < 4 * MP_SAGA_MAX_STEPS + 10; calls++)
	{
		const char *broken;

		if (saga_go_on(d, &saga, &broken))
			LAW(broken == NULL);
		else if (mp_saga_retry(d, &saga, ~UINT64_C(0)) != MP_SAGA_OK)
			return;
	}
	LAW(!"it comes to rest");
}

static void
check_instance(const MpSagaDefinition *d, Part text, const char *calls, size_t count)
{
	char	   *copy = strndup(text.text, text.len);
	char		written[MP_SAGA_TEXT_SIZE];
	char		again[MP_SAGA_TEXT_SIZE];
	MpSaga		saga;
	MpSaga		other;

	if (copy == NULL)
		abort();
	if (!mp_saga_read(d, copy, &saga))
		mp_saga_init(d, &saga);
	free(copy);
	mp_saga_write(d, &saga, written);
	LAW(strlen(written) < sizeof(written));
	LAW(mp_saga_read(d, written, &other));
	mp_saga_write(d, &other, again);
	LAW(strcmp(written, again) == 0 && memcmp(&saga, &other, sizeof(saga)) == 0);
	for (size_t i = 0; i + 1 < count; i += 2)
		check_call(d, &saga, (unsigned char) calls[i], (unsigned char) calls[i + 1]);
	check_rest(d, saga);
}

int			LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *at = (const char *) data;
	Part		text = next_part(&at, &size);
	Part		input = next_part(&at, &size);
	Part		instance = next_part(&at, &size);
	JsonTree   *tree = json_tree_parse(text.text, text.len);
	const MpSagaDefinition *definition;
	const MpSagaDefinition *again;
	MpSagaError errors[2];
	TestArena	arena;

	if (tree == NULL)
		return 0;
	test_arena_init(&arena);
	definition = compile(tree, &arena, &errors[0]);
	again = compile(tree, &arena, &errors[1]);
	LAW((definition == NULL) == (again == NULL));
	LAW(errors[0].step == errors[1].step && strcmp(errors[0].message, errors[1].message) == 0);
	json_tree_free(tree);
	if (definition != NULL)
	{
		check_definition(definition, &arena);
		check_locks(definition, input, &arena);
		check_instance(definition, instance, at, size);
	}
	test_arena_free(&arena);
	return 0;
}
