/*
 * catalog.c
 *		What the extension's objects are called in this database.
 *
 * Oids are looked up once per backend and forgotten when the event table's
 * relcache entry goes, so that DROP and CREATE EXTENSION in one session work.
 */
#include "bus/bus.h"

#include "access/htup_details.h"
#include "access/tupdesc.h"
#include "bus/invalidation.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

const MpColumn mp_event_columns[MP_EVENT_COLUMNS] = {
	{"account", TEXTOID}, {"position", INT8OID}, {"id", UUIDOID}, {"detail_type", TEXTOID},
	{"source", TEXTOID}, {"time", TIMESTAMPTZOID}, {"region", TEXTOID}, {"resources", TEXTARRAYOID},
	{"detail", JSONBOID}, {"stream", TEXTOID}, {"version", INT8OID}, {"deliver_after", TIMESTAMPTZOID},
	{"idempotency_key", TEXTOID}, {"hops", INT2OID}
};

static Oid	event_relation = InvalidOid;
static Oid	event_type = InvalidOid;
static Oid	owner = InvalidOid;

/* Must not touch a catalog: it runs whenever messages arrive. */
static void
forget(Oid relation)
{
	if (relation == InvalidOid || relation == event_relation)
		event_relation = InvalidOid;
}

static void
look_up(void)
{
	static bool registered = false;
	HeapTuple	tuple;
	Form_pg_class form;
	Oid			namespace;
	Oid			relation;

	if (OidIsValid(event_relation))
		return;
	if (!registered)
	{
		mp_on_relation_change(forget);
		registered = true;
	}

	namespace = get_namespace_oid("meal_planner", false);
	relation = get_relname_relid("event", namespace);
	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relation));
	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(MP_ERRCODE_UNAVAILABLE),
				 errmsg("MP503: extension meal_planner is not installed in this database"),
				 errhint("retry=no. Run CREATE EXTENSION meal_planner.")));
	form = (Form_pg_class) GETSTRUCT(tuple);
	event_type = form->reltype;
	owner = form->relowner;
	ReleaseSysCache(tuple);
	event_relation = relation;
}

Oid
mp_event_relation(void)
{
	look_up();
	return event_relation;
}

Oid
mp_event_type(void)
{
	look_up();
	return event_type;
}

/* The role that owns the tables: the bus does its own bookkeeping as this one. */
Oid
mp_owner(void)
{
	look_up();
	return owner;
}

static bool
is_nullable(MpEventColumn column)
{
	return column == MP_EVENT_STREAM || column == MP_EVENT_VERSION ||
		column == MP_EVENT_DELIVER_AFTER || column == MP_EVENT_IDEMPOTENCY_KEY;
}

/*
 * Takes a row of the log apart; the values point into the row.  False for a row
 * of NULLs, which is what an outer join makes of an event that is not there.
 * The type is anybody's to use, so that a row need not be the log's: its NULLs
 * are checked as the table would.
 */
bool
mp_event_from_row(HeapTupleHeader row, MpEvent *event)
{
	TupleDesc	desc = lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(row),
											  HeapTupleHeaderGetTypMod(row));
	HeapTupleData tuple = {.t_data = row, .t_len = HeapTupleHeaderGetDatumLength(row)};
	Datum	   *values = palloc(sizeof(Datum) * desc->natts);
	bool	   *nulls = palloc(sizeof(bool) * desc->natts);

	Assert(desc->natts >= MP_EVENT_COLUMNS);
	ItemPointerSetInvalid(&tuple.t_self);
	heap_deform_tuple(&tuple, desc, values, nulls);
	memcpy(event->values, values, sizeof(event->values));
	memcpy(event->nulls, nulls, sizeof(event->nulls));
	event->replay_name = NULL;
	ReleaseTupleDesc(desc);
	pfree(values);
	pfree(nulls);

	if (event->nulls[MP_EVENT_ID])
		return false;
	for (int i = 0; i < MP_EVENT_COLUMNS; i++)
		if (event->nulls[i] && !is_nullable(i))
			ereport(ERROR,
					(errcode(ERRCODE_NOT_NULL_VIOLATION),
					 errmsg("column %d of an event must not be NULL", i + 1)));
	return true;
}

/*
 * Takes a row of a query apart that begins with MP_EVENT_COLUMN_LIST; the
 * values point into the row.
 */
void
mp_event_from_columns(HeapTuple row, TupleDesc desc, MpEvent *event)
{
	Datum		values[MaxHeapAttributeNumber];
	bool		nulls[MaxHeapAttributeNumber];

	Assert(desc->natts >= MP_EVENT_COLUMNS);
	heap_deform_tuple(row, desc, values, nulls);
	memcpy(event->values, values, sizeof(event->values));
	memcpy(event->nulls, nulls, sizeof(event->nulls));
	event->replay_name = NULL;
}

/* An event as a value of type meal_planner.event, the argument of handlers. */
Datum
mp_event_to_row(const MpEvent *event)
{
	TupleDesc	desc = lookup_rowtype_tupdesc(mp_event_type(), -1);
	Datum	   *values = palloc0(sizeof(Datum) * desc->natts);
	bool	   *nulls = palloc(sizeof(bool) * desc->natts);
	HeapTuple	tuple;

	memcpy(values, event->values, sizeof(event->values));
	memset(nulls, true, sizeof(bool) * desc->natts);
	memcpy(nulls, event->nulls, sizeof(event->nulls));
	tuple = heap_form_tuple(desc, values, nulls);
	ReleaseTupleDesc(desc);
	return HeapTupleGetDatum(tuple);
}
