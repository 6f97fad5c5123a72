/*
 * subscription_index.c
 *		Which subscriptions may want an event.
 *
 * Most patterns pin the detail type or the source to exact strings.  Such a
 * subscription is found by them, and a thousand others cost an event nothing.
 * A pattern that pins neither is tried for every event.
 */
#include "bus/subscription_index.h"

#include "pgcompat.h"
#include "utils/memutils.h"

static const struct
{
	const char *name;			/* in a pattern */
	MpEventColumn column;
}			fields[MP_INDEXED_FIELDS] = {
	{"detail-type", MP_EVENT_DETAIL_TYPE}, {"source", MP_EVENT_SOURCE}
};

static void
add_pin(MpPins *pins, MpPin pin, MemoryContext context)
{
	if (pins->count == pins->room)
	{
		pins->room = Max(pins->room * 2, 16);
		pins->pins = pins->pins ? repalloc(pins->pins, sizeof(MpPin) * pins->room)
			: MemoryContextAlloc(context, sizeof(MpPin) * pins->room);
	}
	pins->pins[pins->count++] = pin;
}

void
mp_subscription_index_add(MpSubscriptionIndex *index, const MpPattern *pattern, int number)
{
	for (int field = 0; field < MP_INDEXED_FIELDS; field++)
	{
		const char *const *literals;
		const size_t *lengths;
		int			count = mp_pattern_literals(pattern, fields[field].name, &literals, &lengths);

		for (int i = 0; i < count; i++)
			add_pin(&index->by_field[field], (MpPin) {literals[i], lengths[i], number}, index->context);
		if (count >= 0)
			return;
	}
	add_pin(&index->unpinned, (MpPin) {.subscription = number}, index->context);
}

/* By string, those of one string by number. */
static int
compare_pins(const void *left, const void *right)
{
	const MpPin *a = left;
	const MpPin *b = right;
	int			order = memcmp(a->literal, b->literal, Min(a->len, b->len));

	if (order == 0)
		order = (a->len > b->len) - (a->len < b->len);
	if (order == 0)
		order = a->subscription - b->subscription;
	return order;
}

void
mp_subscription_index_sort(MpSubscriptionIndex *index)
{
	for (int field = 0; field < MP_INDEXED_FIELDS; field++)
		if (index->by_field[field].count > 1)
			qsort(index->by_field[field].pins, index->by_field[field].count, sizeof(MpPin), compare_pins);
}

/* The first pin to a string, or where it would stand. */
static int
first_pin(const MpPins *pins, const MpPin *wanted)
{
	int			low = 0;
	int			high = pins->count;

	while (low < high)
	{
		int			middle = low + (high - low) / 2;

		if (compare_pins(&pins->pins[middle], wanted) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

void
mp_candidates_begin(const MpSubscriptionIndex *index, const MpEvent *event, MpCandidates *candidates)
{
	candidates->next_unpinned = 0;
	for (int field = 0; field < MP_INDEXED_FIELDS; field++)
	{
		text	   *value;

		candidates->next_pin[field] = 0;
		if (index->by_field[field].count == 0)
			continue;
		value = DatumGetTextPP(event->values[fields[field].column]);
		candidates->wanted[field] = (MpPin) {VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value), -1};
		candidates->next_pin[field] = first_pin(&index->by_field[field], &candidates->wanted[field]);
	}
}

/* The subscription at a place, -1 when there is none to the string wanted. */
static int
pinned(const MpPins *pins, int place, const MpPin *wanted)
{
	const MpPin *pin;

	if (place >= pins->count)
		return -1;
	pin = &pins->pins[place];
	if (pin->len != wanted->len || memcmp(pin->literal, wanted->literal, wanted->len) != 0)
		return -1;
	return pin->subscription;
}

/* All lists are sorted by number: the lowest of their heads is next. */
int
mp_candidates_next(const MpSubscriptionIndex *index, MpCandidates *candidates)
{
	int			lowest = candidates->next_unpinned < index->unpinned.count
		? index->unpinned.pins[candidates->next_unpinned].subscription : -1;
	int		   *place = &candidates->next_unpinned;

	for (int field = 0; field < MP_INDEXED_FIELDS; field++)
	{
		int			number = pinned(&index->by_field[field], candidates->next_pin[field],
									&candidates->wanted[field]);

		if (number >= 0 && (lowest < 0 || number < lowest))
		{
			lowest = number;
			place = &candidates->next_pin[field];
		}
	}
	if (lowest >= 0)
		(*place)++;
	return lowest;
}
