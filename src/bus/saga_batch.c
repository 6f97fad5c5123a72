/*
 * saga_batch.c
 *		Sagas that a worker goes on with: their functions called.
 *
 * It goes on with many in one transaction: all of them in one subtransaction,
 * and where that failed, the saga that did it step by step, each in one of its
 * own.  A saga that a worker died with makes one step, alone, so that the next
 * death tells which step it is.
 */
#include "bus/saga.h"

#include "bus/json_member.h"
#include "bus/position.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"

/* As for batches of events: 64 in one transaction overflow a cache that all share. */
#define MAX_SUBTRANSACTIONS 50

/* As many as take so long, within limits; fewer while they fail. */
#define FEW_SAGAS			10
#define MANY_SAGAS			500
#define BATCH_US			100000

/* What is missing may come again; a breaker that is forced open may be released. */
#define PATIENCE_US			(60 * USECS_PER_SEC)

static int	batch_size = FEW_SAGAS;

PG_FUNCTION_INFO_V1(mp_run_sagas);
PG_FUNCTION_INFO_V1(mp_saga_crashed);
PG_FUNCTION_INFO_V1(mp_saga_batch_size);

static const MpSagaStep *
step_of(const MpSagaInstance *instance, int step)
{
	return &instance->program->definition->steps[step];
}

/* ------------------------------------------------------------------------
 * Functions
 * ------------------------------------------------------------------------ */

static void
begin(MpSagaInstance *instance, int step, bool undo)
{
	if (mp_saga_begin(instance->program->definition, &instance->saga, step, undo) != MP_SAGA_OK)
		elog(ERROR, "step \"%s\" of a saga cannot begin", step_of(instance, step)->name);
}

/* A step that may not be called now: it waits, and no attempt counts. */
static void
hold_back(MpSagaInstance *instance, int step, bool undo, TimestampTz due)
{
	MpSagaOut  *out = &instance->out[step];

	if (!out->wanted || out->undo != undo)
		*out = (MpSagaOut) {.stored = out->stored};
	out->wanted = out->changed = true;
	out->undo = undo;
	out->due_at = due;
	instance->changed = true;
}

/*
 * The function or something it needs is missing: no fault of the saga, and no
 * reason to turn back.  It may be there after the next deployment.
 */
static void
wait_for_deployment(MpSagaHand *hand, MpSagaInstance *instance, int step, bool undo, const MpSaga *before,
					const MpFailure *failure)
{
	MpSagaEntry *entry = mp_saga_note(hand, instance, "failed");

	entry->step = step;
	entry->undo = undo;
	entry->attempt = instance->saga.step[step].attempt;
	entry->detail = mp_json_of_texts("type", "deploy", "sqlstate", failure->sqlstate, "message", failure->message,
									 "then", "retry", "after_seconds", "60", NULL);
	instance->saga = *before;
	hold_back(instance, step, undo, hand->now + PATIENCE_US);
	mp_saga_note_alert(hand, instance, step, false, failure->sqlstate, failure->message);
}

/* Sagas that run in one subtransaction, from one to the next in their order. */
typedef struct Stretch
{
	MpSagaHand *hand;
	MpSagaInstance **order;
	int			first;
	int			end;
	volatile int at;			/* the one that is running */
	volatile int calls;			/* that it has made */
	volatile int step;			/* whose function is running */
	volatile bool undo;
	MpTimeLimit limit;
	MpSagaRoutine *routine;		/* whose role and path are worn */
	MpSagaProgram *program;
	MpGuise		guise;
} Stretch;

/* Steps of it are out, or wait: their leases and breakers are to be seen to. */
static bool
has_rows(const MpSagaInstance *instance)
{
	for (int step = 0; step < instance->program->definition->step_count; step++)
		if (instance->out[step].stored)
			return true;
	return false;
}

/* Functions of one definition that have no path of their own share a guise. */
static void
take_off(Stretch *stretch)
{
	if (stretch->program != NULL)
		mp_guise_end(&stretch->guise);
	stretch->program = NULL;
}

static void
wear(Stretch *stretch, MpSagaProgram *program, MpSagaRoutine *routine)
{
	if (stretch->program == program && !routine->sets_path && !stretch->routine->sets_path)
		return;
	take_off(stretch);
	stretch->program = program;
	stretch->routine = routine;
	stretch->guise = mp_guise_begin(program->role, routine->sets_path ? NULL : program->path);
}

