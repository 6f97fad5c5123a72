/*
 * order.c
 *		Order per key: one event of a key after the other.
 *
 * Of the events of one (account, subscription, order_key) only the first that
 * is live may run: a delivery, or a dead letter that blocks its key.  A later
 * one becomes a delivery itself.
 *
 * Those who do so wait for nobody, for they may be emitters: they look, and
 * what they park is due at once.  Whoever claims a delivery that is due looks
 * again, under the order lock, and blocks it (next_attempt_at = infinity) until
 * what comes before it has ended.  Whoever ends something takes the same lock
 * and makes the next one due.  So a delivery can be due although it may not run
 * yet, which the claim finds out; it cannot be forgotten.
 */
#include "bus/order.h"

#include "bus/delivery.h"
#include "bus/event_json.h"
#include "bus/name_lock.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "storage/lock.h"
#include "utils/array.h"
#include "utils/builtins.h"

/* A longer key is cut and gets a hash, so that it always fits an index. */
#define LONGEST_KEY 250
#define HASH_CHARACTERS 17

PG_FUNCTION_INFO_V1(mp_sql_order_lock);
PG_FUNCTION_INFO_V1(mp_sql_try_order_lock);
PG_FUNCTION_INFO_V1(mp_sql_order_key);

/* ------------------------------------------------------------------------
 * The lock
 * ------------------------------------------------------------------------ */

static LOCKTAG
lock_of(Datum account, Datum subscription)
{
	Datum		names[2] = {account, subscription};

	return mp_lock_of_names("subscription", names, 2);
}

bool
mp_order_lock(Datum account, Datum subscription, bool wait)
{
	LOCKTAG		tag = lock_of(account, subscription);

	return LockAcquire(&tag, ExclusiveLock, false, !wait) != LOCKACQUIRE_NOT_AVAIL;
}

void
mp_order_unlock(Datum account, Datum subscription)
{
	LOCKTAG		tag = lock_of(account, subscription);

	(void) LockRelease(&tag, ExclusiveLock, false);
}

Datum
mp_sql_order_lock(PG_FUNCTION_ARGS)
{
	(void) mp_order_lock(PG_GETARG_DATUM(0), PG_GETARG_DATUM(1), true);
	PG_RETURN_VOID();
}

Datum
mp_sql_try_order_lock(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(mp_order_lock(PG_GETARG_DATUM(0), PG_GETARG_DATUM(1), false));
}

/* ------------------------------------------------------------------------
 * The key
 * ------------------------------------------------------------------------ */

static bool
is_field(const char *name)
{
	static const char *const fields[] = {
		"detail-type", "source", "account", "region", "id", "time", "stream", "detail"
	};

	for (size_t i = 0; i < lengthof(fields); i++)
		if (strcmp(name, fields[i]) == 0)
			return true;
	return false;
}

MpOrderPath *
mp_order_path_parse(const char *text, MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	MpOrderPath *path = palloc0(sizeof(MpOrderPath));
	char	   *rest = pstrdup(text);
	bool		good = true;

	path->names = palloc(sizeof(char *) * (strlen(text) + 1));
	while (rest != NULL && good)
	{
		char	   *dot = strchr(rest, '.');

		if (dot != NULL)
			*dot++ = '\0';
		good = *rest != '\0';
		path->names[path->count++] = rest;
		rest = dot;
	}
	MemoryContextSwitchTo(old);
	/* of the envelope's fields only detail has something in it */
	good = good && is_field(path->names[0]) &&
		(path->count > 1) == (strcmp(path->names[0], "detail") == 0);
	return good ? path : NULL;
}

Datum
mp_order_key_of_text(const char *text, size_t len)
{
	StringInfoData key;

	if (len <= LONGEST_KEY)
		return PointerGetDatum(cstring_to_text_with_len(text, len));
	initStringInfo(&key);
	appendBinaryStringInfo(&key, text, pg_mbcliplen(text, len, LONGEST_KEY - HASH_CHARACTERS));
	appendStringInfo(&key, "#%016llx",
					 (unsigned long long) hash_bytes_extended((const unsigned char *) text, len, 0));
	return PointerGetDatum(cstring_to_text_with_len(key.data, key.len));
}

static Datum
key_of_event(const MpOrderPath *path, const MpEvent *event, bool *isnull)
{
	MpJson		value = mp_json_of_event(event);

	*isnull = false;
	if (strcmp(path->names[0], "stream") == 0)
	{
		*isnull = event->nulls[MP_EVENT_STREAM];
		return event->values[MP_EVENT_STREAM];
	}
	for (int i = 0; i < path->count; i++)
		value = mp_json_reader.field(&value, path->names[i], strlen(path->names[i]));
	switch (value.kind)
	{
		case MP_JSON_STRING:
		case MP_JSON_NUMBER:
			return mp_order_key_of_text(value.text, value.len);
		case MP_JSON_BOOL:
			return CStringGetTextDatum(value.boolean ? "true" : "false");
		default:
			*isnull = true;
			return (Datum) 0;
	}
}

