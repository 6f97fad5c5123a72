/*
 * breaker.c
 *		Circuit breakers in shared memory.
 *
 * A place belongs to a (database, extension, name) once taken.  The machine
 * itself (core/breaker.c) runs under the lock of its place, for a moment, and
 * never across a call.  While a breaker is closed, its permit is the same for
 * everybody and lies in `common`, to be read without any lock; a success that
 * would change nothing (`quiet`) only adds to a counter.
 *
 * Changes of state wait in a small ring until they are stored (breaker_store.c).
 */
#include "bus/breaker.h"

#include "access/xlog.h"
#include "bus/position.h"
#include "bus/wakeup.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#define LOCK_NAME	"meal_planner breaker"
#define PLACES		256
#define RETRY_WITHOUT_ROOM_US	(30 * USECS_PER_SEC)

struct MpBreakerPlace
{
	LWLock	   *lock;
	Oid			database;
	Oid			relation;		/* the log: tells one extension from the next */
	char		name[MP_BREAKER_NAME_BYTES + 1];

	/* Read without the lock, written under it. */
	pg_atomic_uint64 common;	/* everybody's permit; 0: ask */
	pg_atomic_uint32 quiet;		/* a success with it changes nothing */
	pg_atomic_uint32 unstored;	/* changes wait to be stored */
	pg_atomic_uint64 slow_us;	/* from so long on a call is slow; 0: none is */
	pg_atomic_uint64 counter[MP_BREAKER_COUNTERS];

	/* Under the lock */
	MpBreakerRow row;
	uint64		changes;		/* ever made */
	uint64		stored;			/* of them */
	MpBreakerChange change[MP_BREAKER_CHANGES];
};

typedef struct BreakerShared
{
	LWLock	   *lock;			/* of the names; nothing waits while it is held */
	pg_atomic_uint64 changes;	/* of all, ever made */
	int			taken;
	MpBreakerPlace place[PLACES];
} BreakerShared;

/* What this backend has found before. */
typedef struct Known
{
	char		name[MP_BREAKER_NAME_BYTES + 1];
	MpBreakerPlace *place;
} Known;

static BreakerShared *shared = NULL;

PG_FUNCTION_INFO_V1(mp_breakers_moved);

static HTAB *known = NULL;
static MpBreakerPlace *last_found = NULL;

Size
mp_breaker_shmem_size(void)
{
	return MAXALIGN(sizeof(BreakerShared));
}

void
mp_breaker_shmem_request(void)
{
	RequestNamedLWLockTranche(LOCK_NAME, PLACES + 1);
}

void
mp_breaker_shmem_startup(void)
{
	LWLockPadded *locks;
	bool		found;

	shared = ShmemInitStruct("meal_planner breakers", mp_breaker_shmem_size(), &found);
	if (found)
		return;
	memset(shared, 0, mp_breaker_shmem_size());
	locks = GetNamedLWLockTranche(LOCK_NAME);
	shared->lock = &locks[PLACES].lock;
	pg_atomic_init_u64(&shared->changes, 0);
	for (int i = 0; i < PLACES; i++)
	{
		MpBreakerPlace *place = &shared->place[i];

		place->lock = &locks[i].lock;
		pg_atomic_init_u64(&place->common, 0);
		pg_atomic_init_u32(&place->quiet, 0);
		pg_atomic_init_u32(&place->unstored, 0);
		pg_atomic_init_u64(&place->slow_us, 0);
		for (int c = 0; c < MP_BREAKER_COUNTERS; c++)
			pg_atomic_init_u64(&place->counter[c], 0);
	}
}

static inline void
count(MpBreakerPlace *place, MpBreakerCounter counter, int64 by)
{
	pg_atomic_fetch_add_u64(&place->counter[counter], by);
}

/* After each change under the lock: what is read without it. */
static void
publish(MpBreakerPlace *place)
{
	const MpBreakerConfig *config = &place->row.config;

	pg_atomic_write_u32(&place->quiet, mp_breaker_is_quiet(config, &place->row.breaker));
	pg_atomic_write_u64(&place->slow_us, (uint64) (config->slow_call_seconds * USECS_PER_SEC));
	pg_atomic_write_u32(&place->unstored, place->changes > place->stored);
	pg_atomic_write_u64(&place->common, (uint64) mp_breaker_common_permit(config, &place->row.breaker));
}

