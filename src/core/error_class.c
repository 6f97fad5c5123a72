#include "core/error_class.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[MP_ERROR_CLASSES] = {
	[MP_CLASS_TRANSIENT] = "transient",
	[MP_CLASS_CONTENTION] = "contention",
	[MP_CLASS_RESOURCE] = "resource",
	[MP_CLASS_SHUTDOWN] = "shutdown",
	[MP_CLASS_TIMEOUT] = "timeout",
	[MP_CLASS_UNKNOWN_OUTCOME] = "unknown_outcome",
	[MP_CLASS_PERMANENT] = "permanent",
	[MP_CLASS_DEPLOY] = "deploy"
};

const char *
mp_error_class_name(MpErrorClass class)
{
	return names[class];
}

bool
mp_error_class_of_name(const char *name, MpErrorClass *class)
{
	for (int i = 0; i < MP_ERROR_CLASSES; i++)
	{
		if (strcmp(name, names[i]) == 0)
		{
			*class = (MpErrorClass) i;
			return true;
		}
	}
	return false;
}

bool
mp_error_class_tells_of_service(MpErrorClass class)
{
	switch (class)
	{
		case MP_CLASS_TRANSIENT:
		case MP_CLASS_TIMEOUT:
		case MP_CLASS_UNKNOWN_OUTCOME:
			return true;
		case MP_CLASS_CONTENTION:
		case MP_CLASS_RESOURCE:
		case MP_CLASS_SHUTDOWN:
		case MP_CLASS_PERMANENT:
		case MP_CLASS_DEPLOY:
			break;
	}
	return false;
}

/* ------------------------------------------------------------------------
 * Dates of HTTP
 * ------------------------------------------------------------------------ */

/* Days since 1970-01-01; the year begins in March, so that February is its end. */
static int64_t
days_of_date(int year, int month, int day)
{
	int64_t		y = month <= 2 ? year - 1 : year;
	int64_t		m = month <= 2 ? month + 9 : month - 3;

	return 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719468;
}

static int
month_of_name(const char *name)
{
	static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";

	for (int i = 0; i < 12; i++)
		if (strncmp(name, &months[3 * i], 3) == 0)
			return i + 1;
	return 0;
}

/* The three forms that a recipient has to know; seconds since 1970. */
static bool
read_date(const char *text, double now, double *seconds)
{
	char		month_name[4] = "";
	char		zone[4] = "";
	int			year = 0;
	int			month;
	int			day = 0;
	int			hour = 0;
	int			minute = 0;
	int			second = 0;
	bool		read;

	read = sscanf(text, "%*3[A-Za-z], %2d %3[A-Za-z] %4d %2d:%2d:%2d %3s",
				  &day, month_name, &year, &hour, &minute, &second, zone) == 7 && strcmp(zone, "GMT") == 0;
	if (!read)
	{
		int			latest = (int) (1970 + now / (365.2425 * 86400)) + 50;

		read = sscanf(text, "%*9[A-Za-z], %2d-%3[A-Za-z]-%2d %2d:%2d:%2d %3s",
					  &day, month_name, &year, &hour, &minute, &second, zone) == 7 && strcmp(zone, "GMT") == 0;
		/* of two digits: the last such year that is no more than 50 years ahead */
		year = latest - (latest - year) % 100;
	}
	if (!read)
		read = sscanf(text, "%*3[A-Za-z] %3[A-Za-z] %2d %2d:%2d:%2d %4d",
					  month_name, &day, &hour, &minute, &second, &year) == 6;
	month = month_of_name(month_name);
	if (!read || month == 0 || year < 1970 || day < 1 || day > 31 ||
		hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 60)
		return false;
	*seconds = (double) days_of_date(year, month, day) * 86400 + hour * 3600 + minute * 60 + second;
	return true;
}

/* ------------------------------------------------------------------------
 * The words of a detail
 * ------------------------------------------------------------------------ */

/* What follows "name=" at the beginning of a word; NULL: it is not there. */
static const char *
value_of_word(const char *detail, const char *name)
{
	size_t		len = strlen(name);

	for (const char *word = detail; *word != '\0'; word++)
	{
		if ((word == detail || isspace((unsigned char) word[-1])) &&
			strncmp(word, name, len) == 0 && word[len] == '=')
			return word + len + 1;
	}
	return NULL;
}

static bool
read_retry_after(const char *value, double now, double *seconds)
{
	double		date;

	/* digits first: strtod takes "inf" and hexadecimal for numbers, too */
	if (isdigit((unsigned char) *value))
	{
		size_t		len = strspn(value, "0123456789.");
		char	   *end;

		*seconds = strtod(value, &end);
		return end == value + len && (*end == '\0' || isspace((unsigned char) *end));
	}
	if (!read_date(value, now, &date))
		return false;
	*seconds = date > now ? date - now : 0;
	return true;
}

MpErrorAdvice
mp_error_advice(const char *detail, double now)
{
	MpErrorAdvice advice = {{0}, false, 0};
	const char *value;

	if (detail == NULL)
		return advice;
	value = value_of_word(detail, "code");
	if (value != NULL)
	{
		size_t		len = strcspn(value, " \t\r\n\f\v");

		if (len < sizeof(advice.code))
			memcpy(advice.code, value, len);
	}
	value = value_of_word(detail, "retry_after");
	if (value != NULL)
		advice.has_retry_after = read_retry_after(value, now, &advice.retry_after);
	if (!advice.has_retry_after)
		advice.retry_after = 0;
	return advice;
}
