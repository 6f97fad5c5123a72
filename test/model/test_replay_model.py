"""Replays of the log against a plain Python model.

One consumer claims from one pull subscription and settles every claim at once:
it acknowledges or fails each event.  Meanwhile events are emitted, and those it
has passed are replayed, by window and pattern, several times over.  A claim gets
what is due again, and then what comes next in the log or in the oldest replay,
never both; everything in order, everything that is of a replay with its name.

MP_MODEL_EXAMPLES sets how many sequences are tried (default 100).
"""

import itertools
import json
import unittest

from database import Database, run_model
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

NAME = "replayed"
WANTED = ["Replayed A", "Replayed B"]
MAX_ATTEMPTS = 3
BASE_DELAY = 300    # seconds; the second retry comes after twice as long

accounts = itertools.count()


def setUpModule():
    global database
    database = Database()
    database.run("SELECT mp_subscribe(%s, %s, mode => 'pull', options => %s)", NAME, json.dumps({"detail-type": WANTED}),
                 json.dumps({"start": "earliest", "max_attempts": MAX_ATTEMPTS, "base_delay": BASE_DELAY}))


class Delivery:
    def __init__(self, attempt, due, mark):
        self.attempt = attempt
        self.due = due
        self.mark = mark    # name of the replay, None: it is of the log


