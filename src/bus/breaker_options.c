/*
 * breaker_options.c
 *		Options of a circuit breaker.
 */
#include "bus/breaker.h"

#include "bus/event_json.h"
#include "bus/option.h"
#include "utils/builtins.h"

typedef struct Parse
{
	MpBreakerConfig config;
	bool		has_max_open;
	bool		has_minimum;
	bool		has_size;
} Parse;

#define LONGEST (365.0 * 86400)
#define FIELD(name) offsetof(MpBreakerConfig, name)

static const MpNumberOption number_options[] = {
	{"failure_threshold", 0, 1000000, true, FIELD(failure_threshold)},
	{"open_seconds", 0.001, LONGEST, false, FIELD(open_seconds)},
	{"max_open_seconds", 0.001, LONGEST, false, FIELD(max_open_seconds)},
	{"growth", 1, 100, false, FIELD(growth)},
	{"jitter", 0, 1, false, FIELD(jitter)},
	{"decay_seconds", 0.001, LONGEST, false, FIELD(decay_seconds)},
	{"success_threshold", 1, 1000, true, FIELD(success_threshold)},
	{"half_open_permits", 1, MP_BREAKER_MAX_PERMITS, true, FIELD(half_open_permits)},
	{"permit_seconds", 0.001, 86400, false, FIELD(permit_seconds)},
	{"window_size", 0.001, 86400, false, FIELD(window_size)},
	{"minimum_calls", 1, 1000000, true, FIELD(minimum_calls)},
	{"failure_rate", 0, 1, false, FIELD(failure_rate)},
	{"slow_call_seconds", 0, 86400, false, FIELD(slow_call_seconds)},
	{"slow_rate", 0, 1, false, FIELD(slow_rate)}
};

static bool
visit_option(const char *key, size_t key_len, const MpJson *value, void *context)
{
	Parse	   *parse = context;
	char	   *name = pnstrdup(key, key_len);

	for (size_t i = 0; i < lengthof(number_options); i++)
		if (strcmp(name, number_options[i].name) == 0)
		{
			mp_option_set_number(&parse->config, &number_options[i], value);
			parse->has_max_open |= number_options[i].offset == FIELD(max_open_seconds);
			parse->has_minimum |= number_options[i].offset == FIELD(minimum_calls);
			parse->has_size |= number_options[i].offset == FIELD(window_size);
			return true;
		}
	if (strcmp(name, "window") == 0)
	{
		parse->config.window = mp_option_is(value, "count") ? MP_WINDOW_COUNT : MP_WINDOW_TIME;
		if (parse->config.window == MP_WINDOW_TIME && !mp_option_is(value, "time"))
			mp_option_refuse("window must be count or time");
	}
	else if (strcmp(name, "metrics_only") == 0)
	{
		if (value->kind != MP_JSON_BOOL)
			mp_option_refuse("metrics_only must be true or false");
		parse->config.metrics_only = value->boolean;
	}
	else
		ereport(ERROR,
				(errcode(MP_ERRCODE_INVALID),
				 errmsg("MP400: unknown option \"%s\"", name),
				 errhint("retry=no. Known are failure_threshold, open_seconds, max_open_seconds, growth, jitter, decay_seconds,"
						 " success_threshold, half_open_permits, permit_seconds, window, window_size, minimum_calls,"
						 " failure_rate, slow_call_seconds, slow_rate and metrics_only.")));
	return true;
}

/* What is right one by one may contradict itself. */
static void
check_together(Parse *parse)
{
	MpBreakerConfig *config = &parse->config;

	if (!parse->has_max_open && config->max_open_seconds < config->open_seconds)
		config->max_open_seconds = config->open_seconds;
	if (config->max_open_seconds < config->open_seconds)
		mp_option_refuse("max_open_seconds must not be below open_seconds");
	if (config->window == MP_WINDOW_NONE &&
		(config->failure_rate > 0 || config->slow_rate > 0 || parse->has_size || parse->has_minimum))
		mp_option_refuse("failure_rate, slow_rate, window_size and minimum_calls need a window");
	if (config->slow_rate > 0 && config->slow_call_seconds == 0)
		mp_option_refuse("slow_rate needs slow_call_seconds");
	if (config->window == MP_WINDOW_COUNT)
	{
		if (config->window_size < 1 || config->window_size > MP_BREAKER_MAX_WINDOW ||
			config->window_size != (int) config->window_size)
			mp_option_refuse(psprintf("window_size must be an integer between 1 and %d for window count", MP_BREAKER_MAX_WINDOW));
		if (!parse->has_minimum)
			config->minimum_calls = Min(config->minimum_calls, (int) config->window_size);
		if (config->minimum_calls > config->window_size)
			mp_option_refuse("minimum_calls must not be above window_size");
	}
}

MpBreakerConfig
mp_breaker_config_of_jsonb(Jsonb *options)
{
	Parse		parse = {.config = MP_BREAKER_CONFIG_DEFAULT};
	MpJson		root;

	if (options == NULL)
		return parse.config;
	root = mp_json_of_jsonb(options);
	if (root.kind != MP_JSON_OBJECT)
		mp_option_refuse("options must be a JSON object");
	(void) mp_json_reader.each(&root, visit_option, &parse);
	check_together(&parse);
	return parse.config;
}
