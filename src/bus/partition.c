/*
 * partition.c
 *		Where the rows of the log go.
 *
 * The sweep makes partitions ahead of time.  Where none runs, the emitter that
 * first needs a partition has it made, by a background worker in a transaction
 * of its own: made in the emitter's transaction it would hold everybody up
 * until that ends.  Emitters that come meanwhile wait for the worker, which is
 * quick or gives up.  When it gave up, the default partition takes the rows, and
 * for some seconds nobody tries again.
 */
#include "bus/partition.h"

#include "access/xact.h"
#include "bus/bus.h"
#include "bus/errand.h"
#include "bus/invalidation.h"
#include "bus/position.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgcompat.h"
#include "pgstat.h"
#include "storage/lmgr.h"
#include "storage/shmem.h"
#include "storage/spin.h"
#include "utils/lsyscache.h"
#include "utils/wait_event.h"

/* The worker itself waits half a second for each lock (ensure_partition). */
#define LONGEST_WAIT_MS		2000
#define WAIT_STEP_MS		10
#define PAUSE_AFTER_FAILURE_US	(5 * USECS_PER_SEC)

/* Places for what is remembered of failures; two logs may share one. */
#define FAILURES 64

typedef struct Failure
{
	Oid			database;
	Oid			relation;
	TimestampTz until;
} Failure;

typedef struct PartitionShared
{
	slock_t		mutex;
	Failure		failure[FAILURES];
} PartitionShared;

static PartitionShared *shared = NULL;

/*
 * A partition that this backend has seen, and its bounds: positions between
 * them need no look at the catalog.  Forgotten when a transaction aborts, which
 * may have been the one that made it, and when partitions come or go.
 */
static int64 partition_lower = 0;
static int64 partition_upper = 0;
static Oid	partition = InvalidOid;
static Oid	partitioned_relation = InvalidOid;

Size
mp_partition_shmem_size(void)
{
	return MAXALIGN(sizeof(PartitionShared));
}

void
mp_partition_shmem_startup(void)
{
	bool		found;

	shared = ShmemInitStruct("meal_planner partitions", mp_partition_shmem_size(), &found);
	if (found)
		return;
	memset(shared, 0, mp_partition_shmem_size());
	SpinLockInit(&shared->mutex);
}

/* ------------------------------------------------------------------------
 * What is known
 * ------------------------------------------------------------------------ */

static void
forget_partition(XactEvent event, void *arg pg_attribute_unused())
{
	if (event == XACT_EVENT_ABORT)
		partition_upper = 0;
}

static void
forget_partition_of_subtransaction(SubXactEvent event, SubTransactionId mine pg_attribute_unused(),
								   SubTransactionId parent pg_attribute_unused(),
								   void *arg pg_attribute_unused())
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
		partition_upper = 0;
}

/* A partition that was dropped, with the extension perhaps; no catalog access here. */
static void
forget_partition_of_relation(Oid relation)
{
	if (relation == InvalidOid || relation == partitioned_relation)
		partition_upper = 0;
}

static void
register_callbacks(void)
{
	static bool registered = false;

	if (registered)
		return;
	RegisterXactCallback(forget_partition, NULL);
	RegisterSubXactCallback(forget_partition_of_subtransaction, NULL);
	mp_on_relation_change(forget_partition_of_relation);
	registered = true;
}

static inline bool
is_known(int64 first, int64 last)
{
	return partition_lower <= first && last < partition_upper;
}

static bool
look_up_partition(int64 position)
{
	static MpPlan plan = {
		.sql = "SELECT p.lower, p.upper, p.partition FROM meal_planner.event_partition p"
		" WHERE p.lower OPERATOR(pg_catalog.<=) $1 AND p.upper OPERATOR(pg_catalog.>) $1",
	.types = {INT8OID}};
	Datum		value = Int64GetDatum(position);
	bool		isnull;

	partitioned_relation = mp_event_relation();
	mp_plan_read_latest(&plan, &value, NULL, 1);
	if (SPI_processed == 0)
		return false;
	partition_lower = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	partition_upper = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull));
	partition = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 3, &isnull));
	return true;
}

static Failure *
failure_of_this_log(void)
{
	return &shared->failure[(MyDatabaseId ^ mp_event_relation()) % FAILURES];
}

