/*
 * pattern_text.c
 *		Comparison of strings without regard to case and by wildcard.
 */
#include <string.h>

#include "pattern_internal.h"
#include "utf8.h"

/*
 * Upper case code points with a step between them, and the distance to their
 * lower case.  These are all the pairs of Unicode 14 beyond ASCII in which each
 * letter is the simple mapping of the other, sorted by the upper case.
 */
typedef struct CasePairs
{
	uint32_t	first;
	uint32_t	last;
	uint32_t	step;
	int32_t		distance;
} CasePairs;

/* *INDENT-OFF* */
static const CasePairs case_pairs[] = {
	{0x00C0, 0x00D6, 1, 32}, {0x00D8, 0x00DE, 1, 32}, {0x0100, 0x012E, 2, 1},
	{0x0132, 0x0136, 2, 1}, {0x0139, 0x0147, 2, 1}, {0x014A, 0x0176, 2, 1},
	{0x0178, 0x0178, 1, -121}, {0x0179, 0x017D, 2, 1}, {0x0181, 0x0181, 1, 210},
	{0x0182, 0x0184, 2, 1}, {0x0186, 0x0186, 1, 206}, {0x0187, 0x0187, 1, 1},
	{0x0189, 0x018A, 1, 205}, {0x018B, 0x018B, 1, 1}, {0x018E, 0x018E, 1, 79},
	{0x018F, 0x018F, 1, 202}, {0x0190, 0x0190, 1, 203}, {0x0191, 0x0191, 1, 1},
	{0x0193, 0x0193, 1, 205}, {0x0194, 0x0194, 1, 207}, {0x0196, 0x0196, 1, 211},
	{0x0197, 0x0197, 1, 209}, {0x0198, 0x0198, 1, 1}, {0x019C, 0x019C, 1, 211},
	{0x019D, 0x019D, 1, 213}, {0x019F, 0x019F, 1, 214}, {0x01A0, 0x01A4, 2, 1},
	{0x01A6, 0x01A6, 1, 218}, {0x01A7, 0x01A7, 1, 1}, {0x01A9, 0x01A9, 1, 218},
	{0x01AC, 0x01AC, 1, 1}, {0x01AE, 0x01AE, 1, 218}, {0x01AF, 0x01AF, 1, 1},
	{0x01B1, 0x01B2, 1, 217}, {0x01B3, 0x01B5, 2, 1}, {0x01B7, 0x01B7, 1, 219},
	{0x01B8, 0x01B8, 1, 1}, {0x01BC, 0x01BC, 1, 1}, {0x01C4, 0x01C4, 1, 2},
	{0x01C7, 0x01C7, 1, 2}, {0x01CA, 0x01CA, 1, 2}, {0x01CD, 0x01DB, 2, 1},
	{0x01DE, 0x01EE, 2, 1}, {0x01F1, 0x01F1, 1, 2}, {0x01F4, 0x01F4, 1, 1},
	{0x01F6, 0x01F6, 1, -97}, {0x01F7, 0x01F7, 1, -56}, {0x01F8, 0x021E, 2, 1},
	{0x0220, 0x0220, 1, -130}, {0x0222, 0x0232, 2, 1}, {0x023A, 0x023A, 1, 10795},
	{0x023B, 0x023B, 1, 1}, {0x023D, 0x023D, 1, -163}, {0x023E, 0x023E, 1, 10792},
	{0x0241, 0x0241, 1, 1}, {0x0243, 0x0243, 1, -195}, {0x0244, 0x0244, 1, 69},
	{0x0245, 0x0245, 1, 71}, {0x0246, 0x024E, 2, 1}, {0x0370, 0x0372, 2, 1},
	{0x0376, 0x0376, 1, 1}, {0x037F, 0x037F, 1, 116}, {0x0386, 0x0386, 1, 38},
	{0x0388, 0x038A, 1, 37}, {0x038C, 0x038C, 1, 64}, {0x038E, 0x038F, 1, 63},
	{0x0391, 0x03A1, 1, 32}, {0x03A3, 0x03AB, 1, 32}, {0x03CF, 0x03CF, 1, 8},
	{0x03D8, 0x03EE, 2, 1}, {0x03F7, 0x03F7, 1, 1}, {0x03F9, 0x03F9, 1, -7},
	{0x03FA, 0x03FA, 1, 1}, {0x03FD, 0x03FF, 1, -130}, {0x0400, 0x040F, 1, 80},
	{0x0410, 0x042F, 1, 32}, {0x0460, 0x0480, 2, 1}, {0x048A, 0x04BE, 2, 1},
	{0x04C0, 0x04C0, 1, 15}, {0x04C1, 0x04CD, 2, 1}, {0x04D0, 0x052E, 2, 1},
	{0x0531, 0x0556, 1, 48}, {0x10A0, 0x10C5, 1, 7264}, {0x10C7, 0x10C7, 1, 7264},
	{0x10CD, 0x10CD, 1, 7264}, {0x13A0, 0x13EF, 1, 38864}, {0x13F0, 0x13F5, 1, 8},
	{0x1C90, 0x1CBA, 1, -3008}, {0x1CBD, 0x1CBF, 1, -3008}, {0x1E00, 0x1E94, 2, 1},
	{0x1EA0, 0x1EFE, 2, 1}, {0x1F08, 0x1F0F, 1, -8}, {0x1F18, 0x1F1D, 1, -8},
	{0x1F28, 0x1F2F, 1, -8}, {0x1F38, 0x1F3F, 1, -8}, {0x1F48, 0x1F4D, 1, -8},
	{0x1F59, 0x1F5F, 2, -8}, {0x1F68, 0x1F6F, 1, -8}, {0x1FB8, 0x1FB9, 1, -8},
	{0x1FBA, 0x1FBB, 1, -74}, {0x1FC8, 0x1FCB, 1, -86}, {0x1FD8, 0x1FD9, 1, -8},
	{0x1FDA, 0x1FDB, 1, -100}, {0x1FE8, 0x1FE9, 1, -8}, {0x1FEA, 0x1FEB, 1, -112},
	{0x1FEC, 0x1FEC, 1, -7}, {0x1FF8, 0x1FF9, 1, -128}, {0x1FFA, 0x1FFB, 1, -126},
	{0x2132, 0x2132, 1, 28}, {0x2160, 0x216F, 1, 16}, {0x2183, 0x2183, 1, 1},
	{0x24B6, 0x24CF, 1, 26}, {0x2C00, 0x2C2F, 1, 48}, {0x2C60, 0x2C60, 1, 1},
	{0x2C62, 0x2C62, 1, -10743}, {0x2C63, 0x2C63, 1, -3814}, {0x2C64, 0x2C64, 1, -10727},
	{0x2C67, 0x2C6B, 2, 1}, {0x2C6D, 0x2C6D, 1, -10780}, {0x2C6E, 0x2C6E, 1, -10749},
	{0x2C6F, 0x2C6F, 1, -10783}, {0x2C70, 0x2C70, 1, -10782}, {0x2C72, 0x2C72, 1, 1},
	{0x2C75, 0x2C75, 1, 1}, {0x2C7E, 0x2C7F, 1, -10815}, {0x2C80, 0x2CE2, 2, 1},
	{0x2CEB, 0x2CED, 2, 1}, {0x2CF2, 0x2CF2, 1, 1}, {0xA640, 0xA66C, 2, 1},
	{0xA680, 0xA69A, 2, 1}, {0xA722, 0xA72E, 2, 1}, {0xA732, 0xA76E, 2, 1},
	{0xA779, 0xA77B, 2, 1}, {0xA77D, 0xA77D, 1, -35332}, {0xA77E, 0xA786, 2, 1},
	{0xA78B, 0xA78B, 1, 1}, {0xA78D, 0xA78D, 1, -42280}, {0xA790, 0xA792, 2, 1},
	{0xA796, 0xA7A8, 2, 1}, {0xA7AA, 0xA7AA, 1, -42308}, {0xA7AB, 0xA7AB, 1, -42319},
	{0xA7AC, 0xA7AC, 1, -42315}, {0xA7AD, 0xA7AD, 1, -42305}, {0xA7AE, 0xA7AE, 1, -42308},
	{0xA7B0, 0xA7B0, 1, -42258}, {0xA7B1, 0xA7B1, 1, -42282}, {0xA7B2, 0xA7B2, 1, -42261},
	{0xA7B3, 0xA7B3, 1, 928}, {0xA7B4, 0xA7C2, 2, 1}, {0xA7C4, 0xA7C4, 1, -48},
	{0xA7C5, 0xA7C5, 1, -42307}, {0xA7C6, 0xA7C6, 1, -35384}, {0xA7C7, 0xA7C9, 2, 1},
	{0xA7D0, 0xA7D0, 1, 1}, {0xA7D6, 0xA7D8, 2, 1}, {0xA7F5, 0xA7F5, 1, 1},
	{0xFF21, 0xFF3A, 1, 32}, {0x10400, 0x10427, 1, 40}, {0x104B0, 0x104D3, 1, 40},
	{0x10570, 0x1057A, 1, 39}, {0x1057C, 0x1058A, 1, 39}, {0x1058C, 0x10592, 1, 39},
	{0x10594, 0x10595, 1, 39}, {0x10C80, 0x10CB2, 1, 64}, {0x118A0, 0x118BF, 1, 32},
	{0x16E40, 0x16E5F, 1, 32}, {0x1E900, 0x1E921, 1, 34}
};
/* *INDENT-ON* */

