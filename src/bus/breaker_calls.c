/*
 * breaker_calls.c
 *		Circuit breakers for callers outside: acquire, report, configure, force.
 *
 * A breaker stands outside of transactions: what these functions do holds at
 * once, for everybody, and is not undone by a ROLLBACK.
 */
#include "bus/breaker.h"

#include "access/xlog.h"
#include "bus/errand.h"
#include "bus/position.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#define LONGEST_WAIT_MS 5000

PG_FUNCTION_INFO_V1(mp_breaker_configure_call);
PG_FUNCTION_INFO_V1(mp_breaker_acquire_call);
PG_FUNCTION_INFO_V1(mp_breaker_report_call);
PG_FUNCTION_INFO_V1(mp_breaker_force_call);
PG_FUNCTION_INFO_V1(mp_breaker_retry_at_call);

static const char *
name_argument(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(0) || VARSIZE_ANY_EXHDR(PG_GETARG_TEXT_PP(0)) == 0 ||
		VARSIZE_ANY_EXHDR(PG_GETARG_TEXT_PP(0)) > MP_BREAKER_NAME_BYTES)
		mp_refuse_argument("name must have between 1 and %d bytes", MP_BREAKER_NAME_BYTES);
	return text_to_cstring(PG_GETARG_TEXT_PP(0));
}

/* ------------------------------------------------------------------------
 * Calls
 * ------------------------------------------------------------------------ */

static Datum
jsonb_of(const char *text)
{
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(text));
}

/* The answer of a closed breaker is the same for everybody; made once. */
static Jsonb *
answer_of_closed(int64 permit)
{
	static Jsonb *answer = NULL;
	static int64 answered = 0;
	Jsonb	   *copy;

	if (answer == NULL || answered != permit)
	{
		Jsonb	   *made = DatumGetJsonbP(jsonb_of(psprintf("{\"allowed\":true,\"state\":\"closed\",\"permit\":" INT64_FORMAT "}", permit)));
		Jsonb	   *kept = MemoryContextAlloc(TopMemoryContext, VARSIZE(made));

		memcpy(kept, made, VARSIZE(made));
		if (answer != NULL)
			pfree(answer);
		answer = kept;
		answered = permit;
	}
	copy = palloc(VARSIZE(answer));
	memcpy(copy, answer, VARSIZE(answer));
	return copy;
}

static const char *
retry_after(TimestampTz retry_at)
{
	if (retry_at == INT64_MAX)
		return "null";
	return psprintf("%.6f", Max(retry_at - mp_clock_now(), 0) / (double) USECS_PER_SEC);
}

Datum
mp_breaker_acquire_call(PG_FUNCTION_ARGS)
{
	const char *name = name_argument(fcinfo);
	MpBreakerPlace *place = mp_breaker_find(name);
	MpBreakerAnswer answer = mp_breaker_ask(place);

	if (answer.allowed && !mp_permit_is_probe(answer.permit))
		PG_RETURN_JSONB_P(answer_of_closed(answer.permit));
	mp_breaker_store(place, name);
	if (answer.allowed)
		return jsonb_of(psprintf("{\"allowed\":true,\"state\":\"half-open\",\"permit\":" INT64_FORMAT "}", answer.permit));
	return jsonb_of(psprintf("{\"allowed\":false,\"state\":\"%s\",\"retry_after\":%s}",
							 mp_breaker_state_name(mp_breaker_state(place)), retry_after(answer.retry_at)));
}

static MpBreakerOutcome
outcome_argument(FunctionCallInfo fcinfo)
{
	const char *word = PG_ARGISNULL(2) ? "" : text_to_cstring(PG_GETARG_TEXT_PP(2));

	if (strcmp(word, "success") == 0)
		return MP_OUTCOME_SUCCESS;
	if (strcmp(word, "failure") == 0)
		return MP_OUTCOME_FAILURE;
	if (strcmp(word, "ignored") != 0)
		mp_refuse_argument("outcome must be success, failure or ignored");
	return MP_OUTCOME_IGNORED;
}

Datum
mp_breaker_report_call(PG_FUNCTION_ARGS)
{
	const char *name = name_argument(fcinfo);
	MpBreakerOutcome outcome = outcome_argument(fcinfo);
	double		milliseconds = PG_ARGISNULL(3) ? 0 : PG_GETARG_FLOAT8(3);
	MpBreakerPlace *place;
	const char *state;

	if (PG_ARGISNULL(1))
		mp_refuse_argument("permit must not be NULL");
	if (!(milliseconds >= 0))
		mp_refuse_argument("duration_ms must not be negative");
	place = mp_breaker_find(name);
	mp_breaker_tell(place, PG_GETARG_INT64(1), outcome,
					!PG_ARGISNULL(3) && mp_breaker_is_slow(place, milliseconds / 1000), 1);
	/* Before, not after: what somebody else changes meanwhile is not stored. */
	state = mp_breaker_state_name(mp_breaker_state(place));
	mp_breaker_store(place, name);
	PG_RETURN_TEXT_P(cstring_to_text(state));
}

