#include "core/breaker.h"

#include <math.h>
#include <string.h>

/* Low bits of a permit: the number of a probe within its epoch; 0: no probe. */
#define SERIAL_BITS 12
#define SERIAL_MAX ((1 << SERIAL_BITS) - 1)

#define CALL_FAILED	1
#define CALL_SLOW	2

int64_t
mp_permit_make(int64_t epoch, int serial)
{
	return epoch << SERIAL_BITS | serial;
}

int64_t
mp_permit_epoch(int64_t permit)
{
	return permit >> SERIAL_BITS;
}

bool
mp_permit_is_probe(int64_t permit)
{
	return (permit & SERIAL_MAX) != 0;
}

static int64_t
microseconds(double seconds)
{
	return (int64_t) (seconds * 1e6);
}

/* ------------------------------------------------------------------------
 * The window
 * ------------------------------------------------------------------------ */

static void
clear_window(MpBreaker *breaker)
{
	breaker->calls = breaker->failures = breaker->slow = breaker->next_call = 0;
	memset(breaker->bucket, 0, sizeof(breaker->bucket));
}

static void
add_call(const MpBreakerConfig *config, MpBreaker *breaker, bool failed, bool slow)
{
	int			size = (int) config->window_size;
	unsigned char *call = &breaker->call[breaker->next_call];

	if (breaker->calls == size)
	{
		breaker->failures -= (*call & CALL_FAILED) != 0;
		breaker->slow -= (*call & CALL_SLOW) != 0;
	}
	else
		breaker->calls++;
	*call = (failed ? CALL_FAILED : 0) | (slow ? CALL_SLOW : 0);
	breaker->failures += failed;
	breaker->slow += slow;
	breaker->next_call = (breaker->next_call + 1) % size;
}

/*
 * A bucket belongs to the stretch of time whose number it carries; one of
 * another number, older or (after the clock was set back) newer, counts no more.
 */
static void
add_call_by_time(const MpBreakerConfig *config, MpBreaker *breaker, int64_t now, bool failed, bool slow)
{
	int64_t		width = microseconds(config->window_size) / MP_BREAKER_BUCKETS;
	int64_t		number = now / width - (now % width < 0);	/* also of times before the epoch */
	int			place = (int) (number % MP_BREAKER_BUCKETS);
	MpBreakerBucket *bucket = &breaker->bucket[place < 0 ? place + MP_BREAKER_BUCKETS : place];

	if (bucket->number != number)
		*bucket = (MpBreakerBucket) {.number = number};
	bucket->calls++;
	bucket->failures += failed;
	bucket->slow += slow;

	breaker->calls = breaker->failures = breaker->slow = 0;
	for (int i = 0; i < MP_BREAKER_BUCKETS; i++)
	{
		bucket = &breaker->bucket[i];
		if (bucket->number > number - MP_BREAKER_BUCKETS && bucket->number <= number)
		{
			breaker->calls += bucket->calls;
			breaker->failures += bucket->failures;
			breaker->slow += bucket->slow;
		}
	}
}

static void
count_call(const MpBreakerConfig *config, MpBreaker *breaker, int64_t now, bool failed, bool slow)
{
	if (failed)
		breaker->consecutive++;
	else
		breaker->consecutive = 0;
	if (config->window == MP_WINDOW_COUNT)
		add_call(config, breaker, failed, slow);
	else if (config->window == MP_WINDOW_TIME)
		add_call_by_time(config, breaker, now, failed, slow);
}

/* Whether what was counted is too much, and what of it. */
static bool
is_too_much(const MpBreakerConfig *config, const MpBreaker *breaker, MpBreakerReason *reason)
{
	bool		enough = config->window != MP_WINDOW_NONE && breaker->calls >= config->minimum_calls;

	if (config->failure_threshold > 0 && breaker->consecutive >= config->failure_threshold)
		*reason = MP_REASON_CONSECUTIVE;
	else if (enough && config->failure_rate > 0 && breaker->failures >= config->failure_rate * breaker->calls)
		*reason = MP_REASON_FAILURE_RATE;
	else if (enough && config->slow_rate > 0 && breaker->slow >= config->slow_rate * breaker->calls)
		*reason = MP_REASON_SLOW_RATE;
	else
		return false;
	return true;
}

