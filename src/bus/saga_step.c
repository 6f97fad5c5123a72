/*
 * saga_step.c
 *		Steps that services do: claimed, completed, failed.
 *
 * A claim counts as the begin of an attempt and is in the log before the worker
 * gets it.  The token leads to the row of the step; what counts is decided under
 * the lock of the saga's row, by the run that the machine has given the attempt.
 * A lease that is over ends when somebody notices: until then a completion that
 * comes late is as good as any.
 */
#include "bus/saga.h"

#include "bus/position.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "pgcompat.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

#define MOST_STEPS			1000
#define LONGEST_LEASE		86400.0

PG_FUNCTION_INFO_V1(mp_claim_saga_steps);
PG_FUNCTION_INFO_V1(mp_complete_saga_step);
PG_FUNCTION_INFO_V1(mp_fail_saga_step);
PG_FUNCTION_INFO_V1(mp_extend_saga_step);

static double
lease_argument(FunctionCallInfo fcinfo, int arg, double otherwise)
{
	double		seconds = PG_ARGISNULL(arg) ? otherwise : PG_GETARG_FLOAT8(arg);

	if (!(seconds > 0 && seconds <= LONGEST_LEASE))
		mp_refuse_argument("lease_seconds must be above 0 and at most 86400");
	return seconds;
}

/* ------------------------------------------------------------------------
 * Claiming
 * ------------------------------------------------------------------------ */

typedef struct Candidate
{
	pg_uuid_t	saga;
	char	   *step;
} Candidate;

/*
 * Steps that are due, and the lock of their sagas; what others have locked is
 * passed over.  The saga comes first: of one that is passed over no step stays
 * locked, for which those who have it in hand would wait.
 */
static int
find_candidates(Datum account, Datum service, int most, Candidate **candidates, Datum *sagas)
{
	static MpPlan plan = {
		.sql = "SELECT o.saga_id, o.step FROM meal_planner.saga_step o"
		" JOIN meal_planner.saga s ON s.account OPERATOR(pg_catalog.=) o.account AND s.id OPERATOR(pg_catalog.=) o.saga_id"
		" WHERE o.account OPERATOR(pg_catalog.=) $1 AND o.service OPERATOR(pg_catalog.=) $2"
		" AND o.token IS NULL AND o.service IS NOT NULL AND o.due_at OPERATOR(pg_catalog.<=) $3"
		" AND s.account OPERATOR(pg_catalog.=) $1"
		" ORDER BY o.account, o.service, o.due_at LIMIT $4 FOR UPDATE OF s, o SKIP LOCKED",
	.types = {TEXTOID, TEXTOID, TIMESTAMPTZOID, INT4OID}, .in_index_order = true};
	Datum		values[4] = {account, service, TimestampTzGetDatum(mp_clock_now()), Int32GetDatum(most)};
	Datum	   *ids;
	int			count;
	bool		isnull;

	mp_plan_execute(&plan, values, NULL, 0);
	count = (int) SPI_processed;
	*candidates = palloc(sizeof(Candidate) * Max(count, 1));
	ids = palloc(sizeof(Datum) * Max(count, 1));
	for (int i = 0; i < count; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];

		(*candidates)[i].saga = *DatumGetUUIDP(SPI_getbinval(row, SPI_tuptable->tupdesc, 1, &isnull));
		(*candidates)[i].step = SPI_getvalue(row, SPI_tuptable->tupdesc, 2);
		ids[i] = UUIDPGetDatum(&(*candidates)[i].saga);
	}
	if (count > 0)
		*sagas = mp_array(ids, count, UUIDOID);
	return count;
}

/* The step's breaker lets it be called; else it waits, and no attempt counts. */
static bool
ask_breaker(MpSagaHand *hand, MpSagaInstance *instance, int step, MpSagaOut *out)
{
	const char *name = instance->program->definition->steps[step].breaker;
	MpBreakerPlace *place;
	MpBreakerAnswer answer;

	out->permit = 0;
	if (name == NULL)
		return true;
	place = mp_breaker_find(name);
	answer = mp_breaker_ask(place);
	if (answer.allowed)
	{
		out->permit = answer.permit;
		mp_breaker_lend(place, answer.permit);
	}
	else
	{
		out->due_at = answer.retry_at == INT64_MAX ? hand->now + 60 * USECS_PER_SEC : Max(answer.retry_at, hand->now + 1);
		out->changed = instance->changed = true;
	}
	return answer.allowed;
}

/* What a lease may last: no longer than one attempt of the step. */
static void
set_lease(const MpSagaHand *hand, const MpSagaInstance *instance, int step, double seconds)
{
	MpSagaOut  *out = &instance->out[step];
	double		timeout = instance->program->definition->steps[step].timeout_seconds;

	out->lease_until = hand->now + (int64) (seconds * USECS_PER_SEC);
	if (timeout > 0)
		out->lease_until = Min(out->lease_until, out->started_at + (int64) (timeout * USECS_PER_SEC));
}