static void
run_together(void *argument)
{
	Stretch    *stretch = argument;
	MpSagaHand *hand = stretch->hand;

	for (int i = stretch->first; i < stretch->end; i++)
	{
		MpSagaInstance *instance = stretch->order[i];
		bool		undo;
		int			step;

		stretch->at = i;
		stretch->calls = 0;
		stretch->step = -1;
		/* what is ours is not done in a guise */
		if (stretch->program != instance->program || has_rows(instance))
			take_off(stretch);
		while ((step = mp_saga_prepare(hand, instance, &undo)) >= 0)
		{
			MpSagaRoutine *routine;
			MpSagaAttempt attempt = {.step = step, .undo = undo, .outcome = MP_SAGA_OUTCOME_SUCCESS};

			stretch->step = step;
			stretch->undo = undo;
			routine = mp_saga_routine(instance->program, step, undo);
			wear(stretch, instance->program, routine);
			begin(instance, step, undo);
			attempt.run = instance->saga.step[step].run;
			attempt.result = mp_saga_invoke(instance, step, undo, routine, &stretch->limit);
			if (!mp_saga_settle(hand, instance, &attempt))
				elog(ERROR, "outcome of a step of a saga was refused");
			stretch->calls++;
		}
	}
	take_off(stretch);
}

/* One call in a subtransaction of its own. */
typedef struct Single
{
	MpSagaInstance *instance;
	int			step;
	bool		undo;
	MpTimeLimit limit;
	Jsonb	   *result;
} Single;

static void
run_single(void *argument)
{
	Single	   *single = argument;
	MpSagaInstance *instance = single->instance;
	MpSagaRoutine *routine = mp_saga_routine(instance->program, single->step, single->undo);
	MpGuise		guise = mp_guise_begin(instance->program->role,
									   routine->sets_path ? NULL : instance->program->path);

	single->result = mp_saga_invoke(instance, single->step, single->undo, routine, &single->limit);
	mp_guise_end(&guise);
}

static MpErrorClass
class_of_error(const char *sqlstate)
{
	static MpPlan plan = {
		.sql = "SELECT meal_planner.classify_error($1, NULL::pg_catalog.text)",
	.types = {TEXTOID}};
	Datum		values[1] = {CStringGetTextDatum(sqlstate)};
	MpErrorClass class = MP_CLASS_TRANSIENT;

	mp_plan_execute(&plan, values, NULL, 1);
	(void) mp_error_class_of_name(SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1), &class);
	return class;
}

/* An attempt has failed that began from that state. */
static void
settle_failure(MpSagaHand *hand, MpSagaInstance *instance, int step, bool undo, const MpSaga *before,
			   const MpFailure *failure, MpErrorClass class)
{
	bool		permanent = class == MP_CLASS_PERMANENT;
	MpSagaAttempt attempt = {
		.step = step, .undo = undo, .run = instance->saga.step[step].run,
		.outcome = permanent ? MP_SAGA_OUTCOME_PERMANENT : MP_SAGA_OUTCOME_TRANSIENT,
		.error_type = permanent ? "permanent" : "transient", .sqlstate = failure->sqlstate,
		.message = pnstrdup(failure->message, pg_mbcliplen(failure->message, strlen(failure->message),
														   MP_SAGA_MESSAGE_BYTES))
	};

	if (class == MP_CLASS_DEPLOY)
		wait_for_deployment(hand, instance, step, undo, before, failure);
	else if (!mp_saga_settle(hand, instance, &attempt))
		elog(ERROR, "outcome of a step of a saga was refused");
}

/* False: its breaker did not let it be called. */
static bool
call_step(MpSagaHand *hand, MpSagaInstance *instance, int step, bool undo)
{
	Single		single = {.instance = instance, .step = step, .undo = undo};
	MpSagaAttempt attempt = {.step = step, .undo = undo, .outcome = MP_SAGA_OUTCOME_SUCCESS};
	MpFailure	failure = {0};
	MpSaga		before = instance->saga;
	MpBreakerCall call;
	TimestampTz began = GetCurrentTimestamp();
	TimestampTz retry_at;

	if (mp_breaker_begin(step_of(instance, step)->breaker, 1, &call) == MP_CALL_REFUSED)
	{
		hold_back(instance, step, undo,
				  call.retry_at == DT_NOEND ? hand->now + PATIENCE_US : Max(call.retry_at, hand->now + 1));
		return false;
	}
	begin(instance, step, undo);
	if (mp_saga_try(run_single, &single, &single.limit, &failure))
	{
		attempt.run = instance->saga.step[step].run;
		attempt.result = single.result;
		if (!mp_saga_settle(hand, instance, &attempt))
			elog(ERROR, "outcome of a step of a saga was refused");
		mp_breaker_succeeded(&call, 1, (GetCurrentTimestamp() - began) / (double) USECS_PER_SEC);
	}
	else
	{
		MpErrorClass class = class_of_error(failure.sqlstate);

		settle_failure(hand, instance, step, undo, &before, &failure, class);
		(void) mp_breaker_failed(&call, class, (GetCurrentTimestamp() - began) / (double) USECS_PER_SEC, &retry_at);
	}
	return true;
}

