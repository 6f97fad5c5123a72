"""The bus against a plain Python model: emit, fail, retry, pause, replay.

Every step is done in the database and in the model, and afterwards both must
show the same effects, deliveries, dead letters and alerts.  Time is the shifted
clock.  It moves by hundreds of seconds and delays are thousands, so that the
seconds which really pass meanwhile decide nothing.

MP_MODEL_EXAMPLES sets how many sequences are tried (default 150).
"""

import json
import unittest

import psycopg2
from database import Database, run_model
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

MAX_ATTEMPTS = 4
BASE_DELAY = 1000
SUBSCRIPTIONS = ("model inline", "model worker")

SETUP = """
CREATE TABLE model_effect (account text, key int, subscription text);

CREATE FUNCTION model_handle(e meal_planner.event, subscription text) RETURNS void
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    -- written first: a failure has to undo it
    INSERT INTO model_effect VALUES (e.account, (e.detail ->> 'key')::int, subscription);
    IF e.detail ->> 'kind' = 'permanent' THEN
        RAISE EXCEPTION 'never' USING ERRCODE = '22000';
    ELSIF e.detail ->> 'kind' = 'transient'
          AND meal_planner.clock() < (e.detail ->> 'heals_at')::timestamptz THEN
        RAISE EXCEPTION 'not yet' USING ERRCODE = 'MPT01';
    END IF;
END
$$;
CREATE FUNCTION model_inline(e meal_planner.event) RETURNS void LANGUAGE plpgsql
SET search_path = public, pg_temp AS $$ BEGIN PERFORM model_handle(e, 'model inline'); END $$;
CREATE FUNCTION model_worker(e meal_planner.event) RETURNS void LANGUAGE plpgsql
SET search_path = public, pg_temp AS $$ BEGIN PERFORM model_handle(e, 'model worker'); END $$;
"""


def setUpModule():
    global database
    database = Database()
    database.run(SETUP)
    options = json.dumps({"max_attempts": MAX_ATTEMPTS, "base_delay": BASE_DELAY, "start": "earliest"})
    pattern = json.dumps({"detail-type": ["Model"]})
    for name, function in zip(SUBSCRIPTIONS, ("model_inline", "model_worker")):
        database.run("SELECT mp_subscribe(%s, %s, %s, %s, %s)", name, pattern,
                     function + "(meal_planner.event)", name.split()[1], options)


class Delivery:
    """What one subscription has of one event."""

    def __init__(self, kind, heals_at):
        self.kind = kind
        self.heals_at = heals_at
        self.effects = 0
        self.attempt = None     # of a delivery row; None: there is no row
        self.due = None
        self.letter = None      # [status, reason, retry_count, replay_count]
        self.alerts = 0

    def schedule(self, due):
        self.attempt, self.due = 0, due

    def succeed(self):
        self.effects += 1
        self.attempt = self.due = None
        if self.letter:
            self.letter[0] = "resolved"

    def die(self, reason, attempt):
        replays = self.letter[3] if self.letter else 0
        self.letter = ["dead", reason, attempt - 1, replays]
        self.attempt = self.due = None
        self.alerts += 1

    def try_once(self, attempt, now):
        if self.kind == "permanent":
            self.die("permanent", attempt)
        elif self.kind == "transient" and now < self.heals_at:
            if attempt >= MAX_ATTEMPTS:
                self.die("max_attempts", attempt)
            else:
                self.attempt = attempt
                self.due = now + BASE_DELAY * 2 ** (attempt - 1)
        else:
            self.succeed()


