/*
 * test_breaker.c
 *		The circuit breaker: every event in every state, and what it counts.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "core/breaker.h"

#define SECOND	INT64_C(1000000)
#define START	(INT64_C(1000000) * SECOND)
#define EPOCH	INT64_C(700)

/* A breaker on the way, with the permit that its last caller got. */
typedef struct Scene
{
	MpBreakerConfig config;
	MpBreaker	breaker;
	MpBreakerSteps steps;		/* of the last event */
	int64_t		now;
	int64_t		permit;
} Scene;

static Scene
scene(void)
{
	Scene		s = {.config = MP_BREAKER_CONFIG_DEFAULT, .now = START};

	mp_breaker_init(&s.breaker, EPOCH, START);
	s.permit = mp_permit_make(EPOCH, 0);
	return s;
}

static MpBreakerAnswer
acquire(Scene *s)
{
	MpBreakerAnswer answer;

	s->steps.count = 0;
	answer = mp_breaker_acquire(&s->config, &s->breaker, s->now, &s->steps);
	if (answer.allowed)
		s->permit = answer.permit;
	return answer;
}

static bool
report(Scene *s, int64_t permit, MpBreakerOutcome outcome, bool slow)
{
	s->steps.count = 0;
	return mp_breaker_report(&s->config, &s->breaker, s->now, 0, permit, outcome, slow, &s->steps);
}

static void
call(Scene *s, MpBreakerOutcome outcome)
{
	assert_true(acquire(s).allowed);
	assert_true(report(s, s->permit, outcome, false));
}

static void
force(Scene *s, MpBreakerForce what, int64_t until)
{
	s->steps.count = 0;
	mp_breaker_force(&s->config, &s->breaker, s->now, what, until, &s->steps);
}

static void
fail_times(Scene *s, int times)
{
	for (int i = 0; i < times; i++)
		call(s, MP_OUTCOME_FAILURE);
}

static void
open_it(Scene *s)
{
	fail_times(s, 5);
	assert_int_equal(s->breaker.state, MP_BREAKER_OPEN);
}

static void
probe_it(Scene *s)
{
	open_it(s);
	s->now += 30 * SECOND;
	assert_true(acquire(s).allowed);
	assert_int_equal(s->breaker.state, MP_BREAKER_HALF_OPEN);
}

/* ------------------------------------------------------------------------
 * Every event in every state
 * ------------------------------------------------------------------------ */

static void
closed(Scene *s)
{
	(void) s;
}

static void
almost(Scene *s)
{
	fail_times(s, 4);
}

static void
measuring(Scene *s)
{
	s->config.metrics_only = true;
	fail_times(s, 4);
}

static void
open_waiting(Scene *s)
{
	open_it(s);
	s->permit = mp_permit_make(s->breaker.epoch, 0);
	s->now += 30 * SECOND - 1;
}

static void
open_due(Scene *s)
{
	open_waiting(s);
	s->now++;
}

static void
half_open_free(Scene *s)
{
	probe_it(s);
	assert_true(report(s, s->permit, MP_OUTCOME_IGNORED, false));
}

static void
half_open_lost(Scene *s)
{
	probe_it(s);
	s->now += 60 * SECOND;
}

static void
half_open_forgotten(Scene *s)
{
	probe_it(s);
	s->now += 90 * SECOND;
}

static void
forced_open(Scene *s)
{
	force(s, MP_FORCE_OPEN, 0);
	s->permit = mp_permit_make(s->breaker.epoch, 0);
}

static void
forced_open_over(Scene *s)
{
	force(s, MP_FORCE_OPEN, s->now + SECOND);
	s->permit = mp_permit_make(s->breaker.epoch, 0);
	s->now += SECOND;
}

static void
forced_closed(Scene *s)
{
	open_it(s);
	force(s, MP_FORCE_CLOSED, 0);
	fail_times(s, 9);
}

static void
forced_closed_over(Scene *s)
{
	open_it(s);
	force(s, MP_FORCE_CLOSED, s->now + SECOND);
	fail_times(s, 9);
	s->now += SECOND;
}

typedef struct Row
{
	const char *name;
	void		(*prepare) (Scene *s);

	/*
	 * After each event: the state (Closed, Open, Half-open), by how many the
	 * epoch grew, and whether the call was allowed or the result applied.
	 */
	const char *after[11];
} Row;

