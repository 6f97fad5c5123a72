/*
 * idempotency.c
 *		Idempotency keys of mp_emit_event.
 *
 * A key, the fingerprint of what it was first used for and the id of the event
 * it made are one row, written in the event's transaction: whoever comes with
 * the same key while that runs waits for its end, and goes on at once when it
 * aborts.  Expiry is checked when a key is read; purging only tidies up.
 *
 * The rows lie in buckets (bucket.h).  Who comes with a key at another time, or
 * keeps it for another time, writes to another bucket, where no unique index
 * shows them the first.  So everybody writes and then looks into the other
 * buckets, also at what is not committed: of two, the one who looks later sees
 * the other, takes the own row back when that one commits, and keeps it when it
 * does not.  Two who wrote before either looked wait for each other, and the
 * server ends one of them as it does with any deadlock; that takes two who come
 * with a new key on both sides of the end of a stretch of time, while it is being
 * written, or when who wrote it first takes it back and both have waited.
 */
#include "bus/event.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "bus/bucket.h"
#include "bus/name_lock.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "libpq/pqformat.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

int			mp_idempotency_ttl = 86400;

PG_FUNCTION_INFO_V1(mp_sql_key_bucket);
PG_FUNCTION_INFO_V1(mp_sql_key_spare);

static int64
kept_for(void)
{
	return (int64) mp_idempotency_ttl * USECS_PER_SEC;
}

/* Each part with its length before it, so that parts cannot flow together. */
static void
append_part(StringInfo buffer, const void *value)
{
	if (value == NULL)
	{
		pq_sendint32(buffer, PG_UINT32_MAX);
		return;
	}
	pq_sendint32(buffer, VARSIZE_ANY_EXHDR(value));
	appendBinaryStringInfo(buffer, VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));
}

/*
 * SHA-256 of what makes the content of a draft.  jsonb is canonical: key order
 * and white space of the JSON text do not matter.
 */
bytea *
mp_draft_fingerprint(const MpDraft *draft)
{
	StringInfoData buffer;
	bytea	   *hash;

	pq_begintypsend(&buffer);
	append_part(&buffer, draft->detail_type);
	append_part(&buffer, draft->detail);
	append_part(&buffer, draft->resources);
	append_part(&buffer, draft->stream);
	pq_sendint64(&buffer, draft->has_time ? draft->time : PG_INT64_MIN);
	hash = DatumGetByteaP(DirectFunctionCall1(sha256_bytea, PointerGetDatum(pq_endtypsend(&buffer))));
	return hash;
}

static bool
same_fingerprint(const bytea *a, const bytea *b)
{
	return VARSIZE_ANY_EXHDR(a) == VARSIZE_ANY_EXHDR(b) &&
		memcmp(VARDATA_ANY(a), VARDATA_ANY(b), VARSIZE_ANY_EXHDR(a)) == 0;
}

MpAppendOutcome
mp_duplicate(const MpEventKey *key, const bytea *fingerprint, MpAppendResult *result)
{
	result->id = key->id;
	return same_fingerprint(key->fingerprint, fingerprint) ? MP_DUPLICATE : MP_KEY_REUSED;
}

/* ------------------------------------------------------------------------
 * Keys as arguments of a statement
 * ------------------------------------------------------------------------ */

typedef enum KeyColumn
{
	COLUMN_SOURCE,
	COLUMN_KEY,
	COLUMN_FINGERPRINT,
	COLUMN_EVENT_ID
} KeyColumn;

static Datum
key_value(const MpEventKey *key, KeyColumn column)
{
	switch (column)
	{
		case COLUMN_SOURCE:
			return PointerGetDatum(key->draft->source);
		case COLUMN_KEY:
			return PointerGetDatum(key->draft->idempotency_key);
		case COLUMN_FINGERPRINT:
			return PointerGetDatum(key->fingerprint);
		case COLUMN_EVENT_ID:
			break;
	}
	return UUIDPGetDatum(&key->id);
}

static Datum
key_values(MpEventKey **keys, int count, KeyColumn column)
{
	static const Oid types[] = {TEXTOID, TEXTOID, BYTEAOID, UUIDOID};
	Datum	   *elements = palloc(sizeof(Datum) * count);

	for (int i = 0; i < count; i++)
		elements[i] = key_value(keys[i], column);
	return mp_array(elements, count, types[column]);
}

/* ------------------------------------------------------------------------
 * Looking
 * ------------------------------------------------------------------------ */

static MpBucketTable key_table = {
	.name = "idempotency_key",
	.count = MP_KEY_BUCKETS,
	.index = {{3, {"account", "scope", "key"}, F_TEXTEQ}}
};

/* Columns of meal_planner.idempotency_key */
#define KEY_FINGERPRINT	5
#define KEY_EVENT_ID	6

