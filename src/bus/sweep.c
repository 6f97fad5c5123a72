/*
 * sweep.c
 *		The worker behind mp_sweep: its token and its sleep.
 *
 * A worker holds a lock of its token's number for as long as its sweep runs:
 * to the end of the session, or until an error ends the sweep (the server
 * releases session locks of this kind when a transaction aborts).  Nothing else
 * is needed to tell a dead worker from a slow one.
 */
#include "bus/bus.h"
#include "bus/notice.h"
#include "bus/position.h"
#include "bus/sweep_round.h"
#include "bus/wakeup.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgcompat.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/builtins.h"

#define CHORES_EVERY_US		USECS_PER_SEC

/* This session's sweep. */
static int64 my_token = 0;
static LOCKTAG my_lock;
static TimestampTz deadline = 0;	/* of the wall clock; 0: none */
static int	turn = 0;			/* 0..31: each of four kinds of work is first in one of eight */
static TimestampTz next_chores = 0;

PG_FUNCTION_INFO_V1(mp_sweep_begin);
PG_FUNCTION_INFO_V1(mp_sweep_end);
PG_FUNCTION_INFO_V1(mp_sweep_token);
PG_FUNCTION_INFO_V1(mp_sweep_time_left);
PG_FUNCTION_INFO_V1(mp_sweep_turn);
PG_FUNCTION_INFO_V1(mp_sweep_announce);
PG_FUNCTION_INFO_V1(mp_sweep_sleep);
PG_FUNCTION_INFO_V1(mp_sweep_chores_due);
PG_FUNCTION_INFO_V1(mp_worker_is_dead);

/*
 * The lock of a token.  48 bits of its tick fit, which repeat after nine years.
 * The event table stands where the catalog of an object would: no other lock
 * looks like that.
 */
static LOCKTAG
lock_of_token(int64 token)
{
	LOCKTAG		tag;
	uint64		tick = (uint64) token >> 10;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, mp_event_relation(), (uint32) (tick >> 16), (uint16) tick);
	return tag;
}

static void
give_up_token(void)
{
	/* not held any more when an error ended the sweep before */
	if (my_token != 0 && mp_lock_held(&my_lock, ExclusiveLock))
		(void) LockRelease(&my_lock, ExclusiveLock, true);
	my_token = 0;
}

/*
 * The server releases locks of this kind when a transaction aborts, but not
 * when an idle session ends.
 */
static void
give_up_token_at_exit(int code, Datum arg)
{
	give_up_token();
}

Datum
mp_sweep_begin(PG_FUNCTION_ARGS)
{
	double		max_seconds = PG_ARGISNULL(0) ? 0 : PG_GETARG_FLOAT8(0);
	static bool registered = false;

	/* a subtransaction is that of a handler, or of a block with EXCEPTION */
	if (IsTransactionBlock() || IsSubTransaction())
		ereport(ERROR,
				(errcode(MP_ERRCODE_CONFLICT),
				 errmsg("MP409: cannot sweep inside a transaction block"),
				 errhint("retry=no. It commits after every step; call it on its own.")));
	if (!(max_seconds >= 0 && max_seconds <= 86400))
		mp_refuse_argument("max_seconds must be between 0 and 86400");

	if (!registered)
	{
		before_shmem_exit(give_up_token_at_exit, (Datum) 0);
		registered = true;
	}
	give_up_token();
	my_token = mp_position_next();
	my_lock = lock_of_token(my_token);
	(void) LockAcquire(&my_lock, ExclusiveLock, true, false);
	deadline = max_seconds > 0
		? GetCurrentTimestamp() + (int64) (max_seconds * USECS_PER_SEC) : 0;
	turn = 0;
	next_chores = 0;
	mp_sweep_forget_rounds();
	mp_notice_begin_sweep(deadline);
	PG_RETURN_INT64(my_token);
}

Datum
mp_sweep_end(PG_FUNCTION_ARGS pg_attribute_unused())
{
	give_up_token();
	PG_RETURN_VOID();
}

Datum
mp_sweep_token(PG_FUNCTION_ARGS)
{
	if (my_token == 0)
		PG_RETURN_NULL();
	PG_RETURN_INT64(my_token);
}

Datum
mp_sweep_time_left(PG_FUNCTION_ARGS pg_attribute_unused())
{
	PG_RETURN_BOOL(deadline == 0 || GetCurrentTimestamp() < deadline);
}

Datum
mp_sweep_turn(PG_FUNCTION_ARGS pg_attribute_unused())
{
	turn = (turn + 1) % 32;
	PG_RETURN_INT32(turn);
}

static bool
goes_on(void)
{
	return deadline != 0 && GetCurrentTimestamp() < deadline;
}

/*
 * Two calls make one sleep: the first announces it and lets the caller look for
 * work once more, so that nothing committed in between is missed.
 */
Datum
mp_sweep_announce(PG_FUNCTION_ARGS pg_attribute_unused())
{
	if (mp_is_waiting() || !goes_on())
		PG_RETURN_BOOL(false);
	mp_prepare_to_wait((MpWaitFor) {.account = MP_ANY_ACCOUNT});
	PG_RETURN_BOOL(true);
}

Datum
mp_sweep_sleep(PG_FUNCTION_ARGS)
{
	TimestampTz due = PG_ARGISNULL(0) ? DT_NOEND : PG_GETARG_TIMESTAMPTZ(0);
	bool		again = goes_on();

	if (again && mp_is_waiting())
		(void) mp_wait_until(due, Min(deadline, mp_notice_next_look()));
	if (mp_stop_waiting())
		mp_notice_want();
	PG_RETURN_BOOL(again);
}

/* Not at every step: they look through what dead rows hide. */
Datum
mp_sweep_chores_due(PG_FUNCTION_ARGS pg_attribute_unused())
{
	TimestampTz now = GetCurrentTimestamp();

	if (now < next_chores)
		PG_RETURN_BOOL(false);
	next_chores = now + CHORES_EVERY_US;
	PG_RETURN_BOOL(true);
}

Datum
mp_worker_is_dead(PG_FUNCTION_ARGS)
{
	int64		token = PG_GETARG_INT64(0);
	LOCKTAG		tag = lock_of_token(token);

	if (token == my_token && mp_lock_held(&tag, ExclusiveLock))
		PG_RETURN_BOOL(false);	/* it is us */
	PG_RETURN_BOOL(LockAcquire(&tag, ExclusiveLock, false, true) != LOCKACQUIRE_NOT_AVAIL);
}
