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

static MpKeyState
read_answer(bytea *fingerprint, pg_uuid_t *id)
{
	HeapTuple	row = SPI_tuptable->vals[0];
	TupleDesc	desc = SPI_tuptable->tupdesc;
	bool		isnull;
	bytea	   *first = DatumGetByteaPP(SPI_getbinval(row, desc, 1, &isnull));

	*id = *DatumGetUUIDP(SPI_getbinval(row, desc, 2, &isnull));
	if (VARSIZE_ANY_EXHDR(first) == VARSIZE_ANY_EXHDR(fingerprint) &&
		memcmp(VARDATA_ANY(first), VARDATA_ANY(fingerprint), VARSIZE_ANY_EXHDR(first)) == 0)
		return MP_KEY_SAME;
	return MP_KEY_OTHER;
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
