/*
 * position.c
 *		The position clock and the registry of transactions in flight.
 *
 * Both live in shared memory, one per server.  The clock holds the last tick
 * given out.  The registry has one slot per backend.
 *
 * Why a reader never passes an event that commits late.  A writer publishes
 * the clock's present value as its bound before it takes a position, and
 * clears the slot when its transaction has ended, after its rows have become
 * visible (ProcArrayEndTransaction runs before the commit callbacks).  A reader
 * reads the clock, then all slots, and takes the lowest as its own bound; only
 * then it takes a snapshot.  Whoever's slot it saw holds the bound below all
 * positions of that writer.  Whoever's slot it did not see either had ended, so
 * that the snapshot shows its rows, or had not yet published, so that its
 * position is above the clock the reader read.  This needs the writer's stores
 * to the slot to be visible before its step of the clock, and the reader's load
 * of the clock to come before its loads of the slots: hence the two barriers.
 *
 * A slot carries the database and the account, so that a slow writer holds
 * back the readers of its own account alone.
 */
#include "bus/bus.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "bus/position.h"
#include "bus/wakeup.h"
#include "common/hashfn.h"
#include "core/position.h"
#include "datatype/timestamp.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "pgcompat.h"
#include "port/atomics.h"
#include "storage/shmem.h"
#include "storage/spin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"
#include "utils/uuid.h"

