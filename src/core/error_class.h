/*
 * What an error means: its class, and what else a handler may say of it.
 */
#ifndef MP_CORE_ERROR_CLASS_H
#define MP_CORE_ERROR_CLASS_H

#include <stdbool.h>
#include <stdint.h>

typedef enum MpErrorClass
{
	MP_CLASS_TRANSIENT,			/* what nobody knows anything of */
	MP_CLASS_CONTENTION,		/* somebody else was at it; soon over */
	MP_CLASS_RESOURCE,			/* too much is asked: of a server, or of a quota */
	MP_CLASS_SHUTDOWN,			/* it did not get so far: no attempt */
	MP_CLASS_TIMEOUT,
	MP_CLASS_UNKNOWN_OUTCOME,	/* it may have been done */
	MP_CLASS_PERMANENT,			/* no retry can help */
	MP_CLASS_DEPLOY				/* no event can be handled as things are */
} MpErrorClass;

#define MP_ERROR_CLASSES (MP_CLASS_DEPLOY + 1)

extern const char *mp_error_class_name(MpErrorClass class);

/* False when it is no class. */
extern bool mp_error_class_of_name(const char *name, MpErrorClass *class);

/* Whether errors of that class tell of the service, and not of us or the data. */
extern bool mp_error_class_tells_of_service(MpErrorClass class);

/*
 * What the detail of an error says in words:
 *
 *     code=fatsecret:12 retry_after=60
 *
 * retry_after is the value of an HTTP header Retry-After: seconds, or a date,
 * which goes to the end.  What cannot be read is as if it was not there.
 */
typedef struct MpErrorAdvice
{
	char		code[64];		/* empty: none */
	bool		has_retry_after;
	double		retry_after;	/* seconds from now on, never negative */
} MpErrorAdvice;

/* `now` is in seconds since 1970. */
extern MpErrorAdvice mp_error_advice(const char *detail, double now);

#endif							/* MP_CORE_ERROR_CLASS_H */
