/*
 * operation_look.c
 *		Looks an operation up, by its key or its token.
 *
 * It may lie in any bucket, and most buckets are empty.  A statement on the
 * whole table opens them all with their indexes, which takes many times as long
 * as the looking; so they are read here by the same index, without a statement,
 * and those without a page not at all.  That is done for buckets as the
 * extension makes them; if anything is different the statement is used.
 *
 * The look is at what is true now, also in a transaction that keeps to one
 * snapshot; what that snapshot does not show is a conflict.
 */
#include "bus/bus.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tupconvert.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "core/operation.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "pgcompat.h"
#include "storage/bufmgr.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/typcache.h"

PG_FUNCTION_INFO_V1(mp_sql_operation_of_key);
PG_FUNCTION_INFO_V1(mp_sql_operation_of_token);

typedef enum LookBy
{
	BY_KEY,						/* account, operation, key */
	BY_TOKEN,
	LOOKS
} LookBy;

/* What is asked for, and what answers. */
typedef struct Look
{
	LookBy		by;
	Datum	   *values;			/* of the columns of the index; then the moment */
	MpPlan	   *statement;
	HeapTupleHeader row;		/* NULL: there is none */
	ItemPointerData place;
	Oid			relation;
} Look;

/* ------------------------------------------------------------------------
 * The buckets
 * ------------------------------------------------------------------------ */

typedef struct Bucket
{
	Oid			relation;
	Oid			index[LOOKS];
} Bucket;

typedef struct Buckets
{
	bool		known;
	bool		plain;
	Oid			table;
	Oid			row_type;
	AttrNumber	column[LOOKS][3];	/* those of the indexes */
	AttrNumber	expires_at;
	Bucket		bucket[MP_BUCKETS];
} Buckets;

static Buckets buckets;

/* The columns of an index, and how they are compared. */
static const struct
{
	int			count;
	const char *column[3];
	RegProcedure equal;
}			looks[LOOKS] = {
	[BY_KEY] = {3, {"account", "operation", "key"}, F_TEXTEQ},
	[BY_TOKEN] = {1, {"token"}, F_UUID_EQ}
};

/* No catalog access here, see inval.c. */
static void
forget_buckets(Datum arg pg_attribute_unused(), Oid relation)
{
	if (relation == InvalidOid || relation == buckets.table)
		buckets.known = false;
	for (int i = 0; i < MP_BUCKETS; i++)
		if (relation == buckets.bucket[i].relation)
			buckets.known = false;
}

static Oid
named(const char *format, int number)
{
	char		name[NAMEDATALEN];

	snprintf(name, sizeof(name), format, number);
	return get_relname_relid(name, get_namespace_oid("meal_planner", false));
}

static bool
is_plain(const Bucket *bucket, TupleDesc desc)
{
	Relation	relation;
	bool		plain;

	if (!OidIsValid(bucket->relation) || !OidIsValid(bucket->index[BY_KEY]) || !OidIsValid(bucket->index[BY_TOKEN]))
		return false;
	relation = table_open(bucket->relation, AccessShareLock);
	plain = relation->rd_rel->relkind == RELKIND_RELATION &&
		convert_tuples_by_name(RelationGetDescr(relation), desc) == NULL;
	table_close(relation, AccessShareLock);
	return plain;
}

static void
get_to_know_buckets(void)
{
	static bool registered = false;
	Relation	table;

	if (!registered)
	{
		CacheRegisterRelcacheCallback(forget_buckets, (Datum) 0);
		registered = true;
	}
	buckets.table = named("operation", 0);
	buckets.known = true;		/* unless it is forgotten meanwhile */
	table = table_open(buckets.table, AccessShareLock);
	buckets.row_type = table->rd_rel->reltype;
	buckets.expires_at = get_attnum(buckets.table, "expires_at");
	for (int by = 0; by < LOOKS; by++)
		for (int i = 0; i < looks[by].count; i++)
			buckets.column[by][i] = get_attnum(buckets.table, looks[by].column[i]);
	/* citus hides a distributed table behind one that looks like any other */
	buckets.plain = !OidIsValid(get_extension_oid("citus", true));
	for (int i = 0; i < MP_BUCKETS; i++)
	{
		Bucket	   *bucket = &buckets.bucket[i];

		bucket->relation = named("operation_%d", i);
		bucket->index[BY_KEY] = named("operation_%d_pkey", i);
		bucket->index[BY_TOKEN] = named("operation_%d_token_idx", i);
		buckets.plain = buckets.plain && is_plain(bucket, RelationGetDescr(table));
	}
	table_close(table, AccessShareLock);
}

