/*
 * cursor.h
 *		How far a pull subscription has come in an account.
 */
#ifndef MP_BUS_CURSOR_H
#define MP_BUS_CURSOR_H

#include "bus/subscription.h"

/* The newest row of the ledger of cursors; whoever moves it holds the order lock. */
typedef struct MpCursor
{
	bool		stored;			/* there is one */
	int64		stored_position;
	int64		position;		/* where the next claim begins */
	int64		first_claim;	/* number of the oldest claim that may be out; 0: none */
	TimestampTz next_expiry;	/* no lease of those ends before */
} MpCursor;

/* SPI is connected for what follows; `name` is the subscription's. */
extern MpCursor mp_cursor_read(text *account, const MpSubscription *subscription, Datum name);

/* Moves the cursor, or, at the same position, changes what stands next to it. */
extern void mp_cursor_write(text *account, Datum name, const MpCursor *cursor, int64 position);

/*
 * Ends the leases that are over, under the order lock, and notes in the cursor which
 * claims are out; whether there were any.
 */
extern bool mp_cursor_expire_leases(text *account, const MpSubscription *subscription, TimestampTz now,
									MpCursor *cursor);

/* A lease now ends at this time, perhaps before the others. */
extern void mp_cursor_expiry_comes(text *account, Datum name, TimestampTz lease_until);

#endif							/* MP_BUS_CURSOR_H */
