/*
 * worker.pml
 *		Sweeps at work: what each claims in one transaction and runs in the next.
 *		A worker may be ended at any moment, a server may die, and the handler of
 *		one event ends whoever runs it.
 *
 * One worker subscription in one account; the events at the positions 1 to
 * EVENTS match.  What stands in one atomic is a transaction, or the part of one
 * up to where something else may come in between; the comments name the function
 * in sql/bus/worker.sql, sweep.sql or src/bus.  Backoff is not modelled: a
 * delivery is due at any time.
 *
 * Names with "ghost" are what an onlooker knows, who never errs.
 */
#define EVENTS			2
#ifndef WORKERS
#define WORKERS			2
#endif
#ifndef KILLS
#define KILLS			1		/* of a worker, by somebody else */
#endif
#ifndef CRASHES
#define CRASHES			1		/* of the server */
#endif
#ifndef MAX_ATTEMPTS
#define MAX_ATTEMPTS	3
#endif
#ifndef POISON
#define POISON			1		/* the event whose handler ends its worker; 0: none */
#endif

#define MAX_CRASHES		2		/* of one delivery: MP_MAX_CRASHES */

/* Once in a batch with others, and then alone until it is given up. */
#define MAX_STARTS		(1 + MAX_CRASHES)

#define TOKENS			(WORKERS * (1 + CRASHES) + KILLS + MAX_STARTS + 2)

/* ------------------------------------------------------------------------
 * Tables
 * ------------------------------------------------------------------------ */

/* subscription_cursor */
byte cursor;

/* delivery */
bit waits[EVENTS + 1];			/* there is a row */
byte attempt[EVENTS + 1];
byte crashes[EVENTS + 1];
byte token[EVENTS + 1];

/* worker_batch: by after_position, which is its key */
byte batch_token[EVENTS + 1];	/* 0: there is no row */
byte batch_up_to[EVENTS + 1];

/* dead_letter */
bit dead[EVENTS + 1];

/* Locks: of rows, which end with the transaction; of tokens, which end with the session. */
bit row_locked[EVENTS + 1];		/* of delivery */
bit batch_locked[EVENTS + 1];	/* of worker_batch */
byte last_token;
bit token_locked[TOKENS];

/* ------------------------------------------------------------------------
 * Ghosts
 * ------------------------------------------------------------------------ */

byte ghost_boot;
byte ghost_kills;
byte ghost_starts[EVENTS + 1];	/* of the handler, whatever became of it */
byte ghost_alone[EVENTS + 1];	/* of them, when one delivery was run */
byte ghost_effects[EVENTS + 1];
byte ghost_running[EVENTS + 1];

/* What must never be. */
bool event_is_lost_or_doubled;
bool two_effects;
bool two_run_one_event;
bool attempt_is_not_on_record;
bool crash_loop;
bool slow_is_taken_for_dead;

#define NEVER(what, condition) what = (condition); assert(!what)

/* At every commit: each event is in one place. */
inline check_places()
{
	for (e : 1 .. EVENTS) {
		NEVER(event_is_lost_or_doubled, (e > cursor) + waits[e] + dead[e] + (ghost_effects[e] > 0) != 1);
		NEVER(two_effects, ghost_effects[e] > 1)
	}
	e = 0
}

/* ------------------------------------------------------------------------
 * An attempt that failed: delivery.c
 * ------------------------------------------------------------------------ */

/* record_retry() or record_dead_letter() */
inline failed(e)
{
	token[e] = 0;
	if
	:: attempt[e] >= MAX_ATTEMPTS || crashes[e] >= MAX_CRASHES ->
		waits[e] = 0;
		attempt[e] = 0;
		crashes[e] = 0;
		dead[e] = 1
	:: else
	fi
}

/* move_cursor() */
inline move_cursor(after, up_to)
{
	cursor = (up_to > cursor -> up_to : cursor);
	batch_token[after] = 0;
	batch_up_to[after] = 0;
	batch_locked[after] = 0
}

/* ------------------------------------------------------------------------
 * A worker
 * ------------------------------------------------------------------------ */

/* worker_is_dead(): nobody holds the lock of the token */
#ifdef DEAD_BY_TIME
#define IS_DEAD(t)		((t) != 0 && (t) != mine)
#else
#define IS_DEAD(t)		((t) != 0 && !token_locked[t])
#endif

#define IS_ORPHAN(e)	(waits[e] && IS_DEAD(token[e]) && !row_locked[e])
#define IS_FREE(e)		(waits[e] && token[e] == 0 && !row_locked[e])