static const Row rows[] = {
	/*                              acquire succ   fail   ignore late F late S open  closed auto  time  measure */
	{"closed", closed,             {"C0+", "C0+", "C0+", "C0+", "C0-", "C0-", "O1", "C1", "C0", "C0", "C0"}},
	{"almost", almost,             {"C0+", "C0+", "O1+", "C0+", "C0-", "C0-", "O1", "C1", "C0", "C0", "C0"}},
	{"measuring", measuring,       {"C0+", "C0+", "C0+", "C0+", "C0-", "C0-", "O1", "C1", "C0", "C0", "C0"}},
	{"open", open_waiting,         {"O0-", "O0-", "O0-", "O0-", "O0-", "O0-", "O1", "C1", "O0", "O0", "C1"}},
	{"due", open_due,              {"H1+", "O0-", "O0-", "O0-", "O0-", "O0-", "O1", "C1", "O0", "O0", "C1"}},
	{"free", half_open_free,       {"H0+", "H0-", "H0-", "H0-", "H0-", "H0-", "O1", "C1", "H0", "H0", "C1"}},
	{"probing", probe_it,          {"H0-", "C1+", "O1+", "H0+", "H0-", "H0-", "O1", "C1", "H0", "H0", "C1"}},
	{"lost", half_open_lost,       {"O1-", "O1-", "O1-", "O1-", "O1-", "O1-", "O2", "C2", "O1", "O1", "C2"}},
	{"forgotten", half_open_forgotten, {"H2+", "O1-", "O1-", "O1-", "O1-", "O1-", "O2", "C2", "O1", "O1", "C2"}},
	{"forced open", forced_open,   {"O0-", "O0-", "O0-", "O0-", "O0-", "O0-", "O1", "C1", "O1", "O0", "O0"}},
	{"forced open, over", forced_open_over, {"H2+", "O1-", "O1-", "O1-", "O1-", "O1-", "O2", "C2", "O1", "O1", "C1"}},
	{"forced closed", forced_closed, {"C0+", "C0+", "C0+", "C0+", "C0-", "C0-", "O1", "C1", "C1", "C0", "C0"}},
	{"forced closed, over", forced_closed_over, {"C1+", "C1-", "C1-", "C1-", "C1-", "C1-", "O2", "C2", "C1", "C1", "C1"}}
};

static const char *
happen(Scene *s, int event)
{
	int64_t		late = mp_permit_make(s->breaker.epoch - 1, 0);

	switch (event)
	{
		case 0:
			return acquire(s).allowed ? "+" : "-";
		case 1:
		case 2:
		case 3:
			return report(s, s->permit, (MpBreakerOutcome) (event - 1), false) ? "+" : "-";
		case 4:
			return report(s, late, MP_OUTCOME_FAILURE, false) ? "+" : "-";
		case 5:
			return report(s, late, MP_OUTCOME_SUCCESS, false) ? "+" : "-";
		case 6:
			force(s, MP_FORCE_OPEN, 0);
			return "";
		case 7:
			force(s, MP_FORCE_CLOSED, 0);
			return "";
		case 8:
			force(s, MP_FORCE_NONE, 0);
			return "";
		case 9:
			s->steps.count = 0;
			mp_breaker_settle(&s->config, &s->breaker, s->now, &s->steps);
			return "";
		default:
			s->steps.count = 0;
			s->config.metrics_only = true;
			mp_breaker_reconfigure(&s->config, &s->breaker, s->now, &s->steps);
			return "";
	}
}