/* Notes changes of state, to be stored; the lock is held. */
static void
note(MpBreakerPlace *place, const MpBreakerSteps *steps, const char *by, const char *words)
{
	for (int i = 0; i < steps->count; i++)
	{
		MpBreakerChange *change = &place->change[place->changes % MP_BREAKER_CHANGES];
		bool		is_of_operator = by != NULL && i == steps->count - 1;

		memset(change, 0, sizeof(*change));
		change->number = ++place->changes;
		change->step = steps->step[i];
		strlcpy(change->by, is_of_operator ? by : "", sizeof(change->by));
		strlcpy(change->words, is_of_operator && words ? words : "", sizeof(change->words));
	}
	if (place->row.breaker.forced == MP_FORCE_NONE)
		place->row.forced_by[0] = place->row.forced_reason[0] = '\0';
	if (steps->count == 0)
		return;
	publish(place);
	pg_atomic_fetch_add_u64(&shared->changes, steps->count);
}

/* ------------------------------------------------------------------------
 * Places
 * ------------------------------------------------------------------------ */

static inline bool
is_place_of(const MpBreakerPlace *place, Oid relation, const char *name)
{
	if (place->relation != relation)
		return false;
	pg_read_barrier();
	return place->database == MyDatabaseId && strcmp(place->name, name) == 0;
}

static MpBreakerPlace *
search(Oid relation, const char *name)
{
	for (int i = 0; i < shared->taken; i++)
		if (is_place_of(&shared->place[i], relation, name))
			return &shared->place[i];
	return NULL;
}

/* The index of a place, and whose it is now. */
typedef struct Room
{
	int			index;			/* -1: none */
	Oid			database;
} Room;

/* A free one, or one of an extension or a database that is gone; it may look at the catalog. */
static Room
find_room(Oid relation)
{
	for (int i = 0; i < shared->taken; i++)
	{
		MpBreakerPlace *place = &shared->place[i];
		Oid			database = place->database;

		if (shared->taken < PLACES)
			break;
		if (database == MyDatabaseId ? place->relation != relation
			: !SearchSysCacheExists1(DATABASEOID, ObjectIdGetDatum(database)))
			return (Room) {i, database};
	}
	return (Room) {-1, InvalidOid};
}

static void
fill_place(MpBreakerPlace *place, Oid relation, const char *name, const MpBreakerRow *row)
{
	LWLockAcquire(place->lock, LW_EXCLUSIVE);
	/* who found another one here before looks again without a lock: at the relation first */
	place->relation = InvalidOid;
	pg_write_barrier();
	place->database = MyDatabaseId;
	strlcpy(place->name, name, sizeof(place->name));
	place->row = *row;
	place->changes = place->stored = 0;
	for (int c = 0; c < MP_BREAKER_COUNTERS; c++)
		pg_atomic_write_u64(&place->counter[c], 0);
	publish(place);
	pg_write_barrier();
	place->relation = relation;
	LWLockRelease(place->lock);
}

/* Whether nobody has taken it since it was found. */
static bool
is_still_free(Room room, Oid relation)
{
	const MpBreakerPlace *place = &shared->place[room.index];

	return place->database == room.database && (room.database != MyDatabaseId || place->relation != relation);
}

/* NULL: there is none left. */
static MpBreakerPlace *
take_place(Oid relation, const char *name, const MpBreakerRow *row, Room room)
{
	MpBreakerPlace *place;
	int			index = -1;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	place = search(relation, name);
	if (place == NULL && shared->taken < PLACES)
		index = shared->taken++;
	else if (place == NULL && room.index >= 0 && is_still_free(room, relation))
		index = room.index;
	if (index >= 0)
	{
		place = &shared->place[index];
		fill_place(place, relation, name, row);
	}
	LWLockRelease(shared->lock);
	return place;
}

/* NULL: there is no place left. */
static MpBreakerPlace *
load_place(Oid relation, const char *name)
{
	MpBreakerPlace *place;
	MpBreakerRow row;

	LWLockAcquire(shared->lock, LW_SHARED);
	place = search(relation, name);
	LWLockRelease(shared->lock);
	if (place != NULL)
		return place;
	/* Of a standby's rows nothing may be kept: they change without us. */
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(MP_ERRCODE_UNAVAILABLE),
				 errmsg("MP503: a circuit breaker cannot be asked on a standby"),
				 errhint("retry=no. Call the primary.")));
	mp_breaker_read_row(name, mp_clock_now(), &row);
	return take_place(relation, name, &row, find_room(relation));
}