class Bus(RuleBasedStateMachine):
    examples = 0

    def __init__(self):
        super().__init__()
        Bus.examples += 1
        self.account = "model %d" % Bus.examples
        self.events = []            # (id, {subscription: Delivery})
        self.unseen = []            # keys the worker has not come to
        self.streams = {"a": [], "b": []}
        self.paused = dict.fromkeys(SUBSCRIPTIONS, False)

    def teardown(self):
        for name in SUBSCRIPTIONS:
            database.run("SELECT mp_resume_subscription(%s)", name)
        # not to be carried into the next example
        database.run("DELETE FROM meal_planner.delivery WHERE account = %s", self.account)
        database.run("CALL mp_sweep()")

    @property
    def now(self):
        return database.offset

    def detail(self, key, kind, heals_in):
        return json.dumps({"key": key, "kind": kind, "heals_at": database.value(
            "SELECT (date_trunc('second', meal_planner.clock()) + make_interval(secs => %s))::text", heals_in)})

    @rule(kind=st.sampled_from(["ok", "ok", "transient", "transient", "permanent"]),
          heals_in=st.sampled_from([450, 2450, 6450, 60050]), keyed=st.booleans(),
          stream=st.sampled_from([None, None, "a", "b"]))
    def emit(self, kind, heals_in, keyed, stream):
        key = len(self.events)
        arguments = (self.detail(key, kind, heals_in), self.account, "key %d" % key if keyed else None, stream,
                     len(self.streams[stream]) if stream and not keyed else None)
        emit = """SELECT mp_emit_event('Model', %s, account => %s, idempotency_key => %s, stream => %s,
                                       expected_version => %s)"""
        event_id = database.value(emit, *arguments)
        if keyed:
            # a duplicate answers the same and does nothing
            assert database.value(emit, *arguments) == event_id
        deliveries = {name: Delivery(kind, self.now + heals_in) for name in SUBSCRIPTIONS}
        self.events.append((event_id, deliveries))
        if stream:
            self.streams[stream].append(event_id)
        if self.paused["model inline"]:
            deliveries["model inline"].schedule(self.now)
        else:
            deliveries["model inline"].try_once(1, self.now)
        self.unseen.append(key)

    @rule(stream=st.sampled_from(["a", "b"]), wrong=st.sampled_from([-1, 1, 5]))
    def emit_at_a_wrong_version(self, stream, wrong):
        try:
            database.run("SELECT mp_emit_event('Model', %s, account => %s, stream => %s, expected_version => %s)",
                         self.detail(len(self.events), "ok", 0), self.account, stream,
                         max(len(self.streams[stream]) + wrong, 0 if self.streams[stream] else 1))
        except psycopg2.Error as error:
            assert error.pgcode == "MP409"
        else:
            raise AssertionError("a version that is not the stream's was accepted")

    @rule(seconds=st.sampled_from([100, 900, 1000, 2000, 4000]))
    def advance(self, seconds):
        database.advance(seconds)

    @rule()
    def sweep(self):
        database.run("CALL mp_sweep()")
        for _, deliveries in self.events:
            for name, delivery in deliveries.items():
                if delivery.due is not None and delivery.due <= self.now and not self.paused[name]:
                    delivery.try_once(delivery.attempt + 1, self.now)
        if not self.paused["model worker"]:
            for key in self.unseen:
                self.events[key][1]["model worker"].try_once(1, self.now)
            self.unseen = []

    @rule(name=st.sampled_from(SUBSCRIPTIONS))
    def pause_or_resume(self, name):
        self.paused[name] = not self.paused[name]
        call = "mp_pause_subscription" if self.paused[name] else "mp_resume_subscription"
        database.run("SELECT " + call + "(%s)", name)

    def letters(self, status):
        return [(key, name, delivery) for key, (_, deliveries) in enumerate(self.events)
                for name, delivery in deliveries.items() if delivery.letter and delivery.letter[0] == status]

    def letter_id(self, key, name):
        return database.value("SELECT id FROM mp_dlq WHERE account = %s AND subscription = %s AND event_id = %s",
                              self.account, name, self.events[key][0])

    @precondition(lambda self: self.letters("dead"))
    @rule(data=st.data(), corrected=st.booleans())
    def replay(self, data, corrected):
        key, name, delivery = data.draw(st.sampled_from(self.letters("dead")))
        detail = self.detail(key, "ok", 0) if corrected else None
        answer = database.value("SELECT mp_replay_dlq(%s, %s)", self.letter_id(key, name), detail)
        delivery.letter[0] = "replaying"
        delivery.letter[3] += 1
        if corrected:
            delivery.kind = "ok"
        delivery.try_once(1, self.now)
        assert answer == {"resolved": "done", "dead": "dead", "replaying": "retry"}[delivery.letter[0]]

    @precondition(lambda self: self.letters("dead"))
    @rule(data=st.data())
    def discard(self, data):
        key, name, delivery = data.draw(st.sampled_from(self.letters("dead")))
        database.run("SELECT mp_discard_dlq(%s, 'the model says so')", self.letter_id(key, name))
        delivery.letter[0] = "discarded"

    @precondition(lambda self: self.letters("resolved") or self.letters("discarded"))
    @rule(data=st.data())
    def replay_what_is_settled(self, data):
        settled = self.letters("resolved") + self.letters("discarded")
        key, name, delivery = data.draw(st.sampled_from(settled))
        answer = database.value("SELECT mp_replay_dlq(%s)", self.letter_id(key, name))
        assert answer == delivery.letter[0]

    # ---- both show the same

    def expected(self, row):
        return sorted(found for key, (_, deliveries) in enumerate(self.events)
                      for name, delivery in deliveries.items() for found in row(key, name, delivery))

    def key_of(self, query):
        """Rows of a query whose first column is an event id, by its key."""
        keys = {event_id: key for key, (event_id, _) in enumerate(self.events)}
        return sorted((keys[row[0]],) + tuple(row[1:]) for row in database.rows(query, self.account))

    @invariant()
    def effects_are_the_same(self):
        found = sorted(database.rows("SELECT key, subscription FROM model_effect WHERE account = %s", self.account))
        assert found == self.expected(lambda key, name, d: [(key, name)] * d.effects)

    @invariant()
    def deliveries_are_the_same(self):
        found = self.key_of("""SELECT event_id, subscription, attempt,
                                      round(extract(epoch FROM next_attempt_at - meal_planner.clock()) / 100)::int
                                 FROM meal_planner.delivery WHERE account = %s""")
        assert found == self.expected(
            lambda key, name, d: [] if d.due is None else [(key, name, d.attempt, (d.due - self.now) // 100)])

    @invariant()
    def dead_letters_are_the_same(self):
        found = self.key_of("""SELECT event_id, subscription, status, reason, retry_count, replay_count
                                 FROM mp_dlq WHERE account = %s""")
        assert found == self.expected(lambda key, name, d: [(key, name, *d.letter)] if d.letter else [])

    @invariant()
    def alerts_are_the_same(self):
        found = self.key_of("""SELECT l.event_id, a.subscription FROM meal_planner.alert a
                                 JOIN meal_planner.dead_letter l ON l.account = a.account AND l.id = a.dead_letter_id
                                WHERE a.account = %s""")
        assert found == self.expected(lambda key, name, d: [(key, name)] * d.alerts)
        assert database.value("SELECT coalesce(sum(entries), 0) FROM mp_alerts WHERE account = %s", self.account) == len(found)

    @invariant()
    def attempts_are_kept(self):
        """As many as were used up, and none of what went well."""
        found = self.key_of("""SELECT event_id, subscription, count(*) FROM mp_attempts
                                WHERE account = %s AND live AND counted GROUP BY event_id, subscription""")
        assert found == self.expected(lambda key, name, d: [(key, name, d.attempt)] if d.attempt else [])
        found = self.key_of("""SELECT l.event_id, l.subscription, count(*)
                                 FROM mp_dlq l, mp_dlq_attempts(l.id) a
                                WHERE l.account = %s AND l.status = 'dead' AND a.counted AND a.replay = l.replay_count
                                GROUP BY l.event_id, l.subscription""")
        assert found == self.expected(
            lambda key, name, d: [(key, name, d.letter[2] + 1)] if d.letter and d.letter[0] == "dead" else [])

    @invariant()
    def the_log_is_in_order(self):
        log = database.rows("SELECT event ->> 'id', position FROM mp_read_events(account => %s)", self.account)
        assert [event_id for event_id, _ in log] == [event_id for event_id, _ in self.events]
        assert all(before[1] < after[1] for before, after in zip(log, log[1:]))

    @invariant()
    def streams_have_no_gap(self):
        for stream, ids in self.streams.items():
            found = database.rows("SELECT version, event ->> 'id' FROM mp_read_stream(%s, account => %s)",
                                  stream, self.account)
            assert found == list(enumerate(ids, 1))


class BusModel(unittest.TestCase):
    def test_the_bus_does_what_the_model_does(self):
        run_model(Bus, examples=150, steps=40)


if __name__ == "__main__":
    unittest.main()
