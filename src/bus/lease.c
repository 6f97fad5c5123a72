/*
 * lease.c
 *		What a consumer does with its claim: mp_ack, mp_fail, mp_extend.
 *
 * A claim counts until its lease has ended by the clock, whether or not
 * anybody has noticed: the same call at the same time has one outcome.  Whoever
 * changes a claim locks its row first; who ends it because its lease is over
 * skips locked rows.  So an acknowledgement and the end of the lease exclude
 * each other, and the token fences off whoever comes later.
 */
#include "bus/cursor.h"

#include "bus/delivery.h"
#include "bus/event_json.h"
#include "bus/order.h"
#include "bus/position.h"
#include "bus/wakeup.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "core/position.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/uuid.h"

#define MAX_LEASE			86400.0
#define MAX_RETRY_AFTER		(365.0 * 86400.0)

/* Of a service and its code, as in http:429 */
#define LONGEST_CODE		100

/*
 * A claim whose row is locked by this transaction.  The positions are copies of
 * ours, none of which is kept when one is added: of ten thousand events all of
 * them would be a gigabyte.
 */
typedef struct Held
{
	text	   *account;
	Datum		subscription;
	int64		number;
	int64		after_position; /* without a stretch: no position is in it */
	int64		up_to;
	Datum		settled;		/* bigint[] */
	Datum		given_back;		/* bigint[]: those that were not acknowledged */
	int			remaining;
	bool		deliveries;
	Datum		keys;			/* text[]: order keys that end with it */
	bool		no_keys;
	const text *replay_name;	/* the stretch is of a replay; NULL: it is new */
	TimestampTz claimed_at;
	char	   *worker;			/* NULL: it has no name */
} Held;

typedef enum Place
{
	NOT_HELD,					/* settled by an earlier call */
	IN_STRETCH,
	IN_DELIVERIES
} Place;

PG_FUNCTION_INFO_V1(mp_ack);
PG_FUNCTION_INFO_V1(mp_fail);
PG_FUNCTION_INFO_V1(mp_extend);

/*
 * Finds the claim of a token and locks it; false when its lease has ended.  A
 * token carries no account: which one it is about is asked first, by the number
 * alone.  SPI is connected.
 */
static bool
lock_claim(const pg_uuid_t *token, Held *held)
{
	static MpPlan locate = {
		.sql = "SELECT c.account, c.subscription FROM meal_planner.consumer_claim c"
		" WHERE c.number OPERATOR(pg_catalog.=) $1 AND c.token OPERATOR(pg_catalog.=) $2",
	.types = {INT8OID, UUIDOID}};
	static MpPlan lock = {
		.sql = "SELECT c.after_position, c.up_to, c.settled, c.remaining, c.deliveries, c.keys, c.replay_name,"
		" c.given_back, c.claimed_at, c.worker FROM meal_planner.consumer_claim c"
		" WHERE c.account OPERATOR(pg_catalog.=) $1 AND c.subscription OPERATOR(pg_catalog.=) $2"
		" AND c.number OPERATOR(pg_catalog.=) $3 AND c.lease_until OPERATOR(pg_catalog.>) $4 FOR UPDATE",
	.types = {TEXTOID, TEXTOID, INT8OID, TIMESTAMPTZOID}};
	Datum		values[4];
	Datum		replay_name;
	HeapTuple	row;
	TupleDesc	desc;
	bool		isnull;

	if (!mp_uuid_to_position(token->data, &held->number))
		return false;
	values[0] = Int64GetDatum(held->number);
	values[1] = UUIDPGetDatum(token);
	mp_plan_execute(&locate, values, NULL, 1);
	if (SPI_processed == 0)
		return false;
	row = SPI_tuptable->vals[0];
	desc = SPI_tuptable->tupdesc;
	held->account = DatumGetTextPP(SPI_getbinval(row, desc, 1, &isnull));
	held->subscription = SPI_getbinval(row, desc, 2, &isnull);

	values[0] = PointerGetDatum(held->account);
	values[1] = held->subscription;
	values[2] = Int64GetDatum(held->number);
	values[3] = TimestampTzGetDatum(mp_clock_now());
	mp_plan_execute(&lock, values, NULL, 1);
	if (SPI_processed == 0)
		return false;
	row = SPI_tuptable->vals[0];
	desc = SPI_tuptable->tupdesc;
	held->after_position = DatumGetInt64(SPI_getbinval(row, desc, 1, &isnull));
	held->up_to = DatumGetInt64(SPI_getbinval(row, desc, 2, &isnull));
	if (isnull)
		held->after_position = held->up_to = PG_INT64_MAX;
	held->settled = PointerGetDatum(DatumGetArrayTypePCopy(SPI_getbinval(row, desc, 3, &isnull)));
	held->remaining = DatumGetInt32(SPI_getbinval(row, desc, 4, &isnull));
	held->deliveries = DatumGetBool(SPI_getbinval(row, desc, 5, &isnull));
	held->keys = SPI_getbinval(row, desc, 6, &held->no_keys);
	replay_name = SPI_getbinval(row, desc, 7, &isnull);
	held->replay_name = isnull ? NULL : DatumGetTextPP(replay_name);
	held->given_back = PointerGetDatum(DatumGetArrayTypePCopy(SPI_getbinval(row, desc, 8, &isnull)));
	held->claimed_at = DatumGetTimestampTz(SPI_getbinval(row, desc, 9, &isnull));
	held->worker = SPI_getvalue(row, desc, 10);
	return true;
}

