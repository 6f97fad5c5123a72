/*
 * worker.c
 *		Stretches of the log, run for worker subscriptions and replays.
 *
 * Effects, failures and the cursor of a stretch are one transaction.
 */
#include "bus/delivery.h"
#include "bus/event_json.h"
#include "bus/order.h"
#include "bus/position.h"
#include "bus/replay.h"
#include "bus/subscription.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"

/*
 * Events of a batch: so many that it takes no longer than this, within limits.
 * When one fails they are run one by one, the first few of them: never more
 * subtransactions than that in one transaction.
 */
#define FEW_EVENTS			50
#define MANY_EVENTS			1000
#define BATCH_US			100000

PG_FUNCTION_INFO_V1(mp_batch_size);
PG_FUNCTION_INFO_V1(mp_run_batch);

/*
 * Reads a stretch of the log and keeps the events that match; that of a replay
 * if it is one.  SPI is connected, and the events live in its procedure context.
 */
static int
load_batch(MpSubscription *subscription, MpReplayStretch *batch, MpEvent **events)
{
	static MpPlan plan = {
		.sql = "SELECT " MP_EVENT_COLUMN_LIST " FROM meal_planner.event e WHERE e.account OPERATOR(pg_catalog.=) $1"
		" AND e.position OPERATOR(pg_catalog.>) $2 AND e.position OPERATOR(pg_catalog.<=) $3"
		" ORDER BY e.position",
	.types = {TEXTOID, INT8OID, INT8OID}, .in_index_order = true};
	Datum		values[3] = {
		batch->account, Int64GetDatum(batch->after_position), Int64GetDatum(batch->up_to)
	};
	SPITupleTable *rows;
	uint64		read;
	int			count = 0;

	if (batch->replay != 0)
	{
		if (!mp_replay_load(batch))
			elog(ERROR, "the replay of a batch is gone");
		rows = batch->rows;
		read = batch->count;
	}
	else
	{
		mp_plan_execute(&plan, values, NULL, 0);
		rows = SPI_tuptable;
		read = SPI_processed;
	}
	*events = palloc(sizeof(MpEvent) * Max(read, 1));
	for (uint64 i = 0; i < read; i++)
	{
		MpEvent    *event = &(*events)[count];
		MpJson		json;

		mp_event_from_columns(rows->vals[i], rows->tupdesc, event);
		event->replay_name = batch->name;
		json = mp_json_of_event(event);
		if (mp_pattern_match(subscription->pattern, &mp_json_reader, &json))
			count++;
	}
	return count;
}

/*
 * The handler cannot run: the subscription was paused at this event, or its
 * breaker is open.  The event is a delivery now, and keeps its place there.  What was put off behind it comes
 * again with the next batch.
 */
static void
stop_after(MpSubscription *subscription, const MpEvent *event, int64 up_to)
{
	static MpPlan plan = {
		.sql = "DELETE FROM meal_planner.delivery d"
		" WHERE d.account OPERATOR(pg_catalog.=) $1 AND d.subscription OPERATOR(pg_catalog.=) $2"
		" AND d.position OPERATOR(pg_catalog.>) $3 AND d.position OPERATOR(pg_catalog.<=) $4"
		" AND d.attempt OPERATOR(pg_catalog.=) 0 AND d.token IS NULL"
		" AND coalesce(d.replay_name, ''::pg_catalog.text) OPERATOR(pg_catalog.=) $5",
	.types = {TEXTOID, TEXTOID, INT8OID, INT8OID, TEXTOID}};
	Datum		values[5] = {
		event->values[MP_EVENT_ACCOUNT], CStringGetTextDatum(subscription->name),
		event->values[MP_EVENT_POSITION], Int64GetDatum(up_to),
		event->replay_name ? PointerGetDatum(event->replay_name) : CStringGetTextDatum("")
	};

	mp_plan_execute(&plan, values, NULL, 0);
}

/*
 * All in one subtransaction; one by one only when something failed.  Returns
 * the position that was reached.
 */
