/*
 * idempotency.c
 *		Idempotency keys of mp_emit_event.
 *
 * A key, the fingerprint of what it was first used for and the id of the event
 * it made are one row, written in the event's transaction: whoever comes with
 * the same key while that runs waits for its end, and goes on at once when it
 * aborts.  Expiry is checked when a key is read; purging only tidies up.
 */
#include "bus/event.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "libpq/pqformat.h"
#include "utils/array.h"
#include "utils/builtins.h"

int			mp_idempotency_ttl = 86400;

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

bool
mp_same_fingerprint(const bytea *a, const bytea *b)
{
	return VARSIZE_ANY_EXHDR(a) == VARSIZE_ANY_EXHDR(b) &&
		memcmp(VARDATA_ANY(a), VARDATA_ANY(b), VARSIZE_ANY_EXHDR(a)) == 0;
}

static MpKeyState
read_answer(bytea *fingerprint, pg_uuid_t *id)
{
	HeapTuple	row = SPI_tuptable->vals[0];
	TupleDesc	desc = SPI_tuptable->tupdesc;
	bool		isnull;
	bytea	   *first = DatumGetByteaPP(SPI_getbinval(row, desc, 1, &isnull));

	*id = *DatumGetUUIDP(SPI_getbinval(row, desc, 2, &isnull));
	return mp_same_fingerprint(first, fingerprint) ? MP_KEY_SAME : MP_KEY_OTHER;
}

/* What a key stands for.  SPI is connected. */
MpKeyState
mp_key_look_up(const MpDraft *draft, bytea *fingerprint, TimestampTz now, pg_uuid_t *id)
{
	static MpPlan plan = {
		.sql = "SELECT k.fingerprint, k.event_id FROM meal_planner.idempotency_key k"
		" WHERE k.account OPERATOR(pg_catalog.=) $1 AND k.scope OPERATOR(pg_catalog.=) $2"
		" AND k.key OPERATOR(pg_catalog.=) $3 AND k.expires_at OPERATOR(pg_catalog.>) $4",
	.types = {TEXTOID, TEXTOID, TEXTOID, TIMESTAMPTZOID}};
	Datum		values[4] = {
		PointerGetDatum(draft->account), PointerGetDatum(draft->source),
		PointerGetDatum(draft->idempotency_key), TimestampTzGetDatum(now)
	};

	mp_plan_execute(&plan, values, NULL, 1);
	return SPI_processed == 0 ? MP_KEY_FREE : read_answer(fingerprint, id);
}

/*
 * Makes a key stand for *id, unless somebody else was faster: then *id is
 * theirs.  Waits while another transaction is claiming the same key.  SPI is
 * connected.
 */
MpKeyState
mp_key_claim(const MpDraft *draft, bytea *fingerprint, TimestampTz now, pg_uuid_t *id)
{
	static MpPlan plan = {
		.sql = "INSERT INTO meal_planner.idempotency_key AS k"
		" (account, scope, key, fingerprint, event_id, expires_at) VALUES ($1, $2, $3, $4, $5, $6)"
		" ON CONFLICT (account, scope, key) DO UPDATE"
		" SET fingerprint = excluded.fingerprint, event_id = excluded.event_id, expires_at = excluded.expires_at"
		" WHERE k.expires_at OPERATOR(pg_catalog.<=) $7",
	.types = {TEXTOID, TEXTOID, TEXTOID, BYTEAOID, UUIDOID, TIMESTAMPTZOID, TIMESTAMPTZOID}};
	Datum		values[7] = {
		PointerGetDatum(draft->account), PointerGetDatum(draft->source),
		PointerGetDatum(draft->idempotency_key), PointerGetDatum(fingerprint), UUIDPGetDatum(id),
		TimestampTzGetDatum(now + (int64) mp_idempotency_ttl * USECS_PER_SEC), TimestampTzGetDatum(now)
	};

	mp_plan_execute(&plan, values, NULL, 0);
	if (SPI_processed > 0)
		return MP_KEY_FREE;
	return mp_key_look_up(draft, fingerprint, now, id);
}

/* ------------------------------------------------------------------------
 * The keys of a batch
 * ------------------------------------------------------------------------ */

typedef enum KeyColumn
{
	KEY_SOURCE,
	KEY_KEY,
	KEY_FINGERPRINT,
	KEY_EVENT_ID
} KeyColumn;

