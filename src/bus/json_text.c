/*
 * json_text.c
 *		jsonb as text, the same that jsonb's output function prints.
 *
 * That one goes through an iterator, which makes a value of every member, and
 * copies strings a character at a time.  Here members are written from where
 * they lie, in the stored form of utils/jsonb.h, and strings eight bytes at a
 * time for as long as nothing in them has to be escaped.
 */
#include "bus/json_text.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/numeric.h"

/* A character takes six at most: a backslash, u and four digits. */
#define LONGEST_ESCAPE 6

/* Eight times the same byte. */
#define BYTES(byte) (UINT64CONST(0x0101010101010101) * (byte))

/* Is there a zero byte, or one below n?  For n up to 128. */
#define HAS_LESS(word, n) (((word) - BYTES(n)) & ~(word) & BYTES(0x80))
#define HAS_ZERO(word) HAS_LESS(word, 1)

static inline bool
is_plain(uint64 word)
{
	return (HAS_LESS(word, ' ') | HAS_ZERO(word ^ BYTES('"')) | HAS_ZERO(word ^ BYTES('\\'))) == 0;
}

static inline char *
write_bytes(char *to, const char *bytes, size_t len)
{
	memcpy(to, bytes, len);
	return to + len;
}

static char *
write_character(char *to, unsigned char character)
{
	static const char digits[] = "0123456789abcdef";

	switch (character)
	{
		case '\b':
			return write_bytes(to, "\\b", 2);
		case '\f':
			return write_bytes(to, "\\f", 2);
		case '\n':
			return write_bytes(to, "\\n", 2);
		case '\r':
			return write_bytes(to, "\\r", 2);
		case '\t':
			return write_bytes(to, "\\t", 2);
		case '"':
			return write_bytes(to, "\\\"", 2);
		case '\\':
			return write_bytes(to, "\\\\", 2);
		default:
			if (character < ' ')
			{
				to = write_bytes(to, "\\u00", 4);
				*to++ = digits[character >> 4];
				character = digits[character & 15];
			}
			*to++ = character;
			return to;
	}
}

static char *
write_quoted(char *to, const char *text, size_t len)
{
	const char *end = text + len;

	*to++ = '"';
	while (text < end)
	{
		uint64		word;

		if (end - text >= (ptrdiff_t) sizeof(word))
		{
			memcpy(&word, text, sizeof(word));
			if (is_plain(word))
			{
				to = write_bytes(to, text, sizeof(word));
				text += sizeof(word);
				continue;
			}
		}
		to = write_character(to, *text++);
	}
	*to++ = '"';
	return to;
}

/* Where to write up to so many bytes; end_writing tells how far it went. */
static inline char *
begin_writing(StringInfo out, size_t most)
{
	if (most >= (size_t) (out->maxlen - out->len))
		enlargeStringInfo(out, (int) most);
	return out->data + out->len;
}

static inline void
end_writing(StringInfo out, const char *to)
{
	out->len = (int) (to - out->data);
}

static void
write_plain(StringInfo out, const char *text, size_t len)
{
	end_writing(out, write_bytes(begin_writing(out, len), text, len));
}

void
mp_json_write_string(StringInfo out, const char *text, size_t len)
{
	end_writing(out, write_quoted(begin_writing(out, LONGEST_ESCAPE * len + 2), text, len));
}

static void
write_number(StringInfo out, Numeric number)
{
	char	   *text = DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(number)));

	write_plain(out, text, strlen(text));
	pfree(text);
}

/* What lies from start to end of a container's data; padding comes first. */
static void
write_value(StringInfo out, JEntry entry, const char *data, uint32 start, uint32 end)
{
	if (JBE_ISSTRING(entry))
		mp_json_write_string(out, data + start, end - start);
	else if (JBE_ISNUMERIC(entry))
		write_number(out, (Numeric) (data + INTALIGN(start)));
	else if (JBE_ISBOOL_TRUE(entry))
		write_plain(out, "true", 4);
	else if (JBE_ISBOOL_FALSE(entry))
		write_plain(out, "false", 5);
	else if (JBE_ISNULL(entry))
		write_plain(out, "null", 4);
	else
		mp_json_write_container(out, (const JsonbContainer *) (data + INTALIGN(start)));
}

/* An object has the entries of all names first, then those of all values. */
void
mp_json_write_container(StringInfo out, const JsonbContainer *container)
{
	bool		is_object = JsonContainerIsObject(container);
	bool		is_scalar = JsonContainerIsScalar(container);
	int			count = (int) JsonContainerSize(container);
	const JEntry *names = container->children;
	const JEntry *values = is_object ? names + count : names;
	const char *data = (const char *) (values + count);
	uint32		name_start = 0;
	uint32		start = is_object ? getJsonbOffset(container, count) : 0;

	check_stack_depth();
	if (!is_scalar)
		write_plain(out, is_object ? "{" : "[", 1);
	for (int i = 0; i < count; i++)
	{
		uint32		end = start;

		if (i > 0)
			write_plain(out, ", ", 2);
		if (is_object)
		{
			uint32		name_end = name_start;

			JBE_ADVANCE_OFFSET(name_end, names[i]);
			mp_json_write_string(out, data + name_start, name_end - name_start);
			write_plain(out, ": ", 2);
			name_start = name_end;
		}
		JBE_ADVANCE_OFFSET(end, values[i]);
		write_value(out, values[i], data, start, end);
		start = end;
	}
	if (!is_scalar)
		write_plain(out, is_object ? "}" : "]", 1);
}
