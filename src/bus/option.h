/*
 * option.h
 *		Reading options: one member of a JSON object each.
 */
#ifndef MP_BUS_OPTION_H
#define MP_BUS_OPTION_H

#include "bus/bus.h"
#include "core/json_value.h"

/* A number within limits, and its place in a structure. */
typedef struct MpNumberOption
{
	const char *name;
	double		low;
	double		high;
	bool		integer;		/* an int, else a double */
	size_t		offset;
} MpNumberOption;

/* MP400: the option is wrong. */
extern void mp_option_refuse(const char *problem);

/* Sets it in the structure; MP400 when the value is no number within the limits. */
extern void mp_option_set_number(void *structure, const MpNumberOption *option, const MpJson *value);

extern bool mp_option_is(const MpJson *value, const char *string);

#endif							/* MP_BUS_OPTION_H */
