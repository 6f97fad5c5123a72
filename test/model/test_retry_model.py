"""Retries and dead letters against a plain Python model: all modes, with and without a breaker.

Events go to subscriptions of every mode, each with another policy.  What fails
is told by a table that the model writes; the two guarded subscriptions fail
together when their service is down.  Sweeps and a consumer run what is due, and
dead letters are replayed or discarded.

Without a breaker everything is predicted: which attempt is due when, what dies,
for which reason, after how many attempts.  With one, whose turn it is when the
breaker opens is the server's to choose; but a delivery that is not called keeps
its attempt and waits for the breaker, who is called must have been let through
by the model's breaker, and both breakers have to end in the same state.

Time is the shifted clock.  It moves by hundreds of seconds, so that the seconds
which really pass meanwhile decide nothing, but for what waits a second for
somebody else's probe.

MP_MODEL_EXAMPLES sets how many sequences are tried (default 50).
"""

import itertools
import json
import unittest

from breaker_model import Breaker
from database import Database, run_model
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

SERVICE = "retry service"
BREAKER = {"failure_threshold": 3, "open_seconds": 2500, "growth": 2, "max_open_seconds": 8000, "decay_seconds": 9000,
           "permit_seconds": 9000}
MAX_REPLAYS = 5     # then a letter is parked
LATER = 1500        # what a fault asks for
SOON = 100      # who waits for a probe does so for a second; for an operator, a minute

accounts = itertools.count()


class Policy:
    def __init__(self, mode, max_attempts, base_delay, multiplier, **others):
        self.mode, self.max_attempts, self.base_delay, self.multiplier = mode, max_attempts, base_delay, multiplier
        self.max_delay, self.max_age = others.get("max_delay"), others.get("max_age")
        self.guarded = "breaker" in others
        self.options = {"max_attempts": max_attempts, "base_delay": base_delay, "multiplier": multiplier, **others}
        if mode != "inline":
            self.options["start"] = "earliest"

    def delay(self, attempt):
        """After that attempt."""
        delay = self.base_delay * self.multiplier ** (attempt - 1)
        return min(delay, self.max_delay) if self.max_delay else delay


POLICIES = {
    "retry inline": Policy("inline", 4, 1000, 2),
    "retry aged": Policy("inline", 9, 600, 2, max_age=3450),
    "retry once": Policy("worker", 1, 1000, 1),
    "retry worker": Policy("worker", 5, 300, 3, max_delay=2000),
    "retry pull": Policy("pull", 3, 1000, 2),
    "retry guarded inline": Policy("inline", 3, 700, 2, breaker=SERVICE),
    "retry guarded worker": Policy("worker", 3, 700, 2, breaker=SERVICE),
}
GUARDED = [name for name, policy in POLICIES.items() if policy.guarded]

SETUP = """
CREATE TABLE retry_fault (account text, key int, subscription text, sqlstate text, PRIMARY KEY (account, key, subscription));
CREATE TABLE retry_service (down boolean);
INSERT INTO retry_service VALUES (false);
CREATE TABLE retry_effect (account text, key int, subscription text);

CREATE FUNCTION retry_handle(e meal_planner.event, name text) RETURNS void
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    fault text := (SELECT f.sqlstate FROM retry_fault f
                    WHERE (f.account, f.key, f.subscription) = (e.account, (e.detail ->> 'key')::int, name));
BEGIN
    -- written first: a failure has to undo it
    INSERT INTO retry_effect VALUES (e.account, (e.detail ->> 'key')::int, name);
    IF fault IS NULL AND starts_with(name, 'retry guarded') AND (SELECT s.down FROM retry_service s) THEN
        fault := '08006';
    END IF;
    IF fault IS NOT NULL THEN
        RAISE EXCEPTION 'the model says so' USING ERRCODE = split_part(fault, ' ', 1), DETAIL = split_part(fault, ' ', 2);
    END IF;
END
$$;
"""


def setUpModule():
    global database
    database = Database()
    database.run(SETUP)
    database.run("SELECT mp_breaker_configure(%s, %s)", SERVICE, json.dumps(BREAKER))
    for number, (name, policy) in enumerate(POLICIES.items()):
        if policy.mode != "pull":
            database.run("CREATE FUNCTION retry_%d(e meal_planner.event) RETURNS void LANGUAGE plpgsql"
                         " SET search_path = public, pg_temp AS $$ BEGIN PERFORM retry_handle(e, '%s'); END $$" % (number, name))
        database.run("SELECT mp_subscribe(%s, %s, %s, %s, %s)", name, json.dumps({"detail-type": ["Retried"]}),
                     None if policy.mode == "pull" else "retry_%d(meal_planner.event)" % number, policy.mode,
                     json.dumps(policy.options))


