/*
 * utf8.h
 *		Decoding of UTF-8 that may be none: what the core reads can come from a
 *		database in another encoding.
 */
#ifndef MP_UTF8_H
#define MP_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Added to a byte that starts no valid sequence: no code point is so high. */
#define MP_UTF8_INVALID 0x110000

/*
 * Decodes the code point at the start of a text that is not empty, and returns
 * the number of its bytes.  A byte that starts no valid sequence counts as one
 * of its own, MP_UTF8_INVALID + byte.
 */
static inline size_t
mp_utf8_decode(const char *text, size_t len, uint32_t *code)
{
	static const uint32_t lowest[] = {0, 0, 0x80, 0x800, 0x10000};
	const uint8_t *p = (const uint8_t *) text;
	size_t		size;
	uint32_t	value;

	*code = p[0];
	if (p[0] < 0x80)
		return 1;

	*code += MP_UTF8_INVALID;
	if (p[0] >= 0xC2 && p[0] <= 0xDF)
		size = 2;
	else if (p[0] >= 0xE0 && p[0] <= 0xEF)
		size = 3;
	else if (p[0] >= 0xF0 && p[0] <= 0xF4)
		size = 4;
	else
		return 1;				/* a continuation byte, or never in UTF-8 */
	if (size > len)
		return 1;

	value = p[0] & (0xFF >> (size + 1));
	for (size_t i = 1; i < size; i++)
	{
		if ((p[i] & 0xC0) != 0x80)
			return 1;
		value = value << 6 | (p[i] & 0x3F);
	}
	if (value < lowest[size] || value > 0x10FFFF ||
		(value >= 0xD800 && value <= 0xDFFF))
		return 1;
	*code = value;
	return size;
}

/* The number of characters in a text. */
static inline size_t
mp_utf8_length(const char *text, size_t len)
{
	size_t		count = 0;
	size_t		at = 0;
	uint32_t	code;

	while (at < len)
	{
		at += mp_utf8_decode(text + at, len - at, &code);
		count++;
	}
	return count;
}

#endif							/* MP_UTF8_H */