/* Decodes the code point at the end of a text that is not empty. */
static size_t
decode_last(const char *text, size_t len, uint32_t *code)
{
	for (size_t size = 1; size <= 4 && size <= len; size++)
	{
		if (mp_utf8_decode(text + len - size, size, code) == size &&
			*code < MP_UTF8_INVALID)
			return size;
	}
	*code = MP_UTF8_INVALID + (uint8_t) text[len - 1];
	return 1;
}

/* The lower case of a code point, or the code point itself. */
uint32_t
mp_fold(uint32_t code)
{
	size_t		low = 0;
	size_t		high = sizeof(case_pairs) / sizeof(case_pairs[0]);

	if (code < 0x80)
		return code >= 'A' && code <= 'Z' ? code + 32 : code;

	while (low < high)
	{
		size_t		middle = low + (high - low) / 2;
		const CasePairs *pairs = &case_pairs[middle];

		if (code > pairs->last)
			low = middle + 1;
		else if (code < pairs->first)
			high = middle;
		else if ((code - pairs->first) % pairs->step == 0)
			return (uint32_t) ((int32_t) code + pairs->distance);
		else
			return code;
	}
	return code;
}

/* Prepares a string for comparison without regard to case. */
void
mp_folded_compile(const char *text, size_t len, MpArena *arena, MpFolded *result)
{
	size_t		at = 0;

	result->ncodes = 0;
	result->codes = arena->alloc(arena->context, (len + 1) * sizeof(uint32_t));
	while (at < len)
	{
		uint32_t	code;

		at += mp_utf8_decode(text + at, len - at, &code);
		result->codes[result->ncodes++] = mp_fold(code);
	}
}

