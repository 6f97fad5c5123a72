/*
 * claim.pml
 *		Consumers of a pull subscription: claims under a lease, which end, are lost
 *		or taken over; consumers that die or come back too late; a server that dies.
 *
 * The events are those of one (account, subscription), at the positions 1 to
 * EVENTS, and all match.  A set of events is a bit for each.  What stands in one
 * atomic is a transaction, or the part of one up to where it may wait; the
 * comments say of which function in src/bus/claim.c, cursor.c and lease.c.
 * Backoff is not modelled but as the choice to leave a delivery that is due.
 *
 * Names with "ghost" are what an onlooker knows, who never errs.
 */
#ifndef EVENTS
#define EVENTS			2
#endif
#ifndef CONSUMERS
#define CONSUMERS		2
#endif
#ifndef CLAIMS
#define CLAIMS			2		/* that each of them makes */
#endif
#ifndef CRASHES
#define CRASHES			1		/* of the server */
#endif
#ifndef MAX_ATTEMPTS
#define MAX_ATTEMPTS	2
#endif

#define NUMBERS			(EVENTS * MAX_ATTEMPTS + 1)	/* claims; 0 is none */
#define BIT(e)			(1 << (e))

/* ------------------------------------------------------------------------
 * Tables
 * ------------------------------------------------------------------------ */

/* subscription_cursor */
byte cursor;

/* consumer_claim: by number, which is in its token */
byte last_number;
bit claim_exists[NUMBERS];
bit lease_over[NUMBERS];
byte stretch[NUMBERS];			/* events of (after_position, up_to] that are not settled */

/* delivery */
bit waits[EVENTS + 1];			/* there is a row */
byte attempt[EVENTS + 1];
byte token[EVENTS + 1];

/* dead_letter */
bit dead[EVENTS + 1];

/* Locks, which end with their transaction. */
bit order_lock;
bit row_locked[NUMBERS];		/* of consumer_claim */

/* ------------------------------------------------------------------------
 * Ghosts
 * ------------------------------------------------------------------------ */

byte ghost_boot;
byte ghost_holder[EVENTS + 1];	/* number of the claim that was given the event last */
byte ghost_given[EVENTS + 1];	/* how often it was */
byte ghost_effects[EVENTS + 1]; /* committed together with an acknowledgement */
byte ghost_ended;				/* consumers */
bool ghost_finished;			/* all of them have */

/* What must never be. */
bool fenced_token_counts;
bool two_leases_of_one_event;
bool event_is_lost_or_doubled;
bool two_effects;
bool attempts_are_miscounted;
bool given_up_early;
bool given_too_often;
bool never_delivered;

#define NEVER(what, condition) what = (condition); assert(!what)

/* At every commit: each event is in one place, and held by one. */
inline check_places()
{
	for (e : 1 .. EVENTS) {
		held = 0;
		for (n : 1 .. NUMBERS - 1) {
			if
			:: claim_exists[n] && (stretch[n] & BIT(e)) -> held++
			:: else
			fi
		}
		NEVER(two_leases_of_one_event, held + (waits[e] && token[e] != 0) > 1);
		NEVER(event_is_lost_or_doubled,
			  (e > cursor) + held + waits[e] + dead[e] + (ghost_effects[e] > 0) != 1)
	}
	held = 0;
	e = 0;
	n = 0
}

/* ------------------------------------------------------------------------
 * An attempt that failed: delivery.c
 * ------------------------------------------------------------------------ */

/* record_retry() or record_dead_letter(), of a delivery that counts this attempt */
inline failed()
{
	NEVER(attempts_are_miscounted, attempt[e] != ghost_given[e]);
	token[e] = 0;
	if
	:: attempt[e] >= MAX_ATTEMPTS ->
		waits[e] = 0;
		attempt[e] = 0;
		dead[e] = 1;
		NEVER(given_up_early, ghost_given[e] < MAX_ATTEMPTS)
	:: else
	fi
}

/* The first attempt of an event of a stretch has failed: it becomes a delivery. */
inline failed_first()
{
	waits[e] = 1;
#ifdef ATTEMPT_NOT_COUNTED
	attempt[e] = 0;
#else
	attempt[e] = 1;
#endif
	failed()
}

/* expire_claim() */
inline expire(number)
{
	for (e : 1 .. EVENTS) {
		if
		:: waits[e] && token[e] == number -> failed()
		:: else
		fi;
		if
		:: stretch[number] & BIT(e) -> failed_first()
		:: else
		fi
	}
	claim_exists[number] = 0;
	stretch[number] = 0;
	lease_over[number] = 0;
	row_locked[number] = 0
}

