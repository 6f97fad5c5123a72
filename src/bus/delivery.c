/*
 * delivery.c
 *		Deliveries: failures recorded, retries run.
 *
 * Whoever runs an attempt holds its row: the sweep by the token it committed
 * beforehand, a replay because it inserted the row itself.
 */
#include "bus/delivery.h"

#include "access/xact.h"
#include "bus/error_class.h"
#include "bus/history.h"
#include "bus/order.h"
#include "bus/retry_budget.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/uuid.h"

/* An event that tried and failed leaves so many tries out at most. */
#define PROBES_LEFT_OUT 4

/* But of a breaker that is open for hours it waits only so long for each: others come first anyway. */
#define PROBE_LEFT_OUT_US	(60 * USECS_PER_SEC)

PG_FUNCTION_INFO_V1(mp_attempt_delivery);
PG_FUNCTION_INFO_V1(mp_fail_delivery);

void
mp_delivery_schedule(const MpSubscription *subscription, const MpEvent *event, TimestampTz due)
{
	static MpPlan plan = {
		.sql = "SELECT meal_planner.schedule_delivery($1, $2, $3, $4, $5, $6, $7)",
	.types = {TEXTOID, TEXTOID, INT8OID, UUIDOID, TIMESTAMPTZOID, TEXTOID, TEXTOID}};
	bool		nulls[7] = {false};
	Datum		values[7] = {
		event->values[MP_EVENT_ACCOUNT], CStringGetTextDatum(subscription->name),
		event->values[MP_EVENT_POSITION], event->values[MP_EVENT_ID], TimestampTzGetDatum(due),
		mp_order_key(subscription, event, &nulls[5]), PointerGetDatum(event->replay_name)
	};

	nulls[6] = event->replay_name == NULL;

	mp_spi_connect();
	mp_plan_execute(&plan, values, nulls, 1);
	mp_spi_finish();
}

/*
 * Pauses a subscription whose handler cannot run.  False when somebody else has
 * its row, who may be doing just that: emitters must not wait for each other.
 * With an old snapshot an update could end the emitter; the sweep, which will
 * try the event again, has none.
 */
static bool
pause_broken(MpSubscription *subscription, const MpEvent *event, const MpFailure *failure)
{
	static MpPlan plan = {
		.sql = "SELECT meal_planner.pause_broken_subscription($1, $2, $3, $4)",
	.types = {TEXTOID, TEXTOID, TEXTOID, TEXTOID}};
	bool		nulls[4] = {false};
	Datum		values[4] = {
		CStringGetTextDatum(subscription->name), event->values[MP_EVENT_ACCOUNT],
		mp_text_or_null(failure->sqlstate, &nulls[2]), mp_text_or_null(failure->message, &nulls[3])
	};
	bool		isnull;

	if (IsolationUsesXactSnapshot())
		return false;
	mp_plan_execute(&plan, values, nulls, 1);
	/* also for whoever holds the subscriptions of before */
	subscription->paused = DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	return subscription->paused;
}

/* An attempt that does not count leaves its token to another one. */
static void
record_retry(const MpSubscription *subscription, const MpEvent *event,
			 const MpFailedAttempt *attempt, const MpFailure *failure, const MpRetryPlan *next, const char *verdict)
{
	static MpPlan plan = {
		.sql = "SELECT meal_planner.record_retry($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)",
		.types = {TEXTOID, TEXTOID, INT8OID, UUIDOID, INT4OID, INT4OID, FLOAT8OID,
		TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, INT4OID, JSONBOID}
	};
	bool		nulls[16] = {false};
	Datum		values[16] = {
		event->values[MP_EVENT_ACCOUNT], CStringGetTextDatum(subscription->name),
		event->values[MP_EVENT_POSITION], event->values[MP_EVENT_ID],
		Int32GetDatum(next->attempt), Int32GetDatum(attempt->crashes), Float8GetDatum(next->delay),
		mp_text_or_null(failure->sqlstate, &nulls[7]), mp_text_or_null(failure->message, &nulls[8]),
		mp_text_or_null(failure->detail, &nulls[9]), mp_text_or_null(failure->hint, &nulls[10]),
		mp_text_or_null(failure->context, &nulls[11]), mp_order_key(subscription, event, &nulls[12]),
		PointerGetDatum(event->replay_name), Int32GetDatum(next->contentions),
		mp_failed_attempt(event, attempt->attempt, next->attempt >= attempt->attempt, failure, verdict)
	};

	nulls[13] = event->replay_name == NULL;
	mp_plan_execute(&plan, values, nulls, 1);
	if (next->attempt < attempt->attempt && next->attempt > 0)
		mp_retry_budget_give_back(subscription, 1);
}

