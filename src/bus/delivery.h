/*
 * delivery.h
 *		What a subscription has not got yet: retries and dead letters.
 */
#ifndef MP_BUS_DELIVERY_H
#define MP_BUS_DELIVERY_H

#include "bus/handler.h"

/* A delivery without a failure, due at a time. */
extern void mp_delivery_schedule(const MpSubscription *subscription, const MpEvent *event, TimestampTz due);

/*
 * Records a failed attempt: schedules the next one (true) or moves the event
 * to the dead letters (false).
 */
extern bool mp_delivery_failed(const MpSubscription *subscription, const MpEvent *event,
							   const MpFailedAttempt *attempt, const MpFailure *failure);

#endif							/* MP_BUS_DELIVERY_H */
