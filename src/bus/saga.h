/*
 * saga.h
 *		Sagas: their definitions, compiled, and instances in hand.
 *
 * Room by room: saga_definition.c (what a saga does) -> saga_start.c ->
 * saga_batch.c (a worker goes on with it; saga_call.c: one call) -> saga_run.c
 * (an outcome is told) -> saga_store.c (its
 * rows) -> saga_step.c (steps outside of the database) -> saga_admin.c (what
 * operators do).  What an outcome means is decided in core/saga.h.
 */
#ifndef MP_BUS_SAGA_H
#define MP_BUS_SAGA_H

#include "bus/bus.h"
#include "bus/handler.h"
#include "bus/time_limit.h"
#include "core/saga.h"
#include "utils/jsonb.h"
#include "utils/uuid.h"

/* ------------------------------------------------------------------------
 * saga_definition.c
 * ------------------------------------------------------------------------ */

/* A function of a step, found when first called. */
typedef struct MpSagaRoutine
{
	char	   *signature;		/* qualified; NULL: it has none */
	uint64		found;			/* catalogs were so old when it was found; 0: not yet */
	MemoryContext context;		/* of what the function keeps from call to call */
	FmgrInfo	function;
	bool		sets_path;		/* it has a SET search_path */
	bool		returns_result; /* jsonb, else void */
} MpSagaRoutine;

/* A definition as a backend keeps it; valid to the end of the transaction. */
typedef struct MpSagaProgram
{
	char	   *name;
	int			version;
	const MpSagaDefinition *definition;
	char	   *owner;			/* its functions run as this role */
	char	   *path;			/* with this search_path */
	uint64		role_found;
	Oid			role;
	MpSagaRoutine *routines;	/* of step i: run at 2 * i, undo behind it */
	bool		broken;			/* the row is gone, or its definition is none */

	MemoryContext context;		/* owns all of it */
	struct MpSagaProgram *next;
} MpSagaProgram;

extern MpSagaProgram *mp_saga_program(const char *name, int version);

/* To the end of the transaction; a version that is there then stays for whoever is put on it. */
extern void mp_saga_keep_out_drop(void);

/* Looks the function and its role up; errors out when one is missing or not allowed. */
extern MpSagaRoutine *mp_saga_routine(MpSagaProgram *program, int step, bool undo);

/* ------------------------------------------------------------------------
 * saga_store.c: instances in hand
 * ------------------------------------------------------------------------ */

/* What of a step has a row: it is a service's, waits for a time, or has failed before. */
typedef struct MpSagaOut
{
	bool		stored;			/* there is a row */
	bool		wanted;			/* there is to be one */
	bool		changed;
	bool		undo;
	int32		attempt;
	int32		run;			/* the fence of the attempt in flight */
	int32		crashes;
	TimestampTz first_at;		/* of the first attempt in this direction; 0: none yet */
	TimestampTz due_at;			/* not before */
	bool		leased;			/* a worker has it */
	pg_uuid_t	token;
	TimestampTz started_at;
	TimestampTz lease_until;
	int64		permit;			/* of its circuit breaker */
} MpSagaOut;

typedef struct MpSagaInstance
{
	MpSagaProgram *program;
	Datum		account;
	pg_uuid_t	id;
	Jsonb	   *input;
	int			hops;
	TimestampTz started_at;
	bool		alone;
	bool		blocked;		/* nothing of it may begin yet */
	bool		broken;			/* its definition is gone, or its progress is none of it */

	MpSaga		saga;
	MpSagaState stored_state;
	MpSagaState noted_state;	/* that the log knows of */
	MpSagaOut  *out;			/* by step */
	Jsonb	  **results;		/* of the steps that succeeded, forward; NULL: none */
	Jsonb	   *error;			/* the first one; NULL: none */
	TimestampTz due_at;			/* DT_NOEND: not before somebody makes it due */
	bool		changed;
} MpSagaInstance;

/* An entry of the log that is not written yet.  NULL, -1 or 0: not given. */
typedef struct MpSagaEntry
{
	const MpSagaInstance *instance;
	const char *entry;
	int			step;
	bool		undo;
	int32		attempt;
	Jsonb	   *result;
	Jsonb	   *detail;
	int64		seq;
	TimestampTz at;
} MpSagaEntry;

/* Sagas of one account whose rows are locked, and what is to be written of them. */
typedef struct MpSagaHand
{
	Datum		account;
	TimestampTz now;
	MemoryContext context;		/* of all that is kept here */
	int			count;
	MpSagaInstance *instances;
	int			entry_count;
	int			entry_room;
	MpSagaEntry *entries;
	int			alert_count;
	int			alert_room;
	struct MpSagaAlert *alerts;
} MpSagaHand;

