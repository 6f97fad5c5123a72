/*
 * time_limit.h
 *		How long a call of a handler may take.
 */
#ifndef MP_BUS_TIME_LIMIT_H
#define MP_BUS_TIME_LIMIT_H

#include "postgres.h"

#include "utils/timestamp.h"

typedef struct MpTimeLimit
{
	TimestampTz own;			/* 0: none */
	TimestampTz outer;			/* of a handler further up the stack; 0: none */
} MpTimeLimit;

/* From now on for so many seconds; 0: no limit but those in force. */
extern void mp_time_limit_begin(MpTimeLimit *limit, double seconds);

/*
 * Ends a limit, also after an error; twice is harmless.  True when its time was
 * up and the query was cancelled for that.
 */
extern bool mp_time_limit_end(MpTimeLimit *limit);

#endif							/* MP_BUS_TIME_LIMIT_H */
