/*
 * schedule.c
 *		A query in another database of this server.
 *
 * pg_cron keeps its jobs in one database of the server, where an errand goes as
 * the role that calls.
 */
#include "bus/bus.h"

#include "bus/errand.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(mp_call_in_database);

Datum
mp_call_in_database(PG_FUNCTION_ARGS)
{
	char	   *database = text_to_cstring(PG_GETARG_TEXT_PP(0));
	MpErrand	errand = {.role = GetUserId(), .command = text_to_cstring(PG_GETARG_TEXT_PP(1))};
	MpErrandResult result;

	if (strlen(errand.command) >= MP_ERRAND_COMMAND_BYTES)
		ereport(ERROR,
				(errcode(MP_ERRCODE_INVALID),
				 errmsg("MP400: query for another database is too long"),
				 errhint("retry=no. It may have %d bytes.", MP_ERRAND_COMMAND_BYTES - 1)));
	errand.database = get_database_oid(database, false);

	switch (mp_errand_run(&errand, &result))
	{
		case MP_ERRAND_DONE:
			break;
		case MP_ERRAND_NO_WORKER:
			ereport(ERROR,
					(errcode(MP_ERRCODE_UNAVAILABLE),
					 errmsg("MP503: could not start a background worker"),
					 errhint("retry=yes. You might need to increase max_worker_processes.")));
			break;
		case MP_ERRAND_FAILED:
		case MP_ERRAND_TIMED_OUT:
			ereport(ERROR,
					(errcode(MP_ERRCODE_UNAVAILABLE),
					 errmsg("MP503: query in database \"%s\" failed: %s", database, result.answer),
					 errhint("retry=no. See the server log.")));
			break;
	}
	if (result.isnull)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(result.answer));
}
