/*
 * json_value.h
 *		A view of a JSON value that hides where the value is stored.
 *
 * The pure core reads JSON through this small vtable, so that the same code
 * runs over the server's jsonb, over a jansson tree in the unit tests and over
 * whatever a fuzzer builds.  An MpJson is a value, not an object: it is copied
 * freely, owns nothing, and stays valid as long as the document behind it.
 */
#ifndef MP_JSON_VALUE_H
#define MP_JSON_VALUE_H

#include <stdbool.h>
#include <stddef.h>

typedef enum MpJsonKind
{
	MP_JSON_ABSENT,				/* there is no such field */
	MP_JSON_NULL,
	MP_JSON_BOOL,
	MP_JSON_NUMBER,
	MP_JSON_STRING,
	MP_JSON_ARRAY,
	MP_JSON_OBJECT
} MpJsonKind;

typedef struct MpJson
{
	MpJsonKind	kind;
	bool		boolean;		/* of a BOOL */

	/*
	 * The bytes of a STRING (UTF-8, unescaped) or the decimal text of a
	 * NUMBER as JSON writes it.  Not NUL-terminated; text may be NULL when
	 * len is 0.  Unused for the other kinds.
	 */
	const char *text;
	size_t		len;

	const void *node;			/* the reader's own handle */
} MpJson;

/*
 * Called for each member of an object (key set) or each element of an array
 * (key NULL).  Returning false stops the walk.  The key, as the value, stays
 * valid as long as the document.
 */
typedef bool (*MpJsonVisit) (const char *key, size_t key_len,
							 const MpJson *value, void *context);

typedef struct MpJsonReader
{
	/* The named member, or a value of kind MP_JSON_ABSENT. */
	MpJson		(*field) (const MpJson *object, const char *key, size_t key_len);

	/* Walks a container in its own order; false when the visitor stopped it. */
	bool		(*each) (const MpJson *container, MpJsonVisit visit, void *context);

	/*
	 * Called at every recursion of the core; may be NULL.  The server checks
	 * its stack depth here and may leave by a longjmp, so that the core must
	 * never hold a resource (the arena is the server's own) across it.
	 */
	void		(*guard) (void);
} MpJsonReader;

#endif							/* MP_JSON_VALUE_H */
