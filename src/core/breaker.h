/*
 * The circuit breaker as a machine: what a call, its result, an operator or
 * the passing of time does to it.
 *
 * Times are microseconds of the caller's clock.  Nothing here reads a clock,
 * takes a lock or allocates; chance comes in as a number.
 */
#ifndef MP_CORE_BREAKER_H
#define MP_CORE_BREAKER_H

#include <stdbool.h>
#include <stdint.h>

#define MP_BREAKER_MAX_PERMITS	16
#define MP_BREAKER_MAX_WINDOW	1000	/* calls */
#define MP_BREAKER_BUCKETS		10	/* of a window of time */

/* Who finds all permits of a half-open breaker taken comes again so soon. */
#define MP_BREAKER_RETRY_US		INT64_C(1000000)

typedef enum MpBreakerState
{
	MP_BREAKER_CLOSED,
	MP_BREAKER_OPEN,
	MP_BREAKER_HALF_OPEN
} MpBreakerState;

typedef enum MpBreakerForce
{
	MP_FORCE_NONE,
	MP_FORCE_OPEN,
	MP_FORCE_CLOSED
} MpBreakerForce;

typedef enum MpBreakerWindow
{
	MP_WINDOW_NONE,
	MP_WINDOW_COUNT,
	MP_WINDOW_TIME
} MpBreakerWindow;

typedef enum MpBreakerOutcome
{
	MP_OUTCOME_SUCCESS,
	MP_OUTCOME_FAILURE,
	MP_OUTCOME_IGNORED			/* says nothing of the service */
} MpBreakerOutcome;

/* Why it went from one state to another. */
typedef enum MpBreakerReason
{
	MP_REASON_CONSECUTIVE,		/* too many failures, one after the other */
	MP_REASON_FAILURE_RATE,
	MP_REASON_SLOW_RATE,
	MP_REASON_PROBE_FAILED,
	MP_REASON_PROBE_LOST,		/* a probe's lease ended without a result */
	MP_REASON_PROBING,			/* the open time is over, and somebody came */
	MP_REASON_RECOVERED,
	MP_REASON_FORCED,
	MP_REASON_RELEASED,			/* by an operator */
	MP_REASON_EXPIRED,			/* what an operator forced has ended */
	MP_REASON_CONFIGURED,		/* a breaker that only measures is closed */
	MP_REASON_WOULD_OPEN		/* one that only measures would have opened */
} MpBreakerReason;

typedef struct MpBreakerConfig
{
	int			failure_threshold;	/* consecutive failures that open; 0: none do */
	double		open_seconds;
	double		max_open_seconds;
	double		growth;			/* of the open time, from one opening to the next */
	double		jitter;			/* 0..1: share of the open time that is random */
	double		decay_seconds;	/* so long closed takes one step of growth back */
	int			success_threshold;	/* successful probes that close */
	int			half_open_permits;	/* probes at once */
	double		permit_seconds; /* the lease of a probe */
	MpBreakerWindow window;
	double		window_size;	/* calls, or seconds */
	int			minimum_calls;	/* below that the rates say nothing */
	double		failure_rate;	/* 0..1; 0: does not open */
	double		slow_call_seconds;	/* from so long on a call is slow; 0: none is */
	double		slow_rate;		/* 0..1; 0: does not open */
	bool		metrics_only;	/* counts, and never refuses */
} MpBreakerConfig;

#define MP_BREAKER_CONFIG_DEFAULT \
	((MpBreakerConfig) {.failure_threshold = 5, .open_seconds = 30, .max_open_seconds = 3600, .growth = 1, \
	 .decay_seconds = 300, .success_threshold = 1, .half_open_permits = 1, .permit_seconds = 60, \
	 .window_size = 100, .minimum_calls = 10})

typedef struct MpBreakerPermit
{
	int			serial;			/* 0: free */
	int64_t		lease_until;
} MpBreakerPermit;

typedef struct MpBreakerBucket
{
	int64_t		number;			/* of its stretch of time */
	int			calls;
	int			failures;
	int			slow;
} MpBreakerBucket;

