/*
 * saga_definition.c
 *		mp_define_saga, and definitions as a backend keeps them.
 *
 * A definition never changes, so that one that is compiled stays good.  All are
 * forgotten when the table changes nevertheless, as its statement trigger tells:
 * one may be dropped, changed by hand, or rolled back and its version given to
 * another.  The functions are looked up again when a function or a role has
 * changed.
 */
#include "bus/saga.h"

#include "access/xact.h"
#include "bus/breaker.h"
#include "bus/event_json.h"
#include "bus/invalidation.h"
#include "bus/json_member.h"
#include "bus/position.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgcompat.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/regproc.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#define LONGEST_NAME 100

static MpSagaProgram *programs = NULL;
static MpSagaProgram *forgotten = NULL;

static Oid	definition_relation = InvalidOid;
static bool outdated = false;

/* Counts the changes of functions and roles that this backend was told of. */
static uint64 catalog_age = 1;

PG_FUNCTION_INFO_V1(mp_define_saga);
PG_FUNCTION_INFO_V1(mp_saga_definition_changed);

/* ------------------------------------------------------------------------
 * Going out of date
 * ------------------------------------------------------------------------ */

/* These run whenever messages arrive: no catalog access, no memory. */
static void
relation_changed(Oid relation)
{
	if (relation == InvalidOid || relation == definition_relation)
		outdated = true;
}

static void
catalog_changed(Datum arg pg_attribute_unused(), int cache pg_attribute_unused(),
				uint32 hash pg_attribute_unused())
{
	catalog_age++;
}

/* Instances in hand point to what was forgotten; with the transaction they are gone. */
static void
end_of_transaction(XactEvent event, void *arg pg_attribute_unused())
{
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT)
		return;
	while (forgotten != NULL)
	{
		MpSagaProgram *program = forgotten;

		forgotten = program->next;
		MemoryContextDelete(program->context);
	}
}

static void
forget_outdated(void)
{
	static bool registered = false;

	if (!registered)
	{
		mp_on_relation_change(relation_changed);
		CacheRegisterSyscacheCallback(PROCOID, catalog_changed, (Datum) 0);
		CacheRegisterSyscacheCallback(AUTHOID, catalog_changed, (Datum) 0);
		RegisterXactCallback(end_of_transaction, NULL);
		registered = true;
	}
	if (!outdated)
		return;
	outdated = false;
	while (programs != NULL)
	{
		MpSagaProgram *program = programs;

		programs = program->next;
		program->next = forgotten;
		forgotten = program;
	}
}

/* Statement trigger on meal_planner.saga_definition. */
Datum
mp_saga_definition_changed(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		elog(ERROR, "mp_saga_definition_changed must be fired as a trigger");
	CacheInvalidateRelcache(((TriggerData *) fcinfo->context)->tg_relation);
	return PointerGetDatum(NULL);
}

/* ------------------------------------------------------------------------
 * Compiling
 * ------------------------------------------------------------------------ */

static void *
arena_alloc(void *context, size_t size)
{
	return MemoryContextAlloc(context, size);
}

static const MpSagaDefinition *
compile(Jsonb *definition, MemoryContext context, MpSagaError *error)
{
	MpArena		arena = {.alloc = arena_alloc, .context = context};
	MpJson		root = mp_json_of_jsonb(definition);

	return mp_saga_compile(&mp_json_reader, &root, &arena, error);
}

static char *
routine_signature(Jsonb *routines, const char *step, const char *which, MemoryContext context)
{
	MpJson		root = mp_json_of_jsonb(routines);
	MpJson		of_step = mp_json_reader.field(&root, step, strlen(step));
	MpJson		signature = {.kind = MP_JSON_ABSENT};

	if (of_step.kind == MP_JSON_OBJECT)
		signature = mp_json_reader.field(&of_step, which, strlen(which));
	if (signature.kind != MP_JSON_STRING)
		return NULL;
	return MemoryContextStrdup(context, pnstrdup(signature.text, signature.len));
}

static void
fill_program(MpSagaProgram *program, HeapTuple row, TupleDesc desc)
{
	bool		isnull;
	MpSagaError error;
	Jsonb	   *definition = DatumGetJsonbP(SPI_getbinval(row, desc, 1, &isnull));
	Jsonb	   *routines = DatumGetJsonbP(SPI_getbinval(row, desc, 2, &isnull));

	program->owner = MemoryContextStrdup(program->context, SPI_getvalue(row, desc, 3));
	program->path = MemoryContextStrdup(program->context, SPI_getvalue(row, desc, 4));
	program->definition = compile(definition, program->context, &error);
	if (program->definition == NULL)
		return;
	program->routines = MemoryContextAllocZero(program->context,
											   sizeof(MpSagaRoutine) * 2 * program->definition->step_count);
	for (int i = 0; i < program->definition->step_count; i++)
	{
		const MpSagaStep *step = &program->definition->steps[i];

		program->routines[2 * i].signature = routine_signature(routines, step->name, "run", program->context);
		program->routines[2 * i + 1].signature = routine_signature(routines, step->name, "undo", program->context);
	}
}