/* What this transaction leaves behind may be somebody else's to claim. */
static void
wake_next(const Held *held)
{
	mp_wake_next_at_end(mp_wait_for_claim(VARDATA_ANY(held->account), VARSIZE_ANY_EXHDR(held->account),
										  TextDatumGetCString(held->subscription)), true);
}

/* With the claim its order keys become free for others. */
static void
remove_claim(const Held *held)
{
	static MpPlan release = {
		.sql = "SELECT meal_planner.release_keys($1, $2, $3)",
	.types = {TEXTOID, TEXTOID, TEXTARRAYOID}};
	static MpPlan plan = {
		.sql = "DELETE FROM meal_planner.consumer_claim c"
		" WHERE c.account OPERATOR(pg_catalog.=) $1 AND c.subscription OPERATOR(pg_catalog.=) $2"
		" AND c.number OPERATOR(pg_catalog.=) $3",
	.types = {TEXTOID, TEXTOID, INT8OID}};
	Datum		values[3] = {PointerGetDatum(held->account), held->subscription, Int64GetDatum(held->number)};

	mp_plan_execute(&plan, values, NULL, 0);
	if (!held->no_keys)
	{
		wake_next(held);
		values[2] = held->keys;
		mp_plan_execute(&release, values, NULL, 1);
	}
}

/* Writes down what the claim holds no more; the claim goes with its last event. */
static void
write_claim(const Held *held)
{
	static MpPlan plan = {
		.sql = "UPDATE meal_planner.consumer_claim c SET settled = $4, remaining = $5, given_back = $6"
		" WHERE c.account OPERATOR(pg_catalog.=) $1 AND c.subscription OPERATOR(pg_catalog.=) $2"
		" AND c.number OPERATOR(pg_catalog.=) $3",
	.types = {TEXTOID, TEXTOID, INT8OID, INT8ARRAYOID, INT4OID, INT8ARRAYOID}};
	Datum		values[6] = {
		PointerGetDatum(held->account), held->subscription, Int64GetDatum(held->number),
		held->settled, Int32GetDatum(held->remaining), held->given_back
	};

	if (held->remaining <= 0)
		remove_claim(held);
	else
		mp_plan_execute(&plan, values, NULL, 0);
}

/* ------------------------------------------------------------------------
 * One event of a claim
 * ------------------------------------------------------------------------ */

static bool
contains(Datum positions, int64 position)
{
	Datum	   *elements;
	int			count;
	bool		found = false;

	deconstruct_array(DatumGetArrayTypeP(positions), INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE,
					  &elements, NULL, &count);
	for (int i = 0; i < count && !found; i++)
		found = DatumGetInt64(elements[i]) == position;
	if (count > 0)
		pfree(elements);
	return found;
}

