/*
 * saga_store.c
 *		Sagas in hand: their rows read and locked, changed in memory, written.
 *
 * All that is written of a saga is written here, by whoever holds the lock of
 * its row.  What has changed is kept in memory until then, so that it can be
 * taken back with the subtransaction of a step that failed.
 */
#include "bus/saga.h"

#include "bus/event_json.h"
#include "bus/position.h"
#include "bus/saga_end.h"
#include "bus/wakeup.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "pgcompat.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"

#define FIRST_ROOM 64

/* Rows found by their keys, whatever the statistics say when the plan is made. */
static int
by_index_begin(void)
{
	static const char *const others[] = {"enable_seqscan", "enable_bitmapscan", "enable_sort", "jit"};
	int			level = NewGUCNestLevel();

	for (size_t i = 0; i < lengthof(others); i++)
		(void) set_config_option(others[i], "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	return level;
}

static void
by_index_end(int level)
{
	AtEOXact_GUC(true, level);
}

/* ------------------------------------------------------------------------
 * Taking
 * ------------------------------------------------------------------------ */

/*
 * Sagas by their ids, here and below: one probe for each.  "= ANY" would read all
 * of the account and filter, by a plan from when the table was small.
 */
#define SAGA_COLUMNS \
	"SELECT s.id, s.name, s.version, s.input, s.hops, s.state, s.progress, s.error, s.started_at, s.due_at, s.alone, s.blocked" \
	" FROM "

static MpSagaState
state_of_name(const char *name)
{
	for (int state = MP_SAGA_RUNNING; state <= MP_SAGA_CANCELLED; state++)
		if (strcmp(mp_saga_state_name(state), name) == 0)
			return state;
	elog(ERROR, "unknown state of a saga: %s", name);
	return MP_SAGA_RUNNING;		/* keep the compiler quiet */
}

static void
fill_instance(HeapTuple row, TupleDesc desc, MpSagaInstance *instance)
{
	bool		isnull;
	Datum		value;

	memset(instance, 0, sizeof(*instance));
	instance->id = *DatumGetUUIDP(SPI_getbinval(row, desc, 1, &isnull));
	instance->program = mp_saga_program(SPI_getvalue(row, desc, 2),
										DatumGetInt32(SPI_getbinval(row, desc, 3, &isnull)));
	instance->input = DatumGetJsonbP(SPI_getbinval(row, desc, 4, &isnull));
	instance->hops = DatumGetInt16(SPI_getbinval(row, desc, 5, &isnull));
	instance->stored_state = instance->noted_state = state_of_name(SPI_getvalue(row, desc, 6));
	value = SPI_getbinval(row, desc, 8, &isnull);
	instance->error = isnull ? NULL : DatumGetJsonbP(value);
	instance->started_at = DatumGetTimestampTz(SPI_getbinval(row, desc, 9, &isnull));
	value = SPI_getbinval(row, desc, 10, &isnull);
	instance->due_at = isnull ? DT_NOEND : DatumGetTimestampTz(value);
	instance->alone = DatumGetBool(SPI_getbinval(row, desc, 11, &isnull));
	instance->blocked = DatumGetBool(SPI_getbinval(row, desc, 12, &isnull));

	instance->broken = instance->program->broken;
	if (instance->broken)
		return;
	value = SPI_getbinval(row, desc, 7, &isnull);
	if (isnull)
		mp_saga_init(instance->program->definition, &instance->saga);
	else
		instance->broken = !mp_saga_read(instance->program->definition, TextDatumGetCString(value), &instance->saga);
	instance->out = palloc0(sizeof(MpSagaOut) * instance->program->definition->step_count);
	instance->results = palloc0(sizeof(Jsonb *) * instance->program->definition->step_count);
}

static MpSagaInstance *
find_instance(MpSagaHand *hand, const pg_uuid_t *id)
{
	for (int i = 0; i < hand->count; i++)
		if (memcmp(&hand->instances[i].id, id, sizeof(*id)) == 0)
			return &hand->instances[i];
	return NULL;
}

static int
step_of_name(const MpSagaInstance *instance, const char *name)
{
	return mp_saga_find_step(instance->program->definition, name, strlen(name));
}

/* Rows (saga_id, step, ...) come saga by saga: the last one found is often the next. */
static MpSagaInstance *
instance_of_row(MpSagaHand *hand, HeapTuple row, TupleDesc desc, MpSagaInstance *last, int *step)
{
	bool		isnull;
	pg_uuid_t  *id = DatumGetUUIDP(SPI_getbinval(row, desc, 1, &isnull));

	if (last == NULL || memcmp(&last->id, id, sizeof(*id)) != 0)
		last = find_instance(hand, id);
	*step = last == NULL || last->broken ? -1 : step_of_name(last, SPI_getvalue(row, desc, 2));
	return last;
}

/* Reads rows (saga_id, step, ...) of these sagas, and has each put where it belongs. */
static void
read_steps(MpSagaHand *hand, MpPlan *plan, Datum ids, void (*fill) (HeapTuple, TupleDesc, MpSagaInstance *, int))
{
	Datum		values[2] = {hand->account, ids};
	MpSagaInstance *instance = NULL;

	mp_plan_execute(plan, values, NULL, 0);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		int			step;

		instance = instance_of_row(hand, SPI_tuptable->vals[i], SPI_tuptable->tupdesc, instance, &step);
		if (step >= 0)
			fill(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, instance, step);
	}
}

