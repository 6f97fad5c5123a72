/*
 * retry_budget.c
 *		Retry budgets, in shared memory.
 *
 * Whoever begins a retry takes a token of its subscription first; while there
 * is none, retries stay where they are: due, in their order, with no attempt
 * counted.  So nothing is written for it, and more tokens, by time, by success
 * or by another option, are seen at once.
 *
 * A bucket counts as empty when the server starts: a server that crashes again
 * and again must not retry more than one that stays up.
 */
#include "bus/retry_budget.h"

#include "bus/metrics.h"
#include "bus/position.h"
#include "miscadmin.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

#define LOCK_NAME	"meal_planner retry budget"
#define PLACES		256
#define NAME_BYTES	101			/* of a subscription; mp_subscribe takes no longer ones */

typedef struct Place
{
	Oid			database;		/* InvalidOid: free */
	Oid			relation;		/* the log: tells one extension from the next */
	char		subscription[NAME_BYTES];
	MpBucket	bucket;
} Place;

/* Retries are rare, and what is done under the lock is arithmetic. */
typedef struct BudgetShared
{
	LWLock	   *lock;
	TimestampTz begun;			/* also anew after a crash, unlike PgStartTime */
	Place		place[PLACES];
} BudgetShared;

static BudgetShared *shared = NULL;

PG_FUNCTION_INFO_V1(mp_take_retry);
PG_FUNCTION_INFO_V1(mp_retry_ready_at);
PG_FUNCTION_INFO_V1(mp_retry_budgets);

Size
mp_retry_budget_shmem_size(void)
{
	return MAXALIGN(sizeof(BudgetShared));
}

void
mp_retry_budget_shmem_request(void)
{
	RequestNamedLWLockTranche(LOCK_NAME, 1);
}

void
mp_retry_budget_shmem_startup(void)
{
	bool		found;

	shared = ShmemInitStruct("meal_planner retry budgets", mp_retry_budget_shmem_size(), &found);
	if (found)
		return;
	memset(shared, 0, mp_retry_budget_shmem_size());
	shared->lock = &GetNamedLWLockTranche(LOCK_NAME)->lock;
	shared->begun = GetCurrentTimestamp();
}

static bool
has_budget(const MpSubscription *subscription)
{
	return subscription->budget.per_second > 0 && shared != NULL;
}

/*
 * The place of a subscription; the lock is held.  When all are taken it gets that of the one
 * nobody has asked about for longest, whose bucket has most likely filled since.
 */
static Place *
find_place(const MpSubscription *subscription, Oid relation, TimestampTz now, uint64 successes)
{
	Place	   *oldest = &shared->place[0];

	for (int i = 0; i < PLACES; i++)
	{
		Place	   *place = &shared->place[i];

		if (place->database == MyDatabaseId && place->relation == relation &&
			strcmp(place->subscription, subscription->name) == 0)
			return place;
		if (oldest->database != InvalidOid &&
			(place->database == InvalidOid || place->bucket.filled_at < oldest->bucket.filled_at))
			oldest = place;
	}
	oldest->database = MyDatabaseId;
	oldest->relation = relation;
	strlcpy(oldest->subscription, subscription->name, sizeof(oldest->subscription));
	oldest->bucket = mp_bucket_since(&subscription->budget, shared->begun, now, successes);
	return oldest;
}

/*
 * Its place with a bucket filled up to now.  The lock is held afterwards; what
 * was read before it might be older than what the bucket was filled with, which
 * would look as if that had gone back, and be filled in twice.
 */
static Place *
lock_place(const MpSubscription *subscription)
{
	Oid			relation = mp_event_relation();
	TimestampTz now;
	uint64		successes;
	Place	   *place;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	now = mp_clock_now();
	successes = mp_metrics_successes(subscription->name);
	place = find_place(subscription, relation, now, successes);
	mp_bucket_fill(&subscription->budget, &place->bucket, now, successes);
	return place;
}

int
mp_retry_budget_take(const MpSubscription *subscription, int wanted)
{
	Place	   *place;
	int			taken;

	if (!has_budget(subscription))
		return wanted;
	place = lock_place(subscription);
	taken = mp_bucket_take(&place->bucket, wanted);
	LWLockRelease(shared->lock);
	return taken;
}

void
mp_retry_budget_give_back(const MpSubscription *subscription, int count)
{
	if (!has_budget(subscription) || count <= 0)
		return;
	mp_bucket_give_back(&subscription->budget, &lock_place(subscription)->bucket, count);
	LWLockRelease(shared->lock);
}

TimestampTz
mp_retry_budget_ready_at(const MpSubscription *subscription)
{
	MpBucket	bucket;
	TimestampTz ready_at;

	if (!has_budget(subscription))
		return 0;
	bucket = lock_place(subscription)->bucket;
	LWLockRelease(shared->lock);
	ready_at = mp_bucket_ready_at(&subscription->budget, &bucket);
	return ready_at == bucket.filled_at ? 0 : ready_at;
}

/* ------------------------------------------------------------------------
 * For SQL
 * ------------------------------------------------------------------------ */

Datum
mp_take_retry(PG_FUNCTION_ARGS)
{
	MpSubscriptions *subscriptions = mp_subscriptions_hold();
	MpSubscription *subscription = mp_subscription_find(subscriptions, text_to_cstring(PG_GETARG_TEXT_PP(0)));
	bool		taken = subscription == NULL || mp_retry_budget_take(subscription, 1) > 0;

	mp_subscriptions_release(subscriptions);
	PG_RETURN_BOOL(taken);
}

Datum
mp_retry_ready_at(PG_FUNCTION_ARGS)
{
	MpSubscriptions *subscriptions = mp_subscriptions_hold();
	MpSubscription *subscription = mp_subscription_find(subscriptions, text_to_cstring(PG_GETARG_TEXT_PP(0)));
	TimestampTz ready_at = subscription == NULL ? 0 : mp_retry_budget_ready_at(subscription);

	mp_subscriptions_release(subscriptions);
	if (ready_at == 0)
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(ready_at);
}

/* The bucket of one subscription; no row without a budget. */
Datum
mp_retry_budgets(PG_FUNCTION_ARGS)
{
	MpSubscriptions *subscriptions = mp_subscriptions_hold();
	MpSubscription *subscription = mp_subscription_find(subscriptions, text_to_cstring(PG_GETARG_TEXT_PP(0)));
	TupleDesc	desc;
	Tuplestorestate *store;

	mp_require_preload();
	store = mp_begin_rows(fcinfo, &desc);
	if (subscription != NULL && has_budget(subscription))
	{
		const MpRetryBudget *budget = &subscription->budget;
		MpBucket	bucket = lock_place(subscription)->bucket;
		int64		ready_at;
		bool		nulls[5] = {false};
		Datum		values[5];

		LWLockRelease(shared->lock);
		ready_at = mp_bucket_ready_at(budget, &bucket);
		values[0] = Float8GetDatum(bucket.tokens);
		values[1] = TimestampTzGetDatum(ready_at);
		values[2] = Float8GetDatum(budget->per_second);
		values[3] = Float8GetDatum(budget->burst);
		values[4] = Float8GetDatum(budget->per_success);
		nulls[1] = ready_at == bucket.filled_at;
		tuplestore_putvalues(store, desc, values, nulls);
	}
	mp_subscriptions_release(subscriptions);
	return (Datum) 0;
}