#define UNIX_EPOCH_OFFSET_US \
	((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY)

/* Databases whose stored positions the clock is known to be above. */
#define KNOWN_DATABASES 64

/* An account is at most 128 characters of at most four bytes. */
#define ACCOUNT_BYTES 512

typedef struct Slot
{
	pg_atomic_uint64 bound;		/* a tick; 0: nothing in flight */
	pg_atomic_uint64 account;	/* hash of the account, or MP_ANY_ACCOUNT */
	Oid			database;		/* written before bound */

	/* What follows is for mp_in_flight alone, under the mutex. */
	slock_t		mutex;
	int			pid;
	TimestampTz since;
	char		account_name[ACCOUNT_BYTES + 1];	/* empty: several */
} Slot;

typedef struct PositionShared
{
	pg_atomic_uint64 clock;		/* the last tick given out */
	slock_t		mutex;			/* of the two fields below */
	int			known_next;
	Oid			known[KNOWN_DATABASES];
	int			slots;
	Slot		slot[FLEXIBLE_ARRAY_MEMBER];
} PositionShared;

int			mp_node_id = 0;
int			mp_append_age_limit = 0;

static PositionShared *shared = NULL;

/* This backend's slot while its transaction has appended, else NULL. */
static Slot *in_flight = NULL;

/* Whether the clock is above what this backend's database has stored. */
static bool clock_is_ready = false;

PG_FUNCTION_INFO_V1(mp_next_position);
PG_FUNCTION_INFO_V1(mp_read_bound);
PG_FUNCTION_INFO_V1(mp_read_committed_only);
PG_FUNCTION_INFO_V1(mp_position_at);
PG_FUNCTION_INFO_V1(mp_position_time);
PG_FUNCTION_INFO_V1(mp_position_of_event_id);
PG_FUNCTION_INFO_V1(mp_in_flight);

Size
mp_position_shmem_size(void)
{
	return MAXALIGN(add_size(offsetof(PositionShared, slot),
							 mul_size(sizeof(Slot), mp_max_backends())));
}

/* Runs under AddinShmemInitLock. */
void
mp_position_shmem_startup(void)
{
	bool		found;

	shared = ShmemInitStruct("meal_planner positions", mp_position_shmem_size(), &found);
	if (found)
		return;
	memset(shared, 0, mp_position_shmem_size());
	pg_atomic_init_u64(&shared->clock, 0);
	SpinLockInit(&shared->mutex);
	shared->slots = mp_max_backends();
	for (int i = 0; i < shared->slots; i++)
	{
		pg_atomic_init_u64(&shared->slot[i].bound, 0);
		pg_atomic_init_u64(&shared->slot[i].account, MP_ANY_ACCOUNT);
		SpinLockInit(&shared->slot[i].mutex);
	}
}

void
mp_require_preload(void)
{
	if (shared == NULL)
		ereport(ERROR,
				(errcode(MP_ERRCODE_UNAVAILABLE),
				 errmsg("MP503: meal_planner is not in shared_preload_libraries"),
				 errhint("retry=no. Add meal_planner to shared_preload_libraries in postgresql.conf and restart the server.")));
}

/* ------------------------------------------------------------------------
 * The clock
 * ------------------------------------------------------------------------ */

static int64
tick_of(TimestampTz time)
{
	if (TIMESTAMP_NOT_FINITE(time))
		return time > 0 ? MP_TICK_MAX : 1;
	return mp_tick_of_unix_us(time + UNIX_EPOCH_OFFSET_US);
}

/* Takes `count` consecutive ticks; returns the first. */
static int64
take_ticks(int count)
{
	int64		now = tick_of(mp_clock_now());
	uint64		last = pg_atomic_read_u64(&shared->clock);
	int64		first;

	do
	{
		first = mp_tick_next((int64) last, now);
		if (first > MP_TICK_MAX - count)
			elog(ERROR, "position clock has run out");
	} while (!pg_atomic_compare_exchange_u64(&shared->clock, &last, (uint64) (first + count - 1)));
	return first;
}

/* Makes sure that the next tick is above this one. */
static void
raise_clock(int64 tick)
{
	uint64		last = pg_atomic_read_u64(&shared->clock);

	while ((int64) last < tick &&
		   !pg_atomic_compare_exchange_u64(&shared->clock, &last, (uint64) tick))
		;
}

void
mp_position_observe(int64 position)
{
	if (shared != NULL)
		raise_clock(mp_position_tick(position));
}

static bool
database_is_known(void)
{
	bool		known = false;

	SpinLockAcquire(&shared->mutex);
	for (int i = 0; i < KNOWN_DATABASES; i++)
		known |= (shared->known[i] == MyDatabaseId);
	SpinLockRelease(&shared->mutex);
	return known;
}

/* With more databases than places the oldest is forgotten: it is read again. */
static void
remember_database(void)
{
	SpinLockAcquire(&shared->mutex);
	shared->known[shared->known_next] = MyDatabaseId;
	shared->known_next = (shared->known_next + 1) % KNOWN_DATABASES;
	SpinLockRelease(&shared->mutex);
}

/*
 * The highest number of the position clock that this database has stored.  The
 * log has no index on position alone: one probe per account finds it.  Other
 * tables hold numbers of the same clock that are above the last event: ids, the
 * tokens of workers and consumers, the places where subscriptions start, and the
 * order in which something has happened to a saga.
 */
static int64
highest_stored_position(void)
{
	static MpPlan first = {
		.sql = "SELECT e.account, e.position FROM meal_planner.event e"
		" ORDER BY e.account DESC, e.position DESC LIMIT 1",
	.in_index_order = true};
	static MpPlan next = {
		.sql = "SELECT e.account, e.position FROM meal_planner.event e"
		" WHERE e.account OPERATOR(pg_catalog.<) $1"
		" ORDER BY e.account DESC, e.position DESC LIMIT 1",
	.types = {TEXTOID}, .in_index_order = true};
	/* a subscription may start at a time to come, which is no position given out */
	static MpPlan others = {
		.sql = "SELECT pg_catalog.max(o.highest) FROM ("
		"SELECT pg_catalog.max(l.id) AS highest FROM meal_planner.dead_letter l"
		" UNION ALL SELECT pg_catalog.max(a.id) FROM meal_planner.alert a"
		" UNION ALL SELECT pg_catalog.max(d.token) FROM meal_planner.delivery d WHERE d.token IS NOT NULL"
		" UNION ALL SELECT pg_catalog.max(b.token) FROM meal_planner.worker_batch b"
		" UNION ALL SELECT pg_catalog.max(k.number) FROM meal_planner.consumer_claim k"
		" UNION ALL SELECT pg_catalog.max(r.id) FROM meal_planner.replay r"
		" UNION ALL SELECT pg_catalog.max(t.id) FROM meal_planner.redrive t"
		" UNION ALL SELECT pg_catalog.max(b.token) FROM meal_planner.saga_batch b"
		" UNION ALL SELECT pg_catalog.max(k.since) FROM meal_planner.saga_lock k"
		/* the last entry of each saga that may get another one */
		" UNION ALL SELECT pg_catalog.max(l.seq) FROM"
		" (SELECT s.account, s.id FROM meal_planner.saga s WHERE s.due_at IS NOT NULL"
		" UNION ALL SELECT o.account, o.saga_id FROM meal_planner.saga_step o) s,"
		" LATERAL (SELECT l.seq FROM meal_planner.saga_log l WHERE l.account OPERATOR(pg_catalog.=) s.account"
		" AND l.saga_id OPERATOR(pg_catalog.=) s.id ORDER BY l.seq DESC LIMIT 1) l"
		" UNION ALL SELECT pg_catalog.max(c.position) FROM meal_planner.subscription_cursor c"
		" UNION ALL SELECT pg_catalog.max(s.start_position) FROM meal_planner.subscription s"
		" WHERE (s.options OPERATOR(pg_catalog.->>) 'start'::pg_catalog.text) IS NULL"
		" OR (s.options OPERATOR(pg_catalog.->>) 'start'::pg_catalog.text) OPERATOR(pg_catalog.=) 'latest') o"};
	int64		highest = 0;
	bool		isnull;

	mp_spi_connect();
	mp_plan_read_latest(&first, NULL, NULL, 1);
	while (SPI_processed > 0)
	{
		HeapTuple	row = SPI_tuptable->vals[0];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		Datum		account = SPI_getbinval(row, desc, 1, &isnull);
		int64		position = DatumGetInt64(SPI_getbinval(row, desc, 2, &isnull));

		highest = Max(highest, position);
		mp_plan_read_latest(&next, &account, NULL, 1);
	}
	mp_plan_read_latest(&others, NULL, NULL, 1);
	{
		Datum		other = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);

		if (!isnull)
			highest = Max(highest, DatumGetInt64(other));
	}
	mp_spi_finish();
	return highest;
}