/* Somebody ends it; or the server has died, and all with it. */
#define MAY_DIE \
	:: boot != ghost_boot -> goto gone \
	:: boot == ghost_boot && ghost_kills < KILLS -> ghost_kills++; goto killed

inline handler_starts()
{
	runs = true;
	ghost_starts[running]++;
	ghost_running[running]++;
	NEVER(two_run_one_event, ghost_running[running] > 1);
	NEVER(crash_loop, running == POISON && ghost_starts[running] > MAX_STARTS)
}

inline handler_ends()
{
	runs = false;
	ghost_running[running]--
}

active [WORKERS] proctype Worker()
{
	byte boot;					/* its session's */
	byte mine;					/* its token */
	byte from;					/* where the cursor was when it looked */
	byte up_to;
	byte running;				/* the event whose handler runs, or is to */
	byte done;					/* set of events of the batch that took effect */
	byte e;
	bool has_row;				/* the row of what it runs is locked */
	bool runs;					/* a handler is running */

begin:
	/* sweep_begin() */
	atomic {
		boot = ghost_boot;
		last_token++;
		mine = last_token;
		token_locked[mine] = 1
	}
end:
	do
	:: boot != ghost_boot -> goto gone

	/* reap_dead_workers(): a delivery was running; its attempt is on record */
	:: atomic {
			boot == ghost_boot && (IS_ORPHAN(1) || IS_ORPHAN(2)) ->
			if
			:: IS_ORPHAN(1) -> e = 1
			:: IS_ORPHAN(2) -> e = 2
			fi;
#ifndef NO_TOKEN_CHECK
			NEVER(slow_is_taken_for_dead, token_locked[token[e]]);
#endif
			crashes[e]++;
			failed(e);
			check_places()
		}

	/* reap_dead_workers(): a batch, which is taken apart */
	:: atomic {
			boot == ghost_boot && cursor < EVENTS && IS_DEAD(batch_token[cursor]) && !batch_locked[cursor] ->
#ifndef NO_TOKEN_CHECK
			NEVER(slow_is_taken_for_dead, token_locked[batch_token[cursor]]);
#endif
			from = cursor;
			up_to = batch_up_to[from];
			for (e : from + 1 .. up_to) {
				waits[e] = 1
			}
			move_cursor(from, up_to);
			if
			:: up_to == from + 1 ->
				/* a batch of one tells who it was */
				attempt[up_to] = 1;
				crashes[up_to] = 1;
				failed(up_to)
			:: else
			fi;
			from = 0;
			up_to = 0;
			check_places()
		}

	/* claim_delivery() */
	:: atomic {
			boot == ghost_boot && (IS_FREE(1) || IS_FREE(2)) ->
			if
			:: IS_FREE(1) -> running = 1
			:: IS_FREE(2) -> running = 2
			fi;
#ifdef ATTEMPT_NOT_COMMITTED_FIRST
			/* in one transaction with what follows */
			row_locked[running] = 1;
			has_row = true
#else
			token[running] = mine;
			attempt[running]++
#endif
		}
#ifndef ATTEMPT_NOT_COMMITTED_FIRST
		/* sweep_run(): if it still has it */
		atomic {
			if
#ifdef NO_TOKEN_CHECK
			:: boot == ghost_boot ->
#else
			:: boot == ghost_boot && !(waits[running] && token[running] == mine) ->
				running = 0;
				goto next
			:: boot == ghost_boot && waits[running] && token[running] == mine && !row_locked[running] ->
#endif
				row_locked[running] = 1;
				has_row = true
			MAY_DIE
			fi
		}
#endif
		/* attempt_delivery(): the handler */
		atomic {
			if
			:: boot == ghost_boot
			MAY_DIE
			fi;
			handler_starts();
			ghost_alone[running]++;
#ifndef ATTEMPT_NOT_COMMITTED_FIRST
			NEVER(attempt_is_not_on_record, waits[running] && attempt[running] < ghost_alone[running])
#endif
		}
		atomic {
			if
			:: boot == ghost_boot && running == POISON -> goto killed
			:: boot == ghost_boot && running != POISON ->
				/* mp_delivery_finish() */
				waits[running] = 0;
				attempt[running] = 0;
				crashes[running] = 0;
				token[running] = 0;
				ghost_effects[running]++
			:: boot == ghost_boot && running != POISON ->
				/* mp_delivery_failed() */
#ifdef ATTEMPT_NOT_COMMITTED_FIRST
				attempt[running]++;
#endif
				failed(running)
			MAY_DIE
			fi;
			handler_ends();
			row_locked[running] = 0;
			has_row = false;
			running = 0;
			check_places()
		}

	/* claim_batch(): reads the cursor and the log ... */
	:: atomic {
			boot == ghost_boot && cursor < EVENTS && batch_token[cursor] == 0 ->
			from = cursor;
			up_to = from + 1;
			if
			:: up_to < EVENTS -> up_to++
			:: true
			fi
		}
		/* ... and puts its row there: not where another is, nor when the cursor has moved */
		atomic {
			if
#ifdef NO_SECOND_LOOK
			:: boot == ghost_boot && batch_token[from] != 0 ->
#else
			:: boot == ghost_boot && (batch_token[from] != 0 || cursor != from) ->
#endif
				from = 0;
				up_to = 0;
				goto next
#ifdef NO_SECOND_LOOK
			:: boot == ghost_boot && batch_token[from] == 0 ->
#else
			:: boot == ghost_boot && batch_token[from] == 0 && cursor == from ->
#endif
				batch_token[from] = mine;
				batch_up_to[from] = up_to
			MAY_DIE
			fi
		}
		/* sweep_run(): if it still has it */
		atomic {
			if
#ifdef NO_TOKEN_CHECK
			:: boot == ghost_boot ->
#else
			:: boot == ghost_boot && batch_token[from] != mine ->
				from = 0;
				up_to = 0;
				goto next
			:: boot == ghost_boot && batch_token[from] == mine ->
#endif
				batch_locked[from] = 1;
				has_row = true
			MAY_DIE
			fi;
			running = from + 1
		}
		/* run_batch(): one event after the other */
		do
		:: running <= up_to ->
			atomic {
				if
				:: boot == ghost_boot
				MAY_DIE
				fi;
				handler_starts();
				if
				:: up_to == from + 1 -> ghost_alone[running]++
				:: else
				fi
			}
			atomic {
				if
				:: boot == ghost_boot && running == POISON -> goto killed
				:: boot == ghost_boot && running != POISON -> done = done | (1 << running)
				:: boot == ghost_boot && running != POISON
				MAY_DIE
				fi;
				handler_ends();
				running++
			}
		:: else -> break
		od;
		/* effects, failures and the cursor: one commit */
		atomic {
			if
			:: boot == ghost_boot
			MAY_DIE
			fi;
			for (e : from + 1 .. up_to) {
				if
				:: done & (1 << e) -> ghost_effects[e]++
				:: else ->
					waits[e] = 1;
					attempt[e] = 1;
					ghost_alone[e] = 1;
					failed(e)
				fi
			}
			move_cursor(from, up_to);
			from = 0;
			up_to = 0;
			done = 0;
			running = 0;
			has_row = false;
			check_places()
		}
next:
		skip
	od;

killed:
	/* What its transaction did is undone, and its locks end with it. */
	atomic {
		if
		:: boot == ghost_boot ->
			token_locked[mine] = 0;
			if
			:: runs -> ghost_running[running]--
			:: else
			fi;
			if
			:: has_row && up_to != 0 -> batch_locked[from] = 0
			:: has_row && up_to == 0 -> row_locked[running] = 0
			:: else
			fi
		:: else
		fi
	}
gone:
	/* another one comes in its place */
	atomic {
		mine = 0;
		from = 0;
		up_to = 0;
		running = 0;
		done = 0;
		e = 0;
		has_row = false;
		runs = false
	}
	goto begin
}

/* ------------------------------------------------------------------------
 * Others
 * ------------------------------------------------------------------------ */

/* kill -9 of the postmaster: what was not committed is gone, and so is every lock. */
active proctype Death()
{
	byte deaths;
	byte n;

end:
	do
	:: atomic {
			deaths < CRASHES ->
			deaths++;
			ghost_boot++;
			for (n : 1 .. TOKENS - 1) {
				token_locked[n] = 0
			}
			for (n : 0 .. EVENTS) {
				row_locked[n] = 0;
				batch_locked[n] = 0;
				ghost_running[n] = 0
			}
			n = 0
		}
	od
}

/* The end: every event has taken effect or is a dead letter, or else this waits for ever. */
init
{
	(dead[1] || ghost_effects[1] > 0) && (dead[2] || ghost_effects[2] > 0)
}