/* ------------------------------------------------------------------------
 * What consumers call
 * ------------------------------------------------------------------------ */

/*
 * take() of claim.c up to its commit: the leases that were over when it looked
 * end; then what waits, then the log.  `leave`: it may leave some of it.
 */
inline claim_commits(leave)
{
	for (n : 1 .. NUMBERS - 1) {
		if
		:: expiring & BIT(n) -> expire(n)
		:: else
		fi
	}
	expiring = 0;
	/* take_deliveries() */
	mine = 0;
	number = last_number + 1;
	for (e : 1 .. EVENTS) {
		if
		:: waits[e] && token[e] == 0 ->
			token[e] = number;
			attempt[e]++;
			mine = mine | BIT(e);
			ghost_given[e]++;
			NEVER(attempts_are_miscounted, attempt[e] != ghost_given[e])
		:: leave && waits[e] && token[e] == 0
		:: else
		fi
	}
	/* take_stretch(), from where the cursor was when it looked */
	do
	:: from < EVENTS ->
		from++;
		stretch[number] = stretch[number] | BIT(from);
		mine = mine | BIT(from);
		ghost_given[from]++
	:: leave || from == EVENTS -> break
	od;
	/* record_claim(), mp_cursor_write() */
	cursor = (from > cursor -> from : cursor);
	if
	:: mine != 0 ->
		last_number = number;
		claim_exists[number] = 1;
		for (e : 1 .. EVENTS) {
			if
			:: mine & BIT(e) ->
				ghost_holder[e] = number;
				NEVER(given_too_often, ghost_given[e] > MAX_ATTEMPTS)
			:: else
			fi
		}
	:: else -> number = 0
	fi;
	from = 0;
	order_lock = 0;
	check_places()
}

/* One event of a claim is acknowledged, with its effect in the same transaction. */
inline acknowledge(number)
{
	if
	:: (stretch[number] & BIT(e)) || (waits[e] && token[e] == number) ->
		NEVER(fenced_token_counts, ghost_holder[e] != number);
		stretch[number] = stretch[number] & ~BIT(e);
		if
		:: waits[e] && token[e] == number ->
			waits[e] = 0;
			attempt[e] = 0;
			token[e] = 0
		:: else
		fi;
		ghost_effects[e]++;
		NEVER(two_effects, ghost_effects[e] > 1)
	:: else
	fi
}

/* Whose last event is settled is removed; the lock of the row ends. */
inline write_claim(number)
{
	held = stretch[number];
	for (e : 1 .. EVENTS) {
		if
		:: waits[e] && token[e] == number -> held++
		:: else
		fi
	}
	if
	:: held == 0 ->
		claim_exists[number] = 0;
		lease_over[number] = 0
	:: else
	fi;
	held = 0;
	row_locked[number] = 0;
	check_places()
}

