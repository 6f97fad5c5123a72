/*
 * claim.c
 *		mp_claim: a consumer takes the next events of a pull subscription.
 *
 * Claims of one (account, subscription) are made one after the other, under a
 * lock that ends with the transaction: each begins where the one before ended.
 * In the healthy case a claim writes its own row and moves the cursor; an
 * acknowledgement removes the row; no row is ever updated.  Both tables are
 * ledgers, since a row updated in place, and a search that begins at the oldest
 * row, would slow down for as long as any snapshot is held anywhere: the
 * current cursor is the highest key, and a claim is found by the number in its
 * token.
 */
#include "bus/claim_keys.h"

#include "bus/delivery.h"
#include "bus/event_json.h"
#include "bus/order.h"
#include "bus/position.h"
#include "bus/replay.h"
#include "bus/retry_budget.h"
#include "bus/wakeup.h"
#include "catalog/pg_type.h"
#include "core/position.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"
#include "utils/uuid.h"

#define MAX_EVENTS		10000
#define MAX_LEASE		86400.0
#define MAX_WAIT		60.0

/* Events that one claim reads at most when it finds few that match. */
#define MAX_SCANNED		10000

/*
 * Events read at a time: few enough that their memory is used again for the
 * next ones; a thousand at once spend half of the time getting it anew.
 */
#define PAGE			250

/* A call of mp_claim. */
typedef struct Claim
{
	text	   *account;
	MpSubscription *subscription;
	Datum		name;
	Datum		worker;
	bool		no_worker;
	double		lease_seconds;
	int			wanted;			/* events it may still take */

	int64		number;			/* 0: nothing taken yet */
	pg_uuid_t	token;
	TimestampTz now;
	TimestampTz lease_until;
	int			deliveries;		/* taken */
	int			events;			/* taken from the log */
	const text *replay_name;	/* these are of a replay; NULL: they are new */
	ArrayBuildState *settled;	/* positions of the stretch it does not hold */
	MpClaimKeys keys;
	bool		stuck;			/* what comes next in the log waits for its key */
	bool		more;			/* something may be left that could be taken */
	bool		waits;			/* it will look again when it finds nothing */
	int64		passed;			/* looked through, without writing it down */
	MemoryContext memory;		/* of one look for what can be claimed */

	Tuplestorestate *store;
	TupleDesc	desc;
	bool		as_text;		/* events are returned as json, not jsonb */
	StringInfoData text;		/* of one event after the other */
} Claim;

PG_FUNCTION_INFO_V1(mp_claim);

/* ------------------------------------------------------------------------
 * Taking
 * ------------------------------------------------------------------------ */

static void
begin_taking(Claim *claim)
{
	if (claim->number != 0)
		return;
	claim->number = mp_position_next();
	mp_position_make_uuid(claim->number, &claim->token);
	claim->lease_until = claim->now + (int64) (claim->lease_seconds * USECS_PER_SEC);
}

static void
return_event(Claim *claim, const MpEvent *event, int attempt)
{
	Datum		values[4] = {
		UUIDPGetDatum(&claim->token), event->values[MP_EVENT_ID], Int32GetDatum(attempt),
		claim->as_text ? PointerGetDatum(mp_event_envelope_text(event, event->replay_name, &claim->text))
		: JsonbPGetDatum(mp_event_envelope(event, event->replay_name))
	};
	bool		nulls[4] = {false};

	tuplestore_putvalues(claim->store, claim->desc, values, nulls);
	claim->wanted--;
}

/* A delivery that is no retry needs no token of its subscription's budget. */
#define IS_FRESH " AND d.attempt OPERATOR(pg_catalog.=) 0"

/* When the first of the deliveries is due, or of those that are no retries. */
static TimestampTz
first_due(const Claim *claim, bool fresh)
{
#define FIRST_DUE(condition) \
		"SELECT d.next_attempt_at FROM meal_planner.delivery d" \
		" WHERE d.account OPERATOR(pg_catalog.=) $1 AND d.subscription OPERATOR(pg_catalog.=) $2" \
		" AND d.token IS NULL" condition " ORDER BY d.account, d.subscription, d.next_attempt_at LIMIT 1"
	static MpPlan first = {.sql = FIRST_DUE(""), .types = {TEXTOID, TEXTOID}, .in_index_order = true};
	static MpPlan first_fresh = {.sql = FIRST_DUE(IS_FRESH), .types = {TEXTOID, TEXTOID}, .in_index_order = true};
	Datum		values[2] = {PointerGetDatum(claim->account), claim->name};
	bool		isnull;

	mp_plan_execute(fresh ? &first_fresh : &first, values, NULL, 1);
	if (SPI_processed == 0)
		return DT_NOEND;
	return DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
}