/*
 * Walks the text and the folded string side by side; false when they differ or
 * the text ends first, else *used is the length of what was equal.
 */
static bool
folded_walk(const MpFolded *folded, const char *text, size_t len, size_t *used)
{
	size_t		at = 0;

	for (size_t i = 0; i < folded->ncodes; i++)
	{
		uint32_t	code;

		if (at == len)
			return false;
		at += mp_utf8_decode(text + at, len - at, &code);
		if (mp_fold(code) != folded->codes[i])
			return false;
	}
	*used = at;
	return true;
}

bool
mp_folded_equal(const MpFolded *folded, const char *text, size_t len)
{
	size_t		used;

	return folded_walk(folded, text, len, &used) && used == len;
}

bool
mp_folded_prefix(const MpFolded *folded, const char *text, size_t len)
{
	size_t		used;

	return folded_walk(folded, text, len, &used);
}

bool
mp_folded_suffix(const MpFolded *folded, const char *text, size_t len)
{
	for (size_t i = folded->ncodes; i > 0; i--)
	{
		uint32_t	code;

		if (len == 0)
			return false;
		len -= decode_last(text, len, &code);
		if (mp_fold(code) != folded->codes[i - 1])
			return false;
	}
	return true;
}

static void
segment_finish(MpSegment *segment, MpArena *arena)
{
	const char *bytes = segment->bytes.text;
	size_t		len = segment->bytes.len;
	uint32_t	border = 0;

	segment->fallback = arena->alloc(arena->context, (len + 1) * sizeof(uint32_t));
	segment->fallback[0] = 0;
	for (size_t i = 1; i < len; i++)
	{
		while (border > 0 && bytes[i] != bytes[border])
			border = segment->fallback[border - 1];
		if (bytes[i] == bytes[border])
			border++;
		segment->fallback[i] = border;
	}
}