static void
fill_result(HeapTuple row, TupleDesc desc, MpSagaInstance *instance, int step)
{
	bool		isnull;

	instance->results[step] = DatumGetJsonbP(SPI_getbinval(row, desc, 3, &isnull));
}

static void
read_results(MpSagaHand *hand, Datum ids)
{
	static MpPlan plan = {
		.sql = "SELECT l.saga_id, l.step, l.result FROM pg_catalog.unnest($2) AS w (id),"
		" LATERAL (SELECT l.saga_id, l.step, l.result FROM meal_planner.saga_log l"
		" WHERE l.account OPERATOR(pg_catalog.=) $1 AND l.saga_id OPERATOR(pg_catalog.=) w.id"
		" AND l.entry OPERATOR(pg_catalog.=) 'succeeded' AND l.direction OPERATOR(pg_catalog.=) 'forward'"
		" AND l.result IS NOT NULL OFFSET 0) l",
	.types = {TEXTOID, UUIDARRAYOID}};

	read_steps(hand, &plan, ids, fill_result);
}

static TimestampTz
time_of_column(HeapTuple row, TupleDesc desc, int column)
{
	bool		isnull;
	Datum		value = SPI_getbinval(row, desc, column, &isnull);

	return isnull ? 0 : DatumGetTimestampTz(value);
}

static void
fill_out(HeapTuple row, TupleDesc desc, MpSagaInstance *instance, int step)
{
	MpSagaOut  *out = &instance->out[step];
	bool		isnull;
	Datum		value;

	out->stored = out->wanted = true;
	out->undo = strcmp(SPI_getvalue(row, desc, 3), "compensate") == 0;
	out->attempt = DatumGetInt32(SPI_getbinval(row, desc, 4, &isnull));
	out->run = DatumGetInt32(SPI_getbinval(row, desc, 5, &isnull));
	out->crashes = DatumGetInt32(SPI_getbinval(row, desc, 6, &isnull));
	out->first_at = time_of_column(row, desc, 7);
	out->due_at = time_of_column(row, desc, 8);
	value = SPI_getbinval(row, desc, 9, &isnull);
	out->leased = !isnull;
	if (out->leased)
		out->token = *DatumGetUUIDP(value);
	out->lease_until = time_of_column(row, desc, 10);
	value = SPI_getbinval(row, desc, 11, &isnull);
	out->permit = isnull ? 0 : DatumGetInt64(value);
	out->started_at = time_of_column(row, desc, 12);
}

static void
read_out(MpSagaHand *hand, Datum ids)
{
	static MpPlan plan = {
		.sql = "SELECT o.saga_id, o.step, o.direction, o.attempt, o.run, o.crashes, o.first_at, o.due_at, o.token,"
		" o.lease_until, o.permit, o.started_at FROM pg_catalog.unnest($2) AS w (id),"
		" LATERAL (SELECT o.* FROM meal_planner.saga_step o"
		" WHERE o.account OPERATOR(pg_catalog.=) $1 AND o.saga_id OPERATOR(pg_catalog.=) w.id OFFSET 0) o",
	.types = {TEXTOID, UUIDARRAYOID}};

	read_steps(hand, &plan, ids, fill_out);
}

