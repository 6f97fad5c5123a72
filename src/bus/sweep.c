/*
 * sweep.c
 *		The worker behind mp_sweep: its token, its sleep, its batches.
 *
 * A worker holds a lock of its token's number for as long as its sweep runs:
 * to the end of the session, or until an error ends the sweep (the server
 * releases session locks of this kind when a transaction aborts).  Nothing else
 * is needed to tell a dead worker from a slow one.
 */
#include "bus/delivery.h"
#include "bus/dispatch.h"
#include "bus/event_json.h"
#include "bus/notice.h"
#include "bus/order.h"
#include "bus/position.h"
#include "bus/replay.h"
#include "bus/subscription.h"
#include "bus/wakeup.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgcompat.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/builtins.h"

#define CHORES_EVERY_US		USECS_PER_SEC

/*
 * Events of a batch: so many that it takes no longer than this, within limits.
 * When one fails they are run one by one, the first few of them: never more
 * subtransactions than that in one transaction.
 */
#define FEW_EVENTS			50
#define MANY_EVENTS			1000
#define BATCH_US			100000

/* This session's sweep. */
static int64 my_token = 0;
static LOCKTAG my_lock;
static TimestampTz deadline = 0;	/* of the wall clock; 0: none */
static bool turn = false;
static TimestampTz next_chores = 0;

PG_FUNCTION_INFO_V1(mp_sweep_begin);
PG_FUNCTION_INFO_V1(mp_sweep_end);
PG_FUNCTION_INFO_V1(mp_sweep_token);
PG_FUNCTION_INFO_V1(mp_sweep_time_left);
PG_FUNCTION_INFO_V1(mp_sweep_turn);
PG_FUNCTION_INFO_V1(mp_sweep_announce);
PG_FUNCTION_INFO_V1(mp_sweep_sleep);
PG_FUNCTION_INFO_V1(mp_sweep_chores_due);
PG_FUNCTION_INFO_V1(mp_batch_size);
PG_FUNCTION_INFO_V1(mp_worker_is_dead);
PG_FUNCTION_INFO_V1(mp_run_batch);

/*
 * The lock of a token.  48 bits of its tick fit, which repeat after nine years.
 * The event table stands where the catalog of an object would: no other lock
 * looks like that.
 */
static LOCKTAG
lock_of_token(int64 token)
{
	LOCKTAG		tag;
	uint64		tick = (uint64) token >> 10;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, mp_event_relation(), (uint32) (tick >> 16), (uint16) tick);
	return tag;
}

static void
give_up_token(void)
{
	/* not held any more when an error ended the sweep before */
	if (my_token != 0 && mp_lock_held(&my_lock, ExclusiveLock))
		(void) LockRelease(&my_lock, ExclusiveLock, true);
	my_token = 0;
}

/*
 * The server releases locks of this kind when a transaction aborts, but not
 * when an idle session ends.
 */
static void
give_up_token_at_exit(int code, Datum arg)
{
	give_up_token();
}

Datum
mp_sweep_begin(PG_FUNCTION_ARGS)
{
	double		max_seconds = PG_ARGISNULL(0) ? 0 : PG_GETARG_FLOAT8(0);
	static bool registered = false;

	/* a subtransaction is that of a handler, or of a block with EXCEPTION */
	if (IsTransactionBlock() || IsSubTransaction())
		ereport(ERROR,
				(errcode(MP_ERRCODE_CONFLICT),
				 errmsg("MP409: cannot sweep inside a transaction block"),
				 errhint("retry=no. It commits after every step; call it on its own.")));
	if (!(max_seconds >= 0 && max_seconds <= 86400))
		ereport(ERROR,
				(errcode(MP_ERRCODE_INVALID),
				 errmsg("MP400: max_seconds must be between 0 and 86400"),
				 errhint("retry=no. Correct the argument.")));

	if (!registered)
	{
		before_shmem_exit(give_up_token_at_exit, (Datum) 0);
		registered = true;
	}
	give_up_token();
	my_token = mp_position_next();
	my_lock = lock_of_token(my_token);
	(void) LockAcquire(&my_lock, ExclusiveLock, true, false);
	deadline = max_seconds > 0
		? GetCurrentTimestamp() + (int64) (max_seconds * USECS_PER_SEC) : 0;
	turn = false;
	next_chores = 0;
	mp_notice_begin_sweep(deadline);
	PG_RETURN_INT64(my_token);
}

Datum
mp_sweep_end(PG_FUNCTION_ARGS pg_attribute_unused())
{
	give_up_token();
	PG_RETURN_VOID();
}

Datum
mp_sweep_token(PG_FUNCTION_ARGS)
{
	if (my_token == 0)
		PG_RETURN_NULL();
	PG_RETURN_INT64(my_token);
}

Datum
mp_sweep_time_left(PG_FUNCTION_ARGS pg_attribute_unused())
{
	PG_RETURN_BOOL(deadline == 0 || GetCurrentTimestamp() < deadline);
}

Datum
mp_sweep_turn(PG_FUNCTION_ARGS pg_attribute_unused())
{
	turn = !turn;
	PG_RETURN_BOOL(!turn);
}

static bool
goes_on(void)
{
	return deadline != 0 && GetCurrentTimestamp() < deadline;
}

/*
 * Two calls make one sleep: the first announces it and lets the caller look for
 * work once more, so that nothing committed in between is missed.
 */
Datum
mp_sweep_announce(PG_FUNCTION_ARGS pg_attribute_unused())
{
	if (mp_is_waiting() || !goes_on())
		PG_RETURN_BOOL(false);
	mp_prepare_to_wait((MpWaitFor) {.account = MP_ANY_ACCOUNT});
	PG_RETURN_BOOL(true);
}

Datum
mp_sweep_sleep(PG_FUNCTION_ARGS)
{
	TimestampTz due = PG_ARGISNULL(0) ? DT_NOEND : PG_GETARG_TIMESTAMPTZ(0);
	bool		again = goes_on();

	if (again && mp_is_waiting())
		(void) mp_wait_until(due, Min(deadline, mp_notice_next_look()));
	if (mp_stop_waiting())
		mp_notice_want();
	PG_RETURN_BOOL(again);
}

/* Not at every step: they look through what dead rows hide. */
Datum
mp_sweep_chores_due(PG_FUNCTION_ARGS pg_attribute_unused())
{
	TimestampTz now = GetCurrentTimestamp();

	if (now < next_chores)
		PG_RETURN_BOOL(false);
	next_chores = now + CHORES_EVERY_US;
	PG_RETURN_BOOL(true);
}

Datum
mp_worker_is_dead(PG_FUNCTION_ARGS)
{
	int64		token = PG_GETARG_INT64(0);
	LOCKTAG		tag = lock_of_token(token);

	if (token == my_token && mp_lock_held(&tag, ExclusiveLock))
		PG_RETURN_BOOL(false);	/* it is us */
	PG_RETURN_BOOL(LockAcquire(&tag, ExclusiveLock, false, true) != LOCKACQUIRE_NOT_AVAIL);
}

/* ------------------------------------------------------------------------
 * Batches of worker subscriptions
 * ------------------------------------------------------------------------ */

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
