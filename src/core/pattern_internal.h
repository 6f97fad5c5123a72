/*
 * pattern_internal.h
 *		The compiled form of an event pattern, and the comparisons of values
 *		that it is built from.  Private to pattern*.c.
 */
#ifndef MP_PATTERN_INTERNAL_H
#define MP_PATTERN_INTERNAL_H

#include <stdint.h>

#include "pattern.h"

typedef struct MpBytes
{
	const char *text;
	size_t		len;
} MpBytes;

/* The most significant digits that a shortest round trip of binary64 has. */
#define MP_DECIMAL_DIGITS 17

/*
 * A decimal number, value = 0.DIGITS x 10^exponent, without leading or trailing
 * zeros among the digits; zero has no digits and no sign.  Only a comparable
 * one, which binary64 holds, has its other members set.
 */
typedef struct MpDecimal
{
	bool		comparable;
	bool		negative;
	int			ndigits;
	int			exponent;
	char		digits[MP_DECIMAL_DIGITS];
} MpDecimal;

typedef struct MpNumber
{
	MpBytes		text;
	MpDecimal	value;
} MpNumber;

typedef struct MpRange
{
	bool		has_low;
	bool		has_high;
	bool		low_inclusive;
	bool		high_inclusive;
	MpDecimal	low;
	MpDecimal	high;
} MpRange;

typedef struct MpAddress
{
	int			size;			/* 4 or 16 bytes */
	uint8_t		bytes[16];
} MpAddress;

typedef struct MpCidr
{
	MpAddress	network;
	int			bits;
} MpCidr;

/* A string as folded code points, for comparisons that ignore case. */
typedef struct MpFolded
{
	uint32_t   *codes;
	size_t		ncodes;
} MpFolded;

/*
 * A run of plain bytes between two stars.  fallback[i] is the length of the
 * longest proper border of the first i + 1 bytes (Knuth-Morris-Pratt), so that
 * even a hostile wildcard is searched in linear time.
 */
typedef struct MpSegment
{
	MpBytes		bytes;
	uint32_t   *fallback;
} MpSegment;

/* n - 1 stars between n segments; the first and the last are anchored. */
typedef struct MpWildcard
{
	MpSegment  *segments;
	size_t		nsegments;
} MpWildcard;

typedef enum MpTestKind
{
	MP_TEST_MISSING,			/* {"exists": false} */
	MP_TEST_PRESENT,			/* {"exists": true} */
	MP_TEST_NULL,
	MP_TEST_BOOL,
	MP_TEST_STRING,
	MP_TEST_NUMBER,
	MP_TEST_PREFIX,
	MP_TEST_SUFFIX,
	MP_TEST_FOLDED,				/* equals-ignore-case */
	MP_TEST_FOLDED_PREFIX,
	MP_TEST_FOLDED_SUFFIX,
	MP_TEST_WILDCARD,
	MP_TEST_RANGE,
	MP_TEST_CIDR,
	MP_TEST_ANYTHING_BUT
} MpTestKind;

/* One member of a leaf. */
typedef struct MpTest MpTest;
struct MpTest
{
	MpTestKind	kind;
	union
	{
		bool		boolean;
		MpBytes		string;		/* STRING, PREFIX, SUFFIX */
		MpNumber	number;
		MpRange		range;
		MpCidr		cidr;
		MpFolded	folded;
		MpWildcard	wildcard;
		struct
		{
			MpTest	   *tests;	/* none of them may match */
			size_t		ntests;
		}			excluded;
	}			u;
};

typedef struct MpLeaf
{
	MpTest	   *tests;
	size_t		ntests;

	/* One of the tests is MISSING; then the whole path to here is known. */
	bool		may_be_missing;
	const MpBytes *path;
	int			path_length;

	/* Of a top-level leaf of strings alone, see mp_pattern_literals. */
	const char *const *literals;
	const size_t *literal_lengths;
} MpLeaf;

typedef struct MpNode MpNode;

/* A named member of an object: exactly one of leaf and node is set. */
typedef struct MpField
{
	MpBytes		key;
	MpLeaf	   *leaf;
	MpNode	   *node;
} MpField;

/* A $or: at least two objects in the place of the one it stands in. */
typedef struct MpChoice
{
	MpNode	   *branches;
	size_t		nbranches;
} MpChoice;

struct MpNode
{
	MpField    *fields;
	size_t		nfields;
	MpChoice   *choices;
	size_t		nchoices;
	int			depth;			/* keys between the event's root and here */
	bool		may_be_missing; /* an empty object would match */
};

struct MpPattern
{
	MpNode		root;
};

/* pattern_number.c */
extern void mp_decimal_parse(const char *text, size_t len, MpDecimal *result);
extern int	mp_decimal_compare(const MpDecimal *a, const MpDecimal *b);
extern bool mp_decimal_equal_text(const MpNumber *number,
								  const char *text, size_t len);
extern bool mp_range_contains(const MpRange *range, const char *text, size_t len);

/* pattern_text.c */
extern uint32_t mp_fold(uint32_t code);
extern void mp_folded_compile(const char *text, size_t len, MpArena *arena,
							  MpFolded *result);
extern bool mp_folded_equal(const MpFolded *folded, const char *text, size_t len);
extern bool mp_folded_prefix(const MpFolded *folded, const char *text, size_t len);
extern bool mp_folded_suffix(const MpFolded *folded, const char *text, size_t len);
extern const char *mp_wildcard_compile(const char *text, size_t len,
									   MpArena *arena, MpWildcard *result);
extern bool mp_wildcard_match(const MpWildcard *wildcard,
							  const char *text, size_t len);

/* pattern_address.c */
extern bool mp_address_parse(const char *text, size_t len, MpAddress *result);
extern const char *mp_cidr_parse(const char *text, size_t len, MpCidr *result);
extern bool mp_cidr_contains(const MpCidr *cidr, const char *text, size_t len);

#endif							/* MP_PATTERN_INTERNAL_H */
