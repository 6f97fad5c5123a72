/*
 * options.c
 *		Options of a subscription, and retry policies.
 */
#include "bus/event_json.h"
#include "bus/subscription.h"

#include "utils/builtins.h"
#include "utils/float.h"

PG_FUNCTION_INFO_V1(mp_backoff);

typedef struct Parse
{
	MpRetryPolicy policy;
	bool		all;
} Parse;

typedef struct NumberOption
{
	const char *name;
	double		low;
	double		high;
	bool		integer;		/* an int of the policy, else a double */
	size_t		offset;
} NumberOption;

static const NumberOption number_options[] = {
	{"max_attempts", 1, 1000, true, offsetof(MpRetryPolicy, max_attempts)},
	{"base_delay", 0, 86400, false, offsetof(MpRetryPolicy, base_delay)},
	{"multiplier", 1, 100, false, offsetof(MpRetryPolicy, multiplier)},
	{"max_delay", 0.001, MP_MAX_DELAY, false, offsetof(MpRetryPolicy, max_delay)},
	{"jitter", 0, 1, false, offsetof(MpRetryPolicy, jitter)},
	{"max_age", 0.001, MP_MAX_DELAY, false, offsetof(MpRetryPolicy, max_age)}
};

static void
set_number(MpRetryPolicy *policy, const NumberOption *option, const MpJson *value)
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
		*(int *) ((char *) policy + option->offset) = (int) number;
	else
		*(double *) ((char *) policy + option->offset) = number;
}

static bool
visit_option(const char *key, size_t key_len, const MpJson *value, void *context)
{
	Parse	   *parse = context;
	char	   *name = pnstrdup(key, key_len);

	for (size_t i = 0; i < lengthof(number_options); i++)
	{
		if (strcmp(name, number_options[i].name) == 0)
		{
			set_number(&parse->policy, &number_options[i], value);
			return true;
		}
	}
	if (parse->all && strcmp(name, "start") == 0)
	{
		if (value->kind == MP_JSON_STRING)
			return true;		/* the time it names is read in SQL */
		ereport(ERROR,
				(errcode(MP_ERRCODE_INVALID),
				 errmsg("MP400: start must be latest, earliest or a time"),
				 errhint("retry=no. Correct the option.")));
	}
	ereport(ERROR,
			(errcode(MP_ERRCODE_INVALID),
			 errmsg("MP400: unknown option \"%s\"", name),
			 errhint("retry=no. Known are max_attempts, base_delay, multiplier, max_delay, jitter and max_age%s.",
					 parse->all ? ", and start" : "")));
	return false;
}

MpRetryPolicy
mp_policy_of_jsonb(Jsonb *options, bool all)
{
	Parse		parse = {.policy = MP_RETRY_POLICY_DEFAULT, .all = all};
	MpJson		root;

	if (options == NULL)
		return parse.policy;
	root = mp_json_of_jsonb(options);
	if (root.kind != MP_JSON_OBJECT)
		ereport(ERROR,
				(errcode(MP_ERRCODE_INVALID),
				 errmsg("MP400: %s must be a JSON object", all ? "options" : "policy"),
				 errhint("retry=no. Correct the argument.")));
	(void) mp_json_reader.each(&root, visit_option, &parse);
	return parse.policy;
}

Datum
mp_backoff(PG_FUNCTION_ARGS)
{
	MpRetryPolicy policy = mp_policy_of_jsonb(PG_ARGISNULL(1) ? NULL : PG_GETARG_JSONB_P(1), false);
	Interval   *delay = palloc0(sizeof(Interval));

	if (PG_ARGISNULL(0) || PG_GETARG_INT32(0) < 1)
		ereport(ERROR,
				(errcode(MP_ERRCODE_INVALID),
				 errmsg("MP400: attempt must be at least 1"),
				 errhint("retry=no. Attempts count from 1.")));
	delay->time = (int64) (mp_backoff_delay(&policy, PG_GETARG_INT32(0), mp_random_share()) * USECS_PER_SEC);
	PG_RETURN_INTERVAL_P(delay);
}
