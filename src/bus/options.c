/*
 * options.c
 *		Options of a subscription, and retry policies.
 */
#include "bus/breaker.h"
#include "bus/event_json.h"
#include "bus/order.h"
#include "bus/subscription.h"

#include "utils/builtins.h"
#include "utils/float.h"

PG_FUNCTION_INFO_V1(mp_backoff);

typedef struct Parse
{
	MpOptions	options;
	bool		all;
} Parse;

typedef struct NumberOption
{
	const char *name;
	double		low;
	double		high;
	bool		integer;		/* an int, else a double */
	bool		policy;			/* of a retry policy */
	size_t		offset;			/* in MpOptions */
} NumberOption;

static const NumberOption number_options[] = {
	{"max_attempts", 1, 1000, true, true, offsetof(MpOptions, policy.max_attempts)},
	{"base_delay", 0, 86400, false, true, offsetof(MpOptions, policy.base_delay)},
	{"multiplier", 1, 100, false, true, offsetof(MpOptions, policy.multiplier)},
	{"max_delay", 0.001, MP_MAX_DELAY, false, true, offsetof(MpOptions, policy.max_delay)},
	{"jitter", 0, 1, false, true, offsetof(MpOptions, policy.jitter)},
	{"max_age", 0.001, MP_MAX_DELAY, false, true, offsetof(MpOptions, policy.max_age)},
	{"timeout", 0.001, 86400, false, false, offsetof(MpOptions, timeout)}
};

static void
set_number(MpOptions *options, const NumberOption *option, const MpJson *value)
{
	double		number = 0;

	if (value->kind == MP_JSON_NUMBER)
		number = DatumGetFloat8(DirectFunctionCall1(float8in, CStringGetDatum(pnstrdup(value->text, value->len))));
	if (value->kind != MP_JSON_NUMBER || number < option->low || number > option->high ||
		(option->integer && number != (int) number))
		ereport(ERROR,
				(errcode(MP_ERRCODE_INVALID),
				 errmsg("MP400: %s must be %s between %g and %g", option->name,
						option->integer ? "an integer" : "a number", option->low, option->high),
				 errhint("retry=no. Correct the option.")));

	if (option->integer)
		*(int *) ((char *) options + option->offset) = (int) number;
	else
		*(double *) ((char *) options + option->offset) = number;
}

static void
refuse(const char *problem)
{
	ereport(ERROR,
			(errcode(MP_ERRCODE_INVALID),
			 errmsg("MP400: %s", problem),
			 errhint("retry=no. Correct the option.")));
}

static bool
is_string(const MpJson *value, const char *string)
{
	return value->kind == MP_JSON_STRING && value->len == strlen(string) &&
		memcmp(value->text, string, value->len) == 0;
}

/* Those that are not numbers of the policy; false when it is none. */
static bool
set_option(MpOptions *options, const char *name, const MpJson *value)
{
	if (strcmp(name, "start") == 0)
	{
		/* the time it names is read in SQL */
		if (value->kind != MP_JSON_STRING)
			refuse("start must be latest, earliest or a time");
	}
	else if (strcmp(name, "order_key") == 0)
	{
		if (value->kind == MP_JSON_STRING)
			options->order_path = mp_order_path_parse(pnstrdup(value->text, value->len), CurrentMemoryContext);
		if (options->order_path == NULL)
			refuse("order_key must be a path such as detail.recipe_id, or one of detail-type, source, account, region, id, time, stream");
	}
	else if (strcmp(name, "on_dead") == 0)
	{
		options->block_key = is_string(value, "block_key");
		if (!options->block_key && !is_string(value, "skip"))
			refuse("on_dead must be skip or block_key");
	}
	else if (strcmp(name, "breaker") == 0)
	{
		if (value->kind != MP_JSON_STRING || value->len < 1 || value->len > MP_BREAKER_NAME_BYTES)
			refuse(psprintf("breaker must be a name of 1 to %d bytes", MP_BREAKER_NAME_BYTES));
		options->breaker = pnstrdup(value->text, value->len);
	}
	else
		return false;
	return true;
}

static bool
visit_option(const char *key, size_t key_len, const MpJson *value, void *context)
{
	Parse	   *parse = context;
	char	   *name = pnstrdup(key, key_len);

	for (size_t i = 0; i < lengthof(number_options); i++)
	{
		if (strcmp(name, number_options[i].name) == 0 && (parse->all || number_options[i].policy))
		{
			set_number(&parse->options, &number_options[i], value);
			return true;
		}
	}
	if (parse->all && set_option(&parse->options, name, value))
		return true;
	ereport(ERROR,
			(errcode(MP_ERRCODE_INVALID),
			 errmsg("MP400: unknown option \"%s\"", name),
			 errhint("retry=no. Known are max_attempts, base_delay, multiplier, max_delay, jitter%s max_age%s.",
					 parse->all ? "," : " and", parse->all ? ", timeout, order_key, on_dead, breaker and start" : "")));
	return false;
}

static MpOptions
parse_options(Jsonb *options, bool all)
{
	Parse		parse = {.options.policy = MP_RETRY_POLICY_DEFAULT, .all = all};
	MpJson		root;

	if (options == NULL)
		return parse.options;
	root = mp_json_of_jsonb(options);
	if (root.kind != MP_JSON_OBJECT)
		ereport(ERROR,
				(errcode(MP_ERRCODE_INVALID),
				 errmsg("MP400: %s must be a JSON object", all ? "options" : "policy"),
				 errhint("retry=no. Correct the argument.")));
	(void) mp_json_reader.each(&root, visit_option, &parse);
	if (parse.options.block_key && parse.options.order_path == NULL)
		refuse("on_dead block_key needs an order_key");
	return parse.options;
}

MpOptions
mp_options_of_jsonb(Jsonb *options)
{
	return parse_options(options, true);
}

Datum
mp_backoff(PG_FUNCTION_ARGS)
{
	MpRetryPolicy policy = parse_options(PG_ARGISNULL(1) ? NULL : PG_GETARG_JSONB_P(1), false).policy;
	Interval   *delay = palloc0(sizeof(Interval));

	if (PG_ARGISNULL(0) || PG_GETARG_INT32(0) < 1)
		ereport(ERROR,
				(errcode(MP_ERRCODE_INVALID),
				 errmsg("MP400: attempt must be at least 1"),
				 errhint("retry=no. Attempts count from 1.")));
	delay->time = (int64) (mp_backoff_delay(&policy, PG_GETARG_INT32(0), mp_random_share()) * USECS_PER_SEC);
	PG_RETURN_INTERVAL_P(delay);
}
