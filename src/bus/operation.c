/*
 * operation.c
 *		What the functions of sql/bus/operation.sql cannot do themselves.
 *
 * A key is one lock and at most one row that has not expired.  Who holds the
 * lock looks and then writes; it is the transaction's, so that others wait for
 * the end of the transaction, and go on at once when it aborts or its process
 * dies.  A unique index could not do this: a key may lie in one of several
 * buckets.  The look is in operation_look.c.
 */
#include "bus/bus.h"

#include "bus/name_lock.h"
#include "bus/position.h"
#include "core/bucket.h"
#include "core/operation.h"
#include "utils/builtins.h"
#include "utils/uuid.h"

PG_FUNCTION_INFO_V1(mp_sql_operation_lock);
PG_FUNCTION_INFO_V1(mp_sql_operation_token);
PG_FUNCTION_INFO_V1(mp_sql_operation_step);
PG_FUNCTION_INFO_V1(mp_sql_operation_bucket);
PG_FUNCTION_INFO_V1(mp_sql_operation_spare);

/* ------------------------------------------------------------------------
 * The lock
 * ------------------------------------------------------------------------ */

Datum
mp_sql_operation_lock(PG_FUNCTION_ARGS)
{
	Datum		names[3] = {PG_GETARG_DATUM(0), PG_GETARG_DATUM(1), PG_GETARG_DATUM(2)};
	bool		wait = PG_GETARG_BOOL(3);
	LOCKTAG		tag = mp_lock_of_names("operation", names, 3);

	PG_RETURN_BOOL(LockAcquire(&tag, ExclusiveLock, false, !wait) != LOCKACQUIRE_NOT_AVAIL);
}

/* ------------------------------------------------------------------------
 * What is decided and computed elsewhere
 * ------------------------------------------------------------------------ */

Datum
mp_sql_operation_token(PG_FUNCTION_ARGS)
{
	pg_uuid_t  *token = palloc(sizeof(pg_uuid_t));

	mp_require_preload();
	mp_position_make_uuid(mp_position_next(), token);
	PG_RETURN_UUID_P(token);
}

static MpOwnerLost
owner_lost(Datum datum)
{
	char	   *word = TextDatumGetCString(datum);

	if (strcmp(word, "retry") == 0)
		return MP_OWNER_LOST_RETRY;
	if (strcmp(word, "verify") == 0)
		return MP_OWNER_LOST_VERIFY;
	if (strcmp(word, "block") == 0)
		return MP_OWNER_LOST_BLOCK;
	mp_refuse_argument("on_owner_lost must be retry, block or verify");
}

Datum
mp_sql_operation_step(PG_FUNCTION_ARGS)
{
	static const char *const words[] = {
		[MP_STEP_START] = "start",
		[MP_STEP_TAKE_OVER] = "take_over",
		[MP_STEP_VERIFY] = "verify",
		[MP_STEP_COMPLETED] = "completed",
		[MP_STEP_IN_PROGRESS] = "in_progress",
		[MP_STEP_BLOCKED] = "blocked",
		[MP_STEP_OTHER_REQUEST] = "other_request"
	};
	bool		known = PG_GETARG_BOOL(0);
	bool		completed = PG_GETARG_BOOL(1);
	MpOperationState state = !known ? MP_OPERATION_ABSENT
		: completed ? MP_OPERATION_COMPLETED : MP_OPERATION_STARTED;
	MpOperationStep step = mp_operation_step(state, PG_GETARG_BOOL(2), PG_GETARG_BOOL(3),
											 owner_lost(PG_GETARG_DATUM(4)), owner_lost(PG_GETARG_DATUM(5)));

	PG_RETURN_TEXT_P(cstring_to_text(words[step]));
}

Datum
mp_sql_operation_bucket(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(mp_operation_bucket(PG_GETARG_TIMESTAMPTZ(0), PG_GETARG_FLOAT8(1)));
}

Datum
mp_sql_operation_spare(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(mp_operation_spare(PG_GETARG_INT32(0), PG_GETARG_TIMESTAMPTZ(1)));
}
