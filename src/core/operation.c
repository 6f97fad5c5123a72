/*
 * operation.c
 *		Idempotent operations: steps and buckets.
 */
#include "core/operation.h"

/* Twice the width is the longest that keys of the level are kept, in days: 1, 30, 366. */
static const int64_t widths[MP_BUCKET_LEVELS] = {
	INT64_C(43200000000), INT64_C(30) * 43200000000, INT64_C(366) * 43200000000
};

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

/* Times before the epoch, too, lie in stretches from left to right. */
static int
place_in_ring(int level, int64_t time, int64_t shift)
{
	int64_t		stretch = time / widths[level] - (time % widths[level] < 0);

	return (int) ((((stretch + shift) % MP_BUCKET_RING) + MP_BUCKET_RING) % MP_BUCKET_RING);
}

int
mp_operation_bucket(int64_t expires_at, double kept_for)
{
	int			level = 0;

	if (expires_at == INT64_MAX)
		return MP_BUCKET_FOREVER;
	while (level < MP_BUCKET_LEVELS - 1 && kept_for * 1e6 > 2.0 * (double) widths[level])
		level++;
	return level * MP_BUCKET_RING + place_in_ring(level, expires_at, 0);
}

int
mp_operation_spare(int level, int64_t now)
{
	return level * MP_BUCKET_RING + place_in_ring(level, now, -1);
}
