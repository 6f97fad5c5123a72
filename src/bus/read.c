/*
 * read.c
 *		mp_read_events: the log, as far as it is complete.
 */
#include "bus/event_json.h"
#include "bus/position.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

/* Rows read at a time: a pattern may let most of them pass. */
#define PAGE 1000

PG_FUNCTION_INFO_V1(mp_read_events);

/* What one call reads, page by page. */
typedef struct Reading
{
	Tuplestorestate *store;
	TupleDesc	desc;
	const MpPattern *pattern;	/* NULL: all */
	int64		position;		/* of the last row read */
	int			wanted;			/* rows still to be returned */
} Reading;

static void
return_page(Reading *reading, SPITupleTable *rows, uint64 count)
{
	MemoryContext page = AllocSetContextCreate(CurrentMemoryContext, "meal_planner read",
											   ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(page);

	for (uint64 i = 0; i < count && reading->wanted > 0; i++)
	{
		MpEvent		event;
		MpJson		json;
		Datum		values[2];
		bool		nulls[2] = {false, false};

		MemoryContextReset(page);
		mp_event_from_columns(rows->vals[i], rows->tupdesc, &event);
		reading->position = mp_event_position(&event);
		json = mp_json_of_event(&event);
		if (reading->pattern != NULL && !mp_pattern_match(reading->pattern, &mp_json_reader, &json))
			continue;
		values[0] = Int64GetDatum(reading->position);
		values[1] = JsonbPGetDatum(mp_event_envelope(&event, NULL));
		tuplestore_putvalues(reading->store, reading->desc, values, nulls);
		reading->wanted--;
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(page);
}

Datum
mp_read_events(PG_FUNCTION_ARGS)
{
	static MpPlan plan = {
		.sql = "SELECT " MP_EVENT_COLUMN_LIST " FROM meal_planner.event e WHERE e.account OPERATOR(pg_catalog.=) $1"
		" AND e.position OPERATOR(pg_catalog.>) $2 AND e.position OPERATOR(pg_catalog.<=) $3"
		" ORDER BY e.position LIMIT $4",
	.types = {TEXTOID, INT8OID, INT8OID, INT4OID}, .in_index_order = true};
	text	   *account = PG_ARGISNULL(3) ? cstring_to_text("local") : PG_GETARG_TEXT_PP(3);
	Reading		reading = {
		.position = PG_ARGISNULL(0) ? 0 : PG_GETARG_INT64(0),
		.wanted = PG_ARGISNULL(1) ? 1000 : PG_GETARG_INT32(1)
	};
	int64		bound;
	bool		at_end = false;

	mp_require_preload();
	mp_require_read_committed();
	if (!PG_ARGISNULL(2))
		reading.pattern = mp_compile_pattern(PG_GETARG_JSONB_P(2), CurrentMemoryContext);
	reading.store = mp_begin_rows(fcinfo, &reading.desc);

	/* The bound first; the statement below takes its snapshot after it. */
	bound = mp_position_read_bound(VARDATA_ANY(account), VARSIZE_ANY_EXHDR(account));
	while (reading.wanted > 0 && !at_end)
	{
		int			page = reading.pattern ? PAGE : Min(PAGE, reading.wanted);
		Datum		values[4] = {
			PointerGetDatum(account), Int64GetDatum(reading.position), Int64GetDatum(bound), Int32GetDatum(page)
		};

		CHECK_FOR_INTERRUPTS();
		mp_spi_connect();
		mp_plan_execute(&plan, values, NULL, 0);
		at_end = SPI_processed < (uint64) page;
		return_page(&reading, SPI_tuptable, SPI_processed);
		mp_spi_finish();
	}
	return (Datum) 0;
}