/*
 * Takes sagas in hand: locks their rows and reads them.  Of many, those that are
 * due and that nobody else has; a single one is waited for.  In a transaction
 * that keeps to one snapshot the lock of a row that has changed is an error.
 * SPI is connected, and they live in its procedure's context.
 */
extern MpSagaHand *mp_saga_take_due(Datum account, Datum ids);
extern MpSagaHand *mp_saga_take(Datum account, const pg_uuid_t *id);
extern MpSagaHand *mp_saga_take_locked(Datum account, Datum ids);	/* that are locked already */

/* MP503: one that is broken cannot go on, and why. */
extern void mp_saga_tell_broken(const MpSagaInstance *instance, int elevel);

/* Notes an entry, to be written with the rest. */
extern MpSagaEntry *mp_saga_note(MpSagaHand *hand, const MpSagaInstance *instance, const char *entry);

/* Somebody is to see to a step: it is parked, or it cannot run. */
typedef struct MpSagaAlert
{
	const MpSagaInstance *instance;
	int			step;
	bool		parked;
	const char *error;			/* SQLSTATE, or the type of the error */
	const char *message;
} MpSagaAlert;

extern void mp_saga_note_alert(MpSagaHand *hand, const MpSagaInstance *instance, int step, bool parked,
							   const char *error, const char *message);

/* Writes what has changed.  SPI is connected. */
extern void mp_saga_put_down(MpSagaHand *hand);

/* Something may be due once this transaction has committed. */
extern void mp_saga_wake_sweep(const MpSagaHand *hand);

/* saga_locks.c: the names that a new saga holds; false: it has to wait for one. */
extern bool mp_saga_take_locks(text *account, const pg_uuid_t *id, const MpSagaProgram *program, Jsonb *input);

/* It has ended. */
extern void mp_saga_release_locks(Datum account, const MpSagaInstance *instance);

/* ------------------------------------------------------------------------
 * saga_call.c: one call of a step
 * ------------------------------------------------------------------------ */

/* Results are read for every step behind, and an input is part of an event. */
#define MP_SAGA_RESULT_BYTES	(512 * 1024)
#define MP_SAGA_MESSAGE_BYTES	8000

/* The object that functions and workers get. */
extern Jsonb *mp_saga_argument(const MpSagaInstance *instance, int step, bool undo, int attempt);

/* Of a step and direction, the same for every attempt. */
extern char *mp_saga_step_key(const MpSagaInstance *instance, int step, bool undo);

/*
 * Calls the function of an attempt that has begun, in the guise of its role; the
 * result lives in the current context, NULL for none.  Errors go through.
 */
extern Jsonb *mp_saga_invoke(MpSagaInstance *instance, int step, bool undo, MpSagaRoutine *routine,
							 MpTimeLimit *limit);

/*
 * Runs something in a subtransaction.  False: everything is undone and *failure
 * is the error.  The limit is that of the call that was running.
 */
extern bool mp_saga_try(void (*body) (void *), void *argument, MpTimeLimit *limit, MpFailure *failure);

/* ------------------------------------------------------------------------
 * saga_run.c: going on
 * ------------------------------------------------------------------------ */

/* What came of an attempt. */
typedef struct MpSagaAttempt
{
	int			step;
	bool		undo;
	int32		run;
	MpSagaOutcome outcome;
	bool		crashed;
	Jsonb	   *result;
	const char *error_type;		/* as it is shown */
	const char *sqlstate;
	const char *message;
} MpSagaAttempt;

/*
 * Reports it and notes it.  False: it is not the attempt in flight, and nothing
 * has changed.
 */
extern bool mp_saga_settle(MpSagaHand *hand, MpSagaInstance *instance, const MpSagaAttempt *attempt);

/*
 * Does what needs no call, and returns the step whose function is to be called
 * next; -1: there is none now, and its next time is set.
 */
extern int	mp_saga_prepare(MpSagaHand *hand, MpSagaInstance *instance, bool *undo);

/* What is left is due at once. */
extern void mp_saga_put_off(MpSagaHand *hand, MpSagaInstance *instance);

/* All that can be done without calling a function; what is left is due. */
extern void mp_saga_go_on(MpSagaHand *hand, MpSagaInstance *instance);

/* Notes that its state is another one than before. */
extern void mp_saga_note_state(MpSagaHand *hand, MpSagaInstance *instance);

/* The error that it is known by; step -1: of none. */
extern void mp_saga_keep_error(MpSagaInstance *instance, MpSagaCause cause_before, int step, const char *type,
							   const char *sqlstate, const char *message);

#endif							/* MP_BUS_SAGA_H */