/* What is known of them besides their rows; of new ones there is nothing yet. */
static void
read_details(MpSagaHand *hand, const bool *is_new)
{
	Datum	   *ids = palloc(sizeof(Datum) * Max(hand->count, 1));
	int			count = 0;
	Datum		array;

	for (int i = 0; i < hand->count; i++)
		if (!is_new[i])
			ids[count++] = UUIDPGetDatum(&hand->instances[i].id);
	if (count == 0)
		return;
	array = mp_array(ids, count, UUIDOID);
	read_out(hand, array);
	read_results(hand, array);
}

static MpSagaHand *
take(MpPlan *plan, Datum account, Datum ids)
{
	MpSagaHand *hand = palloc0(sizeof(MpSagaHand));
	Datum		values[3] = {account, ids, 0};
	SPITupleTable *rows;
	bool	   *is_new;
	int			level = by_index_begin();

	hand->account = account;
	hand->context = CurrentMemoryContext;
	hand->now = mp_clock_now();
	values[2] = TimestampTzGetDatum(hand->now);
	mp_plan_execute(plan, values, NULL, 0);
	rows = SPI_tuptable;
	hand->count = (int) SPI_processed;
	hand->instances = palloc0(sizeof(MpSagaInstance) * Max(hand->count, 1));
	is_new = palloc(sizeof(bool) * Max(hand->count, 1));
	for (int i = 0; i < hand->count; i++)
	{
		fill_instance(rows->vals[i], rows->tupdesc, &hand->instances[i]);
		hand->instances[i].account = account;
		is_new[i] = SPI_getvalue(rows->vals[i], rows->tupdesc, 7) == NULL;
	}
	/* a wait for the lock may have been long */
	hand->now = mp_clock_now();
	read_details(hand, is_new);
	by_index_end(level);
	return hand;
}

MpSagaHand *
mp_saga_take_due(Datum account, Datum ids)
{
	static MpPlan plan = {
		.sql = SAGA_COLUMNS "pg_catalog.unnest($2) AS w (id), LATERAL (SELECT s.* FROM meal_planner.saga s"
		" WHERE s.account OPERATOR(pg_catalog.=) $1 AND s.id OPERATOR(pg_catalog.=) w.id"
		" AND s.due_at OPERATOR(pg_catalog.<=) $3 FOR UPDATE SKIP LOCKED) s",
	.types = {TEXTOID, UUIDARRAYOID, TIMESTAMPTZOID}};

	return take(&plan, account, ids);
}

MpSagaHand *
mp_saga_take(Datum account, const pg_uuid_t *id)
{
	static MpPlan plan = {
		.sql = SAGA_COLUMNS "meal_planner.saga s"
		" WHERE s.account OPERATOR(pg_catalog.=) $1 AND s.id OPERATOR(pg_catalog.=) $2 FOR UPDATE",
	.types = {TEXTOID, UUIDOID}};

	return take(&plan, account, UUIDPGetDatum(id));
}

MpSagaHand *
mp_saga_take_locked(Datum account, Datum ids)
{
	static MpPlan plan = {
		.sql = SAGA_COLUMNS "pg_catalog.unnest($2) AS w (id), LATERAL (SELECT s.* FROM meal_planner.saga s"
		" WHERE s.account OPERATOR(pg_catalog.=) $1 AND s.id OPERATOR(pg_catalog.=) w.id OFFSET 0) s",
	.types = {TEXTOID, UUIDARRAYOID}};

	return take(&plan, account, ids);
}

void
mp_saga_tell_broken(const MpSagaInstance *instance, int elevel)
{
	const MpSagaProgram *program = instance->program;
	char		id[MP_UUID_TEXT];

	mp_format_uuid(&instance->id, id);
	if (program->broken)
		ereport(elevel,
				(errcode(MP_ERRCODE_UNAVAILABLE),
				 errmsg("MP503: saga \"%s\" cannot go on: its definition, version %d, is gone or cannot be read",
						program->name, program->version),
				 errhint("retry=yes. Restore the row of meal_planner.saga_definition.")));
	else
		ereport(elevel,
				(errcode(MP_ERRCODE_UNAVAILABLE),
				 errmsg("MP503: saga \"%s\" cannot go on: its progress is none of version %d of its definition",
						program->name, program->version),
				 errdetail("It is the saga %.*s.", MP_UUID_TEXT, id),
				 errhint("retry=yes. Restore the column progress of its row in meal_planner.saga.")));
}

