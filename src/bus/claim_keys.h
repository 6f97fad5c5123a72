/*
 * claim_keys.h
 *		The order keys that a claim meets: which are held by whom.
 */
#ifndef MP_BUS_CLAIM_KEYS_H
#define MP_BUS_CLAIM_KEYS_H

#include "bus/cursor.h"
#include "executor/spi.h"
#include "utils/array.h"

typedef struct MpClaimKeys
{
	text	   *account;
	Datum		name;
	const MpSubscription *subscription;
	MemoryContext memory;		/* of one look for what can be claimed */
	struct HTAB *table;			/* keys met; NULL without order_key */
	ArrayBuildState *own;		/* those that this claim holds */
} MpClaimKeys;

/* Begins one look; notes in the cursor which claims are out. SPI is connected. */
extern void mp_claim_keys_begin(MpClaimKeys *keys, MpCursor *cursor);

/* Those of a page that have a live delivery or a dead letter that blocks. */
extern void mp_claim_keys_add_busy(MpClaimKeys *keys, SPITupleTable *rows, uint64 count);

/*
 * Whether something before an event keeps it back; if not, its key is this
 * claim's from here on.
 */
extern bool mp_claim_keys_keep_back(MpClaimKeys *keys, const MpEvent *event, bool delayed);

#endif							/* MP_BUS_CLAIM_KEYS_H */
