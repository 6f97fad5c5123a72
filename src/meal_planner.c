/*
 * meal_planner.c
 *		The front door: settings and shared memory.
 *
 * A setting's variable lives where it is used.
 */
#include "bus/bus.h"

#include "bus/breaker.h"
#include "bus/clock.h"
#include "bus/event.h"
#include "bus/metrics.h"
#include "bus/notice.h"
#include "bus/partition.h"
#include "bus/position.h"
#include "bus/retry_budget.h"
#include "bus/wakeup.h"
#include "core/position.h"
#include "pgcompat.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/guc.h"

MP_MODULE_MAGIC;

PGDLLEXPORT void _PG_init(void);

/* Read in SQL: by ensure_partition() and by end_stale_appends(). */
static int	partition_days;
static int	alert_window;
static int	in_flight_limit;

static shmem_startup_hook_type previous_shmem_startup = NULL;
#ifdef MP_HAVE_SHMEM_REQUEST_HOOK
static shmem_request_hook_type previous_shmem_request = NULL;
#endif

static void
request_shared_memory(void)
{
#ifdef MP_HAVE_SHMEM_REQUEST_HOOK
	if (previous_shmem_request)
		previous_shmem_request();
#endif
	RequestAddinShmemSpace(mp_position_shmem_size());
	RequestAddinShmemSpace(mp_partition_shmem_size());
	RequestAddinShmemSpace(mp_wakeup_shmem_size());
	RequestAddinShmemSpace(mp_notice_shmem_size());
	RequestAddinShmemSpace(mp_metrics_shmem_size());
	mp_metrics_shmem_request();
	RequestAddinShmemSpace(mp_breaker_shmem_size());
	mp_breaker_shmem_request();
	RequestAddinShmemSpace(mp_retry_budget_shmem_size());
	mp_retry_budget_shmem_request();
}

static void
start_shared_memory(void)
{
	if (previous_shmem_startup)
		previous_shmem_startup();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	mp_position_shmem_startup();
	mp_partition_shmem_startup();
	mp_wakeup_shmem_startup();
	mp_notice_shmem_startup();
	mp_metrics_shmem_startup();
	mp_breaker_shmem_startup();
	mp_retry_budget_shmem_startup();
	LWLockRelease(AddinShmemInitLock);
}

void
_PG_init(void)
{
	DefineCustomRealVariable("meal_planner.clock_offset",
							 "Seconds added to the wall clock, for tests.",
							 "All timers and positions use the shifted clock. Positions never go back.",
							 &mp_clock_offset, 0, -1e9, 1e9,
							 PGC_SUSET, GUC_NOT_IN_SAMPLE, NULL, NULL, NULL);
	DefineCustomIntVariable("meal_planner.partition_days",
							"How many days of events a partition of the log holds.",
							"Takes effect for partitions made from now on.",
							&partition_days, 7, 1, 366,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("meal_planner.alert_window",
							"How long the same error of a subscription counts as one alert.",
							NULL,
							&alert_window, 3600, 1, 366 * 86400,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("meal_planner.max_hops",
							"How many handlers may stand between an event and the client that began it.",
							"An event that would exceed it is refused: handlers that emit to each other would never end.",
							&mp_max_hops, 16, 0, 1000,
							PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("meal_planner.idempotency_ttl",
							"How long an idempotency key of mp_emit_event is remembered.",
							NULL,
							&mp_idempotency_ttl, 86400, 60, INT_MAX,
							PGC_SUSET, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("meal_planner.append_age_limit",
							"How old a transaction may be that appends an event; 0 is any age.",
							"An append from an older one is refused: readers would wait for its end.",
							&mp_append_age_limit, 0, 0, INT_MAX,
							PGC_SUSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("meal_planner.in_flight_limit",
							"How long a transaction that has appended may stay open; 0 is for ever.",
							"The sweep ends the session of one that stays open longer.",
							&in_flight_limit, 0, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);

	DefineCustomIntVariable("meal_planner.longest_sleep",
							"How long a sweep or consumer that waits sleeps at most before it looks again.",
							"Commits wake it; what no commit tells is found by looking: a clock that was set, a subscription that was resumed.",
							&mp_longest_sleep, 500, 1, 3600000,
							PGC_SUSET, GUC_UNIT_MS | GUC_NOT_IN_SAMPLE, NULL, NULL, NULL);

	/* The rest needs shared memory, which is laid out once. */
	if (process_shared_preload_libraries_in_progress)
	{
		DefineCustomIntVariable("meal_planner.node_id",
								"Number of this server among those that share a log.",
								"It stands in the low ten bits of every position.",
								&mp_node_id, 0, 0, MP_NODE_MAX,
								PGC_POSTMASTER, 0, NULL, NULL, NULL);
#ifdef MP_HAVE_SHMEM_REQUEST_HOOK
		previous_shmem_request = shmem_request_hook;
		shmem_request_hook = request_shared_memory;
#else
		request_shared_memory();
#endif
		previous_shmem_startup = shmem_startup_hook;
		shmem_startup_hook = start_shared_memory;
	}
	MarkGUCPrefixReserved("meal_planner");
}