/* Step by step; one that is alone makes one step. */
static void
run_singly(MpSagaHand *hand, MpSagaInstance *instance, int *subtransactions)
{
	bool		alone = instance->alone;
	bool		undo;
	int			step;

	while ((step = mp_saga_prepare(hand, instance, &undo)) >= 0)
	{
		if (*subtransactions >= MAX_SUBTRANSACTIONS || (alone && !instance->alone))
		{
			mp_saga_put_off(hand, instance);
			return;
		}
		(*subtransactions)++;
		/* it has come through this one: the next may be in company again */
		if (call_step(hand, instance, step, undo))
			instance->alone = false;
	}
	instance->alone = false;
}

/* ------------------------------------------------------------------------
 * A batch
 * ------------------------------------------------------------------------ */

/* What has changed of an instance in memory, to be put back. */
typedef struct Memory
{
	MpSagaInstance instance;
	MpSagaOut  *out;
	Jsonb	  **results;
} Memory;

static void
remember(const MpSagaInstance *instance, Memory *memory)
{
	int			steps = instance->program->definition->step_count;

	memory->instance = *instance;
	memory->out = memcpy(palloc(sizeof(MpSagaOut) * steps), instance->out, sizeof(MpSagaOut) * steps);
	memory->results = memcpy(palloc(sizeof(Jsonb *) * steps), instance->results, sizeof(Jsonb *) * steps);
}

static void
put_back(MpSagaInstance *instance, const Memory *memory)
{
	int			steps = instance->program->definition->step_count;

	*instance = memory->instance;
	memcpy(instance->out, memory->out, sizeof(MpSagaOut) * steps);
	memcpy(instance->results, memory->results, sizeof(Jsonb *) * steps);
}

/* Before a function: also the undo of what a service did. */
static bool
has_breaker(const MpSagaInstance *instance)
{
	for (int i = 0; i < instance->program->definition->step_count; i++)
	{
		const MpSagaStep *step = step_of(instance, i);

		if (step->breaker != NULL && (step->run != NULL || step->undo != NULL))
			return true;
	}
	return false;
}

/* The first call that a saga made, and why it failed: it need not be made again to know. */
typedef struct Blame
{
	int			at;				/* -1: nobody is to blame */
	int			step;
	bool		undo;
	MpFailure	failure;
} Blame;

static void
take_blame(MpSagaHand *hand, MpSagaInstance *instance, const Blame *blame)
{
	MpSaga		before;
	bool		undo;

	if (mp_saga_prepare(hand, instance, &undo) != blame->step || undo != blame->undo)
		return;					/* time has passed: it does something else now */
	before = instance->saga;
	begin(instance, blame->step, undo);
	settle_failure(hand, instance, blame->step, undo, &before, &blame->failure, class_of_error(blame->failure.sqlstate));
}

/* What a breaker stands before is not called together with others. */
static bool
runs_by_itself(const MpSagaInstance *instance)
{
	return instance->alone || has_breaker(instance);
}

/*
 * All that are left together; when one fails, those before it again without it,
 * then that one by itself, then the others.  What is left when there are no more
 * subtransactions stays due.  Returns how many were gone on with.
 */
static int
run_all(MpSagaHand *hand, MpSagaInstance **order, int count)
{
	Memory	   *memories = palloc(sizeof(Memory) * Max(count, 1));
	Blame		blame = {.at = -1};
	int			subtransactions = 0;
	int			done = 0;
	int			end = count;

	for (int i = 0; i < count; i++)
		remember(order[i], &memories[i]);
	while (done < count && subtransactions < MAX_SUBTRANSACTIONS)
	{
		Stretch		stretch = {.hand = hand, .order = order, .first = done};
		MpFailure	failure;
		int			entries = hand->entry_count;
		int			alerts = hand->alert_count;

		if (blame.at == done || runs_by_itself(order[done]))
		{
			if (blame.at == done)
				take_blame(hand, order[done], &blame);
			run_singly(hand, order[done++], &subtransactions);
			end = count;
			continue;
		}
		stretch.end = done;
		while (stretch.end < end && !runs_by_itself(order[stretch.end]))
			stretch.end++;
		subtransactions++;
		if (mp_saga_try(run_together, &stretch, &stretch.limit, &failure))
		{
			done = stretch.end;
			end = count;
			continue;
		}
		batch_size = FEW_SAGAS;
		hand->entry_count = entries;
		hand->alert_count = alerts;
		for (int i = done; i <= stretch.at; i++)
			put_back(order[i], &memories[i]);
		blame = (Blame) {.at = -1};
		if (stretch.calls == 0 && stretch.step >= 0)
			blame = (Blame) {.at = stretch.at, .step = stretch.step, .undo = stretch.undo, .failure = failure};
		end = stretch.at;
		if (end == done && blame.at < 0)
		{
			run_singly(hand, order[done++], &subtransactions);
			end = count;
		}
	}
	return done;
}

