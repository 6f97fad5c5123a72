/*
 * dispatch.c
 *		The row trigger of the log.
 *
 * It acts on rows that this backend is recording right now, and on no others.
 * A restore inserts rows too, and must fire no handler; all it does then is to
 * keep the clock above them.
 */
#include "bus/dispatch.h"

#include "access/xact.h"
#include "bus/delivery.h"
#include "bus/handler.h"
#include "bus/order.h"
#include "bus/position.h"
#include "commands/trigger.h"
#include "executor/tuptable.h"
#include "nodes/pg_list.h"
#include "utils/memutils.h"
#include "utils/rel.h"

/* A batch's handlers take no more of a transaction: 64 overflow a cache that all share. */
#define MAX_SUBTRANSACTIONS 50

static int64 recording_first = 1;
static int64 recording_last = 0;

/* The events of the batch that is being recorded; NULL: a single event is. */
static const MpEvent *batch_events = NULL;
static int	batch_count = 0;

/* Begun by batches in this transaction */
static int	subtransactions = 0;

/* What one subscription gets of a batch: `done` events are settled. */
typedef struct Share
{
	MpSubscription *subscription;
	MpEvent    *events;
	int			count;
	int			done;
	int			end;			/* what to try next ends before this one */
} Share;

typedef struct Match
{
	MpSubscription *subscription;
	int			event;
} Match;

PG_FUNCTION_INFO_V1(mp_dispatch);

void
mp_recording_begin(int64 first_position, int64 last_position)
{
	recording_first = first_position;
	recording_last = last_position;
	batch_events = NULL;
}

void
mp_recording_begin_batch(const MpEvent *events, int count)
{
	recording_first = mp_event_position(&events[0]);
	recording_last = mp_event_position(&events[count - 1]);
	batch_events = events;
	batch_count = count;
}

void
mp_recording_end(void)
{
	recording_first = 1;
	recording_last = 0;
	batch_events = NULL;
}

/*
 * The columns by name: a partition made by hand or restored could have them in
 * another order than its parent.
 */
static int
attribute_of_column(TupleDesc desc, MpEventColumn column)
{
	if ((int) column < desc->natts &&
		strcmp(NameStr(TupleDescAttr(desc, column)->attname), mp_event_columns[column].name) == 0)
		return column;
	for (int attribute = 0; attribute < desc->natts; attribute++)
		if (strcmp(NameStr(TupleDescAttr(desc, attribute)->attname), mp_event_columns[column].name) == 0)
			return attribute;
	elog(ERROR, "event has no column \"%s\"", mp_event_columns[column].name);
	return -1;					/* keep the compiler quiet */
}

static int64
position_of_slot(TupleTableSlot *slot)
{
	bool		isnull;

	return DatumGetInt64(slot_getattr(slot, attribute_of_column(slot->tts_tupleDescriptor, MP_EVENT_POSITION) + 1,
									  &isnull));
}

static void
event_of_slot(TupleTableSlot *slot, MpEvent *event)
{
	slot_getallattrs(slot);
	event->replay_name = NULL;
	for (int column = 0; column < MP_EVENT_COLUMNS; column++)
	{
		int			attribute = attribute_of_column(slot->tts_tupleDescriptor, column);

		event->values[column] = slot->tts_values[attribute];
		event->nulls[column] = slot->tts_isnull[attribute];
	}
}

/* ------------------------------------------------------------------------
 * One event
 * ------------------------------------------------------------------------ */

/*
 * Keeps the events that can be handled now and returns how many these are; the
 * others are deliveries afterwards.
 */
static int
admit(const MpSubscription *subscription, MpEvent *events, int count)
{
	if (!subscription->paused)
		return mp_order_admit(subscription, events, count);
	for (int i = 0; i < count; i++)
	{
		TimestampTz due = events[i].nulls[MP_EVENT_DELIVER_AFTER]
			? DT_NOBEGIN : DatumGetTimestampTz(events[i].values[MP_EVENT_DELIVER_AFTER]);

		mp_delivery_schedule(subscription, &events[i], Max(due, mp_clock_now()));
	}
	return 0;
}

static void
record_failure(MpSubscription *subscription, const MpEvent *event, const MpFailure *failure)
{
	(void) mp_delivery_failed(subscription, event, &(MpFailedAttempt) {.attempt = 1}, failure);
}

static void
deliver(MpSubscription *subscription, MpEvent *event)
{
	MpFailure	failure;

	if (admit(subscription, event, 1) > 0 && !mp_handler_run(subscription, event, 1, &failure))
		record_failure(subscription, event, &failure);
}

/* ------------------------------------------------------------------------
 * A batch
 * ------------------------------------------------------------------------ */

static void
end_of_transaction(XactEvent event, void *arg pg_attribute_unused())
{
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT)
		subtransactions = 0;
}

static bool
may_begin_subtransaction(void)
{
	static bool registered = false;

	if (!registered)
	{
		RegisterXactCallback(end_of_transaction, NULL);
		registered = true;
	}
	if (subtransactions >= MAX_SUBTRANSACTIONS)
		return false;
	subtransactions++;
	return true;
}

