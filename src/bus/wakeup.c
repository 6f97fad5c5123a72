/*
 * wakeup.c
 *		Waking workers and consumers when events are committed.
 *
 * NOTIFY would take a lock of the whole server at every commit.  Here a commit
 * looks at one counter, and only when somebody waits at the latches of those
 * who do.
 *
 * A sweep is woken by every commit.  Consumers of one subscription and account
 * form a queue, of which a commit wakes one: the event is for one of them, and
 * the others would look in vain.  So that none is lost, whoever was woken, or
 * took something, wakes the next one when it leaves anything behind: because
 * it wanted no more, because its transaction aborts, because it stopped waiting
 * at that moment.  Who finds nothing wakes nobody: what it was woken for is in
 * another's hands, who does, or behind a transaction in flight, whose end wakes
 * again, abort included.
 */
#include "bus/bus.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "bus/position.h"
#include "bus/wakeup.h"
#include "common/hashfn.h"
#include "funcapi.h"
#include "pgcompat.h"
#include "pgstat.h"
#include "port/atomics.h"
#include "storage/shmem.h"
#include "utils/wait_event.h"

/*
 * `state` is the database's oid while its backend waits, else 0, and above it
 * the number of the wait: who has read what is waited for wakes just that wait
 * and no later one.
 */
typedef struct Waiter
{
	pg_atomic_uint64 state;
	MpWaitFor	what;			/* written before state, as is latch */
	Latch	   *latch;
} Waiter;

typedef struct WakeupShared
{
	pg_atomic_uint32 waiting;	/* how many wait, in all databases */
	pg_atomic_uint64 woken;		/* how often somebody was */
	int			waiters;
	Waiter		waiter[FLEXIBLE_ARRAY_MEMBER];
} WakeupShared;

#define DATABASE_OF(state)	((Oid) ((state) & PG_UINT32_MAX))

/* Queues that one commit remembers it has woken one of; beyond it wakes all. */
#define QUEUES 32

#define SHORTEST_SLEEP_MS 10

int			mp_longest_sleep = 500;

static WakeupShared *shared = NULL;

/* This backend's wait; 0: it does not wait. */
static uint64 my_wait = 0;
static MpWaitFor my_what;

/* Whom to wake at the end of the transaction; without a queue: everybody. */
static struct
{
	bool		pending;
	bool		at_commit;
	MpWaitFor	what;
} next = {false};

PG_FUNCTION_INFO_V1(mp_waiting);

Size
mp_wakeup_shmem_size(void)
{
	return MAXALIGN(add_size(offsetof(WakeupShared, waiter),
							 mul_size(sizeof(Waiter), mp_max_backends())));
}

void
mp_wakeup_shmem_startup(void)
{
	bool		found;

	shared = ShmemInitStruct("meal_planner waiters", mp_wakeup_shmem_size(), &found);
	if (found)
		return;
	memset(shared, 0, mp_wakeup_shmem_size());
	pg_atomic_init_u32(&shared->waiting, 0);
	pg_atomic_init_u64(&shared->woken, 0);
	shared->waiters = mp_max_backends();
	for (int i = 0; i < shared->waiters; i++)
		pg_atomic_init_u64(&shared->waiter[i].state, 0);
}

MpWaitFor
mp_wait_for_claim(const char *account, int account_len, const char *subscription)
{
	MpWaitFor	what;

	what.account = mp_account_hash(account, account_len);
	what.queue = hash_combine64(what.account, hash_bytes_extended((const unsigned char *) subscription,
																  strlen(subscription), 0));
	if (what.queue == 0)
		what.queue = 1;
	return what;
}

/* ------------------------------------------------------------------------
 * Waking
 * ------------------------------------------------------------------------ */

/* Whoever ends a wait first clears its place: the count stays right. */
static bool
end_wait(Waiter *waiter, uint64 state)
{
	if (!pg_atomic_compare_exchange_u64(&waiter->state, &state, state & ~(uint64) PG_UINT32_MAX))
		return false;
	pg_atomic_fetch_sub_u32(&shared->waiting, 1);
	return true;
}

/*
 * Wakes a waiter if it waits for this: events of an account, or (queue not 0) a
 * place in one queue.  *queue is set to the queue it waits in.
 */
static bool
wake(Waiter *waiter, MpWaitFor event, const uint64 *done, int done_count, uint64 *queue)
{
	uint64		state = pg_atomic_read_u64(&waiter->state);
	MpWaitFor	what;
	Latch	   *latch;

	if (DATABASE_OF(state) != MyDatabaseId)
		return false;
	pg_read_barrier();
	what = waiter->what;
	latch = waiter->latch;
	if (event.queue != 0 && what.queue != event.queue)
		return false;
	if (what.account != event.account && what.account != MP_ANY_ACCOUNT && event.account != MP_ANY_ACCOUNT)
		return false;
	for (int i = 0; what.queue != 0 && i < done_count; i++)
		if (done[i] == what.queue)
			return false;
	/* what was read is of this wait only if it goes on until here */
	pg_memory_barrier();
	if (!end_wait(waiter, state))
		return false;
	pg_atomic_fetch_add_u64(&shared->woken, 1);
	SetLatch(latch);
	*queue = what.queue;
	return true;
}

