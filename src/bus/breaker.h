/*
 * breaker.h
 *		Circuit breakers, shared by all backends of a database.
 */
#ifndef MP_BUS_BREAKER_H
#define MP_BUS_BREAKER_H

#include "bus/bus.h"
#include "core/breaker.h"
#include "utils/jsonb.h"

#define MP_BREAKER_NAME_BYTES	100
#define MP_BREAKER_WORDS_BYTES	200

/* What was counted since the server started. */
typedef enum MpBreakerCounter
{
	MP_COUNT_SUCCESSES,
	MP_COUNT_FAILURES,
	MP_COUNT_SLOW,
	MP_COUNT_IGNORED,
	MP_COUNT_LATE,
	MP_COUNT_REJECTED,
	MP_COUNT_PROBES,
	MP_BREAKER_COUNTERS
} MpBreakerCounter;

typedef struct MpBreakerPlace MpBreakerPlace;

/* A breaker as its rows say. */
typedef struct MpBreakerRow
{
	MpBreakerConfig config;
	int64		config_version;
	MpBreaker	breaker;
	char		forced_by[NAMEDATALEN];
	char		forced_reason[MP_BREAKER_WORDS_BYTES];
} MpBreakerRow;

/* A change of state that may not be stored yet. */
typedef struct MpBreakerChange
{
	uint64		number;
	MpBreakerStep step;
	char		by[NAMEDATALEN];	/* who forced or released it; else empty */
	char		words[MP_BREAKER_WORDS_BYTES];
} MpBreakerChange;

#define MP_BREAKER_CHANGES 16	/* kept until they are stored */

/* A copy of all that is shared of one. */
typedef struct MpBreakerCopy
{
	char		name[MP_BREAKER_NAME_BYTES + 1];
	MpBreakerRow row;
	bool		stored;
	uint64		counter[MP_BREAKER_COUNTERS];
	int			change_count;
	MpBreakerChange change[MP_BREAKER_CHANGES]; /* not stored yet, oldest first */
} MpBreakerCopy;

extern Size mp_breaker_shmem_size(void);
extern void mp_breaker_shmem_request(void);
extern void mp_breaker_shmem_startup(void);

/*
 * The breaker of that name in this database, loaded from its rows when it is
 * not shared yet: that needs a snapshot, and MP503 when there is no place left
 * or the server is a standby.  A name nobody configured has the defaults.
 */
extern MpBreakerPlace *mp_breaker_find(const char *name);

/*
 * The same; NULL when there is no place left.  What would be called behind such a
 * breaker waits as behind an open one, and asks again at the time of the second.
 */
extern MpBreakerPlace *mp_breaker_find_if_room(const char *name);
extern TimestampTz mp_breaker_retry_without_room(void);

/* Somebody wants to call.  Takes no lock as long as the breaker is closed. */
extern MpBreakerAnswer mp_breaker_ask(MpBreakerPlace *place);

/* The same without a permit: when one could be had; 0: now. */
extern TimestampTz mp_breaker_retry_at(MpBreakerPlace *place);

/* `calls` of a permit have ended.  Runs in commit callbacks: it raises no error. */
extern void mp_breaker_tell(MpBreakerPlace *place, int64 permit, MpBreakerOutcome outcome, bool slow, int64 calls);
extern bool mp_breaker_is_slow(const MpBreakerPlace *place, double seconds);

extern void mp_breaker_apply_force(MpBreakerPlace *place, MpBreakerForce force, TimestampTz until,
								   const char *by, const char *words);

/* Its rows are others now; an older configuration than the present one is ignored. */
extern void mp_breaker_apply_config(MpBreakerPlace *place, const MpBreakerConfig *config, int64 version);

/*
 * Copies, after what is over has ended if `settle`: who stores for somebody else
 * must not, since its clock may be another one.
 */
extern void mp_breaker_look(MpBreakerPlace *place, bool settle, MpBreakerCopy *copy);
extern MpBreakerState mp_breaker_state(MpBreakerPlace *place);

/* The shared breakers of this database, one by one: from 0 until it is NULL. */
extern MpBreakerPlace *mp_breaker_next(int *place);

/* Changes up to this one are stored. */
extern void mp_breaker_stored(MpBreakerPlace *place, uint64 number);
extern bool mp_breaker_is_stored(MpBreakerPlace *place);

/* breaker_store.c */

/* Reads the rows of a breaker; those that are not there count as the defaults. */
extern void mp_breaker_read_row(const char *name, TimestampTz now, MpBreakerRow *row);

/* Has changes stored now, whatever becomes of the present transaction. */
extern void mp_breaker_store(MpBreakerPlace *place, const char *name);

/* breaker_options.c: MP400 for what is no option. */
extern MpBreakerConfig mp_breaker_config_of_jsonb(Jsonb *options);

#endif							/* MP_BUS_BREAKER_H */
