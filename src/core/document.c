/*
 * document.c
 *		The first look at a JSON text that comes from outside.
 */
#include <jansson.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

#include "document.h"
#include "utf8.h"

#define MAX_DECIMAL_PLACES 16383

/*
 * Makes a message fit to be shown: jansson quotes the text, which may be broken
 * UTF-8 or run over lines, and cuts its messages anywhere.
 */
static void
clean(char *message)
{
	size_t		out = 0;
	size_t		len = 0;

	while (message[len] != '\0')
		len++;
	for (size_t at = 0; at < len;)
	{
		uint32_t	code;
		size_t		size = mp_utf8_decode(message + at, len - at, &code);

		if (code < 0x20 || code == 0x7F || code >= MP_UTF8_INVALID)
			message[out++] = '?';
		else
		{
			for (size_t i = 0; i < size; i++)
				message[out++] = message[at + i];
		}
		at += size;
	}
	message[out] = '\0';
}

__attribute__((format(printf, 4, 5)))
static bool
refuse(MpDocumentError *error, int line, int column, const char *format,...)
{
	va_list		arguments;

	error->line = line > 0 ? line : 0;
	error->column = column > 0 ? column : 0;
	va_start(arguments, format);
	vsnprintf(error->message, sizeof(error->message), format, arguments);
	va_end(arguments);
	clean(error->message);
	return false;
}

/*
 * Would the number that begins here have more decimal places than the server's
 * numeric keeps?  jansson reads it as a double, to which it is just zero.
 */
static bool
has_too_many_places(const char *text, size_t len)
{
	size_t		i = 0;
	long		places = 0;
	long		exponent = 0;
	bool		fraction = false;
	bool		negative = false;

	for (; i < len && (text[i] == '-' || text[i] == '.' || (text[i] >= '0' && text[i] <= '9')); i++)
	{
		if (text[i] == '.')
			fraction = true;
		else if (fraction)
			places++;
	}
	if (i < len && (text[i] == 'e' || text[i] == 'E'))
	{
		i++;
		if (i < len && (text[i] == '-' || text[i] == '+'))
			negative = text[i++] == '-';
		for (; i < len && text[i] >= '0' && text[i] <= '9' && exponent <= MAX_DECIMAL_PLACES; i++)
			exponent = exponent * 10 + (text[i] - '0');
	}
	return places + (negative ? exponent : -exponent) > MAX_DECIMAL_PLACES;
}

/*
 * Measures the nesting before any parser recurses into it, looks at the numbers
 * that only the server would refuse, and finds out what the text begins with.  Of strings it knows just enough not to be misled by
 * brackets in them; whether the text is JSON is not its question.
 */
static bool
check_nesting(const char *text, size_t len, int max_depth, MpDocumentError *error)
{
	int			depth = 0;
	int			line = 1;
	int			column = 0;
	bool		in_string = false;
	bool		started = false;
	bool		in_number = false;

	for (size_t i = 0; i < len; i++)
	{
		char		c = text[i];

		if (((unsigned char) c & 0xC0) != 0x80)
			column++;
		if (c == '\n')
		{
			line++;
			column = 0;
		}
		else if (in_string)
		{
			if (c == '"')
				in_string = false;
			else if (c == '\\' && i + 1 < len && text[i + 1] != '\n')
			{
				i++;			/* whatever it is, it ends no string */
				if (((unsigned char) text[i] & 0xC0) != 0x80)
					column++;
			}
			continue;
		}
		/* an exponent's digits follow its e, and begin no number */
		if (c != '-' && c != '+' && c != '.' && c != 'e' && c != 'E' && (c < '0' || c > '9'))
			in_number = false;
		else if (!in_number && c != '+' && c != '.' && c != 'e' && c != 'E')
		{
			in_number = true;
			if (has_too_many_places(text + i, len - i))
				return refuse(error, line, column,
							  "number must not have more than %d decimal places",
							  MAX_DECIMAL_PLACES);
		}
		if (c == ' ' || c == '\t' || c == '\r' || c == '\n')
			continue;
		if (!started && c != '{')
			return refuse(error, line, column, "must be a JSON object");
		started = true;

		if (c == '"')
			in_string = true;
		else if (c == '{' || c == '[')
		{
			if (++depth > max_depth)
				return refuse(error, line, column,
							  "must not be nested deeper than %d levels", max_depth);
		}
		else if ((c == '}' || c == ']') && depth > 0)
			depth--;
	}
	return started || refuse(error, line, column, "must be a JSON object");
}

bool
mp_document_check(const char *text, size_t len, size_t max_bytes, int max_depth,
				  MpDocumentError *error)
{
	json_t	   *root;
	json_error_t json_error;
	bool		is_object;

	if (len > max_bytes)
		return refuse(error, 0, 0, "must not be larger than %zu bytes", max_bytes);
	if (!check_nesting(text, len, max_depth, error))
		return false;

	root = json_loadb(text, len, 0, &json_error);
	if (root == NULL)
		return refuse(error, json_error.line, json_error.column, "%s",
					  json_error.text);
	is_object = json_is_object(root);
	json_decref(root);
	return is_object || refuse(error, 1, 1, "must be a JSON object");
}