/* ------------------------------------------------------------------------
 * Noting
 * ------------------------------------------------------------------------ */

MpSagaEntry *
mp_saga_note(MpSagaHand *hand, const MpSagaInstance *instance, const char *word)
{
	MpSagaEntry *entry;

	if (hand->entry_count == hand->entry_room)
	{
		hand->entry_room = Max(2 * hand->entry_room, FIRST_ROOM);
		hand->entries = hand->entries == NULL
			? MemoryContextAlloc(hand->context, sizeof(MpSagaEntry) * hand->entry_room)
			: repalloc(hand->entries, sizeof(MpSagaEntry) * hand->entry_room);
	}
	entry = &hand->entries[hand->entry_count++];
	*entry = (MpSagaEntry)
	{
		.instance = instance, .entry = word, .step = -1, .seq = mp_position_next(), .at = mp_clock_now()
	};
	return entry;
}

void
mp_saga_note_alert(MpSagaHand *hand, const MpSagaInstance *instance, int step, bool parked,
				   const char *error, const char *message)
{
	if (hand->alert_count == hand->alert_room)
	{
		hand->alert_room = Max(2 * hand->alert_room, FIRST_ROOM);
		hand->alerts = hand->alerts == NULL
			? MemoryContextAlloc(hand->context, sizeof(MpSagaAlert) * hand->alert_room)
			: repalloc(hand->alerts, sizeof(MpSagaAlert) * hand->alert_room);
	}
	hand->alerts[hand->alert_count++] = (MpSagaAlert)
	{
		.instance = instance, .step = step, .parked = parked, .error = error, .message = message
	};
}

/* ------------------------------------------------------------------------
 * Putting down
 * ------------------------------------------------------------------------ */

typedef struct Column
{
	Oid			type;
	int16		len;
	bool		by_value;
	char		align;
	Datum	   *values;
	bool	   *nulls;
} Column;

enum
{
	LOG_SAGA, LOG_SEQ, LOG_ENTRY, LOG_STEP, LOG_DIRECTION, LOG_ATTEMPT, LOG_AT, LOG_RESULT, LOG_DETAIL, LOG_COLUMNS
};

static void
fill_log_row(const MpSagaEntry *entry, Column columns[LOG_COLUMNS], int row)
{
	const MpSagaDefinition *definition = entry->instance->program->definition;

	for (int c = 0; c < LOG_COLUMNS; c++)
		columns[c].nulls[row] = false;
	columns[LOG_SAGA].values[row] = UUIDPGetDatum(&entry->instance->id);
	columns[LOG_SEQ].values[row] = Int64GetDatum(entry->seq);
	columns[LOG_ENTRY].values[row] = CStringGetTextDatum(entry->entry);
	columns[LOG_STEP].values[row] = mp_text_or_null(entry->step < 0 ? NULL : definition->steps[entry->step].name,
													&columns[LOG_STEP].nulls[row]);
	columns[LOG_DIRECTION].values[row] = mp_text_or_null(entry->step < 0 ? NULL : entry->undo ? "compensate" : "forward",
														 &columns[LOG_DIRECTION].nulls[row]);
	columns[LOG_ATTEMPT].values[row] = Int32GetDatum(entry->attempt);
	columns[LOG_ATTEMPT].nulls[row] = entry->attempt == 0;
	columns[LOG_AT].values[row] = TimestampTzGetDatum(entry->at);
	columns[LOG_RESULT].values[row] = PointerGetDatum(entry->result);
	columns[LOG_RESULT].nulls[row] = entry->result == NULL;
	columns[LOG_DETAIL].values[row] = PointerGetDatum(entry->detail);
	columns[LOG_DETAIL].nulls[row] = entry->detail == NULL;
}

