/*
 * breaker_handler.c
 *		Circuit breakers around handlers.
 *
 * A failure of a handler has happened whatever becomes of the transaction, and
 * is told at once.  A success has happened only once the transaction commits:
 * until then it is kept here, by subtransaction, and so is the permit of a
 * probe, which goes back when there will be no result.
 */
#include "bus/breaker_handler.h"

#include "access/xact.h"
#include "utils/memutils.h"

/* Successes under one permit, or a probe that is out. */
typedef struct Pending
{
	MpBreakerPlace *place;
	int64		permit;
	int			level;			/* of nested transactions */
	bool		is_out;			/* a probe without a result yet */
	int64		successes;
	int64		slow;			/* of them */
	struct Pending *next;
} Pending;

static Pending *pending = NULL;

static void
tell(const Pending *p, bool committed)
{
	if (committed && p->successes > p->slow)
		mp_breaker_tell(p->place, p->permit, MP_OUTCOME_SUCCESS, false, p->successes - p->slow);
	if (committed && p->slow > 0)
		mp_breaker_tell(p->place, p->permit, MP_OUTCOME_SUCCESS, true, p->slow);
	if (mp_permit_is_probe(p->permit) && (p->is_out || !committed))
		mp_breaker_tell(p->place, p->permit, MP_OUTCOME_IGNORED, false, 1);
}

static void
end_of_transaction(XactEvent event, void *arg pg_attribute_unused())
{
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
		return;
	for (Pending *p = pending; p != NULL; p = p->next)
		tell(p, event == XACT_EVENT_COMMIT);
	pending = NULL;				/* its memory goes with the transaction */
}

/* A probe has one result, wherever it is told. */
static Pending *
search(const MpBreakerPlace *place, int64 permit, int level)
{
	Pending    *p = pending;

	while (p != NULL && (p->place != place || p->permit != permit ||
						 (p->level != level && !mp_permit_is_probe(permit))))
		p = p->next;
	return p;
}

/* What was kept of a subtransaction is its parent's; false: that has taken it up. */
static bool
hand_up(Pending *p, int level)
{
	Pending    *of_parent = mp_permit_is_probe(p->permit) ? NULL : search(p->place, p->permit, level);

	p->level = level;
	if (of_parent == NULL)
		return true;
	of_parent->successes += p->successes;
	of_parent->slow += p->slow;
	return false;
}

static void
end_of_subtransaction(SubXactEvent event, SubTransactionId mine pg_attribute_unused(),
					  SubTransactionId parent pg_attribute_unused(), void *arg pg_attribute_unused())
{
	int			level = GetCurrentTransactionNestLevel();
	Pending   **link = &pending;

	if (event != SUBXACT_EVENT_ABORT_SUB && event != SUBXACT_EVENT_COMMIT_SUB)
		return;
	while (*link != NULL)
	{
		Pending    *p = *link;

		if (p->level < level || (event == SUBXACT_EVENT_COMMIT_SUB && hand_up(p, level - 1)))
		{
			link = &p->next;
			continue;
		}
		if (event == SUBXACT_EVENT_ABORT_SUB)
			tell(p, false);
		*link = p->next;
		pfree(p);
	}
}

static Pending *
find_pending(const MpBreakerCall *call, bool make)
{
	static bool registered = false;
	int			level = GetCurrentTransactionNestLevel();
	Pending    *p = search(call->place, call->permit, level);

	if (p != NULL || !make)
		return p;
	if (!registered)
	{
		RegisterXactCallback(end_of_transaction, NULL);
		RegisterSubXactCallback(end_of_subtransaction, NULL);
		registered = true;
	}
	p = MemoryContextAllocZero(TopTransactionContext, sizeof(Pending));
	p->place = call->place;
	p->permit = call->permit;
	p->level = level;
	p->next = pending;
	pending = p;
	return p;
}

MpBreakerVerdict
mp_breaker_begin(const char *name, int count, MpBreakerCall *call)
{
	MpBreakerAnswer answer;

	*call = (MpBreakerCall) {0};
	if (name == NULL)
		return MP_CALL_ALLOWED;
	call->name = name;
	call->place = mp_breaker_find_if_room(name);
	if (call->place == NULL)
	{
		call->refused = true;
		call->retry_at = mp_breaker_retry_without_room();
		return MP_CALL_REFUSED;
	}
	answer = mp_breaker_ask(call->place);
	call->permit = answer.permit;
	if (!answer.allowed)
	{
		call->refused = true;
		call->retry_at = answer.retry_at == INT64_MAX ? DT_NOEND : answer.retry_at;
		return MP_CALL_REFUSED;
	}
	if (!mp_permit_is_probe(call->permit))
		return MP_CALL_ALLOWED;
	if (count > 1)
	{
		/* a probe is one event; it is given back and asked for again */
		mp_breaker_tell(call->place, call->permit, MP_OUTCOME_IGNORED, false, 1);
		call->place = NULL;
		return MP_CALL_ONE_ONLY;
	}
	find_pending(call, true)->is_out = true;
	return MP_CALL_ALLOWED;
}

void
mp_breaker_lend(MpBreakerPlace *place, int64 permit)
{
	MpBreakerCall call = {.place = place, .permit = permit};

	if (mp_permit_is_probe(permit))
		(void) find_pending(&call, true);
}

void
mp_breaker_succeeded(const MpBreakerCall *call, int count, double seconds)
{
	Pending    *p;

	if (call->place == NULL)
		return;
	p = find_pending(call, true);
	p->is_out = false;
	p->successes += count;
	if (mp_breaker_is_slow(call->place, seconds / count))
		p->slow += count;
}

static MpBreakerOutcome
outcome_of_class(MpErrorClass class)
{
	return mp_error_class_tells_of_service(class) ? MP_OUTCOME_FAILURE : MP_OUTCOME_IGNORED;
}

bool
mp_breaker_failed(const MpBreakerCall *call, MpErrorClass class, double seconds, TimestampTz *retry_at)
{
	Pending    *p;

	if (call->place == NULL || call->refused)
		return false;
	p = find_pending(call, false);
	if (p != NULL)
		p->is_out = false;
	mp_breaker_tell(call->place, call->permit, outcome_of_class(class),
					mp_breaker_is_slow(call->place, seconds), 1);
	mp_breaker_store(call->place, call->name);
	*retry_at = mp_breaker_retry_at(call->place);
	return mp_permit_is_probe(call->permit) && outcome_of_class(class) == MP_OUTCOME_FAILURE;
}
