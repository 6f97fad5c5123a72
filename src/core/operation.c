/*
 * operation.c
 *		Idempotent operations: steps.
 */
#include "core/operation.h"

MpOperationStep
mp_operation_step(MpOperationState state, bool same_request, bool lease_over,
				  MpOwnerLost owner_wants, MpOwnerLost caller_wants)
{
	if (state == MP_OPERATION_ABSENT)
		return MP_STEP_START;
	if (!same_request)
		return MP_STEP_OTHER_REQUEST;
	if (state == MP_OPERATION_COMPLETED)
		return MP_STEP_COMPLETED;
	if (!lease_over)
		return MP_STEP_IN_PROGRESS;
	switch (owner_wants > caller_wants ? owner_wants : caller_wants)
	{
		case MP_OWNER_LOST_RETRY:
			return MP_STEP_TAKE_OVER;
		case MP_OWNER_LOST_VERIFY:
			return MP_STEP_VERIFY;
		case MP_OWNER_LOST_BLOCK:
			break;
	}
	return MP_STEP_BLOCKED;
}