/*
 * Handles a stretch of a share in one subtransaction.  A failure undoes it: what
 * came before the event that failed is then tried again without it, after which
 * that event is the first of a stretch, and so its failure is its own.
 */
static void
run_stretch(Share *share)
{
	MpEvent    *first = &share->events[share->done];
	MpFailure	failure;

	if (mp_handler_run(share->subscription, first, share->end - share->done, &failure))
	{
		share->done = share->end;
		share->end = share->count;
	}
	else if (failure.event > 0)
		share->end = share->done + failure.event;
	else
	{
		record_failure(share->subscription, first, &failure);
		share->done++;
		/* which may keep back those behind it */
		if (share->subscription->paused || share->subscription->order_path != NULL)
			share->count = share->done +
				admit(share->subscription, &share->events[share->done], share->count - share->done);
		share->end = share->count;
	}
}

/* By subscription, in the order of their names; their events stay in order. */
static int
compare_matches(const void *left, const void *right)
{
	const Match *a = left;
	const Match *b = right;

	if (a->subscription != b->subscription)
		return a->subscription < b->subscription ? -1 : 1;
	return a->event - b->event;
}

static int
find_matches(MpSubscriptions *subscriptions, const MpEvent *events, int count, Match **matches)
{
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "meal_planner matching",
												  ALLOCSET_SMALL_SIZES);
	int			room = count;
	int			found = 0;

	*matches = palloc(sizeof(Match) * room);
	for (int i = 0; i < count; i++)
	{
		MemoryContext caller = MemoryContextSwitchTo(scratch);
		MpSubscription **matching;
		int			of_event = mp_subscriptions_matching(subscriptions, &events[i], &matching);

		MemoryContextSwitchTo(caller);
		if (found + of_event > room)
		{
			room = Max(room * 2, found + of_event);
			*matches = repalloc_huge(*matches, sizeof(Match) * room);
		}
		for (int m = 0; m < of_event; m++)
			(*matches)[found++] = (Match) {matching[m], i};
		MemoryContextReset(scratch);
	}
	MemoryContextDelete(scratch);
	qsort(*matches, found, sizeof(Match), compare_matches);
	return found;
}

/* The events of a run of matches, all of one subscription, that can be handled now. */
static Share
share_of_matches(const Match *matches, int count, const MpEvent *events)
{
	Share		share = {.subscription = matches[0].subscription};

	share.events = palloc(sizeof(MpEvent) * count);
	for (int i = 0; i < count; i++)
		share.events[i] = events[matches[i].event];
	share.count = share.end = admit(share.subscription, share.events, count);
	return share;
}

/*
 * Each subscription gets its events together.  Only where that failed they are
 * taken apart, after all others have had theirs, and what is left when the
 * subtransactions are used up is the sweep's to run, with no attempt counted.
 */
static void
deliver_batch(MpSubscriptions *subscriptions, const MpEvent *events, int count)
{
	Match	   *matches;
	int			match_count = find_matches(subscriptions, events, count, &matches);
	List	   *unfinished = NIL;
	ListCell   *cell;

	for (int i = 0, next; i < match_count; i = next)
	{
		Share		share;

		for (next = i + 1; next < match_count; next++)
			if (matches[next].subscription != matches[i].subscription)
				break;
		share = share_of_matches(&matches[i], next - i, events);
		if (share.count > 0 && may_begin_subtransaction())
			run_stretch(&share);
		if (share.done < share.count)
			unfinished = lappend(unfinished, memcpy(palloc(sizeof(Share)), &share, sizeof(Share)));
		else
			pfree(share.events);
	}

	foreach(cell, unfinished)
	{
		Share	   *share = lfirst(cell);

		while (share->done < share->count && may_begin_subtransaction())
			run_stretch(share);
		for (; share->done < share->count; share->done++)
			mp_delivery_schedule(share->subscription, &share->events[share->done], mp_clock_now());
	}
}

/* The inline subscriptions that want an event, each on its own. */
static void
deliver_single(MpSubscriptions *subscriptions, MpEvent *event)
{
	MpSubscription **matching;
	int			count = mp_subscriptions_matching(subscriptions, event, &matching);

	for (int i = 0; i < count; i++)
		deliver(matching[i], event);
}

Datum
mp_dispatch(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	MpSubscriptions *subscriptions;
	int64		position;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_AFTER(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		!TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
		elog(ERROR, "mp_dispatch must be fired AFTER INSERT FOR EACH ROW");

	position = position_of_slot(trigger->tg_trigslot);
	if (position < recording_first || position > recording_last)
	{
		mp_position_observe(position);
		return PointerGetDatum(NULL);
	}
	/* the last row of a batch stands for all */
	if (batch_events != NULL && position < recording_last)
		return PointerGetDatum(NULL);

	subscriptions = mp_subscriptions_hold();
	if (mp_subscriptions_has_inline(subscriptions))
	{
		if (batch_events != NULL)
			deliver_batch(subscriptions, batch_events, batch_count);
		else
		{
			MpEvent		event;

			event_of_slot(trigger->tg_trigslot, &event);
			deliver_single(subscriptions, &event);
		}
	}
	mp_subscriptions_release(subscriptions);
	return PointerGetDatum(NULL);
}