proctype Consumer()
{
	byte boot;					/* its session's */
	byte claims;
	byte number;				/* its token */
	byte mine;					/* events that it was given with it */
	byte expiring;				/* claims that it ends */
	byte from;					/* where the cursor is */
	byte e;
	byte n;
	byte held;
	bool was_over;

	do
	:: claims < CLAIMS ->
		/* mp_claim(): under the order lock it looks at the cursor, and at the leases */
		atomic {
#ifdef NO_ORDER_LOCK
			true ->
#else
			!order_lock ->
			order_lock = 1;
#endif
			boot = ghost_boot;
			claims++;
			from = cursor;
			for (n : 1 .. NUMBERS - 1) {
				if
				:: claim_exists[n] && lease_over[n] && !row_locked[n] ->
					/* FOR UPDATE SKIP LOCKED */
					row_locked[n] = 1;
					expiring = expiring | BIT(n)
				:: else
				fi
			}
			n = 0;
#ifdef CURSOR_FIRST
			/* the cursor in a transaction of its own */
			cursor = EVENTS;
#endif
		}
		atomic {
			if
			:: boot != ghost_boot -> goto aborted
			:: boot == ghost_boot -> claim_commits(true)
			:: boot == ghost_boot ->
				/* it rolls back */
				for (n : 1 .. NUMBERS - 1) {
					if
					:: expiring & BIT(n) -> row_locked[n] = 0
					:: else
					fi
				}
				order_lock = 0;
				goto aborted
			fi
		}

		/* It works, for as long as it takes; who dies says nothing. */
		do
		:: number != 0 ->
			/* mp_ack(), mp_fail(), mp_extend(): lock_claim() reads the clock ... */
			atomic {
				boot = ghost_boot;
				was_over = lease_over[number] || !claim_exists[number]
			}
			/* ... and waits for the row */
			atomic {
				if
				:: boot != ghost_boot -> goto again
#ifdef NO_FENCING
				/* what the consumer was given is settled, whoever holds it now */
				:: boot == ghost_boot ->
					for (e : 1 .. EVENTS) {
						if
						:: (mine & BIT(e)) && !dead[e] && ghost_effects[e] == 0 ->
							NEVER(fenced_token_counts, ghost_holder[e] != number)
						:: else
						fi
					}
#else
				:: boot == ghost_boot && (was_over || !claim_exists[number]) -> goto forget
#endif
#ifdef NO_ROW_LOCK
				:: boot == ghost_boot && !was_over && claim_exists[number]
#else
				:: boot == ghost_boot && !was_over && claim_exists[number] && !row_locked[number] ->
					row_locked[number] = 1
#endif
				fi
			}
			atomic {
				if
				:: boot != ghost_boot -> goto again
				:: else
				fi;
				if
				:: true ->
					/* mp_ack(token) */
#ifdef NO_ROW_LOCK
					for (e : 1 .. EVENTS) {
						if
						:: (mine & BIT(e)) && ghost_effects[e] == 0 && !dead[e] ->
							NEVER(fenced_token_counts, ghost_holder[e] != number || !claim_exists[number])
						:: else
						fi
					}
#endif
					for (e : 1 .. EVENTS) {
						acknowledge(number)
					}
				:: true ->
					/* mp_ack(token, some) */
					e = 1;
					acknowledge(number)
				:: true ->
					/* mp_fail() */
					e = EVENTS;
					if
					:: stretch[number] & BIT(e) ->
						stretch[number] = stretch[number] & ~BIT(e);
						failed_first()
					:: waits[e] && token[e] == number -> failed()
					:: else
					fi
				:: true ->
					/* mp_extend() */
					lease_over[number] = 0
				:: true
					/* it rolls back */
				fi;
				write_claim(number)
			}
again:
			skip
		:: goto forget
		:: goto ended
		od;
forget:
		skip;
aborted:
		atomic {
			number = 0;
			mine = 0;
			expiring = 0;
			from = 0;
			was_over = false;
			e = 0;
			n = 0
		}
	:: else -> break
	od;
ended:
	ghost_ended++
}

/* ------------------------------------------------------------------------
 * Others
 * ------------------------------------------------------------------------ */

/* What has an end may end. */
active proctype Time()
{
	byte n;

end:
	do
#ifndef NO_LEASE
	:: atomic {
			!ghost_finished ->
			n = 1;
			do
			:: n < NUMBERS && claim_exists[n] && !lease_over[n] ->
				lease_over[n] = 1;
				break
			:: n < NUMBERS - 1 -> n++
			:: else -> break
			od;
			n = 0
		}
#else
	:: false
#endif
	od
}

/* kill -9 of the postmaster: what was not committed is gone, and so is every lock. */
active proctype Death()
{
	byte n;
	byte deaths;

end:
	do
	:: atomic {
			deaths < CRASHES && !ghost_finished ->
			deaths++;
			ghost_boot++;
			order_lock = 0;
			for (n : 1 .. NUMBERS - 1) {
				row_locked[n] = 0
			}
			n = 0
		}
	od
}

/*
 * After all that, and when every lease is over, one that is well claims and
 * acknowledges until nothing is left: every event is done or a dead letter.
 */
init
{
	byte number;
	byte mine;
	byte expiring;
	byte from;
	byte e;
	byte n;
	byte held;
	byte round;

	atomic {
		for (n : 1 .. CONSUMERS) {
			run Consumer()
		}
	}
	atomic {
		ghost_ended == CONSUMERS && !order_lock ->
		ghost_finished = true;
		for (round : 1 .. 2) {
			from = cursor;
			for (n : 1 .. NUMBERS - 1) {
				if
#ifndef NO_LEASE
				:: claim_exists[n] && !row_locked[n] -> expiring = expiring | BIT(n)
#endif
				:: else
				fi
			}
			claim_commits(false);
			if
			:: number != 0 ->
				for (n : 1 .. EVENTS) {
					e = n;
					acknowledge(number)
				}
				write_claim(number)
			:: else
			fi
		}
		for (n : 1 .. EVENTS) {
			NEVER(never_delivered, !dead[n] && ghost_effects[n] == 0)
		}
	}
}
