/*
 * bucket.c
 *		Looks rows up in tables that are made of buckets.
 *
 * Most buckets are empty.  A statement on the whole table opens them all with
 * their indexes, which takes many times as long as the looking; so they are read
 * here by the same index, without a statement, and those without a page not at
 * all.
 */
#include "bus/bucket.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tupconvert.h"
#include "bus/invalidation.h"
#include "catalog/namespace.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "commands/extension.h"
#include "nodes/primnodes.h"
#include "pgcompat.h"
#include "storage/bufmgr.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

/* Those of which something is known. */
static MpBucketTable *tables = NULL;

/* ------------------------------------------------------------------------
 * What is known
 * ------------------------------------------------------------------------ */

static bool
is_part_of(const MpBucketTable *table, Oid relation)
{
	if (relation == InvalidOid || relation == table->relation)
		return true;
	for (int i = 0; i < table->count; i++)
		if (relation == table->bucket[i].relation)
			return true;
	return false;
}

/* No catalog access here, see invalidation.h. */
static void
forget_buckets(Oid relation)
{
	for (MpBucketTable *table = tables; table != NULL; table = table->next)
		if (is_part_of(table, relation))
		{
			table->known = false;
			table->changed = true;
		}
}

static void
hear_of_changes(MpBucketTable *table)
{
	if (tables == NULL)
		mp_on_relation_change(forget_buckets);
	for (MpBucketTable *known = tables; known != NULL; known = known->next)
		if (known == table)
			return;
	table->next = tables;
	tables = table;
}

static Oid
relation_named(const char *name)
{
	return get_relname_relid(name, get_namespace_oid("meal_planner", false));
}

/* A part of the table will do, if values in the columns are enough to be in it. */
static bool
is_complete(Relation index, AttrNumber column)
{
	List	   *predicate = RelationGetIndexPredicate(index);
	NullTest   *test = predicate == NIL ? NULL : linitial(predicate);

	return predicate == NIL ||
		(list_length(predicate) == 1 && IsA(test, NullTest) && test->nulltesttype == IS_NOT_NULL &&
		 IsA(test->arg, Var) && ((Var *) test->arg)->varattno == column);
}

static bool
is_on(Relation index, TupleDesc desc, const AttrNumber *columns, int count)
{
	bool		same = index->rd_index->indisvalid && index->rd_rel->relam == BTREE_AM_OID &&
		index->rd_index->indnkeyatts >= count && is_complete(index, columns[0]);

	for (int i = 0; i < count && same; i++)
		same = index->rd_index->indkey.values[i] == columns[i] &&
			index->rd_indcollation[i] == TupleDescAttr(desc, columns[i] - 1)->attcollation;
	return same;
}

/* By its columns, whatever its name is. */
static Oid
index_on(Relation relation, const AttrNumber *columns, int count)
{
	Oid			found = InvalidOid;
	List	   *all = RelationGetIndexList(relation);
	ListCell   *cell;

	foreach(cell, all)
	{
		Relation	index = index_open(lfirst_oid(cell), AccessShareLock);

		if (is_on(index, RelationGetDescr(relation), columns, count))
			found = RelationGetRelid(index);
		index_close(index, AccessShareLock);
		if (OidIsValid(found))
			break;
	}
	list_free(all);
	return found;
}

static bool
get_to_know_bucket(MpBucketTable *table, MpBucket *bucket, TupleDesc desc)
{
	Relation	relation;
	bool		plain;

	if (!OidIsValid(bucket->relation))
		return false;
	relation = table_open(bucket->relation, AccessShareLock);
	plain = relation->rd_rel->relkind == RELKIND_RELATION &&
		convert_tuples_by_name(RelationGetDescr(relation), desc) == NULL;
	for (int i = 0; i < MP_BUCKET_INDEXES && table->index[i].count > 0 && plain; i++)
	{
		bucket->index[i] = index_on(relation, table->column[i], table->index[i].count);
		plain = OidIsValid(bucket->index[i]);
	}
	table_close(relation, AccessShareLock);
	return plain;
}