Datum
mp_order_key(const MpSubscription *subscription, const MpEvent *event, bool *isnull)
{
	*isnull = true;
	if (subscription->order_path == NULL)
		return (Datum) 0;
	return key_of_event(subscription->order_path, event, isnull);
}

Datum
mp_sql_order_key(PG_FUNCTION_ARGS)
{
	MpOrderPath *path;
	MpEvent		event;
	Datum		key;
	bool		isnull;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	path = mp_order_path_parse(text_to_cstring(PG_GETARG_TEXT_PP(0)), CurrentMemoryContext);
	if (path == NULL || !mp_event_from_row(PG_GETARG_HEAPTUPLEHEADER(1), &event))
		PG_RETURN_NULL();
	key = key_of_event(path, &event, &isnull);
	if (isnull)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(key);
}

/* ------------------------------------------------------------------------
 * Who may run
 * ------------------------------------------------------------------------ */

/* A busy key and the first position of it that is live. */
typedef struct Head
{
	text	   *key;
	int64		position;
} Head;

/*
 * Which keys are busy, of events that have one.  The newest snapshot whatever
 * the isolation level: the emitter before may have committed just now.  There is
 * room for `count` more heads behind the result.  SPI is connected, and the
 * heads live in its procedure's context.
 */
static int
read_heads(const MpSubscription *subscription, const MpEvent *event, Datum *keys, int key_count,
		   int count, Head **heads)
{
	static MpPlan plan = {
		.sql = "SELECT h.order_key, h.position FROM meal_planner.key_heads($1, $2, $3) h",
	.types = {TEXTOID, TEXTOID, TEXTARRAYOID}};
	Datum		values[3] = {
		event->values[MP_EVENT_ACCOUNT], CStringGetTextDatum(subscription->name),
		PointerGetDatum(construct_array(keys, key_count, TEXTOID, -1, false, TYPALIGN_INT))
	};
	int			found;
	bool		isnull;

	mp_plan_read_latest(&plan, values, NULL, 0);
	found = (int) SPI_processed;
	*heads = palloc(sizeof(Head) * (found + count));
	for (int i = 0; i < found; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];

		(*heads)[i].key = DatumGetTextPP(SPI_getbinval(row, SPI_tuptable->tupdesc, 1, &isnull));
		(*heads)[i].position = DatumGetInt64(SPI_getbinval(row, SPI_tuptable->tupdesc, 2, &isnull));
	}
	return found;
}

static bool
comes_first(const Head *heads, int count, const text *key, int64 position)
{
	for (int i = 0; i < count; i++)
		if (heads[i].position < position && VARSIZE_ANY_EXHDR(heads[i].key) == VARSIZE_ANY_EXHDR(key) &&
			memcmp(VARDATA_ANY(heads[i].key), VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key)) == 0)
			return true;
	return false;
}

/* The common case: nothing can keep them back. */
static bool
all_are_free(const MpSubscription *subscription, const MpEvent *events, int count)
{
	if (subscription->order_path != NULL)
		return false;
	for (int i = 0; i < count; i++)
		if (!events[i].nulls[MP_EVENT_DELIVER_AFTER])
			return false;
	return true;
}

int
mp_order_admit(const MpSubscription *subscription, MpEvent *events, int count)
{
	TimestampTz now = mp_clock_now();
	Datum	   *keys;
	bool	   *keyless;
	Datum	   *known;
	Head	   *heads = NULL;
	int			known_count = 0;
	int			head_count = 0;
	int			admitted = 0;

	if (all_are_free(subscription, events, count))
		return count;
	keys = palloc(sizeof(Datum) * count);
	keyless = palloc(sizeof(bool) * count);
	known = palloc(sizeof(Datum) * count);
	for (int i = 0; i < count; i++)
	{
		keys[i] = mp_order_key(subscription, &events[i], &keyless[i]);
		if (!keyless[i])
			known[known_count++] = keys[i];
	}

	mp_spi_connect();
	if (known_count > 0)
		head_count = read_heads(subscription, &events[0], known, known_count, count, &heads);
	for (int i = 0; i < count; i++)
	{
		int64		position = mp_event_position(&events[i]);
		TimestampTz due = events[i].nulls[MP_EVENT_DELIVER_AFTER]
			? DT_NOBEGIN : DatumGetTimestampTz(events[i].values[MP_EVENT_DELIVER_AFTER]);

		if (due > now ||
			(!keyless[i] && comes_first(heads, head_count, DatumGetTextPP(keys[i]), position)))
		{
			mp_delivery_schedule(subscription, &events[i], Max(due, now));
			/* those behind it wait for it */
			if (!keyless[i])
				heads[head_count++] = (Head) {DatumGetTextPP(keys[i]), position};
		}
		else
			events[admitted++] = events[i];
	}
	mp_spi_finish();
	return admitted;
}