/* False: it may not begin now. */
static bool
claim_step(MpSagaHand *hand, MpSagaInstance *instance, int step, double seconds)
{
	MpSagaOut  *out = &instance->out[step];
	MpSagaEntry *entry;

	/* the deadline may have passed, for one */
	mp_saga_go_on(hand, instance);
	if (!out->wanted || out->leased || out->due_at > hand->now || !ask_breaker(hand, instance, step, out))
		return false;
	if (mp_saga_begin(instance->program->definition, &instance->saga, step, out->undo) != MP_SAGA_OK)
		return false;
	out->attempt = instance->saga.step[step].attempt;
	out->run = instance->saga.step[step].run;
	out->leased = out->changed = instance->changed = true;
	out->started_at = hand->now;
	if (out->first_at == 0)
		out->first_at = hand->now;
	mp_position_make_uuid(mp_position_next(), &out->token);
	set_lease(hand, instance, step, seconds);
	entry = mp_saga_note(hand, instance, "started");
	entry->step = step;
	entry->undo = out->undo;
	entry->attempt = out->attempt;
	mp_saga_note_state(hand, instance);
	mp_saga_go_on(hand, instance);
	return true;
}

static void
return_step(Tuplestorestate *store, TupleDesc desc, MpSagaInstance *instance, int step)
{
	const MpSagaOut *out = &instance->out[step];
	bool		nulls[7] = {false};
	Datum		values[7] = {
		UUIDPGetDatum(&out->token), UUIDPGetDatum(&instance->id),
		CStringGetTextDatum(instance->program->definition->steps[step].name),
		CStringGetTextDatum(out->undo ? "compensate" : "forward"), Int32GetDatum(out->attempt),
		CStringGetTextDatum(mp_saga_step_key(instance, step, out->undo)),
		JsonbPGetDatum(mp_saga_argument(instance, step, out->undo, out->attempt))
	};

	tuplestore_putvalues(store, desc, values, nulls);
}

/* Its definition is gone: it must not lie in the way of others for ever. */
static void
put_off_candidate(Datum account, const Candidate *candidate)
{
	static MpPlan plan = {
		.sql = "UPDATE meal_planner.saga_step o SET due_at = $4 WHERE o.account OPERATOR(pg_catalog.=) $1"
		" AND o.saga_id OPERATOR(pg_catalog.=) $2 AND o.step OPERATOR(pg_catalog.=) $3",
	.types = {TEXTOID, UUIDOID, TEXTOID, TIMESTAMPTZOID}, .in_index_order = true};
	Datum		values[4] = {
		account, UUIDPGetDatum(&candidate->saga), CStringGetTextDatum(candidate->step),
		TimestampTzGetDatum(mp_clock_now() + 60 * USECS_PER_SEC)
	};

	mp_plan_execute(&plan, values, NULL, 0);
}

static MpSagaInstance *
instance_of_candidate(MpSagaHand *hand, const Candidate *candidate)
{
	for (int i = 0; i < hand->count; i++)
		if (memcmp(&hand->instances[i].id, &candidate->saga, sizeof(pg_uuid_t)) == 0)
			return &hand->instances[i];
	return NULL;
}

Datum
mp_claim_saga_steps(PG_FUNCTION_ARGS)
{
	int			most = PG_ARGISNULL(1) ? 10 : PG_GETARG_INT32(1);
	double		seconds = lease_argument(fcinfo, 2, 60);
	Datum		account = PG_ARGISNULL(3) ? CStringGetTextDatum("local") : PG_GETARG_DATUM(3);
	Tuplestorestate *store;
	TupleDesc	desc;
	Candidate  *candidates;
	Datum		sagas;
	int			count;

	mp_require_preload();
	if (PG_ARGISNULL(0))
		mp_refuse_argument("service must not be NULL");
	if (most < 1 || most > MOST_STEPS)
		mp_refuse_argument("max_steps must be between 1 and %d", MOST_STEPS);
	store = mp_begin_rows(fcinfo, &desc);
	mp_spi_connect();
	count = find_candidates(account, PG_GETARG_DATUM(0), most, &candidates, &sagas);
	if (count > 0)
	{
		MpSagaHand *hand = mp_saga_take_locked(account, sagas);
		int			claimed = 0;
		struct
		{
			MpSagaInstance *instance;
			int			step;
		}		   *claims = palloc(sizeof(*claims) * count);

		for (int i = 0; i < count; i++)
		{
			MpSagaInstance *instance = instance_of_candidate(hand, &candidates[i]);
			int			step = instance == NULL || instance->broken ? -1
				: mp_saga_find_step(instance->program->definition, candidates[i].step, strlen(candidates[i].step));

			if (step < 0)
				put_off_candidate(account, &candidates[i]);
			if (step < 0 || !claim_step(hand, instance, step, seconds))
				continue;
			claims[claimed].instance = instance;
			claims[claimed++].step = step;
		}
		mp_saga_put_down(hand);
		for (int i = 0; i < claimed; i++)
			return_step(store, desc, claims[i].instance, claims[i].step);
	}
	mp_spi_finish();
	return (Datum) 0;
}

/* ------------------------------------------------------------------------
 * Outcomes
 * ------------------------------------------------------------------------ */