/* When the next delivery may be claimed; DT_NOEND: none waits. */
static TimestampTz
next_delivery(const Claim *claim)
{
	TimestampTz due = first_due(claim, false);
	TimestampTz ready_at = mp_retry_budget_ready_at(claim->subscription);

	if (ready_at == 0 || due == DT_NOEND)
		return due;
	return Min(first_due(claim, true), Max(due, ready_at));
}

/*
 * What was retried, delayed or let go by somebody else, in log order, up to so
 * many; `fresh`: no retries.  Of a key only the first delivery may be taken, and
 * none while a claim holds the key.  Returns how many were taken, *retries how
 * many of these are such.  The subscription is asked for by what was found, or
 * without statistics all deliveries of it might be read for each.
 */
static int
take_due(Claim *claim, const MpCursor *cursor, int wanted, bool fresh, int *retries)
{
#define TAKE(due) \
		"WITH due AS MATERIALIZED (" due " LIMIT $4)," \
		" taken AS (UPDATE meal_planner.delivery u" \
		" SET token = $5, attempt = u.attempt OPERATOR(pg_catalog.+) 1 FROM due" \
		" WHERE u.account OPERATOR(pg_catalog.=) $1 AND u.subscription OPERATOR(pg_catalog.=) due.subscription" \
		" AND u.position OPERATOR(pg_catalog.=) due.position RETURNING u.position, u.attempt, u.detail, u.replay_name)" \
		" SELECT " MP_EVENT_COLUMN_LIST ", t.attempt, t.detail, t.replay_name FROM taken t CROSS JOIN LATERAL" \
		" (SELECT e.* FROM meal_planner.event e WHERE e.account OPERATOR(pg_catalog.=) $1" \
		" AND e.position OPERATOR(pg_catalog.=) t.position LIMIT 1) e ORDER BY t.position"
#define TAKE_DUE(condition) TAKE( \
		"SELECT d.subscription, d.position FROM meal_planner.delivery d" \
		" WHERE d.account OPERATOR(pg_catalog.=) $1 AND d.subscription OPERATOR(pg_catalog.=) $2" \
		" AND d.token IS NULL AND d.next_attempt_at OPERATOR(pg_catalog.<=) $3" condition \
		" ORDER BY d.account, d.subscription, d.next_attempt_at, d.position FOR UPDATE SKIP LOCKED")
	static MpPlan all = {
		.sql = TAKE_DUE(""), .types = {TEXTOID, TEXTOID, TIMESTAMPTZOID, INT4OID, INT8OID}, .in_index_order = true
	};
	static MpPlan fresh_only = {
		.sql = TAKE_DUE(IS_FRESH), .types = {TEXTOID, TEXTOID, TIMESTAMPTZOID, INT4OID, INT8OID}, .in_index_order = true
	};
	static MpPlan in_order = {
		.sql = TAKE("SELECT $2 AS subscription, p.position"
					" FROM pg_catalog.unnest(meal_planner.due_in_order($1, $2, $3, $6, $4, $7)) p (position)"),
		.types = {TEXTOID, TEXTOID, TIMESTAMPTZOID, INT4OID, INT8OID, INT8OID, BOOLOID}, .in_index_order = true
	};
	Datum		values[7] = {
		PointerGetDatum(claim->account), claim->name, TimestampTzGetDatum(claim->now),
		Int32GetDatum(wanted), Int64GetDatum(0), Int64GetDatum(cursor->first_claim), BoolGetDatum(fresh)
	};

	*retries = 0;
	begin_taking(claim);
	values[4] = Int64GetDatum(claim->number);
	mp_plan_execute(claim->keys.table != NULL ? &in_order : fresh ? &fresh_only : &all, values, NULL, 0);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		MpEvent		event;
		bool		isnull;
		int			attempt = DatumGetInt32(SPI_getbinval(row, desc, MP_EVENT_COLUMNS + 1, &isnull));
		Datum		corrected = SPI_getbinval(row, desc, MP_EVENT_COLUMNS + 2, &isnull);
		Datum		replay_name;

		mp_event_from_columns(row, desc, &event);
		if (!isnull)
			event.values[MP_EVENT_DETAIL] = corrected;
		replay_name = SPI_getbinval(row, desc, MP_EVENT_COLUMNS + 3, &isnull);
		if (!isnull)
			event.replay_name = DatumGetTextPP(replay_name);
		return_event(claim, &event, attempt);
		*retries += attempt > 1;
	}
	return (int) SPI_processed;
}

