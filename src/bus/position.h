/*
 * position.h
 *		Places in the log, and how far it may be read.
 */
#ifndef MP_BUS_POSITION_H
#define MP_BUS_POSITION_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "utils/uuid.h"

/* Settings meal_planner.node_id and meal_planner.append_age_limit (milliseconds) */
extern int	mp_node_id;
extern int	mp_append_age_limit;

extern Size mp_position_shmem_size(void);
extern void mp_position_shmem_startup(void);

/* Stands for "every account" and "several accounts" where a hash of one stands. */
#define MP_ANY_ACCOUNT 0

extern uint64 mp_account_hash(const char *account, int account_len);

/* Errors out unless the library was preloaded. */
extern void mp_require_preload(void);

/* A new number from the position clock; not a place in the log. */
extern int64 mp_position_next(void);

/*
 * Not above the next position that is taken, nor far below it, once the clock
 * has been used in this database.
 */
extern int64 mp_position_soon(TimestampTz now);

/*
 * Takes `count` consecutive places in the log of an account; returns the
 * first, the others follow by one tick each.  From here to the end of the
 * transaction readers stop below them.
 */
extern int64 mp_position_append(const char *account, int account_len, int count);

/* The id of a position: a new UUIDv7. */
extern void mp_position_make_uuid(int64 position, pg_uuid_t *id);

/*
 * The position up to which an account's log (NULL: every account's) is
 * complete.  Take it first and the snapshot second.
 */
extern int64 mp_position_read_bound(const char *account, int account_len);

/* Errors out where a statement's snapshot may be older than the bound. */
extern void mp_require_read_committed(void);

/* Raises the clock above a position that came from elsewhere (a restore). */
extern void mp_position_observe(int64 position);

#endif							/* MP_BUS_POSITION_H */
