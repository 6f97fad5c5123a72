/*
 * Sagas: the definition of one, and the machine that says what an outcome, an
 * operator or the passing of time does to an instance of it.
 *
 * Nothing here reads a clock, keeps a lock or calls a step.  The caller loads an
 * MpSaga, asks mp_saga_next what may be done, tells what it did (begin) and what
 * came of it (report), and stores the MpSaga again, all in one transaction.  The
 * same calls in the same order give the same saga.
 */
#ifndef MP_CORE_SAGA_H
#define MP_CORE_SAGA_H

#include <stdbool.h>
#include <stdint.h>

#include "core/arena.h"
#include "core/backoff.h"
#include "core/json_value.h"

#define MP_SAGA_MAX_STEPS		64	/* so that a set of steps is a word */
#define MP_SAGA_MAX_LOCKS		16
#define MP_SAGA_NAME_BYTES		100 /* of a step, a service, a breaker */
#define MP_SAGA_FUNCTION_BYTES	512
#define MP_SAGA_LOCK_BYTES		255 /* of a lock's template, and of its name */

/* Bit i is the step i, in the order of the definition. */
typedef uint64_t MpSagaSteps;

#define MP_SAGA_STEP(i)	(UINT64_C(1) << (i))

/* ------------------------------------------------------------------------
 * The definition
 * ------------------------------------------------------------------------ */

typedef enum MpSagaKind
{
	MP_SAGA_COMPENSATABLE,		/* has an undo; its failure turns the saga back */
	MP_SAGA_READ_ONLY,			/* has no effect */
	MP_SAGA_PIVOT,				/* once it has succeeded there is no way back */
	MP_SAGA_RETRIABLE			/* its failure never turns the saga back */
} MpSagaKind;

/* All text is NUL-terminated and holds no control character; NULL: not given. */
typedef struct MpSagaStep
{
	const char *name;
	MpSagaKind	kind;
	const char *run;			/* a function, or */
	const char *service;		/* whose workers do it */
	const char *undo;			/* a function, or */
	const char *undo_service;	/* whose workers undo it; or neither */
	MpSagaSteps after;			/* what it waits for, as it is written */
	MpSagaSteps before;			/* all that comes before it */
	MpSagaSteps behind;			/* all that comes behind it */
	MpRetryPolicy retry;
	MpRetryPolicy undo_retry;
	double		timeout_seconds;	/* of one attempt; 0: none */
	const char *breaker;
} MpSagaStep;

typedef struct MpSagaDefinition
{
	int			step_count;
	const MpSagaStep *steps;
	int			pivot;			/* -1: there is none */
	MpSagaSteps all;
	MpSagaSteps external;		/* whose forward attempts are a service's */
	MpSagaSteps undoable;		/* that have an undo */
	MpSagaSteps turning;		/* whose failure turns the saga back: what comes before the pivot, and itself */
	double		deadline_seconds;	/* 0: none */
	const char *on_completed;	/* a detail type */
	const char *on_compensated;
	int			lock_count;
	const char *const *locks;	/* templates */
} MpSagaDefinition;

/* Capped: how often an undo is tried before an operator has to see to it. */
#define MP_SAGA_UNDO_RETRY_DEFAULT \
	((MpRetryPolicy) {.max_attempts = 10, .base_delay = 2, .multiplier = 2, .max_delay = 60})

typedef struct MpSagaError
{
	int			step;			/* its place in "steps", from 1; 0: not about a step */
	char		message[512];	/* begins with step "name": when it is about one; lower case, no full stop */
} MpSagaError;

/*
 * Compiles a definition.  NULL when it is invalid: *error then names the first
 * offence found.  The result lives in the arena, copies all it needs, and is
 * never modified.  Whether functions and services exist is not asked here.
 */
extern const MpSagaDefinition *mp_saga_compile(const MpJsonReader *reader, const MpJson *root, MpArena *arena,
											   MpSagaError *error);

/* -1 when there is no step of that name. */
extern int	mp_saga_find_step(const MpSagaDefinition *definition, const char *name, size_t len);

/*
 * The names of the locks that an instance with this input holds, sorted and each
 * once, so that everybody takes them in the same order.  False when the input
 * lacks a field that a template names: *error says which.
 */
extern bool mp_saga_locks(const MpSagaDefinition *definition, const MpJsonReader *reader, const MpJson *input,
						  MpArena *arena, const char *const **names, int *count, MpSagaError *error);