/* Of the retries no more than there is budget for. */
static void
take_deliveries(Claim *claim, const MpCursor *cursor)
{
	bool		fresh = false;
	int			wanted = 0;
	int			taken = 0;

	for (; claim->wanted > 0 && taken == wanted && !fresh; claim->deliveries += taken)
	{
		int			tokens = mp_retry_budget_take(claim->subscription, claim->wanted);
		int			retries;

		fresh = tokens == 0;
		wanted = fresh ? claim->wanted : tokens;
		taken = take_due(claim, cursor, wanted, fresh, &retries);
		mp_retry_budget_give_back(claim->subscription, tokens - retries);
	}
}

/* ------------------------------------------------------------------------
 * Taking from the log
 * ------------------------------------------------------------------------ */

/* An event that is not for this claim becomes a delivery, blocked or for later. */
static void
park(Claim *claim, const MpEvent *event)
{
	TimestampTz due = event->nulls[MP_EVENT_DELIVER_AFTER]
		? DT_NOBEGIN : DatumGetTimestampTz(event->values[MP_EVENT_DELIVER_AFTER]);

	mp_delivery_schedule(claim->subscription, event, Max(due, claim->now));
	claim->settled = accumArrayResult(claim->settled, event->values[MP_EVENT_POSITION], false,
									  INT8OID, claim->memory);
}

/*
 * Takes what matches of a page of the log, for as long as more is wanted.
 * Returns the position up to which the page is done with.  Events that are kept
 * back by their key are passed only when one behind them can be taken: a claim
 * that finds nothing else leaves them in the log, where they cost nothing.
 */
static int64
take_page(Claim *claim, SPITupleTable *rows, uint64 count, int64 position)
{
	MemoryContext per_event = AllocSetContextCreate(CurrentMemoryContext, "meal_planner claim",
													ALLOCSET_DEFAULT_SIZES);
	MpEvent    *waiting = claim->keys.table ? palloc(sizeof(MpEvent) * Max(count, 1)) : NULL;
	int			waiting_count = 0;

	if (claim->keys.table != NULL)
		mp_claim_keys_add_busy(&claim->keys, rows, count);
	for (uint64 i = 0; i < count && claim->wanted > 0; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(per_event);
		MpEvent		event;
		MpJson		json;
		bool		matches;
		bool		delayed;
		bool		kept_back;

		mp_event_from_columns(rows->vals[i], rows->tupdesc, &event);
		event.replay_name = claim->replay_name;
		json = mp_json_of_event(&event);
		matches = mp_pattern_match(claim->subscription->pattern, &mp_json_reader, &json);
		delayed = !event.nulls[MP_EVENT_DELIVER_AFTER] &&
			DatumGetTimestampTz(event.values[MP_EVENT_DELIVER_AFTER]) > claim->now;
		kept_back = matches && mp_claim_keys_keep_back(&claim->keys, &event, delayed);

		if (kept_back && !delayed)
			waiting[waiting_count++] = event;
		else
		{
			if (matches)
			{
				for (int w = 0; w < waiting_count; w++)
					park(claim, &waiting[w]);
				waiting_count = 0;
			}
			if (kept_back)
				park(claim, &event);
			else if (matches)
			{
				return_event(claim, &event, 1);
				claim->events++;
			}
			if (waiting_count == 0)
				position = mp_event_position(&event);
		}
		MemoryContextSwitchTo(old);
		MemoryContextReset(per_event);
	}
	MemoryContextDelete(per_event);
	claim->stuck = waiting_count > 0;
	return position;
}