MpBreakerPlace *
mp_breaker_find_if_room(const char *name)
{
	Oid			relation;
	Known	   *entry;
	bool		found;

	mp_require_preload();
	/* a longer one would be cut, not be found again, and take another place each time */
	if (strlen(name) > MP_BREAKER_NAME_BYTES)
		mp_refuse_argument("name of a circuit breaker must have at most %d bytes", MP_BREAKER_NAME_BYTES);
	relation = mp_event_relation();
	if (last_found != NULL && is_place_of(last_found, relation, name))
		return last_found;
	if (known == NULL)
	{
		HASHCTL		control = {.keysize = sizeof(((Known *) NULL)->name), .entrysize = sizeof(Known)};

		known = hash_create("meal_planner breakers", 32, &control, HASH_ELEM | HASH_STRINGS);
	}
	entry = hash_search(known, name, HASH_FIND, &found);
	if (!found || !is_place_of(entry->place, relation, name))
	{
		MpBreakerPlace *place = load_place(relation, name);

		if (place == NULL)
			return NULL;
		entry = hash_search(known, name, HASH_ENTER, &found);
		entry->place = place;
	}
	last_found = entry->place;
	return last_found;
}

MpBreakerPlace *
mp_breaker_find(const char *name)
{
	MpBreakerPlace *place = mp_breaker_find_if_room(name);

	if (place == NULL)
		ereport(ERROR,
				(errcode(MP_ERRCODE_UNAVAILABLE),
				 errmsg("MP503: all %d places for circuit breakers are taken", PLACES),
				 errhint("retry=no. Use one name for one service; a restart of the server frees the places.")));
	return place;
}

TimestampTz
mp_breaker_retry_without_room(void)
{
	return mp_clock_now() + RETRY_WITHOUT_ROOM_US;
}

MpBreakerPlace *
mp_breaker_next(int *index)
{
	Oid			relation = mp_event_relation();
	MpBreakerPlace *place = NULL;

	LWLockAcquire(shared->lock, LW_SHARED);
	while (place == NULL && *index < shared->taken)
	{
		place = &shared->place[(*index)++];
		if (place->database != MyDatabaseId || place->relation != relation)
			place = NULL;
	}
	LWLockRelease(shared->lock);
	return place;
}

/* ------------------------------------------------------------------------
 * Asking and telling
 * ------------------------------------------------------------------------ */

/* Tells the sweeps, which make events of changes. */
static void
changed(const MpBreakerSteps *steps)
{
	if (steps->count > 0)
		mp_wake_waiters(MP_ANY_ACCOUNT);
}

MpBreakerAnswer
mp_breaker_ask(MpBreakerPlace *place)
{
	int64		common = (int64) pg_atomic_read_u64(&place->common);
	MpBreakerSteps steps = {0};
	MpBreakerAnswer answer;

	if (likely(common != 0))
		return (MpBreakerAnswer) {.allowed = true, .permit = common};

	LWLockAcquire(place->lock, LW_EXCLUSIVE);
	answer = mp_breaker_acquire(&place->row.config, &place->row.breaker, mp_clock_now(), &steps);
	note(place, &steps, NULL, NULL);
	LWLockRelease(place->lock);
	if (!answer.allowed)
		count(place, MP_COUNT_REJECTED, 1);
	else if (mp_permit_is_probe(answer.permit))
		count(place, MP_COUNT_PROBES, 1);
	changed(&steps);
	return answer;
}

TimestampTz
mp_breaker_retry_at(MpBreakerPlace *place)
{
	MpBreaker	copy;
	MpBreakerSteps steps = {0};
	MpBreakerAnswer answer;

	if (pg_atomic_read_u64(&place->common) != 0)
		return 0;
	LWLockAcquire(place->lock, LW_SHARED);
	copy = place->row.breaker;
	answer = mp_breaker_acquire(&place->row.config, &copy, mp_clock_now(), &steps);
	LWLockRelease(place->lock);
	if (answer.allowed)
		return 0;
	return answer.retry_at == INT64_MAX ? DT_NOEND : answer.retry_at;
}

bool
mp_breaker_is_slow(const MpBreakerPlace *place, double seconds)
{
	uint64		slow_us = pg_atomic_read_u64(unconstify(pg_atomic_uint64 *, &place->slow_us));

	return slow_us > 0 && seconds * USECS_PER_SEC >= (double) slow_us;
}

static MpBreakerCounter
counter_of(MpBreakerOutcome outcome)
{
	return outcome == MP_OUTCOME_SUCCESS ? MP_COUNT_SUCCESSES
		: outcome == MP_OUTCOME_FAILURE ? MP_COUNT_FAILURES : MP_COUNT_IGNORED;
}

