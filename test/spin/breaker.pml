/*
 * breaker.pml
 *		One circuit breaker, its callers, and a server that may die.
 *
 * What stands in one atomic here is one region under the breaker's lock in
 * src/bus/breaker.c, one access of an atomic variable without that lock, or one
 * transaction of store_breaker(); the comments name them.  Time is whatever can
 * happen: what has an end may end at any moment after it began (process Time).
 *
 * Names with "ghost" are what an onlooker knows, who never errs.  The code
 * modelled does not read them.
 */
#ifndef EXTERNAL
#define EXTERNAL	2			/* callers outside; each may die with its permit */
#endif
#ifndef HANDLERS
#define HANDLERS	0			/* callers in transactions */
#endif
#ifndef CALLS
#define CALLS		2			/* that each of them makes */
#endif
#ifndef STORERS
#define STORERS		0			/* transactions that store, at once */
#endif
#ifndef CRASHES
#define CRASHES		0			/* of the server */
#endif
#ifndef THRESHOLD
#define THRESHOLD	2			/* failure_threshold */
#endif
#ifndef PERMITS
#define PERMITS		1			/* half_open_permits */
#endif

#define CALLERS		(EXTERNAL + HANDLERS)

/* The states, and how a call ends. */
#define CLOSED	0
#define OPEN	1
#define HALF	2

#define SUCCESS	0
#define FAILURE	1
#define IGNORED	2

/* ------------------------------------------------------------------------
 * Shared memory (struct MpBreakerPlace): gone with the server
 * ------------------------------------------------------------------------ */

bit locked;						/* place->lock */
byte state;
byte epoch = 1;
byte consecutive;				/* failures */
byte last_serial;
byte serial[PERMITS];			/* 0: the permit is free */
bit lease_over[PERMITS];
bit open_over;					/* open_until <= now */
byte changes;					/* ever made */
byte stored;					/* of them */

/* Read without the lock. */
byte common = 1;				/* epoch of everybody's permit; 0: ask */
bit quiet = 1;
bit unstored;

/* ------------------------------------------------------------------------
 * The row of breaker_state, and the clock
 * ------------------------------------------------------------------------ */

bit row_locked;
byte row_epoch;
byte row_state;

/*
 * Milliseconds.  That a change of state takes one, and that the clock is not set
 * back over a crash, is what read_state() relies on.
 */
byte clock = 1;

/* ------------------------------------------------------------------------
 * Ghosts
 * ------------------------------------------------------------------------ */

byte ghost_boot;				/* starts of the server */
byte ghost_era = 1;				/* grows with every change of state and every start */
byte ghost_highest = 1;			/* epoch, ever */
byte ghost_common_era = 1;		/* in which `common` was written */
byte ghost_row_era;				/* that is stored */
byte ghost_promised;			/* era of an `open` that somebody was told of, as stored */
byte ghost_told;				/* failures told since the last success, in this era */
byte ghost_returned;			/* of them, whose report has returned */
byte ghost_probe[CALLERS];		/* era of the probe that a caller is; 0: none */
byte ghost_ended;				/* callers */
bool ghost_finished;			/* all of them have */

/* What must never be. */
bool more_probes_than_permits;
bool late_result_counts;
bool result_counts_twice;
bool opens_on_another_failure_than_the_nth;
bool success_is_forgotten;
bool epoch_goes_back;
bool older_state_is_stored_over_newer;
bool told_to_be_open_and_lost;
bool success_without_commit;
bool failure_lost_with_its_transaction;
bool never_closes_again;
bool never_stored;

/* Of whoever has the lock */
byte place;
byte probes;
bool lost;
bool accepted;
#ifdef PUBLISH_CHANGES_ONLY
byte before;					/* changes; of who has the lock */
#define REMEMBER_CHANGES before = changes
#else
#define REMEMBER_CHANGES skip
#endif

#define NEVER(what, condition) what = (condition); assert(!what)

/* ------------------------------------------------------------------------
 * src/core/breaker.c
 * ------------------------------------------------------------------------ */

