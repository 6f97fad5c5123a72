/*
 * saga.pml
 *		A saga whose steps are services' and functions: workers that die, are late
 *		or do not know what they did; sweeps that end leases; an operator who
 *		cancels; transactions that are lost.
 *
 * Three steps: 0 is a service's and compensatable, 1 is the pivot (a function, or
 * with PIVOT_OUTSIDE a service's, without an undo), 2 is a service's and
 * retriable: it waits for the pivot, or with BESIDE only for 0, and has an undo.
 * What stands in one atomic is a transaction, which holds the lock of the saga's
 * row, or one request to a service; the comments name the function of
 * src/core/saga.c.  Backoff is not modelled: what waits may begin at any time.
 *
 * A service knows the idempotency keys: it answers the second request of a key as
 * it did the first, and a request that comes after its undo it refuses.
 * With ACTS_WITHIN_LEASE it need not know of undos, for no worker sends anything
 * once its lease is over.
 *
 * Names with "ghost" are what an onlooker knows, who never errs.
 */
#ifndef WORKERS
#define WORKERS			2
#endif
#ifndef CLAIMS
#define CLAIMS			2		/* that each of them makes */
#endif
#define SWEEPS			2
#define MAX_ATTEMPTS	2

#define STEPS			3
#define PIVOT			1
#define LAST			2

/* States of a step. */
#define PENDING			0
#define STARTED			1
#define WAITING			2
#define SUCCEEDED		3
#define FAILED			4
#define PARKED			5
#define UNDO_STARTED	6
#define UNDO_WAITING	7
#define UNDO_PARKED		8
#define UNDONE			9

/* Outcomes. */
#define SUCCESS			0
#define TRANSIENT		1
#define PERMANENT		2
#define UNKNOWN			3

/* What a service remembers of a key. */
#define NOTHING			0
#define DONE			1
#define REFUSED			2

/* ------------------------------------------------------------------------
 * The saga's row
 * ------------------------------------------------------------------------ */

byte step[STEPS];
byte attempt[STEPS];
byte fence[STEPS];				/* attempts ever: run */
bit unknown[STEPS];
bit stop;						/* it is to go back */
bit back;						/* it does */

/* ------------------------------------------------------------------------
 * The world
 * ------------------------------------------------------------------------ */

byte key[STEPS];
byte effect[STEPS];				/* how often it is there */
bit undone[STEPS];
byte over[STEPS];				/* the last attempt whose lease is */
byte ghost_ended;				/* workers */
bool ghost_finished;			/* all of them have */

/* What must never be. */
bool two_effects;
bool late_completion_counts;
bool effect_after_compensation;
bool compensated_out_of_order;
bool compensated_behind_the_pivot;
bool compensated_what_never_began;
bool effect_is_left;
bool effect_is_missing;
bool never_ends;

#define NEVER(what, condition) what = (condition); assert(!what)

/* ------------------------------------------------------------------------
 * What may be done: mp_saga_next()
 * ------------------------------------------------------------------------ */

#ifdef PIVOT_OUTSIDE
#define IS_SERVICE(i)	true
#else
#define IS_SERVICE(i)	((i) != PIVOT)
#endif

#ifdef BESIDE
#define BEFORE_IS_DONE(i) ((i) == 0 || step[0] == SUCCEEDED)
#define HAS_UNDO(i)		((i) != PIVOT)
#define IS_TURNING(i)	((i) != LAST)
#define GOES_LAST(i)	((i) == LAST || !HAS_EFFECT(LAST))
#else
#define BEFORE_IS_DONE(i) ((i) == 0 || (step[0] == SUCCEEDED && ((i) == PIVOT || step[PIVOT] == SUCCEEDED)))
#define HAS_UNDO(i)		((i) == 0)
#define IS_TURNING(i)	((i) != LAST)
#define GOES_LAST(i)	true
#endif

/* mp_saga_effects(): as far as can be known here */
#define HAS_EFFECT(i)	(HAS_UNDO(i) && fence[i] > 0 && step[i] != UNDONE)