static void
add(Datum *positions, int64 position)
{
	ArrayType  *array = DatumGetArrayTypeP(*positions);
	int			next = (int) ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array)) + 1;

	*positions = PointerGetDatum(array_set(array, 1, &next, Int64GetDatum(position), false,
										   -1, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	pfree(array);
}

static void
settle(Held *held, int64 position)
{
	add(&held->settled, position);
	held->remaining--;
}

/* The attempts of a delivery that the claim holds; 0: it holds no such. */
static int
delivery_attempt(const Held *held, int64 position)
{
	static MpPlan plan = {
		.sql = "SELECT d.attempt FROM meal_planner.delivery d"
		" WHERE d.account OPERATOR(pg_catalog.=) $1 AND d.subscription OPERATOR(pg_catalog.=) $2"
		" AND d.position OPERATOR(pg_catalog.=) $3 AND d.token OPERATOR(pg_catalog.=) $4",
	.types = {TEXTOID, TEXTOID, INT8OID, INT8OID}};
	Datum		values[4] = {
		PointerGetDatum(held->account), held->subscription, Int64GetDatum(position), Int64GetDatum(held->number)
	};
	bool		isnull;

	if (!held->deliveries)
		return 0;
	mp_plan_execute(&plan, values, NULL, 1);
	if (SPI_processed == 0)
		return 0;
	return DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
}

static bool
load_event(const Held *held, const pg_uuid_t *id, int64 position, MpEvent *event)
{
	static MpPlan plan = {
		.sql = "SELECT " MP_EVENT_COLUMN_LIST " FROM meal_planner.event e"
		" WHERE e.account OPERATOR(pg_catalog.=) $1 AND e.position OPERATOR(pg_catalog.=) $2"
		" AND e.id OPERATOR(pg_catalog.=) $3",
	.types = {TEXTOID, INT8OID, UUIDOID}};
	Datum		values[3] = {PointerGetDatum(held->account), Int64GetDatum(position), UUIDPGetDatum(id)};

	mp_plan_execute(&plan, values, NULL, 1);
	if (SPI_processed == 0)
		return false;
	mp_event_from_columns(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, event);
	event->replay_name = held->replay_name;
	return true;
}

/*
 * Where the claim holds an event; MP404 when it never did.  An event that its
 * subscription would not get any more, because the pattern has changed, counts
 * as settled.
 */
static Place
find_event(const Held *held, const MpSubscription *subscription, const pg_uuid_t *id,
		   MpEvent *event, int *attempt)
{
	int64		position;
	bool		known = mp_uuid_to_position(id->data, &position) && load_event(held, id, position, event);
	MpJson		json;

	*attempt = known ? delivery_attempt(held, position) : 0;
	if (*attempt > 0)
		return IN_DELIVERIES;
	if (known && held->deliveries && !(position > held->after_position && position <= held->up_to))
		return NOT_HELD;		/* was a delivery of it, perhaps */
	if (!known || position <= held->after_position || position > held->up_to)
		ereport(ERROR,
				(errcode(MP_ERRCODE_NOT_FOUND),
				 errmsg("MP404: event %s is not of this claim",
						DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(id)))),
				 errhint("retry=no. Give the event_id of a row that mp_claim returned with this token.")));
	json = mp_json_of_event(event);
	*attempt = 1;
	if (contains(held->settled, position) || subscription == NULL ||
		!mp_pattern_match(subscription->pattern, &mp_json_reader, &json))
		return NOT_HELD;
	return IN_STRETCH;
}

/* ------------------------------------------------------------------------
 * Acknowledging
 * ------------------------------------------------------------------------ */

static void
finish_delivery(Held *held, int64 position)
{
	mp_delivery_finish(PointerGetDatum(held->account), held->subscription, Int64GetDatum(position));
	held->remaining--;
	wake_next(held);			/* the next one of its key is due */
}

static void
ack_all(Held *held)
{
	static MpPlan plan = {
		.sql = "SELECT d.position FROM meal_planner.delivery d"
		" WHERE d.account OPERATOR(pg_catalog.=) $1 AND d.subscription OPERATOR(pg_catalog.=) $2"
		" AND d.token OPERATOR(pg_catalog.=) $3 ORDER BY d.position",
	.types = {TEXTOID, TEXTOID, INT8OID}};
	Datum		values[3] = {PointerGetDatum(held->account), held->subscription, Int64GetDatum(held->number)};

	if (held->deliveries)
	{
		SPITupleTable *rows;
		uint64		count;
		bool		isnull;

		mp_plan_execute(&plan, values, NULL, 0);
		rows = SPI_tuptable;
		count = SPI_processed;
		for (uint64 i = 0; i < count; i++)
			finish_delivery(held, DatumGetInt64(SPI_getbinval(rows->vals[i], rows->tupdesc, 1, &isnull)));
	}
	remove_claim(held);
}

/*
 * An event that was given back comes again, or is a dead letter: who believes
 * that it is done has to learn that it is not.  Then nothing is changed.
 */