/* move() and, for THE epochs of it, tell() */
inline move(to)
{
	state = to;
	epoch++;
	clock++;
	for (place : 0 .. PERMITS - 1) {
		serial[place] = 0;
		lease_over[place] = 0
	}
	last_serial = 0;
	open_over = 0;
#ifndef COUNT_STAYS
	if
	:: to == CLOSED -> consecutive = 0
	:: else
	fi;
#endif
	changes++;
	ghost_era++;
	ghost_told = 0;
	ghost_returned = 0;
	ghost_highest = (epoch > ghost_highest -> epoch : ghost_highest)
}

/* mp_breaker_settle(): a probe whose lease is over is lost */
inline settle()
{
	lost = false;
	for (place : 0 .. PERMITS - 1) {
		if
		:: serial[place] != 0 && lease_over[place] -> lost = true
		:: else
		fi
	}
	if
	:: lost -> move(OPEN)
	:: else
	fi
}

/* mp_breaker_acquire() */
inline acquire(me)
{
	settle();
	allowed = false;
	if
	:: state == CLOSED ->
		allowed = true;
		permit_epoch = epoch;
		permit_serial = 0
	:: state == OPEN && !open_over
	:: else ->
		if
		:: state == OPEN -> move(HALF)
		:: else
		fi;
		/* give_probe() */
		for (place : 0 .. PERMITS - 1) {
			if
#ifdef NO_PERMITS
			:: !allowed ->
#else
			:: !allowed && serial[place] == 0 ->
#endif
				last_serial++;
				serial[place] = last_serial;
				lease_over[place] = 0;
				allowed = true;
				permit_epoch = epoch;
				permit_serial = last_serial;
				ghost_probe[me] = ghost_era
			:: else
			fi
		}
	fi;
	permit_era = ghost_era;
	/* everybody who tries the service right now was allowed to, in this epoch */
	probes = 0;
	for (place : 0 .. CALLERS - 1) {
		if
		:: ghost_probe[place] == ghost_era -> probes++
		:: else
		fi
	}
	NEVER(more_probes_than_permits, probes > PERMITS)
}

/* mp_breaker_report() */
inline report(me, outcome)
{
	settle();
	accepted = false;
	if
#ifdef NO_EPOCH
	:: state == OPEN
#else
	:: permit_epoch != epoch || state == OPEN
#endif
	:: else ->
		if
		:: state == HALF ->
			/* report_probe() */
			for (place : 0 .. PERMITS - 1) {
				if
#ifdef NO_SERIAL
				:: !accepted && serial[place] != 0 ->
#else
				:: !accepted && permit_serial != 0 && serial[place] == permit_serial ->
#endif
					accepted = true;
					serial[place] = 0;
					lease_over[place] = 0
				:: else
				fi
			}
			NEVER(late_result_counts, accepted && permit_era != ghost_era);
			NEVER(result_counts_twice, accepted && ghost_probe[me] != ghost_era);
			if
			:: accepted && outcome == FAILURE -> move(OPEN)
			:: accepted && outcome == SUCCESS -> move(CLOSED)
			:: else
			fi
		:: state == CLOSED && permit_serial == 0 ->
			accepted = true;
			NEVER(late_result_counts, permit_era != ghost_era);
			/* report_closed() */
			if
			:: outcome == FAILURE ->
				consecutive++;
				ghost_told++;
				NEVER(opens_on_another_failure_than_the_nth,
					  (consecutive >= THRESHOLD) != (ghost_told == THRESHOLD));
				if
				:: consecutive >= THRESHOLD -> move(OPEN)
				:: else
				fi
			:: outcome == SUCCESS ->
				consecutive = 0;
				ghost_told = 0;
				ghost_returned = 0
			:: else
			fi
		:: else
		fi
	fi;
	/* whatever became of it, the call is over */
	ghost_probe[me] = 0
}

/* ------------------------------------------------------------------------
 * src/bus/breaker.c
 * ------------------------------------------------------------------------ */

/* publish(): the lock is held; others read without it meanwhile */
inline publish()
{
	quiet = (state == CLOSED && consecutive == 0);
	unstored = (changes > stored);
	common = (state == CLOSED -> epoch : 0);
	ghost_common_era = ghost_era;
	ghost_returned = ghost_told;
	place = 0;
	probes = 0;
	lost = false;
	accepted = false
}

