/*
 * wakeup.h
 *		Waiting for events to be committed.
 */
#ifndef MP_BUS_WAKEUP_H
#define MP_BUS_WAKEUP_H

#include "postgres.h"

extern Size mp_wakeup_shmem_size(void);
extern void mp_wakeup_shmem_startup(void);

/* Wakes everybody of this database who waits; called after a commit. */
extern void mp_wake_waiters(void);

/*
 * Announces that this backend is about to wait, so that no commit from here on
 * is missed; then it looks for work once more, and only then waits.
 */
extern void mp_prepare_to_wait(void);
extern void mp_wait(long timeout_ms);

#endif							/* MP_BUS_WAKEUP_H */
