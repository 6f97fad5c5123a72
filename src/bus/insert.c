/*
 * insert.c
 *		A row of the log goes straight into its partition.
 *
 * A statement on the log's table has its state built and its row routed anew
 * each time, which is half the cost of an emit.  What it comes to is done here by
 * the same functions of the server: constraints, indexes, row triggers.  That a
 * row is within the bounds of its partition is known from partition.c.
 *
 * It is done for a partition as the extension makes them.  Whatever else the
 * server would have done for a statement (rules, row security, triggers before
 * the row or of the statement, defaults of columns that somebody has added,
 * other kinds of tables, a distributed log) is left to the statement.
 */
#include "bus/event.h"

#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "bus/dispatch.h"
#include "bus/invalidation.h"
#include "bus/partition.h"
#include "catalog/pg_class.h"
#include "commands/extension.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "pgcompat.h"
#include "utils/acl.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/* What is known of the partition in use. */
typedef struct Leaf
{
	Oid			relation;		/* InvalidOid: nothing */
	Oid			parent;
	Oid			role;			/* who may insert */
	bool		plain;
	int			natts;
	int			attribute[MP_EVENT_COLUMNS];	/* from 0; dropped ones count */
} Leaf;

static Leaf leaf;

/* No catalog access here, see inval.c. */
static void
forget_leaf(Oid relation)
{
	if (relation == InvalidOid || relation == leaf.relation || relation == leaf.parent)
		leaf.relation = InvalidOid;
}

static int
column_of_attribute(Form_pg_attribute attribute)
{
	for (int column = 0; column < MP_EVENT_COLUMNS; column++)
		if (strcmp(NameStr(attribute->attname), mp_event_columns[column].name) == 0)
			return mp_event_columns[column].type == attribute->atttypid ? column : -1;
	return -1;
}

/* Restored partitions may have their columns in another order. */
static bool
find_columns(TupleDesc desc)
{
	int			found = 0;

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);
		int			column;

		if (attribute->attisdropped)
			continue;
		column = column_of_attribute(attribute);
		if (column < 0)
			return false;
		leaf.attribute[column] = i;
		found++;
	}
	leaf.natts = desc->natts;
	return found == MP_EVENT_COLUMNS;
}

/* Those of statements are the parent's; a partition's own would not fire. */
static bool
has_other_triggers(Relation parent, Relation relation)
{
	TriggerDesc *of_statement = parent->trigdesc;
	TriggerDesc *of_row = relation->trigdesc;

	return (of_statement != NULL &&
			(of_statement->trig_insert_before_statement || of_statement->trig_insert_after_statement ||
			 of_statement->trig_insert_new_table)) ||
		(of_row != NULL && of_row->trig_insert_before_row);
}

/* Both are locked against whatever could change the answer. */
static bool
is_plain(Relation relation)
{
	Relation	parent = relation_open(leaf.parent, NoLock);
	bool		plain = relation->rd_rel->relkind == RELKIND_RELATION &&
		find_columns(RelationGetDescr(relation)) &&
		!parent->rd_rel->relhasrules && !parent->rd_rel->relrowsecurity && !has_other_triggers(parent, relation) &&
		pg_class_aclcheck(leaf.parent, leaf.role, ACL_INSERT) == ACLCHECK_OK &&
	/* which hides a distributed table behind one that looks like any other */
		!OidIsValid(get_extension_oid("citus", true));

	relation_close(parent, NoLock);
	return plain;
}

static void
get_to_know(Relation relation)
{
	static bool registered = false;

	if (!registered)
	{
		mp_on_relation_change(forget_leaf);
		registered = true;
	}
	leaf.relation = RelationGetRelid(relation);
	leaf.parent = mp_event_relation();
	leaf.role = GetUserId();
	leaf.plain = is_plain(relation);
}

static TupleTableSlot *
slot_of_event(EState *estate, Relation relation, const MpEvent *event)
{
	TupleTableSlot *slot = ExecAllocTableSlot(&estate->es_tupleTable, RelationGetDescr(relation), &TTSOpsVirtual);

	if (leaf.natts > MP_EVENT_COLUMNS)
		memset(slot->tts_isnull, true, sizeof(bool) * leaf.natts);
	for (int column = 0; column < MP_EVENT_COLUMNS; column++)
	{
		slot->tts_values[leaf.attribute[column]] = event->values[column];
		slot->tts_isnull[leaf.attribute[column]] = event->nulls[column];
	}
	return ExecStoreVirtualTuple(slot);
}

/* The steps of a statement, as SPI and the executor take them. */
static void
insert_row(Relation relation, const MpEvent *event)
{
	EState	   *estate;
	ResultRelInfo *target;
	TupleTableSlot *slot;
	List	   *to_recheck;

	PreventCommandIfReadOnly("INSERT");
	PreventCommandIfParallelMode("INSERT");
	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());

	estate = CreateExecutorState();
	target = makeNode(ResultRelInfo);
	InitResultRelInfo(target, relation, 0, NULL, 0);
	estate->es_opened_result_relations = lappend(estate->es_opened_result_relations, target);
	estate->es_output_cid = GetCurrentCommandId(true);
	slot = slot_of_event(estate, relation, event);
	AfterTriggerBeginQuery();
	ExecOpenIndices(target, false);
	ExecConstraints(target, slot, estate);
	simple_table_tuple_insert(relation, slot);
	to_recheck = mp_insert_index_tuples(target, slot, estate);
	ExecARInsertTriggers(estate, target, slot, to_recheck, NULL);
	AfterTriggerEndQuery(estate);
	ExecCloseIndices(target);
	ExecResetTupleTable(estate->es_tupleTable, false);
	FreeExecutorState(estate);

	PopActiveSnapshot();
	CommandCounterIncrement();
}

bool
mp_insert_into_partition(const MpEvent *event)
{
	Oid			partition = mp_partition_lock(mp_event_position(event));
	Relation	relation;
	bool		plain;

	if (!OidIsValid(partition))
		return false;
	relation = table_open(partition, NoLock);
	if (leaf.relation != partition || leaf.role != GetUserId())
		get_to_know(relation);
	plain = leaf.relation == partition && leaf.plain;
	if (plain)
		insert_row(relation, event);
	table_close(relation, NoLock);
	return plain;
}