/* The end of a region under the lock. */
inline unlock()
{
	atomic {
		if
		:: boot != ghost_boot -> goto gone
		:: else
		fi;
#ifdef PUBLISH_CHANGES_ONLY
		if
		:: changes != before -> publish()
		:: else -> ghost_returned = ghost_told
		fi;
#else
		publish();
#endif
		locked = 0
	}
}

/* mp_breaker_ask(); goes to `gone` when the server dies meanwhile */
inline ask(me)
{
	atomic {
		if
		:: boot != ghost_boot -> goto gone
		:: boot == ghost_boot && common != 0 ->
			allowed = true;
			permit_epoch = common;
			permit_serial = 0;
			permit_era = ghost_common_era;
			needs_lock = false
		:: else -> needs_lock = true
		fi
	}
	if
	:: needs_lock ->
		atomic {
			if
			:: boot != ghost_boot -> goto gone
			:: boot == ghost_boot && !locked -> locked = 1
			fi;
			REMEMBER_CHANGES;
			acquire(me)
		}
		unlock()
	:: else
	fi
}

/* mp_breaker_tell() */
inline tell(me, outcome)
{
	/* A success that would change nothing: two reads, one after the other. */
	needs_lock = true;
	if
	:: outcome == SUCCESS ->
		atomic {
			if
			:: boot != ghost_boot -> goto gone
			:: else
			fi;
			needs_lock = !quiet;
			returned_before = (permit_epoch == epoch -> ghost_returned : 0)
		}
		if
		:: !needs_lock ->
			atomic {
				if
				:: boot != ghost_boot -> goto gone
				:: else
				fi;
				if
				:: common == permit_epoch && permit_serial == 0 ->
					NEVER(late_result_counts, permit_era != ghost_common_era);
					NEVER(success_is_forgotten, returned_before > 0)
				:: else -> needs_lock = true
				fi
			}
		:: else
		fi
	:: else
	fi;
	if
	:: needs_lock ->
		atomic {
			if
			:: boot != ghost_boot -> goto gone
			:: boot == ghost_boot && !locked -> locked = 1
			fi;
			REMEMBER_CHANGES;
			report(me, outcome)
		}
		unlock()
	:: else
	fi
}

/* ------------------------------------------------------------------------
 * Callers
 * ------------------------------------------------------------------------ */

#define LOCALS \
	byte boot; byte calls; byte outcome; \
	byte permit_epoch; byte permit_serial; byte permit_era; byte returned_before; \
	bool allowed; bool needs_lock

/* What is not needed any more makes no state a different one. */
inline forget()
{
	atomic {
		boot = 0;
		outcome = 0;
		permit_epoch = 0;
		permit_serial = 0;
		permit_era = 0;
		returned_before = 0;
		allowed = false;
		needs_lock = false
	}
}

/* mp_breaker_state() */
inline read_state()
{
	if
	:: boot != ghost_boot -> goto gone
	:: boot == ghost_boot && common != 0 -> answer = CLOSED
	:: boot == ghost_boot && common == 0 && !locked ->
		answer = state;
		answer_era = ghost_era
	fi
}

/*
 * mp_breaker_report_call(): which state it will answer; then it waits for that to
 * be stored.  That nobody stores it in time is a warning, and no promise.  The
 * other way round the answer may be one that nobody has waited for:
 * ANSWER_AFTER_STORING.
 */
inline wait_for_storing()
{
#if STORERS > 0
#ifndef ANSWER_AFTER_STORING
	atomic {
		read_state()
	}
#endif
	atomic {
		if
		:: boot != ghost_boot -> goto gone
		:: boot == ghost_boot && !unstored
		fi
	}
#ifdef ANSWER_AFTER_STORING
	atomic {
		read_state()
	}
#endif
	atomic {
		if
		:: boot != ghost_boot -> goto gone
		:: else
		fi;
		if
		:: answer == OPEN -> ghost_promised = answer_era
		:: else
		fi
	}
#else
	skip
#endif
}

