/*
 * spi.c
 *		Kept plans, rows as results, and other small dealings with the server.
 */
#include "bus/bus.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif

void
mp_spi_connect(void)
{
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
}

void
mp_spi_finish(void)
{
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "SPI_finish failed");
}

static SPIPlanPtr
kept_plan(MpPlan *plan)
{
	if (plan->plan == NULL)
	{
		SPIPlanPtr	prepared;
		int			nargs = 0;

		while (OidIsValid(plan->types[nargs]))
			nargs++;
		/* A plan made for its arguments alone would be made anew each time. */
		prepared = SPI_prepare_cursor(plan->sql, nargs, plan->types,
									  plan->in_index_order ? CURSOR_OPT_GENERIC_PLAN : 0);
		if (prepared == NULL)
			elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
		if (SPI_keepplan(prepared) != 0)
			elog(ERROR, "SPI_keepplan failed");
		plan->plan = prepared;
	}
	return plan->plan;
}

/* SPI wants 'n' for NULL; our callers have booleans, or NULL for none. */
static const char *
spi_nulls(const MpPlan *plan, const bool *nulls, char buffer[lengthof(plan->types)])
{
	if (nulls == NULL)
		return NULL;
	for (int i = 0; OidIsValid(plan->types[i]); i++)
		buffer[i] = nulls[i] ? 'n' : ' ';
	return buffer;
}

static int
execute(MpPlan *plan, Datum *values, const bool *nulls, bool read_only, long max_rows)
{
	/* A sort that has to be all the same looks so dear that it would be compiled, at every run. */
	static const char *const unordered[] = {"enable_sort", "enable_bitmapscan", "enable_seqscan", "jit"};
	char		buffer[lengthof(plan->types)];
	int			level = 0;
	int			result;

	if (plan->in_index_order)
	{
		level = NewGUCNestLevel();
		for (size_t i = 0; i < lengthof(unordered); i++)
			(void) set_config_option(unordered[i], "off", PGC_USERSET, PGC_S_SESSION,
									 GUC_ACTION_SAVE, true, 0, false);
	}
	result = SPI_execute_plan(kept_plan(plan), values, spi_nulls(plan, nulls, buffer), read_only, max_rows);
	if (level > 0)
		AtEOXact_GUC(true, level);
	if (result < 0)
		elog(ERROR, "could not execute plan: %s", SPI_result_code_string(result));
	return result;
}

/*
 * Runs a kept plan and returns SPI's result code; SPI is connected.  In READ
 * COMMITTED the statement has a snapshot of its own.
 */
int
mp_plan_execute(MpPlan *plan, Datum *values, const bool *nulls, long max_rows)
{
	return execute(plan, values, nulls, false, max_rows);
}

/*
 * Runs a query of a kept plan with the newest snapshot there is, whatever the
 * isolation level: for what has to be true now (the version of a stream whose
 * row is locked, the subscriptions in force).  It sees what this transaction
 * has written so far.
 */
int
mp_plan_read_latest(MpPlan *plan, Datum *values, const bool *nulls, long max_rows)
{
	int			result;

	(void) kept_plan(plan);
	CommandCounterIncrement();
	PushActiveSnapshot(GetLatestSnapshot());
	result = execute(plan, values, nulls, true, max_rows);
	PopActiveSnapshot();
	return result;
}

void
mp_refuse_argument(const char *format,...)
{
	StringInfoData problem;
	int			needed;

	initStringInfo(&problem);
	do
	{
		va_list		args;

		va_start(args, format);
		needed = appendStringInfoVA(&problem, format, args);
		va_end(args);
		if (needed != 0)
			enlargeStringInfo(&problem, needed);
	} while (needed != 0);
	ereport(ERROR,
			(errcode(MP_ERRCODE_INVALID),
			 errmsg("MP400: %s", problem.data),
			 errhint("retry=no. Correct the argument.")));
}

Datum
mp_text_or_null(const char *string, bool *isnull)
{
	*isnull = (string == NULL);
	return string ? CStringGetTextDatum(string) : (Datum) 0;
}

int
mp_compare_texts(const text *left, const text *right)
{
	size_t		a = VARSIZE_ANY_EXHDR(left);
	size_t		b = VARSIZE_ANY_EXHDR(right);
	int			order = memcmp(VARDATA_ANY(left), VARDATA_ANY(right), Min(a, b));

	return order != 0 ? order : (a > b) - (a < b);
}

Datum
mp_array(Datum *elements, int count, Oid type)
{
	int16		len;
	bool		by_value;
	char		align;

	get_typlenbyvalalign(type, &len, &by_value, &align);
	return PointerGetDatum(construct_array(elements, count, type, len, by_value, align));
}

/*
 * The C library gives the memory of one call back to the kernel, and gets it
 * anew, page by page, in the next: a fifth of the time of a claim of a thousand
 * events.  A session that reads events keeps some megabytes instead.
 */
static void
keep_memory(void)
{
#ifdef M_TRIM_THRESHOLD
	static bool keeps = false;

	if (keeps)
		return;
	(void) mallopt(M_MMAP_THRESHOLD, 4 * 1024 * 1024);
	(void) mallopt(M_TRIM_THRESHOLD, 8 * 1024 * 1024);
	keeps = true;
#endif
}

/*
 * The tuple store to put the rows into, and their descriptor.  Both belong to
 * the query that called.
 */
Tuplestorestate *
mp_begin_rows(FunctionCallInfo fcinfo, TupleDesc *desc)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	MemoryContext old;

	if (result == NULL || !IsA(result, ReturnSetInfo) ||
		(result->allowedModes & SFRM_Materialize) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("set-valued function called in context that cannot accept a set")));

	keep_memory();
	old = MemoryContextSwitchTo(result->econtext->ecxt_per_query_memory);
	if (get_call_result_type(fcinfo, NULL, desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	result->returnMode = SFRM_Materialize;
	result->setDesc = *desc;
	result->setResult = tuplestore_begin_heap((result->allowedModes & SFRM_Materialize_Random) != 0,
											  false, work_mem);
	MemoryContextSwitchTo(old);
	return result->setResult;
}

double
mp_random_share(void)
{
	uint32		random;

	if (!pg_strong_random(&random, sizeof(random)))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate random values")));
	return random / ((double) PG_UINT32_MAX + 1);
}
