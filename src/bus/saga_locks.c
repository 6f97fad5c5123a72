/*
 * saga_locks.c
 *		The names that sagas hold; see sql/bus/saga_lock.sql.
 *
 * Who starts a saga decides about its names under a lock of the server for each,
 * to the end of the transaction, as whoever passes one on does: of two starters
 * the second waits for the first.
 */
#include "bus/saga.h"

#include "bus/event_json.h"
#include "bus/name_lock.h"
#include "bus/order.h"
#include "bus/position.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(mp_sql_try_saga_name_lock);

static bool
lock_name(Datum account, Datum name, bool wait)
{
	Datum		names[2] = {account, name};
	LOCKTAG		tag = mp_lock_of_names("saga_lock", names, 2);

	return LockAcquire(&tag, ExclusiveLock, false, !wait) != LOCKACQUIRE_NOT_AVAIL;
}

Datum
mp_sql_try_saga_name_lock(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(lock_name(PG_GETARG_DATUM(0), PG_GETARG_DATUM(1), false));
}

static bool
is_held(Datum account, Datum name)
{
	static MpPlan plan = {
		.sql = "SELECT FROM meal_planner.saga_lock k WHERE k.account OPERATOR(pg_catalog.=) $1"
		" AND k.name OPERATOR(pg_catalog.=) $2 AND k.state OPERATOR(pg_catalog.<>) ALL ('{released,passed}')",
	.types = {TEXTOID, TEXTOID}, .in_index_order = true};
	Datum		values[2] = {account, name};

	/* also in a transaction that keeps to an older snapshot */
	mp_plan_read_latest(&plan, values, NULL, 1);
	return SPI_processed > 0;
}

static void
insert_lock(Datum account, Datum name, const pg_uuid_t *id, bool held)
{
	static MpPlan plan = {
		.sql = "INSERT INTO meal_planner.saga_lock (account, name, saga_id, state, since) VALUES ($1, $2, $3, $4, $5)",
	.types = {TEXTOID, TEXTOID, UUIDOID, TEXTOID, INT8OID}};
	Datum		values[5] = {
		account, name, UUIDPGetDatum(id), CStringGetTextDatum(held ? "held" : "waiting"),
		Int64GetDatum(mp_position_next())
	};

	mp_plan_execute(&plan, values, NULL, 0);
}

static void *
arena_alloc(void *context, size_t size)
{
	return MemoryContextAlloc(context, size);
}

/* SPI is connected. */
bool
mp_saga_take_locks(text *account, const pg_uuid_t *id, const MpSagaProgram *program, Jsonb *input)
{
	MpArena		arena = {.alloc = arena_alloc, .context = CurrentMemoryContext};
	MpJson		root = mp_json_of_jsonb(input);
	const char *const *names;
	MpSagaError error;
	int			count;
	bool		all = true;

	if (program->definition->lock_count == 0)
		return true;
	if (!mp_saga_locks(program->definition, &mp_json_reader, &root, &arena, &names, &count, &error))
		ereport(ERROR,
				(errcode(MP_ERRCODE_INVALID),
				 errmsg("MP400: %s", error.message),
				 errhint("retry=no. The saga holds a name that is made of its input.")));
	for (int i = 0; i < count; i++)
	{
		Datum		name = mp_order_key_of_text(names[i], strlen(names[i]));

		(void) lock_name(PointerGetDatum(account), name, true);
		/* those behind the first that it has to wait for are not taken yet */
		all = all && !is_held(PointerGetDatum(account), name);
		insert_lock(PointerGetDatum(account), name, id, all);
	}
	return all;
}

/* Whoever waits for what it held is let on by a sweep, in another transaction. */
void
mp_saga_release_locks(Datum account, const MpSagaInstance *instance)
{
	static MpPlan plan = {
		.sql = "UPDATE meal_planner.saga_lock k SET state = 'released'"
		" WHERE k.account OPERATOR(pg_catalog.=) $1 AND k.saga_id OPERATOR(pg_catalog.=) $2",
	.types = {TEXTOID, UUIDOID}};
	Datum		values[2] = {account, UUIDPGetDatum(&instance->id)};

	mp_plan_execute(&plan, values, NULL, 0);
}
