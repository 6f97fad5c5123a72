/*
 * error_class.h
 *		What the error of a failure means.
 */
#ifndef MP_BUS_ERROR_CLASS_H
#define MP_BUS_ERROR_CLASS_H

#include "bus/handler.h"

/* Tells *attempt the class of its failure, and when to try again if somebody said. SPI is connected. */
extern void mp_classify_failure(const MpSubscription *subscription, const MpFailure *failure, MpFailedAttempt *attempt);

#endif							/* MP_BUS_ERROR_CLASS_H */
