"""Circuit breakers against a plain Python model: acquire, report, force, configure.

Two sessions use one breaker, in transactions that commit, that roll back, or
with a savepoint that does: it makes no difference.  After every step the state,
its times, epoch, permits and counters have to be those of the model; at the end
the history has to be the model's, a path of the state table with epochs that
rise by one, and every change of it one event.

Time is the shifted clock.  It moves by thousands of seconds from one hundred
past a full thousand, so that the seconds which really pass meanwhile decide
nothing, nor which stretch of a window a call falls into.

MP_MODEL_EXAMPLES sets how many sequences are tried (default 60).
"""

import itertools
import json
import unittest

from breaker_model import PATHS, Breaker
from database import Database, run_model
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

STEP = 1000         # seconds; the clock moves by multiples of it
NAMES = 4           # a server has places for 256, and none is given back
SERIALS = 4096      # permits of one epoch; the first is everybody's

examples = itertools.count()


def setUpModule():
    global sessions
    sessions = [Database() for _ in range(2)]


@st.composite
def configurations(draw):
    options = {
        "failure_threshold": draw(st.sampled_from([1, 1, 2, 2, 3, 0])), "open_seconds": draw(st.sampled_from([1500, 4000])),
        "growth": draw(st.sampled_from([1, 2, 3])), "max_open_seconds": draw(st.sampled_from([4000, 20000])),
        "decay_seconds": draw(st.sampled_from([2500, 12000])), "jitter": draw(st.sampled_from([0, 0, 0, 0.5])),
        "half_open_permits": draw(st.sampled_from([1, 2, 3])), "success_threshold": draw(st.sampled_from([1, 1, 2, 3])),
        "permit_seconds": draw(st.sampled_from([1500, 5000])), "slow_call_seconds": draw(st.sampled_from([0, 2])),
        "metrics_only": draw(st.sampled_from([False] * 7 + [True]))}
    window = draw(st.sampled_from([None, "count", "time"]))
    if window:
        options["window"] = window
        options["window_size"] = draw(st.sampled_from([3, 5] if window == "count" else [10000, 30000]))
        options["minimum_calls"] = draw(st.sampled_from([1, 2, 3]))
        options["failure_rate"] = draw(st.sampled_from([0, 0.5, 1]))
        options["slow_rate"] = draw(st.sampled_from([0, 0.5, 1])) if options["slow_call_seconds"] else 0
    return options


# What is around a call, and how often: it makes no difference.
AROUND = {"nothing": ("SELECT", "SELECT"), "commit": ("BEGIN", "COMMIT"), "rollback": ("BEGIN", "ROLLBACK"),
          "savepoint": ("BEGIN; SAVEPOINT s", "ROLLBACK TO s; COMMIT")}
around = st.sampled_from(["nothing", "nothing", "commit", "rollback", "savepoint"])
session = st.integers(0, 1)
outcomes = st.sampled_from(["failure", "failure", "failure", "success", "success", "ignored"])
durations = st.sampled_from([None, 1, 2000, 2500])