/*
 * Prepares a wildcard.  Returns NULL, or what is wrong with it.
 */
const char *
mp_wildcard_compile(const char *text, size_t len, MpArena *arena,
					MpWildcard *result)
{
	size_t		stars = 0;
	size_t		out = 0;
	char	   *bytes;
	MpSegment  *segment;

	for (size_t i = 0; i < len; i++)
	{
		if (text[i] == '\\')
		{
			if (i + 1 == len)
				return "a wildcard must not end in a single backslash";
			i++;
			if (text[i] != '*' && text[i] != '\\')
				return "a backslash in a wildcard must precede * or a backslash";
		}
		else if (text[i] == '*')
		{
			if (i + 1 < len && text[i + 1] == '*')
				return "a wildcard must not have two stars in a row";
			stars++;
		}
	}

	bytes = arena->alloc(arena->context, len + 1);
	result->nsegments = stars + 1;
	result->segments = arena->alloc(arena->context,
									result->nsegments * sizeof(MpSegment));
	segment = result->segments;
	segment->bytes.text = bytes;
	segment->bytes.len = 0;
	for (size_t i = 0; i < len; i++)
	{
		if (text[i] == '*')
		{
			segment_finish(segment, arena);
			segment++;
			segment->bytes.text = bytes + out;
			segment->bytes.len = 0;
			continue;
		}
		if (text[i] == '\\')
			i++;
		bytes[out++] = text[i];
		segment->bytes.len++;
	}
	segment_finish(segment, arena);
	return NULL;
}

/* The position after the first occurrence of the segment, or NULL. */
static const char *
segment_find(const MpSegment *segment, const char *text, const char *end)
{
	const char *bytes = segment->bytes.text;
	size_t		len = segment->bytes.len;
	size_t		matched = 0;

	for (; text < end; text++)
	{
		while (matched > 0 && *text != bytes[matched])
			matched = segment->fallback[matched - 1];
		if (*text == bytes[matched])
			matched++;
		if (matched == len)
			return text + 1;
	}
	return NULL;
}

/*
 * Works on bytes: in UTF-8 a sequence of whole characters is never found in the
 * middle of one.  The leftmost occurrence of each segment leaves the most room
 * for the ones that follow, so that there is nothing to go back to.
 */
bool
mp_wildcard_match(const MpWildcard *wildcard, const char *text, size_t len)
{
	const MpBytes *first = &wildcard->segments[0].bytes;
	const MpBytes *last = &wildcard->segments[wildcard->nsegments - 1].bytes;
	const char *at;
	const char *end;

	if (wildcard->nsegments == 1)
		return len == first->len &&
			(len == 0 || memcmp(text, first->text, len) == 0);

	if (len < first->len || len - first->len < last->len)
		return false;
	if (len == 0)				/* and what is between the stars is not empty */
		return wildcard->nsegments == 2;
	at = text + first->len;
	end = text + len - last->len;
	if (memcmp(text, first->text, first->len) != 0 ||
		memcmp(end, last->text, last->len) != 0)
		return false;

	for (size_t i = 1; i + 1 < wildcard->nsegments; i++)
	{
		at = segment_find(&wildcard->segments[i], at, end);
		if (at == NULL)
			return false;
	}
	return true;
}
