/*
 * errand.c
 *		A query that a background worker runs, in a transaction of its own.
 *
 * A backend cannot leave its database, nor commit something while its own
 * transaction goes on.  A dynamic background worker can do both: it goes to a
 * database as a role, runs one query and brings its answer back in a piece of
 * shared memory.
 */
#include "bus/errand.h"

#include "access/xact.h"
#include "bus/bus.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgcompat.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/dsm.h"
#include "tcop/tcopprot.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/wait_event.h"

typedef struct SharedErrand
{
	Oid			database;
	Oid			role;
	bool		internal;
	char		command[MP_ERRAND_COMMAND_BYTES];

	/* filled in by the worker */
	bool		done;
	bool		failed;
	MpErrandResult result;
} SharedErrand;

PGDLLEXPORT void mp_errand_main(Datum main_arg);

static void
run_command(SharedErrand *errand)
{
	MpErrandResult *result = &errand->result;
	char	   *answer = NULL;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	/* whatever the defaults of the role and the database are */
	XactIsoLevel = XACT_READ_COMMITTED;
	XactReadOnly = false;
	if (errand->internal)
		SetUserIdAndSecContext(errand->role, SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
	mp_spi_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	pgstat_report_activity(STATE_RUNNING, errand->command);
	if (SPI_execute(errand->command, false, 1) < 0)
		elog(ERROR, "could not execute \"%s\"", errand->command);
	if (SPI_processed > 0 && SPI_tuptable != NULL)
		answer = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	result->isnull = (answer == NULL);
	if (answer)
		strlcpy(result->answer, answer, sizeof(result->answer));
	mp_spi_finish();
	PopActiveSnapshot();
	CommitTransactionCommand();
	errand->done = true;
}

void
mp_errand_main(Datum main_arg)
{
	dsm_segment *segment;
	SharedErrand *errand;

	/*
	 * The handler that background workers begin with ends the process wherever
	 * it is: within a critical section that is a PANIC of the whole server.
	 */
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	CurrentResourceOwner = ResourceOwnerCreate(NULL, "meal_planner errand");
	segment = dsm_attach(DatumGetUInt32(main_arg));
	if (segment == NULL)
		return;					/* the caller has given up */
	dsm_pin_mapping(segment);
	errand = dsm_segment_address(segment);

	PG_TRY();
	{
		/* A session of nobody's may become any role. */
		BackgroundWorkerInitializeConnectionByOid(errand->database, errand->internal ? InvalidOid : errand->role, 0);
		run_command(errand);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		/* The caller reports it; this process has nothing else to do. */
		MemoryContextSwitchTo(TopMemoryContext);
		error = CopyErrorData();
		errand->failed = true;
		strlcpy(errand->result.answer, error->message, sizeof(errand->result.answer));
		PG_RE_THROW();
	}
	PG_END_TRY();
}

static bool
start_worker(dsm_handle handle, BackgroundWorkerHandle **worker)
{
	BackgroundWorker registration;

	memset(&registration, 0, sizeof(registration));
	registration.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	registration.bgw_start_time = BgWorkerStart_RecoveryFinished;
	registration.bgw_restart_time = BGW_NEVER_RESTART;
	registration.bgw_main_arg = UInt32GetDatum(handle);
	registration.bgw_notify_pid = MyProcPid;
	strlcpy(registration.bgw_library_name, "meal_planner", sizeof(registration.bgw_library_name));
	strlcpy(registration.bgw_function_name, "mp_errand_main", sizeof(registration.bgw_function_name));
	strlcpy(registration.bgw_name, "meal_planner errand", sizeof(registration.bgw_name));
	strlcpy(registration.bgw_type, "meal_planner errand", sizeof(registration.bgw_type));
	return RegisterDynamicBackgroundWorker(&registration, worker);
}

/* False when it has not ended in time; then it is told to. */
static bool
wait_for_worker(BackgroundWorkerHandle *worker, long timeout_ms)
{
	TimestampTz end = GetCurrentTimestamp() + (int64) timeout_ms * 1000;
	pid_t		pid;

	while (GetBackgroundWorkerPid(worker, &pid) != BGWH_STOPPED)
	{
		long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), end);

		if (timeout_ms > 0 && left <= 0)
		{
			TerminateBackgroundWorker(worker);
			return false;
		}
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | (timeout_ms > 0 ? WL_TIMEOUT : 0),
						 left, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	return true;
}

MpErrandOutcome
mp_errand_run(const MpErrand *errand, MpErrandResult *result)
{
	dsm_segment *segment = dsm_create(sizeof(SharedErrand), 0);
	SharedErrand *shared = dsm_segment_address(segment);
	BackgroundWorkerHandle *worker;
	MpErrandOutcome outcome;

	memset(shared, 0, sizeof(SharedErrand));
	shared->database = errand->database;
	shared->role = errand->role;
	shared->internal = errand->internal;
	if (strlcpy(shared->command, errand->command, sizeof(shared->command)) >= sizeof(shared->command))
		elog(ERROR, "errand is too long");

	if (!start_worker(dsm_segment_handle(segment), &worker))
		outcome = MP_ERRAND_NO_WORKER;
	else if (!wait_for_worker(worker, errand->timeout_ms))
		outcome = MP_ERRAND_TIMED_OUT;
	else if (shared->done)
		outcome = MP_ERRAND_DONE;
	else
	{
		if (!shared->failed)
			strlcpy(shared->result.answer, "its worker ended early", sizeof(shared->result.answer));
		outcome = MP_ERRAND_FAILED;
	}
	*result = shared->result;
	dsm_detach(segment);
	return outcome;
}