/* Keys that are looked for, as far as they are not taken. */
typedef struct Look
{
	MpEventKey **keys;
	int			count;
	TimestampTz now;
	SnapshotData dirty;
	int			own;			/* where the keys were written; the others are looked into */
	TransactionId holder;		/* who is writing one of them */
	uint32		speculation;	/* of the holder */
} Look;

static HeapTuple
find_key(const MpBucketTable *table, const MpBucket *bucket, Relation relation,
		 const MpEventKey *key, TimestampTz now, Snapshot snapshot)
{
	Datum		values[3] = {
		PointerGetDatum(key->draft->account), PointerGetDatum(key->draft->source),
		PointerGetDatum(key->draft->idempotency_key)
	};

	return mp_find_in_bucket(table, bucket, relation, 0, values, now, snapshot);
}

static void
take(MpEventKey *key, Datum fingerprint, Datum event_id)
{
	key->taken = true;
	key->fingerprint = DatumGetByteaPP(fingerprint);
	key->id = *DatumGetUUIDP(event_id);
}

static void
take_row(MpEventKey *key, HeapTuple row, TupleDesc desc)
{
	bool		isnull;

	take(key, heap_getattr(row, KEY_FINGERPRINT, desc, &isnull), heap_getattr(row, KEY_EVENT_ID, desc, &isnull));
}

static bool
look_into_bucket(const MpBucketTable *table, const MpBucket *bucket, Relation relation, void *arg)
{
	Look	   *look = arg;
	bool		all = true;

	for (int i = 0; i < look->count; i++)
	{
		MpEventKey *key = look->keys[i];
		HeapTuple	row;

		if (key->taken)
			continue;
		row = find_key(table, bucket, relation, key, look->now, GetActiveSnapshot());
		if (row != NULL)
			take_row(key, row, RelationGetDescr(relation));
		all = all && key->taken;
	}
	return !all;
}

/* Where the buckets do not say all. */
static void
ask_statement(MpEventKey **keys, int count, TimestampTz now, bool latest)
{
	static MpPlan plan = {
		.sql = "SELECT u.n, l.fingerprint, l.event_id"
		" FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3)) WITH ORDINALITY AS u (source, key, n), LATERAL ("
		"SELECT k.fingerprint, k.event_id FROM meal_planner.idempotency_key k"
		" WHERE k.account OPERATOR(pg_catalog.=) $1 AND k.scope OPERATOR(pg_catalog.=) u.source"
		" AND k.key OPERATOR(pg_catalog.=) u.key AND k.expires_at OPERATOR(pg_catalog.>) $4 LIMIT 1) l",
	.types = {TEXTOID, TEXTARRAYOID, TEXTARRAYOID, TIMESTAMPTZOID}, .in_index_order = true};
	Datum		values[4] = {
		PointerGetDatum(keys[0]->draft->account), key_values(keys, count, COLUMN_SOURCE),
		key_values(keys, count, COLUMN_KEY), TimestampTzGetDatum(now)
	};

	if (latest)
		mp_plan_read_latest(&plan, values, NULL, 0);
	else
		mp_plan_execute(&plan, values, NULL, 0);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		bool		isnull;

		take(keys[DatumGetInt64(SPI_getbinval(row, desc, 1, &isnull)) - 1],
			 SPI_getbinval(row, desc, 2, &isnull), SPI_getbinval(row, desc, 3, &isnull));
	}
}

void
mp_keys_look_up(MpEventKey **keys, int count, TimestampTz now)
{
	Look		look = {.keys = keys, .count = count, .now = now};
	bool		done = false;

	if (count == 0)
		return;
	if (mp_buckets_are_whole(&key_table))
	{
		CommandCounterIncrement();
		PushActiveSnapshot(GetTransactionSnapshot());
		done = mp_visit_buckets(&key_table, look_into_bucket, &look);
		PopActiveSnapshot();
	}
	if (!done)
		ask_statement(keys, count, now, false);
}

/* ------------------------------------------------------------------------
 * Claiming
 * ------------------------------------------------------------------------ */

/*
 * A statement names the bucket it writes to: found through the whole table, with
 * its conflicting rows, it would cost several times as much.
 */
#define WHOLE_TABLE	MP_KEY_BUCKETS

typedef struct BucketPlans
{
	const char *format;			/* with %s for the name of the table */
	Oid			types[9];
	MpPlan		plan[WHOLE_TABLE + 1];
} BucketPlans;

static MpPlan *
plan_for(BucketPlans *plans, int bucket)
{
	MpPlan	   *plan = &plans->plan[bucket];

	if (plan->sql == NULL)
	{
		char	   *name = bucket == WHOLE_TABLE ? pstrdup(key_table.name) : psprintf("%s_%d", key_table.name, bucket);

		memcpy(plan->types, plans->types, sizeof(plans->types));
		plan->sql = MemoryContextStrdup(TopMemoryContext, psprintf(plans->format, name));
	}
	return plan;
}