class Replays(RuleBasedStateMachine):
    @initialize()
    def begin(self):
        self.account = "replays %d" % next(accounts)
        self.log = []           # (event id, detail type) of those that match
        self.passed = 0         # of the log
        self.deliveries = {}    # by place in the log
        self.replays = []       # (name, places that are left), the oldest first
        self.passable = {}      # by name: places that were left to a delivery when a claim looked
        self.names = itertools.count()

    @rule(detail_type=st.sampled_from(WANTED + ["Other"]), count=st.integers(1, 3))
    def emit(self, detail_type, count):
        for _ in range(count):
            event = database.value("SELECT mp_emit_event(%s, '{}', account => %s)", detail_type, self.account)
            if detail_type in WANTED:
                self.log.append((event, detail_type))

    def recorded_at(self, place):
        return database.value("SELECT meal_planner.position_time(meal_planner.event_position(%s))", self.log[place][0])

    @precondition(lambda self: self.log)
    @rule(data=st.data(), pattern=st.sampled_from([None, WANTED[0]]), to_the_end=st.booleans())
    def replay(self, data, pattern, to_the_end):
        """From an event on, to before another one or to the end."""
        first = data.draw(st.integers(0, len(self.log) - 1))
        behind = len(self.log) if to_the_end else data.draw(st.integers(first, len(self.log) - 1))
        name = "again %d" % next(self.names)
        count = database.value(
            "SELECT mp_replay(%s, %s, %s, %s, name => %s, account => %s)", NAME, self.recorded_at(first),
            None if to_the_end else self.recorded_at(behind),
            pattern and json.dumps({"detail-type": [pattern]}), name, self.account)
        places = [place for place in range(first, min(behind, self.passed))
                  if pattern is None or self.log[place][1] == pattern]
        assert count == len(places)
        if places:
            self.replays.append((name, places))

    @precondition(lambda self: self.replays)
    @rule(data=st.data())
    def cancel(self, data):
        replay = data.draw(st.sampled_from(self.replays))
        number = database.value("SELECT id FROM mp_replays WHERE account = %s AND name = %s", self.account, replay[0])
        assert database.value("SELECT mp_cancel_replay(%s)", number)
        assert not database.value("SELECT mp_cancel_replay(%s)", number)
        self.replays.remove(replay)

    def look_at_replays(self):
        """A claim may pass over what is being delivered, also when it takes something else."""
        for name, places in self.replays:
            passable = self.passable.setdefault(name, set())
            for place in places:
                if place not in self.deliveries and place not in passable:
                    return
                passable.add(place)

    def drop_done(self):
        """Replays that the database has ended: nothing was left in them."""
        running = {name for name, in database.rows("SELECT name FROM mp_replays WHERE account = %s", self.account)}
        for name, places in [replay for replay in self.replays if replay[0] not in running]:
            assert set(places) <= self.passable.get(name, set()), "a replay ends before its last event"
            self.replays.remove((name, places))
        assert running == {name for name, _ in self.replays}

    def take(self, limit):
        """Claims and compares.  Returns the token and [(place, attempt, mark)]."""
        rows = database.rows("SELECT token, event_id, attempt, event ->> 'replay-name' FROM mp_claim(%s, %s, account => %s)",
                             NAME, limit, self.account)
        places = {event: place for place, (event, _) in enumerate(self.log)}
        found = [(places[event], attempt, mark) for _, event, attempt, mark in rows]
        self.look_at_replays()
        due = {place: d for place, d in self.deliveries.items() if d.due <= Database.offset}
        again, new = found[:min(limit, len(due))], found[min(limit, len(due)):]

        assert again == [(place, due[place].attempt + 1, due[place].mark) for place in sorted(place for place, *_ in again)]
        assert all(attempt == 1 for _, attempt, _ in new)
        marks = {mark for _, _, mark in new}
        assert len(marks) <= 1, "of the log or of one replay"
        if marks == {None}:
            count = min(limit - len(again), len(self.log) - self.passed)
            assert [place for place, *_ in new] == list(range(self.passed, self.passed + count))
            self.passed += count
        elif marks:
            self.take_from_replay(marks.pop(), [place for place, *_ in new])
        elif len(again) < limit:
            assert self.passed == len(self.log), "events of the log are left behind"
        self.drop_done()
        return (rows[0][0] if rows else None), found

    def take_from_replay(self, name, places):
        older = itertools.takewhile(lambda replay: replay[0] != name, self.replays)
        assert all(set(left) <= self.passable[replay] for replay, left in older), "an older replay comes first"
        left = dict(self.replays)[name]
        for place in places:
            while left[0] != place:
                assert left[0] in self.passable[name] | set(self.deliveries), "an event of the replay is left out"
                left.pop(0)
            left.pop(0)
        self.look_at_replays()

    def settle(self, token, found, failing):
        for place, attempt, mark in found:
            self.deliveries.pop(place, None)
            if place in failing:
                outcome = database.value("SELECT mp_fail(%s, %s, 'transient', 'the model says so')", token, self.log[place][0])
                assert outcome == ("dead" if attempt == MAX_ATTEMPTS else "retry")
                if outcome == "retry":
                    self.deliveries[place] = Delivery(attempt, Database.offset + BASE_DELAY * 2 ** (attempt - 1), mark)
        assert database.value("SELECT mp_ack(%s)", token) == any(place not in failing for place, *_ in found)

    @rule(data=st.data(), limit=st.sampled_from([1, 2, 3, 100]))
    def claim(self, data, limit):
        token, found = self.take(limit)
        if found:
            self.settle(token, found, data.draw(st.sets(st.sampled_from([place for place, *_ in found]))))

    @rule()
    def advance(self):
        Database.advance(350)

    def teardown(self):
        """Everything comes to its end, and nothing is left."""
        if not hasattr(self, "log"):
            return
        for _ in range(200):
            Database.advance(1000)
            token, found = self.take(100)
            if found:
                self.settle(token, found, set())
            elif not self.deliveries and not self.replays:
                break
        assert (self.deliveries, self.replays, self.passed) == ({}, [], len(self.log))
        assert database.value(
            "SELECT (SELECT count(*) FROM meal_planner.delivery WHERE account = %s)"
            " + (SELECT count(*) FROM meal_planner.replay WHERE account = %s)"
            " + (SELECT count(*) FROM meal_planner.replay_cursor WHERE account = %s)"
            " + (SELECT count(*) FROM meal_planner.consumer_claim WHERE account = %s)", *[self.account] * 4) == 0
        # nothing was appended
        assert database.value("SELECT count(*) FROM meal_planner.event WHERE account = %s AND detail_type <> 'Other'",
                              self.account) == len(self.log)


class ReplayModel(unittest.TestCase):
    def test_a_replay_does_what_the_model_does(self):
        run_model(Replays, examples=100)


if __name__ == "__main__":
    unittest.main()