class Item:
    """What one subscription has of one event."""

    def __init__(self, key, name):
        self.key, self.name, self.policy = key, name, POLICIES[name]
        self.fault = None           # a SQLSTATE, 'MPP01' for good, perhaps with a detail
        self.state = "log"          # then waiting, dead or done
        self.attempt = 0
        self.due = None
        self.first_failed = None
        self.effects = 0
        self.letter = None          # [status, reason, retry_count, replay_count]
        self.alerts = 0

    def wait(self, attempt, due):
        self.state, self.attempt, self.due = "waiting", attempt, due

    def succeed(self):
        self.state = "done"
        self.effects += self.policy.mode != "pull"
        if self.letter:
            self.letter[0] = "resolved"

    def die(self, reason, attempt):
        self.state = "dead"
        self.letter = ["dead", reason, attempt - 1, self.letter[3] if self.letter else 0]
        self.alerts += 1
        self.first_failed = None

    def fail(self, permanent, now, retry_after=None):
        """The attempt that was under way."""
        attempt = self.attempt + 1
        age = 0 if self.first_failed is None else now - self.first_failed
        delay = self.policy.delay(attempt) if retry_after is None else retry_after
        if permanent:
            self.die("permanent", attempt)
        elif attempt >= self.policy.max_attempts:
            self.die("max_attempts", attempt)
        elif self.policy.max_age and age + delay > self.policy.max_age:
            self.die("max_age", attempt)
        else:
            if self.first_failed is None:
                self.first_failed = now
            self.wait(attempt, now + delay)

    def replay(self, now):
        """From its first attempt on."""
        self.letter[0] = "replaying"
        self.letter[3] += 1
        self.wait(0, now)

    def run(self, now):
        if self.fault:
            self.fail(self.fault == "MPP01", now, LATER if "retry_after" in self.fault else None)
        else:
            self.succeed()

    def is_due(self, now):
        return self.state == "waiting" and self.due <= now

    def is_parked(self):
        return self.letter[0] == "dead" and self.letter[3] >= MAX_REPLAYS

    def shown_letter(self):
        return ["parked" if self.is_parked() else self.letter[0]] + self.letter[1:]

    def delivery(self, now):
        return (self.key, self.name, self.attempt, round((self.due - now) / 100))


