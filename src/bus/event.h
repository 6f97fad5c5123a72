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

/* stream.c: locks a stream and returns the version of its last event, 0 for none. */
extern int64 mp_stream_lock(text *account, text *stream);

/* idempotency.c */
typedef enum MpKeyState
{
	MP_KEY_FREE,
	MP_KEY_SAME,
	MP_KEY_OTHER
} MpKeyState;

/* The moment at which keys expire has to be the same in both calls. */
extern bytea *mp_draft_fingerprint(const MpDraft *draft);
extern MpKeyState mp_key_look_up(const MpDraft *draft, bytea *fingerprint, TimestampTz now, pg_uuid_t *id);
extern MpKeyState mp_key_claim(const MpDraft *draft, bytea *fingerprint, TimestampTz now, pg_uuid_t *id);


#endif							/* MP_BUS_EVENT_H */