static void
get_to_know(MpBucketTable *table)
{
	Relation	relation;

	hear_of_changes(table);
	table->changed = false;
	table->relation = relation_named(table->name);
	relation = table_open(table->relation, AccessShareLock);
	table->row_type = relation->rd_rel->reltype;
	table->expires_at = get_attnum(table->relation, "expires_at");
	table->plain = true;
	table->whole = !OidIsValid(get_extension_oid("citus", true));
	for (int i = 0; i < MP_BUCKET_INDEXES; i++)
		for (int column = 0; column < table->index[i].count; column++)
			table->column[i][column] = get_attnum(table->relation, table->index[i].column[column]);
	for (int n = 0; n < table->count; n++)
	{
		MpBucket   *bucket = &table->bucket[n];
		char		name[NAMEDATALEN];

		bucket->number = n;
		snprintf(name, sizeof(name), "%s_%d", table->name, n);
		bucket->relation = relation_named(name);
		table->plain = table->plain && get_to_know_bucket(table, bucket, RelationGetDescr(relation));
	}
	table_close(relation, AccessShareLock);
	table->known = !table->changed;	/* last: an error on the way has made nothing known */
}

bool
mp_buckets_are_plain(MpBucketTable *table)
{
	if (!table->known)
		get_to_know(table);
	return table->plain;
}

bool
mp_buckets_are_whole(MpBucketTable *table)
{
	return mp_buckets_are_plain(table) && table->whole;
}

/* ------------------------------------------------------------------------
 * Looking
 * ------------------------------------------------------------------------ */

bool
mp_visit_buckets(MpBucketTable *table, MpBucketVisit visit, void *arg)
{
	bool		whole = table->whole;
	bool		same = true;
	bool		go_on = true;

	for (int n = 0; n < table->count && same && go_on; n++)
	{
		const MpBucket *bucket = &table->bucket[n];
		Relation	relation = table_open(bucket->relation, AccessShareLock);

		/* news may have come with the lock */
		if (!table->known)
		{
			get_to_know(table);
			same = table->plain && table->whole == whole && bucket->relation == RelationGetRelid(relation);
		}
		if (same && RelationGetNumberOfBlocks(relation) > 0)
			go_on = visit(table, bucket, relation, arg);
		table_close(relation, AccessShareLock);
	}
	return same;
}

static void
make_keys(const MpBucketTable *table, TupleDesc desc, int index, const Datum *values, ScanKeyData keys[3])
{
	for (int i = 0; i < table->index[index].count; i++)
	{
		AttrNumber	column = table->column[index][i];

		ScanKeyEntryInitialize(&keys[i], 0, column, BTEqualStrategyNumber, InvalidOid,
							   TupleDescAttr(desc, column - 1)->attcollation, table->index[index].equal, values[i]);
	}
}

static bool
has_expired(const MpBucketTable *table, HeapTuple row, TupleDesc desc, TimestampTz moment)
{
	bool		isnull;

	return DatumGetTimestampTz(heap_getattr(row, table->expires_at, desc, &isnull)) <= moment;
}

HeapTuple
mp_find_in_bucket(const MpBucketTable *table, const MpBucket *bucket, Relation relation,
				  int index, const Datum *values, TimestampTz moment, Snapshot snapshot)
{
	TupleDesc	desc = RelationGetDescr(relation);
	ScanKeyData keys[3];
	SysScanDesc scan;
	HeapTuple	row;

	make_keys(table, desc, index, values, keys);
	scan = systable_beginscan(relation, bucket->index[index], true, snapshot, table->index[index].count, keys);
	while (HeapTupleIsValid(row = systable_getnext(scan)) && has_expired(table, row, desc, moment))
		;
	if (HeapTupleIsValid(row))
		row = heap_copytuple(row);
	systable_endscan(scan);
	return row;
}
