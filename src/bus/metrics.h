/*
 * metrics.h
 *		What handlers did, counted in shared memory.
 */
#ifndef MP_BUS_METRICS_H
#define MP_BUS_METRICS_H

#include "postgres.h"

extern Size mp_metrics_shmem_size(void);
extern void mp_metrics_shmem_request(void);
extern void mp_metrics_shmem_startup(void);

/* One call of a subscription's handler ended. */
extern void mp_metrics_count(const char *subscription, double milliseconds, bool failed);

/* How many calls have succeeded since the server started. */
extern uint64 mp_metrics_successes(const char *subscription);

#endif							/* MP_BUS_METRICS_H */
