/*
 * option.c
 *		Reading options: one member of a JSON object each.
 */
#include "bus/option.h"

void
mp_option_refuse(const char *problem)
{
	ereport(ERROR,
			(errcode(MP_ERRCODE_INVALID),
			 errmsg("MP400: %s", problem),
			 errhint("retry=no. Correct the option.")));
}

void
mp_option_set_number(void *structure, const MpNumberOption *option, const MpJson *value)
{
	double		number = 0;

	/* of one too large for a double it makes infinity, which no option allows */
	if (value->kind == MP_JSON_NUMBER)
		number = strtod(pnstrdup(value->text, value->len), NULL);
	if (value->kind != MP_JSON_NUMBER || number < option->low || number > option->high ||
		(option->integer && number != (int) number))
		mp_option_refuse(psprintf("%s must be %s between %g and %g", option->name,
								  option->integer ? "an integer" : "a number", option->low, option->high));
	if (option->integer)
		*(int *) ((char *) structure + option->offset) = (int) number;
	else
		*(double *) ((char *) structure + option->offset) = number;
}

bool
mp_option_is(const MpJson *value, const char *string)
{
	return value->kind == MP_JSON_STRING && value->len == strlen(string) &&
		memcmp(value->text, string, value->len) == 0;
}
