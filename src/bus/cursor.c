/*
 * cursor.c
 *		The cursors of pull subscriptions, and the leases that end.
 *
 * Next to the newest cursor stands which claims may be out and when the first
 * lease of theirs may end.  So claims are looked through only when that time
 * has come, from the first that may be out, and not at every claim: over all
 * claims it is a constant share, dead rows included.
 */
#include "bus/cursor.h"

#include "bus/order.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(mp_expire_claims);

/* ------------------------------------------------------------------------
 * The ledger
 * ------------------------------------------------------------------------ */

MpCursor
mp_cursor_read(text *account, const MpSubscription *subscription, Datum name)
{
	static MpPlan plan = {
		.sql = "SELECT c.position, c.first_claim, c.next_expiry FROM meal_planner.subscription_cursor c"
		" WHERE c.account OPERATOR(pg_catalog.=) $1 AND c.subscription OPERATOR(pg_catalog.=) $2"
		" ORDER BY c.account DESC, c.subscription DESC, c.position DESC LIMIT 1",
	.types = {TEXTOID, TEXTOID}, .in_index_order = true};
	Datum		values[2] = {PointerGetDatum(account), name};
	MpCursor	cursor = {.position = subscription->start_position, .next_expiry = DT_NOEND};

	mp_plan_execute(&plan, values, NULL, 1);
	if (SPI_processed > 0)
	{
		HeapTuple	row = SPI_tuptable->vals[0];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		bool		isnull;
		Datum		value;

		cursor.stored = true;
		cursor.stored_position = DatumGetInt64(SPI_getbinval(row, desc, 1, &isnull));
		cursor.position = Max(cursor.position, cursor.stored_position);
		value = SPI_getbinval(row, desc, 2, &isnull);
		cursor.first_claim = isnull ? 0 : DatumGetInt64(value);
		value = SPI_getbinval(row, desc, 3, &isnull);
		cursor.next_expiry = isnull ? DT_NOEND : DatumGetTimestampTz(value);
	}
	return cursor;
}

void
mp_cursor_write(text *account, Datum name, const MpCursor *cursor, int64 position)
{
	static MpPlan move = {
		.sql = "WITH moved AS (INSERT INTO meal_planner.subscription_cursor"
		" (account, subscription, position, first_claim, next_expiry) VALUES ($1, $2, $3, $4, $5))"
		" DELETE FROM meal_planner.subscription_cursor c WHERE c.account OPERATOR(pg_catalog.=) $1"
		" AND c.subscription OPERATOR(pg_catalog.=) $2 AND c.position OPERATOR(pg_catalog.=) $6",
	.types = {TEXTOID, TEXTOID, INT8OID, INT8OID, TIMESTAMPTZOID, INT8OID}};
	static MpPlan change = {
		.sql = "UPDATE meal_planner.subscription_cursor c SET first_claim = $4, next_expiry = $5"
		" WHERE c.account OPERATOR(pg_catalog.=) $1 AND c.subscription OPERATOR(pg_catalog.=) $2"
		" AND c.position OPERATOR(pg_catalog.=) $3",
	.types = {TEXTOID, TEXTOID, INT8OID, INT8OID, TIMESTAMPTZOID}};
	bool		same = cursor->stored && cursor->stored_position == position;
	Datum		values[6] = {
		PointerGetDatum(account), name, Int64GetDatum(position), Int64GetDatum(cursor->first_claim),
		TimestampTzGetDatum(cursor->next_expiry), Int64GetDatum(cursor->stored_position)
	};
	bool		nulls[6] = {false};

	nulls[3] = cursor->first_claim == 0;
	nulls[4] = cursor->next_expiry == DT_NOEND;
	nulls[5] = !cursor->stored;
	mp_plan_execute(same ? &change : &move, values, nulls, 0);
}

/* ------------------------------------------------------------------------
 * Leases that are over
 * ------------------------------------------------------------------------ */

static void
expire_claim(text *account, const MpSubscription *subscription, int64 number)
{
	static MpPlan plan = {
		.sql = "SELECT meal_planner.expire_claim($1, $2, $3, $4, $5)",
	.types = {TEXTOID, TEXTOID, INT8OID, FLOAT8OID, BOOLOID}};
	MpFailedAttempt first = {.attempt = 1};
	MpRetryPlan plan_of_first = mp_retry_plan(&subscription->policy, &first, mp_random_share());
	Datum		values[5] = {
		PointerGetDatum(account), CStringGetTextDatum(subscription->name), Int64GetDatum(number),
		Float8GetDatum(plan_of_first.delay), BoolGetDatum(mp_verdict_is_dead(plan_of_first.verdict))
	};

	mp_plan_execute(&plan, values, NULL, 1);
}

