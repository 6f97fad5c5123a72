/*
 * Idempotent operations: what a caller gets for the state its key is in.
 */
#ifndef MP_CORE_OPERATION_H
#define MP_CORE_OPERATION_H

#include <stdbool.h>

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

#endif							/* MP_CORE_OPERATION_H */
