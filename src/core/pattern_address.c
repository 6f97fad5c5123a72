/*
 * pattern_address.c
 *		Network addresses, for the cidr matcher.
 */
#include <string.h>

#include "pattern_internal.h"

/* Reads up to max_digits decimal digits at *p; -1 when there is none. */
static int
parse_decimal(const char **p, const char *end, int max_digits)
{
	int			value = -1;

	for (int i = 0; i < max_digits && *p < end && **p >= '0' && **p <= '9'; i++)
	{
		value = (value < 0 ? 0 : value * 10) + (**p - '0');
		(*p)++;
	}
	return value;
}

static bool
parse_ipv4(const char *p, const char *end, uint8_t *bytes)
{
	for (int i = 0; i < 4; i++)
	{
		int			value;

		if (i > 0 && (p == end || *p++ != '.'))
			return false;
		value = parse_decimal(&p, end, 3);
		if (value < 0 || value > 255)
			return false;
		bytes[i] = (uint8_t) value;
	}
	return p == end;
}

static int
hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

static bool
parse_ipv6(const char *p, const char *end, uint8_t *bytes)
{
	uint8_t		groups[16];
	size_t		ngroups = 0;
	size_t		gap = 0;		/* groups before the "::" */
	bool		has_gap = false;

	if (end - p >= 2 && p[0] == ':' && p[1] == ':')
	{
		has_gap = true;
		p += 2;
	}
	while (p < end)
	{
		int			value = 0;
		int			ndigits = 0;

		for (; p < end && hex_value(*p) >= 0; p++)
		{
			if (++ndigits > 4)
				return false;
			value = value * 16 + hex_value(*p);
		}
		if (ndigits == 0 || ngroups == 8)
			return false;
		groups[ngroups * 2] = (uint8_t) (value >> 8);
		groups[ngroups * 2 + 1] = (uint8_t) (value & 0xFF);
		ngroups++;

		if (p == end)
			break;
		if (*p++ != ':' || p == end)
			return false;
		if (*p == ':')
		{
			if (has_gap)
				return false;
			has_gap = true;
			gap = ngroups;
			p++;
		}
	}
	if (has_gap ? ngroups > 7 : ngroups != 8)
		return false;

	memset(bytes, 0, 16);
	memcpy(bytes, groups, gap * 2);
	memcpy(bytes + 16 - (ngroups - gap) * 2, groups + gap * 2, (ngroups - gap) * 2);
	return true;
}

/* Reads an IPv4 or IPv6 address, without prefix length, port or zone. */
bool
mp_address_parse(const char *text, size_t len, MpAddress *result)
{
	if (len == 0 || len > 39)
		return false;
	if (memchr(text, ':', len) != NULL)
	{
		result->size = 16;
		return parse_ipv6(text, text + len, result->bytes);
	}
	result->size = 4;
	return parse_ipv4(text, text + len, result->bytes);
}

/*
 * Reads "address/bits"; bits of the address beyond the prefix are ignored.
 * Returns NULL, or what is wrong with it.
 */
const char *
mp_cidr_parse(const char *text, size_t len, MpCidr *result)
{
	const char *slash = len == 0 ? NULL : memchr(text, '/', len);
	const char *end;

	if (slash == NULL)
		return "a network must be written as address/bits";
	if (!mp_address_parse(text, (size_t) (slash - text), &result->network))
		return "not an IPv4 or IPv6 address";
	end = text + len;
	slash++;
	result->bits = parse_decimal(&slash, end, 3);
	if (slash != end || result->bits < 0 ||
		result->bits > result->network.size * 8)
		return result->network.size == 4
			? "the prefix length of an IPv4 network must be between 0 and 32"
			: "the prefix length of an IPv6 network must be between 0 and 128";
	return NULL;
}

bool
mp_cidr_contains(const MpCidr *cidr, const char *text, size_t len)
{
	MpAddress	address;
	int			whole = cidr->bits / 8;
	int			rest = cidr->bits % 8;

	if (!mp_address_parse(text, len, &address) ||
		address.size != cidr->network.size)
		return false;
	if (memcmp(address.bytes, cidr->network.bytes, (size_t) whole) != 0)
		return false;
	return rest == 0 ||
		((address.bytes[whole] ^ cidr->network.bytes[whole]) >> (8 - rest)) == 0;
}
