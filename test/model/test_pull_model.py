"""Pull subscriptions against a plain Python model: claim, ack, fail, extend, expire.

Several consumers, each a session of its own, claim from one or two
subscriptions in two accounts.  Every step is done in the database and in the
model.  What a call answers is compared at once; afterwards every event has to
be in the one place where the model has it: not reached, held by a claim,
waiting for its next attempt, dead or done.

Time is the shifted clock.  It moves by hundreds of seconds, so that the seconds
which really pass meanwhile decide nothing but the order of what is due at the
same time: a time is (seconds, number of the statement that set it).

MP_MODEL_EXAMPLES sets how many sequences are tried (default 100).
"""

import itertools
import json
import unittest

import psycopg2
from database import Database, run_model
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from pull_model import Claim, Delivery, Event, Policy, Queue

CONSUMERS = 3
KEY_TTL = 86400     # of an idempotency key
SOURCE = "pull model"


POLICIES = {
    "pull patient": Policy(["Pulled A"], 4, 1000, 2),
    "pull hasty": Policy(["Pulled A", "Pulled B"], 4, 300, 3, max_age=3450),
    "pull once": Policy(["Pulled B"], 1, 1000, 1),
    "pull brief": Policy(["Pulled A", "Pulled B"], 3, 1000, 1, max_age=450),
    "pull ordered": Policy(["Pulled A", "Pulled B"], 3, 1000, 2, order_key="dish"),
    "pull blocking": Policy(["Pulled A", "Pulled B"], 2, 300, 1, order_key="dish", on_dead="block_key"),
}

# Where everything is, as far as the tables tell.
STATE = """
SELECT json_build_object(
    'deliveries', (SELECT coalesce(json_agg(json_build_array(d.account, d.subscription, d.position, d.event_id, d.attempt,
                          CASE WHEN d.next_attempt_at < 'infinity'
                               THEN round(extract(epoch FROM d.next_attempt_at - c.now) / 100)::int END, d.token,
                          (SELECT count(*) FROM jsonb_array_elements(d.history) h WHERE (h ->> 'counted')::boolean))), '[]')
                     FROM meal_planner.delivery d WHERE d.account = ANY (a.accounts) AND d.subscription LIKE 'pull %%'),
    'claims', (SELECT coalesce(json_agg(json_build_array(l.account, l.subscription, l.number, l.token,
                      l.after_position, l.up_to, l.settled, l.remaining, l.deliveries, l.worker,
                      round(extract(epoch FROM l.lease_until - c.now) / 100)::int,
                      extract(epoch FROM l.lease_until))), '[]')
                 FROM meal_planner.consumer_claim l WHERE l.account = ANY (a.accounts)),
    'cursors', (SELECT coalesce(json_agg(json_build_array(s.account, s.subscription, s.position, s.first_claim,
                       extract(epoch FROM s.next_expiry))), '[]')
                  FROM meal_planner.subscription_cursor s
                 WHERE s.account = ANY (a.accounts) AND s.subscription LIKE 'pull %%'),
    'letters', (SELECT coalesce(json_agg(json_build_array(l.account, l.subscription, l.position, l.id, l.status,
                       l.error_type, l.reason, l.retry_count,
                       (SELECT count(*) FROM meal_planner.alert x
                         WHERE x.account = l.account AND x.dead_letter_id = l.id))), '[]')
                  FROM meal_planner.dead_letter l WHERE l.account = ANY (a.accounts)))
  FROM (SELECT %s::text[] AS accounts) a, (SELECT meal_planner.clock() AS now) c
"""


def setUpModule():
    global consumers
    consumers = [Database() for _ in range(CONSUMERS)]
    for name, policy in POLICIES.items():
        consumers[0].run("SELECT mp_subscribe(%s, %s, mode => 'pull', options => %s)", name,
                         json.dumps({"source": [SOURCE], "detail-type": policy.types}), json.dumps(policy.options))


