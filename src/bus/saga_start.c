/*
 * saga_start.c
 *		mp_start_saga: one row, in the caller's transaction.
 *
 * It runs nothing: the saga is due at once, and a sweep goes on with it when the
 * transaction has committed.
 */
#include "bus/saga.h"

#include "bus/dispatch.h"
#include "bus/event.h"
#include "bus/event_json.h"
#include "bus/name_lock.h"
#include "bus/position.h"
#include "bus/wakeup.h"
#include "catalog/pg_type.h"
#include "core/envelope.h"
#include "executor/spi.h"
#include "pgcompat.h"
#include "utils/builtins.h"

#define LONGEST_KEY		512

PG_FUNCTION_INFO_V1(mp_start_saga);
PG_FUNCTION_INFO_V1(mp_sql_saga_claim_lock);
PG_FUNCTION_INFO_V1(mp_sql_saga_claim_unlock);

typedef struct Start
{
	text	   *name;
	Jsonb	   *input;
	text	   *key;			/* NULL: none */
	text	   *account;
	pg_uuid_t	id;
	int			hops;
	TimestampTz now;
} Start;

/* Its events will be of that account: what can be one is said in one place. */
static void
check_account(text *account)
{
	MpEnvelope	envelope = {
		.detail_type = {"Any", 3}, .account = {VARDATA_ANY(account), VARSIZE_ANY_EXHDR(account)}, .detail_is_object = true
	};
	MpEnvelopeError error;

	if (!mp_envelope_check(&envelope, &error))
		mp_refuse_argument("%s", error.message);
}

static Start
check_arguments(FunctionCallInfo fcinfo)
{
	Start		start = {
		.name = PG_ARGISNULL(0) ? NULL : PG_GETARG_TEXT_PP(0),
		.input = PG_ARGISNULL(1) ? NULL : PG_GETARG_JSONB_P(1),
		.key = PG_ARGISNULL(2) ? NULL : PG_GETARG_TEXT_PP(2),
		.account = PG_ARGISNULL(3) ? cstring_to_text("local") : PG_GETARG_TEXT_PP(3),
		.hops = mp_handler_hops(), .now = mp_clock_now()
	};

	if (start.name == NULL)
		mp_refuse_argument("name must not be NULL");
	if (start.input == NULL)
		start.input = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum("{}")));
	if (!JB_ROOT_IS_OBJECT(start.input))
		mp_refuse_argument("input must be a JSON object");
	if (VARSIZE(start.input) > MP_SAGA_RESULT_BYTES)
		mp_refuse_argument("input must not be larger than 512 KiB");
	if (start.key != NULL && (VARSIZE_ANY_EXHDR(start.key) == 0 || VARSIZE_ANY_EXHDR(start.key) > LONGEST_KEY))
		mp_refuse_argument("idempotency_key must have between 1 and %d bytes", LONGEST_KEY);
	check_account(start.account);
	if (start.hops > mp_max_hops)
		ereport(ERROR,
				(errcode(MP_ERRCODE_LOOP),
				 errmsg("MP508: saga \"%s\" would be more than %d handlers away from a client",
						text_to_cstring(start.name), mp_max_hops),
				 errhint("retry=no. Look for handlers and sagas that start each other, or raise meal_planner.max_hops.")));
	return start;
}

/* The version that new ones get; 0: there is none. */
static int
newest_version(text *name)
{
	static MpPlan plan = {
		.sql = "SELECT d.version FROM meal_planner.saga_definition d WHERE d.name OPERATOR(pg_catalog.=) $1"
		" ORDER BY d.name DESC, d.version DESC LIMIT 1",
	.types = {TEXTOID}, .in_index_order = true};
	Datum		values[1] = {PointerGetDatum(name)};
	bool		isnull;

	mp_plan_read_latest(&plan, values, NULL, 1);
	if (SPI_processed == 0)
		return 0;
	return DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
}

/* False: another one has the key. */
static bool
insert(const Start *start, int version)
{
#define COLUMNS \
	"INSERT INTO meal_planner.saga (account, id, name, version, input, idempotency_key, hops, started_at, due_at)" \
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8)"
	static MpPlan plain = {
		.sql = COLUMNS,
	.types = {TEXTOID, UUIDOID, TEXTOID, INT4OID, JSONBOID, TEXTOID, INT2OID, TIMESTAMPTZOID}};
	static MpPlan keyed = {
		.sql = COLUMNS " ON CONFLICT (account, name, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING",
	.types = {TEXTOID, UUIDOID, TEXTOID, INT4OID, JSONBOID, TEXTOID, INT2OID, TIMESTAMPTZOID}};
	bool		nulls[8] = {false};
	Datum		values[8] = {
		PointerGetDatum(start->account), UUIDPGetDatum(&start->id), PointerGetDatum(start->name),
		Int32GetDatum(version), JsonbPGetDatum(start->input), PointerGetDatum(start->key),
		Int16GetDatum(start->hops), TimestampTzGetDatum(start->now)
	};

	nulls[5] = start->key == NULL;
	mp_plan_execute(start->key == NULL ? &plain : &keyed, values, nulls, 0);
	return SPI_processed > 0;
}

