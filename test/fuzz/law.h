/*
 * law.h
 *		What the fuzzers share: laws, and inputs of several parts.
 */
#ifndef LAW_H
#define LAW_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Ends the run as a crash does; the input is then kept. */
#define LAW(condition) \
	do { \
		if (!(condition)) \
		{ \
			fprintf(stderr, "law broken: %s (line %d)\n", #condition, __LINE__); \
			abort(); \
		} \
	} while (0)

typedef struct Part
{
	const char *text;
	size_t		len;
} Part;

/* What comes before the next line feed, or all that is left; *at goes behind it. */
static inline Part
next_part(const char **at, size_t *left)
{
	const char *end = *left == 0 ? NULL : memchr(*at, '\n', *left);
	Part		part = {*at, end == NULL ? *left : (size_t) (end - *at)};
	size_t		used = end == NULL ? *left : part.len + 1;

	*at += used;
	*left -= used;
	return part;
}

#endif							/* LAW_H */