static void
record_dead_letter(const MpSubscription *subscription, const MpEvent *event,
				   const MpFailedAttempt *attempt, const MpFailure *failure, MpVerdict verdict)
{
	static MpPlan plan = {
		.sql = "SELECT meal_planner.record_dead_letter($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
		.types = {TEXTOID, TEXTOID, INT8OID, UUIDOID, TEXTOID, TEXTOID, INT4OID,
		TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, JSONBOID}
	};
	const char *error_type = verdict == MP_VERDICT_PERMANENT ? "permanent"
		: verdict == MP_VERDICT_CRASH ? "crash" : "transient";
	bool		nulls[14] = {false};
	Datum		values[14] = {
		event->values[MP_EVENT_ACCOUNT], CStringGetTextDatum(subscription->name),
		event->values[MP_EVENT_POSITION], event->values[MP_EVENT_ID],
		CStringGetTextDatum(error_type), CStringGetTextDatum(mp_verdict_reason(verdict)),
		Int32GetDatum(Max(attempt->attempt - 1, 0)),
		mp_text_or_null(failure->sqlstate, &nulls[7]), mp_text_or_null(failure->message, &nulls[8]),
		mp_text_or_null(failure->detail, &nulls[9]), mp_text_or_null(failure->hint, &nulls[10]),
		mp_text_or_null(failure->context, &nulls[11]), mp_order_key(subscription, event, &nulls[12]),
		mp_failed_attempt(event, attempt->attempt, true, failure, mp_verdict_reason(verdict))
	};

	mp_plan_execute(&plan, values, nulls, 1);
}

/*
 * The breaker did not let it be called: no attempt.  It is due, and who looks
 * for what is due asks the breaker first: so it goes on as soon as that is
 * closed, by whatever way.
 */
static void
defer(const MpSubscription *subscription, const MpEvent *event, const MpFailedAttempt *attempt)
{
	static MpPlan plan = {
		.sql = "SELECT meal_planner.defer_delivery($1, $2, $3, $4, $5, $6, $7, $8)",
	.types = {TEXTOID, TEXTOID, INT8OID, UUIDOID, INT4OID, TIMESTAMPTZOID, TEXTOID, TEXTOID}};
	bool		nulls[8] = {false};
	Datum		values[8] = {
		event->values[MP_EVENT_ACCOUNT], CStringGetTextDatum(subscription->name),
		event->values[MP_EVENT_POSITION], event->values[MP_EVENT_ID],
		Int32GetDatum(attempt->attempt - 1), TimestampTzGetDatum(mp_clock_now()),
		mp_order_key(subscription, event, &nulls[6]), PointerGetDatum(event->replay_name)
	};

	nulls[7] = event->replay_name == NULL;
	mp_plan_execute(&plan, values, nulls, 1);
	if (attempt->attempt > 1)
		mp_retry_budget_give_back(subscription, 1);
}

/*
 * The event that happened to try a service that is down pays for it with no
 * attempt either: else an outage would use up one event after the other.  It
 * leaves the next few tries to others, by chance, in case that it is the reason
 * itself.  False when it is too old for that.
 */
