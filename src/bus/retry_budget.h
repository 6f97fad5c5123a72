/*
 * retry_budget.h
 *		How many retries a subscription may make, all its backends together.
 */
#ifndef MP_BUS_RETRY_BUDGET_H
#define MP_BUS_RETRY_BUDGET_H

#include "bus/subscription.h"

extern Size mp_retry_budget_shmem_size(void);
extern void mp_retry_budget_shmem_request(void);
extern void mp_retry_budget_shmem_startup(void);

/* Takes up to so many tokens; all of them when there is no budget.  A ROLLBACK gives none back. */
extern int	mp_retry_budget_take(const MpSubscription *subscription, int wanted);
extern void mp_retry_budget_give_back(const MpSubscription *subscription, int count);

/* When there will be a token; 0: there is one, or there is no budget. */
extern TimestampTz mp_retry_budget_ready_at(const MpSubscription *subscription);

#endif							/* MP_BUS_RETRY_BUDGET_H */