static MpSagaProgram *
load_program(const char *name, int version)
{
	static MpPlan plan = {
		.sql = "SELECT d.definition, d.routines, d.owner, d.routine_path FROM meal_planner.saga_definition d"
		" WHERE d.name OPERATOR(pg_catalog.=) $1 AND d.version OPERATOR(pg_catalog.=) $2",
	.types = {TEXTOID, INT4OID}};
	Datum		values[2] = {CStringGetTextDatum(name), Int32GetDatum(version)};
	/* Under the current context until complete: an error then frees it. */
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "meal_planner saga definition",
												  ALLOCSET_SMALL_SIZES);
	MpSagaProgram *program = MemoryContextAllocZero(context, sizeof(MpSagaProgram));

	program->context = context;
	program->name = MemoryContextStrdup(context, name);
	program->version = version;
	definition_relation = get_relname_relid("saga_definition", get_namespace_oid("meal_planner", false));
	mp_spi_connect();
	mp_plan_read_latest(&plan, values, NULL, 1);
	if (SPI_processed > 0)
		fill_program(program, SPI_tuptable->vals[0], SPI_tuptable->tupdesc);
	mp_spi_finish();
	program->broken = program->definition == NULL;
	MemoryContextSetParent(context, CacheMemoryContext);
	return program;
}

MpSagaProgram *
mp_saga_program(const char *name, int version)
{
	MpSagaProgram *program;

	forget_outdated();
	for (program = programs; program != NULL; program = program->next)
		if (program->version == version && strcmp(program->name, name) == 0)
			return program;
	program = load_program(name, version);
	/* one that is not there may come */
	if (program->broken)
	{
		program->next = forgotten;
		forgotten = program;
	}
	else
	{
		program->next = programs;
		programs = program;
	}
	return program;
}

/* mp_drop_saga takes a lock that this one conflicts with before it looks who runs. */
void
mp_saga_keep_out_drop(void)
{
	LockRelationOid(get_relname_relid("saga", get_namespace_oid("meal_planner", false)), RowExclusiveLock);
}

MpSagaRoutine *
mp_saga_routine(MpSagaProgram *program, int step, bool undo)
{
	MpSagaRoutine *routine = &program->routines[2 * step + (undo ? 1 : 0)];

	if (program->role_found != catalog_age)
	{
		uint64		age = catalog_age;

		program->role = get_role_oid(program->owner, false);
		program->role_found = age;
	}
	if (routine->found != catalog_age)
	{
		uint64		age = catalog_age;
		MemoryContext context;
		Oid			function;

		if (routine->signature == NULL)
			elog(ERROR, "step \"%s\" has no function", program->definition->steps[step].name);
		function = DatumGetObjectId(DirectFunctionCall1(regprocedurein, CStringGetDatum(routine->signature)));
		routine->sets_path = mp_handler_sets_path(function);
		routine->returns_result = get_func_rettype(function) == JSONBOID;
		context = AllocSetContextCreate(program->context, "meal_planner saga routine", ALLOCSET_SMALL_SIZES);
		/* it may be running; nothing of it is when the transaction ends */
		if (routine->context != NULL)
			MemoryContextSetParent(routine->context, TopTransactionContext);
		routine->context = context;
		fmgr_info_cxt(function, &routine->function, routine->context);
		routine->found = age;
	}
	/* at every run: a right may come from a role that changed since */
	if (!mp_may_execute(routine->function.fn_oid, program->role))
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FUNCTION, routine->signature);
	return routine;
}

/* ------------------------------------------------------------------------
 * Defining
 * ------------------------------------------------------------------------ */

static void
refuse(const char *problem)
{
	ereport(ERROR,
			(errcode(MP_ERRCODE_INVALID),
			 errmsg("MP400: %s", problem),
			 errhint("retry=no. Correct the definition.")));
}

/*
 * What is wrong with it, to the server or to us, is told as an error of the
 * step's: hence a subtransaction.  InvalidOid: *problem says why.
 */