static bool
probe_failed(const MpSubscription *subscription, const MpEvent *event,
			 const MpFailedAttempt *attempt, const MpFailure *failure, TimestampTz retry_at)
{
	MpRetryPlan next = {
		.delay = subscription->policy.base_delay, .attempt = attempt->attempt - 1, .contentions = attempt->contentions
	};
	int64		open_us = Min(Max(retry_at - mp_clock_now(), 0), PROBE_LEFT_OUT_US);

	if (retry_at != DT_NOEND)
		next.delay += open_us / (double) USECS_PER_SEC * (1 + PROBES_LEFT_OUT * mp_random_share());
	if (attempt->has_retry_after)
		next.delay = Max(next.delay, attempt->retry_after);
	if (subscription->policy.max_age > 0 && attempt->age + next.delay > subscription->policy.max_age)
		return false;
	record_retry(subscription, event, attempt, failure, &next, "probe");
	return true;
}

bool
mp_delivery_failed(MpSubscription *subscription, const MpEvent *event,
				   const MpFailedAttempt *attempt, const MpFailure *failure)
{
	MpFailedAttempt judged = *attempt;
	MpRetryPlan next;
	TimestampTz retry_at;

	mp_spi_connect();
	if (failure->call.refused)
	{
		defer(subscription, event, attempt);
		mp_spi_finish();
		return true;
	}
	mp_classify_failure(subscription, failure, &judged);
	if (mp_breaker_failed(&failure->call, judged.class, failure->seconds, &retry_at) &&
		probe_failed(subscription, event, &judged, failure, retry_at))
	{
		mp_spi_finish();
		return true;
	}
	next = mp_retry_plan(&subscription->policy, &judged, mp_random_share());
	/* no fault of the event, and the next one would fail the same way */
	if (next.verdict == MP_VERDICT_PAUSE && pause_broken(subscription, event, failure))
		next.delay = 0;
	if (mp_verdict_is_dead(next.verdict))
		record_dead_letter(subscription, event, &judged, failure, next.verdict);
	else
		record_retry(subscription, event, &judged, failure, &next, mp_verdict_reason(next.verdict));
	mp_spi_finish();
	return !mp_verdict_is_dead(next.verdict);
}

/* ------------------------------------------------------------------------
 * Attempts after the first
 * ------------------------------------------------------------------------ */

typedef struct Delivery
{
	MpEvent		event;
	MpFailedAttempt attempt;
	Datum		key;			/* its order key */
	bool		keyless;
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
		" pg_catalog.date_part('epoch', meal_planner.clock() OPERATOR(pg_catalog.-) d.first_failed_at),"
		" d.order_key, d.replay_name, d.contentions"
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
	delivery->key = SPI_getbinval(row, desc, 6, &delivery->keyless);
	value = SPI_getbinval(row, desc, 7, &isnull);
	delivery->event.replay_name = isnull ? NULL : DatumGetTextPP(value);
	delivery->attempt.contentions = DatumGetInt32(SPI_getbinval(row, desc, 8, &isnull));
	return true;
}

/* Of an order key the next one may run now; NULL: it has none. */
static void
release_key(Datum account, Datum subscription, Datum key, bool keyless)
{
	static MpPlan plan = {
		.sql = "SELECT meal_planner.release_key($1, $2, $3)",
	.types = {TEXTOID, TEXTOID, TEXTOID}};
	Datum		values[3] = {account, subscription, key};

	if (!keyless)
		mp_plan_execute(&plan, values, NULL, 1);
}

/*
 * Removes a delivery; `letter` settles the dead letter that it replays, if any,
 * which keeps the attempts that failed ($4).
 */
static void
end_delivery(Datum account, Datum subscription, Datum position, MpPlan *letter)
{
	static MpPlan plan = {
		.sql = "DELETE FROM meal_planner.delivery d"
		" WHERE d.account OPERATOR(pg_catalog.=) $1 AND d.subscription OPERATOR(pg_catalog.=) $2"
		" AND d.position OPERATOR(pg_catalog.=) $3 RETURNING d.order_key, d.history",
	.types = {TEXTOID, TEXTOID, INT8OID}};
	Datum		values[4] = {account, subscription, position, (Datum) 0};
	bool		nulls[4] = {false, false, false, true};
	Datum		key = (Datum) 0;
	bool		keyless = true;

	mp_plan_execute(&plan, values, NULL, 0);
	if (SPI_processed > 0)
	{
		key = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &keyless);
		values[3] = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &nulls[3]);
	}
	mp_plan_execute(letter, values, nulls, 0);
	release_key(account, subscription, key, keyless);
}

