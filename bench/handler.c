/*
 * handler.c
 *		An inline handler in C, to be measured: it writes one row.  And a function
 *		that does nothing, which is what a call costs.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/uuid.h"

PG_MODULE_MAGIC;
PG_FUNCTION_INFO_V1(bench_handle_in_c);
PG_FUNCTION_INFO_V1(bench_do_nothing);

Datum
bench_do_nothing(PG_FUNCTION_ARGS)
{
	PG_RETURN_NULL();
}

Datum
bench_handle_in_c(PG_FUNCTION_ARGS)
{
	static SPIPlanPtr plan = NULL;
	HeapTupleHeader event = PG_GETARG_HEAPTUPLEHEADER(0);
	bool		isnull;
	Datum		values[2];

	values[0] = GetAttributeByName(event, "id", &isnull);
	values[1] = GetAttributeByName(event, "detail", &isnull);
	SPI_connect();
	if (plan == NULL)
	{
		Oid			types[2] = {UUIDOID, JSONBOID};

		plan = SPI_prepare("INSERT INTO public.effect (id, name) VALUES ($1, $2 OPERATOR(pg_catalog.->>) 'name')", 2, types);
		if (plan == NULL || SPI_keepplan(plan) != 0)
			elog(ERROR, "could not prepare the handler's statement");
	}
	if (SPI_execute_plan(plan, values, NULL, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "the handler's row was not written");
	SPI_finish();
	PG_RETURN_VOID();
}
