/*
 * claim_keys.c
 *		The order keys that a claim meets: which are held by whom.
 *
 * A claim gets events of a key only when nothing else has any of it: no other
 * claim, no live delivery, no dead letter that blocks it.
 */
#include "bus/claim_keys.h"

#include "bus/order.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"

/* Room for the longest key there is, see order.c. */
#define KEY_BYTES 256

typedef struct Key
{
	char		text[KEY_BYTES];	/* the hash key */
	bool		own;			/* held by this claim; else by something before it */
} Key;

static void
add_key(MpClaimKeys *keys, const char *text)
{
	bool		known;
	Key		   *key = hash_search(keys->table, text, HASH_ENTER, &known);

	if (!known)
		key->own = false;
}

/*
 * What other consumers hold.  The claims that are out are seen on the way: the
 * next one need not look through those before them.
 */
void
mp_claim_keys_begin(MpClaimKeys *keys, MpCursor *cursor)
{
	static MpPlan plan = {
		.sql = "SELECT k.number, k.order_key FROM meal_planner.keys_in_claims($1, $2, $3) k",
	.types = {TEXTOID, TEXTOID, INT8OID}};
	HASHCTL		info = {.keysize = KEY_BYTES, .entrysize = sizeof(Key), .hcxt = CurrentMemoryContext};
	Datum		values[3] = {PointerGetDatum(keys->account), keys->name, Int64GetDatum(cursor->first_claim)};

	keys->table = NULL;
	if (keys->subscription->order_path == NULL)
		return;
	keys->table = hash_create("meal_planner order keys", 64, &info, HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	mp_plan_execute(&plan, values, NULL, 0);
	cursor->first_claim = 0;
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		bool		isnull;
		int64		number = DatumGetInt64(SPI_getbinval(row, SPI_tuptable->tupdesc, 1, &isnull));
		char	   *key = SPI_getvalue(row, SPI_tuptable->tupdesc, 2);

		if (cursor->first_claim == 0 || number < cursor->first_claim)
			cursor->first_claim = number;
		if (key != NULL)
			add_key(keys, key);
	}
}

void
mp_claim_keys_add_busy(MpClaimKeys *keys, SPITupleTable *rows, uint64 count)
{
	static MpPlan plan = {
		.sql = "SELECT k FROM meal_planner.busy_keys($1, $2, $3) k",
	.types = {TEXTOID, TEXTOID, TEXTARRAYOID}};
	Datum	   *found = palloc(sizeof(Datum) * Max(count, 1));
	int			key_count = 0;
	Datum		values[3] = {PointerGetDatum(keys->account), keys->name};

	for (uint64 i = 0; i < count; i++)
	{
		MpEvent		event;
		bool		isnull;

		mp_event_from_columns(rows->vals[i], rows->tupdesc, &event);
		found[key_count] = mp_order_key(keys->subscription, &event, &isnull);
		key_count += !isnull;
	}
	values[2] = PointerGetDatum(construct_array(found, key_count, TEXTOID, -1, false, TYPALIGN_INT));
	mp_plan_execute(&plan, values, NULL, 0);
	for (uint64 i = 0; i < SPI_processed; i++)
		add_key(keys, SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1));
}

bool
mp_claim_keys_keep_back(MpClaimKeys *keys, const MpEvent *event, bool delayed)
{
	bool		isnull;
	Datum		value;
	Key		   *key;
	bool		known;

	if (keys->table == NULL)
		return delayed;
	value = mp_order_key(keys->subscription, event, &isnull);
	if (isnull)
		return delayed;
	key = hash_search(keys->table, TextDatumGetCString(value), HASH_ENTER, &known);
	if (!known)
		key->own = !delayed;
	if (known && key->own && delayed)
		key->own = false;		/* what comes behind it waits for it */
	if (!known && !delayed)
		keys->own = accumArrayResult(keys->own, value, false, TEXTOID, keys->memory);
	return delayed || !key->own;
}