void
mp_breaker_tell(MpBreakerPlace *place, int64 permit, MpBreakerOutcome outcome, bool slow, int64 calls)
{
	MpBreakerSteps steps = {0};
	TimestampTz now = mp_clock_now();
	uint32		random = 0;
	int64		in_time = 0;

	if (slow)
		count(place, MP_COUNT_SLOW, calls);
	if (outcome == MP_OUTCOME_SUCCESS && pg_atomic_read_u32(&place->quiet) != 0 &&
		(int64) pg_atomic_read_u64(&place->common) == permit)
	{
		count(place, MP_COUNT_SUCCESSES, calls);
		return;
	}

	/* outside of the lock; without chance there is no jitter */
	if (!pg_strong_random(&random, sizeof(random)))
		random = 0;
	LWLockAcquire(place->lock, LW_EXCLUSIVE);
	/* so many calls fill any window: more would tell nothing new */
	for (int64 i = 0; i < Min(calls, MP_BREAKER_MAX_WINDOW); i++)
	{
		steps.count = 0;
		in_time += mp_breaker_report(&place->row.config, &place->row.breaker, now,
									 random / ((double) PG_UINT32_MAX + 1), permit, outcome, slow, &steps);
		note(place, &steps, NULL, NULL);
	}
	publish(place);
	LWLockRelease(place->lock);
	if (calls > MP_BREAKER_MAX_WINDOW && in_time == MP_BREAKER_MAX_WINDOW)
		in_time = calls;
	count(place, counter_of(outcome), in_time);
	count(place, MP_COUNT_LATE, calls - in_time);
	if (pg_atomic_read_u32(&place->unstored) != 0)
		mp_wake_waiters(MP_ANY_ACCOUNT);
}

void
mp_breaker_apply_force(MpBreakerPlace *place, MpBreakerForce force, TimestampTz until,
					   const char *by, const char *words)
{
	MpBreakerSteps steps = {0};

	LWLockAcquire(place->lock, LW_EXCLUSIVE);
	mp_breaker_force(&place->row.config, &place->row.breaker, mp_clock_now(), force, until, &steps);
	strlcpy(place->row.forced_by, by, sizeof(place->row.forced_by));
	strlcpy(place->row.forced_reason, words ? words : "", sizeof(place->row.forced_reason));
	note(place, &steps, by, words);
	LWLockRelease(place->lock);
	changed(&steps);
}

void
mp_breaker_apply_config(MpBreakerPlace *place, const MpBreakerConfig *config, int64 version)
{
	MpBreakerSteps steps = {0};

	LWLockAcquire(place->lock, LW_EXCLUSIVE);
	if (version > place->row.config_version)
	{
		place->row.config = *config;
		place->row.config_version = version;
		mp_breaker_reconfigure(config, &place->row.breaker, mp_clock_now(), &steps);
		note(place, &steps, NULL, NULL);
		publish(place);
	}
	LWLockRelease(place->lock);
	changed(&steps);
}

void
mp_breaker_look(MpBreakerPlace *place, bool settle, MpBreakerCopy *copy)
{
	MpBreakerSteps steps = {0};
	uint64		first;

	LWLockAcquire(place->lock, LW_EXCLUSIVE);
	if (settle)
		mp_breaker_settle(&place->row.config, &place->row.breaker, mp_clock_now(), &steps);
	note(place, &steps, NULL, NULL);
	strlcpy(copy->name, place->name, sizeof(copy->name));
	copy->row = place->row;
	copy->stored = place->changes == place->stored;
	copy->change_count = 0;
	first = Max(place->stored, place->changes - Min(place->changes, MP_BREAKER_CHANGES));
	for (uint64 number = first; number < place->changes; number++)
		copy->change[copy->change_count++] = place->change[number % MP_BREAKER_CHANGES];
	LWLockRelease(place->lock);
	for (int c = 0; c < MP_BREAKER_COUNTERS; c++)
		copy->counter[c] = pg_atomic_read_u64(&place->counter[c]);
	changed(&steps);
}

MpBreakerState
mp_breaker_state(MpBreakerPlace *place)
{
	MpBreakerState state;

	if (pg_atomic_read_u64(&place->common) != 0)
		return MP_BREAKER_CLOSED;
	LWLockAcquire(place->lock, LW_SHARED);
	state = place->row.breaker.state;
	LWLockRelease(place->lock);
	return state;
}

Datum
mp_breakers_moved(PG_FUNCTION_ARGS)
{
	static uint64 seen = PG_UINT64_MAX;
	static TimestampTz looked = 0;
	TimestampTz now = GetCurrentTimestamp();
	uint64		changes;
	bool		moved;

	mp_require_preload();
	changes = pg_atomic_read_u64(&shared->changes);
	moved = changes != seen || now < looked || now >= looked + USECS_PER_SEC;
	if (moved)
	{
		seen = changes;
		looked = now;
	}
	PG_RETURN_BOOL(moved);
}

void
mp_breaker_stored(MpBreakerPlace *place, uint64 number)
{
	LWLockAcquire(place->lock, LW_EXCLUSIVE);
	place->stored = Max(place->stored, Min(number, place->changes));
	publish(place);
	LWLockRelease(place->lock);
}

bool
mp_breaker_is_stored(MpBreakerPlace *place)
{
	return pg_atomic_read_u32(&place->unstored) == 0;
}
