/*
 * The amount at the start of an ingredient line: "1 1/2", "2-3", "½", "2 x 400 g".
 *
 * Values are exact rationals: a third stays a third until the caller decides how
 * to show it, so that three thirds of a cup make one cup on a shopping list.
 */
#ifndef MP_QUANTITY_H
#define MP_QUANTITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* denominator > 0 and in lowest terms */
typedef struct MpRational
{
	int64_t		num;
	int64_t		den;
} MpRational;

typedef struct MpQuantity
{
	bool		present;		/* an amount was found; else only rest is set */
	bool		approximate;	/* "about 2" */
	MpRational	low;
	MpRational	high;			/* equals low when no range was given */
	bool		has_each;		/* "2 x 400 g": low and high are 2, each is 400 */
	MpRational	each;
	size_t		rest;			/* where the remainder of the line starts */
} MpQuantity;

/* UTF-8 in, not necessarily terminated; never fails, reads no byte past len. */
extern void mp_quantity_parse(const char *line, size_t len, MpQuantity *result);

#endif
