/*
 * saga_random.c
 *		Random definitions of sagas, always the same for a seed.
 */
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/saga.h"
#include "saga_random.h"

typedef struct Writer
{
	char	   *text;
	size_t		size;
	size_t		used;
} Writer;

int
random_below(Random *random, int limit)
{
	/* splitmix64 */
	uint64_t	z = random->state += UINT64_C(0x9E3779B97F4A7C15);

	z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
	z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
	return (int) ((z ^ z >> 31) % (uint64_t) limit);
}

__attribute__((format(printf, 2, 3)))
static void
put(Writer *w, const char *format,...)
{
	va_list		arguments;

	va_start(arguments, format);
	w->used += (size_t) vsnprintf(w->text + w->used, w->size - w->used, format, arguments);
	va_end(arguments);
	if (w->used >= w->size)
		abort();
}

static void
put_side(Writer *w, Random *random, const char *function, const char *service)
{
	if (random_below(random, 2) == 0)
		put(w, ",'%s':'f(jsonb)'", function);
	else
		put(w, ",'%s':'s'", service);
}

/* Kinds and undos that go together at the place of step i. */
static void
put_kind(Writer *w, Random *random, int i, int pivot, const MpSagaSteps *before)
{
	if (i == pivot)
	{
		put(w, ",'kind':'pivot'");
		if (random_below(random, 2) == 0)
			put(w, ",'run':'f(jsonb)'");
		else
		{
			put(w, ",'service':'s'");
			if (random_below(random, 2) == 0)
				put_side(w, random, "undo", "undo_service");
		}
		return;
	}
	if (random_below(random, 4) == 0)
		put(w, ",'kind':'read_only'");
	else if (pivot < 0 || (before[pivot] & MP_SAGA_STEP(i)) != 0)
	{
		put(w, ",'kind':'compensatable'");
		put_side(w, random, "undo", "undo_service");
	}
	else
	{
		put(w, ",'kind':'retriable'");
		if ((before[i] & MP_SAGA_STEP(pivot)) == 0)
			put_side(w, random, "undo", "undo_service");
	}
	put_side(w, random, "run", "service");
}

/* The steps stand in another order than they run. */
void
random_saga(Random *random, int max_steps, char *text, size_t size)
{
	Writer		w = {.text = text,.size = size};
	int			count = 1 + random_below(random, max_steps);
	int			pivot = random_below(random, 3) == 0 ? -1 : random_below(random, count);
	int			density = 1 + random_below(random, 4);
	MpSagaSteps after[MP_SAGA_MAX_STEPS] = {0};
	MpSagaSteps before[MP_SAGA_MAX_STEPS] = {0};
	int			place[MP_SAGA_MAX_STEPS];

	for (int i = 0; i < count; i++)
	{
		int			other = random_below(random, i + 1);

		place[i] = place[other];
		place[other] = i;
		for (int j = 0; j < i; j++)
		{
			if (random_below(random, i) < density)
			{
				after[i] |= MP_SAGA_STEP(j);
				before[i] |= MP_SAGA_STEP(j) | before[j];
			}
		}
	}
	put(&w, "{'steps':[");
	for (int k = 0; k < count; k++)
	{
		int			i = place[k];
		const char *comma = "";

		put(&w, "%s{'name':'s%d'", k == 0 ? "" : ",", i);
		put_kind(&w, random, i, pivot, before);
		put(&w, ",'retry':{'max_attempts':%d},'after':[", 1 + random_below(random, 3));
		for (int j = 0; j < i; j++)
		{
			if ((after[i] & MP_SAGA_STEP(j)) == 0)
				continue;
			put(&w, "%s's%d'", comma, j);
			comma = ",";
		}
		put(&w, "]}");
	}
	put(&w, "]}");
}