static bool
failed_lately(void)
{
	Failure    *failure = failure_of_this_log();
	bool		lately;

	SpinLockAcquire(&shared->mutex);
	lately = failure->database == MyDatabaseId && failure->relation == mp_event_relation() &&
		failure->until > GetCurrentTimestamp();
	SpinLockRelease(&shared->mutex);
	return lately;
}

static void
remember_failure(void)
{
	Failure    *failure = failure_of_this_log();
	Failure		now = {MyDatabaseId, mp_event_relation(), GetCurrentTimestamp() + PAUSE_AFTER_FAILURE_US};

	SpinLockAcquire(&shared->mutex);
	*failure = now;
	SpinLockRelease(&shared->mutex);
}

/* ------------------------------------------------------------------------
 * Making one
 * ------------------------------------------------------------------------ */

static Oid
default_partition(void)
{
	return get_relname_relid("event_default", get_namespace_oid("meal_planner", false));
}

/*
 * The worker needs the default partition for itself.  Who has read the log or
 * written to the default partition in this transaction would wait for itself.
 */
static bool
is_in_the_way(void)
{
	LOCKTAG		tag;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, default_partition());
	for (LOCKMODE mode = AccessShareLock; mode <= AccessExclusiveLock; mode++)
		if (mp_lock_held(&tag, mode))
			return true;
	return false;
}

static void
send_worker(int64 position)
{
	char		command[100];
	MpErrand	errand = {
		.database = MyDatabaseId, .role = mp_owner(), .command = command,
		.internal = true, .timeout_ms = LONGEST_WAIT_MS
	};
	MpErrandResult result;

	snprintf(command, sizeof(command), "SELECT meal_planner.ensure_partition(" INT64_FORMAT ")", position);
	(void) mp_errand_run(&errand, &result);
}

/*
 * One at a time has it made; the others wait for that one, by looking again and
 * again: a wait for the lock itself would be seen as part of a deadlock that is
 * none, and ended by the client's lock_timeout.  No other lock looks like this
 * one: a token's has a tick, which is not 0.
 */
static void
make_partition(int64 position)
{
	TimestampTz end = GetCurrentTimestamp() + LONGEST_WAIT_MS * INT64CONST(1000);
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, mp_event_relation(), 0, 0);
	while (LockAcquire(&tag, ExclusiveLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
	{
		if (GetCurrentTimestamp() >= end)
			return;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, WAIT_STEP_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	if (!failed_lately() && !look_up_partition(position))
	{
		send_worker(position);
		if (!look_up_partition(position))
			remember_failure();
	}
	(void) LockRelease(&tag, ExclusiveLock, false);
}

void
mp_partition_prepare(TimestampTz now)
{
	int64		position = mp_position_soon(now);

	if (likely(is_known(position, position)))
		return;
	register_callbacks();
	if (failed_lately() || look_up_partition(position) || is_in_the_way())
		return;
	make_partition(position);
}

/*
 * A row on its way to the default partition must not meet a partition of its
 * own that is attached meanwhile: the server would refuse it.  With the default
 * partition locked none can be attached, and taking the lock brings the news of
 * those that were.
 */
void
mp_partition_settle(int64 first, int64 last)
{
	if (likely(is_known(first, last)))
		return;
	register_callbacks();
	if (look_up_partition(last) && is_known(first, last))
		return;
	/* in the order in which everybody takes them */
	LockRelationOid(mp_event_relation(), RowExclusiveLock);
	LockRelationOid(default_partition(), RowExclusiveLock);
	(void) look_up_partition(last);
}

/*
 * The locks are those of an INSERT, in its order.  The first one keeps the
 * partition attached, and taking it brings the news of one that was not: only
 * then what is known counts.
 */
Oid
mp_partition_lock(int64 position)
{
	Oid			relation;

	LockRelationOid(mp_event_relation(), RowExclusiveLock);
	if (!is_known(position, position))
		mp_partition_settle(position, position);
	if (!is_known(position, position))
		return InvalidOid;
	relation = partition;
	LockRelationOid(relation, RowExclusiveLock);
	return is_known(position, position) ? relation : InvalidOid;
}

int64
mp_partition_recent(void)
{
	return partition_upper > 0 ? partition_lower : 0;
}
