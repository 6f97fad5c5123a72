/*
 * handler.h
 *		One call of a handler.
 */
#ifndef MP_BUS_HANDLER_H
#define MP_BUS_HANDLER_H

#include "bus/subscription.h"

/* What a handler's error was; the strings live in the caller's context. */
typedef struct MpFailure
{
	char	   *sqlstate;
	char	   *message;
	char	   *detail;
	char	   *hint;
	char	   *context;
	int			event;			/* the number of the event that was being handled */
} MpFailure;

/*
 * Calls the handler of a subscription for `count` events, one after another, in
 * one subtransaction, as the role that subscribed.  True when all succeeded;
 * else everything is undone and *failure is the first error; a call that takes
 * longer than the subscription's timeout is one.  Cancel, shutdown and out of memory are not failures of the handler: they go on to the caller's
 * caller.
 */
extern bool mp_handler_run(MpSubscription *subscription, const MpEvent *events, int count,
						   MpFailure *failure);

#endif							/* MP_BUS_HANDLER_H */