/* The saga and the step that a token holds, with the lock of the saga. */
static MpSagaHand *
take_by_token(const pg_uuid_t *token, int *step)
{
	static MpPlan plan = {
		.sql = "SELECT o.account, o.saga_id, o.step FROM meal_planner.saga_step o"
		" WHERE o.token OPERATOR(pg_catalog.=) $1",
	.types = {UUIDOID}, .in_index_order = true};
	Datum		values[1] = {UUIDPGetDatum(token)};
	MpSagaHand *hand;
	MpSagaInstance *instance;
	Datum		account;
	pg_uuid_t	id;
	char	   *name;
	bool		isnull;

	mp_plan_read_latest(&plan, values, NULL, 1);
	if (SPI_processed == 0)
		return NULL;
	account = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	id = *DatumGetUUIDP(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull));
	name = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 3);
	hand = mp_saga_take(account, &id);
	if (hand->count == 0)
		return NULL;
	instance = &hand->instances[0];
	if (instance->broken)
		mp_saga_tell_broken(instance, ERROR);
	*step = mp_saga_find_step(instance->program->definition, name, strlen(name));
	/* it may have been lost while we waited for the lock */
	if (*step < 0 || !instance->out[*step].leased ||
		memcmp(&instance->out[*step].token, token, sizeof(pg_uuid_t)) != 0)
		return NULL;
	return hand;
}

/* The answer: the saga's state, or lease_lost. */
static text *
report_by_token(const pg_uuid_t *token, MpSagaAttempt *attempt)
{
	MpSagaHand *hand;
	const char *answer = "lease_lost";

	mp_require_preload();
	mp_spi_connect();
	hand = take_by_token(token, &attempt->step);
	if (hand != NULL)
	{
		MpSagaInstance *instance = &hand->instances[0];

		attempt->undo = instance->out[attempt->step].undo;
		attempt->run = instance->out[attempt->step].run;
		if (mp_saga_settle(hand, instance, attempt))
		{
			mp_saga_go_on(hand, instance);
			mp_saga_put_down(hand);
			mp_saga_wake_sweep(hand);
			answer = mp_saga_state_name(instance->saga.state);
		}
	}
	mp_spi_finish();
	return cstring_to_text(answer);
}

Datum
mp_complete_saga_step(PG_FUNCTION_ARGS)
{
	MpSagaAttempt attempt = {.outcome = MP_SAGA_OUTCOME_SUCCESS};

	if (PG_ARGISNULL(0))
		mp_refuse_argument("token must not be NULL");
	attempt.result = PG_ARGISNULL(1) ? NULL : PG_GETARG_JSONB_P(1);
	if (attempt.result != NULL && VARSIZE(attempt.result) > MP_SAGA_RESULT_BYTES)
		mp_refuse_argument("result must not be larger than 512 KiB");
	PG_RETURN_TEXT_P(report_by_token(PG_GETARG_UUID_P(0), &attempt));
}

Datum
mp_fail_saga_step(PG_FUNCTION_ARGS)
{
	MpSagaAttempt attempt = {0};
	char	   *type = PG_ARGISNULL(1) ? "" : text_to_cstring(PG_GETARG_TEXT_PP(1));
	char	   *message = PG_ARGISNULL(2) ? "no message" : text_to_cstring(PG_GETARG_TEXT_PP(2));

	if (PG_ARGISNULL(0))
		mp_refuse_argument("token must not be NULL");
	if (strcmp(type, "transient") == 0)
		attempt.outcome = MP_SAGA_OUTCOME_TRANSIENT;
	else if (strcmp(type, "permanent") == 0)
		attempt.outcome = MP_SAGA_OUTCOME_PERMANENT;
	else if (strcmp(type, "unknown") == 0)
		attempt.outcome = MP_SAGA_OUTCOME_UNKNOWN;
	else
		mp_refuse_argument("error_type must be transient, permanent or unknown");
	if (strlen(message) > MP_SAGA_MESSAGE_BYTES)
		mp_refuse_argument("error_message must not be longer than %d bytes", MP_SAGA_MESSAGE_BYTES);
	attempt.error_type = type;
	attempt.message = message;
	PG_RETURN_TEXT_P(report_by_token(PG_GETARG_UUID_P(0), &attempt));
}

Datum
mp_extend_saga_step(PG_FUNCTION_ARGS)
{
	double		seconds = lease_argument(fcinfo, 1, 60);
	MpSagaHand *hand;
	int			step;
	bool		extended = false;

	mp_require_preload();
	if (PG_ARGISNULL(0))
		mp_refuse_argument("token must not be NULL");
	mp_spi_connect();
	hand = take_by_token(PG_GETARG_UUID_P(0), &step);
	if (hand != NULL)
	{
		set_lease(hand, &hand->instances[0], step, seconds);
		hand->instances[0].out[step].changed = true;
		mp_saga_go_on(hand, &hand->instances[0]);
		/* its timeout may be over, or the saga's deadline, and it is not waited for */
		extended = hand->instances[0].out[step].leased;
		mp_saga_put_down(hand);
		if (!extended)
			mp_saga_wake_sweep(hand);
	}
	mp_spi_finish();
	PG_RETURN_BOOL(extended);
}