static int64
run_events(MpSubscription *subscription, MpEvent *events, int count, int64 up_to)
{
	MpFailure	failure;
	bool		failed = false;

	count = mp_order_admit(subscription, events, count);
	if (count == 0 || (count > 1 && mp_handler_run(subscription, events, count, &failure)))
		return up_to;
	subscription->batch_size = FEW_EVENTS;
	if (count > FEW_EVENTS)
	{
		count = FEW_EVENTS;
		stop_after(subscription, &events[count - 1], up_to);
		up_to = mp_event_position(&events[count - 1]);
	}
	for (int i = 0; i < count; i++)
	{
		/* a failure before may keep it back */
		if (failed && mp_order_admit(subscription, &events[i], 1) == 0)
			continue;
		if (mp_handler_run(subscription, &events[i], 1, &failure))
			continue;
		failed = true;
		(void) mp_delivery_failed(subscription, &events[i], &(MpFailedAttempt) {.attempt = 1}, &failure);
		if (subscription->paused || failure.call.refused)
		{
			stop_after(subscription, &events[i], up_to);
			return mp_event_position(&events[i]);
		}
	}
	return up_to;
}

/* A size for the next batch, from what this one took. */
static void
adapt_batch_size(MpSubscription *subscription, int count, TimestampTz began)
{
	int64		took = Max(GetCurrentTimestamp() - began, 1);
	int64		fitting = BATCH_US * (int64) count / took;
	int			highest = Min(2 * Max(count, FEW_EVENTS), MANY_EVENTS);

	subscription->batch_size = (int) Max(Min(fitting, highest), FEW_EVENTS);
}

Datum
mp_batch_size(PG_FUNCTION_ARGS)
{
	MpSubscriptions *subscriptions = mp_subscriptions_hold();
	MpSubscription *subscription = mp_subscription_find(subscriptions, text_to_cstring(PG_GETARG_TEXT_PP(0)));
	int			size = subscription ? subscription->batch_size : 0;

	mp_subscriptions_release(subscriptions);
	PG_RETURN_INT32(Max(size, FEW_EVENTS));
}

static void
end_batch(const MpReplayStretch *batch, int64 reached, int64 events)
{
	static MpPlan move = {
		.sql = "SELECT meal_planner.move_cursor($1, $2, $3, $4)",
	.types = {TEXTOID, TEXTOID, INT8OID, INT8OID}};
	Datum		values[4] = {
		batch->account, batch->subscription, Int64GetDatum(batch->after_position), Int64GetDatum(reached)
	};

	if (batch->replay != 0)
		mp_replay_end_batch(batch, reached, events);
	else
		mp_plan_execute(&move, values, NULL, 1);
}

static int
count_up_to(const int64 *positions, int count, int64 reached)
{
	while (count > 0 && positions[count - 1] > reached)
		count--;
	return count;
}

Datum
mp_run_batch(PG_FUNCTION_ARGS)
{
	MpReplayStretch batch = {
		.account = PG_GETARG_DATUM(0), .subscription = PG_GETARG_DATUM(1),
		.after_position = PG_GETARG_INT64(2), .up_to = PG_GETARG_INT64(3), .replay = PG_GETARG_INT64(4)
	};
	MpSubscriptions *subscriptions = mp_subscriptions_hold();
	MpSubscription *subscription = mp_subscription_find(subscriptions, TextDatumGetCString(batch.subscription));

	mp_require_read_committed();
	mp_spi_connect();
	/*
	 * gone or changed since the claim: its batch went with it; broken since
	 * then: the batch waits until it is repaired
	 */
	if (subscription != NULL && !subscription->broken &&
		(batch.replay != 0 ? subscription->mode != MP_PULL : subscription->mode == MP_WORKER))
	{
		TimestampTz began = GetCurrentTimestamp();
		MpEvent    *events;
		int			count = load_batch(subscription, &batch, &events);
		int64	   *positions = palloc(sizeof(int64) * Max(count, 1));
		int64		reached;

		for (int i = 0; i < count; i++)
			positions[i] = mp_event_position(&events[i]);
		reached = run_events(subscription, events, count, batch.up_to);
		if (batch.replay == 0 && reached == batch.up_to)
			adapt_batch_size(subscription, count, began);
		end_batch(&batch, reached, count_up_to(positions, count, reached));
	}
	mp_spi_finish();
	mp_subscriptions_release(subscriptions);
	PG_RETURN_VOID();
}
