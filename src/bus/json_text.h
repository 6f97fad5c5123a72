/*
 * json_text.h
 *		jsonb as text.
 */
#ifndef MP_BUS_JSON_TEXT_H
#define MP_BUS_JSON_TEXT_H

#include "postgres.h"

#include "lib/stringinfo.h"
#include "utils/jsonb.h"

/*
 * Both append to the buffer what jsonb's own output function would print, byte
 * for byte.  The buffer is not terminated: only its length counts.
 */
extern void mp_json_write_string(StringInfo out, const char *text, size_t len);
extern void mp_json_write_container(StringInfo out, const JsonbContainer *container);

#endif							/* MP_BUS_JSON_TEXT_H */