static void
every_event_in_every_state(void **state)
{
	(void) state;
	for (size_t row = 0; row < sizeof(rows) / sizeof(rows[0]); row++)
		for (int event = 0; event < 11; event++)
		{
			Scene		s = scene();
			int64_t		before;
			int			changes = 0;
			const char *answer;
			char		after[16];

			rows[row].prepare(&s);
			before = s.breaker.epoch;
			answer = happen(&s, event);
			snprintf(after, sizeof(after), "%c%d%s", "COH"[s.breaker.state], (int) (s.breaker.epoch - before), answer);
			if (strcmp(after, rows[row].after[event]) != 0)
				print_error("%s, event %d\n", rows[row].name, event);
			assert_string_equal(after, rows[row].after[event]);

			/* Each step is told, with its own epoch, and the last is where it stands. */
			for (int i = 0; i < s.steps.count; i++)
				if (s.steps.step[i].reason != MP_REASON_WOULD_OPEN)
					assert_int_equal(s.steps.step[i].epoch, before + ++changes);
			assert_int_equal(s.breaker.epoch - before, changes);
			if (changes > 0)
				assert_int_equal(s.steps.step[s.steps.count - 1].to, s.breaker.state);
			/* The way without a lock never knows better. */
			if (mp_breaker_common_permit(&s.config, &s.breaker) != 0)
			{
				MpBreaker	copy = s.breaker;
				MpBreakerAnswer same = mp_breaker_acquire(&s.config, &copy, s.now + 1000 * SECOND, &s.steps);

				assert_true(same.allowed);
				assert_int_equal(same.permit, mp_breaker_common_permit(&s.config, &s.breaker));
				assert_memory_equal(&copy, &s.breaker, sizeof(copy));
				if (mp_breaker_is_quiet(&s.config, &s.breaker))
				{
					assert_true(mp_breaker_report(&s.config, &copy, s.now, 0, same.permit, MP_OUTCOME_SUCCESS, false, &s.steps));
					assert_memory_equal(&copy, &s.breaker, sizeof(copy));
				}
			}
			else
				assert_false(mp_breaker_is_quiet(&s.config, &s.breaker));
		}
}

/* ------------------------------------------------------------------------
 * What opens it
 * ------------------------------------------------------------------------ */

static void
the_fifth_failure_in_a_row_opens(void **state)
{
	Scene		s = scene();

	(void) state;
	for (int round = 0; round < 3; round++)
	{
		fail_times(&s, 4);
		call(&s, MP_OUTCOME_IGNORED);
		assert_int_equal(s.breaker.consecutive, 4);
		call(&s, MP_OUTCOME_SUCCESS);
		assert_int_equal(s.breaker.state, MP_BREAKER_CLOSED);
	}
	fail_times(&s, 4);
	assert_int_equal(s.breaker.state, MP_BREAKER_CLOSED);
	assert_int_equal(s.steps.count, 0);
	fail_times(&s, 1);
	assert_int_equal(s.breaker.state, MP_BREAKER_OPEN);
	assert_int_equal(s.steps.count, 1);
	assert_int_equal(s.steps.step[0].reason, MP_REASON_CONSECUTIVE);
	assert_int_equal(s.breaker.open_until, s.now + 30 * SECOND);
	assert_int_equal(acquire(&s).retry_at, s.now + 30 * SECOND);
}

static void
calls_that_were_out_when_it_opened_are_late(void **state)
{
	Scene		s = scene();
	int64_t		early;
	int64_t		until;

	(void) state;
	assert_true(acquire(&s).allowed);
	early = s.permit;
	open_it(&s);
	until = s.breaker.open_until;
	s.now += SECOND;
	/* no second opening, no longer one, no closing */
	assert_false(report(&s, early, MP_OUTCOME_FAILURE, false));
	assert_false(report(&s, early, MP_OUTCOME_SUCCESS, false));
	assert_int_equal(s.steps.count, 0);
	assert_int_equal(s.breaker.open_until, until);
	s.now = until;
	assert_true(acquire(&s).allowed);
	assert_false(report(&s, early, MP_OUTCOME_SUCCESS, false));
	assert_false(report(&s, early, MP_OUTCOME_FAILURE, false));
	assert_int_equal(s.breaker.state, MP_BREAKER_HALF_OPEN);
	assert_true(report(&s, s.permit, MP_OUTCOME_SUCCESS, false));
	assert_int_equal(s.breaker.state, MP_BREAKER_CLOSED);
	assert_false(report(&s, early, MP_OUTCOME_FAILURE, false));
	assert_int_equal(s.breaker.consecutive, 0);
}

/* Only the rate of a window opens it: half of at least so many calls. */
static Scene
scene_with_a_rate(MpBreakerWindow window, int minimum_calls)
{
	Scene		s = scene();

	s.config.failure_threshold = 0;
	s.config.window = window;
	s.config.window_size = 10;
	s.config.minimum_calls = minimum_calls;
	s.config.failure_rate = 0.5;
	return s;
}

