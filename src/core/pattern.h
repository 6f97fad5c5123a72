/*
 * pattern.h
 *		Event patterns: compile one, match events against it.
 *
 * The language is EventBridge's.  A pattern is a JSON object of the shape of
 * the event.  A leaf is a non-empty array of literals and matchers: fields are
 * joined by AND, the members of a leaf by OR.  Matchers:
 *
 *	"text", 1.5, true, null		the value itself
 *	{"prefix": s}				s, or {"equals-ignore-case": s}
 *	{"suffix": s}				s, or {"equals-ignore-case": s}
 *	{"equals-ignore-case": s}
 *	{"wildcard": s}				* is any run of characters; \* and \\ escape
 *	{"numeric": [op, n]}		op is = < <= > >=
 *	{"numeric": [">", n, "<=", n]}	lower bound (> >=), then upper (< <=)
 *	{"cidr": "10.0.0.0/24"}		IPv4 and IPv6
 *	{"exists": true|false}
 *	{"anything-but": x}			a string, a number, a list of strings, a list of
 *								numbers, or one of prefix, suffix,
 *								equals-ignore-case, wildcard with a string or a
 *								list of strings
 *	{"$or": [{...}, {...}]}		in place of a field, at any object level
 *
 * Semantics
 *
 * - Types are strict: "1" is not 1, a matcher of strings never matches a
 *	 number, null is a value and differs from a missing field.
 * - Arrays in the event are flattened.  A leaf matches when any element does.
 *	 Where the event has an array of objects, all fields of one sub-pattern
 *	 must match in the same element.
 * - A leaf of the event is a scalar or null: an empty array or object is no
 *	 leaf, so that it does not exist.
 * - {"exists": false} is looked up in the element that the sub-pattern's other
 *	 fields chose; where nothing chose an element, it means every element.  It
 *	 may share its list with other matchers.
 * - anything-but needs the field to be there, and is satisfied by any leaf of
 *	 any type that is not excluded.
 * - Numbers are compared by value when binary64 holds the decimal, that is,
 *	 when the shortest decimal that reads back as the nearest double is the
 *	 number itself (100 = 1e2, 0 = -0, 0.1 = 0.10).  Any other number equals
 *	 only the same text; no range contains it, and as an operand of numeric or
 *	 anything-but it is an error.
 * - equals-ignore-case knows the one-to-one pairs of upper and lower case that
 *	 lead back to each other (Unicode 14): E with acute is e with acute, but
 *	 sharp s is not ss, dotless i is not I, and the Kelvin sign is not k.  Text
 *	 that is not UTF-8 is compared byte by byte.
 *
 * Deliberate deviations from event-ruler
 *
 * - A dot in a key is a character of the key: {"a.b": ...} is not {"a": {"b": ...}}.
 * - An outer field and a $or branch that name the same field must both match;
 *	 event-ruler lets the branch replace the outer one.  Each is a condition of
 *	 its own: they need not hold in the same array element.
 * - In an array element the order of field names has no influence on
 *	 {"exists": false}; event-ruler looks only at fields that sort before it.
 * - Prefix lengths /32 (IPv4) and /128 (IPv6) are accepted.
 * - An IPv6 network never contains an IPv4 address, ::/0 included, and IPv6
 *	 text with an embedded dotted quad is not read as an address at all.
 * - A literal that looks like an address is compared as text, as any other, and
 *	 a network never contains a number.
 * - An empty list in any form of anything-but is an error.
 * - Case pairs are symmetric; event-ruler's are taken from the pattern's
 *	 character alone, so that there a final sigma in a pattern matches more.
 * - "$or" whose value is an object is an ordinary field of that name.
 * - {"exactly": s}, which EventBridge does not document, is no matcher; within
 *	 $or only the names of the matchers above are refused as fields, not the
 *	 words that event-ruler reserves for the future.
 * - Of duplicate keys the reader decides (jsonb keeps the last one).
 *
 * Limits: MP_PATTERN_MAX_DEPTH levels of objects, $or branches included.
 * $or is evaluated as a tree, not expanded, and a wildcard is matched in time
 * linear in the string, so that the cost of a match is bounded by (size of
 * the pattern) x (size of the event), times the depth for {"exists": false}.
 */
#ifndef MP_PATTERN_H
#define MP_PATTERN_H

#include "arena.h"
#include "json_value.h"

#define MP_PATTERN_MAX_DEPTH 64

typedef struct MpPattern MpPattern;

typedef struct MpPatternError
{
	char		path[256];		/* "$.detail.name[0]" */
	char		message[256];	/* lower case, no full stop */
} MpPatternError;

/*
 * Compiles a pattern.  NULL when it is invalid: *error then names the first
 * offence found.  The result lives in the arena, copies all it needs, and does
 * not refer to root afterwards; it is never modified, so that it can be shared.
 */
extern const MpPattern *mp_pattern_compile(const MpJsonReader *reader,
										   const MpJson *root,
										   MpArena *arena,
										   MpPatternError *error);

/*
 * Does the pattern match the event?  Allocates nothing.  An event that is not
 * an object matches no pattern.
 */
extern bool mp_pattern_match(const MpPattern *pattern,
							 const MpJsonReader *reader,
							 const MpJson *event);

/*
 * The exact strings one of which a top-level field must hold for the pattern to
 * match, for an index over many patterns: their number, and the arrays that
 * live as long as the pattern.  -1 when the pattern does not pin the field down
 * to strings alone; a field pinned only inside $or is not looked for.  The
 * caller may skip the pattern for an event whose field is a string that is none
 * of them.
 */
extern int	mp_pattern_literals(const MpPattern *pattern,
								const char *field,
								const char *const **literals,
								const size_t **lengths);

#endif							/* MP_PATTERN_H */
