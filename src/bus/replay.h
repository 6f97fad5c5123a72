/*
 * replay.h
 *		Stretches of a replay, for workers and for consumers.
 */
#ifndef MP_BUS_REPLAY_H
#define MP_BUS_REPLAY_H

#include "bus/bus.h"
#include "executor/spi.h"

/* The events of (after_position, up_to] that a replay has for its subscription. */
typedef struct MpReplayStretch
{
	Datum		account;
	Datum		subscription;
	int64		replay;
	const text *name;
	int64		after_position;
	int64		up_to;
	SPITupleTable *rows;		/* events, some of which may not match the subscription */
	uint64		count;
	Datum		left_out;		/* bigint[]: those that only the subscription's pattern matches */
} MpReplayStretch;

/*
 * Loads the name and the events of a stretch, but not those that have a
 * delivery, which will bring them; false when the replay is gone.  SPI is
 * connected for all of these.
 */
extern bool mp_replay_load(MpReplayStretch *stretch);

/* The first replay of a subscription in an account; 0: none. */
extern int64 mp_replay_first(Datum account, Datum subscription);

/* Where a consumer stands who asks for the next stretch of a replay. */
typedef struct MpReplayAsk
{
	int64		log_position;	/* the cursor of the subscription */
	int64		first_claim;	/* of those that may be out; 0: none */
	int			wanted;			/* events */
	bool		at_once;		/* although it may be the log's turn */
} MpReplayAsk;

/*
 * Loads the next stretch of the first replay; false when there is nothing to
 * take, at least not before *due.  The order lock is held, nothing else locked,
 * unless *moved: the replay was moved over what matches nothing, or has ended.
 */
extern bool mp_replay_next(MpReplayStretch *stretch, const MpReplayAsk *ask, bool *moved, TimestampTz *due);

/* The replay has come to `reached`, over so many events: for a worker, and for a consumer. */
extern void mp_replay_end_batch(const MpReplayStretch *stretch, int64 reached, int64 events);
extern void mp_replay_move(const MpReplayStretch *stretch, int64 reached, int64 events, int64 log_position);

#endif							/* MP_BUS_REPLAY_H */