static void
a_rate_by_count(void **state)
{
	Scene		s = scene_with_a_rate(MP_WINDOW_COUNT, 4);

	(void) state;
	fail_times(&s, 3);
	assert_int_equal(s.breaker.state, MP_BREAKER_CLOSED);
	/* the fourth call makes it enough, although it succeeds */
	call(&s, MP_OUTCOME_SUCCESS);
	assert_int_equal(s.breaker.state, MP_BREAKER_OPEN);
	assert_int_equal(s.steps.step[0].reason, MP_REASON_FAILURE_RATE);

	/* what leaves the window counts no more */
	s = scene_with_a_rate(MP_WINDOW_COUNT, 10);
	fail_times(&s, 4);
	for (int i = 0; i < 6; i++)
		call(&s, MP_OUTCOME_SUCCESS);
	assert_int_equal(s.breaker.failures, 4);
	for (int i = 0; i < 4; i++)
		call(&s, MP_OUTCOME_SUCCESS);
	assert_int_equal(s.breaker.failures, 0);
	assert_int_equal(s.breaker.calls, 10);
	fail_times(&s, 4);
	assert_int_equal(s.breaker.state, MP_BREAKER_CLOSED);
	fail_times(&s, 1);
	assert_int_equal(s.breaker.state, MP_BREAKER_OPEN);
}

static void
a_rate_by_time(void **state)
{
	Scene		s = scene_with_a_rate(MP_WINDOW_TIME, 4);

	(void) state;
	fail_times(&s, 3);
	s.now += 11 * SECOND;
	fail_times(&s, 3);
	assert_int_equal(s.breaker.calls, 3);
	assert_int_equal(s.breaker.state, MP_BREAKER_CLOSED);
	/* the clock is set back: what it counted in the future counts no more */
	s.now -= 1000 * SECOND;
	fail_times(&s, 3);
	assert_int_equal(s.breaker.calls, 3);
	s.now += 5 * SECOND;
	fail_times(&s, 1);
	assert_int_equal(s.breaker.state, MP_BREAKER_OPEN);
}

static void
a_rate_by_time_before_the_epoch(void **state)
{
	Scene		s = scene();

	(void) state;
	s.config.failure_threshold = 0;
	s.config.window = MP_WINDOW_TIME;
	s.config.window_size = 10;
	s.config.minimum_calls = 4;
	s.config.failure_rate = 0.5;
	s.now = -2 * SECOND - 1;
	for (int i = 0; i < 3; i++)
	{
		fail_times(&s, 1);
		assert_int_equal(s.breaker.calls, i + 1);
		s.now += SECOND;
	}
	fail_times(&s, 1);
	assert_int_equal(s.breaker.state, MP_BREAKER_OPEN);
}

static void
slow_calls_open_it(void **state)
{
	Scene		s = scene();

	(void) state;
	s.config.window = MP_WINDOW_COUNT;
	s.config.window_size = 10;
	s.config.minimum_calls = 5;
	s.config.slow_rate = 0.6;
	for (int i = 0; i < 4; i++)
		assert_true(report(&s, s.permit, MP_OUTCOME_SUCCESS, i < 2));
	assert_true(report(&s, s.permit, MP_OUTCOME_SUCCESS, true));
	assert_int_equal(s.breaker.state, MP_BREAKER_OPEN);
	assert_int_equal(s.steps.step[0].reason, MP_REASON_SLOW_RATE);
	s.now += 30 * SECOND;
	assert_true(acquire(&s).allowed);
	assert_true(report(&s, s.permit, MP_OUTCOME_SUCCESS, true));
	assert_int_equal(s.breaker.state, MP_BREAKER_OPEN);
}

static void
one_that_measures_tells_once(void **state)
{
	Scene		s = scene();
	int			told = 0;

	(void) state;
	s.config.metrics_only = true;
	for (int i = 0; i < 20; i++)
	{
		call(&s, MP_OUTCOME_FAILURE);
		told += s.steps.count;
		if (s.steps.count > 0)
		{
			assert_int_equal(i, 4);
			assert_int_equal(s.steps.step[0].reason, MP_REASON_WOULD_OPEN);
		}
	}
	assert_int_equal(told, 1);
	assert_int_equal(s.breaker.epoch, EPOCH);
}

/* ------------------------------------------------------------------------
 * How long it is open, and probes
 * ------------------------------------------------------------------------ */