/*
 * A claim whose row is locked is being acknowledged or extended right now: it
 * counts as out, and the next call looks again.
 */
bool
mp_cursor_expire_leases(text *account, const MpSubscription *subscription, TimestampTz now, MpCursor *cursor)
{
	static MpPlan over = {
		.sql = "SELECT c.number FROM meal_planner.consumer_claim c"
		" WHERE c.account OPERATOR(pg_catalog.=) $1 AND c.subscription OPERATOR(pg_catalog.=) $2"
		" AND c.number OPERATOR(pg_catalog.>=) $3 AND c.lease_until OPERATOR(pg_catalog.<=) $4"
		" ORDER BY c.number FOR UPDATE SKIP LOCKED",
	.types = {TEXTOID, TEXTOID, INT8OID, TIMESTAMPTZOID}, .in_index_order = true};
	static MpPlan out = {
		.sql = "SELECT pg_catalog.min(c.number), pg_catalog.min(c.lease_until) FROM meal_planner.consumer_claim c"
		" WHERE c.account OPERATOR(pg_catalog.=) $1 AND c.subscription OPERATOR(pg_catalog.=) $2"
		" AND c.number OPERATOR(pg_catalog.>=) $3",
	.types = {TEXTOID, TEXTOID, INT8OID}, .in_index_order = true};
	Datum		values[4] = {
		PointerGetDatum(account), CStringGetTextDatum(subscription->name),
		Int64GetDatum(cursor->first_claim), TimestampTzGetDatum(now)
	};
	SPITupleTable *rows;
	uint64		count;
	Datum		value;
	bool		isnull;

	if (cursor->next_expiry > now)
		return false;
	mp_plan_execute(&over, values, NULL, 0);
	rows = SPI_tuptable;
	count = SPI_processed;
	for (uint64 i = 0; i < count; i++)
		expire_claim(account, subscription,
					 DatumGetInt64(SPI_getbinval(rows->vals[i], rows->tupdesc, 1, &isnull)));

	mp_plan_execute(&out, values, NULL, 1);
	value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	cursor->first_claim = isnull ? 0 : DatumGetInt64(value);
	value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull);
	cursor->next_expiry = isnull ? DT_NOEND : DatumGetTimestampTz(value);
	return count > 0;
}

void
mp_cursor_expiry_comes(text *account, Datum name, TimestampTz lease_until)
{
	MpSubscriptions *subscriptions = mp_subscriptions_hold();
	MpSubscription *subscription = mp_subscription_find(subscriptions, TextDatumGetCString(name));

	if (subscription != NULL && mp_cursor_read(account, subscription, name).next_expiry > lease_until)
	{
		MpCursor	cursor;

		(void) mp_order_lock(PointerGetDatum(account), name, true);
		cursor = mp_cursor_read(account, subscription, name);
		cursor.next_expiry = Min(cursor.next_expiry, lease_until);
		if (cursor.stored)
			mp_cursor_write(account, name, &cursor, cursor.stored_position);
	}
	mp_subscriptions_release(subscriptions);
}

/* For the sweep: where no consumer claims any more, its claims end all the same. */
Datum
mp_expire_claims(PG_FUNCTION_ARGS)
{
	text	   *account = PG_GETARG_TEXT_PP(0);
	Datum		name = PG_GETARG_DATUM(1);
	MpSubscriptions *subscriptions = mp_subscriptions_hold();
	MpSubscription *subscription = mp_subscription_find(subscriptions, TextDatumGetCString(name));

	if (subscription != NULL)
	{
		MpCursor	cursor;

		(void) mp_order_lock(PointerGetDatum(account), name, true);
		mp_spi_connect();
		cursor = mp_cursor_read(account, subscription, name);
		if (cursor.next_expiry <= mp_clock_now())
		{
			(void) mp_cursor_expire_leases(account, subscription, mp_clock_now(), &cursor);
			mp_cursor_write(account, name, &cursor, cursor.stored_position);
		}
		mp_spi_finish();
	}
	mp_subscriptions_release(subscriptions);
	PG_RETURN_VOID();
}