/* Returns how far the claim has come, which is cursor->position when nowhere. */
static int64
take_stretch(Claim *claim, const MpCursor *cursor, int64 bound)
{
	static MpPlan plan = {
		.sql = "SELECT " MP_EVENT_COLUMN_LIST " FROM meal_planner.event e"
		" WHERE e.account OPERATOR(pg_catalog.=) $1 AND e.position OPERATOR(pg_catalog.>) $2"
		" AND e.position OPERATOR(pg_catalog.<=) $3 ORDER BY e.position LIMIT $4",
	.types = {TEXTOID, INT8OID, INT8OID, INT4OID}, .in_index_order = true};
	int64		position = cursor->position;
	int			scanned = 0;

	while (claim->wanted > 0 && scanned < MAX_SCANNED)
	{
		int			page = Min(Max(claim->wanted, 100), PAGE);
		Datum		values[4] = {
			PointerGetDatum(claim->account), Int64GetDatum(position), Int64GetDatum(bound), Int32GetDatum(page)
		};
		SPITupleTable *rows;
		uint64		count;

		CHECK_FOR_INTERRUPTS();
		begin_taking(claim);
		mp_plan_execute(&plan, values, NULL, 0);
		rows = SPI_tuptable;
		count = SPI_processed;
		position = take_page(claim, rows, count, position);
		SPI_freetuptable(rows);
		scanned += (int) count;
		if (count < (uint64) page || claim->stuck)
			return position;
	}
	claim->more = true;
	return position;
}

/*
 * Takes from a replay, when it is its turn or at once.  Notes in the stretch where
 * it ends, and in *due when there may be something if there is nothing.  True
 * when the replay has moved.
 */
static bool
take_replay(Claim *claim, MpReplayStretch *stretch, const MpCursor *cursor, bool at_once, TimestampTz *due)
{
	MpReplayAsk ask = {
		.log_position = cursor->position, .first_claim = cursor->first_claim, .wanted = claim->wanted,
		.at_once = at_once
	};
	bool		moved = false;
	int64		reached;
	Datum	   *left_out;
	int			left_out_count;

	if (claim->wanted <= 0 || !mp_replay_next(stretch, &ask, &moved, due))
		return moved;
	begin_taking(claim);
	claim->replay_name = stretch->name;
	reached = take_page(claim, stretch->rows, stretch->count, stretch->after_position);
	if (!claim->stuck)
		reached = stretch->up_to;
	if (claim->events == 0)
		claim->replay_name = NULL;
	if (reached == stretch->after_position)
		return moved;			/* all of it waits for its keys */

	stretch->up_to = reached;
	mp_replay_move(stretch, reached, claim->events, cursor->position);
	deconstruct_array(DatumGetArrayTypeP(stretch->left_out), INT8OID, sizeof(int64), FLOAT8PASSBYVAL,
					  TYPALIGN_DOUBLE, &left_out, NULL, &left_out_count);
	for (int i = 0; i < left_out_count; i++)
		claim->settled = accumArrayResult(claim->settled, left_out[i], false, INT8OID, claim->memory);
	return true;
}

static void
record_claim(Claim *claim, int64 after_position, int64 up_to)
{
	static MpPlan plan = {
		.sql = "INSERT INTO meal_planner.consumer_claim (account, subscription, number, token, after_position,"
		" up_to, settled, remaining, deliveries, claimed_at, lease_until, worker, keys, replay_name)"
		" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
		.types = {TEXTOID, TEXTOID, INT8OID, UUIDOID, INT8OID, INT8OID, INT8ARRAYOID, INT4OID, BOOLOID,
		TIMESTAMPTZOID, TIMESTAMPTZOID, TEXTOID, TEXTARRAYOID, TEXTOID}
	};
	Datum		values[14] = {
		PointerGetDatum(claim->account), claim->name, Int64GetDatum(claim->number), UUIDPGetDatum(&claim->token),
		Int64GetDatum(after_position), Int64GetDatum(up_to), (Datum) 0,
		Int32GetDatum(claim->events + claim->deliveries), BoolGetDatum(claim->deliveries > 0),
		TimestampTzGetDatum(claim->now), TimestampTzGetDatum(claim->lease_until), claim->worker, (Datum) 0, PointerGetDatum(claim->replay_name)
	};
	bool		nulls[14] = {false};

	nulls[4] = nulls[5] = (claim->events == 0);
	nulls[11] = claim->no_worker;
	nulls[12] = (claim->keys.own == NULL);
	nulls[13] = (claim->replay_name == NULL);
	if (claim->keys.own != NULL)
		values[12] = makeArrayResult(claim->keys.own, CurrentMemoryContext);
	values[6] = claim->settled && claim->events > 0 ? makeArrayResult(claim->settled, CurrentMemoryContext)
		: PointerGetDatum(construct_empty_array(INT8OID));
	mp_plan_execute(&plan, values, nulls, 0);
}

