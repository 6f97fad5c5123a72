/*
 * breaker_store.c
 *		Circuit breakers in their tables.
 *
 * What is configured is a row of meal_planner.breaker; where a breaker stands
 * is one of breaker_state, and how it came there is in breaker_history.  The
 * last two are written from shared memory, by a background worker in a
 * transaction of its own: they have to hold although the transaction that saw
 * the last failure rolls back.  Whoever writes locks the row of the state first
 * and looks at shared memory second, so that the last one writes the newest.
 *
 * When no worker is free, or a change came with a commit, where nothing can be
 * written any more, the next sweep does it.
 */
#include "bus/breaker.h"

#include "access/xact.h"
#include "bus/errand.h"
#include "bus/position.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"

/* Storing is a few milliseconds of work, and nobody is worth waiting for. */
#define LONGEST_WAIT_MS 2000

/* Milliseconds from here on are the lowest epochs of a new start. */
#define EPOCH_ORIGIN	(INT64CONST(9497) * USECS_PER_DAY)	/* 2026-01-01 UTC */

/* Changes that this transaction stores: it may abort. */
typedef struct Storing
{
	MpBreakerPlace *place;
	uint64		number;
	SubTransactionId subtransaction;
	struct Storing *next;
} Storing;

static Storing *storing = NULL;

PG_FUNCTION_INFO_V1(mp_breakers);
PG_FUNCTION_INFO_V1(mp_breaker_changes);
PG_FUNCTION_INFO_V1(mp_breakers_unstored);

/* ------------------------------------------------------------------------
 * Reading
 * ------------------------------------------------------------------------ */

static int64
time_of(int column, int64 if_null)
{
	bool		isnull;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column, &isnull);

	return isnull ? if_null : DatumGetTimestampTz(value);
}

static void
text_of(int column, char *buffer, size_t size)
{
	char	   *value = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column);

	strlcpy(buffer, value ? value : "", size);
}

/*
 * A start of the server forgets how often a closed one failed, and what probes
 * are out: of a breaker that was half-open nobody knows, so that it is open and
 * may be tried.  Epochs that were not stored must not be given out again;
 * milliseconds are always ahead of them.
 */
static void
read_state(TimestampTz now, MpBreaker *breaker)
{
	char		word[16];
	bool		isnull;
	int64		epoch;

	epoch = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 3, &isnull));
	if (isnull)
		epoch = 0;
	mp_breaker_init(breaker, Max(epoch + 1, (now - EPOCH_ORIGIN) / 1000), now);
	if (isnull)
		return;
	text_of(4, word, sizeof(word));
	if (strcmp(word, "closed") != 0)
		breaker->state = MP_BREAKER_OPEN;
	breaker->changed_at = time_of(5, now);
	breaker->opened_at = time_of(6, 0);
	breaker->open_until = time_of(7, now);
	breaker->open_length = (int64) (DatumGetFloat8(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 8, &isnull)) * USECS_PER_SEC);
	breaker->open_count = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 9, &isnull));
	text_of(10, word, sizeof(word));
	breaker->forced = strcmp(word, "open") == 0 ? MP_FORCE_OPEN
		: strcmp(word, "closed") == 0 ? MP_FORCE_CLOSED : MP_FORCE_NONE;
	breaker->forced_until = time_of(11, 0);
}

void
mp_breaker_read_row(const char *name, TimestampTz now, MpBreakerRow *row)
{
	static MpPlan plan = {
		.sql = "SELECT b.options, b.version, s.epoch, s.state, s.changed_at, s.opened_at, s.open_until, s.open_seconds,"
		" s.open_count, s.forced, s.forced_until, s.forced_by, s.forced_reason"
		" FROM (SELECT $1 AS name) n"
		" LEFT JOIN meal_planner.breaker b ON b.name OPERATOR(pg_catalog.=) n.name"
		" LEFT JOIN meal_planner.breaker_state s ON s.name OPERATOR(pg_catalog.=) n.name",
	.types = {TEXTOID}};
	Datum		value = CStringGetTextDatum(name);
	Datum		options;
	bool		isnull;

	mp_spi_connect();
	mp_plan_read_latest(&plan, &value, NULL, 1);
	memset(row, 0, sizeof(*row));
	options = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	row->config = mp_breaker_config_of_jsonb(isnull ? NULL : DatumGetJsonbP(options));
	row->config_version = time_of(2, 0);
	read_state(now, &row->breaker);
	text_of(12, row->forced_by, sizeof(row->forced_by));
	text_of(13, row->forced_reason, sizeof(row->forced_reason));
	if (row->config.metrics_only && row->breaker.forced == MP_FORCE_NONE)
		row->breaker.state = MP_BREAKER_CLOSED;
	mp_spi_finish();
}

