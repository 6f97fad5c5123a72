/*
 * delivery.h
 *		What a subscription has not got yet: retries and dead letters.
 */
#ifndef MP_BUS_DELIVERY_H
#define MP_BUS_DELIVERY_H

#include "bus/handler.h"

/* A delivery without a failure, due at a time; with its order key. */
extern void mp_delivery_schedule(const MpSubscription *subscription, const MpEvent *event, TimestampTz due);

/*
 * Records a failed attempt: schedules the next one (true) or moves the event
 * to the dead letters (false).  A handler that cannot run at all (error class
 * deploy) pauses the subscription, and no attempt is counted.
 */
extern bool mp_delivery_failed(MpSubscription *subscription, const MpEvent *event,
							   const MpFailedAttempt *attempt, const MpFailure *failure);

/* The same for a delivery, which counts its attempts itself. SPI is connected. */
extern bool mp_delivery_failed_again(MpSubscription *subscription, Datum account, Datum position,
									 const MpFailure *failure);

/* It is done: the delivery goes, and with it the dead letter it replayed. SPI is connected. */
extern void mp_delivery_finish(Datum account, Datum subscription, Datum position);

#endif							/* MP_BUS_DELIVERY_H */