static bool
ack_some(Held *held, ArrayType *ids)
{
	MpSubscriptions *subscriptions;
	MpSubscription *subscription;
	Datum	   *elements;
	bool	   *nulls;
	int			count;

	deconstruct_array(ids, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR, &elements, &nulls, &count);
	for (int i = 0; i < count; i++)
	{
		int64		position;

		if (!nulls[i] && mp_uuid_to_position(DatumGetUUIDP(elements[i])->data, &position) &&
			contains(held->given_back, position))
			return false;
	}

	subscriptions = mp_subscriptions_hold();
	subscription = mp_subscription_find(subscriptions, TextDatumGetCString(held->subscription));
	for (int i = 0; i < count; i++)
	{
		MpEvent		event;
		int			attempt;

		if (nulls[i])
			continue;
		switch (find_event(held, subscription, DatumGetUUIDP(elements[i]), &event, &attempt))
		{
			case IN_DELIVERIES:
				finish_delivery(held, mp_event_position(&event));
				break;
			case IN_STRETCH:
				settle(held, mp_event_position(&event));
				break;
			case NOT_HELD:
				break;
		}
	}
	write_claim(held);
	mp_subscriptions_release(subscriptions);
	return true;
}

Datum
mp_ack(PG_FUNCTION_ARGS)
{
	Held		held;
	bool		done;

	mp_require_preload();
	if (PG_ARGISNULL(0))
		PG_RETURN_BOOL(false);
	mp_spi_connect();
	done = lock_claim(PG_GETARG_UUID_P(0), &held);
	if (done && PG_ARGISNULL(1))
		ack_all(&held);
	else if (done)
		done = ack_some(&held, PG_GETARG_ARRAYTYPE_P(1));
	mp_spi_finish();
	PG_RETURN_BOOL(done);
}

/* ------------------------------------------------------------------------
 * Failing
 * ------------------------------------------------------------------------ */

/* What the consumer says it was: a class, a code that has one, or nothing that was tried at all. */
static void
read_error_type(FunctionCallInfo fcinfo, MpFailure *failure)
{
	char	   *error_type = PG_ARGISNULL(2) ? "" : text_to_cstring(PG_GETARG_TEXT_PP(2));
	char	   *colon = strchr(error_type, ':');

	failure->has_class = mp_error_class_of_name(error_type, &failure->class);
	if (failure->has_class)
		return;
	if (strcmp(error_type, "deferred") == 0)
	{
		failure->untried = true;
		failure->has_class = true;
		failure->class = MP_CLASS_SHUTDOWN;
	}
	else if (colon != NULL && colon != error_type && colon[1] != '\0' && strlen(error_type) <= LONGEST_CODE)
		failure->sqlstate = error_type;
	else
		mp_refuse_argument("error_type must be transient or permanent, another class of errors, a code such as http:429, or deferred");
}

static bool
same_key(const MpSubscription *subscription, const MpEvent *event, const MpEvent *other)
{
	bool		keyless;
	bool		other_keyless;
	Datum		key = mp_order_key(subscription, event, &keyless);
	Datum		other_key = mp_order_key(subscription, other, &other_keyless);

	return !keyless && !other_keyless &&
		DatumGetBool(DirectFunctionCall2Coll(texteq, DEFAULT_COLLATION_OID, key, other_key));
}

/*
 * An event of the stretch is to be tried again, or blocks its key: those of its
 * key behind it leave the claim and wait for it.
 */
static void
put_back_behind(Held *held, MpSubscription *subscription, const MpEvent *failed)
{
	static MpPlan plan = {
		.sql = "SELECT " MP_EVENT_COLUMN_LIST " FROM meal_planner.event e"
		" WHERE e.account OPERATOR(pg_catalog.=) $1 AND e.position OPERATOR(pg_catalog.>) $2"
		" AND e.position OPERATOR(pg_catalog.<=) $3 ORDER BY e.position",
	.types = {TEXTOID, INT8OID, INT8OID}, .in_index_order = true};
	Datum		values[3] = {
		PointerGetDatum(held->account), failed->values[MP_EVENT_POSITION], Int64GetDatum(held->up_to)
	};
	SPITupleTable *rows;
	uint64		count;

	if (subscription->order_path == NULL)
		return;
	mp_plan_execute(&plan, values, NULL, 0);
	rows = SPI_tuptable;
	count = SPI_processed;
	for (uint64 i = 0; i < count; i++)
	{
		MpEvent		event;
		MpJson		json;

		mp_event_from_columns(rows->vals[i], rows->tupdesc, &event);
		event.replay_name = held->replay_name;
		json = mp_json_of_event(&event);
		if (contains(held->settled, mp_event_position(&event)) ||
			!mp_pattern_match(subscription->pattern, &mp_json_reader, &json) ||
			!same_key(subscription, failed, &event))
			continue;
		mp_delivery_schedule(subscription, &event, mp_clock_now());
		settle(held, mp_event_position(&event));
		add(&held->given_back, mp_event_position(&event));
	}
}

