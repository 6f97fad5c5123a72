/*
 * metrics.c
 *		Handler calls and their times, in shared memory.
 *
 * They survive ROLLBACK and cost no row.  A place belongs to a (database,
 * subscription) once taken; finding it and counting, by atomic additions, need
 * no lock.
 * When all places are taken, further subscriptions are not counted.
 */
#include "bus/bus.h"

#include <math.h>

#include "bus/metrics.h"
#include "bus/position.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

#define LOCK_NAME	"meal_planner metrics"
#define PLACES		512
#define NAME_BYTES	128

/* Upper ends of the buckets: 0.01 ms * 1.25^n, the last one open. */
#define BUCKETS		80
#define BUCKET_LOW	0.01
#define BUCKET_STEP	1.25

typedef struct Place
{
	/* written once, before `taken` of the whole table passes this place */
	Oid			database;
	char		subscription[NAME_BYTES];
	pg_atomic_uint64 failures;
	pg_atomic_uint64 calls[BUCKETS];
} Place;

typedef struct MetricsShared
{
	LWLock	   *lock;			/* of taking a place */
	pg_atomic_uint32 taken;
	Place		place[PLACES];
} MetricsShared;

static MetricsShared *shared = NULL;

PG_FUNCTION_INFO_V1(mp_handler_stats);

Size
mp_metrics_shmem_size(void)
{
	return MAXALIGN(sizeof(MetricsShared));
}

void
mp_metrics_shmem_request(void)
{
	RequestNamedLWLockTranche(LOCK_NAME, 1);
}

void
mp_metrics_shmem_startup(void)
{
	bool		found;

	shared = ShmemInitStruct("meal_planner metrics", mp_metrics_shmem_size(), &found);
	if (found)
		return;
	memset(shared, 0, mp_metrics_shmem_size());
	shared->lock = &GetNamedLWLockTranche(LOCK_NAME)->lock;
	pg_atomic_init_u32(&shared->taken, 0);
	for (int i = 0; i < PLACES; i++)
	{
		pg_atomic_init_u64(&shared->place[i].failures, 0);
		for (int b = 0; b < BUCKETS; b++)
			pg_atomic_init_u64(&shared->place[i].calls[b], 0);
	}
}

static Place *
find_place(const char *subscription, uint32 taken)
{
	for (uint32 i = 0; i < taken; i++)
	{
		Place	   *place = &shared->place[i];

		if (place->database == MyDatabaseId && strcmp(place->subscription, subscription) == 0)
			return place;
	}
	return NULL;
}

static Place *
find_or_take_place(const char *subscription)
{
	uint32		taken = pg_atomic_read_u32(&shared->taken);
	Place	   *place;
	char		name[NAME_BYTES];

	pg_read_barrier();
	strlcpy(name, subscription, sizeof(name));
	place = find_place(name, taken);
	if (place != NULL)
		return place;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	taken = pg_atomic_read_u32(&shared->taken);
	place = find_place(name, taken);
	if (place == NULL && taken < PLACES)
	{
		place = &shared->place[taken];
		place->database = MyDatabaseId;
		memcpy(place->subscription, name, sizeof(name));
		pg_write_barrier();
		pg_atomic_write_u32(&shared->taken, taken + 1);
	}
	LWLockRelease(shared->lock);
	return place;
}

static int
bucket_of(double milliseconds)
{
	double		bucket;

	if (milliseconds <= BUCKET_LOW)
		return 0;
	bucket = ceil(log(milliseconds / BUCKET_LOW) / log(BUCKET_STEP));
	return bucket >= BUCKETS ? BUCKETS - 1 : (int) bucket;
}

void
mp_metrics_count(const char *subscription, double milliseconds, bool failed)
{
	Place	   *place = shared ? find_or_take_place(subscription) : NULL;

	if (place == NULL)
		return;
	pg_atomic_fetch_add_u64(&place->calls[bucket_of(milliseconds)], 1);
	if (failed)
		pg_atomic_fetch_add_u64(&place->failures, 1);
}

uint64
mp_metrics_successes(const char *subscription)
{
	char		name[NAME_BYTES];
	Place	   *place;
	uint64		calls = 0;
	uint64		failures;
	uint32		taken;

	if (shared == NULL)
		return 0;
	taken = pg_atomic_read_u32(&shared->taken);
	pg_read_barrier();
	strlcpy(name, subscription, sizeof(name));
	place = find_place(name, taken);
	if (place == NULL)
		return 0;
	/* failures first: a call is counted before its failure is */
	failures = pg_atomic_read_u64(&place->failures);
	pg_read_barrier();
	for (int b = 0; b < BUCKETS; b++)
		calls += pg_atomic_read_u64(&place->calls[b]);
	return calls > failures ? calls - failures : 0;
}

/* The upper end of the bucket in which the share `quantile` of calls is reached. */
static double
percentile(const uint64 *calls, uint64 total, double quantile)
{
	uint64		wanted = (uint64) ceil(total * quantile);
	uint64		seen = 0;

	for (int b = 0; b < BUCKETS; b++)
	{
		seen += calls[b];
		if (seen >= wanted)
			return BUCKET_LOW * pow(BUCKET_STEP, b);
	}
	return BUCKET_LOW * pow(BUCKET_STEP, BUCKETS - 1);
}

Datum
mp_handler_stats(PG_FUNCTION_ARGS)
{
	Tuplestorestate *store;
	TupleDesc	desc;
	uint32		taken;

	mp_require_preload();
	store = mp_begin_rows(fcinfo, &desc);
	taken = pg_atomic_read_u32(&shared->taken);
	pg_read_barrier();
	for (uint32 i = 0; i < taken; i++)
	{
		Place	   *place = &shared->place[i];
		uint64		calls[BUCKETS];
		uint64		total = 0;
		Datum		values[6];
		bool		nulls[6] = {false};

		if (place->database != MyDatabaseId)
			continue;
		for (int b = 0; b < BUCKETS; b++)
			total += calls[b] = pg_atomic_read_u64(&place->calls[b]);
		values[0] = CStringGetTextDatum(place->subscription);
		values[1] = Int64GetDatum((int64) total);
		values[2] = Int64GetDatum((int64) pg_atomic_read_u64(&place->failures));
		values[3] = Float8GetDatum(percentile(calls, total, 0.50));
		values[4] = Float8GetDatum(percentile(calls, total, 0.95));
		values[5] = Float8GetDatum(percentile(calls, total, 0.99));
		tuplestore_putvalues(store, desc, values, nulls);
	}
	return (Datum) 0;
}
