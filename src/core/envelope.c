/*
 * envelope.c
 *		Validation of what an emitter says about an event.
 */
#include <stdarg.h>
#include <stdio.h>

#include "envelope.h"
#include "utf8.h"

__attribute__((format(printf, 3, 4)))
static bool
refuse(MpEnvelopeError *error, const char *field, const char *format,...)
{
	va_list		arguments;

	error->field = field;
	va_start(arguments, format);
	vsnprintf(error->message, sizeof(error->message), format, arguments);
	va_end(arguments);
	return false;
}

/*
 * Line feeds in a name would forge log lines, and nobody sees or types the other
 * control characters.
 */
static bool
has_control_character(const MpEnvelopeText *value)
{
	for (size_t i = 0; i < value->len; i++)
	{
		unsigned char c = (unsigned char) value->text[i];

		if (c < 0x20 || c == 0x7F)
			return true;
	}
	return false;
}

/* The bytes are looked at first: mostly they decide without counting. */
static bool
length_within(const MpEnvelopeText *value, size_t limit)
{
	return value->len > 0 &&
		(value->len <= limit ||
		 (value->len <= limit * 4 &&
		  mp_utf8_length(value->text, value->len) <= limit));
}

bool
mp_envelope_check(const MpEnvelope *envelope, MpEnvelopeError *error)
{
	const struct
	{
		const char *field;
		const MpEnvelopeText *value;
		size_t		limit;
		bool		any_character;
	}			checks[] =
	{
		{"detail_type", &envelope->detail_type, MP_ENVELOPE_DETAIL_TYPE_MAX, false},
		{"source", &envelope->source, MP_ENVELOPE_SOURCE_MAX, false},
		{"account", &envelope->account, MP_ENVELOPE_ACCOUNT_MAX, false},
		{"region", &envelope->region, MP_ENVELOPE_REGION_MAX, false},
		{"stream", &envelope->stream, MP_ENVELOPE_STREAM_MAX, false},
		{"idempotency_key", &envelope->idempotency_key,
		MP_ENVELOPE_IDEMPOTENCY_KEY_MAX, true},
	};
	size_t		bytes;

	if (envelope->detail_type.text == NULL)
		return refuse(error, "detail_type", "detail_type is required");
	for (size_t i = 0; i < sizeof(checks) / sizeof(checks[0]); i++)
	{
		const MpEnvelopeText *value = checks[i].value;

		if (value->text == NULL)
			continue;
		if (!length_within(value, checks[i].limit))
			return refuse(error, checks[i].field,
						  "%s must be between 1 and %zu characters",
						  checks[i].field, checks[i].limit);
		if (!checks[i].any_character && has_control_character(value))
			return refuse(error, checks[i].field,
						  "%s must not contain control characters",
						  checks[i].field);
	}

	if (envelope->resource_count > MP_ENVELOPE_RESOURCES_MAX)
		return refuse(error, "resources",
					  "resources must not have more than %d entries",
					  MP_ENVELOPE_RESOURCES_MAX);
	bytes = MP_ENVELOPE_TIME_BYTES + envelope->source.len + envelope->detail_type.len;
	for (size_t i = 0; i < envelope->resource_count; i++)
	{
		const MpEnvelopeText *resource = &envelope->resources[i];

		if (resource->text == NULL ||
			!length_within(resource, MP_ENVELOPE_RESOURCE_MAX))
			return refuse(error, "resources",
						  "each of resources must be between 1 and %d characters",
						  MP_ENVELOPE_RESOURCE_MAX);
		bytes += resource->len;
	}

	if (!envelope->detail_is_object)
		return refuse(error, "detail", "detail must be a JSON object");
	if (envelope->detail_bytes > MP_ENVELOPE_BYTES_MAX ||
		bytes + envelope->detail_bytes > MP_ENVELOPE_BYTES_MAX)
		return refuse(error, "detail",
					  "detail and envelope together must not be larger than %d bytes",
					  MP_ENVELOPE_BYTES_MAX);
	return true;
}