extern const char *mp_saga_kind_name(MpSagaKind kind);

/* ------------------------------------------------------------------------
 * An instance
 * ------------------------------------------------------------------------ */

typedef enum MpSagaState
{
	MP_SAGA_RUNNING,
	MP_SAGA_COMPENSATING,
	MP_SAGA_COMPLETED,
	MP_SAGA_COMPENSATED,
	MP_SAGA_STUCK,				/* a step is parked; whatever does not depend on it goes on */
	MP_SAGA_CANCELLED			/* compensated, because somebody wanted it */
} MpSagaState;

typedef enum MpSagaStepState
{
	MP_SAGA_STEP_PENDING,		/* nothing of it has begun */
	MP_SAGA_STEP_STARTED,		/* an attempt is in flight */
	MP_SAGA_STEP_WAITING,		/* for its next attempt */
	MP_SAGA_STEP_SUCCEEDED,
	MP_SAGA_STEP_FAILED,		/* given up */
	MP_SAGA_STEP_PARKED,		/* given up, and an operator has to see to it */
	MP_SAGA_STEP_SKIPPED,		/* by an operator: counts as done */
	MP_SAGA_STEP_UNDO_STARTED,
	MP_SAGA_STEP_UNDO_WAITING,
	MP_SAGA_STEP_UNDO_PARKED,
	MP_SAGA_STEP_UNDONE,
	MP_SAGA_STEP_UNDO_SKIPPED	/* by an operator: counts as undone */
} MpSagaStepState;

#define MP_SAGA_STEP_STATES	(MP_SAGA_STEP_UNDO_SKIPPED + 1)

/* Why it goes back. */
typedef enum MpSagaCause
{
	MP_SAGA_CAUSE_NONE,
	MP_SAGA_CAUSE_FAILURE,		/* of a step */
	MP_SAGA_CAUSE_DEADLINE,
	MP_SAGA_CAUSE_CANCEL
} MpSagaCause;

typedef struct MpSagaStepRecord
{
	MpSagaStepState state;
	bool		unknown;		/* of an attempt of a service nobody knows how it ended */
	int32_t		attempt;		/* of this direction, from 1, anew after a retry by an operator */
	int32_t		run;			/* attempts ever, in both directions: the fence */
} MpSagaStepRecord;

/* A cause without back: it goes back unless the pivot, which is not decided yet, succeeds. */
typedef struct MpSaga
{
	MpSagaState state;
	MpSagaCause cause;
	bool		back;			/* compensates, or has */
	int			failed_step;	/* whose failure turned it back; -1: none did */
	MpSagaStepRecord step[MP_SAGA_MAX_STEPS];
} MpSaga;

typedef struct MpSagaNext
{
	MpSagaSteps forward;		/* may begin: at once when pending, else when the delay is over */
	MpSagaSteps undo;			/* the same, backwards */
	MpSagaSteps in_flight;		/* forward attempts; while it goes back, what has to settle first */
	MpSagaSteps undo_in_flight;
	MpSagaSteps parked;			/* in either direction: retry or skip them */
} MpSagaNext;

typedef enum MpSagaOutcome
{
	MP_SAGA_OUTCOME_SUCCESS,
	MP_SAGA_OUTCOME_TRANSIENT,
	MP_SAGA_OUTCOME_PERMANENT,
	MP_SAGA_OUTCOME_UNKNOWN		/* the lease was lost.  Of a function: it was rolled back */
} MpSagaOutcome;

typedef struct MpSagaReport
{
	int			step;
	bool		undo;
	int32_t		run;			/* of the record when the attempt began */
	MpSagaOutcome outcome;
	double		age;			/* seconds since the first attempt of this direction; for max_age */
	int			crashes;		/* attempts that took their process down, this one included */
	double		random;			/* [0, 1): places the delay within its jitter */
} MpSagaReport;

/* What follows an attempt that did not succeed. */
typedef struct MpSagaSettled
{
	bool		again;			/* another attempt, after the delay */
	double		delay;			/* seconds */
	MpVerdict	verdict;		/* why not; MP_VERDICT_RETRY: because the saga has turned back */
} MpSagaSettled;

