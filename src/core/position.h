/*
 * Positions and event ids.
 *
 * A position orders the log.  It is a tick and a node: the tick counts
 * microseconds since MP_EPOCH_UNIX_US, the node (0..1023) stands in the low
 * bits, so that nodes never make the same position and range partitions on it
 * are time partitions.
 *
 * An event's id is a UUIDv7 (RFC 9562) that carries the same tick and node,
 * so that an id leads to its position by arithmetic and needs no index:
 *
 *   bits   0..47   milliseconds since 1970            unix_ts_ms
 *         48..51   version 7
 *         52..61   microseconds within the millisecond (rand_a, upper ten bits)
 *         62..63   random                             (rand_a, lower two)
 *         64..65   variant 2
 *         66..75   node                               (rand_b, upper ten)
 *         76..127  random
 */
#ifndef MP_CORE_POSITION_H
#define MP_CORE_POSITION_H

#include <stdbool.h>
#include <stdint.h>

#define MP_NODE_BITS		10
#define MP_NODE_MAX			((1 << MP_NODE_BITS) - 1)

/* 2024-01-01 00:00:00 UTC; positions reach beyond the year 2300. */
#define MP_EPOCH_UNIX_US	INT64_C(1704067200000000)
#define MP_TICK_MAX			((INT64_C(1) << (63 - MP_NODE_BITS)) - 1)

static inline int64_t
mp_position_make(int64_t tick, int node)
{
	return (int64_t) (((uint64_t) tick << MP_NODE_BITS) | (uint64_t) node);
}

static inline int64_t
mp_position_tick(int64_t position)
{
	return position >> MP_NODE_BITS;
}

static inline int
mp_position_node(int64_t position)
{
	return (int) (position & MP_NODE_MAX);
}

/* The highest position of a tick, whatever the node. */
static inline int64_t
mp_position_last_of_tick(int64_t tick)
{
	return mp_position_make(tick, MP_NODE_MAX);
}

/*
 * The tick of a wall-clock time.  A clock before the epoch or after the last
 * tick gives the nearest one: a wrong clock must not make a negative position.
 */
static inline int64_t
mp_tick_of_unix_us(int64_t unix_us)
{
	int64_t		tick = unix_us - MP_EPOCH_UNIX_US;

	if (tick < 1)
		return 1;
	return tick > MP_TICK_MAX ? MP_TICK_MAX : tick;
}

static inline int64_t
mp_tick_to_unix_us(int64_t tick)
{
	return tick + MP_EPOCH_UNIX_US;
}

/*
 * The tick that follows `last` at the wall-clock tick `now`: the clock where
 * it runs forward, one more where it stands still or was set back.
 */
static inline int64_t
mp_tick_next(int64_t last, int64_t now)
{
	return now > last ? now : last + 1;
}

/* Builds the id of a position; `random` gives 16 random bytes. */
extern void mp_position_to_uuid(int64_t position, const uint8_t random[16], uint8_t uuid[16]);

/* The position an id stands for; false when it is no id of ours. */
extern bool mp_uuid_to_position(const uint8_t uuid[16], int64_t *position);

#endif							/* MP_CORE_POSITION_H */