static int
compare_programs(const void *left, const void *right)
{
	const MpSagaInstance *a = *(MpSagaInstance *const *) left;
	const MpSagaInstance *b = *(MpSagaInstance *const *) right;

	if (a->program != b->program)
		return a->program < b->program ? -1 : 1;
	return a < b ? -1 : a > b;
}

static void
put_off_broken(const MpSagaHand *hand, const MpSagaInstance *instance)
{
	static MpPlan plan = {
		.sql = "UPDATE meal_planner.saga s SET due_at = $3"
		" WHERE s.account OPERATOR(pg_catalog.=) $1 AND s.id OPERATOR(pg_catalog.=) $2",
	.types = {TEXTOID, UUIDOID, TIMESTAMPTZOID}};
	Datum		values[3] = {
		hand->account, UUIDPGetDatum(&instance->id), TimestampTzGetDatum(hand->now + PATIENCE_US)
	};

	mp_saga_tell_broken(instance, WARNING);
	mp_plan_execute(&plan, values, NULL, 0);
}

static void
run_hand(MpSagaHand *hand)
{
	MpSagaInstance **order = palloc(sizeof(MpSagaInstance *) * Max(hand->count, 1));
	TimestampTz began = GetCurrentTimestamp();
	int			count = 0;
	int			done;

	for (int i = 0; i < hand->count; i++)
	{
		if (hand->instances[i].broken)
			put_off_broken(hand, &hand->instances[i]);
		else
			order[count++] = &hand->instances[i];
	}
	qsort(order, count, sizeof(MpSagaInstance *), compare_programs);
	done = run_all(hand, order, count);
	mp_saga_put_down(hand);
	if (done == count && count == batch_size)
	{
		int64		fitting = BATCH_US * (int64) count / Max(GetCurrentTimestamp() - began, 1);

		batch_size = (int) Max(Min(fitting, Min(2 * count, MANY_SAGAS)), FEW_SAGAS);
	}
}

/* ------------------------------------------------------------------------
 * SQL
 * ------------------------------------------------------------------------ */

Datum
mp_saga_batch_size(PG_FUNCTION_ARGS pg_attribute_unused())
{
	PG_RETURN_INT32(batch_size);
}

/* What the worker has claimed goes with this transaction. */
static bool
end_claim(Datum account, Datum token, Datum *ids)
{
	static MpPlan plan = {
		.sql = "DELETE FROM meal_planner.saga_batch b WHERE b.account OPERATOR(pg_catalog.=) $1"
		" AND b.token OPERATOR(pg_catalog.=) $2 RETURNING b.sagas",
	.types = {TEXTOID, INT8OID}};
	Datum		values[2] = {account, token};
	bool		isnull;

	mp_plan_execute(&plan, values, NULL, 0);
	if (SPI_processed == 0)
		return false;
	*ids = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	return true;
}

Datum
mp_run_sagas(PG_FUNCTION_ARGS)
{
	Datum		ids;

	mp_require_read_committed();
	mp_spi_connect();
	if (end_claim(PG_GETARG_DATUM(0), PG_GETARG_DATUM(1), &ids))
		run_hand(mp_saga_take_due(PG_GETARG_DATUM(0), ids));
	mp_spi_finish();
	PG_RETURN_VOID();
}

Datum
mp_saga_crashed(PG_FUNCTION_ARGS)
{
	MpSagaHand *hand;
	MpSagaInstance *instance;
	MpSagaAttempt attempt = {
		.outcome = MP_SAGA_OUTCOME_UNKNOWN, .crashed = true,
		.error_type = "crash", .message = "the worker died while the step ran"
	};

	mp_spi_connect();
	hand = mp_saga_take(PG_GETARG_DATUM(0), PG_GETARG_UUID_P(1));
	instance = &hand->instances[0];
	if (hand->count > 0 && !instance->broken && !mp_saga_has_ended(instance->saga.state))
	{
		attempt.step = mp_saga_prepare(hand, instance, &attempt.undo);
		if (attempt.step >= 0)
		{
			begin(instance, attempt.step, attempt.undo);
			attempt.run = instance->saga.step[attempt.step].run;
			if (!mp_saga_settle(hand, instance, &attempt))
				elog(ERROR, "outcome of a step of a saga was refused");
			mp_saga_go_on(hand, instance);
		}
		mp_saga_put_down(hand);
	}
	mp_spi_finish();
	PG_RETURN_VOID();
}
