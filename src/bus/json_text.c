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
#include "pgcompat.h"
#include "utils/builtins.h"
#include "utils/numeric.h"

/* Strings are copied by words of eight bytes. */
#define WORD ((size_t) sizeof(uint64))

/* A character takes six bytes at most: a backslash, u and four digits. */
#define LONGEST_ESCAPE 6

/* The same byte eight times. */
#define BYTES(byte) (UINT64CONST(0x0101010101010101) * (byte))

/* Is a byte of the word zero, or below n?  n is 128 at most. */
#define HAS_LESS(word, n) (((word) - BYTES(n)) & ~(word) & BYTES(0x80))
#define HAS_ZERO(word) HAS_LESS(word, 1)

static inline bool
is_plain(uint64 word)
{
	return (HAS_LESS(word, ' ') | HAS_ZERO(word ^ BYTES('"')) | HAS_ZERO(word ^ BYTES('\\'))) == 0;
}

static inline char *
write_bytes(char *to, const void *bytes, size_t len)
{
	memcpy(to, bytes, len);
	return to + len;
}

static char *
write_escaped(char *to, unsigned char character)
{
	static const char digits[] = "0123456789abcdef";

	*to++ = '\\';
	switch (character)
	{
		case '\b':
			*to++ = 'b';
			break;
		case '\f':
			*to++ = 'f';
			break;
		case '\n':
			*to++ = 'n';
			break;
		case '\r':
			*to++ = 'r';
			break;
		case '\t':
			*to++ = 't';
			break;
		case '"':
		case '\\':
			*to++ = character;
			break;
		default:
			to = write_bytes(to, "u00", 3);
			*to++ = digits[character >> 4];
			*to++ = digits[character & 15];
			break;
	}
	return to;
}

static inline bool
is_escaped(unsigned char character)
{
	return character < ' ' || character == '"' || character == '\\';
}

/* Up to a word of them. */
static char *
write_characters(char *to, const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++)
	{
		if (is_escaped(text[i]))
			to = write_escaped(to, text[i]);
		else
			*to++ = text[i];
	}
	return to;
}

/* The last word is filled up with spaces, which what follows overwrites. */
static char *
write_quoted(char *to, const char *text, size_t len)
{
	uint64		word;

	*to++ = '"';
	for (; len >= WORD; len -= WORD, text += WORD)
	{
		memcpy(&word, text, WORD);
		to = is_plain(word) ? write_bytes(to, &word, WORD) : write_characters(to, text, WORD);
	}
	word = BYTES(' ');
	memcpy(&word, text, len);
	if (is_plain(word))
	{
		memcpy(to, &word, WORD);
		to += len;
	}
	else
		to = write_characters(to, text, len);
	*to++ = '"';
	return to;
}

void
mp_json_write_string(StringInfo out, const char *text, size_t len)
{
	char	   *to = mp_json_begin_writing(out, LONGEST_ESCAPE * len + WORD + 2);

	mp_json_end_writing(out, write_quoted(to, text, len));
}

/*
 * The short form of a stored number, which all but very long ones have: 16 bits
 * of header, then digits to the base of 10,000.  The server keeps it to itself
 * (numeric.c), but cannot change what lies in tables.
 */
#define IS_SHORT(header)		(((header) & 0xC000) == 0x8000)
#define IS_NEGATIVE(header)		(((header) & 0x2000) != 0)
#define SCALE(header)			(((header) >> 7) & 0x3F)	/* decimals behind the point */
#define WEIGHT(header)			((((header) & 0x7F) ^ 0x40) - 0x40) /* of the first digit */

#define LONGEST_SHORT			(1 + 4 * 0x40 + 1 + 0x3F + 3)

static char *
write_short_number(char *to, const uint16 *header, int count)
{
	const uint16 *digits = header + 1;
	int			weight = WEIGHT(*header);
	char	   *end;

#define DIGIT(i)	((i) >= 0 && (i) < count ? digits[i] : 0)
	if (IS_NEGATIVE(*header))
		*to++ = '-';
	to += pg_ultoa_n(weight >= 0 ? DIGIT(0) : 0, to);
	for (int i = 1; i <= weight; i++)
		to = pg_ultostr_zeropad(to, DIGIT(i), 4);
	if (SCALE(*header) == 0)
		return to;
	*to++ = '.';
	end = to + SCALE(*header);
	for (int i = weight + 1; to < end; i++)
		to = pg_ultostr_zeropad(to, DIGIT(i), 4);
	return end;
}

static void
write_number(StringInfo out, Numeric number)
{
	const uint16 *header = (const uint16 *) VARDATA(number);

	if (!VARATT_IS_EXTENDED(number) && IS_SHORT(*header))
	{
		int			count = (int) ((VARSIZE(number) - VARHDRSZ) / sizeof(uint16)) - 1;

		mp_json_end_writing(out, write_short_number(mp_json_begin_writing(out, LONGEST_SHORT), header, count));
	}
	else
	{
		char	   *text = DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(number)));

		mp_json_write(out, text, strlen(text));
		pfree(text);
	}
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
		mp_json_write(out, "true", 4);
	else if (JBE_ISBOOL_FALSE(entry))
		mp_json_write(out, "false", 5);
	else if (JBE_ISNULL(entry))
		mp_json_write(out, "null", 4);
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
		mp_json_write(out, is_object ? "{" : "[", 1);
	for (int i = 0; i < count; i++)
	{
		uint32		end = start;

		if (i > 0)
			mp_json_write(out, ", ", 2);
		if (is_object)
		{
			uint32		name_end = name_start;

			JBE_ADVANCE_OFFSET(name_end, names[i]);
			mp_json_write_string(out, data + name_start, name_end - name_start);
			mp_json_write(out, ": ", 2);
			name_start = name_end;
		}
		JBE_ADVANCE_OFFSET(end, values[i]);
		write_value(out, values[i], data, start, end);
		start = end;
	}
	if (!is_scalar)
		mp_json_write(out, is_object ? "}" : "]", 1);
}
