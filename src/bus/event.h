/*
 * event.h
 *		Appending to the log.
 */
#ifndef MP_BUS_EVENT_H
#define MP_BUS_EVENT_H

#include "bus/bus.h"
#include "utils/jsonb.h"
#include "utils/uuid.h"

/* Settings meal_planner.max_hops and meal_planner.idempotency_ttl (seconds) */
extern int	mp_max_hops;
extern int	mp_idempotency_ttl;

/* What a client wants recorded.  NULL pointers: not given. */
typedef struct MpDraft
{
	text	   *account;
	text	   *detail_type;
	text	   *source;
	text	   *region;
	ArrayType  *resources;
	Jsonb	   *detail;
	text	   *stream;
	text	   *idempotency_key;
	bool		has_time;
	TimestampTz time;
	bool		has_expected_version;
	int64		expected_version;
	bool		has_deliver_after;
	TimestampTz deliver_after;
} MpDraft;

typedef enum MpAppendOutcome
{
	MP_APPENDED,
	MP_DUPLICATE,				/* *id is the first event's */
	MP_KEY_REUSED,				/* the key stands for other content */
	MP_VERSION_CONFLICT			/* *version is the stream's */
} MpAppendOutcome;

typedef struct MpAppendResult
{
	pg_uuid_t	id;
	int64		version;
} MpAppendResult;

/* NULL when the draft may be recorded, else what is wrong; *field names it. */
extern const char *mp_check_draft(const MpDraft *draft, const char **field);

/* Records a checked draft.  SPI is not connected. */
extern MpAppendOutcome mp_append(const MpDraft *draft, MpAppendResult *result);

/*
 * append.c: records checked drafts of one account, in their order, together.
 * No draft has an expected version.  SPI is not connected.
 */
extern void mp_append_batch(const MpDraft *drafts, int count,
							MpAppendOutcome *outcomes, MpAppendResult *results);

/*
 * insert.c: puts a row straight into its partition; false: it has none that is
 * known, or needs a statement on the log's table.  SPI is connected.
 */
extern bool mp_insert_into_partition(const MpEvent *event);

/* Where and when a draft becomes an event. */
typedef struct MpPlace
{
	int64		position;
	const pg_uuid_t *id;
	int64		version;		/* in its stream, if it has one */
	TimestampTz now;
	int			hops;
} MpPlace;

/* The event of a draft; its values point into both. */
extern void mp_event_of_draft(const MpDraft *draft, const MpPlace *place, MpEvent *event);

/* The hops of an event that is appended now; MP508 when they are too many. */
extern int	mp_hops_of_append(const MpDraft *draft);

/* stream.c: locks a stream and returns the version of its last event, 0 for none. */
extern int64 mp_stream_lock(text *account, text *stream);

/*
 * The same for many, which are different and sorted as mp_compare_texts does:
 * one order for everybody, so that none wait for each other.  SPI is connected.
 */
extern void mp_streams_lock(text *account, text **streams, int count, int64 *versions);

/* idempotency.c: an idempotency key, and what it stands for. */
typedef struct MpEventKey
{
	const MpDraft *draft;
	bytea	   *fingerprint;	/* of its first use, here or in the past */
	pg_uuid_t	id;
	bool		taken;			/* it stood for an event before */
} MpEventKey;

/* SHA-256 of what makes the content of a draft. */
extern bytea *mp_draft_fingerprint(const MpDraft *draft);

/*
 * Marks the keys that stand for an event, and says for which.  SPI is connected.
 * The keys are different, and of one account; now is the moment at which they
 * expire, the same in both calls.
 */
extern void mp_keys_look_up(MpEventKey **keys, int count, TimestampTz now);

/*
 * Makes each key stand for its id, unless somebody else was faster: then it is
 * taken.  Waits while another transaction is claiming one of them; they are
 * claimed in the order of the array, which has to be the same for everybody.
 */
extern void mp_keys_claim(MpEventKey **keys, int count, TimestampTz now);

/* What becomes of a draft whose key is taken, given its own fingerprint. */
extern MpAppendOutcome mp_duplicate(const MpEventKey *key, const bytea *fingerprint, MpAppendResult *result);

#endif							/* MP_BUS_EVENT_H */
