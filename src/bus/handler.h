/*
 * handler.h
 *		One call of a handler.
 */
#ifndef MP_BUS_HANDLER_H
#define MP_BUS_HANDLER_H

#include "bus/breaker_handler.h"
#include "bus/subscription.h"
#include "utils/resowner.h"

/* What a handler's error was; the strings live in the caller's context. */
typedef struct MpFailure
{
	char	   *sqlstate;		/* or the code of a service, as in http:429; NULL: none */
	char	   *message;
	char	   *detail;
	char	   *hint;
	char	   *context;
	int			event;			/* the number of the event that was being handled */
	MpBreakerCall call;			/* refused: the handler was not called at all */
	double		seconds;		/* that the call took; 0: not known */
	int			pid;			/* of the process that ran the handler; 0: none did, or it died */
	char	   *worker;			/* the consumer's name; NULL: it has none */

	/* What a consumer says itself. */
	bool		untried;		/* it did not begin: nothing has failed */
	bool		has_class;
	MpErrorClass class;
	bool		has_retry_after;
	double		retry_after;
} MpFailure;

/*
 * Calls the handler of a subscription for `count` events, one after another, in
 * one subtransaction, as the role that subscribed.  True when all succeeded;
 * else everything is undone and *failure is the first error; a call that takes
 * longer than the subscription's timeout is one, and so is an open circuit
 * breaker, of which the caller learns from failure->call.  Cancel, shutdown and out of memory are not failures of the handler: they go on to the caller's
 * caller.
 */
extern bool mp_handler_run(MpSubscription *subscription, const MpEvent *events, int count,
						   MpFailure *failure);

/*
 * From here on as a role, with a search_path (NULL: the function called has its
 * own), out of reach of the session's user when that is another one; and back.
 * An error undoes it with its subtransaction.
 */
typedef struct MpGuise
{
	Oid			caller;
	int			caller_context;
	int			guc_level;
} MpGuise;

extern MpGuise mp_guise_begin(Oid role, const char *path);
extern void mp_guise_end(const MpGuise *guise);

/* What is called here stands so many handlers from a client; returns the number before. */
extern int	mp_handler_set_hops(int hops);

/* Errors that are no failure of what was called. */
extern bool mp_error_must_get_through(int sqlerrcode);

/* In PG_CATCH: ends the internal subtransaction of what was called, and returns its error. */
extern ErrorData *mp_end_failed(MemoryContext memory, ResourceOwner owner);

/* What that error means, which goes on if it must get through.  True: the call's own limit ended it. */
extern bool mp_failure_of_call(ErrorData *error, bool limit_is_over, int event, MpFailure *failure);

/*
 * handler_sql.c: the one statement that the handler is, NULL when it has to be
 * called; and running it, in place of the call.  It stays the subscription's.
 */
typedef struct MpStatement MpStatement;

extern MpStatement *mp_statement_of_handler(MpSubscription *subscription);
extern void mp_statement_run(MpStatement *statement, Datum event);

#endif							/* MP_BUS_HANDLER_H */
