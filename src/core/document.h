/*
 * document.h
 *		The first look at a JSON text that comes from outside.
 */
#ifndef MP_DOCUMENT_H
#define MP_DOCUMENT_H

#include <stdbool.h>
#include <stddef.h>

typedef struct MpDocumentError
{
	int			line;			/* from 1; 0 when it is not about a place */
	int			column;			/* in characters, from 1 */
	char		message[200];	/* valid UTF-8, one line, no full stop */
} MpDocumentError;

/*
 * Is the text one JSON object of at most max_bytes, whose objects and arrays
 * are nested at most max_depth levels (itself included)?  If not, *error says
 * where and why.  What jansson does not read is refused as well: U+0000, integers
 * beyond 64 bits, numbers beyond binary64, more than 2048 levels; and numbers of
 * more than 16383 decimal places, which the server's numeric does not keep.
 */
extern bool mp_document_check(const char *text, size_t len, size_t max_bytes,
							  int max_depth, MpDocumentError *error);

#endif							/* MP_DOCUMENT_H */