#ifdef NO_SETTLING
#define IS_SETTLED		true
#else
#define IS_SETTLED		(step[0] != STARTED && step[1] != STARTED && step[2] != STARTED)
#endif

#define HAS_PASSED		(step[PIVOT] == SUCCEEDED)
#define IS_OPEN			(step[PIVOT] == STARTED || (unknown[PIVOT] && (step[PIVOT] == WAITING || step[PIVOT] == PARKED)))

#define MAY_BEGIN(i)	(!back && (step[i] == PENDING || step[i] == WAITING) && BEFORE_IS_DONE(i) && (!stop || (i) == PIVOT))
#define MAY_BE_UNDONE(i) (back && IS_SETTLED && HAS_EFFECT(i) && step[i] != UNDO_STARTED && step[i] != UNDO_PARKED && GOES_LAST(i))

#define CLAIMABLE(i)	(MAY_BEGIN(i) || MAY_BE_UNDONE(i))

#define IS_COMPLETED	(step[0] == SUCCEEDED && step[1] == SUCCEEDED && step[2] == SUCCEEDED)
#define IS_COMPENSATED	(back && IS_SETTLED && !HAS_EFFECT(0) && !HAS_EFFECT(LAST))

/* At every commit. */
inline check_end()
{
	NEVER(effect_is_missing, IS_COMPLETED && (effect[0] == 0 || effect[1] == 0 || effect[2] == 0));
	NEVER(effect_is_left, IS_COMPENSATED && (effect[0] > 0 || effect[1] > 0 || effect[2] > 0))
}

/* turn_back() */
inline turn_back()
{
	back = 1;
	for (t : 0 .. LAST) {
		if
		:: step[t] == WAITING || step[t] == PARKED -> step[t] = FAILED
		:: else -> skip
		fi
	}
	t = 0
}

/* settle() */
inline settle()
{
	if
	:: stop && !back && HAS_PASSED -> stop = 0
	:: stop && !back && !HAS_PASSED && !IS_OPEN -> turn_back()
	:: else -> skip
	fi;
	check_end()
}

/* mp_saga_begin() */
inline begin(i, undo)
{
	attempt[i] = (undo && step[i] != UNDO_WAITING -> 1 : attempt[i] + 1);
	NEVER(compensated_what_never_began, undo && fence[i] == 0);
	fence[i]++;
	step[i] = (undo -> UNDO_STARTED : STARTED);
	settle()
}

/* give_up() */
inline give_up(i)
{
	if
	:: !IS_TURNING(i) || unknown[i] -> step[i] = PARKED
	:: else ->
		step[i] = FAILED;
		stop = 1
	fi
}

/* mp_saga_report(), of the attempt in flight */
inline settle_attempt(i, undo, outcome)
{
	if
	:: !undo && (outcome == SUCCESS || outcome == PERMANENT) -> unknown[i] = 0
#ifndef UNKNOWN_IS_FAILURE
	:: !undo && outcome == UNKNOWN && i == PIVOT && IS_SERVICE(i) -> unknown[i] = 1
#endif
	:: else -> skip
	fi;
	if
	:: outcome == SUCCESS -> step[i] = (undo -> UNDONE : SUCCEEDED)
	:: outcome != SUCCESS && undo && outcome != PERMANENT && attempt[i] < MAX_ATTEMPTS -> step[i] = UNDO_WAITING
#ifdef UNDO_GIVEN_UP
	:: outcome != SUCCESS && undo && (outcome == PERMANENT || attempt[i] >= MAX_ATTEMPTS) -> step[i] = UNDONE
#else
	:: outcome != SUCCESS && undo && (outcome == PERMANENT || attempt[i] >= MAX_ATTEMPTS) -> step[i] = UNDO_PARKED
#endif
	:: outcome != SUCCESS && !undo && back -> step[i] = FAILED
	:: outcome != SUCCESS && !undo && !back && outcome != PERMANENT && attempt[i] < MAX_ATTEMPTS -> step[i] = WAITING
	:: outcome != SUCCESS && !undo && !back && (outcome == PERMANENT || attempt[i] >= MAX_ATTEMPTS) -> give_up(i)
	fi;
	settle()
}

