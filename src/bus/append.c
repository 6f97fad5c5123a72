/*
 * append.c
 *		Many drafts become events of the log together.
 *
 * The steps are those of mp_append, each one statement for all.  Keys come
 * first, and only what they let through goes on.  Streams are locked before
 * positions are taken, and versions follow the order of the entries, so that
 * within a stream the order of positions is the order of versions.  A key may
 * still be lost to another transaction when it is claimed: that entry's
 * position stays empty, and versions are given out after it.
 *
 * Streams are locked and keys claimed in the order of their bytes, whatever
 * the order of the entries: batches wait for each other, but not in a circle.
 */
#include "bus/event.h"

#include "bus/dispatch.h"
#include "bus/partition.h"
#include "bus/position.h"
#include "catalog/pg_type.h"
#include "core/position.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(mp_batch_rows);

/* A draft on its way.  All of this lives in SPI's procedure context. */
typedef struct Candidate
{
	const MpDraft *draft;
	MpAppendResult *result;
	MpAppendOutcome *outcome;
	bool		fresh;			/* to be appended, as far as is known */
	MpEventKey *key;
	bytea	   *fingerprint;
	int			stream;			/* its number among the batch's */
	int64		position;
} Candidate;

typedef struct Batch
{
	text	   *account;
	TimestampTz now;
	int			hops;
	int			count;
	Candidate  *candidates;
	int64	   *versions;		/* of the streams, the last one given out */
} Batch;

/* ------------------------------------------------------------------------
 * Keys
 * ------------------------------------------------------------------------ */

/* In the order in which keys are claimed; entries with one key stay in theirs. */
static int
compare_keys(const void *left, const void *right)
{
	const Candidate *a = *(Candidate *const *) left;
	const Candidate *b = *(Candidate *const *) right;
	int			order = mp_compare_texts(a->draft->source, b->draft->source);

	if (order == 0)
		order = mp_compare_texts(a->draft->idempotency_key, b->draft->idempotency_key);
	if (order == 0)
		order = (a > b) - (a < b);
	return order;
}

static bool
same_key(const Candidate *a, const Candidate *b)
{
	return mp_compare_texts(a->draft->idempotency_key, b->draft->idempotency_key) == 0 &&
		mp_compare_texts(a->draft->source, b->draft->source) == 0;
}

/*
 * The different keys of a batch, in the order of claiming.  The first entry
 * with a key speaks for it, unless it stands for an event already.
 */
static int
find_keys(Batch *batch, MpEventKey ***keys)
{
	Candidate **users = palloc(sizeof(Candidate *) * batch->count);
	int			used = 0;
	int			count = 0;

	for (int i = 0; i < batch->count; i++)
		if (batch->candidates[i].draft->idempotency_key != NULL)
			users[used++] = &batch->candidates[i];
	*keys = palloc(sizeof(MpEventKey *) * Max(used, 1));
	qsort(users, used, sizeof(Candidate *), compare_keys);
	for (int i = 0; i < used; i++)
	{
		Candidate  *user = users[i];

		user->fingerprint = mp_draft_fingerprint(user->draft);
		if (i > 0 && same_key(users[i - 1], user))
		{
			user->key = users[i - 1]->key;
			user->fresh = false;
			continue;
		}
		user->key = palloc0(sizeof(MpEventKey));
		user->key->draft = user->draft;
		user->key->fingerprint = user->fingerprint;
		(*keys)[count++] = user->key;
	}
	return count;
}

/* Keys that stand for an event leave the list. */
static int
drop_taken_keys(Batch *batch, MpEventKey **keys, int count)
{
	int			left = 0;

	for (int i = 0; i < count; i++)
		if (!keys[i]->taken)
			keys[left++] = keys[i];
	if (left < count)
		for (int i = 0; i < batch->count; i++)
			if (batch->candidates[i].key != NULL && batch->candidates[i].key->taken)
				batch->candidates[i].fresh = false;
	return left;
}

/* What became of the entries whose key speaks for another one. */
static void
settle_duplicates(Batch *batch)
{
	for (int i = 0; i < batch->count; i++)
	{
		Candidate  *candidate = &batch->candidates[i];

		if (!candidate->fresh)
			*candidate->outcome = mp_duplicate(candidate->key, candidate->fingerprint, candidate->result);
	}
}

/* ------------------------------------------------------------------------
 * Streams
 * ------------------------------------------------------------------------ */

static int
compare_streams(const void *left, const void *right)
{
	return mp_compare_texts((*(Candidate *const *) left)->draft->stream,
							(*(Candidate *const *) right)->draft->stream);
}

static void
lock_streams(Batch *batch)
{
	Candidate **users = palloc(sizeof(Candidate *) * batch->count);
	text	  **streams;
	int			used = 0;
	int			count = 0;

	for (int i = 0; i < batch->count; i++)
		if (batch->candidates[i].fresh && batch->candidates[i].draft->stream != NULL)
			users[used++] = &batch->candidates[i];
	if (used == 0)
		return;
	qsort(users, used, sizeof(Candidate *), compare_streams);
	streams = palloc(sizeof(text *) * used);
	for (int i = 0; i < used; i++)
	{
		if (i == 0 || compare_streams(&users[i - 1], &users[i]) != 0)
			streams[count++] = users[i]->draft->stream;
		users[i]->stream = count - 1;
	}
	batch->versions = palloc(sizeof(int64) * count);
	mp_streams_lock(batch->account, streams, count, batch->versions);
}