#define INSERT	"INSERT INTO meal_planner.%s AS k (account, scope, key, bucket, fingerprint, event_id, expires_at)"
#define UNLESS_TAKEN \
	" ON CONFLICT (account, scope, key, bucket) DO UPDATE" \
	" SET fingerprint = excluded.fingerprint, event_id = excluded.event_id, expires_at = excluded.expires_at" \
	" WHERE k.expires_at OPERATOR(pg_catalog.<=) $8"

/* The moment and what follows from it for all keys that are claimed at it. */
typedef struct Claim
{
	TimestampTz now;
	TimestampTz expires_at;
	int			bucket;
} Claim;

static bool
insert_key(const Claim *claim, int into, const MpEventKey *key)
{
	static BucketPlans plans = {
		.format = INSERT " VALUES ($1, $2, $3, $4, $5, $6, $7)" UNLESS_TAKEN,
		.types = {TEXTOID, TEXTOID, TEXTOID, INT4OID, BYTEAOID, UUIDOID, TIMESTAMPTZOID, TIMESTAMPTZOID}
	};
	Datum		values[8] = {
		PointerGetDatum(key->draft->account), key_value(key, COLUMN_SOURCE), key_value(key, COLUMN_KEY),
		Int32GetDatum(claim->bucket), key_value(key, COLUMN_FINGERPRINT), key_value(key, COLUMN_EVENT_ID),
		TimestampTzGetDatum(claim->expires_at), TimestampTzGetDatum(claim->now)
	};

	mp_plan_execute(plan_for(&plans, into), values, NULL, 0);
	return SPI_processed > 0;
}

/*
 * The same for many, in the order of the array.  Those that were written are at
 * its beginning after that, the others behind; returns how many were written.
 */
static int
insert_keys(const Claim *claim, int into, MpEventKey **keys, int count)
{
	static BucketPlans plans = {
		.format = INSERT " SELECT $1, u.source, u.key, $4, u.fingerprint, u.event_id, $7"
		" FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($5), pg_catalog.unnest($6))"
		" AS u (source, key, fingerprint, event_id)" UNLESS_TAKEN " RETURNING k.event_id",
		.types = {TEXTOID, TEXTARRAYOID, TEXTARRAYOID, INT4OID, BYTEAARRAYOID, UUIDARRAYOID,
		TIMESTAMPTZOID, TIMESTAMPTZOID}
	};
	Datum		values[8] = {
		PointerGetDatum(keys[0]->draft->account), key_values(keys, count, COLUMN_SOURCE),
		key_values(keys, count, COLUMN_KEY), Int32GetDatum(claim->bucket),
		key_values(keys, count, COLUMN_FINGERPRINT), key_values(keys, count, COLUMN_EVENT_ID),
		TimestampTzGetDatum(claim->expires_at), TimestampTzGetDatum(claim->now)
	};
	MpEventKey **lost = palloc(sizeof(MpEventKey *) * count);
	int			won = 0;

	mp_plan_execute(plan_for(&plans, into), values, NULL, 0);
	/* the rows returned are those written, in the same order */
	for (int i = 0; i < count; i++)
	{
		bool		isnull;
		pg_uuid_t  *id = (uint64) won < SPI_processed
			? DatumGetUUIDP(SPI_getbinval(SPI_tuptable->vals[won], SPI_tuptable->tupdesc, 1, &isnull)) : NULL;

		if (id != NULL && memcmp(id, &keys[i]->id, sizeof(pg_uuid_t)) == 0)
			keys[won++] = keys[i];
		else
			lost[i - won] = keys[i];
	}
	if (won < count)
		memcpy(&keys[won], lost, sizeof(MpEventKey *) * (count - won));
	return won;
}

static int
insert(const Claim *claim, int into, MpEventKey **keys, int count)
{
	return count == 1 ? insert_key(claim, into, keys[0]) : insert_keys(claim, into, keys, count);
}

/* A snapshot that does not show a key: what follows from it would be wrong. */
static void
refuse_if_unseen(MpEventKey **keys, int count)
{
	if (!IsolationUsesXactSnapshot())
		return;
	for (int i = 0; i < count; i++)
		if (keys[i]->taken)
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("could not serialize access due to concurrent use of an idempotency key")));
}

static bool
look_at_others(const MpBucketTable *table, const MpBucket *bucket, Relation relation, void *arg)
{
	Look	   *look = arg;

	for (int i = 0; i < look->count && bucket->number != look->own; i++)
	{
		MpEventKey *key = look->keys[i];
		HeapTuple	row = key->taken ? NULL : find_key(table, bucket, relation, key, look->now, &look->dirty);

		if (row == NULL)
			continue;
		look->holder = TransactionIdIsValid(look->dirty.xmin) ? look->dirty.xmin : look->dirty.xmax;
		look->speculation = look->dirty.speculativeToken;
		if (TransactionIdIsValid(look->holder))
			return false;
		take_row(key, row, RelationGetDescr(relation));
	}
	return true;
}