/* Who appends on the primary is not known here, nor how far it has come. */
static void
refuse_on_standby(void)
{
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(MP_ERRCODE_UNAVAILABLE),
				 errmsg("MP503: positions are not available on a standby"),
				 errhint("retry=yes. Use the primary.")));
}

/*
 * Before the first use of the clock for a database since the server started:
 * raise it above what is stored there, in case the wall clock went back.  Two
 * backends may do it at once; nothing is appended before one of them is done.
 */
static void
ensure_clock(void)
{
	mp_require_preload();
	if (clock_is_ready)
		return;
	refuse_on_standby();
	if (!database_is_known())
	{
		raise_clock(mp_position_tick(highest_stored_position()));
		remember_database();
	}
	clock_is_ready = true;
}

int64
mp_position_next(void)
{
	ensure_clock();
	return mp_position_make(take_ticks(1), mp_node_id);
}

/* Without ensure_clock, which would read the log and hold locks of it. */
int64
mp_position_soon(TimestampTz now)
{
	mp_require_preload();
	if (!clock_is_ready)
		refuse_on_standby();
	return mp_position_make(mp_tick_next((int64) pg_atomic_read_u64(&shared->clock), tick_of(now)), mp_node_id);
}

/* ------------------------------------------------------------------------
 * The registry
 * ------------------------------------------------------------------------ */

uint64
mp_account_hash(const char *account, int account_len)
{
	uint64		hash = hash_bytes_extended((const unsigned char *) account, account_len, 0);

	return hash == MP_ANY_ACCOUNT ? 1 : hash;
}

