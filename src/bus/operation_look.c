/*
 * operation_look.c
 *		Looks an operation up, by its key or its token.
 *
 * It may lie in any bucket (bucket.h); where those cannot be visited a statement
 * looks instead.  The look is at what is true now, also in a transaction that
 * keeps to one snapshot; what that snapshot does not show is a conflict.
 */
#include "bus/bucket.h"
#include "bus/bus.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"
#include "utils/typcache.h"

PG_FUNCTION_INFO_V1(mp_sql_operation_of_key);
PG_FUNCTION_INFO_V1(mp_sql_operation_of_token);

enum
{
	BY_KEY,
	BY_TOKEN
};

static MpBucketTable operations = {
	.name = "operation",
	.count = MP_OPERATION_BUCKETS,
	.index = {
		[BY_KEY] = {3, {"account", "operation", "key"}, F_TEXTEQ},
		[BY_TOKEN] = {1, {"token"}, F_UUID_EQ}
	}
};

/* What is asked for, and what answers. */
typedef struct Look
{
	int			by;
	Datum	   *values;			/* of the columns of the index; then the moment */
	MpPlan	   *statement;
	HeapTupleHeader row;		/* NULL: there is none */
	ItemPointerData place;
	Oid			relation;
} Look;

/* As a row of the whole table, whose columns are those of the bucket. */
static void
keep_row(Look *look, HeapTuple row)
{
	TupleDesc	desc = lookup_rowtype_tupdesc(operations.row_type, -1);

	look->row = DatumGetHeapTupleHeader(heap_copy_tuple_as_datum(row, desc));
	ReleaseTupleDesc(desc);
	look->place = row->t_self;
	look->relation = row->t_tableOid;
}

static bool
look_into_bucket(const MpBucketTable *table, const MpBucket *bucket, Relation relation, void *arg)
{
	Look	   *look = arg;
	TimestampTz moment = DatumGetTimestampTz(look->values[table->index[look->by].count]);
	HeapTuple	row = mp_find_in_bucket(table, bucket, relation, look->by, look->values, moment, GetActiveSnapshot());

	if (row != NULL)
		keep_row(look, row);
	return row == NULL;
}

static void
ask_statement(Look *look, bool latest)
{
	mp_spi_connect();
	if (latest)
		(void) mp_plan_read_latest(look->statement, look->values, NULL, 1);
	else
		(void) mp_plan_execute(look->statement, look->values, NULL, 1);
	if (SPI_processed > 0)
	{
		HeapTuple	row = SPI_tuptable->vals[0];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		bool		isnull;

		/* unpacked before it is copied: what unpacking makes goes with SPI */
		look->row = DatumGetHeapTupleHeader(SPI_getbinval(row, desc, 1, &isnull));
		look->row = (HeapTupleHeader) DatumGetPointer(SPI_datumTransfer(PointerGetDatum(look->row), false, -1));
		ItemPointerCopy((ItemPointer) DatumGetPointer(SPI_getbinval(row, desc, 2, &isnull)), &look->place);
		look->relation = DatumGetObjectId(SPI_getbinval(row, desc, 3, &isnull));
	}
	mp_spi_finish();
}

/* One snapshot for all buckets: a row may be on its way from one to another. */
static void
look_with_snapshot(Look *look, bool latest)
{
	bool		done = false;

	look->row = NULL;
	if (mp_buckets_are_whole(&operations))
	{
		CommandCounterIncrement();
		PushActiveSnapshot(latest ? GetLatestSnapshot() : GetTransactionSnapshot());
		done = mp_visit_buckets(&operations, look_into_bucket, look);
		PopActiveSnapshot();
	}
	if (!done)
	{
		look->row = NULL;
		ask_statement(look, latest);
	}
}

/*
 * The row that is there now.  A transaction that keeps to one snapshot is
 * refused when that shows something else: what it would do is founded on what
 * is no more.
 */
static Datum
look_up(FunctionCallInfo fcinfo, Look *look)
{
	look_with_snapshot(look, true);
	if (look->row == NULL)
		PG_RETURN_NULL();
	if (IsolationUsesXactSnapshot())
	{
		Look		seen = *look;

		look_with_snapshot(&seen, false);
		if (seen.row == NULL || seen.relation != look->relation || !ItemPointerEquals(&seen.place, &look->place))
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("could not serialize access due to concurrent use of an operation's key")));
	}
	PG_RETURN_HEAPTUPLEHEADER(look->row);
}

Datum
mp_sql_operation_of_key(PG_FUNCTION_ARGS)
{
	static MpPlan plan = {
		.sql = "SELECT o, o.ctid, o.tableoid FROM meal_planner.operation o"
		" WHERE o.account OPERATOR(pg_catalog.=) $1 AND o.operation OPERATOR(pg_catalog.=) $2"
		" AND o.key OPERATOR(pg_catalog.=) $3 AND o.expires_at OPERATOR(pg_catalog.>) $4"
		" LIMIT 1",
	.types = {TEXTOID, TEXTOID, TEXTOID, TIMESTAMPTZOID}, .in_index_order = true};
	Datum		values[4] = {PG_GETARG_DATUM(0), PG_GETARG_DATUM(1), PG_GETARG_DATUM(2), PG_GETARG_DATUM(3)};
	Look		look = {.by = BY_KEY, .values = values, .statement = &plan};

	return look_up(fcinfo, &look);
}

Datum
mp_sql_operation_of_token(PG_FUNCTION_ARGS)
{
	static MpPlan plan = {
		.sql = "SELECT o, o.ctid, o.tableoid FROM meal_planner.operation o"
		" WHERE o.token OPERATOR(pg_catalog.=) $1 AND o.expires_at OPERATOR(pg_catalog.>) $2 LIMIT 1",
	.types = {UUIDOID, TIMESTAMPTZOID}, .in_index_order = true};
	Datum		values[2] = {PG_GETARG_DATUM(0), PG_GETARG_DATUM(1)};
	Look		look = {.by = BY_TOKEN, .values = values, .statement = &plan};

	return look_up(fcinfo, &look);
}