/* Returns the word for what becomes of the event. */
static const char *
fail_event(Held *held, const pg_uuid_t *id, MpFailure *failure)
{
	MpSubscriptions *subscriptions = mp_subscriptions_hold();
	MpSubscription *subscription = mp_subscription_find(subscriptions, TextDatumGetCString(held->subscription));
	MpFailedAttempt attempt = {0};
	MpEvent		event;
	const char *outcome = "lease_lost";
	TimestampTz held_for = mp_clock_now() - held->claimed_at;
	Place		place = find_event(held, subscription, id, &event, &attempt.attempt);

	failure->seconds = held_for / (double) USECS_PER_SEC;
	failure->worker = held->worker;
	if (place != NOT_HELD && subscription != NULL)
	{
		int64		position = mp_event_position(&event);
		bool		again = place == IN_STRETCH
			? mp_delivery_failed(subscription, &event, &attempt, failure)
			: mp_delivery_failed_again(subscription, PointerGetDatum(held->account), Int64GetDatum(position), failure);

		if (place == IN_STRETCH)
		{
			settle(held, position);
			if (again || subscription->block_key)
				put_back_behind(held, subscription, &event);
		}
		else
			held->remaining--;
		add(&held->given_back, position);
		write_claim(held);
		wake_next(held);
		outcome = again ? "retry" : "dead";
	}
	mp_subscriptions_release(subscriptions);
	return outcome;
}

Datum
mp_fail(PG_FUNCTION_ARGS)
{
	Held		held;
	MpFailure	failure = {
		.message = PG_ARGISNULL(3) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(3)),
		.has_retry_after = !PG_ARGISNULL(4), .retry_after = PG_ARGISNULL(4) ? 0 : PG_GETARG_FLOAT8(4)
	};
	const char *outcome = "lease_lost";

	mp_require_preload();
	read_error_type(fcinfo, &failure);
	if (!(failure.retry_after >= 0 && failure.retry_after <= MAX_RETRY_AFTER))
		mp_refuse_argument("retry_after must be between 0 and %g", MAX_RETRY_AFTER);
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		mp_refuse_argument("%s must not be NULL", PG_ARGISNULL(0) ? "token" : "event_id");

	mp_spi_connect();
	if (lock_claim(PG_GETARG_UUID_P(0), &held))
		outcome = fail_event(&held, PG_GETARG_UUID_P(1), &failure);
	mp_spi_finish();
	PG_RETURN_TEXT_P(cstring_to_text(outcome));
}

/* ------------------------------------------------------------------------
 * Extending
 * ------------------------------------------------------------------------ */

Datum
mp_extend(PG_FUNCTION_ARGS)
{
	static MpPlan plan = {
		.sql = "UPDATE meal_planner.consumer_claim c SET lease_until = $4"
		" WHERE c.account OPERATOR(pg_catalog.=) $1 AND c.subscription OPERATOR(pg_catalog.=) $2"
		" AND c.number OPERATOR(pg_catalog.=) $3",
	.types = {TEXTOID, TEXTOID, INT8OID, TIMESTAMPTZOID}};
	double		seconds = PG_ARGISNULL(1) ? -1 : PG_GETARG_FLOAT8(1);
	Held		held;
	bool		has_lease;

	mp_require_preload();
	if (!(seconds >= 0 && seconds <= MAX_LEASE))
		mp_refuse_argument("lease_seconds must be between 0 and %g", MAX_LEASE);
	if (PG_ARGISNULL(0))
		PG_RETURN_BOOL(false);

	mp_spi_connect();
	has_lease = lock_claim(PG_GETARG_UUID_P(0), &held);
	if (has_lease)
	{
		TimestampTz lease_until = mp_clock_now() + (int64) (seconds * USECS_PER_SEC);
		Datum		values[4] = {
			PointerGetDatum(held.account), held.subscription, Int64GetDatum(held.number),
			TimestampTzGetDatum(lease_until)
		};

		mp_plan_execute(&plan, values, NULL, 0);
		mp_cursor_expiry_comes(held.account, held.subscription, lease_until);
	}
	mp_spi_finish();
	PG_RETURN_BOOL(has_lease);
}
