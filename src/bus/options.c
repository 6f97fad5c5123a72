/*
 * options.c
 *		Options of a subscription, and retry policies.
 */
#include "bus/breaker.h"
#include "bus/event_json.h"
#include "bus/option.h"
#include "bus/order.h"
#include "bus/subscription.h"

#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(mp_backoff);

#define MP_SERVICE_NAME_BYTES	50

typedef struct Parse
{
	MpOptions	options;
	bool		all;
} Parse;

static const MpNumberOption policy_options[] = {
	{"max_attempts", 1, 1000, true, offsetof(MpOptions, policy.max_attempts)},
	{"base_delay", 0, 86400, false, offsetof(MpOptions, policy.base_delay)},
	{"multiplier", 1, 100, false, offsetof(MpOptions, policy.multiplier)},
	{"max_delay", 0.001, MP_MAX_DELAY, false, offsetof(MpOptions, policy.max_delay)},
	{"max_age", 0.001, MP_MAX_DELAY, false, offsetof(MpOptions, policy.max_age)}
};

static const MpNumberOption other_options[] = {
	{"timeout", 0.001, 86400, false, offsetof(MpOptions, timeout)},
	{"max_replays", 1, 1000, true, offsetof(MpOptions, max_replays)},
	{"redrive_window", 0.001, MP_MAX_DELAY, false, offsetof(MpOptions, redrive_window)}
};

static const MpNumberOption budget_options[] = {
	{"per_second", 0.0001, 1000000, false, offsetof(MpRetryBudget, per_second)},
	{"burst", 1, 1000000, false, offsetof(MpRetryBudget, burst)},
	{"per_success", 0, 1000, false, offsetof(MpRetryBudget, per_success)}
};

/* A share of the delay, or AWS's word for one. */
static void
set_jitter(MpRetryPolicy *policy, const MpJson *value)
{
	static const MpNumberOption share = {"jitter", 0, 1, false, offsetof(MpRetryPolicy, jitter)};

	if (mp_option_is(value, "full"))
		policy->jitter = MP_JITTER_FULL;
	else if (mp_option_is(value, "equal"))
		policy->jitter = MP_JITTER_EQUAL;
	else if (mp_option_is(value, "none"))
		policy->jitter = 0;
	else if (value->kind == MP_JSON_STRING)
		mp_option_refuse("jitter must be none, equal, full or a number between 0 and 1");
	else
		mp_option_set_number(policy, &share, value);
}

static bool
visit_budget(const char *key, size_t key_len, const MpJson *value, void *context)
{
	MpRetryBudget *budget = context;
	char	   *name = pnstrdup(key, key_len);

	for (size_t i = 0; i < lengthof(budget_options); i++)
	{
		if (strcmp(name, budget_options[i].name) == 0)
		{
			mp_option_set_number(budget, &budget_options[i], value);
			return true;
		}
	}
	mp_option_refuse(psprintf("unknown option \"retry_budget.%s\", known are per_second, burst and per_success", name));
	return false;
}

static void
set_budget(MpRetryBudget *budget, const MpJson *value)
{
	if (value->kind != MP_JSON_OBJECT)
		mp_option_refuse("retry_budget must be a JSON object");
	(void) mp_json_reader.each(value, visit_budget, budget);
	if (budget->per_second == 0)
		mp_option_refuse("retry_budget needs per_second");
}

/* Those that are not of the policy; false when it is none. */
static bool
set_option(MpOptions *options, const char *name, const MpJson *value)
{
	for (size_t i = 0; i < lengthof(other_options); i++)
	{
		if (strcmp(name, other_options[i].name) == 0)
		{
			mp_option_set_number(options, &other_options[i], value);
			return true;
		}
	}
	if (strcmp(name, "start") == 0)
	{
		/* the time it names is read in SQL */
		if (value->kind != MP_JSON_STRING)
			mp_option_refuse("start must be latest, earliest or a time");
	}
	else if (strcmp(name, "order_key") == 0)
	{
		if (value->kind == MP_JSON_STRING)
			options->order_path = mp_order_path_parse(pnstrdup(value->text, value->len), CurrentMemoryContext);
		if (options->order_path == NULL)
			mp_option_refuse("order_key must be a path such as detail.recipe_id, or one of detail-type, source, account, region, id, time, stream");
	}
	else if (strcmp(name, "on_dead") == 0)
	{
		options->block_key = mp_option_is(value, "block_key");
		if (!options->block_key && !mp_option_is(value, "skip"))
			mp_option_refuse("on_dead must be skip or block_key");
	}
	else if (strcmp(name, "breaker") == 0)
	{
		if (value->kind != MP_JSON_STRING || value->len < 1 || value->len > MP_BREAKER_NAME_BYTES)
			mp_option_refuse(psprintf("breaker must be a name of 1 to %d bytes", MP_BREAKER_NAME_BYTES));
		options->breaker = pnstrdup(value->text, value->len);
	}
	else if (strcmp(name, "service") == 0)
	{
		if (value->kind != MP_JSON_STRING || value->len < 1 || value->len > MP_SERVICE_NAME_BYTES ||
			memchr(value->text, ':', value->len) != NULL)
			mp_option_refuse(psprintf("service must be a name of 1 to %d bytes without a colon", MP_SERVICE_NAME_BYTES));
		options->service = pnstrdup(value->text, value->len);
	}
	else if (strcmp(name, "retry_budget") == 0)
		set_budget(&options->budget, value);
	else if (strcmp(name, "on_unknown_outcome") == 0)
	{
		options->policy.stop_if_unknown = mp_option_is(value, "dead");
		if (!options->policy.stop_if_unknown && !mp_option_is(value, "retry"))
			mp_option_refuse("on_unknown_outcome must be retry or dead");
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

	for (size_t i = 0; i < lengthof(policy_options); i++)
	{
		if (strcmp(name, policy_options[i].name) == 0)
		{
			mp_option_set_number(&parse->options, &policy_options[i], value);
			return true;
		}
	}
	if (strcmp(name, "jitter") == 0)
	{
		set_jitter(&parse->options.policy, value);
		return true;
	}
	if (parse->all && set_option(&parse->options, name, value))
		return true;
	ereport(ERROR,
			(errcode(MP_ERRCODE_INVALID),
			 errmsg("MP400: unknown option \"%s\"", name),
			 errhint("retry=no. Known are max_attempts, base_delay, multiplier, max_delay, jitter%s max_age%s.",
					 parse->all ? "," : " and", parse->all ? ", timeout, order_key, on_dead, max_replays, redrive_window, on_unknown_outcome, breaker, service, retry_budget and start" : "")));
	return false;
}

static MpOptions
parse_options(Jsonb *options, bool all)
{
	Parse		parse = {
		.options.policy = MP_RETRY_POLICY_DEFAULT, .options.budget = MP_RETRY_BUDGET_DEFAULT, .all = all
	};
	MpJson		root;

	if (options == NULL)
		return parse.options;
	root = mp_json_of_jsonb(options);
	if (root.kind != MP_JSON_OBJECT)
		mp_refuse_argument("%s must be a JSON object", all ? "options" : "policy");
	(void) mp_json_reader.each(&root, visit_option, &parse);
	if (parse.options.block_key && parse.options.order_path == NULL)
		mp_option_refuse("on_dead block_key needs an order_key");
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
