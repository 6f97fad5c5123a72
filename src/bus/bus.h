/*
 * bus.h
 *		What the rooms of the bus share: an event, errors, the owner's rights.
 *
 * An event's life, file by file: event.c (emit; many: batch.c, append.c) ->
 * position.c (its place in the log) -> insert.c (its row) -> dispatch.c (who
 * wants it) -> handler.c (one call; handler_sql.c) -> delivery.c (what failed,
 * retry, dead letter) -> sweep.c (what is due).
 */
#ifndef MP_BUS_H
#define MP_BUS_H

#include "postgres.h"

#include "access/htup.h"
#include "access/tupdesc.h"
#include "bus/clock.h"
#include "fmgr.h"
#include "utils/elog.h"
#include "utils/timestamp.h"

/* Own SQLSTATEs; the message starts with the same code. */
#define MP_ERRCODE_INVALID		MAKE_SQLSTATE('M', 'P', '4', '0', '0')
#define MP_ERRCODE_FORBIDDEN	MAKE_SQLSTATE('M', 'P', '4', '0', '3')
#define MP_ERRCODE_NOT_FOUND	MAKE_SQLSTATE('M', 'P', '4', '0', '4')
#define MP_ERRCODE_CONFLICT		MAKE_SQLSTATE('M', 'P', '4', '0', '9')
#define MP_ERRCODE_KEY_REUSED	MAKE_SQLSTATE('M', 'P', '4', '2', '2')
#define MP_ERRCODE_UNAVAILABLE	MAKE_SQLSTATE('M', 'P', '5', '0', '3')
#define MP_ERRCODE_LOOP			MAKE_SQLSTATE('M', 'P', '5', '0', '8')

/* The columns of meal_planner.event, in the order of the table. */
typedef enum MpEventColumn
{
	MP_EVENT_ACCOUNT,
	MP_EVENT_POSITION,
	MP_EVENT_ID,
	MP_EVENT_DETAIL_TYPE,
	MP_EVENT_SOURCE,
	MP_EVENT_TIME,
	MP_EVENT_REGION,
	MP_EVENT_RESOURCES,
	MP_EVENT_DETAIL,
	MP_EVENT_STREAM,
	MP_EVENT_VERSION,
	MP_EVENT_DELIVER_AFTER,
	MP_EVENT_IDEMPOTENCY_KEY,
	MP_EVENT_HOPS,
	MP_EVENT_COLUMNS
} MpEventColumn;

typedef struct MpColumn
{
	const char *name;
	Oid			type;
} MpColumn;

extern const MpColumn mp_event_columns[MP_EVENT_COLUMNS];

/* An event as the server's values; they live as long as their maker says. */
typedef struct MpEvent
{
	Datum		values[MP_EVENT_COLUMNS];
	bool		nulls[MP_EVENT_COLUMNS];
	const text *replay_name;	/* it is delivered by a replay of that name; NULL: by none */
} MpEvent;

/* What mp_event_from_columns wants to be selected first, from "meal_planner.event e". */
#define MP_EVENT_COLUMN_LIST \
	"e.account, e.position, e.id, e.detail_type, e.source, e.time, e.region, e.resources," \
	" e.detail, e.stream, e.version, e.deliver_after, e.idempotency_key, e.hops"

#define mp_event_position(event)	DatumGetInt64((event)->values[MP_EVENT_POSITION])
#define mp_event_hops(event)		DatumGetInt16((event)->values[MP_EVENT_HOPS])

/* catalog.c: what this extension is called in this database */
extern Oid	mp_event_relation(void);
extern Oid	mp_event_type(void);
extern Oid	mp_owner(void);
extern bool mp_event_from_row(HeapTupleHeader row, MpEvent *event);
extern void mp_event_from_columns(HeapTuple row, TupleDesc desc, MpEvent *event);
extern Datum mp_event_to_row(const MpEvent *event);

/*
 * A kept SPI plan: prepared on first use, then for the life of the backend.
 * The text is static and every name in it qualified, so that the caller's
 * search_path has no say.  Argument types end with InvalidOid.
 */
typedef struct MpPlan
{
	const char *sql;
	Oid			types[17];

	/*
	 * Read in the order of an index, whatever the statistics say: a sort of all
	 * that lies behind a cursor would be a plan that nobody ever wants.
	 */
	bool		in_index_order;
	struct _SPI_plan *plan;
} MpPlan;

extern int	mp_plan_execute(MpPlan *plan, Datum *values, const bool *nulls, long max_rows);
extern int	mp_plan_read_latest(MpPlan *plan, Datum *values, const bool *nulls, long max_rows);

extern void mp_spi_connect(void);
extern void mp_spi_finish(void);

/* Begins the result of a set-returning function, as rows to be stored. */
extern struct Tuplestorestate *mp_begin_rows(FunctionCallInfo fcinfo, TupleDesc *desc);

/* A random number in [0, 1), for jitter. */
extern double mp_random_share(void);

/* MP400: an argument is wrong. */
extern _Noreturn void mp_refuse_argument(const char *format, ...) pg_attribute_printf(1, 2);

/* A C string as text, NULL as SQL NULL. */
extern Datum mp_text_or_null(const char *string, bool *isnull);

/* Order of their bytes, whatever the collation. */
extern int	mp_compare_texts(const text *left, const text *right);

/* An array for a kept plan, without NULLs. */
extern Datum mp_array(Datum *elements, int count, Oid type);

#endif							/* MP_BUS_H */