class Bus(RuleBasedStateMachine):
    examples = 0

    def __init__(self):
        super().__init__()
        Bus.examples += 1
        self.accounts = ["pull %d%s" % (Bus.examples, half) for half in "ab"]
        self.events = []                                        # by number
        self.logs = {account: [] for account in self.accounts}  # of events
        self.streams = {(account, stream): [] for account in self.accounts for stream in "xy"}
        self.keys = {}              # (account, idempotency key): (event, stream, time)
        self.queues = []
        self.claims = []            # all there were
        self.claims_drained = 0
        self.paused = set()
        self.statements = 0
        self.log_changed = False

    @initialize(names=st.sampled_from([["pull patient"], ["pull hasty"], ["pull hasty", "pull once"],
                                       ["pull patient", "pull brief"], ["pull brief", "pull once"],
                                       ["pull ordered"], ["pull blocking"], ["pull ordered", "pull blocking"]]))
    def subscribe(self, names):
        self.queues = [Queue(account, name, POLICIES[name], self.logs[account]) for account in self.accounts for name in names]

    def teardown(self):
        for consumer in consumers:
            consumer.run("ROLLBACK" if consumer.connection.info.transaction_status else "SELECT")
        for name in self.paused:
            consumers[0].run("SELECT mp_resume_subscription(%s)", name)
        # not to be carried into the next example
        for table in ("delivery", "consumer_claim"):
            consumers[0].run("DELETE FROM meal_planner." + table + " WHERE account = ANY (%s)", self.accounts)

    @property
    def now(self):
        self.statements += 1
        return (Database.offset, self.statements)

    # ---- the log

    def detail(self, number, dish):
        return json.dumps({"number": number, "dish": dish})

    def append(self, account, event_id, detail_type, dish, stream=None, deliver_after=None):
        event = Event(len(self.events), account, event_id, detail_type, dish, deliver_after)
        self.events.append(event)
        self.logs[account].append(event)
        if stream:
            self.streams[account, stream].append(event_id)
        self.log_changed = True
        return event

    types = st.sampled_from(["Pulled A", "Pulled B"])
    halves = st.sampled_from([0, 0, 1])
    sessions = st.integers(0, CONSUMERS - 1)
    dishes = st.sampled_from(["cake", "cake", "soup", None])
    stream_names = st.sampled_from([None, None, "x", "y"])

    @rule(session=sessions, half=halves, detail_type=types, dish=dishes, stream=stream_names, versioned=st.booleans(),
          wait=st.sampled_from([None, None, None, 0, 500, 3000]))
    def emit(self, session, half, detail_type, dish, stream, versioned, wait):
        account = self.accounts[half]
        due = None if wait is None else (self.now[0] + wait, self.statements)
        event_id = consumers[session].value(
            """SELECT mp_emit_event(%s, %s, %s, account => %s, stream => %s, expected_version => %s,
                                    deliver_after => meal_planner.clock() + make_interval(secs => %s))""",
            detail_type, self.detail(len(self.events), dish), SOURCE, account, stream,
            len(self.streams[account, stream]) if stream and versioned else None, wait)
        self.append(account, event_id, detail_type, dish, stream, due)

    @rule(half=halves, stream=st.sampled_from(["x", "y"]), wrong=st.sampled_from([-1, 1, 5]))
    def emit_at_a_wrong_version(self, half, stream, wrong):
        account = self.accounts[half]
        actual = len(self.streams[account, stream])
        try:
            consumers[0].run("SELECT mp_emit_event('Pulled A', %s, %s, account => %s, stream => %s, expected_version => %s)",
                             self.detail(-1, None), SOURCE, account, stream, actual + wrong if actual else abs(wrong))
        except psycopg2.Error as error:
            assert error.pgcode == "MP409", error
            assert error.diag.message_detail == "The actual version is %d." % actual
        else:
            raise AssertionError("a version that is not the stream's was accepted")

    @rule(session=sessions, half=halves, key=st.sampled_from(["k1", "k2"]), other_content=st.booleans(),
          stream=stream_names)
    def emit_with_a_key(self, session, half, key, other_content, stream):
        account = self.accounts[half]
        known = self.keys.get((account, key))
        if known and known[2] + KEY_TTL <= self.now[0]:
            known = None
        number, detail_type, dish = len(self.events), "Pulled A", "soup"
        if known and not other_content:
            event, stream, _ = known
            number, detail_type, dish = event.number, event.detail_type, event.dish
        try:
            event_id = consumers[session].value(
                "SELECT mp_emit_event(%s, %s, %s, account => %s, stream => %s, idempotency_key => %s)",
                detail_type, self.detail(number, dish), SOURCE, account, stream, key)
        except psycopg2.Error as error:
            assert known and other_content and error.pgcode == "MP422", error
            return
        assert not (known and other_content), "other content was accepted"
        if known:
            assert event_id == known[0].id
        else:
            event = self.append(account, event_id, detail_type, dish, stream)
            self.keys[account, key] = (event, stream, self.now[0])

    @rule(session=sessions, half=halves,
          batch=st.lists(st.tuples(types, dishes, stream_names, st.sampled_from([None, None, None, "k1", "k3"]),
                                   st.sampled_from([True, True, True, False])), min_size=1, max_size=5))
    def put_events(self, session, half, batch):
        account = self.accounts[half]
        entries = []
        expected = []       # the error code, or (type, dish, stream, idempotency key) of an event
        fresh = set()       # keys that the batch is the first to use
        number = len(self.events)
        for detail_type, dish, stream, idempotency_key, good in batch:
            detail = self.detail(number, dish)
            known = self.keys.get((account, idempotency_key))
            if known and known[2] + KEY_TTL <= self.now[0]:
                known = None
            if not good:
                detail = json.dumps([1])
                expected.append("MalformedDetail")
            elif known or idempotency_key in fresh:
                expected.append("IdempotencyConflict")      # each detail is another
            else:
                expected.append((detail_type, dish, stream, idempotency_key))
                if idempotency_key:
                    fresh.add(idempotency_key)
                number += 1
            entries.append({"Source": SOURCE, "DetailType": detail_type, "Stream": stream,
                            "IdempotencyKey": idempotency_key, "Detail": detail})
        answer = consumers[session].value("SELECT mp_put_events(%s, %s)", json.dumps(entries), account)
        assert len(answer["Entries"]) == len(batch)
        assert answer["FailedEntryCount"] == sum(isinstance(want, str) for want in expected)
        for found, want in zip(answer["Entries"], expected):
            if isinstance(want, str):
                assert found.get("ErrorCode") == want, (found, want)
            else:
                detail_type, dish, stream, idempotency_key = want
                event = self.append(account, found["EventId"], detail_type, dish, stream)
                if idempotency_key:
                    self.keys[account, idempotency_key] = (event, stream, self.now[0])

    # ---- claiming

    def call_claim(self, session, queue, limit, lease):
        return consumers[session].rows("SELECT token, event_id, attempt, event FROM mp_claim(%s, %s, %s, %s, %s)",
                                       queue.name, limit, lease, "consumer %d" % session, queue.account)

    def claim(self, session, queue, limit, lease):
        """Claims and compares; returns the claim, None when nothing was there."""
        found = self.call_claim(session, queue, limit, lease)
        if queue.name in self.paused:
            assert found == [], "a paused subscription hands out events"
            return None
        now = self.now
        ended = queue.expire(now)
        events = [self.events[envelope["detail"]["number"]] for _, _, _, envelope in found]
        for event, (_, event_id, _, envelope) in zip(events, found):
            assert event_id == event.id
            assert (envelope["id"], envelope["detail-type"], envelope["account"]) == (
                event.id, event.detail_type, event.account)
            delivery = queue.deliveries.get(event.number)
            assert envelope["detail"] == (delivery and delivery.corrected or event.detail())
        rows = [(event, attempt) for event, (_, _, attempt, _) in zip(events, found)]
        passed = queue.passed
        if queue.policy.ordered:
            queue.check_ordered_claim(rows, limit, now, bool(ended))
        else:
            from_log = queue.check_claim(rows, limit, now)
        if not found:
            return None

        token = found[0][0]
        assert {row[0] for row in found} == {token} and token not in {claim.token for claim in self.claims}
        stretch = (passed, queue.passed)
        if queue.policy.ordered:
            stretch, from_log = self.stretch_of(session, token, queue, events)
        for event, attempt in rows:
            queue.deliveries[event.number].state = "held"
            queue.deliveries[event.number].attempt = attempt
        held = {event.number: queue.deliveries[event.number] for event in events}
        claim = Claim(queue, token, "consumer %d" % session, held, from_log, stretch if from_log else None,
                      now[0] + lease)
        queue.claims.append(claim)
        self.claims.append(claim)
        return claim

    def stretch_of(self, session, token, queue, events):
        """Which events a claim passes, and leaves where they are, is left to the server where there is an order."""
        if self.log_changed:
            self.compare_log()
        after_position, up_to, settled = consumers[session].rows(
            "SELECT after_position, up_to, settled FROM meal_planner.consumer_claim WHERE token = %s", token)[0]
        if up_to is None:
            return None, set()
        places = [place for place, event in enumerate(queue.log) if after_position < event.position <= up_to]
        return (places[0], places[-1] + 1), {event.number for event in events if after_position < event.position <= up_to
                                             and event.position not in settled}

    limits = st.sampled_from([1, 2, 3, 5, 100])
    leases = st.sampled_from([100, 300, 1000, 5000])

    @rule(data=st.data(), session=sessions, limit=limits, lease=leases)
    def claim_some(self, data, session, limit, lease):
        self.claim(session, data.draw(st.sampled_from(self.queues)), limit, lease)

    def due_queues(self):
        return [queue for queue in self.queues if queue.name not in self.paused and any(
            delivery.is_due((Database.offset, 0)) for delivery in queue.deliveries.values())]

    @precondition(lambda self: self.due_queues())
    @rule(data=st.data(), session=sessions, limit=limits, lease=leases)
    def claim_what_is_due(self, data, session, limit, lease):
        self.claim(session, data.draw(st.sampled_from(self.due_queues())), limit, lease)

    @rule(data=st.data(), session=sessions, limit=limits)
    def claim_and_roll_back(self, data, session, limit):
        queue = data.draw(st.sampled_from(self.queues))
        consumers[session].run("BEGIN")
        self.call_claim(session, queue, limit, 300)
        consumers[session].run("ROLLBACK")

    @rule(data=st.data(), session=sessions, detail_type=types, dish=dishes)
    def claim_before_the_event_is_committed(self, data, session, detail_type, dish):
        queue = data.draw(st.sampled_from(self.queues))
        consumers[session].run("BEGIN")
        event_id = consumers[session].value("SELECT mp_emit_event(%s, %s, %s, account => %s)", detail_type,
                                            self.detail(len(self.events), dish), SOURCE, queue.account)
        self.claim(session, queue, 100, 300)
        consumers[session].run("COMMIT")
        self.append(queue.account, event_id, detail_type, dish)

    # ---- what becomes of a claim

    def draw_claim(self, data):
        """A live one more often than one that is over."""
        live = [claim for queue in self.queues for claim in queue.claims]
        return data.draw(st.sampled_from(live + live + self.claims[-4:]))

    def draw_event(self, data, claim):
        """Of the claim, mostly; of its account, of anybody."""
        return data.draw(st.sampled_from(list(claim.held) * 3 + [e.number for e in claim.queue.log[-8:]] +
                                         [len(self.events) - 1]))

    def find(self, claim, number):
        """The delivery; None when it was settled; KeyError when it never was of this claim."""
        if number in claim.held:
            return claim.held[number]
        event = self.events[number]
        if event.account != claim.queue.account:
            raise KeyError(number)
        place = claim.queue.log.index(event)
        in_stretch = claim.stretch and claim.stretch[0] <= place < claim.stretch[1]
        # Nothing is kept of the deliveries that a claim has settled.
        if not in_stretch and not claim.has_deliveries:
            raise KeyError(number)
        return None

    def acknowledge(self, session, claim, numbers):
        """All when numbers is None."""
        live = claim.is_live(self.now)
        statement = "SELECT mp_ack(%s, %s::uuid[])"
        ids = None if numbers is None else [self.events[number].id for number in numbers]
        if live and claim.given_back.intersection(numbers or []):
            assert consumers[session].value(statement, claim.token, ids) is False
            return
        try:
            for number in numbers or []:
                self.find(claim, number)
        except KeyError:
            if live:
                self.refused("MP404", session, statement, claim.token, ids)
                return
        assert consumers[session].value(statement, claim.token, ids) == live
        if live:
            for number in list(claim.held) if numbers is None else numbers:
                if number in claim.held:
                    claim.held[number].finish()
                    claim.settle(number)

    def refused(self, code, session, statement, *arguments):
        try:
            consumers[session].run(statement, *arguments)
        except psycopg2.Error as error:
            assert error.pgcode == code, error
        else:
            raise AssertionError("no %s: %s" % (code, statement))

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), session=sessions, twice=st.booleans())
    def ack_all(self, data, session, twice):
        claim = self.draw_claim(data)
        self.acknowledge(session, claim, None)
        if twice:
            self.acknowledge(session, claim, None)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), session=sessions, count=st.integers(0, 3), twice=st.booleans())
    def ack_some(self, data, session, count, twice):
        claim = self.draw_claim(data)
        numbers = [self.draw_event(data, claim) for _ in range(count)]
        self.acknowledge(session, claim, numbers + numbers[:1] if twice else numbers)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), session=sessions, permanent=st.sampled_from([False, False, False, True]),
          retry_after=st.sampled_from([None, None, None, 0, 200, 4000]))
    def fail(self, data, session, permanent, retry_after):
        claim = self.draw_claim(data)
        number = self.draw_event(data, claim)
        now = self.now
        statement = "SELECT mp_fail(%s, %s, %s, 'the model says so', %s)"
        arguments = (claim.token, self.events[number].id, "permanent" if permanent else "transient", retry_after)
        delivery = None
        if claim.is_live(now):
            try:
                delivery = self.find(claim, number)
            except KeyError:
                self.refused("MP404", session, statement, *arguments)
                return
        outcome = consumers[session].value(statement, *arguments)
        if delivery:
            assert outcome == claim.fail(number, now, permanent, retry_after)
        else:
            assert outcome == "lease_lost"

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), session=sessions, seconds=st.sampled_from([0, 100, 1000, 8000]))
    def extend(self, data, session, seconds):
        claim = self.draw_claim(data)
        now = self.now
        live = claim.is_live(now)
        assert consumers[session].value("SELECT mp_extend(%s, %s)", claim.token, seconds) == live
        if live:
            claim.lease_until = now[0] + seconds

    # ---- what goes on around

    @rule(seconds=st.sampled_from([100, 300, 900, 3000, 30000]))
    def advance(self, seconds):
        Database.advance(seconds)

    @rule()
    def maintain(self):
        consumers[0].run("SELECT meal_planner.sweep_maintain()")
        for queue in self.queues:
            queue.expire(self.now)

    @precondition(lambda self: self.next_times())
    @rule(data=st.data())
    def advance_to_what_is_next(self, data):
        Database.advance(data.draw(st.sampled_from(self.next_times())) - Database.offset)

    def next_times(self):
        """When something is due or a lease ends."""
        return sorted({time for queue in self.queues for time in
                       [delivery.due[0] for delivery in queue.deliveries.values() if delivery.state == "waiting"] +
                       [claim.lease_until for claim in queue.claims] if time > Database.offset})

    @rule(data=st.data(), session=sessions, stays=st.sampled_from([False, False, True]))
    def pause_or_resume(self, data, session, stays):
        queue = data.draw(st.sampled_from(self.queues))
        if queue.name not in self.paused:
            consumers[session].run("SELECT mp_pause_subscription(%s)", queue.name)
            self.paused.add(queue.name)
            self.claim((session + 1) % CONSUMERS, queue, 100, 300)
            if stays:
                return
        consumers[session].run("SELECT mp_resume_subscription(%s)", queue.name)
        self.paused.remove(queue.name)

    def dead(self):
        return [(queue, delivery) for queue in self.queues for delivery in queue.deliveries.values()
                if delivery.state == "dead" and delivery.letter[0] == "dead"]

    def letter_id(self, queue, delivery):
        return consumers[0].value("SELECT id FROM mp_dlq WHERE account = %s AND subscription = %s AND event_id = %s",
                                  queue.account, queue.name, delivery.event.id)

    @precondition(lambda self: self.dead())
    @rule(data=st.data())
    def discard(self, data):
        self.give_up(*data.draw(st.sampled_from(self.dead())))

    def give_up(self, queue, delivery):
        consumers[0].run("SELECT mp_discard_dlq(%s, 'the model says so')", self.letter_id(queue, delivery))
        delivery.state = "done"
        delivery.letter[0] = "discarded"

    @precondition(lambda self: self.dead())
    @rule(data=st.data(), correct=st.booleans(), dish=dishes)
    def replay(self, data, correct, dish):
        queue, delivery = data.draw(st.sampled_from(self.dead()))
        letter = self.letter_id(queue, delivery)
        if correct:
            # which changes nothing about its place
            delivery.corrected = {"number": delivery.event.number, "dish": dish}
        assert consumers[0].value("SELECT mp_replay_dlq(%s, %s)", letter,
                                  json.dumps(delivery.corrected) if correct else None) == "retry"
        delivery.replay(self.now)
        assert consumers[0].value("SELECT mp_replay_dlq(%s)", letter) == "replaying"
        self.refused("MP409", 0, "SELECT mp_discard_dlq(%s, 'while it is replayed')", letter)

    @precondition(lambda self: len(self.claims) >= self.claims_drained + 6)
    @rule()
    def drain(self):
        """Everything is done at last, and then nothing is left behind."""
        for name in self.paused:
            consumers[0].run("SELECT mp_resume_subscription(%s)", name)
        self.paused = set()
        for queue in self.queues:
            for claim in list(queue.claims):
                self.acknowledge(0, claim, None)
        Database.advance(10000)     # longer than any lease, delay or deliver_after
        for queue in self.queues:
            for calls in itertools.count():
                self.every_event_is_where_the_model_has_it()
                if queue.is_done():
                    break
                assert calls < 3 * len(queue.log) + 3, "what is left does not come"
                claim = self.claim(0, queue, 4, 300)
                if claim:
                    self.acknowledge(1, claim, None)
                else:
                    for dead_queue, delivery in self.dead():
                        if dead_queue is queue and queue.policy.block_key:
                            self.give_up(queue, delivery)
                    Database.advance(10000)
        self.claims_drained = len(self.claims)
        for table in ("delivery", "consumer_claim"):
            assert consumers[0].value("SELECT count(*) FROM meal_planner." + table + " WHERE account = ANY (%s)",
                                      self.accounts) == 0, table

    # ---- both show the same

    def compare_log(self):
        for account, log in self.logs.items():
            found = consumers[0].rows("SELECT position, event ->> 'id' FROM mp_read_events(account => %s)", account)
            assert [event_id for _, event_id in found] == [event.id for event in log]
            for event, (position, _) in zip(log, found):
                event.position = position
            assert all(before.position < after.position for before, after in zip(log, log[1:]))
        for (account, stream), ids in self.streams.items():
            found = consumers[0].rows("SELECT version, event ->> 'id' FROM mp_read_stream(%s, account => %s)",
                                      stream, account)
            assert found == list(enumerate(ids, 1))

    @invariant()
    def every_event_is_where_the_model_has_it(self):
        if self.log_changed:
            self.compare_log()
            self.log_changed = False
        state = consumers[0].value(STATE, self.accounts)
        rows = {kind: {(queue.account, queue.name): [] for queue in self.queues} for kind in state}
        for kind, found in state.items():
            for row in found:
                rows[kind][row[0], row[1]].append(row[2:])
        for queue in self.queues:
            own = [rows[kind][queue.account, queue.name] for kind in ("deliveries", "claims", "cursors", "letters")]
            self.compare(queue, *own)

    def compare(self, queue, deliveries, claims, cursors, letters):
        log = queue.log
        by_position = {event.position: event for event in log}
        now = Database.offset

        if queue.policy.ordered:
            # How far it reads beyond what it hands out is not laid down.
            before, queue.passed = queue.passed, sum(event.position <= row[0] for row in cursors for event in log)
            assert queue.passed >= before
            queue.know_all()
        cursor = log[queue.passed - 1].position if queue.passed else 0
        assert [row[0] for row in cursors] == ([cursor] if queue.passed else [])
        # What the cursor says of the claims: nobody looks before that.
        for _, first_claim, next_expiry in cursors:
            for number, *_, lease_until in claims:
                assert first_claim is not None and first_claim <= number
                assert next_expiry is not None and next_expiry <= lease_until

        # Every place that an event has.
        places = {event.number: [] for event in log}
        for event in log:
            if event.position > cursor:
                places[event.number].append("not reached")
        tokens = {row[0]: row[1] for row in claims}
        held = {token: set() for token in tokens.values()}
        for position, event_id, attempt, due, number, failures in deliveries:
            event = by_position[position]
            assert event.id == event_id
            assert failures == attempt - (number is not None)     # as many are kept as were used up
            if number is None:
                places[event.number].append(("waiting", attempt, due))
            else:
                places[event.number].append(("held", attempt, tokens[number]))
                held[tokens[number]].add(event.number)
        for _, token, after_position, up_to, settled, *_ in claims:
            for event in log:
                if after_position is not None and after_position < event.position <= up_to and (
                        queue.matches(event) and event.position not in settled):
                    places[event.number].append(("held", 1, token))
                    held[token].add(event.number)
        for position, _, status, error_type, reason, retry_count, _ in letters:
            if status == "dead":
                places[by_position[position].number].append(("dead", error_type, reason, retry_count))

        holder = {number: claim.token for claim in queue.claims for number in claim.held}
        for place, event in enumerate(log):
            delivery = queue.deliveries.get(event.number)
            if place >= queue.passed:
                expected = ["not reached"]
            elif delivery is None or delivery.state == "done":
                expected = []
            elif delivery.state == "waiting":
                expected = [("waiting", delivery.attempt, self.due_of(queue, delivery, places[event.number]))]
            elif delivery.state == "held":
                expected = [("held", delivery.attempt, holder[event.number])]
            else:
                expected = [("dead", *delivery.letter[1:4])]
            assert places[event.number] == expected, (queue.name, event.number, places[event.number], expected)
            assert place < queue.passed or delivery is None or (delivery.state, delivery.attempt) == ("waiting", 0)

        assert {token: (held[token], remaining, has_deliveries, worker, lease)
                for _, token, _, _, _, remaining, has_deliveries, worker, lease, _ in claims} == {
            claim.token: (set(claim.held), len(claim.held), claim.has_deliveries, claim.consumer,
                          (claim.lease_until - now) // 100) for claim in queue.claims}
        assert {by_position[row[0]].number: row[2:] for row in letters} == {
            number: delivery.letter for number, delivery in queue.deliveries.items() if delivery.letter}

    def due_of(self, queue, delivery, found):
        """When a delivery has to be due; with an order, that of found where it may differ."""
        due = (delivery.due[0] - Database.offset) // 100
        if queue.policy.ordered and due <= 0 and len(found) == 1 and found[0][0] == "waiting":
            waits = queue.behind(delivery) or queue.holds_key(delivery.key)
            if found[0][2] is None and waits or found[0][2] is not None and found[0][2] <= 0:
                return found[0][2]
        return due


class PullModel(unittest.TestCase):
    def test_a_pull_subscription_does_what_the_model_does(self):
        run_model(Bus, examples=100)


if __name__ == "__main__":
    unittest.main()