/* ------------------------------------------------------------------------
 * From state to state
 * ------------------------------------------------------------------------ */

static void
tell(const MpBreaker *breaker, MpBreakerState from, MpBreakerReason reason, int64_t at, MpBreakerSteps *steps)
{
	if (steps->count < MP_BREAKER_MAX_STEPS)
		steps->step[steps->count++] = (MpBreakerStep) {from, breaker->state, reason, breaker->epoch, at};
}

/* Every permit given out before is of an older epoch from here on. */
static void
move(MpBreaker *breaker, MpBreakerState to, MpBreakerReason reason, int64_t at, MpBreakerSteps *steps)
{
	MpBreakerState from = breaker->state;

	breaker->state = to;
	breaker->epoch++;
	breaker->changed_at = at;
	breaker->successes = 0;
	breaker->last_serial = 0;
	breaker->would_open = false;
	memset(breaker->permit, 0, sizeof(breaker->permit));
	clear_window(breaker);
	if (to == MP_BREAKER_CLOSED)
		breaker->consecutive = 0;
	tell(breaker, from, reason, at, steps);
}

static int64_t
open_length(const MpBreakerConfig *config, int open_count, double random)
{
	/* pow may reach infinity */
	double		seconds = config->open_seconds * pow(config->growth, open_count - 1);

	if (!(seconds < config->max_open_seconds))
		seconds = config->max_open_seconds > config->open_seconds ? config->max_open_seconds : config->open_seconds;
	return microseconds(seconds * (1 - config->jitter * random));
}

static void
open_breaker(const MpBreakerConfig *config, MpBreaker *breaker, MpBreakerReason reason, int64_t at, double random,
			 MpBreakerSteps *steps)
{
	/* a probe that was lost says nothing new of the service */
	if (reason != MP_REASON_PROBE_LOST)
	{
		if (breaker->state == MP_BREAKER_CLOSED && at > breaker->changed_at)
		{
			double		steps_back = floor((at - breaker->changed_at) / (config->decay_seconds * 1e6));

			breaker->open_count = steps_back >= breaker->open_count ? 0 : breaker->open_count - (int) steps_back;
		}
		if (breaker->open_count < INT32_MAX)
			breaker->open_count++;
		breaker->open_length = open_length(config, breaker->open_count, random);
	}
	move(breaker, MP_BREAKER_OPEN, reason, at, steps);
	breaker->opened_at = at;
	breaker->open_until = at + breaker->open_length;
}

/* After it was open by force the next caller tries; else, and where it only measures, it begins anew. */
static void
end_force(const MpBreakerConfig *config, MpBreaker *breaker, MpBreakerReason reason, int64_t now, MpBreakerSteps *steps)
{
	bool		was_open = breaker->forced == MP_FORCE_OPEN && !config->metrics_only;

	breaker->forced = MP_FORCE_NONE;
	breaker->forced_until = 0;
	move(breaker, was_open ? MP_BREAKER_OPEN : MP_BREAKER_CLOSED, reason, now, steps);
	if (was_open)
		breaker->open_until = now;
}

/* When the first lease ended that is over; 0: none is. */
static int64_t
lost_probe(const MpBreaker *breaker, int64_t now)
{
	int64_t		first = 0;

	for (int i = 0; i < MP_BREAKER_MAX_PERMITS; i++)
	{
		const MpBreakerPermit *permit = &breaker->permit[i];

		if (permit->serial != 0 && permit->lease_until <= now && (first == 0 || permit->lease_until < first))
			first = permit->lease_until;
	}
	return first;
}

/* A clock that was set back must not make anything longer than it was meant. */
static void
follow_clock(const MpBreakerConfig *config, MpBreaker *breaker, int64_t now)
{
	int64_t		lease = microseconds(config->permit_seconds);

	if (breaker->changed_at > now)
		breaker->changed_at = now;
	if (breaker->state == MP_BREAKER_OPEN && breaker->open_until > now + breaker->open_length)
		breaker->open_until = now + breaker->open_length;
	for (int i = 0; i < MP_BREAKER_MAX_PERMITS; i++)
		if (breaker->permit[i].lease_until > now + lease)
			breaker->permit[i].lease_until = now + lease;
}

