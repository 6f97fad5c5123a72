/*
 * bucket.c
 *		Rings of buckets: which one for what expires when.
 */
#include "core/bucket.h"

/* Twice the width is the longest that keys of the level are kept, in days: 1, 30, 366. */
static const int64_t widths[MP_OPERATION_LEVELS] = {
	INT64_C(43200000000), INT64_C(30) * 43200000000, INT64_C(366) * 43200000000
};

/* Times before the epoch, too, lie in stretches from left to right. */
static int
place_in_ring(int size, int64_t width, int64_t time, int shift)
{
	int64_t		stretch = time / width - (time % width < 0);

	return (int) ((((stretch + shift) % size) + size) % size);
}

int
mp_key_bucket(int64_t expires_at, int64_t kept_for)
{
	return place_in_ring(MP_KEY_BUCKETS, kept_for, expires_at, 0);
}

int
mp_key_spare(int64_t now, int64_t kept_for)
{
	return place_in_ring(MP_KEY_BUCKETS, kept_for, now, -1);
}

int
mp_operation_bucket(int64_t expires_at, double kept_for)
{
	int			level = 0;

	if (expires_at == INT64_MAX)
		return MP_OPERATION_FOREVER;
	while (level < MP_OPERATION_LEVELS - 1 && kept_for * 1e6 > 2.0 * (double) widths[level])
		level++;
	return level * MP_OPERATION_RING + place_in_ring(MP_OPERATION_RING, widths[level], expires_at, 0);
}

int
mp_operation_spare(int level, int64_t now)
{
	return level * MP_OPERATION_RING + place_in_ring(MP_OPERATION_RING, widths[level], now, -1);
}
