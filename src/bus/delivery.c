/*
 * delivery.c
 *		Deliveries: failures recorded, retries run.
 *
 * Whoever runs an attempt holds its row: the sweep by the token it committed
 * beforehand, a replay because it inserted the row itself.
 */
#include "bus/delivery.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/uuid.h"

PG_FUNCTION_INFO_V1(mp_attempt_delivery);
PG_FUNCTION_INFO_V1(mp_fail_delivery);

void
mp_delivery_schedule(const MpSubscription *subscription, const MpEvent *event, TimestampTz due)
{
	static MpPlan plan = {
		.sql = "SELECT meal_planner.schedule_delivery($1, $2, $3, $4, $5)",
	.types = {TEXTOID, TEXTOID, INT8OID, UUIDOID, TIMESTAMPTZOID}};
	Datum		values[5] = {
		event->values[MP_EVENT_ACCOUNT], CStringGetTextDatum(subscription->name),
		event->values[MP_EVENT_POSITION], event->values[MP_EVENT_ID], TimestampTzGetDatum(due)
	};

	mp_spi_connect();
	mp_plan_execute(&plan, values, NULL, 1);
	mp_spi_finish();
}

/* SPI is connected. */
static bool
is_permanent(const MpSubscription *subscription, const char *sqlstate)
{
	static MpPlan plan = {
		.sql = "SELECT meal_planner.classify_error($1, $2) OPERATOR(pg_catalog.=) 'permanent'",
	.types = {TEXTOID, TEXTOID}};
	Datum		values[2] = {CStringGetTextDatum(sqlstate), CStringGetTextDatum(subscription->name)};
	bool		isnull;

	mp_plan_execute(&plan, values, NULL, 1);
	return DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
}

static void
record_retry(const MpSubscription *subscription, const MpEvent *event,
			 const MpFailedAttempt *attempt, const MpFailure *failure, double delay)
{
	static MpPlan plan = {
		.sql = "SELECT meal_planner.record_retry($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
		.types = {TEXTOID, TEXTOID, INT8OID, UUIDOID, INT4OID, INT4OID, FLOAT8OID,
		TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID}
	};
	bool		nulls[12] = {false};
	Datum		values[12] = {
		event->values[MP_EVENT_ACCOUNT], CStringGetTextDatum(subscription->name),
		event->values[MP_EVENT_POSITION], event->values[MP_EVENT_ID],
		Int32GetDatum(attempt->attempt), Int32GetDatum(attempt->crashes), Float8GetDatum(delay),
		mp_text_or_null(failure->sqlstate, &nulls[7]), mp_text_or_null(failure->message, &nulls[8]),
		mp_text_or_null(failure->detail, &nulls[9]), mp_text_or_null(failure->hint, &nulls[10]),
		mp_text_or_null(failure->context, &nulls[11])
	};

	mp_plan_execute(&plan, values, nulls, 1);
}

static void
record_dead_letter(const MpSubscription *subscription, const MpEvent *event,
				   const MpFailedAttempt *attempt, const MpFailure *failure, MpVerdict verdict)
{
	static MpPlan plan = {
		.sql = "SELECT meal_planner.record_dead_letter($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
		.types = {TEXTOID, TEXTOID, INT8OID, UUIDOID, TEXTOID, TEXTOID, INT4OID,
		TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID}
	};
	const char *error_type = verdict == MP_VERDICT_PERMANENT ? "permanent"
		: verdict == MP_VERDICT_CRASH ? "crash" : "transient";
	bool		nulls[12] = {false};
	Datum		values[12] = {
		event->values[MP_EVENT_ACCOUNT], CStringGetTextDatum(subscription->name),
		event->values[MP_EVENT_POSITION], event->values[MP_EVENT_ID],
		CStringGetTextDatum(error_type), CStringGetTextDatum(mp_verdict_reason(verdict)),
		Int32GetDatum(Max(attempt->attempt - 1, 0)),
		mp_text_or_null(failure->sqlstate, &nulls[7]), mp_text_or_null(failure->message, &nulls[8]),
		mp_text_or_null(failure->detail, &nulls[9]), mp_text_or_null(failure->hint, &nulls[10]),
		mp_text_or_null(failure->context, &nulls[11])
	};

	mp_plan_execute(&plan, values, nulls, 1);
}