/* ------------------------------------------------------------------------
 * Effects
 * ------------------------------------------------------------------------ */

inline take_effect(i)
{
	effect[i]++;
	NEVER(two_effects, effect[i] > 1);
	NEVER(effect_after_compensation, undone[i]);
	NEVER(effect_is_left, IS_COMPENSATED)
}

/* A request to a service: the first of its key decides. */
inline request(i)
{
	if
#ifdef NO_KEYS
	:: key[i] != REFUSED ->
#else
	:: key[i] == NOTHING ->
#endif
		key[i] = DONE;
		take_effect(i)
	:: key[i] == NOTHING -> key[i] = REFUSED
	:: key[i] != NOTHING
	fi
}

inline request_undo(i)
{
	NEVER(compensated_behind_the_pivot, effect[PIVOT] > 0);
	NEVER(compensated_out_of_order, (i) == 0 && effect[LAST] > 0);
	effect[i] = 0;
	undone[i] = 1;
#ifndef ACTS_WITHIN_LEASE
#ifndef LATE_REQUEST_ACCEPTED
	key[i] = REFUSED
#endif
#endif
}

#ifdef ACTS_WITHIN_LEASE
#define MAY_ACT			(over[mine] < lease)
#else
#define MAY_ACT			true
#endif

/* ------------------------------------------------------------------------
 * Who is at work
 * ------------------------------------------------------------------------ */

proctype Worker()
{
	byte claims;
	byte mine;					/* the step it was given */
	byte lease;
	byte t;
	byte outcome;
	bool undo;
	bool acted;

	do
		/* mp_claim_saga_steps(): looks for what can be claimed ... */
	:: atomic {
			claims < CLAIMS && (CLAIMABLE(0) || CLAIMABLE(LAST) || (IS_SERVICE(PIVOT) && CLAIMABLE(PIVOT))) ->
			if
			:: CLAIMABLE(0) -> mine = 0
			:: IS_SERVICE(PIVOT) && CLAIMABLE(PIVOT) -> mine = PIVOT
			:: CLAIMABLE(LAST) -> mine = LAST
			fi;
			undo = back
		}
		/* ... and has the saga's row: the start is recorded before anything happens */
		atomic {
			claims++;
			if
#ifdef NO_SECOND_LOOK
			:: true ->
#else
			:: undo != back || !CLAIMABLE(mine) -> goto next
			:: undo == back && CLAIMABLE(mine) ->
#endif
#ifndef START_NOT_RECORDED
				begin(mine, undo);
#endif
				lease = fence[mine]
			:: goto next		/* it rolls back */
			fi
		}

		/* It works, for as long as it takes; who dies says nothing. */
		do
		:: atomic {
				!acted && MAY_ACT ->
				if
				:: undo -> request_undo(mine)
				:: else -> request(mine)
				fi;
				acted = true
			}
		:: atomic {
				/* mp_complete_saga_step(), mp_fail_saga_step() */
				if
#ifdef NO_FENCING
				:: true ->
					NEVER(late_completion_counts, fence[mine] != lease || step[mine] != (undo -> UNDO_STARTED : STARTED));
#endif
#ifdef START_NOT_RECORDED
				:: step[mine] == PENDING || step[mine] == WAITING || step[mine] == STARTED ->
#endif
#if !defined(NO_FENCING) && !defined(START_NOT_RECORDED)
				:: fence[mine] == lease && step[mine] == (undo -> UNDO_STARTED : STARTED) ->
#endif
					if
					:: acted && (undo || key[mine] == DONE) -> outcome = SUCCESS
					:: acted && !undo && key[mine] == REFUSED -> outcome = PERMANENT
					:: !acted -> outcome = TRANSIENT
					:: acted -> outcome = UNKNOWN
					fi;
					settle_attempt(mine, undo, outcome)
				:: else -> skip
				fi
			};
			goto next
		:: goto next
		od;
next:
		atomic {
			mine = 0;
			lease = 0;
			outcome = 0;
			undo = false;
			acted = false
		}
	:: goto ended
	od;
ended:
	ghost_ended++
}

