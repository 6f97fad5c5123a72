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
 * delivery, which will bring them.  SPI is connected for all of these.
 */
extern void mp_replay_load(MpReplayStretch *stretch);

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
 * Locks the first replay and loads its next stretch; false when there is
 * nothing to take, at least not before *due.
 */
extern bool mp_replay_next(MpReplayStretch *stretch, const MpReplayAsk *ask, TimestampTz *due);

/* The replay has come to `reached`, over so many events. */
extern void mp_replay_move(const MpReplayStretch *stretch, int64 reached, int64 events, int64 log_position);

#endif							/* MP_BUS_REPLAY_H */