static void
end_of_transaction(XactEvent event, void *arg pg_attribute_unused())
{
	uint64		account;

	if (in_flight == NULL)
		return;
	switch (event)
	{
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
			/*
			 * The rows are visible by now; first let readers pass, then wake.
			 * Also when there are none: they may wait for what was committed
			 * behind us.
			 */
			account = pg_atomic_read_u64(&in_flight->account);
			pg_atomic_write_u64(&in_flight->bound, 0);
			in_flight = NULL;
			mp_wake_waiters(account);
			break;
		case XACT_EVENT_PRE_PREPARE:
			ereport(ERROR,
					(errcode(MP_ERRCODE_CONFLICT),
					 errmsg("MP409: cannot prepare a transaction that has appended events"),
					 errdetail("Nobody would hold readers below its events between PREPARE TRANSACTION and COMMIT PREPARED, so that they would be skipped."),
					 errhint("retry=no. Commit it in one phase.")));
			break;
		default:
			break;
	}
}

/* Publishes this transaction's lower bound, once, before it takes a position. */
static void
register_in_flight(const char *account, int account_len)
{
	static bool registered = false;
	uint64		hash = mp_account_hash(account, account_len);
	Slot	   *slot;

	if (in_flight != NULL)
	{
		if (pg_atomic_read_u64(&in_flight->account) != hash &&
			pg_atomic_read_u64(&in_flight->account) != MP_ANY_ACCOUNT)
		{
			pg_atomic_write_u64(&in_flight->account, MP_ANY_ACCOUNT);
			SpinLockAcquire(&in_flight->mutex);
			in_flight->account_name[0] = '\0';
			SpinLockRelease(&in_flight->mutex);
			pg_memory_barrier();
		}
		return;
	}

	if (!registered)
	{
		RegisterXactCallback(end_of_transaction, NULL);
		registered = true;
	}

	slot = &shared->slot[MP_BACKEND_INDEX()];
	slot->database = MyDatabaseId;
	pg_atomic_write_u64(&slot->account, hash);
	SpinLockAcquire(&slot->mutex);
	slot->pid = MyProcPid;
	slot->since = GetCurrentTimestamp();
	memcpy(slot->account_name, account, Min(account_len, ACCOUNT_BYTES));
	slot->account_name[Min(account_len, ACCOUNT_BYTES)] = '\0';
	SpinLockRelease(&slot->mutex);
	pg_write_barrier();
	/* never 0: ensure_clock ran, but the log may be empty */
	pg_atomic_write_u64(&slot->bound, Max(pg_atomic_read_u64(&shared->clock), 1));
	in_flight = slot;
	pg_memory_barrier();
}

/*
 * A transaction that is old already would hold readers back for as long as it
 * goes on, and who knows how long that is.
 */
static void
refuse_old_transaction(void)
{
	if (TimestampDifferenceExceeds(GetCurrentTransactionStartTimestamp(), GetCurrentTimestamp(),
								   mp_append_age_limit))
		ereport(ERROR,
				(errcode(MP_ERRCODE_CONFLICT),
				 errmsg("MP409: transaction is too old to append events"),
				 errdetail("It is older than meal_planner.append_age_limit, %d ms; readers would wait for its end.",
						   mp_append_age_limit),
				 errhint("retry=yes. Repeat it in a new transaction, or append in one of its own.")));
}

int64
mp_position_append(const char *account, int account_len, int count)
{
	if (unlikely(mp_append_age_limit > 0))
		refuse_old_transaction();
	ensure_clock();
	register_in_flight(account, account_len);
	return mp_position_make(take_ticks(count), mp_node_id);
}

int64
mp_position_read_bound(const char *account, int account_len)
{
	uint64		hash = account ? mp_account_hash(account, account_len) : MP_ANY_ACCOUNT;
	uint64		bound;

	ensure_clock();
	bound = pg_atomic_read_u64(&shared->clock);
	pg_memory_barrier();
	for (int i = 0; i < shared->slots; i++)
	{
		Slot	   *slot = &shared->slot[i];
		uint64		lowest = pg_atomic_read_u64(&slot->bound);
		uint64		account_of_slot;

		if (lowest == 0 || lowest >= bound)
			continue;
		pg_read_barrier();
		account_of_slot = pg_atomic_read_u64(&slot->account);
		if (slot->database != MyDatabaseId)
			continue;
		if (hash == MP_ANY_ACCOUNT || account_of_slot == MP_ANY_ACCOUNT || account_of_slot == hash)
			bound = lowest;
	}
	return mp_position_last_of_tick((int64) bound);
}