#define HAS_LEASE(i)	(IS_SERVICE(i) && (step[i] == STARTED || step[i] == UNDO_STARTED))

/* Sweeps: they end leases, at any time, and run functions. */
active [SWEEPS] proctype Sweep()
{
	byte i;
	byte outcome;
	byte t;

end:
	do
	:: ghost_finished -> break
	:: atomic {
			!ghost_finished && (HAS_LEASE(0) || HAS_LEASE(PIVOT) || HAS_LEASE(LAST)) ->
			if
			:: HAS_LEASE(0) -> i = 0
			:: HAS_LEASE(PIVOT) -> i = PIVOT
			:: HAS_LEASE(LAST) -> i = LAST
			fi;
#ifdef ACTS_WITHIN_LEASE
			over[i] = fence[i];
#endif
			settle_attempt(i, (step[i] == UNDO_STARTED), UNKNOWN);
			i = 0
		}
#ifndef PIVOT_OUTSIDE
	/* the function: start, effect and outcome are one transaction */
	:: atomic {
			!ghost_finished && MAY_BEGIN(PIVOT) ->
			begin(PIVOT, false);
			if
			:: outcome = SUCCESS; take_effect(PIVOT)
			:: outcome = TRANSIENT
			:: outcome = PERMANENT
			fi;
			settle_attempt(PIVOT, false, outcome);
			outcome = 0
		}
#ifdef EFFECT_AND_RECORD_APART
	/* the effect in a transaction of its own: it is killed before the next */
	:: atomic { !ghost_finished && MAY_BEGIN(PIVOT) -> take_effect(PIVOT) }
#endif
#endif
	od
}

/* mp_saga_stop() */
active proctype Operator()
{
	byte t;

	if
	:: atomic {
#ifdef CANCEL_AT_ANY_TIME
			!back && !ghost_finished && !IS_COMPLETED ->
			stop = 1;
			turn_back();
			settle()
#else
			!back && !ghost_finished && !HAS_PASSED ->
			stop = 1;
			settle()
#endif
		}
	:: true
	fi
}

/* One step as it goes when nothing fails any more; mp_saga_retry() first. */
inline finish()
{
	if
	:: step[i] == PARKED -> step[i] = WAITING; attempt[i] = 0
	:: step[i] == UNDO_PARKED -> step[i] = UNDO_WAITING; attempt[i] = 0
	:: else -> skip
	fi;
	outcome = UNKNOWN;
	if
	:: MAY_BEGIN(i) ->
		begin(i, false);
		if
		:: key[i] == NOTHING -> key[i] = DONE; take_effect(i)
		:: else -> skip
		fi;
		outcome = (key[i] == DONE -> SUCCESS : PERMANENT)
	:: MAY_BE_UNDONE(i) ->
		begin(i, true);
		request_undo(i);
		outcome = SUCCESS
	:: else -> skip
	fi;
	if
	:: step[i] == STARTED || step[i] == UNDO_STARTED -> settle_attempt(i, (step[i] == UNDO_STARTED), outcome)
	:: else -> skip
	fi
}

/*
 * After all that nothing fails any more, and an operator has what is parked tried
 * again: it ends.  A step that was refused for good is the exception.
 */
init
{
	byte worker;
	byte rounds;
	byte i;
	byte outcome;
	byte t;

	atomic {
		for (worker : 1 .. WORKERS) {
			run Worker()
		}
	}
	atomic {
		ghost_ended == WORKERS ->
		ghost_finished = true;
		if
		:: key[LAST] == REFUSED && !undone[LAST] && !back -> key[LAST] = NOTHING
		:: else -> skip
		fi;
		do
		:: IS_COMPLETED || IS_COMPENSATED -> break
		:: else ->
			for (i : 0 .. LAST) {
				finish()
			}
			rounds++;
			NEVER(never_ends, rounds > 12)
		od;
		check_end()
	}
}
