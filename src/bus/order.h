/*
 * order.h
 *		Order per key: one event of a key after the other.
 */
#ifndef MP_BUS_ORDER_H
#define MP_BUS_ORDER_H

#include "bus/subscription.h"

/* Names of an order_key from the envelope inwards, as in detail.recipe_id */
typedef struct MpOrderPath
{
	int			count;
	char	  **names;
} MpOrderPath;

/* NULL when the text is no path; the path lives in the context. */
extern MpOrderPath *mp_order_path_parse(const char *text, MemoryContext context);

/*
 * The order lock of a subscription in an account, held to the end of the
 * transaction.  Whoever blocks a delivery, finishes one that has a key or moves
 * the cursor of a pull subscription holds it, and looks with a fresh snapshot
 * after taking it.  False when it is taken
 * and `wait` is not.
 */
extern bool mp_order_lock(Datum account, Datum subscription, bool wait);

/* Gives it back early, for who has changed nothing under it. */
extern void mp_order_unlock(Datum account, Datum subscription);

/*
 * The value of the subscription's order_key in an event; NULL when it has none,
 * or the path leads to nothing or to an object or array.
 */
extern Datum mp_order_key(const MpSubscription *subscription, const MpEvent *event, bool *isnull);

/* A key as it is stored: a long one is cut and gets a hash. */
extern Datum mp_order_key_of_text(const char *text, size_t len);

/*
 * Keeps the events that may be handled now, in their order, and returns how many
 * these are.  The others (delayed ones, and those whose key has something live
 * before them) are deliveries afterwards.
 */
extern int	mp_order_admit(const MpSubscription *subscription, MpEvent *events, int count);

#endif							/* MP_BUS_ORDER_H */