/* ------------------------------------------------------------------------
 * In one bucket
 * ------------------------------------------------------------------------ */

static int
make_keys(const Look *look, TupleDesc desc, ScanKeyData keys[3])
{
	int			count = looks[look->by].count;

	for (int i = 0; i < count; i++)
	{
		AttrNumber	column = buckets.column[look->by][i];

		ScanKeyEntryInitialize(&keys[i], 0, column, BTEqualStrategyNumber, InvalidOid,
							   TupleDescAttr(desc, column - 1)->attcollation, looks[look->by].equal, look->values[i]);
	}
	return count;
}

static bool
has_expired(HeapTuple row, TupleDesc desc, Datum moment)
{
	bool		isnull;

	return DatumGetTimestampTz(heap_getattr(row, buckets.expires_at, desc, &isnull)) <= DatumGetTimestampTz(moment);
}

/* As a row of the whole table, see is_plain. */
static void
keep_row(Look *look, HeapTuple row)
{
	TupleDesc	desc = lookup_rowtype_tupdesc(buckets.row_type, -1);

	look->row = DatumGetHeapTupleHeader(heap_copy_tuple_as_datum(row, desc));
	ReleaseTupleDesc(desc);
	look->place = row->t_self;
	look->relation = row->t_tableOid;
}

/* One that had no page after the snapshot was taken has nothing that it shows. */
static void
look_into_bucket(Look *look, Relation bucket, Oid index)
{
	TupleDesc	desc = RelationGetDescr(bucket);
	ScanKeyData keys[3];
	SysScanDesc scan;
	HeapTuple	row;
	int			count;

	if (RelationGetNumberOfBlocks(bucket) == 0)
		return;
	count = make_keys(look, desc, keys);
	scan = systable_beginscan(bucket, index, true, GetActiveSnapshot(), count, keys);
	while (look->row == NULL && HeapTupleIsValid(row = systable_getnext(scan)))
		if (!has_expired(row, desc, look->values[count]))
			keep_row(look, row);
	systable_endscan(scan);
}

/* ------------------------------------------------------------------------
 * In all of them
 * ------------------------------------------------------------------------ */

/*
 * With the active snapshot, one for all: a row may be on its way from a bucket
 * to another.  False: somebody is changing the tables, who knows what is there.
 */
static bool
look_into_buckets(Look *look)
{
	for (int i = 0; i < MP_BUCKETS && look->row == NULL; i++)
	{
		const Bucket *bucket = &buckets.bucket[i];
		Relation	relation = table_open(bucket->relation, AccessShareLock);

		if (buckets.known)		/* also with the news that came with the lock */
			look_into_bucket(look, relation, bucket->index[look->by]);
		table_close(relation, AccessShareLock);
		if (!buckets.known)
			return false;
	}
	return true;
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

		look->row = DatumGetHeapTupleHeader(SPI_datumTransfer(SPI_getbinval(row, desc, 1, &isnull), false, -1));
		ItemPointerCopy((ItemPointer) DatumGetPointer(SPI_getbinval(row, desc, 2, &isnull)), &look->place);
		look->relation = DatumGetObjectId(SPI_getbinval(row, desc, 3, &isnull));
	}
	mp_spi_finish();
}

static void
look_with_snapshot(Look *look, bool latest)
{
	bool		done = false;

	look->row = NULL;
	if (!buckets.known)
		get_to_know_buckets();
	if (buckets.plain)
	{
		CommandCounterIncrement();
		PushActiveSnapshot(latest ? GetLatestSnapshot() : GetTransactionSnapshot());
		done = look_into_buckets(look);
		PopActiveSnapshot();
	}
	if (!done)
		ask_statement(look, latest);
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
