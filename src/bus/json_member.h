/*
 * json_member.h
 *		Members of a jsonb object that is being made.
 */
#ifndef MP_BUS_JSON_MEMBER_H
#define MP_BUS_JSON_MEMBER_H

#include "postgres.h"

#include "utils/jsonb.h"

extern void mp_json_add_name(JsonbParseState **state, const char *name);	/* its value comes next */
extern void mp_json_add_bytes(JsonbParseState **state, const char *name, const char *text, size_t len);
extern void mp_json_add_text(JsonbParseState **state, const char *name, const char *text);	/* NULL: none */
extern void mp_json_add_number(JsonbParseState **state, const char *name, Numeric number);
extern void mp_json_add_integer(JsonbParseState **state, const char *name, int64 number);
extern void mp_json_add_jsonb(JsonbParseState **state, const char *name, Jsonb *jsonb);

/* {"name": value, ...} of texts; ends with NULL.  A NULL value is left out. */
extern Jsonb *mp_json_of_texts(const char *name, ...);

#endif							/* MP_BUS_JSON_MEMBER_H */
