/*
 * saga_end.h
 *		What others are told of sagas.
 */
#ifndef MP_BUS_SAGA_END_H
#define MP_BUS_SAGA_END_H

#include "bus/saga.h"

/*
 * Emits the events of those that have ended since they were taken in hand, in
 * this transaction and so once.  SPI is connected.
 */
extern void mp_saga_tell_ends(MpSagaHand *hand);

/* SPI is connected. */
extern void mp_saga_alert(const MpSagaHand *hand, const MpSagaAlert *alert);

#endif							/* MP_BUS_SAGA_END_H */
