/*
 * breaker_handler.h
 *		Circuit breakers around handlers.
 */
#ifndef MP_BUS_BREAKER_HANDLER_H
#define MP_BUS_BREAKER_HANDLER_H

#include "bus/breaker.h"
#include "core/error_class.h"

/* A handler call under a breaker; all zero: under none. */
typedef struct MpBreakerCall
{
	const char *name;
	MpBreakerPlace *place;
	int64		permit;
	bool		refused;
	TimestampTz retry_at;		/* when refused */
} MpBreakerCall;

typedef enum MpBreakerVerdict
{
	MP_CALL_ALLOWED,
	MP_CALL_ONE_ONLY,			/* not several events at once: it is half-open */
	MP_CALL_REFUSED
} MpBreakerVerdict;

/*
 * Asks for a call for so many events; name NULL: there is no breaker.  The
 * permit of a probe goes back when the (sub)transaction ends without a result.
 */
extern MpBreakerVerdict mp_breaker_begin(const char *name, int count, MpBreakerCall *call);

/* Somebody outside has the permit from here on; that of a probe goes back unless this transaction commits. */
extern void mp_breaker_lend(MpBreakerPlace *place, int64 permit);

/* Counts once this transaction has committed. */
extern void mp_breaker_succeeded(const MpBreakerCall *call, int count, double seconds);

/*
 * Counts at once if errors of that class tell of the service.  True when it was
 * a probe and did: the breaker is what it found out about, not the event, and
 * *retry_at is when the next may try (0: now).
 */
extern bool mp_breaker_failed(const MpBreakerCall *call, MpErrorClass class, double seconds, TimestampTz *retry_at);

#endif							/* MP_BUS_BREAKER_HANDLER_H */