typedef enum MpSagaAnswer
{
	MP_SAGA_OK,
	MP_SAGA_UNCHANGED,			/* it was so already, or there was nothing to do */
	MP_SAGA_UNDECIDED,			/* stop: it goes back unless the pivot succeeds */
	MP_SAGA_TOO_LATE,			/* stop: the pivot has succeeded.  report: not the attempt in flight */
	MP_SAGA_IN_FLIGHT,			/* skip, migrate: an attempt is in flight */
	MP_SAGA_NOT_NOW,			/* begin, skip: the step is in no state for it */
	MP_SAGA_ENDED				/* the saga has */
} MpSagaAnswer;

/* All calls that change a saga leave its state as it then is; anything but OK and UNDECIDED changes nothing. */

/* A new instance, of which nothing has begun. */
extern void mp_saga_init(const MpSagaDefinition *definition, MpSaga *saga);

/* What may be done now.  Nothing of forward and undo once it has ended. */
extern MpSagaNext mp_saga_next(const MpSagaDefinition *definition, const MpSaga *saga);

/*
 * An attempt begins.  Its attempt number and its run are then in the record.
 * The attempt of a service has begun when a worker has claimed it.
 */
extern MpSagaAnswer mp_saga_begin(const MpSagaDefinition *definition, MpSaga *saga, int step, bool undo);

/*
 * An attempt has ended.  TOO_LATE: it is not the one in flight, its lease was
 * lost or the saga has gone on without it; what it did must not commit.
 */
extern MpSagaAnswer mp_saga_report(const MpSagaDefinition *definition, MpSaga *saga, const MpSagaReport *report,
								   MpSagaSettled *settled);

/*
 * It is to go back: cancelled, or its deadline has passed.  Cancelling a saga
 * whose pivot is parked, because nobody knows how it ended, says that the pivot
 * has had no effect.
 */
extern MpSagaAnswer mp_saga_stop(const MpSagaDefinition *definition, MpSaga *saga, MpSagaCause cause);

/* Those of the steps that are parked may begin again, with all attempts of their policy. */
extern MpSagaAnswer mp_saga_retry(const MpSagaDefinition *definition, MpSaga *saga, MpSagaSteps steps);

/*
 * The step counts as done, or while it goes back as undone.  Skipping a parked
 * pivot says that it has had its effect; it cannot be skipped otherwise.
 */
extern MpSagaAnswer mp_saga_skip(const MpSagaDefinition *definition, MpSaga *saga, int step);

/*
 * The instance under another version of its definition: steps are found by their
 * names.  All that has begun must be there with its kind and side (function or
 * service), and nothing that comes before it may be new.  NOT_NOW: *error says why.
 */
extern MpSagaAnswer mp_saga_migrate(const MpSagaDefinition *from, const MpSaga *saga, const MpSagaDefinition *to,
									MpSaga *migrated, MpSagaError *error);

extern bool mp_saga_has_ended(MpSagaState state);

/* The state that follows from the rest of the saga: what every call leaves in it. */
extern MpSagaState mp_saga_state_of(const MpSagaDefinition *definition, const MpSaga *saga);

/* Steps whose effect may be there and is still to be undone when it goes back. */
extern MpSagaSteps mp_saga_effects(const MpSagaDefinition *definition, const MpSaga *saga);

extern const char *mp_saga_state_name(MpSagaState state);
extern const char *mp_saga_step_state_name(MpSagaStepState state);
extern const char *mp_saga_cause_name(MpSagaCause cause);

/*
 * An instance as one line of text, to be stored as it is: ">- s1 w2.3? p", first
 * the saga, then its steps in the order of the definition.  The size is enough
 * for the longest.  False: it is no such text, or not of this definition.
 */
#define MP_SAGA_TEXT_SIZE	(32 + MP_SAGA_MAX_STEPS * 32)
extern void mp_saga_write(const MpSagaDefinition *definition, const MpSaga *saga, char text[MP_SAGA_TEXT_SIZE]);
extern bool mp_saga_read(const MpSagaDefinition *definition, const char *text, MpSaga *saga);

/* ------------------------------------------------------------------------
 * Its picture
 * ------------------------------------------------------------------------ */

/* Mermaid: of the definition, or (saga not NULL) of an instance with its states. */
extern const char *mp_saga_graph(const MpSagaDefinition *definition, const MpSaga *saga, MpArena *arena);

#endif							/* MP_CORE_SAGA_H */
