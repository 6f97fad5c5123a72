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
#include "bus/position.h"
#include "commands/trigger.h"
#include "executor/tuptable.h"
#include "utils/rel.h"

static int64 recording_first = 1;
static int64 recording_last = 0;

PG_FUNCTION_INFO_V1(mp_dispatch);

void
mp_recording_begin(int64 first_position, int64 last_position)
{
	recording_first = first_position;
	recording_last = last_position;
}

/*
 * The columns by name: a partition made by hand or restored could have them in
 * another order than its parent.
 */
static void
event_of_slot(TupleTableSlot *slot, MpEvent *event)
{
	static const char *const names[MP_EVENT_COLUMNS] = {
		"account", "position", "id", "detail_type", "source", "time", "region", "resources",
		"detail", "stream", "version", "deliver_after", "idempotency_key", "hops"
	};
	TupleDesc	desc = slot->tts_tupleDescriptor;

	slot_getallattrs(slot);
	for (int column = 0; column < MP_EVENT_COLUMNS; column++)
	{
		int			attribute = column;

		if (attribute >= desc->natts ||
			strcmp(NameStr(TupleDescAttr(desc, attribute)->attname), names[column]) != 0)
		{
			for (attribute = 0; attribute < desc->natts; attribute++)
				if (strcmp(NameStr(TupleDescAttr(desc, attribute)->attname), names[column]) == 0)
					break;
			if (attribute == desc->natts)
				elog(ERROR, "event has no column \"%s\"", names[column]);
		}
		event->values[column] = slot->tts_values[attribute];
		event->nulls[column] = slot->tts_isnull[attribute];
	}
}

static void
deliver(MpSubscription *subscription, const MpEvent *event)
{
	MpFailure	failure;
	TimestampTz due = event->nulls[MP_EVENT_DELIVER_AFTER]
		? DT_NOBEGIN : DatumGetTimestampTz(event->values[MP_EVENT_DELIVER_AFTER]);

	if (subscription->paused || (due != DT_NOBEGIN && due > mp_clock_now()))
		mp_delivery_schedule(subscription, event, Max(due, mp_clock_now()));
	else if (!mp_handler_run(subscription, event, 1, &failure))
		mp_delivery_failed(subscription, event,
						   &(MpFailedAttempt) {.attempt = 1}, &failure);
}

Datum
mp_dispatch(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	MpSubscriptions *subscriptions;
	MpSubscription **matching;
	MpEvent		event;
	int			count;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_AFTER(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		!TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
		elog(ERROR, "mp_dispatch must be fired AFTER INSERT FOR EACH ROW");

	event_of_slot(trigger->tg_trigslot, &event);
	if (mp_event_position(&event) < recording_first || mp_event_position(&event) > recording_last)
	{
		mp_position_observe(mp_event_position(&event));
		return PointerGetDatum(NULL);
	}

	subscriptions = mp_subscriptions_hold();
	if (mp_subscriptions_has_inline(subscriptions))
	{
		count = mp_subscriptions_matching(subscriptions, &event, &matching);
		for (int i = 0; i < count; i++)
			deliver(matching[i], &event);
	}
	mp_subscriptions_release(subscriptions);
	return PointerGetDatum(NULL);
}
