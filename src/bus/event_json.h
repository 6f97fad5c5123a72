/*
 * event_json.h
 *		Events and jsonb as the pure core reads JSON, and the envelope.
 */
#ifndef MP_BUS_EVENT_JSON_H
#define MP_BUS_EVENT_JSON_H

#include "bus/bus.h"
#include "core/json_value.h"
#include "core/pattern.h"
#include "lib/stringinfo.h"
#include "utils/jsonb.h"
#include "utils/uuid.h"

/* Reads jsonb containers and events (as their envelopes, without building them). */
extern const MpJsonReader mp_json_reader;

extern MpJson mp_json_of_jsonb(Jsonb *jsonb);
/* An object or array that lies within a jsonb, as a jsonb of its own. */
extern Jsonb *mp_jsonb_of_json(const MpJson *container);
extern MpJson mp_json_of_event(const MpEvent *event);

/*
 * Compiles a pattern into a memory context; MP400 naming the path when it is
 * invalid.
 */
extern const MpPattern *mp_compile_pattern(Jsonb *pattern, MemoryContext context);

/* The envelope's own version, not an event's. */
#define MP_ENVELOPE_VERSION "1.0"

/* The envelope as sent on the wire; replay_name NULL: not of a replay. */
extern Jsonb *mp_event_envelope(const MpEvent *event, const text *replay_name);

/* Its text, the same that the jsonb is printed as; made in the buffer, good for the next one. */
extern text *mp_event_envelope_text(const MpEvent *event, const text *replay_name, StringInfo out);

/* RFC 3339 in UTC with microseconds, and an id: so many characters, no NUL. */
#define MP_TIME_TEXT	27
#define MP_UUID_TEXT	36
extern void mp_format_time(TimestampTz time, char text[MP_TIME_TEXT]);
extern void mp_format_uuid(const pg_uuid_t *id, char text[MP_UUID_TEXT]);

#endif							/* MP_BUS_EVENT_JSON_H */