static void
the_open_time_grows_and_decays(void **state)
{
	static const int lengths[] = {30, 60, 120, 200, 200};
	Scene		s = scene();

	(void) state;
	s.config.growth = 2;
	s.config.max_open_seconds = 200;
	open_it(&s);
	for (int i = 0; i < 5; i++)
	{
		assert_int_equal(s.breaker.open_length, lengths[i] * SECOND);
		s.now = s.breaker.open_until;
		assert_true(acquire(&s).allowed);
		assert_true(report(&s, s.permit, i == 4 ? MP_OUTCOME_SUCCESS : MP_OUTCOME_FAILURE, false));
	}
	assert_int_equal(s.breaker.open_count, 5);
	/* closed for two steps and a bit */
	s.now += 2 * 300 * SECOND + SECOND;
	open_it(&s);
	assert_int_equal(s.breaker.open_count, 4);
	s.now = s.breaker.open_until;
	call(&s, MP_OUTCOME_SUCCESS);
	s.now += INT64_C(365) * 86400 * SECOND;
	open_it(&s);
	assert_int_equal(s.breaker.open_count, 1);
	assert_int_equal(s.breaker.open_length, 30 * SECOND);
}

static void
jitter_only_shortens(void **state)
{
	Scene		s = scene();

	(void) state;
	s.config.jitter = 0.5;
	fail_times(&s, 4);
	assert_true(mp_breaker_report(&s.config, &s.breaker, s.now, 0.5, s.permit, MP_OUTCOME_FAILURE, false, &s.steps));
	assert_int_equal(s.breaker.open_length, 30 * 3 * SECOND / 4);
	s.config.growth = 100;
	s.config.jitter = 0;
	for (int i = 0; i < 400; i++)	/* 100^400 is no number any more */
	{
		s.now = s.breaker.open_until;
		assert_true(acquire(&s).allowed);
		assert_true(report(&s, s.permit, MP_OUTCOME_FAILURE, false));
	}
	assert_int_equal(s.breaker.open_length, 3600 * SECOND);
}

static void
several_probes_and_successes(void **state)
{
	Scene		s = scene();
	int64_t		probe[5];

	(void) state;
	s.config.half_open_permits = 3;
	s.config.success_threshold = 4;
	open_it(&s);
	s.now = s.breaker.open_until;
	for (int i = 0; i < 3; i++)
	{
		assert_true(acquire(&s).allowed);
		probe[i] = s.permit;
		assert_true(mp_permit_is_probe(probe[i]));
	}
	assert_false(acquire(&s).allowed);
	assert_int_equal(acquire(&s).retry_at, s.now + MP_BREAKER_RETRY_US);
	/* one given back is given out again, as another one */
	assert_true(report(&s, probe[1], MP_OUTCOME_IGNORED, false));
	assert_true(acquire(&s).allowed);
	probe[3] = s.permit;
	assert_int_not_equal(probe[3], probe[1]);
	assert_false(report(&s, probe[1], MP_OUTCOME_FAILURE, false));
	assert_true(report(&s, probe[0], MP_OUTCOME_SUCCESS, false));
	assert_false(report(&s, probe[0], MP_OUTCOME_SUCCESS, false));
	assert_true(report(&s, probe[2], MP_OUTCOME_SUCCESS, false));
	assert_true(report(&s, probe[3], MP_OUTCOME_SUCCESS, false));
	assert_int_equal(s.breaker.state, MP_BREAKER_HALF_OPEN);
	call(&s, MP_OUTCOME_SUCCESS);
	assert_int_equal(s.breaker.state, MP_BREAKER_CLOSED);
}

static void
fewer_permits_count_those_that_are_out(void **state)
{
	Scene		s = scene();
	int64_t		first;

	(void) state;
	s.config.half_open_permits = 3;
	probe_it(&s);
	first = s.permit;
	assert_true(acquire(&s).allowed);
	assert_true(acquire(&s).allowed);
	s.config.half_open_permits = 1;
	mp_breaker_reconfigure(&s.config, &s.breaker, s.now, &s.steps);
	assert_true(report(&s, first, MP_OUTCOME_IGNORED, false));
	assert_false(acquire(&s).allowed);
	assert_true(report(&s, s.permit, MP_OUTCOME_IGNORED, false));
	assert_false(acquire(&s).allowed);
	assert_true(report(&s, s.permit - 1, MP_OUTCOME_IGNORED, false));
	assert_true(acquire(&s).allowed);
}