/* ------------------------------------------------------------------------
 * Writing
 * ------------------------------------------------------------------------ */

static void
end_of_transaction(XactEvent event, void *arg pg_attribute_unused())
{
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
		return;
	if (event == XACT_EVENT_COMMIT)
		for (Storing *s = storing; s != NULL; s = s->next)
			mp_breaker_stored(s->place, s->number);
	storing = NULL;				/* its memory goes with the transaction */
}

/* What lies in a subtransaction began after it: newer ones come first, and have higher numbers. */
static void
end_of_subtransaction(SubXactEvent event, SubTransactionId mine,
					  SubTransactionId parent pg_attribute_unused(), void *arg pg_attribute_unused())
{
	while (event == SUBXACT_EVENT_ABORT_SUB && storing != NULL && storing->subtransaction >= mine)
		storing = storing->next;
}

static void
remember_storing(MpBreakerPlace *place, uint64 number)
{
	static bool registered = false;
	Storing    *s = MemoryContextAlloc(TopTransactionContext, sizeof(Storing));

	if (!registered)
	{
		RegisterXactCallback(end_of_transaction, NULL);
		RegisterSubXactCallback(end_of_subtransaction, NULL);
		registered = true;
	}
	*s = (Storing) {place, number, GetCurrentSubTransactionId(), storing};
	storing = s;
}

void
mp_breaker_store(MpBreakerPlace *place, const char *name)
{
	char	   *command;
	MpErrand	errand = {
		.database = MyDatabaseId, .role = mp_owner(), .internal = true, .timeout_ms = LONGEST_WAIT_MS
	};
	MpErrandResult result;

	if (mp_breaker_is_stored(place))
		return;
	command = psprintf("SELECT meal_planner.store_breaker(%s)", quote_literal_cstr(name));
	errand.command = command;
	switch (mp_errand_run(&errand, &result))
	{
		case MP_ERRAND_DONE:
			return;
		case MP_ERRAND_FAILED:
			break;
		case MP_ERRAND_NO_WORKER:
			strlcpy(result.answer, "no background worker is free", sizeof(result.answer));
			break;
		case MP_ERRAND_TIMED_OUT:
			strlcpy(result.answer, "it took too long", sizeof(result.answer));
			break;
	}
	ereport(WARNING,
			(errmsg("the state of circuit breaker \"%s\" is not stored yet: %s", name, result.answer),
			 errhint("It is in force. The next sweep stores it; until then a crash of the server would lose it.")));
}

/* ------------------------------------------------------------------------
 * Rows for SQL
 * ------------------------------------------------------------------------ */

static Datum
time_or_null(int64 time, bool *isnull)
{
	*isnull = time == 0;
	return TimestampTzGetDatum(time);
}

static Datum
word_or_null(const char *word, bool *isnull)
{
	return mp_text_or_null(word[0] ? word : NULL, isnull);
}

static int
probes_out(const MpBreaker *breaker)
{
	int			out = 0;

	for (int i = 0; i < MP_BREAKER_MAX_PERMITS; i++)
		out += breaker->permit[i].serial != 0;
	return out;
}

/* The columns of meal_planner.breakers() */
#define BREAKER_COLUMNS (19 + MP_BREAKER_COUNTERS)

static void
put_breaker(Tuplestorestate *store, TupleDesc desc, const MpBreakerCopy *copy)
{
	const MpBreaker *breaker = &copy->row.breaker;
	bool		nulls[BREAKER_COLUMNS] = {false};
	Datum		values[BREAKER_COLUMNS] = {
		CStringGetTextDatum(copy->name),
		CStringGetTextDatum(mp_breaker_state_name(breaker->state)),
		Int32GetDatum(breaker->consecutive),
		time_or_null(breaker->opened_at, &nulls[3]),
		breaker->state == MP_BREAKER_OPEN && breaker->forced == MP_FORCE_NONE ? TimestampTzGetDatum(breaker->open_until)
		: time_or_null(breaker->forced == MP_FORCE_OPEN ? breaker->forced_until : 0, &nulls[4]),
		Int64GetDatum(breaker->epoch),
		Int32GetDatum(probes_out(breaker)),
		TimestampTzGetDatum(breaker->changed_at),
		Float8GetDatum((double) breaker->open_length / USECS_PER_SEC),
		Int32GetDatum(breaker->open_count),
		word_or_null(breaker->forced == MP_FORCE_NONE ? "" : breaker->forced == MP_FORCE_OPEN ? "open" : "closed", &nulls[10]),
		time_or_null(breaker->forced_until, &nulls[11]),
		word_or_null(copy->row.forced_by, &nulls[12]),
		word_or_null(copy->row.forced_reason, &nulls[13]),
		BoolGetDatum(copy->row.config.metrics_only),
		BoolGetDatum(copy->stored),
		Int32GetDatum(breaker->calls),
		Int32GetDatum(breaker->failures),
		Int32GetDatum(breaker->slow)
	};

	for (int c = 0; c < MP_BREAKER_COUNTERS; c++)
		values[19 + c] = Int64GetDatum((int64) copy->counter[c]);
	tuplestore_putvalues(store, desc, values, nulls);
}