void
mp_breaker_init(MpBreaker *breaker, int64_t epoch, int64_t now)
{
	memset(breaker, 0, sizeof(*breaker));
	breaker->epoch = epoch;
	breaker->changed_at = now;
}

void
mp_breaker_settle(const MpBreakerConfig *config, MpBreaker *breaker, int64_t now, MpBreakerSteps *steps)
{
	int64_t		lost;

	if (breaker->forced != MP_FORCE_NONE && breaker->forced_until != 0 && breaker->forced_until <= now)
		end_force(config, breaker, MP_REASON_EXPIRED, now, steps);
	if (breaker->forced != MP_FORCE_NONE)
		return;
	follow_clock(config, breaker, now);
	lost = lost_probe(breaker, now);
	if (lost != 0)
		open_breaker(config, breaker, MP_REASON_PROBE_LOST, lost, 0, steps);
}

static MpBreakerAnswer
give_probe(const MpBreakerConfig *config, MpBreaker *breaker, int64_t now)
{
	int64_t		retry_at = now + MP_BREAKER_RETRY_US;
	MpBreakerPermit *unused = NULL;
	int			out = 0;

	/* all of them: more may be out than there are permits, since it was configured anew */
	for (int i = 0; i < MP_BREAKER_MAX_PERMITS; i++)
	{
		MpBreakerPermit *permit = &breaker->permit[i];

		if (permit->serial == 0)
			unused = permit;
		else
		{
			out++;
			if (permit->lease_until < retry_at)
				retry_at = permit->lease_until;
		}
	}
	if (out >= config->half_open_permits)
		return (MpBreakerAnswer) {.retry_at = retry_at};
	breaker->last_serial = breaker->last_serial % SERIAL_MAX + 1;
	unused->serial = breaker->last_serial;
	unused->lease_until = now + microseconds(config->permit_seconds);
	return (MpBreakerAnswer) {.allowed = true, .permit = mp_permit_make(breaker->epoch, unused->serial)};
}

MpBreakerAnswer
mp_breaker_acquire(const MpBreakerConfig *config, MpBreaker *breaker, int64_t now, MpBreakerSteps *steps)
{
	mp_breaker_settle(config, breaker, now, steps);
	if (breaker->state == MP_BREAKER_CLOSED)
		return (MpBreakerAnswer) {.allowed = true, .permit = mp_permit_make(breaker->epoch, 0)};
	if (breaker->forced == MP_FORCE_OPEN)
		return (MpBreakerAnswer) {.retry_at = breaker->forced_until != 0 ? breaker->forced_until : INT64_MAX};
	if (breaker->state == MP_BREAKER_OPEN)
	{
		if (now < breaker->open_until)
			return (MpBreakerAnswer) {.retry_at = breaker->open_until};
		move(breaker, MP_BREAKER_HALF_OPEN, MP_REASON_PROBING, now, steps);
	}
	return give_probe(config, breaker, now);
}

static void
report_closed(const MpBreakerConfig *config, MpBreaker *breaker, int64_t now, double random,
			  MpBreakerOutcome outcome, bool slow, MpBreakerSteps *steps)
{
	MpBreakerReason reason;

	if (outcome == MP_OUTCOME_IGNORED)
		return;
	count_call(config, breaker, now, outcome == MP_OUTCOME_FAILURE, slow);
	if (!is_too_much(config, breaker, &reason))
		return;
	if (!config->metrics_only)
		open_breaker(config, breaker, reason, now, random, steps);
	else if (!breaker->would_open)
	{
		breaker->would_open = true;
		tell(breaker, breaker->state, MP_REASON_WOULD_OPEN, now, steps);
	}
}