static Datum
key_column(MpBatchKey **keys, int count, KeyColumn column)
{
	static const Oid types[] = {TEXTOID, TEXTOID, BYTEAOID, UUIDOID};
	Datum	   *elements = palloc(sizeof(Datum) * count);

	for (int i = 0; i < count; i++)
		switch (column)
		{
			case KEY_SOURCE:
				elements[i] = PointerGetDatum(keys[i]->draft->source);
				break;
			case KEY_KEY:
				elements[i] = PointerGetDatum(keys[i]->draft->idempotency_key);
				break;
			case KEY_FINGERPRINT:
				elements[i] = PointerGetDatum(keys[i]->fingerprint);
				break;
			case KEY_EVENT_ID:
				elements[i] = UUIDPGetDatum(&keys[i]->id);
				break;
		}
	return mp_array(elements, count, types[column]);
}

/* Marks the keys that stand for an event, and says for which.  SPI is connected. */
void
mp_keys_look_up(text *account, MpBatchKey **keys, int count, TimestampTz now)
{
	static MpPlan plan = {
		.sql = "SELECT u.n, l.fingerprint, l.event_id"
		" FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3)) WITH ORDINALITY AS u (source, key, n), LATERAL ("
		"SELECT k.fingerprint, k.event_id FROM meal_planner.idempotency_key k"
		" WHERE k.account OPERATOR(pg_catalog.=) $1 AND k.scope OPERATOR(pg_catalog.=) u.source"
		" AND k.key OPERATOR(pg_catalog.=) u.key AND k.expires_at OPERATOR(pg_catalog.>) $4 LIMIT 1) l",
	.types = {TEXTOID, TEXTARRAYOID, TEXTARRAYOID, TIMESTAMPTZOID}, .in_index_order = true};
	Datum		values[4] = {
		PointerGetDatum(account), (Datum) 0, (Datum) 0, TimestampTzGetDatum(now)
	};

	if (count == 0)
		return;
	values[1] = key_column(keys, count, KEY_SOURCE);
	values[2] = key_column(keys, count, KEY_KEY);
	mp_plan_execute(&plan, values, NULL, 0);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		bool		isnull;
		MpBatchKey *key = keys[DatumGetInt64(SPI_getbinval(row, desc, 1, &isnull)) - 1];

		key->taken = true;
		key->fingerprint = DatumGetByteaPP(SPI_getbinval(row, desc, 2, &isnull));
		key->id = *DatumGetUUIDP(SPI_getbinval(row, desc, 3, &isnull));
	}
}

/*
 * Makes each key stand for its id, unless somebody else was faster: then it is
 * taken.  The rows are written in the order of the array.  SPI is connected.
 */
void
mp_keys_claim(text *account, MpBatchKey **keys, int count, TimestampTz now)
{
	static MpPlan plan = {
		.sql = "INSERT INTO meal_planner.idempotency_key AS k"
		" (account, scope, key, fingerprint, event_id, expires_at)"
		" SELECT $1, u.source, u.key, u.fingerprint, u.event_id, $6"
		" FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4), pg_catalog.unnest($5))"
		" AS u (source, key, fingerprint, event_id)"
		" ON CONFLICT (account, scope, key) DO UPDATE"
		" SET fingerprint = excluded.fingerprint, event_id = excluded.event_id, expires_at = excluded.expires_at"
		" WHERE k.expires_at OPERATOR(pg_catalog.<=) $7"
		" RETURNING k.event_id",
		.types = {TEXTOID, TEXTARRAYOID, TEXTARRAYOID, BYTEAARRAYOID, UUIDARRAYOID,
		TIMESTAMPTZOID, TIMESTAMPTZOID}
	};
	Datum		values[7] = {PointerGetDatum(account)};
	MpBatchKey **lost;
	int			lost_count = 0;
	uint64		won = 0;

	if (count == 0)
		return;
	values[1] = key_column(keys, count, KEY_SOURCE);
	values[2] = key_column(keys, count, KEY_KEY);
	values[3] = key_column(keys, count, KEY_FINGERPRINT);
	values[4] = key_column(keys, count, KEY_EVENT_ID);
	values[5] = TimestampTzGetDatum(now + (int64) mp_idempotency_ttl * USECS_PER_SEC);
	values[6] = TimestampTzGetDatum(now);
	mp_plan_execute(&plan, values, NULL, 0);
	if (SPI_processed == (uint64) count)
		return;

	/* The rows returned are those written, in the same order. */
	lost = palloc(sizeof(MpBatchKey *) * count);
	for (int i = 0; i < count; i++)
	{
		bool		isnull;
		pg_uuid_t  *id = won < SPI_processed
			? DatumGetUUIDP(SPI_getbinval(SPI_tuptable->vals[won], SPI_tuptable->tupdesc, 1, &isnull)) : NULL;

		if (id != NULL && memcmp(id, &keys[i]->id, sizeof(pg_uuid_t)) == 0)
			won++;
		else
			lost[lost_count++] = keys[i];
	}
	mp_keys_look_up(account, lost, lost_count, now);
}