class Retries(RuleBasedStateMachine):
    @initialize()
    def begin(self):
        self.account = "retry %d" % next(accounts)
        self.items = []             # by key: {name: Item}
        self.ids = []
        self.down = False
        database.run("UPDATE retry_service SET down = false")
        for state in ("closed", "auto"):
            database.run("SELECT mp_breaker_force(%s, %s)", SERVICE, state)
        found = self.found_breaker()
        self.breaker = Breaker(found[0], self.now)
        self.breaker.open_count, self.breaker.open_length = found[4:6]
        self.breaker.configure(self.now, BREAKER)
        self.calls = found[3]

    @property
    def now(self):
        return Database.offset

    def all(self, name=None):
        return [item for items in self.items for item in items.values() if name in (None, item.name)]

    def guarded(self):
        return [item for name in GUARDED for item in self.all(name)]

    def plain(self):
        return [item for item in self.all() if not item.policy.guarded]

    # ---- what the database has

    def found_breaker(self):
        row = database.rows("""
            SELECT b.epoch, b.state, b.consecutive_failures, b.successes, b.failures, b.open_count, b.open_seconds
              FROM meal_planner.breakers(%s) b""", SERVICE)[0]
        return row[0], row[1], row[2], row[3:5], row[5], row[6]

    def found_deliveries(self):
        keys = {event_id: key for key, event_id in enumerate(self.ids)}
        return {(keys[event_id], name): (attempt, due) for event_id, name, attempt, due in database.rows(
            """SELECT d.event_id, d.subscription, d.attempt, extract(epoch FROM d.next_attempt_at - meal_planner.clock())::float8
                 FROM meal_planner.delivery d WHERE d.account = %s""", self.account)}

    def found_letters(self):
        keys = {event_id: key for key, event_id in enumerate(self.ids)}
        return {(keys[row[0]], row[1]): list(row[2:]) for row in database.rows(
            """SELECT event_id, subscription, status, reason, retry_count, replay_count
                 FROM mp_dlq WHERE account = %s""", self.account)}

    # ---- the guarded ones: what became of them, and whether the breaker agrees

    def settle_guarded(self, candidates):
        """Compares what the server made of these, which it could run, with what it may have done."""
        deliveries, letters = self.found_deliveries(), self.found_letters()
        effects = {(key, name): count for key, name, count in database.rows(
            "SELECT key, subscription, count(*) FROM retry_effect WHERE account = %s GROUP BY 1, 2", self.account)}
        ignored, failed, succeeded, deferred, left = [], [], [], [], []
        for item in candidates:
            place = (item.key, item.name)
            if effects.get(place, 0) > item.effects:
                succeeded.append(item)
            elif letters.get(place, item.letter) != item.letter and letters[place][0] in ("dead", "parked"):
                (ignored if letters[place][1] == "permanent" else failed).append(item)
            elif place not in deliveries:
                assert item.state == "log", "a delivery is gone"
                left.append(item)
            elif deliveries[place][0] == item.attempt + 1:
                failed.append(item)
            else:
                assert deliveries[place][0] == item.attempt, "an attempt is lost"
                due = deliveries[place][1]
                if item.is_due(self.now) and due <= 0:
                    left.append(item)
                deferred.append((item, due))
        assert not succeeded or not self.down
        assert not failed or self.down or all(item.fault for item in failed)

        for item in ignored:
            self.pass_breaker(item, "ignored")
            item.fail(True, self.now)
        if self.down:
            self.fail_guarded(failed, deferred)
        else:
            for item in succeeded:
                self.pass_breaker(item, "success")
                item.succeed()
            self.defer(deferred)
        assert not left or not self.breaker.acquire(self.now).allowed, "what could be done is left"

    def pass_breaker(self, item, outcome):
        answer = self.breaker.acquire(self.now)
        assert answer.allowed, "%s was called although the breaker is %s" % (item.name, answer.state)
        if answer.state == "half-open":
            self.breaker.hand_out("probe", self.now)
        self.breaker.report(self.now, "probe" if answer.state == "half-open" else "common", outcome)
        return answer.state

    def fail_guarded(self, failed, deferred):
        # one that tried a half-open breaker keeps its attempt, as all that are deferred
        if not failed and deferred and self.breaker.acquire(self.now).allowed:
            longest = max(deferred, key=lambda pair: pair[1])
            state = self.pass_breaker(longest[0], "failure")
            assert state == "half-open", "who failed has no attempt"
            item, due = longest
            wait = self.breaker.open_until - self.now
            # it leaves some tries out
            assert item.policy.base_delay + min(wait, 60) - SOON < due < item.policy.base_delay + 5 * wait + SOON
            item.wait(item.attempt, self.now + round(due / 100) * 100)
            deferred = [pair for pair in deferred if pair is not longest]
        for item in failed:
            assert self.pass_breaker(item, "failure") == "closed", "a probe's attempt is counted"
            item.fail(False, self.now)
        self.defer(deferred)

    def defer(self, deferred):
        for item, due in deferred:
            if due > SOON:
                answer = self.breaker.acquire(self.now)
                assert not answer.allowed, "%s was not called although the breaker is closed" % item.name
                assert abs(due - (answer.retry_at - self.now)) < SOON
            item.wait(item.attempt, self.now + round(due / 100) * 100)

    # ---- steps

    faults = st.sampled_from([None, None, None, "MPT01", "MPT01", "MPT01 retry_after=%d" % LATER, "MPP01"])

    @rule(data=st.data())
    def emit(self, data):
        key = len(self.items)
        items = {name: Item(key, name) for name in POLICIES}
        for item in items.values():
            # the guarded ones fail for good or with their service
            item.fault = data.draw(self.faults)
            if item.policy.guarded and item.fault != "MPP01":
                item.fault = None
            if item.fault:
                database.run("INSERT INTO retry_fault VALUES (%s, %s, %s, %s)", self.account, key, item.name, item.fault)
        self.ids.append(database.value("SELECT mp_emit_event('Retried', %s, account => %s)", json.dumps({"key": key}), self.account))
        self.items.append(items)
        for item in items.values():
            if item.policy.mode == "inline" and not item.policy.guarded:
                item.run(self.now)
        self.settle_guarded([items["retry guarded inline"]])

    @rule(count=st.integers(1, 4))
    def emit_and_roll_back(self, count):
        """Failures have happened; successes have not."""
        database.run("BEGIN")
        for _ in range(count):
            database.run("SELECT mp_emit_event('Retried', '{\"key\": -1}', account => %s)", self.account)
        database.run("ROLLBACK")
        database.shifted = None
        for _ in range(count):
            answer = self.breaker.acquire(self.now)
            if not answer.allowed:
                continue
            if answer.state == "half-open":
                self.breaker.hand_out("probe", self.now)
            if self.down:
                self.breaker.report(self.now, "probe" if answer.state == "half-open" else "common", "failure")
            elif answer.state == "half-open":
                # others were refused while it was out; then it came back
                self.breaker.report(self.now, "probe", "ignored")
                break

    @precondition(lambda self: self.items)
    @rule(data=st.data())
    def heal(self, data):
        item = data.draw(st.sampled_from([item for item in self.all() if item.fault] or self.all()))
        item.fault = None
        database.run("DELETE FROM retry_fault WHERE (account, key, subscription) = (%s, %s, %s)", self.account, item.key, item.name)

    @rule()
    def service_goes_down_or_comes_up(self):
        self.down = not self.down
        database.run("UPDATE retry_service SET down = %s", self.down)

    @rule(seconds=st.sampled_from([100, 300, 700, 1000, 3000, 9000]))
    def advance(self, seconds):
        Database.advance(seconds)

    def next_times(self):
        return sorted({item.due for item in self.all() if item.state == "waiting" and item.due > self.now})

    @precondition(lambda self: self.next_times())
    @rule(data=st.data())
    def advance_to_what_is_next(self, data):
        time = data.draw(st.sampled_from(self.next_times()[:3]))
        Database.advance(-(-(time - self.now) // 100) * 100)

    @rule()
    def sweep(self):
        candidates = [item for item in self.guarded() if item.is_due(self.now + SOON) or item.state == "log"]
        database.run("CALL mp_sweep()")
        for item in self.plain():
            if item.policy.mode != "pull" and (item.is_due(self.now) or item.state == "log"):
                item.run(self.now)
        self.settle_guarded(candidates)

    @rule(retry_after=st.sampled_from([None, None, 0, 4000]), deferred=st.sampled_from([0, 0, 1, 2]))
    def consume(self, retry_after, deferred):
        """A consumer takes all that is due, puts some of it off, and fails what has a fault."""
        rows = database.rows("SELECT token, event_id, attempt FROM mp_claim('retry pull', 100, 300, account => %s)", self.account)
        due = [item for item in self.all("retry pull") if item.is_due(self.now) or item.state == "log"]
        assert sorted((self.ids.index(event_id), attempt) for _, event_id, attempt in rows) == sorted(
            (item.key, item.attempt + 1) for item in due)
        for number, (token, event_id, _) in enumerate(rows):
            item = self.items[self.ids.index(event_id)]["retry pull"]
            if number < deferred:
                assert self.fail_claimed(token, event_id, "deferred", 2000) == "retry"
                item.wait(item.attempt, self.now + 2000)
            elif item.fault:
                permanent = item.fault == "MPP01"
                outcome = self.fail_claimed(token, event_id, "permanent" if permanent else "transient", retry_after)
                item.fail(permanent, self.now, retry_after)
                assert outcome == ("dead" if item.state == "dead" else "retry")
            else:
                assert database.value("SELECT mp_ack(%s, ARRAY[%s]::uuid[])", token, event_id)
                item.succeed()

    def fail_claimed(self, token, event_id, error_type, retry_after):
        return database.value("SELECT mp_fail(%s, %s, %s, 'the model says so', %s)", token, event_id, error_type, retry_after)

    # ---- dead letters

    def dead(self):
        return [item for item in self.all() if item.state == "dead"]

    def letter_id(self, item):
        return database.value("SELECT id FROM mp_dlq WHERE account = %s AND subscription = %s AND event_id = %s",
                              self.account, item.name, self.ids[item.key])

    @precondition(lambda self: self.dead())
    @rule(data=st.data())
    def replay(self, data):
        item = data.draw(st.sampled_from(self.dead()))
        answer = database.value("SELECT mp_replay_dlq(%s)", self.letter_id(item))
        item.replay(self.now)
        if item.policy.guarded:
            self.settle_guarded([item])
        elif item.policy.mode != "pull":
            item.run(self.now)
        assert answer == {"done": "done", "dead": "dead", "waiting": "retry"}[item.state]
        if item.state == "waiting":
            assert database.value("SELECT mp_replay_dlq(%s)", self.letter_id(item)) == "replaying"

    @precondition(lambda self: any(not item.policy.guarded for item in self.dead()))
    @rule(name=st.sampled_from([None] * 8 + [name for name, policy in POLICIES.items() if not policy.guarded]),
          error_type=st.sampled_from([None, None, None, "permanent", "transient"]), parked=st.booleans(), times=st.integers(1, 2))
    def redrive(self, name, error_type, parked, times):
        """The guarded ones would wait for their breaker.  Two redrives of the same letters run them once."""
        wanted = {"subscription": [name] if name else [name for name in POLICIES if name not in GUARDED]}
        if error_type:
            wanted["error_type"] = error_type
        if parked:
            wanted["status"] = ["dead", "parked"]
        letters = [item for item in self.dead() if item.name in wanted["subscription"] and (parked or not item.is_parked())
                   and error_type in (None, "permanent" if item.letter[1] == "permanent" else "transient")]
        redrives = [database.value("SELECT mp_redrive_dlq(%s, account => %s)", json.dumps(wanted), self.account) for _ in range(times)]
        assert [redrive["letters"] for redrive in redrives] == [len(letters)] * times
        for item in letters:
            item.replay(self.now)
        self.sweep()
        ends = database.rows("SELECT done, failed, in_flight, skipped, remaining FROM mp_redrives WHERE id = ANY (%s) ORDER BY id",
                             [redrive["id"] for redrive in redrives])
        waiting = sum(item.state == "waiting" for item in letters)
        assert ends[0] == (sum(item.state == "done" for item in letters), sum(item.state == "dead" for item in letters), waiting, 0, 0)
        assert all(end == (0, 0, 0, len(letters), 0) for end in ends[1:]), ends

    @precondition(lambda self: self.dead())
    @rule(data=st.data())
    def discard(self, data):
        item = data.draw(st.sampled_from(self.dead()))
        database.run("SELECT mp_discard_dlq(%s, 'the model says so')", self.letter_id(item))
        item.letter[0] = "discarded"
        item.state = "done"
        assert database.value("SELECT mp_replay_dlq(%s)", self.letter_id(item)) == "discarded"

    # ---- both show the same

    @invariant()
    def it_is_the_same(self):
        if not hasattr(self, "items"):
            return
        deliveries = sorted((key, name, attempt, round(due / 100)) for (key, name), (attempt, due) in self.found_deliveries().items())
        assert deliveries == sorted(item.delivery(self.now) for item in self.all() if item.state == "waiting")
        assert self.found_letters() == {(item.key, item.name): item.shown_letter() for item in self.all() if item.letter}
        effects = sorted(database.rows("SELECT key, subscription FROM retry_effect WHERE account = %s", self.account))
        assert effects == sorted((item.key, item.name) for item in self.all() for _ in range(item.effects))
        assert all(item.effects <= 1 for item in self.all())
        alerts = {(key, name): count for key, name, count in database.rows(
            """SELECT l.event_id, l.subscription, count(*)
                 FROM meal_planner.alert a
                 JOIN meal_planner.dead_letter l ON l.account = a.account AND l.id = a.dead_letter_id
                WHERE a.account = %s GROUP BY 1, 2""", self.account)}
        assert alerts == {(self.ids[item.key], item.name): item.alerts for item in self.all() if item.alerts}

    @invariant()
    def every_attempt_that_counted_is_kept(self):
        if not hasattr(self, "items"):
            return
        found = {(self.ids.index(event_id), name, replay): count for event_id, name, replay, count in database.rows(
            """SELECT event_id, subscription, replay, count(*) FROM mp_attempts WHERE account = %s AND counted
                GROUP BY 1, 2, 3""", self.account)}
        for item in self.all():
            if item.state in ("waiting", "dead"):
                attempts = item.attempt if item.state == "waiting" else item.letter[2] + 1
                assert found.get((item.key, item.name, item.letter[3] if item.letter else 0), 0) == attempts

    @invariant()
    def the_breaker_is_the_same(self):
        if not hasattr(self, "breaker"):
            return
        epoch, state, consecutive, calls, _, _ = self.found_breaker()
        assert (epoch, state, consecutive) == (self.breaker.epoch, self.breaker.state, self.breaker.consecutive)
        assert [now - before for now, before in zip(calls, self.calls)] == [
            self.breaker.counters[name] for name in ("successes", "failures")]

    def teardown(self):
        if not hasattr(self, "items"):
            return
        # not to be carried into the next example: what is left in the log is done now
        database.run("UPDATE retry_service SET down = false")
        database.run("DELETE FROM retry_fault")
        for table in ("delivery", "consumer_claim"):
            database.run("DELETE FROM meal_planner." + table + " WHERE account = %s", self.account)
        database.run("SELECT mp_breaker_force(%s, 'closed')", SERVICE)
        database.run("CALL mp_sweep()")


class RetryModel(unittest.TestCase):
    def test_retries_do_what_the_model_does(self):
        run_model(Retries, examples=50)


if __name__ == "__main__":
    unittest.main()
