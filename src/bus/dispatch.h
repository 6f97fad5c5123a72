/*
 * dispatch.h
 *		From a new row of the log to the handlers that want it.
 */
#ifndef MP_BUS_DISPATCH_H
#define MP_BUS_DISPATCH_H

#include "bus/subscription.h"

/*
 * Says that rows with these positions are about to be inserted.  The trigger
 * ignores all others: those come from a restore.
 */
extern void mp_recording_begin(int64 first_position, int64 last_position);

/*
 * The same for the rows of these events, in the order of their positions: what
 * wants them runs when the last one has been inserted.  They have to stay where
 * they are until mp_recording_end.
 */
extern void mp_recording_begin_batch(const MpEvent *events, int count);
extern void mp_recording_end(void);

/* handler.c: handlers between what is being handled and its client; 0: none. */
extern int	mp_handler_hops(void);

#endif							/* MP_BUS_DISPATCH_H */
