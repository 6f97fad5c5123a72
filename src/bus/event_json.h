/*
 * event_json.h
 *		Events and jsonb as the pure core reads JSON, and the envelope.
 */
#ifndef MP_BUS_EVENT_JSON_H
#define MP_BUS_EVENT_JSON_H

#include "bus/bus.h"
#include "core/json_value.h"
#include "core/pattern.h"
#include "utils/jsonb.h"

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

/* The envelope as sent on the wire. */
extern Jsonb *mp_event_envelope(const MpEvent *event);

#endif							/* MP_BUS_EVENT_JSON_H */
