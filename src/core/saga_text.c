/*
 * saga_text.c
 *		An instance of a saga as a line of text, and back.
 *
 * First > (forward) or < (back) with the cause (- f d c) and, when a step failed,
 * its number.  Then for each step the letter of its state, the attempt when there
 * was one, .run when that is another number, and ? when nobody knows how an
 * attempt ended: ">- s1 w2.3? p".
 */
#include <stdio.h>
#include <string.h>

#include "core/saga.h"

/* No step was tried more often, so that what is read can be counted on. */
#define MAX_COUNT	1000000000

static const char cause_letters[] = "-fdc";

/* In the order of MpSagaStepState. */
static const char state_letters[] = "pawsfkxAWKUX";

void
mp_saga_write(const MpSagaDefinition *definition, const MpSaga *saga, char text[MP_SAGA_TEXT_SIZE])
{
	char	   *at = text;

	*at++ = saga->back ? '<' : '>';
	*at++ = cause_letters[saga->cause];
	if (saga->failed_step >= 0)
		at += sprintf(at, "%d", saga->failed_step);
	for (int i = 0; i < definition->step_count; i++)
	{
		const MpSagaStepRecord *record = &saga->step[i];

		*at++ = ' ';
		*at++ = state_letters[record->state];
		if (record->attempt != 0 || record->run != 0)
			at += sprintf(at, "%d", record->attempt);
		if (record->run != record->attempt)
			at += sprintf(at, ".%d", record->run);
		if (record->unknown)
			*at++ = '?';
	}
	*at = '\0';
}

static bool
read_number(const char **at, int32_t *number)
{
	int64_t		value = 0;

	if (**at < '0' || **at > '9')
		return false;
	for (; **at >= '0' && **at <= '9'; (*at)++)
	{
		value = value * 10 + (**at - '0');
		if (value > MAX_COUNT)
			return false;
	}
	*number = (int32_t) value;
	return true;
}

/* The place of a letter in a list; -1 when it is none of them. */
static int
read_letter(const char **at, const char *letters)
{
	const char *found = **at == '\0' ? NULL : strchr(letters, **at);

	if (found == NULL)
		return -1;
	(*at)++;
	return (int) (found - letters);
}

/* What no call can have made. */
static bool
is_out_of_direction(const MpSagaDefinition *definition, const MpSaga *saga, int i)
{
	MpSagaStepState state = saga->step[i].state;

	if (!saga->back)
		return state == MP_SAGA_STEP_FAILED || state >= MP_SAGA_STEP_UNDO_STARTED;
	return state == MP_SAGA_STEP_WAITING || state == MP_SAGA_STEP_PARKED ||
		(state >= MP_SAGA_STEP_UNDO_STARTED && (definition->undoable & MP_SAGA_STEP(i)) == 0) ||
		(i == definition->pivot && (state == MP_SAGA_STEP_SUCCEEDED || state == MP_SAGA_STEP_SKIPPED));
}

static bool
read_record(const char **at, MpSagaStepRecord *record)
{
	int			state;

	if (*(*at)++ != ' ')
		return false;
	state = read_letter(at, state_letters);
	if (state < 0)
		return false;
	record->state = (MpSagaStepState) state;
	if (read_number(at, &record->attempt))
		record->run = record->attempt;
	if (**at == '.')
	{
		(*at)++;
		if (!read_number(at, &record->run))
			return false;
	}
	if (**at == '?')
	{
		(*at)++;
		record->unknown = true;
	}
	return true;
}

bool
mp_saga_read(const MpSagaDefinition *definition, const char *text, MpSaga *saga)
{
	int			direction;
	int			cause;

	memset(saga, 0, sizeof(*saga));
	saga->failed_step = -1;
	direction = read_letter(&text, "><");
	if (direction < 0)
		return false;
	cause = read_letter(&text, cause_letters);
	if (cause < 0)
		return false;
	saga->back = direction == 1;
	saga->cause = (MpSagaCause) cause;
	if (*text >= '0' && *text <= '9' &&
		(!read_number(&text, &saga->failed_step) || saga->failed_step >= definition->step_count))
		return false;
	for (int i = 0; i < definition->step_count; i++)
	{
		if (*text == '\0' || !read_record(&text, &saga->step[i]) || is_out_of_direction(definition, saga, i))
			return false;
	}
	saga->state = mp_saga_state_of(definition, saga);
	return *text == '\0';
}
