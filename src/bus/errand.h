/*
 * errand.h
 *		A query that a background worker runs, in a transaction of its own.
 */
#ifndef MP_BUS_ERRAND_H
#define MP_BUS_ERRAND_H

#include "postgres.h"

#define MP_ERRAND_ANSWER_BYTES	512

typedef struct MpErrand
{
	Oid			database;
	Oid			role;
	const char *command;

	/*
	 * Ours: the role need not be one that may log in, and cannot become
	 * another.  Otherwise the worker is a session of that role.
	 */
	bool		internal;
	long		timeout_ms;		/* 0: as long as it takes */
} MpErrand;

typedef enum MpErrandOutcome
{
	MP_ERRAND_DONE,
	MP_ERRAND_FAILED,			/* answer is the error's message */
	MP_ERRAND_NO_WORKER,		/* none is free */
	MP_ERRAND_TIMED_OUT
} MpErrandOutcome;

typedef struct MpErrandResult
{
	bool		isnull;
	char		answer[MP_ERRAND_ANSWER_BYTES]; /* first column of the first row */
} MpErrandResult;

/* The longest command, with its end. */
#define MP_ERRAND_COMMAND_BYTES	2048

extern MpErrandOutcome mp_errand_run(const MpErrand *errand, MpErrandResult *result);

#endif							/* MP_BUS_ERRAND_H */
