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
 * The buffer is not terminated: only its length counts.  First room for what
 * may come is asked for, then where it has ended is told.
 */
static inline char *
mp_json_begin_writing(StringInfo out, size_t most)
{
	if (unlikely(most >= (size_t) (out->maxlen - out->len)))
		enlargeStringInfo(out, (int) most);
	return out->data + out->len;
}

static inline void
mp_json_end_writing(StringInfo out, const char *to)
{
	out->len = (int) (to - out->data);
}

/* As it is. */
static inline void
mp_json_write(StringInfo out, const char *text, size_t len)
{
	memcpy(mp_json_begin_writing(out, len), text, len);
	out->len += (int) len;
}

/* These append what jsonb's own output function would print, byte for byte. */
extern void mp_json_write_string(StringInfo out, const char *text, size_t len);
extern void mp_json_write_container(StringInfo out, const JsonbContainer *container);

#endif							/* MP_BUS_JSON_TEXT_H */