/* ------------------------------------------------------------------------
 * The log
 * ------------------------------------------------------------------------ */

/* One after another; the ticks between them are whole. */
static void
take_positions(Batch *batch)
{
	int64		position;
	int			wanted = 0;

	for (int i = 0; i < batch->count; i++)
		wanted += batch->candidates[i].fresh;
	if (wanted == 0)
		return;
	position = mp_position_append(VARDATA_ANY(batch->account), VARSIZE_ANY_EXHDR(batch->account), wanted);
	for (int i = 0; i < batch->count; i++)
	{
		Candidate  *candidate = &batch->candidates[i];

		if (!candidate->fresh)
			continue;
		candidate->position = position;
		mp_position_make_uuid(position, &candidate->result->id);
		if (candidate->key != NULL)
			candidate->key->id = candidate->result->id;
		position += INT64CONST(1) << MP_NODE_BITS;
	}
}

static int
make_events(Batch *batch, MpEvent *events)
{
	int			count = 0;

	for (int i = 0; i < batch->count; i++)
	{
		Candidate  *candidate = &batch->candidates[i];
		MpPlace		place = {
			.position = candidate->position, .id = &candidate->result->id,
			.now = batch->now, .hops = batch->hops
		};

		if (!candidate->fresh)
			continue;
		if (candidate->draft->stream != NULL)
			place.version = ++batch->versions[candidate->stream];
		mp_event_of_draft(candidate->draft, &place, &events[count++]);
		*candidate->outcome = MP_APPENDED;
	}
	return count;
}

/* What the statement below is to insert. */
static const MpEvent *inserting = NULL;
static int	inserting_count = 0;

/* Its source: an array of rows would be built, and then taken apart again. */
Datum
mp_batch_rows(PG_FUNCTION_ARGS)
{
	TupleDesc	desc;
	Tuplestorestate *store = mp_begin_rows(fcinfo, &desc);
	Datum	   *values = palloc0(sizeof(Datum) * desc->natts);
	bool	   *nulls = palloc(sizeof(bool) * desc->natts);

	/* a column that somebody added is NULL */
	memset(nulls, true, sizeof(bool) * desc->natts);
	for (int i = 0; i < inserting_count; i++)
	{
		memcpy(values, inserting[i].values, sizeof(inserting[i].values));
		memcpy(nulls, inserting[i].nulls, sizeof(inserting[i].nulls));
		tuplestore_putvalues(store, desc, values, nulls);
	}
	return (Datum) 0;
}

static void
insert_events(const MpEvent *events, int count)
{
	static MpPlan plan = {
		.sql = "INSERT INTO meal_planner.event (account, position, id, detail_type, source, time, region,"
		" resources, detail, stream, version, deliver_after, idempotency_key, hops)"
		" SELECT r.account, r.position, r.id, r.detail_type, r.source, r.time, r.region,"
		" r.resources, r.detail, r.stream, r.version, r.deliver_after, r.idempotency_key, r.hops"
		" FROM meal_planner.batch_rows() r"};

	mp_partition_settle(mp_event_position(&events[0]), mp_event_position(&events[count - 1]));
	mp_recording_begin_batch(events, count);
	inserting = events;
	inserting_count = count;
	PG_TRY();
	{
		mp_plan_execute(&plan, NULL, NULL, 0);
	}
	PG_FINALLY();
	{
		/* the events will not outlive this */
		mp_recording_end();
		inserting_count = 0;
	}
	PG_END_TRY();
}

void
mp_append_batch(const MpDraft *drafts, int count, MpAppendOutcome *outcomes, MpAppendResult *results)
{
	Batch		batch = {.account = drafts[0].account, .count = count};
	MpEventKey **keys;
	MpEvent    *events;
	int			key_count;

	batch.hops = mp_hops_of_append(&drafts[0]);
	batch.now = mp_clock_now();
	mp_require_preload();
	mp_spi_connect();
	mp_partition_prepare(batch.now);
	batch.candidates = palloc0(sizeof(Candidate) * count);
	for (int i = 0; i < count; i++)
	{
		batch.candidates[i].draft = &drafts[i];
		batch.candidates[i].outcome = &outcomes[i];
		batch.candidates[i].result = &results[i];
		batch.candidates[i].fresh = true;
	}

	key_count = find_keys(&batch, &keys);
	mp_keys_look_up(keys, key_count, batch.now);
	key_count = drop_taken_keys(&batch, keys, key_count);
	lock_streams(&batch);
	take_positions(&batch);
	mp_keys_claim(keys, key_count, batch.now);
	(void) drop_taken_keys(&batch, keys, key_count);

	events = palloc(sizeof(MpEvent) * count);
	count = make_events(&batch, events);
	if (count > 0)
		insert_events(events, count);
	settle_duplicates(&batch);
	mp_spi_finish();
}