typedef struct MpBreaker
{
	MpBreakerState state;
	MpBreakerForce forced;
	int64_t		forced_until;	/* 0: until it is released */
	int64_t		epoch;			/* grows with every change of state */
	int64_t		changed_at;		/* when this epoch began */
	int			consecutive;	/* failures */
	int			open_count;		/* openings in a row, for growth */
	int64_t		open_length;
	int64_t		opened_at;		/* 0: never was open */
	int64_t		open_until;
	int			successes;		/* of probes, in this epoch */
	int			last_serial;
	bool		would_open;		/* was told, in this epoch */
	MpBreakerPermit permit[MP_BREAKER_MAX_PERMITS];

	/* the window, by one measure or the other */
	int			calls;
	int			failures;
	int			slow;
	int			next_call;
	unsigned char call[MP_BREAKER_MAX_WINDOW];
	MpBreakerBucket bucket[MP_BREAKER_BUCKETS];
} MpBreaker;

typedef struct MpBreakerStep
{
	MpBreakerState from;
	MpBreakerState to;
	MpBreakerReason reason;
	int64_t		epoch;			/* that it began */
	int64_t		at;
} MpBreakerStep;

/* What one call here did: an old force or lease may end, and then more happen. */
#define MP_BREAKER_MAX_STEPS 4
typedef struct MpBreakerSteps
{
	int			count;
	MpBreakerStep step[MP_BREAKER_MAX_STEPS];
} MpBreakerSteps;

typedef struct MpBreakerAnswer
{
	bool		allowed;
	int64_t		permit;			/* when allowed */
	int64_t		retry_at;		/* when not; INT64_MAX: an operator has to release it */
} MpBreakerAnswer;

/* A new breaker: closed, with nothing counted. */
extern void mp_breaker_init(MpBreaker *breaker, int64_t epoch, int64_t now);

/* A permit carries its epoch; that of a probe has a number of its own, too. */
extern int64_t mp_permit_make(int64_t epoch, int serial);
extern int64_t mp_permit_epoch(int64_t permit);
extern bool mp_permit_is_probe(int64_t permit);

/* Lets what is over end: a force, the lease of a probe. */
extern void mp_breaker_settle(const MpBreakerConfig *config, MpBreaker *breaker, int64_t now, MpBreakerSteps *steps);

/* Somebody wants to call. */
extern MpBreakerAnswer mp_breaker_acquire(const MpBreakerConfig *config, MpBreaker *breaker, int64_t now,
										  MpBreakerSteps *steps);

/*
 * A call has ended.  False: late, of another epoch or told before, and without
 * any effect.  `random` in [0, 1) places an open time within its jitter.
 */
extern bool mp_breaker_report(const MpBreakerConfig *config, MpBreaker *breaker, int64_t now, double random,
							  int64_t permit, MpBreakerOutcome outcome, bool slow, MpBreakerSteps *steps);

/* An operator forces it until then (0: for ever), or releases it (MP_FORCE_NONE). */
extern void mp_breaker_force(const MpBreakerConfig *config, MpBreaker *breaker, int64_t now,
							 MpBreakerForce force, int64_t until, MpBreakerSteps *steps);

/* The configuration is another one from now on. */
extern void mp_breaker_reconfigure(const MpBreakerConfig *config, MpBreaker *breaker, int64_t now,
								   MpBreakerSteps *steps);

/*
 * The permit that every caller gets as long as nothing is reported and nobody
 * forces anything; 0 when they have to ask one by one.
 */
extern int64_t mp_breaker_common_permit(const MpBreakerConfig *config, const MpBreaker *breaker);

/* Whether a success with that permit would change nothing. */
extern bool mp_breaker_is_quiet(const MpBreakerConfig *config, const MpBreaker *breaker);

extern const char *mp_breaker_state_name(MpBreakerState state);
extern const char *mp_breaker_reason_name(MpBreakerReason reason);

#endif							/* MP_CORE_BREAKER_H */
