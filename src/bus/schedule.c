/*
 * schedule.c
 *		A query in another database of this server.
 *
 * pg_cron keeps its jobs in one database of the server.  A backend cannot leave
 * its own, so a dynamic background worker goes there, as the role that calls,
 * runs one query and brings its answer back in a piece of shared memory.
 */
#include "bus/bus.h"

#include "access/xact.h"
#include "commands/dbcommands.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgcompat.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/dsm.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

#define COMMAND_BYTES	2048
#define ANSWER_BYTES	512

typedef struct Errand
{
	Oid			role;
	Oid			database_oid;
	char		command[COMMAND_BYTES];

	/* filled in by the worker */
	bool		done;
	bool		failed;
	bool		isnull;
	char		answer[ANSWER_BYTES];	/* or the error's message */
} Errand;

PG_FUNCTION_INFO_V1(mp_call_in_database);

PGDLLEXPORT void mp_errand_main(Datum main_arg);

static void
run_errand(Errand *errand)
{
	char	   *answer = NULL;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	mp_spi_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	pgstat_report_activity(STATE_RUNNING, errand->command);
	if (SPI_execute(errand->command, false, 1) < 0)
		elog(ERROR, "could not execute \"%s\"", errand->command);
	if (SPI_processed > 0 && SPI_tuptable != NULL)
		answer = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	errand->isnull = (answer == NULL);
	if (answer)
		strlcpy(errand->answer, answer, sizeof(errand->answer));
	mp_spi_finish();
	PopActiveSnapshot();
	CommitTransactionCommand();
	errand->done = true;
}

void
mp_errand_main(Datum main_arg)
{
	dsm_segment *segment;
	Errand	   *errand;

	BackgroundWorkerUnblockSignals();
	CurrentResourceOwner = ResourceOwnerCreate(NULL, "meal_planner errand");
	segment = dsm_attach(DatumGetUInt32(main_arg));
	if (segment == NULL)
		return;					/* the caller has given up */
	dsm_pin_mapping(segment);
	errand = dsm_segment_address(segment);

	PG_TRY();
	{
		BackgroundWorkerInitializeConnectionByOid(errand->database_oid, errand->role, 0);
		run_errand(errand);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		/* The caller reports it; this process has nothing else to do. */
		MemoryContextSwitchTo(TopMemoryContext);
		error = CopyErrorData();
		errand->failed = true;
		strlcpy(errand->answer, error->message, sizeof(errand->answer));
		PG_RE_THROW();
	}
	PG_END_TRY();
}

static void
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
	if (!RegisterDynamicBackgroundWorker(&registration, worker))
		ereport(ERROR,
				(errcode(MP_ERRCODE_UNAVAILABLE),
				 errmsg("MP503: could not start a background worker"),
				 errhint("retry=yes. You might need to increase max_worker_processes.")));
}

Datum
mp_call_in_database(PG_FUNCTION_ARGS)
{
	char	   *database = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char	   *command = text_to_cstring(PG_GETARG_TEXT_PP(1));
	dsm_segment *segment;
	Errand	   *errand;
	BackgroundWorkerHandle *worker;
	Errand		result;

	if (strlen(command) >= COMMAND_BYTES)
		ereport(ERROR,
				(errcode(MP_ERRCODE_INVALID),
				 errmsg("MP400: query for another database is too long"),
				 errhint("retry=no. It may have %d bytes.", COMMAND_BYTES - 1)));

	segment = dsm_create(sizeof(Errand), 0);
	errand = dsm_segment_address(segment);
	memset(errand, 0, sizeof(Errand));
	errand->role = GetUserId();
	errand->database_oid = get_database_oid(database, false);
	strlcpy(errand->command, command, sizeof(errand->command));

	start_worker(dsm_segment_handle(segment), &worker);
	if (WaitForBackgroundWorkerShutdown(worker) == BGWH_POSTMASTER_DIED)
		proc_exit(1);
	result = *errand;
	dsm_detach(segment);

	if (!result.done)
		ereport(ERROR,
				(errcode(MP_ERRCODE_UNAVAILABLE),
				 errmsg("MP503: query in database \"%s\" failed: %s", database,
						result.failed ? result.answer : "its worker ended early"),
				 errhint("retry=no. See the server log.")));
	if (result.isnull)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(result.answer));
}
