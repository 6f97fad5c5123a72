/*
 * sweep_round.c
 *		Where a sweep has seen work, so that it need not look everywhere for each
 *		unit of it.
 *
 * A look goes through all accounts and subscriptions, of which there may be
 * thousands.  What it finds is one round: the sweep works one unit of each,
 * and looks again when the round is over.  A source of a round is a hint and
 * nothing else; whoever takes it sees for himself what is there.
 *
 * A look in vain is believed for a moment, as long as there are other things to
 * do; before the sweep says that nothing is left it looks once more.
 */
#include "bus/bus.h"

#include "bus/sweep_round.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(mp_sweep_round_begin);
PG_FUNCTION_INFO_V1(mp_sweep_round_next);
PG_FUNCTION_INFO_V1(mp_sweep_round_wanted);

/* The kinds of work, and the rounds of this session's sweep. */
static const char *const kinds[] = {"delivery", "batch"};

typedef struct Source
{
	char	   *account;
	char	   *subscription;
} Source;

typedef struct Round
{
	MemoryContext context;		/* of its sources; NULL: none */
	Source	   *sources;
	int			count;
	int			next;
	TimestampTz looked_in_vain; /* when that look began; 0: it found something */
} Round;

static Round rounds[lengthof(kinds)];

static Round *
round_of(Datum kind)
{
	char	   *name = TextDatumGetCString(kind);

	for (size_t i = 0; i < lengthof(kinds); i++)
		if (strcmp(kinds[i], name) == 0)
			return &rounds[i];
	elog(ERROR, "unknown kind of work: %s", name);
}

static void
end_round(Round *round)
{
	MemoryContext context = round->context;

	memset(round, 0, sizeof(*round));
	if (context != NULL)
		MemoryContextDelete(context);
}

void
mp_sweep_forget_rounds(void)
{
	for (size_t i = 0; i < lengthof(kinds); i++)
		end_round(&rounds[i]);
}

static void
keep_sources(Round *round, MemoryContext context, Datum accounts, Datum subscriptions)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	Datum	   *account;
	Datum	   *subscription;
	int			count;
	int			same;
	Source	   *sources;

	deconstruct_array(DatumGetArrayTypeP(accounts), TEXTOID, -1, false, TYPALIGN_INT, &account, NULL, &count);
	deconstruct_array(DatumGetArrayTypeP(subscriptions), TEXTOID, -1, false, TYPALIGN_INT, &subscription, NULL, &same);
	if (count != same)
		elog(ERROR, "a round has %d accounts and %d subscriptions", count, same);
	sources = palloc(sizeof(Source) * Max(count, 1));
	for (int i = 0; i < count; i++)
	{
		sources[i].account = TextDatumGetCString(account[i]);
		sources[i].subscription = TextDatumGetCString(subscription[i]);
	}
	MemoryContextSwitchTo(old);
	end_round(round);
	round->context = context;
	round->sources = sources;
	round->count = count;
}

/* sweep_round_begin(kind, began, accounts, subscriptions): what a look that began then has found; NULL for nothing. */
Datum
mp_sweep_round_begin(PG_FUNCTION_ARGS)
{
	Round	   *round = round_of(PG_GETARG_DATUM(0));
	MemoryContext context;

	if (PG_ARGISNULL(2) || PG_ARGISNULL(3))
	{
		end_round(round);
		round->looked_in_vain = PG_GETARG_TIMESTAMPTZ(1);
		PG_RETURN_VOID();
	}
	/* a child of the caller's until it is whole: an error on the way leaves nothing behind */
	context = AllocSetContextCreate(CurrentMemoryContext, "meal_planner sweep round", ALLOCSET_DEFAULT_SIZES);
	keep_sources(round, context, PG_GETARG_DATUM(2), PG_GETARG_DATUM(3));
	MemoryContextSetParent(context, TopMemoryContext);
	PG_RETURN_VOID();
}

/* sweep_round_next(kind): the next source of the round; NULLs when it is over. */
Datum
mp_sweep_round_next(PG_FUNCTION_ARGS)
{
	Round	   *round = round_of(PG_GETARG_DATUM(0));
	Datum		values[2] = {0};
	bool		nulls[2] = {true, true};
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (round->next < round->count)
	{
		const Source *source = &round->sources[round->next++];

		values[0] = CStringGetTextDatum(source->account);
		values[1] = CStringGetTextDatum(source->subscription);
		nulls[0] = nulls[1] = false;
	}
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/* sweep_round_wanted(kind, believed): whether to look; not when the last look, in vain, began after that moment. */
Datum
mp_sweep_round_wanted(PG_FUNCTION_ARGS)
{
	const Round *round = round_of(PG_GETARG_DATUM(0));

	PG_RETURN_BOOL(PG_ARGISNULL(1) || round->looked_in_vain < PG_GETARG_TIMESTAMPTZ(1));
}