/*
 * One look for what can be claimed, under the order lock.  Returns whether the
 * call is over: something was taken, or at least put away, which keeps the lock
 * from others until it is committed.  Else *next_due says when to look again at
 * the latest.
 */
static bool
take(Claim *claim, TimestampTz *next_due)
{
	MpCursor	before;
	MpCursor	cursor;
	TimestampTz due;
	int64		reached;
	int64		bound;
	bool		taken;
	bool		put_away;
	MpReplayStretch replay = {.account = PointerGetDatum(claim->account), .subscription = claim->name};
	TimestampTz replay_due = DT_NOEND;

	claim->now = mp_clock_now();
	/* The bound first; the statements below take their snapshots after it. */
	bound = mp_position_read_bound(VARDATA_ANY(claim->account), VARSIZE_ANY_EXHDR(claim->account));
	cursor = before = mp_cursor_read(claim->account, claim->subscription, claim->name);
	put_away = mp_cursor_expire_leases(claim->account, claim->subscription, claim->now, &cursor);
	cursor.position = Max(cursor.position, claim->passed);

	claim->memory = CurrentMemoryContext;
	claim->number = 0;
	claim->settled = NULL;
	claim->more = false;
	claim->replay_name = NULL;
	claim->keys = (MpClaimKeys) {
		.account = claim->account, .name = claim->name, .subscription = claim->subscription,
		.memory = claim->memory
	};
	mp_claim_keys_begin(&claim->keys, &cursor);
	due = next_delivery(claim);
	if (due <= claim->now)
	{
		take_deliveries(claim, &cursor);
		put_away = true;
	}

	/* The log and a replay take turns, as long as there is something in both. */
	if (mp_replay_first(replay.account, replay.subscription) != 0)
		put_away |= take_replay(claim, &replay, &cursor, false, &replay_due);
	reached = claim->events == 0 ? take_stretch(claim, &cursor, bound) : cursor.position;
	if (claim->events == 0 && replay_due <= claim->now)
		put_away |= take_replay(claim, &replay, &cursor, true, &replay_due);
	due = Min(due, replay_due);
	put_away |= claim->settled != NULL;
	claim->more = claim->replay_name != NULL ||
		(claim->more && (claim->events == 0 || mp_position_tick(reached) < mp_position_tick(bound)));

	taken = claim->events + claim->deliveries > 0;
	if (taken)
	{
		if (claim->replay_name != NULL)
			record_claim(claim, replay.after_position, replay.up_to);
		else
			record_claim(claim, cursor.position, reached);
		/* Lower than one that is gone: the clock went back while the server was down. */
		if (cursor.first_claim == 0 || claim->number < cursor.first_claim)
			cursor.first_claim = claim->number;
		cursor.next_expiry = Min(cursor.next_expiry, claim->lease_until);
	}
	claim->passed = reached;
	if ((taken || put_away || !claim->waits) &&
		(reached > before.position ||
		 cursor.first_claim != before.first_claim || cursor.next_expiry != before.next_expiry))
		mp_cursor_write(claim->account, claim->name, &cursor, reached);
	else if (!taken && !put_away)
		mp_order_unlock(PointerGetDatum(claim->account), claim->name);
	*next_due = claim->more ? claim->now : Min(due, cursor.next_expiry);
	return taken || put_away;
}