static Oid
find_function(const char *text, const char **problem)
{
	MemoryContext caller_memory = CurrentMemoryContext;
	ResourceOwner caller_owner = CurrentResourceOwner;
	Oid			function = InvalidOid;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(caller_memory);
	PG_TRY();
	{
		function = DatumGetObjectId(DirectFunctionCall1(regprocedurein, CStringGetDatum(text)));
		/* "-" and numbers are names to the server, too */
		if (SearchSysCacheExists1(PROCOID, ObjectIdGetDatum(function)))
			(void) mp_handler_sets_path(function);
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(caller_memory);
	}
	PG_CATCH();
	{
		ErrorData  *error = mp_end_failed(caller_memory, caller_owner);

		if (mp_error_must_get_through(error->sqlerrcode))
			ReThrowError(error);
		*problem = strncmp(error->message, "MP400: ", 7) == 0 ? error->message + 7 : error->message;
		function = InvalidOid;
	}
	PG_END_TRY();
	CurrentResourceOwner = caller_owner;
	return function;
}

/* The qualified signature of a step's function, once all is well with it. */
static char *
check_function(const MpSagaStep *step, const char *text, const char *member)
{
	const char *problem = "";
	Oid			function = find_function(text, &problem);

	if (function == InvalidOid)
		refuse(psprintf("step \"%s\": %s: %s", step->name, member,
						*problem ? problem : "there is no such function"));
	if (!mp_is_function_of(function, JSONBOID))
		refuse(psprintf("step \"%s\": %s must be a function f(jsonb) that returns jsonb or void", step->name, member));
	if (!mp_may_execute(function, GetUserId()))
		ereport(ERROR,
				(errcode(MP_ERRCODE_FORBIDDEN),
				 errmsg("MP403: step \"%s\": permission denied for function %s", step->name, format_procedure(function)),
				 errhint("retry=no. It would run as \"%s\", who may not execute it.",
						 GetUserNameFromId(GetUserId(), false))));
	return format_procedure_qualified(function);
}

/* {"step": {"run", "undo"}} of the steps that have functions */
static Jsonb *
check_functions(const MpSagaDefinition *definition)
{
	JsonbParseState *state = NULL;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < definition->step_count; i++)
	{
		const MpSagaStep *step = &definition->steps[i];

		if (step->run == NULL && step->undo == NULL)
			continue;
		mp_json_add_name(&state, step->name);
		pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
		if (step->run != NULL)
			mp_json_add_text(&state, "run", check_function(step, step->run, "run"));
		if (step->undo != NULL)
			mp_json_add_text(&state, "undo", check_function(step, step->undo, "undo"));
		pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	}
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/*
 * It is not SECURITY DEFINER, since it has to know its caller: the functions
 * will run as that role.  It saves as the owner of the tables.
 */
Datum
mp_define_saga(PG_FUNCTION_ARGS)
{
	static MpPlan plan = {
		.sql = "SELECT meal_planner.save_saga_definition($1, $2, $3, $4, $5)",
	.types = {TEXTOID, JSONBOID, JSONBOID, TEXTOID, TEXTOID}};
	const MpSagaDefinition *definition;
	MpSagaError error;
	Datum		values[5];
	Oid			caller;
	int			caller_context;
	int			version;
	bool		isnull;

	mp_require_preload();
	if (PG_ARGISNULL(0) || VARSIZE_ANY_EXHDR(PG_GETARG_TEXT_PP(0)) == 0 ||
		VARSIZE_ANY_EXHDR(PG_GETARG_TEXT_PP(0)) > LONGEST_NAME)
		refuse(psprintf("name must have between 1 and %d bytes", LONGEST_NAME));
	if (PG_ARGISNULL(1))
		refuse("definition must not be NULL");
	definition = compile(PG_GETARG_JSONB_P(1), CurrentMemoryContext, &error);
	if (definition == NULL)
		refuse(error.message);

	values[0] = PG_GETARG_DATUM(0);
	values[1] = PG_GETARG_DATUM(1);
	values[2] = JsonbPGetDatum(check_functions(definition));
	values[3] = CStringGetTextDatum(GetUserNameFromId(GetUserId(), false));
	values[4] = CStringGetTextDatum(mp_path_of_caller());

	/* The server restores the caller if this fails. */
	GetUserIdAndSecContext(&caller, &caller_context);
	SetUserIdAndSecContext(mp_owner(), caller_context | SECURITY_LOCAL_USERID_CHANGE);
	/* no place for one is an error of this call, not of the first saga */
	for (int i = 0; i < definition->step_count; i++)
		if (definition->steps[i].breaker != NULL)
			(void) mp_breaker_find(definition->steps[i].breaker);
	mp_spi_connect();
	mp_plan_execute(&plan, values, NULL, 1);
	version = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	mp_spi_finish();
	SetUserIdAndSecContext(caller, caller_context);
	PG_RETURN_INT32(version);
}
