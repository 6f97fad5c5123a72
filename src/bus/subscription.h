/*
 * subscription.h
 *		Subscriptions as a backend keeps them: compiled, and found by event.
 */
#ifndef MP_BUS_SUBSCRIPTION_H
#define MP_BUS_SUBSCRIPTION_H

#include "bus/bus.h"
#include "core/backoff.h"
#include "core/pattern.h"
#include "core/retry_budget.h"
#include "fmgr.h"
#include "utils/jsonb.h"

typedef enum MpMode
{
	MP_INLINE,
	MP_WORKER,
	MP_PULL
} MpMode;

struct MpOrderPath;

/* The checked options of mp_subscribe. */
typedef struct MpOptions
{
	MpRetryPolicy policy;
	struct MpOrderPath *order_path; /* NULL: no order */
	bool		block_key;		/* on_dead: a dead letter blocks its key */
	double		timeout;		/* of a call, in seconds; 0: none */
	char	   *breaker;		/* name; NULL: none */
	char	   *service;		/* whose codes its errors have; NULL: none */
	MpRetryBudget budget;
	int			max_replays;	/* of a dead letter until it is parked; 0: the default */
	double		redrive_window; /* seconds from the first failure; 0: no limit */
} MpOptions;

typedef struct MpSubscription
{
	char	   *name;
	MpMode		mode;
	bool		paused;
	int64		start_position;	/* where its cursor starts */
	int			batch_size;		/* of this backend's next batch; 0: not known */
	bool		broken;			/* its pattern or options are none: no event matches */
	const MpPattern *pattern;
	MpRetryPolicy policy;
	struct MpOrderPath *order_path; /* NULL: no order */
	bool		block_key;
	double		timeout;
	char	   *breaker;		/* NULL: none */
	MpRetryBudget budget;

	char	   *handler;		/* qualified signature */
	char	   *owner;			/* role it runs as */
	char	   *handler_path;	/* search_path it runs with */

	/*
	 * Found when first called, since a handler that is missing must fail its
	 * own deliveries and nobody else's.
	 */
	bool		resolved;
	FmgrInfo	function;
	int			running;		/* calls of it on the stack */
	Oid			role;
	bool		sets_path;		/* the function has a SET search_path */

	/* Found at its first call; see handler_sql.c */
	bool		statement_known;
	struct MpStatement *statement;	/* NULL: it is to be called */
} MpSubscription;

typedef struct MpSubscriptions MpSubscriptions;

/*
 * The subscriptions in force, held until mp_subscriptions_release: they stay
 * valid meanwhile although a handler may change them.
 */
extern MpSubscriptions *mp_subscriptions_hold(void);
extern void mp_subscriptions_release(MpSubscriptions *subscriptions);

/* The inline ones that match an event, in the order of their names. */
extern int	mp_subscriptions_matching(MpSubscriptions *subscriptions, const MpEvent *event,
									  MpSubscription ***matching);
extern bool mp_subscriptions_has_inline(const MpSubscriptions *subscriptions);

/* NULL when there is none. */
extern MpSubscription *mp_subscription_find(MpSubscriptions *subscriptions, const char *name);

/* What a handler's search_path has to be; see subscription.c. */
extern bool mp_path_ends_with_temp(const char *path);
extern bool mp_handler_sets_path(Oid function);

/* subscribe.c: whether it is f(argument) that returns void or jsonb; and the search_path to run one with */
extern bool mp_is_function_of(Oid function, Oid argument);
extern char *mp_path_of_caller(void);

/* Looks its handler and role up; errors out when one is missing or not allowed. */
extern void mp_subscription_resolve(MpSubscription *subscription);

/* options.c: MP400 for what is no option; the result lives in the current context. */
extern MpOptions mp_options_of_jsonb(Jsonb *options);

#endif							/* MP_BUS_SUBSCRIPTION_H */
