/*
 * Idempotent operations: what a caller gets for the state its key is in, and
 * the bucket that a remembered key lies in until it has expired.
 */
#ifndef MP_CORE_OPERATION_H
#define MP_CORE_OPERATION_H

#include <stdbool.h>
#include <stdint.h>

/* What is known of a key.  An expired one is absent, purged or not. */
typedef enum MpOperationState
{
	MP_OPERATION_ABSENT,
	MP_OPERATION_STARTED,
	MP_OPERATION_COMPLETED
} MpOperationState;

/* What is to be done when an owner's lease ends first; the strictest last. */
typedef enum MpOwnerLost
{
	MP_OWNER_LOST_RETRY,
	MP_OWNER_LOST_VERIFY,
	MP_OWNER_LOST_BLOCK
} MpOwnerLost;

typedef enum MpOperationStep
{
	MP_STEP_START,				/* nobody has begun it: the caller owns it */
	MP_STEP_TAKE_OVER,			/* its owner is lost: the caller owns it */
	MP_STEP_VERIFY,				/* the same, but it has to look outside first */
	MP_STEP_COMPLETED,			/* the stored result is the answer */
	MP_STEP_IN_PROGRESS,		/* somebody owns it */
	MP_STEP_BLOCKED,			/* its owner is lost, an operator has to see to it */
	MP_STEP_OTHER_REQUEST		/* the key belongs to another request */
} MpOperationStep;

/*
 * The owner and the caller may differ in what they want done when an owner is
 * lost: the stricter of the two counts.
 */
extern MpOperationStep mp_operation_step(MpOperationState state, bool same_request, bool lease_over,
										 MpOwnerLost owner_wants, MpOwnerLost caller_wants);

/*
 * Buckets.  Keys that expire in the same stretch of time share a bucket, so that
 * a bucket is emptied as a whole.  How long the stretches are depends on how
 * long a key is kept: each level has a ring of buckets of one width, for keys
 * that are kept up to twice that long.  At any time such a key expires in the
 * current stretch or one of the next two, so that of the four buckets of a ring
 * one, the last before the current, holds nothing but what has expired.
 */
#define MP_BUCKET_LEVELS	3
#define MP_BUCKET_RING		4

/* What does not expire: operations that wait for their end however long. */
#define MP_BUCKET_FOREVER	(MP_BUCKET_LEVELS * MP_BUCKET_RING)

#define MP_BUCKETS			(MP_BUCKET_FOREVER + 1)

#define MP_KEPT_MAX			(366 * 86400.0) /* seconds */

/*
 * Times are in microseconds since any one epoch; INT64_MAX is never.  kept_for
 * is how long the key is kept from now on, in seconds, at most MP_KEPT_MAX.
 */
extern int	mp_operation_bucket(int64_t expires_at, double kept_for);

/* The bucket of a level that holds nothing but what has expired. */
extern int	mp_operation_spare(int level, int64_t now);

#endif							/* MP_CORE_OPERATION_H */