static void
one_that_measures_is_not_left_open(void **state)
{
	Scene		s = scene();

	(void) state;
	s.config.metrics_only = true;
	force(&s, MP_FORCE_OPEN, 0);
	assert_false(acquire(&s).allowed);
	force(&s, MP_FORCE_NONE, 0);
	assert_int_equal(s.breaker.state, MP_BREAKER_CLOSED);
	force(&s, MP_FORCE_OPEN, s.now + 10 * SECOND);
	s.now += 10 * SECOND;
	assert_true(acquire(&s).allowed);
	assert_true(acquire(&s).allowed);
	assert_int_equal(s.breaker.state, MP_BREAKER_CLOSED);
}

static void
a_lost_probe_reopens_for_as_long_as_before(void **state)
{
	Scene		s = scene();

	(void) state;
	s.config.growth = 3;
	probe_it(&s);
	s.now += 60 * SECOND - 1;
	assert_false(acquire(&s).allowed);
	s.now += 10 * SECOND;
	/* seen late, it counts from the end of the lease */
	assert_false(acquire(&s).allowed);
	assert_int_equal(s.steps.count, 1);
	assert_int_equal(s.steps.step[0].reason, MP_REASON_PROBE_LOST);
	assert_int_equal(s.breaker.open_count, 1);
	assert_int_equal(s.breaker.open_until, START + (30 + 60 + 30) * SECOND);
	/* the probe was only slow: nobody cares any more */
	assert_false(report(&s, s.permit, MP_OUTCOME_SUCCESS, false));
	assert_int_equal(s.breaker.state, MP_BREAKER_OPEN);
}

static void
a_clock_set_back_prolongs_nothing(void **state)
{
	Scene		s = scene();

	(void) state;
	open_it(&s);
	s.now -= 1000 * SECOND;
	assert_int_equal(acquire(&s).retry_at, s.now + 30 * SECOND);
	s.now += 30 * SECOND;
	assert_true(acquire(&s).allowed);
	s.now -= 1000 * SECOND;
	assert_false(acquire(&s).allowed);
	s.now += 60 * SECOND;
	mp_breaker_settle(&s.config, &s.breaker, s.now, &s.steps);
	assert_int_equal(s.breaker.state, MP_BREAKER_OPEN);
}

static void
serials_begin_again(void **state)
{
	Scene		s = scene();

	(void) state;
	probe_it(&s);
	for (int i = 0; i < 10000; i++)
	{
		assert_true(mp_permit_is_probe(s.permit));
		assert_int_equal(mp_permit_epoch(s.permit), s.breaker.epoch);
		assert_true(report(&s, s.permit, MP_OUTCOME_IGNORED, false));
		assert_true(acquire(&s).allowed);
	}
}

static void
everything_has_its_word(void **state)
{
	(void) state;
	assert_string_equal(mp_breaker_state_name(MP_BREAKER_CLOSED), "closed");
	assert_string_equal(mp_breaker_state_name(MP_BREAKER_OPEN), "open");
	assert_string_equal(mp_breaker_state_name(MP_BREAKER_HALF_OPEN), "half-open");
	assert_string_equal(mp_breaker_reason_name(MP_REASON_CONSECUTIVE), "consecutive_failures");
	assert_string_equal(mp_breaker_reason_name(MP_REASON_WOULD_OPEN), "would_open");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_event_in_every_state),
		cmocka_unit_test(the_fifth_failure_in_a_row_opens),
		cmocka_unit_test(calls_that_were_out_when_it_opened_are_late),
		cmocka_unit_test(a_rate_by_count),
		cmocka_unit_test(a_rate_by_time),
		cmocka_unit_test(a_rate_by_time_before_the_epoch),
		cmocka_unit_test(slow_calls_open_it),
		cmocka_unit_test(one_that_measures_tells_once),
		cmocka_unit_test(the_open_time_grows_and_decays),
		cmocka_unit_test(jitter_only_shortens),
		cmocka_unit_test(several_probes_and_successes),
		cmocka_unit_test(fewer_permits_count_those_that_are_out),
		cmocka_unit_test(one_that_measures_is_not_left_open),
		cmocka_unit_test(a_lost_probe_reopens_for_as_long_as_before),
		cmocka_unit_test(a_clock_set_back_prolongs_nothing),
		cmocka_unit_test(serials_begin_again),
		cmocka_unit_test(everything_has_its_word)
	};

	return cmocka_run_group_tests_name("breaker", tests, NULL, NULL);
}