/* ------------------------------------------------------------------------
 * SQL
 * ------------------------------------------------------------------------ */

static void
require_range(const char *argument, double value, double low, double high)
{
	if (!(value >= low && value <= high))
		mp_refuse_argument("%s must be between %g and %g", argument, low, high);
}

static MpSubscription *
require_pull(MpSubscriptions *subscriptions, const char *name)
{
	MpSubscription *subscription = mp_subscription_find(subscriptions, name);

	if (subscription == NULL)
		ereport(ERROR,
				(errcode(MP_ERRCODE_NOT_FOUND),
				 errmsg("MP404: subscription \"%s\" does not exist", name),
				 errhint("retry=no. See the view mp_subscriptions.")));
	if (subscription->mode != MP_PULL)
		ereport(ERROR,
				(errcode(MP_ERRCODE_CONFLICT),
				 errmsg("MP409: subscription \"%s\" is not of mode pull", name),
				 errhint("retry=no. Its handler is run by the database; only pull subscriptions are claimed.")));
	return subscription;
}

/* Both mp_claim and mp_claim_json: they differ in the type of the last column. */
Datum
mp_claim(PG_FUNCTION_ARGS)
{
	Claim		claim;
	MpSubscriptions *subscriptions;
	double		wait = PG_ARGISNULL(5) ? 0 : PG_GETARG_FLOAT8(5);
	TimestampTz deadline;
	TimestampTz due;
	MpWaitFor	queue;
	bool		announced = false;
	bool		over = false;
	bool		woken;

	mp_require_preload();
	mp_require_read_committed();
	memset(&claim, 0, sizeof(claim));
	claim.wanted = PG_ARGISNULL(1) ? 100 : PG_GETARG_INT32(1);
	claim.lease_seconds = PG_ARGISNULL(2) ? 30 : PG_GETARG_FLOAT8(2);
	claim.no_worker = PG_ARGISNULL(3);
	claim.worker = claim.no_worker ? (Datum) 0 : PG_GETARG_DATUM(3);
	claim.account = PG_ARGISNULL(4) ? cstring_to_text("local") : PG_GETARG_TEXT_PP(4);
	require_range("max_events", claim.wanted, 1, MAX_EVENTS);
	require_range("lease_seconds", claim.lease_seconds, 0.001, MAX_LEASE);
	require_range("wait_seconds", wait, 0, MAX_WAIT);
	if (PG_ARGISNULL(0))
		mp_refuse_argument("subscription must not be NULL");
	claim.name = PG_GETARG_DATUM(0);
	claim.store = mp_begin_rows(fcinfo, &claim.desc);
	claim.as_text = TupleDescAttr(claim.desc, 3)->atttypid == JSONOID;
	initStringInfo(&claim.text);
	deadline = GetCurrentTimestamp() + (int64) (wait * USECS_PER_SEC);
	queue = mp_wait_for_claim(VARDATA_ANY(claim.account), VARSIZE_ANY_EXHDR(claim.account),
							  TextDatumGetCString(claim.name));

	for (;;)
	{
		/* Who changes the mode holds the lock, too: look after taking it. */
		(void) mp_order_lock(PointerGetDatum(claim.account), claim.name, true);
		AcceptInvalidationMessages();
		subscriptions = mp_subscriptions_hold();
		claim.subscription = require_pull(subscriptions, TextDatumGetCString(claim.name));
		claim.waits = wait > 0 && GetCurrentTimestamp() < deadline;
		due = DT_NOEND;
		if (!claim.subscription->paused && !claim.subscription->broken)
		{
			mp_spi_connect();
			over = take(&claim, &due);
			mp_spi_finish();
		}
		else
			mp_order_unlock(PointerGetDatum(claim.account), claim.name);
		mp_subscriptions_release(subscriptions);
		if (over || wait == 0)
			break;

		/* Announce the wait and look once more, so that no commit is missed. */
		if (!announced)
			mp_prepare_to_wait(queue);
		else if (mp_wait_until(due, deadline))
			(void) mp_stop_waiting();
		else
			break;
		announced = !announced;
	}
	woken = announced && mp_stop_waiting();
	if (woken || over)
		mp_wake_next_at_end(queue, woken || claim.more);
	return (Datum) 0;
}
