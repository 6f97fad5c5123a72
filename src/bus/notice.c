/*
 * notice.c
 *		What consumers outside the server have been told by NOTIFY.
 *
 * NOTIFY at every emit would make all commits of the server wait for each
 * other.  Instead the sweeps look at most every 50 ms, and for no more than a
 * tenth of their time, for what pull subscriptions have to be claimed, and
 * tell it once.  What was told is kept in shared memory, so that several sweeps
 * tell it once together.  It is a cache: what is forgotten is told again.
 */
#include "bus/bus.h"

#include "bus/notice.h"
#include "bus/position.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "pgcompat.h"
#include "storage/shmem.h"
#include "storage/spin.h"
#include "utils/builtins.h"

/* Between two looks of a sweep, and between two notices of one subscription. */
#define SHORTEST_PAUSE_US	50000
#define TENTH				10

/* What lies unclaimed that long is told again: a notice may find nobody. */
#define REMINDER_US			(10 * USECS_PER_SEC)

/* Subscriptions and accounts that are remembered; a few share a bucket. */
#define BUCKETS				512
#define BUCKET_PLACES		8

typedef struct Place
{
	uint64		key;			/* of database, account and subscription; 0: free */
	int64		position;		/* told up to here */
	TimestampTz due;			/* the last delivery that was told */
	TimestampTz told_at;
} Place;

typedef struct Bucket
{
	slock_t		mutex;
	Place		place[BUCKET_PLACES];
} Bucket;

static Bucket *shared = NULL;

/* This session's sweep. */
static TimestampTz look_began = 0;
static TimestampTz next_look = 0;	/* 0: at once */
static TimestampTz sweep_until = 0;
static bool look_wanted = false;

PG_FUNCTION_INFO_V1(mp_begin_notice);
PG_FUNCTION_INFO_V1(mp_end_notice);
PG_FUNCTION_INFO_V1(mp_noticed);
PG_FUNCTION_INFO_V1(mp_notice);

Size
mp_notice_shmem_size(void)
{
	return MAXALIGN(sizeof(Bucket) * BUCKETS);
}

void
mp_notice_shmem_startup(void)
{
	bool		found;

	shared = ShmemInitStruct("meal_planner notices", mp_notice_shmem_size(), &found);
	if (found)
		return;
	memset(shared, 0, mp_notice_shmem_size());
	for (int i = 0; i < BUCKETS; i++)
		SpinLockInit(&shared[i].mutex);
}

/* ------------------------------------------------------------------------
 * When to look
 * ------------------------------------------------------------------------ */

void
mp_notice_begin_sweep(TimestampTz until)
{
	next_look = 0;
	sweep_until = until;
}

void
mp_notice_want(void)
{
	look_wanted = true;
}

TimestampTz
mp_notice_next_look(void)
{
	return look_wanted ? next_look : DT_NOEND;
}

/*
 * (idle): whether to look now.  What the sweep runs may emit; when it finds
 * nothing to do and does not wait for more, this is the last time to look.
 */
Datum
mp_begin_notice(PG_FUNCTION_ARGS)
{
	bool		idle = PG_GETARG_BOOL(0);

	mp_require_preload();
	look_wanted |= !idle;
	look_began = GetCurrentTimestamp();
	if (look_began < next_look && !(idle && look_wanted && sweep_until == 0))
		PG_RETURN_BOOL(false);
	look_wanted = false;
	PG_RETURN_BOOL(true);
}

Datum
mp_end_notice(PG_FUNCTION_ARGS)
{
	TimestampTz now = GetCurrentTimestamp();

	next_look = now + Max(SHORTEST_PAUSE_US, TENTH * (now - look_began));
	PG_RETURN_VOID();
}

/* ------------------------------------------------------------------------
 * What was told
 * ------------------------------------------------------------------------ */

static uint64
key_of(text *account, text *subscription)
{
	uint64		hash = hash_combine64(mp_account_hash(VARDATA_ANY(account), VARSIZE_ANY_EXHDR(account)),
									  hash_bytes_extended((unsigned char *) VARDATA_ANY(subscription),
														  VARSIZE_ANY_EXHDR(subscription), MyDatabaseId));

	return hash == 0 ? 1 : hash;
}

/* The place of a key, or the one that was told longest ago for it; locked. */
static Place *
lock_place(uint64 key)
{
	Bucket	   *bucket = &shared[key % BUCKETS];
	Place	   *place = &bucket->place[0];

	SpinLockAcquire(&bucket->mutex);
	for (int i = 0; i < BUCKET_PLACES; i++)
	{
		if (bucket->place[i].key == key)
			return &bucket->place[i];
		if (bucket->place[i].told_at < place->told_at)
			place = &bucket->place[i];
	}
	memset(place, 0, sizeof(Place));
	place->key = key;
	return place;
}

static void
unlock_place(uint64 key)
{
	SpinLockRelease(&shared[key % BUCKETS].mutex);
}

/*
 * (account, subscription): the position up to which its consumers have been
 * told; NULL when it is too early for more.
 */
Datum
mp_noticed(PG_FUNCTION_ARGS)
{
	uint64		key = key_of(PG_GETARG_TEXT_PP(0), PG_GETARG_TEXT_PP(1));
	TimestampTz now = GetCurrentTimestamp();
	Place	   *place = lock_place(key);
	int64		position = place->told_at != 0 && now - place->told_at >= REMINDER_US ? 0 : place->position;
	bool		early = now - place->told_at < SHORTEST_PAUSE_US;

	unlock_place(key);
	if (early)
	{
		look_wanted = true;
		PG_RETURN_NULL();
	}
	PG_RETURN_INT64(position);
}

/*
 * (account, subscription, position, due, matched): whether to tell it; false
 * also when somebody else did meanwhile.
 */
Datum
mp_notice(PG_FUNCTION_ARGS)
{
	uint64		key = key_of(PG_GETARG_TEXT_PP(0), PG_GETARG_TEXT_PP(1));
	int64		position = PG_ARGISNULL(2) ? 0 : PG_GETARG_INT64(2);
	TimestampTz due = PG_ARGISNULL(3) ? 0 : PG_GETARG_TIMESTAMPTZ(3);
	bool		matched = PG_GETARG_BOOL(4);
	TimestampTz now = GetCurrentTimestamp();
	Place	   *place = lock_place(key);
	bool		old = now - place->told_at >= REMINDER_US;
	bool		tell = now - place->told_at >= SHORTEST_PAUSE_US &&
		((matched && (old || position > place->position)) ||
		 (due != 0 && (old || due > place->due)));

	if (tell || !matched)
		place->position = Max(place->position, position);
	if (tell)
	{
		place->due = Max(place->due, due);
		place->told_at = now;
	}
	unlock_place(key);
	PG_RETURN_BOOL(tell);
}
