/*
 * wakeup.h
 *		Waiting for events to be committed.
 */
#ifndef MP_BUS_WAKEUP_H
#define MP_BUS_WAKEUP_H

#include "postgres.h"

#include "datatype/timestamp.h"

/* Whose events somebody waits for, and with whom. */
typedef struct MpWaitFor
{
	uint64		account;		/* mp_account_hash; MP_ANY_ACCOUNT: all */
	uint64		queue;			/* of a queue a commit wakes one; 0: it wakes everybody */
} MpWaitFor;

/* Setting meal_planner.longest_sleep, in milliseconds */
extern int	mp_longest_sleep;

extern Size mp_wakeup_shmem_size(void);
extern void mp_wakeup_shmem_startup(void);

/* The queue of those who claim from a subscription in an account. */
extern MpWaitFor mp_wait_for_claim(const char *account, int account_len, const char *subscription);

/*
 * Called when a transaction that has appended to an account (MP_ANY_ACCOUNT:
 * several) has ended and readers may pass: wakes one of each queue, and all who
 * are in none.
 */
extern void mp_wake_waiters(uint64 account);

/*
 * Announces that this backend is about to wait, so that no commit from here on
 * is missed; then it looks for work once more, and only then waits.  Who has
 * announced it stops waiting before it returns, however long it waited.
 */
extern void mp_prepare_to_wait(MpWaitFor what);
extern bool mp_is_waiting(void);

/*
 * Sleeps until woken, until something is due (by our clock; DT_NOEND: nothing)
 * or until the deadline (of the wall clock); false, at once, when that is over.
 */
extern bool mp_wait_until(TimestampTz due, TimestampTz deadline);

/* True when it was woken: what woke it may not have been seen yet. */
extern bool mp_stop_waiting(void);

/*
 * Who was woken, or takes from a queue, stands for all that wait there: when
 * this transaction aborts the next one is woken, and when it commits too if
 * that is wanted, because something is left.
 */
extern void mp_wake_next_at_end(MpWaitFor what, bool at_commit);

#endif							/* MP_BUS_WAKEUP_H */
