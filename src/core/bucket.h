/*
 * Rings of buckets for keys that are remembered for a time.
 *
 * Keys that expire in the same stretch of time share a bucket, which is emptied
 * as a whole.  Of the buckets of a ring one, the last before the current
 * stretch, is spare: it holds nothing but what has expired, and nobody writes to
 * it, so that it can be emptied while the others are in use.
 *
 * Times are in microseconds since any one epoch.
 */
#ifndef MP_CORE_BUCKET_H
#define MP_CORE_BUCKET_H

#include <stdint.h>

/*
 * Keys of events are all kept for the same time, and the stretches are as long:
 * what is written now expires in the stretch after the current one.  While
 * the time for which they are kept is being changed, a spare bucket may hold keys
 * that have not expired.
 */
#define MP_KEY_BUCKETS		3

extern int	mp_key_bucket(int64_t expires_at, int64_t kept_for);
extern int	mp_key_spare(int64_t now, int64_t kept_for);

/*
 * Operations are each kept for a time of their own.  There are levels, rings of
 * buckets of one width, for those that are kept up to twice that long.  At any
 * time such a key expires in the current stretch or one of the next two.
 */
#define MP_OPERATION_LEVELS	3
#define MP_OPERATION_RING	4

/* What does not expire: those that wait for their end however long. */
#define MP_OPERATION_FOREVER	(MP_OPERATION_LEVELS * MP_OPERATION_RING)

#define MP_OPERATION_BUCKETS	(MP_OPERATION_FOREVER + 1)

#define MP_KEPT_MAX			(366 * 86400.0) /* seconds */

/* INT64_MAX is never; kept_for is from now on, in seconds, at most MP_KEPT_MAX. */
extern int	mp_operation_bucket(int64_t expires_at, double kept_for);

/* The bucket of a level that holds nothing but what has expired. */
extern int	mp_operation_spare(int level, int64_t now);

#endif							/* MP_CORE_BUCKET_H */