static void
wait_for_holder(const Look *look)
{
	if (look->speculation != 0)
		SpeculativeInsertionWait(look->holder, look->speculation);
	else
		XactLockTableWait(look->holder, NULL, NULL, XLTW_None);
}

static void
take_back(int bucket, const MpEventKey *key)
{
	static BucketPlans plans = {
		.format = "DELETE FROM meal_planner.%s k WHERE k.account OPERATOR(pg_catalog.=) $1"
		" AND k.scope OPERATOR(pg_catalog.=) $2 AND k.key OPERATOR(pg_catalog.=) $3",
		.types = {TEXTOID, TEXTOID, TEXTOID}
	};
	Datum		values[3] = {
		PointerGetDatum(key->draft->account), key_value(key, COLUMN_SOURCE), key_value(key, COLUMN_KEY)
	};

	mp_plan_execute(plan_for(&plans, bucket), values, NULL, 0);
}

/* What was written to a bucket, with what others have written elsewhere: theirs was first. */
static void
look_around(const Claim *claim, MpEventKey **keys, int count)
{
	Look		look = {.keys = keys, .count = count, .now = claim->now, .own = claim->bucket};

	do
	{
		look.holder = InvalidTransactionId;
		InitDirtySnapshot(look.dirty);
		if (!mp_buckets_are_plain(&key_table) || !mp_visit_buckets(&key_table, look_at_others, &look))
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("idempotency keys were changed concurrently")));
		if (TransactionIdIsValid(look.holder))
			wait_for_holder(&look);
	} while (TransactionIdIsValid(look.holder));

	refuse_if_unseen(keys, count);
	for (int i = 0; i < count; i++)
		if (keys[i]->taken)
			take_back(claim->bucket, keys[i]);
}

/* Returns how many were written; those are at the beginning of the array. */
static int
insert_or_look_up(const Claim *claim, int into, MpEventKey **keys, int count)
{
	int			won = insert(claim, into, keys, count);

	mp_keys_look_up(&keys[won], count - won, claim->now);
	return won;
}

static void
claim_and_look_around(const Claim *claim, MpEventKey **keys, int count)
{
	int			won = insert_or_look_up(claim, claim->bucket, keys, count);

	look_around(claim, keys, won);
}

/*
 * Where the buckets do not say all, a lock keeps others with the key away until
 * the transaction ends; but not those who do not know yet that they do not.  So
 * one looks around, too, as long as there is something to look at: what makes
 * that impossible waits for all who have written.
 */
static void
claim_under_locks(const Claim *claim, MpEventKey **keys, int count)
{
	MpEventKey **open = palloc(sizeof(MpEventKey *) * count);
	int			open_count = 0;

	for (int i = 0; i < count; i++)
	{
		Datum		names[3] = {
			PointerGetDatum(keys[i]->draft->account), key_value(keys[i], COLUMN_SOURCE), key_value(keys[i], COLUMN_KEY)
		};
		LOCKTAG		tag = mp_lock_of_names("idempotency_key", names, 3);

		(void) LockAcquire(&tag, ExclusiveLock, false, false);
	}
	ask_statement(keys, count, claim->now, true);
	refuse_if_unseen(keys, count);
	for (int i = 0; i < count; i++)
		if (!keys[i]->taken)
			open[open_count++] = keys[i];
	if (open_count == 0)
		return;
	open_count = insert_or_look_up(claim, WHOLE_TABLE, open, open_count);
	if (mp_buckets_are_plain(&key_table))
		look_around(claim, open, open_count);
}

void
mp_keys_claim(MpEventKey **keys, int count, TimestampTz now)
{
	Claim		claim = {.now = now, .expires_at = now + kept_for()};
	MpEventKey **sorted;

	if (count == 0)
		return;
	claim.bucket = mp_key_bucket(claim.expires_at, kept_for());
	sorted = palloc(sizeof(MpEventKey *) * count);
	memcpy(sorted, keys, sizeof(MpEventKey *) * count);
	if (mp_buckets_are_whole(&key_table))
		claim_and_look_around(&claim, sorted, count);
	else
		claim_under_locks(&claim, sorted, count);
}

/* ------------------------------------------------------------------------
 * For SQL
 * ------------------------------------------------------------------------ */

Datum
mp_sql_key_bucket(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(mp_key_bucket(PG_GETARG_TIMESTAMPTZ(0), kept_for()));
}

Datum
mp_sql_key_spare(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(mp_key_spare(PG_GETARG_TIMESTAMPTZ(0), kept_for()));
}
