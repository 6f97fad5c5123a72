#include "core/position.h"

#include <string.h>

void
mp_position_to_uuid(int64_t position, const uint8_t random[16], uint8_t uuid[16])
{
	uint64_t	unix_us = (uint64_t) mp_tick_to_unix_us(mp_position_tick(position));
	uint64_t	ms = unix_us / 1000;
	unsigned	us = (unsigned) (unix_us % 1000);
	unsigned	node = (unsigned) mp_position_node(position);

	memcpy(uuid, random, 16);
	for (int i = 0; i < 6; i++)
		uuid[i] = (uint8_t) (ms >> (40 - 8 * i));
	uuid[6] = (uint8_t) (0x70 | (us >> 6));
	uuid[7] = (uint8_t) (((us & 0x3f) << 2) | (random[7] & 0x03));
	uuid[8] = (uint8_t) (0x80 | (node >> 4));
	uuid[9] = (uint8_t) (((node & 0x0f) << 4) | (random[9] & 0x0f));
}

bool
mp_uuid_to_position(const uint8_t uuid[16], int64_t *position)
{
	uint64_t	ms = 0;
	unsigned	us;
	int			node;
	int64_t		tick;

	if ((uuid[6] & 0xf0) != 0x70 || (uuid[8] & 0xc0) != 0x80)
		return false;
	for (int i = 0; i < 6; i++)
		ms = (ms << 8) | uuid[i];
	us = ((unsigned) (uuid[6] & 0x0f) << 6) | (uuid[7] >> 2);
	if (us > 999)
		return false;
	node = ((uuid[8] & 0x3f) << 4) | (uuid[9] >> 4);

	/* 48 bits of milliseconds times 1000 stay below 2^58: no overflow. */
	tick = (int64_t) (ms * 1000 + us) - MP_EPOCH_UNIX_US;
	if (tick < 1 || tick > MP_TICK_MAX)
		return false;
	*position = mp_position_make(tick, node);
	return true;
}