/* Connects and asks; calls the service; connects again and reports. */
proctype External(byte me)
{
	LOCALS;
	bool has_permit;
	bool told_twice;
	byte answer;
	byte answer_era;

	do
	:: calls < CALLS ->
		d_step {
			calls++;
			boot = ghost_boot;
			has_permit = false
		}
		ask(me);
		if
		:: allowed ->
			/* the call; who dies in it never reports */
			if
			:: outcome = SUCCESS
			:: outcome = FAILURE
			:: outcome = IGNORED
			:: goto ended
			fi;
again:
			atomic {
				boot = ghost_boot;
				has_permit = true
			}
			tell(me, outcome);
			wait_for_storing();
			/* the answer did not arrive: it is told again */
			if
			:: permit_serial != 0 && !told_twice ->
				told_twice = true;
				goto again
			:: true
			fi
		:: else
		fi;
		goto next;
gone:
		if
		:: has_permit -> goto again
		:: else
		fi;
next:
		atomic {
			has_permit = false;
			told_twice = false;
			answer = 0;
			answer_era = 0
		}
		forget()
	:: else -> break
	od;
ended:
	atomic {
		ghost_ended++;
		forget()
	}
}

/* src/bus/breaker_handler.c: a handler in the transaction of somebody */
proctype Handler(byte me)
{
	LOCALS;
	bool told;
	bool ended;

	do
	:: calls < CALLS ->
		d_step {
			calls++;
			boot = ghost_boot;
			told = false;
			ended = false
		}
		ask(me);
		if
		:: allowed ->
			if
			:: outcome = SUCCESS
			:: outcome = FAILURE
			:: outcome = IGNORED
			fi;
			goto returned;
telling:
			tell(me, outcome);
			told = true;
			if
			:: ended -> goto next
			:: else
			fi;
returned:
			/* mp_breaker_failed(): at once; mp_breaker_succeeded(): not yet */
			if
#ifdef SUCCESS_BEFORE_COMMIT
			:: !told -> goto telling
#elif defined(FAILURE_AT_COMMIT)
			:: !told && outcome == IGNORED -> goto telling
#else
			:: !told && outcome != SUCCESS -> goto telling
#endif
			:: else
			fi;
			/* the transaction ends: end_of_transaction(), once the commit is on disk */
			ended = true;
			if
			:: true ->
				if
				:: !told -> goto telling
				:: else
				fi
			:: true ->
				/* it rolls back: the permit of a probe goes back */
				NEVER(success_without_commit, outcome == SUCCESS && told);
				NEVER(failure_lost_with_its_transaction, outcome == FAILURE && !told);
				if
				:: !told && permit_serial != 0 ->
					outcome = IGNORED;
					goto telling
				:: else
				fi
			fi
		:: else
		fi;
		goto next;
gone:
		/* the server died, and the transaction with it */
		skip;
next:
		atomic {
			told = false;
			ended = false
		}
		forget()
	:: else -> break
	od;
	ghost_ended++
}

/* ------------------------------------------------------------------------
 * Others
 * ------------------------------------------------------------------------ */

/* What has an end may end. */
active proctype Time()
{
end:
	do
	:: atomic { state == OPEN && !open_over && !ghost_finished -> open_over = 1 }
#ifndef NO_LEASE
	:: atomic { serial[0] != 0 && !lease_over[0] && !ghost_finished -> lease_over[0] = 1 }
#if PERMITS > 1
	:: atomic { serial[1] != 0 && !lease_over[1] && !ghost_finished -> lease_over[1] = 1 }
#endif
#endif
	od
}

/* sweep_breakers(), mp_breakers: mp_breaker_look() lets leases end */
active proctype Sweep()
{
	byte boot;

end:
	do
	:: atomic {
			!locked && lease_over[0] && !ghost_finished ->
			locked = 1;
			boot = ghost_boot;
			REMEMBER_CHANGES;
			settle()
		}
		unlock();
gone:
		boot = 0
	od
}

