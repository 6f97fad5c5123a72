/*
 * replay.c
 *		Stretches of a replay, for workers and for consumers.
 */
#include "bus/replay.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"

static const text *
name_of_replay(const MpReplayStretch *stretch)
{
	static MpPlan plan = {
		.sql = "SELECT r.name FROM meal_planner.replay r WHERE r.account OPERATOR(pg_catalog.=) $1"
		" AND r.subscription OPERATOR(pg_catalog.=) $2 AND r.id OPERATOR(pg_catalog.=) $3",
	.types = {TEXTOID, TEXTOID, INT8OID}};
	Datum		values[3] = {stretch->account, stretch->subscription, Int64GetDatum(stretch->replay)};
	bool		isnull;

	mp_plan_execute(&plan, values, NULL, 1);
	if (SPI_processed == 0)
		return NULL;
	return DatumGetTextPP(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
}

bool
mp_replay_load(MpReplayStretch *stretch)
{
	static MpPlan plan = {
		.sql = "SELECT " MP_EVENT_COLUMN_LIST " FROM meal_planner.event e WHERE e.account OPERATOR(pg_catalog.=) $1"
		" AND e.position OPERATOR(pg_catalog.>) $4 AND e.position OPERATOR(pg_catalog.<=) $5"
		" AND coalesce(meal_planner.matches((SELECT r.pattern FROM meal_planner.replay r"
		" WHERE r.account OPERATOR(pg_catalog.=) $1 AND r.subscription OPERATOR(pg_catalog.=) $2"
		" AND r.id OPERATOR(pg_catalog.=) $3), e), true)"
		" AND NOT EXISTS (SELECT FROM meal_planner.delivery d WHERE d.account OPERATOR(pg_catalog.=) $1"
		" AND d.subscription OPERATOR(pg_catalog.=) $2 AND d.position OPERATOR(pg_catalog.=) e.position)"
		" ORDER BY e.position",
	.types = {TEXTOID, TEXTOID, INT8OID, INT8OID, INT8OID}, .in_index_order = true};
	Datum		values[5] = {
		stretch->account, stretch->subscription, Int64GetDatum(stretch->replay),
		Int64GetDatum(stretch->after_position), Int64GetDatum(stretch->up_to)
	};

	stretch->name = name_of_replay(stretch);
	if (stretch->name == NULL)
		return false;
	mp_plan_execute(&plan, values, NULL, 0);
	stretch->rows = SPI_tuptable;
	stretch->count = SPI_processed;
	return true;
}

int64
mp_replay_first(Datum account, Datum subscription)
{
	static MpPlan plan = {
		.sql = "SELECT r.id FROM meal_planner.replay r WHERE r.account OPERATOR(pg_catalog.=) $1"
		" AND r.subscription OPERATOR(pg_catalog.=) $2 ORDER BY r.account, r.subscription, r.id LIMIT 1",
	.types = {TEXTOID, TEXTOID}, .in_index_order = true};
	Datum		values[2] = {account, subscription};
	bool		isnull;

	mp_plan_execute(&plan, values, NULL, 1);
	if (SPI_processed == 0)
		return 0;
	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
}

bool
mp_replay_next(MpReplayStretch *stretch, const MpReplayAsk *ask, bool *moved, TimestampTz *due)
{
	static MpPlan plan = {
		.sql = "SELECT p.replay, p.after_position, p.up_to, p.left_out, p.due, p.moved"
		" FROM meal_planner.pull_stretch($1, $2, $3, $4, $5, $6) p",
	.types = {TEXTOID, TEXTOID, INT8OID, INT8OID, INT4OID, BOOLOID}};
	Datum		values[6] = {
		stretch->account, stretch->subscription, Int64GetDatum(ask->log_position),
		Int64GetDatum(ask->first_claim), Int32GetDatum(ask->wanted), BoolGetDatum(ask->at_once)
	};
	HeapTuple	row;
	TupleDesc	desc;
	Datum		value;
	bool		isnull;

	mp_plan_execute(&plan, values, NULL, 1);
	row = SPI_tuptable->vals[0];
	desc = SPI_tuptable->tupdesc;
	value = SPI_getbinval(row, desc, 5, &isnull);
	*due = isnull ? DT_NOEND : DatumGetTimestampTz(value);
	*moved = DatumGetBool(SPI_getbinval(row, desc, 6, &isnull));
	value = SPI_getbinval(row, desc, 1, &isnull);
	if (isnull)
		return false;
	stretch->replay = DatumGetInt64(value);
	stretch->after_position = DatumGetInt64(SPI_getbinval(row, desc, 2, &isnull));
	stretch->up_to = DatumGetInt64(SPI_getbinval(row, desc, 3, &isnull));
	stretch->left_out = SPI_getbinval(row, desc, 4, &isnull);
	return mp_replay_load(stretch);
}

static void
move(const MpReplayStretch *stretch, int64 reached, int64 events, int64 log_position)
{
	static MpPlan plan = {
		.sql = "SELECT meal_planner.move_replay($1, $2, $3, $4, $5, $6, $7)",
	.types = {TEXTOID, TEXTOID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID}};
	Datum		values[7] = {
		stretch->account, stretch->subscription, Int64GetDatum(stretch->replay),
		Int64GetDatum(stretch->after_position), Int64GetDatum(reached), Int64GetDatum(events),
		Int64GetDatum(log_position)
	};

	mp_plan_execute(&plan, values, NULL, 1);
}

/* Who ends the replay waits for the row of the batch that is running. */
void
mp_replay_end_batch(const MpReplayStretch *stretch, int64 reached, int64 events)
{
	move(stretch, reached, events, 0);
}

/*
 * If somebody is just ending the replay, this stretch is its last: we wait for
 * its row, and then there is none to move.
 */
void
mp_replay_move(const MpReplayStretch *stretch, int64 reached, int64 events, int64 log_position)
{
	static MpPlan lock = {
		.sql = "SELECT FROM meal_planner.replay r WHERE r.account OPERATOR(pg_catalog.=) $1"
		" AND r.subscription OPERATOR(pg_catalog.=) $2 AND r.id OPERATOR(pg_catalog.=) $3 FOR UPDATE",
	.types = {TEXTOID, TEXTOID, INT8OID}};
	Datum		values[3] = {stretch->account, stretch->subscription, Int64GetDatum(stretch->replay)};

	mp_plan_execute(&lock, values, NULL, 1);
	move(stretch, reached, events, log_position);
}
