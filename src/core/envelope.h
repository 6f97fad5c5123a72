/*
 * envelope.h
 *		Validation of what an emitter says about an event.
 */
#ifndef MP_ENVELOPE_H
#define MP_ENVELOPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Lengths in characters, inclusive; the least is 1 everywhere. */
#define MP_ENVELOPE_DETAIL_TYPE_MAX 128
#define MP_ENVELOPE_SOURCE_MAX 256
#define MP_ENVELOPE_ACCOUNT_MAX 128
#define MP_ENVELOPE_REGION_MAX 64
#define MP_ENVELOPE_STREAM_MAX 255
#define MP_ENVELOPE_IDEMPOTENCY_KEY_MAX 255
#define MP_ENVELOPE_RESOURCE_MAX 2048

#define MP_ENVELOPE_RESOURCES_MAX 100
#define MP_ENVELOPE_BYTES_MAX 1048576

/* What EventBridge counts for the time of an event. */
#define MP_ENVELOPE_TIME_BYTES 14

/* text NULL: absent */
typedef struct MpEnvelopeText
{
	const char *text;
	size_t		len;
} MpEnvelopeText;

/*
 * All but detail_type may be absent: the caller puts its default there, or
 * leaves it out of the event.
 */
typedef struct MpEnvelope
{
	MpEnvelopeText detail_type;
	MpEnvelopeText source;
	MpEnvelopeText account;
	MpEnvelopeText region;
	MpEnvelopeText stream;
	MpEnvelopeText idempotency_key;
	const MpEnvelopeText *resources;
	size_t		resource_count;
	bool		detail_is_object;
	size_t		detail_bytes;	/* of the JSON text */
} MpEnvelope;

typedef struct MpEnvelopeError
{
	const char *field;			/* the name in the API, "detail_type" */
	char		message[128];	/* lower case, no full stop */
} MpEnvelopeError;

/* Is the envelope valid?  If not, *error says the first thing that is wrong. */
extern bool mp_envelope_check(const MpEnvelope *envelope, MpEnvelopeError *error);

/*
 * Reads an RFC 3339 date and time: upper or lower case, T or one space in
 * between, up to nine digits of fraction (truncated to microseconds), Z or a
 * numeric offset.  A leap second, which only the last minute of a day in UTC can
 * have, is read as the last microsecond before it.  False when it is no such
 * text or no such day.
 */
extern bool mp_rfc3339_parse(const char *text, size_t len,
							 int64_t *unix_microseconds);

#endif							/* MP_ENVELOPE_H */