/* Shares every breaker that has a row; on a standby, shows the rows themselves. */
static void
put_stored_breakers(Tuplestorestate *store, TupleDesc desc)
{
	static MpPlan plan = {
	.sql = "SELECT b.name FROM meal_planner.breaker b UNION SELECT s.name FROM meal_planner.breaker_state s"};
	SPITupleTable *names;
	uint64		count;

	mp_plan_read_latest(&plan, NULL, NULL, 0);
	names = SPI_tuptable;
	count = SPI_processed;
	for (uint64 i = 0; i < count; i++)
	{
		char	   *name = SPI_getvalue(names->vals[i], names->tupdesc, 1);

		if (strlen(name) > MP_BREAKER_NAME_BYTES)
			continue;			/* written by hand */
		if (RecoveryInProgress() || mp_breaker_find_if_room(name) == NULL)
		{
			MpBreakerCopy copy;

			memset(&copy, 0, sizeof(copy));
			copy.stored = true;
			strlcpy(copy.name, name, sizeof(copy.name));
			mp_breaker_read_row(name, mp_clock_now(), &copy.row);
			put_breaker(store, desc, &copy);
		}
	}
}

Datum
mp_breakers(PG_FUNCTION_ARGS)
{
	TupleDesc	desc;
	Tuplestorestate *store;
	MpBreakerCopy copy;

	mp_require_preload();
	store = mp_begin_rows(fcinfo, &desc);
	if (!PG_ARGISNULL(0))
	{
		mp_breaker_look(mp_breaker_find(text_to_cstring(PG_GETARG_TEXT_PP(0))), false, &copy);
		put_breaker(store, desc, &copy);
		return (Datum) 0;
	}
	mp_spi_connect();
	put_stored_breakers(store, desc);
	mp_spi_finish();
	if (!RecoveryInProgress())
	{
		MpBreakerPlace *place;
		int			index = 0;

		while ((place = mp_breaker_next(&index)) != NULL)
		{
			mp_breaker_look(place, true, &copy);
			put_breaker(store, desc, &copy);
		}
	}
	return (Datum) 0;
}

/* Changes that are not stored yet.  Once this transaction commits, they are. */
Datum
mp_breaker_changes(PG_FUNCTION_ARGS)
{
	MpBreakerPlace *place = mp_breaker_find(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	TupleDesc	desc;
	Tuplestorestate *store = mp_begin_rows(fcinfo, &desc);
	MpBreakerCopy copy;

	mp_breaker_look(place, false, &copy);
	for (int i = 0; i < copy.change_count; i++)
	{
		const MpBreakerChange *change = &copy.change[i];
		bool		nulls[7] = {false};
		Datum		values[7] = {
			Int64GetDatum(change->step.epoch), TimestampTzGetDatum(change->step.at),
			CStringGetTextDatum(mp_breaker_state_name(change->step.from)),
			CStringGetTextDatum(mp_breaker_state_name(change->step.to)),
			CStringGetTextDatum(mp_breaker_reason_name(change->step.reason)),
			word_or_null(change->by, &nulls[5]), word_or_null(change->words, &nulls[6])
		};

		tuplestore_putvalues(store, desc, values, nulls);
		remember_storing(place, change->number);
	}
	return (Datum) 0;
}

/* Names of those that have changes to be stored. */
Datum
mp_breakers_unstored(PG_FUNCTION_ARGS)
{
	TupleDesc	desc;
	Tuplestorestate *store = mp_begin_rows(fcinfo, &desc);
	MpBreakerPlace *place;
	int			index = 0;

	mp_require_preload();
	while ((place = mp_breaker_next(&index)) != NULL)
	{
		MpBreakerCopy copy;
		bool		nulls[2] = {false};
		Datum		values[2];

		mp_breaker_look(place, true, &copy);
		values[0] = CStringGetTextDatum(copy.name);
		values[1] = Int32GetDatum(copy.change_count);
		if (!copy.stored)
			tuplestore_putvalues(store, desc, values, nulls);
	}
	return (Datum) 0;
}
