/*
 * error_class.c
 *		What the error of a failure means.
 *
 * A code becomes a class by the rows of meal_planner.error_class.  A handler
 * can only raise an SQLSTATE: what its service answered it says in the detail
 * of MPR01, and when to try again in that of MPR01 or MPT01.
 */
#include "bus/error_class.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"

/* Seconds from 1970 to the epoch of the server's times. */
#define EPOCH_OF_SERVER	((POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * (double) SECS_PER_DAY)

static MpErrorClass
class_of_code(const MpSubscription *subscription, const char *code)
{
	static MpPlan plan = {
		.sql = "SELECT meal_planner.classify_error($1, $2)",
	.types = {TEXTOID, TEXTOID}};
	Datum		values[2] = {CStringGetTextDatum(code), CStringGetTextDatum(subscription->name)};
	MpErrorClass class = MP_CLASS_TRANSIENT;

	mp_plan_execute(&plan, values, NULL, 1);
	(void) mp_error_class_of_name(SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1), &class);
	return class;
}

static bool
is_code(const MpFailure *failure, const char *code)
{
	return failure->sqlstate != NULL && strcmp(failure->sqlstate, code) == 0;
}

void
mp_classify_failure(const MpSubscription *subscription, const MpFailure *failure, MpFailedAttempt *attempt)
{
	MpErrorAdvice advice = {0};
	const char *code = failure->sqlstate;

	if (is_code(failure, "MPR01") || is_code(failure, "MPT01"))
		advice = mp_error_advice(failure->detail, mp_clock_now() / (double) USECS_PER_SEC + EPOCH_OF_SERVER);
	if (is_code(failure, "MPR01") && advice.code[0] != '\0')
		code = advice.code;
	attempt->has_retry_after = failure->has_retry_after || advice.has_retry_after;
	attempt->retry_after = failure->has_retry_after ? failure->retry_after : advice.retry_after;
	attempt->retry_after = Min(attempt->retry_after, MP_MAX_DELAY);
	attempt->class = failure->has_class ? failure->class
		: code == NULL ? MP_CLASS_TRANSIENT : class_of_code(subscription, code);
}
