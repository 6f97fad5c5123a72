/*
 * handler_sql.c
 *		Handlers that are one statement of SQL.
 *
 * Before version 18 the server parses and plans the body of a function in SQL
 * anew in every subtransaction, which costs more than what most handlers do.  A
 * body of one statement that reads or writes rows is run from a kept plan
 * instead.  Names of parameters are resolved by the server's own rules for such
 * functions, the role and the search_path are the handler's as in a call, and
 * the server plans again when one of them or a table changes.  The plan goes
 * with the subscription, and that goes when the function changes.
 *
 * Every other function is called: one that sets something for itself or runs as
 * its owner, one that may not write, one whose body has been parsed when it was
 * created.
 */
#include "bus/handler.h"

#include "access/htup_details.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "executor/functions.h"
#include "executor/spi.h"
#include "nodes/parsenodes.h"
#include "pgcompat.h"
#include "tcop/dest.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/syscache.h"

struct MpStatement
{
	SPIPlanPtr	plan;
	Oid			type;			/* of the function's argument */
	char	   *name;			/* of the function */
	MemoryContextCallback release;
};

static bool
may_be_statement(HeapTuple tuple)
{
	Form_pg_proc function = (Form_pg_proc) GETSTRUCT(tuple);

	return MP_SQL_BODIES_ARE_PLANNED_EACH_TIME &&
		function->prolang == SQLlanguageId &&
		function->prokind == PROKIND_FUNCTION &&
		function->prorettype == VOIDOID &&
		function->provolatile == PROVOLATILE_VOLATILE &&
		function->pronargs == 1 &&
		!function->prosecdef &&
		heap_attisnull(tuple, Anum_pg_proc_proconfig, NULL) &&
		heap_attisnull(tuple, Anum_pg_proc_prosqlbody, NULL) &&
		!FmgrHookIsNeeded(function->oid);
}

/* Not what a rule has made several of: these would have a snapshot each. */
static bool
is_one_statement(SPIPlanPtr plan)
{
	List	   *sources = SPI_plan_get_plan_sources(plan);
	List	   *queries;

	if (list_length(sources) != 1)
		return false;
	queries = ((CachedPlanSource *) linitial(sources))->query_list;
	return list_length(queries) == 1 && linitial_node(Query, queries)->commandType != CMD_UTILITY;
}

static void
release_plan(void *statement)
{
	SPI_freeplan(((MpStatement *) statement)->plan);
}

/* The plan is kept last: whatever fails before leaves nothing behind. */
static MpStatement *
make_statement(HeapTuple tuple, MemoryContext owner)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "meal_planner statement",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	Form_pg_proc function = (Form_pg_proc) GETSTRUCT(tuple);
	MpStatement *statement = palloc0(sizeof(MpStatement));
	SQLFunctionParseInfoPtr names = prepare_sql_fn_parse_info(tuple, NULL, InvalidOid);
	bool		isnull;
	char	   *source = TextDatumGetCString(SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_prosrc, &isnull));

	statement->name = pstrdup(NameStr(function->proname));
	statement->type = function->proargtypes.values[0];
	mp_spi_connect();
	/* a generic plan, as the server would make for the function */
	statement->plan = SPI_prepare_params(source, (ParserSetupHook) sql_fn_parser_setup, names,
										 CURSOR_OPT_GENERIC_PLAN | CURSOR_OPT_PARALLEL_OK);
	if (statement->plan == NULL)
		elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
	if (is_one_statement(statement->plan))
	{
		if (SPI_keepplan(statement->plan) != 0)
			elog(ERROR, "SPI_keepplan failed");
		statement->release = (MemoryContextCallback) {.func = release_plan, .arg = statement};
		MemoryContextRegisterResetCallback(context, &statement->release);
		MemoryContextSetParent(context, owner);
	}
	else
		statement = NULL;
	mp_spi_finish();
	MemoryContextSwitchTo(caller);
	if (statement == NULL)
		MemoryContextDelete(context);
	return statement;
}

MpStatement *
mp_statement_of_handler(MpSubscription *subscription)
{
	HeapTuple	tuple;

	if (subscription->statement_known)
		return subscription->statement;
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(subscription->function.fn_oid));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", subscription->function.fn_oid);
	if (may_be_statement(tuple))
		subscription->statement = make_statement(tuple, GetMemoryChunkContext(subscription->name));
	ReleaseSysCache(tuple);
	subscription->statement_known = true;
	return subscription->statement;
}

static void
add_context(void *statement)
{
	errcontext("SQL function \"%s\" statement 1", ((MpStatement *) statement)->name);
}

void
mp_statement_run(MpStatement *statement, Datum event)
{
	ParamListInfo params = makeParamList(1);
	SPIExecuteOptions options = {.params = params, .dest = None_Receiver};
	ErrorContextCallback callback = {
		.previous = error_context_stack, .callback = add_context, .arg = statement
	};
	int			result;

	params->params[0] = (ParamExternData)
	{
		.value = event, .pflags = PARAM_FLAG_CONST, .ptype = statement->type
	};
	error_context_stack = &callback;
	mp_spi_connect();
	result = SPI_execute_plan_extended(statement->plan, &options);
	if (result < 0)
		elog(ERROR, "could not execute plan: %s", SPI_result_code_string(result));
	mp_spi_finish();
	error_context_stack = callback.previous;
}