void
mp_require_read_committed(void)
{
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(MP_ERRCODE_CONFLICT),
				 errmsg("MP409: cannot read the log in a REPEATABLE READ or SERIALIZABLE transaction"),
				 errdetail("Its snapshot may be older than the position up to which the log is complete, so that events would be skipped."),
				 errhint("retry=no. Read the log in a READ COMMITTED transaction.")));
}

void
mp_position_make_uuid(int64 position, pg_uuid_t *id)
{
	/* Asked for by the pool: one call costs as much as the rest of an id. */
	static uint8 pool[UUID_LEN * 64];
	static size_t left = 0;

	if (left == 0)
	{
		if (!pg_strong_random(pool, sizeof(pool)))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not generate random values")));
		left = sizeof(pool);
	}
	left -= UUID_LEN;
	mp_position_to_uuid(position, pool + left, id->data);
}

/* ------------------------------------------------------------------------
 * SQL
 * ------------------------------------------------------------------------ */

Datum
mp_next_position(PG_FUNCTION_ARGS pg_attribute_unused())
{
	PG_RETURN_INT64(mp_position_next());
}

Datum
mp_read_bound(PG_FUNCTION_ARGS)
{
	text	   *account;

	if (PG_ARGISNULL(0))
		PG_RETURN_INT64(mp_position_read_bound(NULL, 0));
	account = PG_GETARG_TEXT_PP(0);
	PG_RETURN_INT64(mp_position_read_bound(VARDATA_ANY(account), VARSIZE_ANY_EXHDR(account)));
}

Datum
mp_read_committed_only(PG_FUNCTION_ARGS pg_attribute_unused())
{
	mp_require_read_committed();
	PG_RETURN_VOID();
}

Datum
mp_position_at(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(mp_position_make(tick_of(PG_GETARG_TIMESTAMPTZ(0)), 0));
}

Datum
mp_position_time(PG_FUNCTION_ARGS)
{
	int64		position = PG_GETARG_INT64(0);

	if (position < 0)
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(mp_tick_to_unix_us(mp_position_tick(position)) - UNIX_EPOCH_OFFSET_US);
}

Datum
mp_position_of_event_id(PG_FUNCTION_ARGS)
{
	int64		position;

	if (!mp_uuid_to_position(PG_GETARG_UUID_P(0)->data, &position))
		PG_RETURN_NULL();
	PG_RETURN_INT64(position);
}

/* Rows (pid, account, bound, since) of this database. */
Datum
mp_in_flight(PG_FUNCTION_ARGS)
{
	Tuplestorestate *store;
	TupleDesc	desc;

	mp_require_preload();
	store = mp_begin_rows(fcinfo, &desc);
	for (int i = 0; i < shared->slots; i++)
	{
		Slot	   *slot = &shared->slot[i];
		uint64		bound = pg_atomic_read_u64(&slot->bound);
		char		account[ACCOUNT_BYTES + 1];
		Datum		values[4];
		bool		nulls[4] = {false};

		if (bound == 0 || slot->database != MyDatabaseId)
			continue;
		SpinLockAcquire(&slot->mutex);
		values[0] = Int32GetDatum(slot->pid);
		values[3] = TimestampTzGetDatum(slot->since);
		strlcpy(account, slot->account_name, sizeof(account));
		SpinLockRelease(&slot->mutex);
		values[1] = mp_text_or_null(account[0] ? account : NULL, &nulls[1]);
		values[2] = Int64GetDatum(mp_position_last_of_tick((int64) bound));
		tuplestore_putvalues(store, desc, values, nulls);
	}
	return (Datum) 0;
}