class Breakers(RuleBasedStateMachine):
    @initialize(options=configurations(), operators=st.booleans())
    def begin(self, options, operators):
        self.operators = operators      # do something, else they leave it alone
        self.name = "model %d" % (next(examples) % NAMES)
        clock = sessions[0].value("SELECT extract(epoch FROM meal_planner.clock() - '2000-01-01 UTC')::float8")
        Database.advance((100 - clock) % STEP)
        self.start = clock + (100 - clock) % STEP - Database.offset
        self.latest = Database.offset
        self.aside = 0
        # an earlier example may have left it in any state
        for state in ("closed", "auto"):
            sessions[0].run("SELECT mp_breaker_force(%s, %s)", self.name, state)
        found = self.found()
        self.breaker = Breaker(found["epoch"], self.now)
        self.breaker.choose = self.choose
        self.breaker.common = lambda epoch: epoch * SERIALS
        self.breaker.open_count, self.breaker.open_length = found["open_count"], found["open_seconds"]
        self.breaker.opened_at = found["opened_at"] and self.now + found["opened_at"]
        self.breaker.counters.update(found["counters"])
        self.first_epoch = found["epoch"]
        self.permits = []           # that were given
        self.configure(0, options, "nothing")

    @property
    def now(self):
        """Seconds since 2000, as the server's clock has it but for what really passed."""
        return self.start + Database.offset

    def value(self, number, how, query, *arguments):
        before, after = AROUND[how]
        sessions[number].run(before)
        value = sessions[number].value(query, *arguments)
        sessions[number].run(after)
        return value

    def choose(self, shortest, longest):
        """Within its jitter an open time is the server's to choose."""
        chosen = self.found()["open_seconds"]
        assert shortest - 1e-3 <= chosen <= longest + 1e-3, (shortest, chosen, longest)
        return chosen if shortest < longest else longest

    def found(self):
        """The breaker as it is, times as seconds from now; nothing ends by it."""
        return sessions[0].value("""
            SELECT to_jsonb(f) FROM (
                SELECT b.state, b.consecutive_failures, b.epoch, b.permits, b.open_count, b.open_seconds, b.forced,
                       b.metrics_only, b.window_calls, b.window_failures, b.window_slow, b.stored,
                       extract(epoch FROM b.opened_at - c.now)::float8 AS opened_at,
                       extract(epoch FROM b.changed_at - c.now)::float8 AS changed_at,
                       extract(epoch FROM b.retry_at - c.now)::float8 AS retry_at,
                       extract(epoch FROM b.forced_until - c.now)::float8 AS forced_until,
                       jsonb_build_object('successes', b.successes, 'failures', b.failures, 'slow', b.slow,
                                          'ignored', b.ignored, 'late', b.late, 'rejected', b.rejected,
                                          'probes', b.probes) AS counters
                  FROM meal_planner.breakers(%s) b, (SELECT meal_planner.clock() AS now) c) f""", self.name)

    # ---- callers

    def ask(self, number, how):
        want = self.breaker.acquire(self.now)
        answer = self.value(number, how, "SELECT mp_breaker_acquire(%s)", self.name)
        assert (answer["allowed"], answer["state"]) == (want.allowed, want.state), (answer, want)
        if not want.allowed:
            assert "permit" not in answer
            if want.retry_at is None:
                assert answer["retry_after"] is None
            else:
                assert abs(answer["retry_after"] - (want.retry_at - self.now)) < 100
            return None
        permit = answer["permit"]
        if want.state == "half-open":
            assert permit not in self.permits, "two have the same permit"
            self.breaker.hand_out(permit, self.now)
        else:
            assert permit == self.breaker.common(self.breaker.epoch)
        self.permits.append(permit)
        return permit

    def tell(self, number, how, permit, outcome, duration):
        slow = duration is not None and 0 < self.breaker.options["slow_call_seconds"] * 1000 <= duration
        answer = self.value(number, how, "SELECT mp_breaker_report(%s, %s, %s, %s)", self.name, permit, outcome, duration)
        self.breaker.report(self.now, permit, outcome, slow)
        assert answer == self.breaker.state
        self.is_stored()

    @rule(number=session, how=around)
    def acquire(self, number, how):
        self.ask(number, how)

    @rule(number=session, how=around, outcome=outcomes, duration=durations, times=st.integers(1, 3))
    def call(self, number, how, outcome, duration, times):
        for _ in range(times):
            permit = self.ask(number, how)
            if permit is not None:
                self.tell(number, how, permit, outcome, duration)

    @precondition(lambda self: self.breaker.state == "closed" and not self.breaker.forced)
    @rule(number=session, how=around)
    def fail_until_it_opens(self, number, how):
        for _ in range(4):
            permit = self.ask(number, how)
            if permit is None:
                break
            self.tell(number, how, permit, "failure", None)

    @precondition(lambda self: self.permits)
    @rule(data=st.data(), number=session, how=around, outcome=outcomes, duration=durations, off=st.sampled_from([0] * 5 + [1, SERIALS]))
    def report(self, data, number, how, outcome, duration, off):
        """A permit that is out, more often than one that was used or never given."""
        permit = data.draw(st.sampled_from(list(self.breaker.out) * 3 + self.permits[-6:]))
        self.tell(number, how, permit + off, outcome, duration)

    # ---- operators

    @precondition(lambda self: self.breaker.forced or self.operators)
    @rule(number=session, how=around, state=st.sampled_from(["auto", "auto", "open", "closed"]),
          seconds=st.sampled_from([None, 1500, 6000]))
    def force(self, number, how, state, seconds):
        if state == "auto":
            seconds = None
        self.value(number, how, "SELECT mp_breaker_force(%s, %s, meal_planner.clock() + make_interval(secs => %s), 'model')",
                   self.name, state, seconds)
        self.breaker.force(self.now, state, seconds and self.now + seconds)
        self.is_stored()

    @precondition(lambda self: self.operators)
    @rule(number=session, options=configurations(), how=around)
    def configure(self, number, options, how):
        self.value(number, how, "SELECT mp_breaker_configure(%s, %s)", self.name, json.dumps(options))
        self.breaker.configure(self.now, options)
        self.given = options
        self.is_stored()

    @precondition(lambda self: self.breaker.out)
    @rule(data=st.data(), number=session, permits=st.integers(1, 3))
    def change_the_permits(self, data, number, permits):
        """While probes are out; then one comes back, and others want to go."""
        self.configure(number, {**self.given, "half_open_permits": permits}, "nothing")
        if self.breaker.out:
            self.tell(number, "nothing", data.draw(st.sampled_from(list(self.breaker.out))), "ignored", None)
            self.ask(number, "nothing")
            self.ask(number, "nothing")

    # ---- time

    def move(self, seconds):
        Database.advance(seconds - self.aside)
        # what ends by chance must not end just now
        self.aside = 200 if self.breaker.open_until and -100 < self.breaker.open_until - self.now < 100 else 0
        Database.advance(self.aside)

    @rule(steps=st.sampled_from([1, 2, 3, 5, 30]))
    def advance(self, steps):
        self.move(steps * STEP)

    def next_times(self):
        breaker = self.breaker
        times = [breaker.forced_until] if breaker.forced else [breaker.open_until] if breaker.state == "open" else breaker.out.values()
        return sorted({time for time in times if time is not None and time > self.now})

    @precondition(lambda self: self.next_times())
    @rule(data=st.data())
    def advance_to_what_is_next(self, data):
        time = data.draw(st.sampled_from(self.next_times()))
        self.move(-(-(time - self.now) // STEP) * STEP)

    @precondition(lambda self: self.breaker.state == "open" and not self.breaker.forced)
    @rule(number=session, times=st.integers(1, 4))
    def probe(self, number, times):
        self.move(max(-(-(self.breaker.open_until - self.now) // STEP), 1) * STEP)
        for _ in range(times):
            self.ask(number, "nothing")

    @rule(steps=st.integers(1, 3))
    def set_the_clock_back(self, steps):
        self.latest = max(self.latest, Database.offset)
        self.move(-steps * STEP)
        self.look()

    @rule()
    def look(self):
        """The view lets what is over end."""
        self.breaker.settle(self.now)
        assert sessions[1].value("SELECT state FROM mp_breakers WHERE name = %s", self.name) == self.breaker.state

    # ---- both show the same

    def is_stored(self):
        """What callers and operators were told is on disk."""
        assert self.found()["stored"]
        if self.breaker.changes:
            assert sessions[0].rows("SELECT state, epoch, forced FROM meal_planner.breaker_state WHERE name = %s",
                                    self.name) == [(self.breaker.state, self.breaker.epoch, self.breaker.forced)]

    @invariant()
    def it_is_the_same(self):
        if not hasattr(self, "breaker"):
            return
        breaker, found = self.breaker, self.found()
        assert [found[name] for name in ("state", "epoch", "permits", "consecutive_failures", "open_count", "forced",
                                         "metrics_only", "window_calls", "window_failures", "window_slow")] == [
            breaker.state, breaker.epoch, len(breaker.out), breaker.consecutive, breaker.open_count, breaker.forced,
            breaker.options["metrics_only"], len(breaker.calls), breaker.failures, breaker.slow], found
        retry_at = breaker.forced_until if breaker.forced == "open" else (
            breaker.open_until if breaker.state == "open" and not breaker.forced else None)
        for name, want in (("opened_at", breaker.opened_at), ("changed_at", breaker.changed_at), ("retry_at", retry_at),
                           ("forced_until", breaker.forced_until)):
            assert (found[name] is None) == (want is None), (name, found[name], want)
            assert want is None or abs(found[name] - (want - self.now)) < 100, (name, found[name], want - self.now)
        assert abs(found["open_seconds"] - breaker.open_length) < 1e-3
        assert found["counters"] == {name: breaker.counters[name] for name in found["counters"]}

    def teardown(self):
        if not hasattr(self, "breaker"):
            return
        sessions[0].run("SELECT meal_planner.sweep_breakers()")
        self.breaker.settle(self.now)
        history = sessions[0].rows(
            """SELECT epoch, from_state, to_state, reason FROM meal_planner.breaker_history
                WHERE name = %s AND epoch >= %s AND (epoch, reason) <> (%s, 'released')
                ORDER BY epoch, reason = 'would_open'""", self.name, self.first_epoch, self.first_epoch)
        assert history == [tuple(change) for change in self.breaker.changes]
        assert all(tuple(change[1:]) in PATHS for change in self.breaker.changes)
        moves = [change for change in self.breaker.changes if change.reason != "would_open"]
        assert [change.epoch for change in moves] == list(range(self.first_epoch + 1, self.first_epoch + 1 + len(moves)))
        assert [change.from_state for change in moves[1:]] == [change.to_state for change in moves[:-1]]
        while sessions[0].value("SELECT EXISTS (SELECT FROM meal_planner.breaker_history WHERE event_id IS NULL)"):
            sessions[0].run("SELECT meal_planner.sweep_breaker_events()")
        events = sessions[0].rows(
            """SELECT (e.detail ->> 'epoch')::bigint, e.detail ->> 'from', e.detail ->> 'to', e.detail ->> 'reason'
                 FROM meal_planner.event e
                WHERE e.account = 'local' AND e.detail_type LIKE 'Circuit%%' AND e.detail ->> 'breaker' = %s
                  AND (e.detail ->> 'epoch')::bigint >= %s
                  AND (e.detail ->> 'epoch', e.detail ->> 'reason') <> (%s, 'released')
                ORDER BY 1, e.detail ->> 'reason' = 'would_open'""", self.name, self.first_epoch, str(self.first_epoch))
        assert events == history, "every change is one event"
        # the clocks of all go on where it was furthest
        Database.advance(max(self.latest - Database.offset, 0))


class BreakerModel(unittest.TestCase):
    def test_a_breaker_does_what_the_model_does(self):
        run_model(Breakers, examples=60)


if __name__ == "__main__":
    unittest.main()