bool
mp_delivery_failed(const MpSubscription *subscription, const MpEvent *event,
				   const MpFailedAttempt *attempt, const MpFailure *failure)
{
	MpFailedAttempt judged = *attempt;
	MpVerdict	verdict;
	double		delay;

	mp_spi_connect();
	judged.permanent |= failure->sqlstate != NULL && is_permanent(subscription, failure->sqlstate);
	verdict = mp_retry_verdict(&subscription->policy, &judged, mp_random_share(), &delay);
	if (verdict == MP_VERDICT_RETRY)
		record_retry(subscription, event, &judged, failure, delay);
	else
		record_dead_letter(subscription, event, &judged, failure, verdict);
	mp_spi_finish();
	return verdict == MP_VERDICT_RETRY;
}

/* ------------------------------------------------------------------------
 * Attempts after the first
 * ------------------------------------------------------------------------ */

typedef struct Delivery
{
	MpEvent		event;
	MpFailedAttempt attempt;
} Delivery;

/*
 * Reads a delivery and its event and locks the delivery to the end of the
 * transaction.  False when it is gone.  The event lives in the SPI procedure's
 * context; SPI is connected.
 */
static bool
load_delivery(Datum account, Datum subscription, Datum position, Delivery *delivery)
{
	static MpPlan plan = {
		.sql = "SELECT e, d.detail, d.attempt, d.crashes,"
		" pg_catalog.date_part('epoch', meal_planner.clock() OPERATOR(pg_catalog.-) d.first_failed_at)"
		" FROM meal_planner.delivery d"
		" JOIN meal_planner.event e ON e.account OPERATOR(pg_catalog.=) d.account"
		" AND e.position OPERATOR(pg_catalog.=) d.position"
		" WHERE d.account OPERATOR(pg_catalog.=) $1 AND d.subscription OPERATOR(pg_catalog.=) $2"
		" AND d.position OPERATOR(pg_catalog.=) $3 AND e.account OPERATOR(pg_catalog.=) $1"
		" AND e.position OPERATOR(pg_catalog.=) $3"
		" FOR UPDATE OF d",
	.types = {TEXTOID, TEXTOID, INT8OID}};
	Datum		values[3] = {account, subscription, position};
	HeapTuple	row;
	TupleDesc	desc;
	Datum		value;
	bool		isnull;

	mp_plan_execute(&plan, values, NULL, 1);
	if (SPI_processed == 0)
		return false;
	row = SPI_tuptable->vals[0];
	desc = SPI_tuptable->tupdesc;

	memset(delivery, 0, sizeof(*delivery));
	(void) mp_event_from_row(DatumGetHeapTupleHeader(SPI_getbinval(row, desc, 1, &isnull)), &delivery->event);
	value = SPI_getbinval(row, desc, 2, &isnull);
	if (!isnull)
		delivery->event.values[MP_EVENT_DETAIL] = value;
	delivery->attempt.attempt = DatumGetInt32(SPI_getbinval(row, desc, 3, &isnull));
	delivery->attempt.crashes = DatumGetInt32(SPI_getbinval(row, desc, 4, &isnull));
	value = SPI_getbinval(row, desc, 5, &isnull);
	delivery->attempt.age = isnull ? 0 : DatumGetFloat8(value);
	return true;
}

static void
remove_delivery(Datum account, Datum subscription, Datum position)
{
	static MpPlan plan = {
		.sql = "DELETE FROM meal_planner.delivery d"
		" WHERE d.account OPERATOR(pg_catalog.=) $1 AND d.subscription OPERATOR(pg_catalog.=) $2"
		" AND d.position OPERATOR(pg_catalog.=) $3",
	.types = {TEXTOID, TEXTOID, INT8OID}};
	Datum		values[3] = {account, subscription, position};

	mp_plan_execute(&plan, values, NULL, 0);
}