static void
write_entries(MpSagaHand *hand)
{
	static MpPlan plan = {
		.sql = "INSERT INTO meal_planner.saga_log (account, saga_id, seq, entry, step, direction, attempt, at, result, detail)"
		" SELECT $1, l.* FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4),"
		" pg_catalog.unnest($5), pg_catalog.unnest($6), pg_catalog.unnest($7), pg_catalog.unnest($8),"
		" pg_catalog.unnest($9), pg_catalog.unnest($10)) l",
		.types = {TEXTOID, UUIDARRAYOID, INT8ARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, INT4ARRAYOID,
		TIMESTAMPTZARRAYOID, JSONBARRAYOID, JSONBARRAYOID}
	};
	static const Oid types[LOG_COLUMNS] = {
		UUIDOID, INT8OID, TEXTOID, TEXTOID, TEXTOID, INT4OID, TIMESTAMPTZOID, JSONBOID, JSONBOID
	};
	Column		columns[LOG_COLUMNS];
	Datum		values[LOG_COLUMNS + 1] = {hand->account};
	int			dims[1] = {hand->entry_count};
	int			lower[1] = {1};

	if (hand->entry_count == 0)
		return;
	for (int c = 0; c < LOG_COLUMNS; c++)
	{
		columns[c].type = types[c];
		get_typlenbyvalalign(types[c], &columns[c].len, &columns[c].by_value, &columns[c].align);
		columns[c].values = palloc(sizeof(Datum) * hand->entry_count);
		columns[c].nulls = palloc(sizeof(bool) * hand->entry_count);
	}
	for (int i = 0; i < hand->entry_count; i++)
		fill_log_row(&hand->entries[i], columns, i);
	for (int c = 0; c < LOG_COLUMNS; c++)
		values[c + 1] = PointerGetDatum(construct_md_array(columns[c].values, columns[c].nulls, 1, dims, lower,
														   columns[c].type, columns[c].len, columns[c].by_value,
														   columns[c].align));
	mp_plan_execute(&plan, values, NULL, 0);
	hand->entry_count = 0;
}

static void
write_saga(MpSagaHand *hand, const MpSagaInstance *instance)
{
	static MpPlan plan = {
		.sql = "UPDATE meal_planner.saga s SET version = $3, state = $4, progress = $5, error = $6, due_at = $7,"
		" alone = $8, ended_at = $9, blocked = s.blocked AND $9 IS NULL"
		" WHERE s.account OPERATOR(pg_catalog.=) $1 AND s.id OPERATOR(pg_catalog.=) $2",
		.types = {TEXTOID, UUIDOID, INT4OID, TEXTOID, TEXTOID, JSONBOID, TIMESTAMPTZOID, BOOLOID, TIMESTAMPTZOID}
	};
	char		progress[MP_SAGA_TEXT_SIZE];
	bool		ended = mp_saga_has_ended(instance->saga.state);
	bool		nulls[9] = {false};
	Datum		values[9] = {
		hand->account, UUIDPGetDatum(&instance->id), Int32GetDatum(instance->program->version),
		CStringGetTextDatum(mp_saga_state_name(instance->saga.state)), 0, PointerGetDatum(instance->error),
		TimestampTzGetDatum(instance->due_at), BoolGetDatum(instance->alone), TimestampTzGetDatum(mp_clock_now())
	};

	mp_saga_write(instance->program->definition, &instance->saga, progress);
	values[4] = CStringGetTextDatum(progress);
	nulls[5] = instance->error == NULL;
	nulls[6] = ended || instance->due_at == DT_NOEND;
	nulls[8] = !ended;
	mp_plan_execute(&plan, values, nulls, 0);
}

static void
delete_out(Datum account, const MpSagaInstance *instance, int step)
{
	static MpPlan plan = {
		.sql = "DELETE FROM meal_planner.saga_step o WHERE o.account OPERATOR(pg_catalog.=) $1"
		" AND o.saga_id OPERATOR(pg_catalog.=) $2 AND o.step OPERATOR(pg_catalog.=) $3",
	.types = {TEXTOID, UUIDOID, TEXTOID}};
	Datum		values[3] = {
		account, UUIDPGetDatum(&instance->id),
		CStringGetTextDatum(instance->program->definition->steps[step].name)
	};

	mp_plan_execute(&plan, values, NULL, 0);
}

