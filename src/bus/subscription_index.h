/*
 * subscription_index.h
 *		Which subscriptions may want an event.
 */
#ifndef MP_BUS_SUBSCRIPTION_INDEX_H
#define MP_BUS_SUBSCRIPTION_INDEX_H

#include "bus/bus.h"
#include "core/pattern.h"

/* The fields it goes by; see subscription_index.c */
#define MP_INDEXED_FIELDS 2

/* A subscription, by number, whose pattern pins a field to this string. */
typedef struct MpPin
{
	const char *literal;		/* the pattern's */
	size_t		len;
	int			subscription;
} MpPin;

typedef struct MpPins
{
	int			count;
	int			room;
	MpPin	   *pins;
} MpPins;

/* Each subscription is in one place: by the first field that it pins, or among the others. */
typedef struct MpSubscriptionIndex
{
	MemoryContext context;		/* owns what it holds */
	MpPins		by_field[MP_INDEXED_FIELDS];
	MpPins		unpinned;		/* without a string */
} MpSubscriptionIndex;

/* Built by adding in the order of the numbers and sorting at the end. */
extern void mp_subscription_index_add(MpSubscriptionIndex *index, const MpPattern *pattern, int number);
extern void mp_subscription_index_sort(MpSubscriptionIndex *index);

/* Goes through those that may want an event. */
typedef struct MpCandidates
{
	MpPin		wanted[MP_INDEXED_FIELDS];
	int			next_pin[MP_INDEXED_FIELDS];
	int			next_unpinned;
} MpCandidates;

extern void mp_candidates_begin(const MpSubscriptionIndex *index, const MpEvent *event,
								MpCandidates *candidates);

/* In the order of their numbers, some of them twice; -1: no more. */
extern int	mp_candidates_next(const MpSubscriptionIndex *index, MpCandidates *candidates);

#endif							/* MP_BUS_SUBSCRIPTION_INDEX_H */