/* Its event or its subscription is gone: nobody goes on with a replay either. */
static void
drop_delivery(Datum account, Datum subscription, Datum position)
{
	static MpPlan dead = {
		.sql = "UPDATE meal_planner.dead_letter l SET status = 'dead'"
		" WHERE l.account OPERATOR(pg_catalog.=) $1 AND l.subscription OPERATOR(pg_catalog.=) $2"
		" AND l.position OPERATOR(pg_catalog.=) $3 AND l.status OPERATOR(pg_catalog.=) 'replaying'",
	.types = {TEXTOID, TEXTOID, INT8OID}};
	Datum		values[3] = {account, subscription, position};

	remove_delivery(account, subscription, position);
	mp_plan_execute(&dead, values, NULL, 0);
}

void
mp_delivery_finish(Datum account, Datum subscription, Datum position)
{
	static MpPlan resolve = {
		.sql = "UPDATE meal_planner.dead_letter l"
		" SET status = 'resolved', settled_at = meal_planner.clock()"
		" WHERE l.account OPERATOR(pg_catalog.=) $1 AND l.subscription OPERATOR(pg_catalog.=) $2"
		" AND l.position OPERATOR(pg_catalog.=) $3"
		" AND l.status OPERATOR(pg_catalog.=) ANY (ARRAY['replaying', 'dead'])",
	.types = {TEXTOID, TEXTOID, INT8OID}};
	Datum		values[3] = {account, subscription, position};

	remove_delivery(account, subscription, position);
	mp_plan_execute(&resolve, values, NULL, 0);
}

bool
mp_delivery_failed_again(const MpSubscription *subscription, Datum account, Datum position,
						 bool permanent, const MpFailure *failure)
{
	Delivery	delivery;

	if (!load_delivery(account, CStringGetTextDatum(subscription->name), position, &delivery))
		elog(ERROR, "the event of a delivery is gone");
	delivery.attempt.permanent = permanent;
	return mp_delivery_failed(subscription, &delivery.event, &delivery.attempt, failure);
}

Datum
mp_attempt_delivery(PG_FUNCTION_ARGS)
{
	Datum		account = PG_GETARG_DATUM(0);
	Datum		name = PG_GETARG_DATUM(1);
	Datum		position = PG_GETARG_DATUM(2);
	MpSubscriptions *subscriptions = mp_subscriptions_hold();
	MpSubscription *subscription = mp_subscription_find(subscriptions, TextDatumGetCString(name));
	Delivery	delivery;
	MpFailure	failure;
	const char *outcome;

	mp_spi_connect();
	if (subscription == NULL || !load_delivery(account, name, position, &delivery))
	{
		drop_delivery(account, name, position);
		outcome = "gone";
	}
	else if (mp_handler_run(subscription, &delivery.event, 1, &failure))
	{
		mp_delivery_finish(account, name, position);
		outcome = "done";
	}
	else if (mp_delivery_failed(subscription, &delivery.event, &delivery.attempt, &failure))
		outcome = "retry";
	else
		outcome = "dead";
	mp_spi_finish();
	mp_subscriptions_release(subscriptions);
	PG_RETURN_TEXT_P(cstring_to_text(outcome));
}

Datum
mp_fail_delivery(PG_FUNCTION_ARGS)
{
	Datum		name = PG_GETARG_DATUM(1);
	MpSubscriptions *subscriptions = mp_subscriptions_hold();
	MpSubscription *subscription = mp_subscription_find(subscriptions, TextDatumGetCString(name));
	Delivery	delivery;
	MpFailure	failure = {
		.sqlstate = PG_ARGISNULL(4) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(4)),
		.message = PG_ARGISNULL(5) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(5))
	};
	const char *outcome = "gone";

	mp_spi_connect();
	if (subscription != NULL && load_delivery(PG_GETARG_DATUM(0), name, PG_GETARG_DATUM(2), &delivery))
	{
		if (PG_GETARG_BOOL(3))
			delivery.attempt.crashes++;
		outcome = mp_delivery_failed(subscription, &delivery.event, &delivery.attempt, &failure)
			? "retry" : "dead";
	}
	else
		drop_delivery(PG_GETARG_DATUM(0), name, PG_GETARG_DATUM(2));
	mp_spi_finish();
	mp_subscriptions_release(subscriptions);
	PG_RETURN_TEXT_P(cstring_to_text(outcome));
}
