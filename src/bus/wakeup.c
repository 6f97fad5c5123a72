/*
 * wakeup.c
 *		Waking workers when events are committed.
 *
 * NOTIFY would take a lock of the whole server at every commit.  Here a commit
 * looks at one counter, and only when somebody waits at the latches of those
 * who do.
 */
#include "bus/bus.h"

#include "bus/position.h"
#include "bus/wakeup.h"
#include "pgcompat.h"
#include "pgstat.h"
#include "port/atomics.h"
#include "storage/shmem.h"
#include "utils/wait_event.h"

typedef struct Waiter
{
	pg_atomic_uint32 database;	/* InvalidOid: not waiting */
	Latch	   *latch;			/* written before database */
} Waiter;

typedef struct WakeupShared
{
	pg_atomic_uint32 waiting;	/* how many wait, in all databases */
	int			waiters;
	Waiter		waiter[FLEXIBLE_ARRAY_MEMBER];
} WakeupShared;

static WakeupShared *shared = NULL;

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
	shared->waiters = mp_max_backends();
	for (int i = 0; i < shared->waiters; i++)
		pg_atomic_init_u32(&shared->waiter[i].database, InvalidOid);
}

/* Whoever sees the place free first clears it: the count stays right. */
static void
stop_waiting(Waiter *waiter, uint32 database)
{
	if (database != InvalidOid &&
		pg_atomic_compare_exchange_u32(&waiter->database, &database, InvalidOid))
		pg_atomic_fetch_sub_u32(&shared->waiting, 1);
}

static void
stop_waiting_at_exit(int code pg_attribute_unused(), Datum arg pg_attribute_unused())
{
	stop_waiting(&shared->waiter[MP_BACKEND_INDEX()], MyDatabaseId);
}

void
mp_wake_waiters(void)
{
	/* Our commit must be visible before the count is read. */
	pg_memory_barrier();
	if (pg_atomic_read_u32(&shared->waiting) == 0)
		return;
	for (int i = 0; i < shared->waiters; i++)
	{
		Waiter	   *waiter = &shared->waiter[i];

		if (pg_atomic_read_u32(&waiter->database) == MyDatabaseId)
		{
			Latch	   *latch = waiter->latch;

			stop_waiting(waiter, MyDatabaseId);
			SetLatch(latch);
		}
	}
}

void
mp_prepare_to_wait(void)
{
	static bool registered = false;
	Waiter	   *waiter;
	uint32		nobody = InvalidOid;

	mp_require_preload();
	if (!registered)
	{
		before_shmem_exit(stop_waiting_at_exit, (Datum) 0);
		registered = true;
	}
	waiter = &shared->waiter[MP_BACKEND_INDEX()];
	waiter->latch = MyLatch;
	if (pg_atomic_compare_exchange_u32(&waiter->database, &nobody, MyDatabaseId))
		pg_atomic_fetch_add_u32(&shared->waiting, 1);
	pg_memory_barrier();
}

void
mp_wait(long timeout_ms)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 timeout_ms, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	stop_waiting(&shared->waiter[MP_BACKEND_INDEX()], MyDatabaseId);
	CHECK_FOR_INTERRUPTS();
}