/* It has not begun, and does not until it gets the names that it waits for. */
static void
block(const Start *start, const MpSagaProgram *program)
{
	static MpPlan plan = {
		.sql = "UPDATE meal_planner.saga s SET blocked = true, due_at = $3"
		" WHERE s.account OPERATOR(pg_catalog.=) $1 AND s.id OPERATOR(pg_catalog.=) $2",
	.types = {TEXTOID, UUIDOID, TIMESTAMPTZOID}, .in_index_order = true};
	double		deadline = program->definition->deadline_seconds;
	bool		nulls[3] = {false, false, deadline == 0};
	Datum		values[3] = {
		PointerGetDatum(start->account), UUIDPGetDatum(&start->id),
		TimestampTzGetDatum(start->now + (int64) (deadline * USECS_PER_SEC))
	};

	mp_plan_execute(&plan, values, nulls, 0);
}

/* The saga that has the key; false: there is none. */
static bool
find_by_key(const Start *start, pg_uuid_t *id)
{
	static MpPlan plan = {
		.sql = "SELECT s.id, s.input OPERATOR(pg_catalog.=) $4 FROM meal_planner.saga s"
		" WHERE s.account OPERATOR(pg_catalog.=) $1 AND s.name OPERATOR(pg_catalog.=) $2"
		" AND s.idempotency_key OPERATOR(pg_catalog.=) $3",
	.types = {TEXTOID, TEXTOID, TEXTOID, JSONBOID}, .in_index_order = true};
	Datum		values[4] = {
		PointerGetDatum(start->account), PointerGetDatum(start->name), PointerGetDatum(start->key),
		JsonbPGetDatum(start->input)
	};
	bool		isnull;

	mp_plan_read_latest(&plan, values, NULL, 1);
	if (SPI_processed == 0)
		return false;
	*id = *DatumGetUUIDP(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	if (!DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull)))
		ereport(ERROR,
				(errcode(MP_ERRCODE_KEY_REUSED),
				 errmsg("MP422: idempotency key \"%s\" of saga \"%s\" was used for another input",
						text_to_cstring(start->key), text_to_cstring(start->name)),
				 errhint("retry=no. Use a new key for a new saga.")));
	return true;
}

static void
begin(const Start *start, int version)
{
	MpSagaProgram *program = mp_saga_program(text_to_cstring(start->name), version);

	if (!program->broken && !mp_saga_take_locks(start->account, &start->id, program, start->input))
		block(start, program);
	mp_wake_next_at_end((MpWaitFor)
						{
							.account = mp_account_hash(VARDATA_ANY(start->account), VARSIZE_ANY_EXHDR(start->account))
						}, true);
}

Datum
mp_start_saga(PG_FUNCTION_ARGS)
{
	Start		start;
	pg_uuid_t  *id;
	int			version;
	bool		started = true;

	mp_require_preload();
	start = check_arguments(fcinfo);
	mp_position_make_uuid(mp_position_next(), &start.id);
	mp_spi_connect();
	/* looked for first: a name that is no longer defined still has its keys */
	if (start.key == NULL || !find_by_key(&start, &start.id))
	{
		mp_saga_keep_out_drop();
		version = newest_version(start.name);
		if (version == 0)
			ereport(ERROR,
					(errcode(MP_ERRCODE_NOT_FOUND),
					 errmsg("MP404: saga \"%s\" is not defined", text_to_cstring(start.name)),
					 errhint("retry=no. Define it with mp_define_saga.")));
		/* the other one has committed meanwhile, and may even have been purged */
		while (started && !insert(&start, version))
			started = !find_by_key(&start, &start.id);
		if (started)
			begin(&start, version);
	}
	mp_spi_finish();
	id = palloc(sizeof(pg_uuid_t));
	*id = start.id;
	PG_RETURN_UUID_P(id);
}

static LOCKTAG
claim_lock_of(Datum account)
{
	return mp_lock_of_names("saga_batch", &account, 1);
}

Datum
mp_sql_saga_claim_lock(PG_FUNCTION_ARGS)
{
	LOCKTAG		tag = claim_lock_of(PG_GETARG_DATUM(0));

	(void) LockAcquire(&tag, ExclusiveLock, false, false);
	PG_RETURN_VOID();
}

Datum
mp_sql_saga_claim_unlock(PG_FUNCTION_ARGS)
{
	LOCKTAG		tag = claim_lock_of(PG_GETARG_DATUM(0));

	(void) LockRelease(&tag, ExclusiveLock, false);
	PG_RETURN_VOID();
}