static void
write_out(Datum account, const MpSagaInstance *instance, int step)
{
	static MpPlan plan = {
		.sql = "INSERT INTO meal_planner.saga_step AS o (account, saga_id, step, direction, service, attempt, run, crashes,"
		" first_at, due_at, token, lease_until, permit, started_at)"
		" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)"
		" ON CONFLICT (account, saga_id, step) DO UPDATE SET direction = excluded.direction,"
		" service = excluded.service, attempt = excluded.attempt, run = excluded.run, crashes = excluded.crashes,"
		" first_at = excluded.first_at, due_at = excluded.due_at, token = excluded.token,"
		" lease_until = excluded.lease_until, permit = excluded.permit,"
		" started_at = excluded.started_at",
		.types = {TEXTOID, UUIDOID, TEXTOID, TEXTOID, TEXTOID, INT4OID, INT4OID, INT4OID, TIMESTAMPTZOID,
		TIMESTAMPTZOID, UUIDOID, TIMESTAMPTZOID, INT8OID, TIMESTAMPTZOID}
	};
	const MpSagaStep *definition = &instance->program->definition->steps[step];
	const MpSagaOut *out = &instance->out[step];
	const char *service = out->undo ? definition->undo_service : definition->service;
	bool		nulls[14] = {false};
	Datum		values[14] = {
		account, UUIDPGetDatum(&instance->id), CStringGetTextDatum(definition->name),
		CStringGetTextDatum(out->undo ? "compensate" : "forward"), mp_text_or_null(service, &nulls[4]),
		Int32GetDatum(out->attempt), Int32GetDatum(out->run), Int32GetDatum(out->crashes),
		TimestampTzGetDatum(out->first_at), TimestampTzGetDatum(out->due_at), UUIDPGetDatum(&out->token),
		TimestampTzGetDatum(out->lease_until), Int64GetDatum(out->permit), TimestampTzGetDatum(out->started_at)
	};

	nulls[8] = out->first_at == 0;
	nulls[10] = nulls[11] = nulls[13] = !out->leased;
	nulls[12] = !out->leased || out->permit == 0;
	mp_plan_execute(&plan, values, nulls, 0);
}

/* Workers outside the server are told once per transaction. */
static void
notify_workers(Datum account, const MpSagaInstance *instance, int step)
{
	static MpPlan plan = {
		.sql = "SELECT pg_catalog.pg_notify('mp_claim', pg_catalog.jsonb_build_object('service', $1, 'account', $2)::pg_catalog.text)",
	.types = {TEXTOID, TEXTOID}};
	const MpSagaStep *definition = &instance->program->definition->steps[step];
	const char *service = instance->out[step].undo ? definition->undo_service : definition->service;
	Datum		values[2] = {0, account};

	if (service == NULL || instance->out[step].leased)
		return;
	values[0] = CStringGetTextDatum(service);
	mp_plan_execute(&plan, values, NULL, 0);
}

static void
write_outs(MpSagaHand *hand, MpSagaInstance *instance)
{
	for (int step = 0; step < instance->program->definition->step_count; step++)
	{
		MpSagaOut  *out = &instance->out[step];

		if (out->stored && !out->wanted)
			delete_out(hand->account, instance, step);
		else if (out->wanted && (out->changed || !out->stored))
		{
			write_out(hand->account, instance, step);
			notify_workers(hand->account, instance, step);
		}
		out->stored = out->wanted;
		out->changed = false;
	}
}

void
mp_saga_put_down(MpSagaHand *hand)
{
	int			level = by_index_begin();

	for (int i = 0; i < hand->count; i++)
	{
		MpSagaInstance *instance = &hand->instances[i];

		if (!instance->changed)
			continue;
		write_outs(hand, instance);
		write_saga(hand, instance);
		if (instance->program->definition->lock_count > 0 && mp_saga_has_ended(instance->saga.state))
			mp_saga_release_locks(hand->account, instance);
	}
	write_entries(hand);
	by_index_end(level);
	for (int i = 0; i < hand->alert_count; i++)
		mp_saga_alert(hand, &hand->alerts[i]);
	hand->alert_count = 0;
	/* what they end in may run handlers, which are nobody's business here */
	mp_saga_tell_ends(hand);
	for (int i = 0; i < hand->count; i++)
	{
		hand->instances[i].stored_state = hand->instances[i].saga.state;
		hand->instances[i].changed = false;
	}
}

void
mp_saga_wake_sweep(const MpSagaHand *hand)
{
	text	   *account = DatumGetTextPP(hand->account);

	mp_wake_next_at_end((MpWaitFor)
						{
							.account = mp_account_hash(VARDATA_ANY(account), VARSIZE_ANY_EXHDR(account))
						}, true);
}