#if STORERS > 0
/* store_breaker(), in a transaction of its own, and mp_breaker_stored() */
active [STORERS] proctype Storer()
{
	byte boot;
	byte number;
	byte copy_epoch;
	byte copy_state;
	byte copy_era;

end:
	do
	:: atomic {
			/* SELECT ... FOR UPDATE */
#ifdef STORE_UNORDERED
			unstored ->
#else
			unstored && !row_locked ->
			row_locked = 1;
#endif
			boot = ghost_boot
		}
		atomic {
			/* breaker_changes() */
			if
			:: boot != ghost_boot -> goto gone
			:: boot == ghost_boot && !locked -> number = changes
			fi
		}
		atomic {
			/* breakers(name) */
			if
			:: boot != ghost_boot -> goto gone
			:: boot == ghost_boot && !locked ->
				copy_epoch = epoch;
				copy_state = state;
				copy_era = ghost_era
			fi
		}
		atomic {
			/* UPDATE ... WHERE b.epoch > s.epoch; COMMIT */
			if
			:: boot != ghost_boot -> goto gone
			:: else
			fi;
			if
#ifndef STORE_UNORDERED
			:: copy_epoch <= row_epoch
#endif
			:: else ->
				NEVER(older_state_is_stored_over_newer, copy_era < ghost_row_era);
				row_epoch = copy_epoch;
				row_state = copy_state;
				ghost_row_era = copy_era
			fi;
			row_locked = 0
		}
		atomic {
			/* mp_breaker_stored() */
			if
			:: boot != ghost_boot -> goto gone
			:: boot == ghost_boot && !locked ->
#ifdef STORED_IS_ALL
				number = changes;
#endif
				number = (number < changes -> number : changes);
				stored = (number > stored -> number : stored);
				publish()
			fi
		}
gone:
		atomic {
			number = 0;
			copy_epoch = 0;
			copy_state = 0;
			copy_era = 0
		}
	od
}
#endif

#if CRASHES > 0
/* kill -9 of the postmaster, and read_state() after the start */
active proctype Death()
{
	byte era;
	byte deaths;

end:
	do
	:: atomic {
			deaths < CRASHES && !ghost_finished ->
			deaths++;
			era = ghost_era;
			locked = 0;
			row_locked = 0;
			ghost_boot++;
			ghost_era++;
			ghost_told = 0;
			clock++;
			epoch = row_epoch + 1;
#ifndef EPOCH_FROM_ROW
			epoch = (clock > epoch -> clock : epoch);
#endif
			NEVER(epoch_goes_back, epoch <= ghost_highest);
			ghost_highest = epoch;
#ifdef ROW_NOT_READ
			state = CLOSED;
#else
			state = (row_epoch != 0 && row_state != CLOSED -> OPEN : CLOSED);
#endif
			NEVER(told_to_be_open_and_lost, ghost_promised == era && state != OPEN);
			open_over = (row_state == HALF);
			consecutive = 0;
			for (place : 0 .. PERMITS - 1) {
				serial[place] = 0;
				lease_over[place] = 0
			}
			last_serial = 0;
			changes = 0;
			stored = 0;
			era = 0;
			publish()
		}
	od
}
#endif

/*
 * After all that, the service is well and the time has come: the next caller is
 * let through, and its success closes the breaker.
 */
init
{
	LOCALS;
	byte caller;

	atomic {
		for (caller : 0 .. CALLERS - 1) {
			if
			:: caller < EXTERNAL -> run External(caller)
			:: else -> run Handler(caller)
			fi
		}
	}
	atomic {
		ghost_ended == CALLERS && !locked ->
		ghost_finished = true;
#ifndef NO_LEASE
		for (place : 0 .. PERMITS - 1) {
			lease_over[place] = 1
		}
#endif
		settle();
		open_over = 1;
		acquire(0);
		NEVER(never_closes_again, !allowed);
		report(0, SUCCESS);
		NEVER(never_closes_again, state != CLOSED);
		publish()
	}
#if STORERS > 0
	atomic {
		!unstored && !row_locked ->
		NEVER(never_stored, changes > 0 && (row_state != CLOSED || row_epoch != epoch))
	}
#endif
}