static bool
report_probe(const MpBreakerConfig *config, MpBreaker *breaker, int64_t now, double random, int64_t permit,
			 MpBreakerOutcome outcome, bool slow, MpBreakerSteps *steps)
{
	int			serial = (int) (permit & SERIAL_MAX);
	int			place = 0;

	while (place < MP_BREAKER_MAX_PERMITS && (serial == 0 || breaker->permit[place].serial != serial))
		place++;
	if (place == MP_BREAKER_MAX_PERMITS)
		return false;
	breaker->permit[place] = (MpBreakerPermit) {0};

	/* where slowness opens, a slow probe is no recovery */
	if (outcome == MP_OUTCOME_SUCCESS && slow && config->slow_rate > 0)
		outcome = MP_OUTCOME_FAILURE;
	if (outcome == MP_OUTCOME_FAILURE)
	{
		breaker->consecutive++;
		open_breaker(config, breaker, MP_REASON_PROBE_FAILED, now, random, steps);
	}
	else if (outcome == MP_OUTCOME_SUCCESS && ++breaker->successes >= config->success_threshold)
		move(breaker, MP_BREAKER_CLOSED, MP_REASON_RECOVERED, now, steps);
	return true;
}

bool
mp_breaker_report(const MpBreakerConfig *config, MpBreaker *breaker, int64_t now, double random,
				  int64_t permit, MpBreakerOutcome outcome, bool slow, MpBreakerSteps *steps)
{
	mp_breaker_settle(config, breaker, now, steps);
	if (mp_permit_epoch(permit) != breaker->epoch || breaker->state == MP_BREAKER_OPEN)
		return false;
	if (breaker->state == MP_BREAKER_HALF_OPEN)
		return report_probe(config, breaker, now, random, permit, outcome, slow, steps);
	if (mp_permit_is_probe(permit))
		return false;
	if (breaker->forced == MP_FORCE_NONE)
		report_closed(config, breaker, now, random, outcome, slow, steps);
	return true;
}

void
mp_breaker_force(const MpBreakerConfig *config, MpBreaker *breaker, int64_t now,
				 MpBreakerForce force, int64_t until, MpBreakerSteps *steps)
{
	mp_breaker_settle(config, breaker, now, steps);
	if (force == MP_FORCE_NONE)
	{
		if (breaker->forced != MP_FORCE_NONE)
			end_force(config, breaker, MP_REASON_RELEASED, now, steps);
		return;
	}
	breaker->forced = force;
	breaker->forced_until = until;
	move(breaker, force == MP_FORCE_OPEN ? MP_BREAKER_OPEN : MP_BREAKER_CLOSED, MP_REASON_FORCED, now, steps);
	if (force == MP_FORCE_OPEN)
		breaker->opened_at = now;
}

void
mp_breaker_reconfigure(const MpBreakerConfig *config, MpBreaker *breaker, int64_t now, MpBreakerSteps *steps)
{
	mp_breaker_settle(config, breaker, now, steps);
	clear_window(breaker);
	if (config->metrics_only && breaker->forced == MP_FORCE_NONE && breaker->state != MP_BREAKER_CLOSED)
		move(breaker, MP_BREAKER_CLOSED, MP_REASON_CONFIGURED, now, steps);
}

int64_t
mp_breaker_common_permit(const MpBreakerConfig *config, const MpBreaker *breaker)
{
	(void) config;
	if (breaker->state != MP_BREAKER_CLOSED || breaker->forced_until != 0)
		return 0;
	return mp_permit_make(breaker->epoch, 0);
}

bool
mp_breaker_is_quiet(const MpBreakerConfig *config, const MpBreaker *breaker)
{
	return mp_breaker_common_permit(config, breaker) != 0 &&
		(breaker->forced != MP_FORCE_NONE || (config->window == MP_WINDOW_NONE && breaker->consecutive == 0));
}

const char *
mp_breaker_state_name(MpBreakerState state)
{
	static const char *const names[] = {"closed", "open", "half-open"};

	return names[state];
}

const char *
mp_breaker_reason_name(MpBreakerReason reason)
{
	static const char *const names[] = {
		"consecutive_failures", "failure_rate", "slow_rate", "probe_failed", "probe_lost", "probing", "recovered",
		"forced", "released", "expired", "configured", "would_open"
	};

	return names[reason];
}