/* What the delivery of a replay leaves to its dead letter. */
#define JOIN_HISTORY \
	" history = meal_planner.join_history(l.history, meal_planner.stamp_history(coalesce($4, '[]'::pg_catalog.jsonb), l.replay_count))"

/* Its event or its subscription is gone: nobody goes on with a replay either. */
static void
drop_delivery(Datum account, Datum subscription, Datum position)
{
	static MpPlan dead = {
		.sql = "UPDATE meal_planner.dead_letter l SET status = 'dead'," JOIN_HISTORY
		" WHERE l.account OPERATOR(pg_catalog.=) $1 AND l.subscription OPERATOR(pg_catalog.=) $2"
		" AND l.position OPERATOR(pg_catalog.=) $3 AND l.status OPERATOR(pg_catalog.=) 'replaying'",
	.types = {TEXTOID, TEXTOID, INT8OID, JSONBOID}};

	end_delivery(account, subscription, position, &dead);
}

void
mp_delivery_finish(Datum account, Datum subscription, Datum position)
{
	static MpPlan resolve = {
		.sql = "UPDATE meal_planner.dead_letter l"
		" SET status = 'resolved', settled_at = meal_planner.clock()," JOIN_HISTORY
		" WHERE l.account OPERATOR(pg_catalog.=) $1 AND l.subscription OPERATOR(pg_catalog.=) $2"
		" AND l.position OPERATOR(pg_catalog.=) $3"
		" AND l.status OPERATOR(pg_catalog.=) ANY (ARRAY['replaying', 'dead'])",
	.types = {TEXTOID, TEXTOID, INT8OID, JSONBOID}};

	end_delivery(account, subscription, position, &resolve);
}

/*
 * An attempt after the first has failed.  Also one that is to be retried lets
 * its key go on, with an earlier one that was not there when it began; a dead
 * letter has done so.
 */
static bool
failed_again(MpSubscription *subscription, Datum account, const Delivery *delivery, const MpFailure *failure)
{
	bool		again = mp_delivery_failed(subscription, &delivery->event, &delivery->attempt, failure);

	if (again)
		release_key(account, CStringGetTextDatum(subscription->name), delivery->key, delivery->keyless);
	return again;
}

bool
mp_delivery_failed_again(MpSubscription *subscription, Datum account, Datum position, const MpFailure *failure)
{
	Delivery	delivery;

	if (!load_delivery(account, CStringGetTextDatum(subscription->name), position, &delivery))
		elog(ERROR, "the event of a delivery is gone");
	return failed_again(subscription, account, &delivery, failure);
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
	else
		outcome = failed_again(subscription, account, &delivery, &failure) ? "retry" : "dead";
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
		.message = PG_ARGISNULL(5) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(5)),
		.seconds = PG_ARGISNULL(6) ? 0 : PG_GETARG_FLOAT8(6),
		.worker = PG_ARGISNULL(7) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(7))
	};
	const char *outcome = "gone";

	mp_spi_connect();
	if (subscription != NULL && load_delivery(PG_GETARG_DATUM(0), name, PG_GETARG_DATUM(2), &delivery))
	{
		if (PG_GETARG_BOOL(3))
			delivery.attempt.crashes++;
		outcome = failed_again(subscription, PG_GETARG_DATUM(0), &delivery, &failure) ? "retry" : "dead";
	}
	else
		drop_delivery(PG_GETARG_DATUM(0), name, PG_GETARG_DATUM(2));
	mp_spi_finish();
	mp_subscriptions_release(subscriptions);
	PG_RETURN_TEXT_P(cstring_to_text(outcome));
}