/* Until then the sweep leaves a subscription's cursor where it is. */
Datum
mp_breaker_retry_at_call(PG_FUNCTION_ARGS)
{
	TimestampTz retry_at = 0;

	/* neither an option that was written by hand nor one without a place must end the sweep of all others */
	if (!PG_ARGISNULL(0) && VARSIZE_ANY_EXHDR(PG_GETARG_TEXT_PP(0)) <= MP_BREAKER_NAME_BYTES)
	{
		MpBreakerPlace *place = mp_breaker_find_if_room(text_to_cstring(PG_GETARG_TEXT_PP(0)));

		retry_at = place != NULL ? mp_breaker_retry_at(place) : mp_breaker_retry_without_room();
	}
	if (retry_at == 0)
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(retry_at);
}

/* ------------------------------------------------------------------------
 * Operators
 * ------------------------------------------------------------------------ */

Datum
mp_breaker_configure_call(PG_FUNCTION_ARGS)
{
	const char *name = name_argument(fcinfo);
	Jsonb	   *options = PG_ARGISNULL(1) ? NULL : PG_GETARG_JSONB_P(1);
	MpBreakerPlace *place;
	MpBreakerRow row;
	MpErrandResult result = {0};
	MpErrand	errand = {
		.database = MyDatabaseId, .role = mp_owner(), .internal = true, .timeout_ms = LONGEST_WAIT_MS
	};

	(void) mp_breaker_config_of_jsonb(options);
	place = mp_breaker_find(name);
	errand.command = psprintf("SELECT meal_planner.save_breaker(%s, %s)", quote_literal_cstr(name),
							  quote_literal_cstr(options == NULL ? "{}" : JsonbToCString(NULL, &options->root, 0)));
	if (strlen(errand.command) >= MP_ERRAND_COMMAND_BYTES)
		mp_refuse_argument("options are too long");
	if (mp_errand_run(&errand, &result) != MP_ERRAND_DONE)
		ereport(ERROR,
				(errcode(MP_ERRCODE_UNAVAILABLE),
				 errmsg("MP503: circuit breaker \"%s\" could not be configured", name),
				 errdetail("A background worker writes it: %s.", result.answer[0] ? result.answer : "none was free, or it took too long"),
				 errhint("retry=yes. See max_worker_processes, and commit what creates the extension first.")));
	mp_breaker_read_row(name, mp_clock_now(), &row);
	mp_breaker_apply_config(place, &row.config, row.config_version);
	mp_breaker_store(place, name);
	PG_RETURN_VOID();
}

Datum
mp_breaker_force_call(PG_FUNCTION_ARGS)
{
	const char *name = name_argument(fcinfo);
	const char *word = PG_ARGISNULL(1) ? "" : text_to_cstring(PG_GETARG_TEXT_PP(1));
	TimestampTz until = PG_ARGISNULL(2) ? 0 : PG_GETARG_TIMESTAMPTZ(2);
	const char *reason = PG_ARGISNULL(3) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(3));
	MpBreakerForce force = MP_FORCE_NONE;
	MpBreakerPlace *place;

	if (strcmp(word, "open") == 0)
		force = MP_FORCE_OPEN;
	else if (strcmp(word, "closed") == 0)
		force = MP_FORCE_CLOSED;
	else if (strcmp(word, "auto") != 0)
		mp_refuse_argument("state must be open, closed or auto");
	if (until == DT_NOEND)
		until = 0;
	if (force == MP_FORCE_NONE && until != 0)
		mp_refuse_argument("until must be NULL for state auto");
	if (until != 0 && until <= mp_clock_now())
		mp_refuse_argument("until must be a time to come");
	if (reason != NULL && strlen(reason) >= MP_BREAKER_WORDS_BYTES)
		mp_refuse_argument("reason must have at most %d bytes", MP_BREAKER_WORDS_BYTES - 1);

	place = mp_breaker_find(name);
	/* the function runs as its owner, which tells nothing */
	mp_breaker_apply_force(place, force, until, GetUserNameFromId(GetOuterUserId(), false), reason);
	mp_breaker_store(place, name);
	PG_RETURN_VOID();
}