static void
wake_for(MpWaitFor event)
{
	uint64		done[QUEUES];
	int			done_count = 0;

	/* What we did must be visible before the count is read. */
	pg_memory_barrier();
	if (shared == NULL || pg_atomic_read_u32(&shared->waiting) == 0)
		return;
	for (int i = 0; i < shared->waiters; i++)
	{
		uint64		queue;

		if (!wake(&shared->waiter[i], event, done, done_count, &queue))
			continue;
		if (event.queue != 0)
			return;
		if (queue != 0 && done_count < QUEUES)
			done[done_count++] = queue;
	}
}

void
mp_wake_waiters(uint64 account)
{
	wake_for((MpWaitFor) {.account = account});
}

/* ------------------------------------------------------------------------
 * The next one of a queue
 * ------------------------------------------------------------------------ */

/* The wait that was announced has ended, somehow: what woke it is for the next. */
static void
abandon_wait(void)
{
	if (my_wait != 0 && mp_stop_waiting() && my_what.queue != 0)
		wake_for(my_what);
}

static void
end_of_transaction(XactEvent event, void *arg pg_attribute_unused())
{
	bool		wake_next;

	if (event == XACT_EVENT_PREPARE)
		next.pending = false;	/* its end is another session's */
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT)
		return;
	wake_next = next.pending && (event == XACT_EVENT_ABORT || next.at_commit);
	next.pending = false;
	/* a sweep announces its sleep in one transaction and sleeps in the next */
	if (event == XACT_EVENT_ABORT)
		abandon_wait();
	if (wake_next)
		wake_for(next.what);
}

/* A claim that is undone is there for others when the lock of its queue is free. */
static void
end_of_subtransaction(SubXactEvent event, SubTransactionId id pg_attribute_unused(),
					  SubTransactionId parent pg_attribute_unused(), void *arg pg_attribute_unused())
{
	if (event != SUBXACT_EVENT_ABORT_SUB)
		return;
	abandon_wait();
	next.at_commit = true;
}

static void
end_of_session(int code pg_attribute_unused(), Datum arg pg_attribute_unused())
{
	abandon_wait();
}

static void
ensure_callbacks(void)
{
	static bool registered = false;

	mp_require_preload();
	if (registered)
		return;
	RegisterXactCallback(end_of_transaction, NULL);
	RegisterSubXactCallback(end_of_subtransaction, NULL);
	before_shmem_exit(end_of_session, (Datum) 0);
	registered = true;
}

void
mp_wake_next_at_end(MpWaitFor what, bool at_commit)
{
	ensure_callbacks();
	if (next.pending && next.what.queue != what.queue)
		next.what = (MpWaitFor) {.account = MP_ANY_ACCOUNT};	/* several queues */
	else
		next.what = what;
	next.at_commit = (next.pending && next.at_commit) || at_commit;
	next.pending = true;
}

/* ------------------------------------------------------------------------
 * Waiting
 * ------------------------------------------------------------------------ */

void
mp_prepare_to_wait(MpWaitFor what)
{
	Waiter	   *waiter;
	uint64		waits;

	ensure_callbacks();
	if (my_wait != 0)
		(void) mp_stop_waiting();
	if (what.queue != 0)
		mp_wake_next_at_end(what, false);
	waiter = &shared->waiter[MP_BACKEND_INDEX()];
	waiter->latch = MyLatch;
	waiter->what = my_what = what;
	/* a place that another backend had before goes on counting */
	waits = (pg_atomic_read_u64(&waiter->state) >> 32) + 1;
	my_wait = (waits << 32) | MyDatabaseId;
	pg_write_barrier();
	pg_atomic_write_u64(&waiter->state, my_wait);
	pg_atomic_fetch_add_u32(&shared->waiting, 1);
	pg_memory_barrier();
}

bool
mp_is_waiting(void)
{
	return my_wait != 0;
}

/*
 * The look for work since the announcement may have reset the latch, which
 * serves locks as well; the place tells whether we were woken.  A cancelled
 * wait is not over yet: the end of the transaction sees to it.
 */
bool
mp_wait_until(TimestampTz due, TimestampTz deadline)
{
	long		timeout = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);

	if (timeout <= 0)
		return false;
	/* What is due and yet was not taken is in another's hands. */
	if (due != DT_NOEND)
		timeout = Min(timeout, Max(TimestampDifferenceMilliseconds(mp_clock_now(), due), SHORTEST_SLEEP_MS));
	if (pg_atomic_read_u64(&shared->waiter[MP_BACKEND_INDEX()].state) == my_wait)
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 Min(timeout, mp_longest_sleep), PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	return true;
}

bool
mp_stop_waiting(void)
{
	uint64		state = my_wait;

	my_wait = 0;
	return state != 0 && !end_wait(&shared->waiter[MP_BACKEND_INDEX()], state);
}

/* (waiters, woken), of the whole server */
Datum
mp_waiting(PG_FUNCTION_ARGS)
{
	TupleDesc	desc;
	Datum		values[2];
	bool		nulls[2] = {false};

	mp_require_preload();
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	values[0] = Int32GetDatum((int32) pg_atomic_read_u32(&shared->waiting));
	values[1] = Int64GetDatum((int64) pg_atomic_read_u64(&shared->woken));
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
