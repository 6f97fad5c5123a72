/*
 * rfc3339.c
 *		Reading of dates and times as RFC 3339 writes them.
 */
#include "envelope.h"

#define MICROSECONDS INT64_C(1000000)
#define SECONDS_PER_DAY 86400

/* Reads exactly so many digits and moves on; -1 when they are not there. */
static int
read_digits(const char **p, const char *end, int count)
{
	int			value = 0;

	for (; count > 0; count--, (*p)++)
	{
		if (*p == end || **p < '0' || **p > '9')
			return -1;
		value = value * 10 + (**p - '0');
	}
	return value;
}

static bool
skip(const char **p, const char *end, char expected)
{
	if (*p == end || **p != expected)
		return false;
	(*p)++;
	return true;
}

static int
days_in_month(int year, int month)
{
	static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};

	if (month == 2 && year % 4 == 0 && (year % 100 != 0 || year % 400 == 0))
		return 29;
	return days[month - 1];
}

/*
 * Days since 1970-01-01 in the Gregorian calendar.  Years begin in March here,
 * so that the leap day is the last of its year.
 */
static int64_t
days_since_epoch(int year, int month, int day)
{
	int			y = month > 2 ? year : year - 1;
	int			m = month > 2 ? month - 3 : month + 9;
	int			leap_days;

	/* year 0 begins in year -1 here; C would round that towards zero */
	leap_days = y < 0 ? -1 : y / 4 - y / 100 + y / 400;
	return (int64_t) y * 365 + leap_days + (153 * m + 2) / 5 + day - 719469;
}

static bool
read_date(const char **p, const char *end, int64_t *days)
{
	int			year = read_digits(p, end, 4);
	int			month;
	int			day;

	if (year < 0 || !skip(p, end, '-'))
		return false;
	month = read_digits(p, end, 2);
	if (month < 1 || month > 12 || !skip(p, end, '-'))
		return false;
	day = read_digits(p, end, 2);
	if (day < 1 || day > days_in_month(year, month))
		return false;
	*days = days_since_epoch(year, month, day);
	return true;
}

/* An optional fraction of a second. */
static bool
read_fraction(const char **p, const char *end, int64_t *microseconds)
{
	int64_t		unit = MICROSECONDS / 10;
	int			ndigits = 0;

	*microseconds = 0;
	if (!skip(p, end, '.'))
		return true;
	for (; *p < end && **p >= '0' && **p <= '9'; (*p)++, ndigits++)
	{
		*microseconds += (**p - '0') * unit;
		unit /= 10;
	}
	return ndigits >= 1 && ndigits <= 9;
}

/* The distance of local time from UTC in seconds. */
static bool
read_offset(const char **p, const char *end, int *seconds)
{
	int			sign;
	int			hour;
	int			minute;

	*seconds = 0;
	if (skip(p, end, 'Z') || skip(p, end, 'z'))
		return true;
	if (skip(p, end, '+'))
		sign = 1;
	else if (skip(p, end, '-'))
		sign = -1;
	else
		return false;
	hour = read_digits(p, end, 2);
	if (hour < 0 || hour > 23 || !skip(p, end, ':'))
		return false;
	minute = read_digits(p, end, 2);
	if (minute < 0 || minute > 59)
		return false;
	*seconds = sign * (hour * 3600 + minute * 60);
	return true;
}

bool
mp_rfc3339_parse(const char *text, size_t len, int64_t *unix_microseconds)
{
	const char *p = text;
	const char *end;
	int64_t		days;
	int64_t		seconds;
	int64_t		microseconds;
	int64_t		hour;
	int64_t		minute;
	int64_t		second;
	int			offset;

	if (len == 0)
		return false;
	end = text + len;

	if (!read_date(&p, end, &days) ||
		!(skip(&p, end, 'T') || skip(&p, end, 't') || skip(&p, end, ' ')))
		return false;
	hour = read_digits(&p, end, 2);
	if (hour < 0 || hour > 23 || !skip(&p, end, ':'))
		return false;
	minute = read_digits(&p, end, 2);
	if (minute < 0 || minute > 59 || !skip(&p, end, ':'))
		return false;
	second = read_digits(&p, end, 2);
	if (second < 0 || second > 60 || !read_fraction(&p, end, &microseconds) ||
		!read_offset(&p, end, &offset) || p != end)
		return false;

	seconds = days * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second - offset;
	if (second == 60)
	{
		/* the second after it must be the first of a day */
		if (seconds % SECONDS_PER_DAY != 0)
			return false;
		seconds--;
		microseconds = MICROSECONDS - 1;
	}
	*unix_microseconds = seconds * MICROSECONDS + microseconds;
	return true;
}
