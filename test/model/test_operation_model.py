"""Idempotent operations against a plain Python model: begin, complete, release, mark.

Three sessions, in transactions of all levels or outside of any, begin operations
under a few keys, complete and release them with tokens old and new, and mark
events as processed.  Every answer is compared, and afterwards what is remembered.
Buckets are purged at any time, which must change neither.

A transaction that keeps to one snapshot may be refused with 40001, but only when
somebody else has written after it began; an answer, when it gets one, is the one
that is true now.

Time is the shifted clock.  It moves by hundreds of seconds to days, so that the
seconds which really pass meanwhile decide nothing.

MP_MODEL_EXAMPLES sets how many sequences are tried (default 120).
"""

import copy
import itertools
import json
import unittest

import psycopg2
from database import Database, run_model
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

SESSIONS = 3
DAY = 86400
STRICTNESS = ["retry", "verify", "block"]
FOREVER = float("inf")

accounts = itertools.count()


def setUpModule():
    global sessions
    sessions = [Database() for _ in range(SESSIONS)]
    for database in sessions:
        # who waits for a key is told so
        database.run("SET lock_timeout = '20ms'")


class Record:
    """What is known of a key."""

    def __init__(self, request, wish, attempt, token, ttl, begun_at, lease_until):
        self.request, self.wish, self.attempt, self.token, self.ttl = request, wish, attempt, token, ttl
        self.begun_at, self.lease_until = begun_at, lease_until
        self.completed = False
        self.result = None
        self.expires_at = None

    def complete(self, result, now):
        self.completed = True
        self.result = result
        self.lease_until = None
        self.expires_at = now + self.ttl

    def shown(self, now):
        return (self.completed, self.wish, self.attempt, self.token, self.result if self.completed else self.request,
                None if self.completed else round((self.lease_until - now) / 100),
                None if self.expires_at == FOREVER else round((self.expires_at - now) / 100))


class Transaction:
    def __init__(self, level, writes):
        self.level = level
        self.writes = writes    # of others when its snapshot was taken
        self.before = {}        # what it has written or locked: what was there


class Contention(Exception):
    """40001, where it may be."""


class Operations(RuleBasedStateMachine):
    @initialize()
    def begin(self):
        self.account = "operations %d" % next(accounts)
        self.records = {}                           # by key
        self.transactions = [None] * SESSIONS       # that are open
        self.writes = 0                             # that were committed
        self.written = {}                           # key: the last of them
        self.tokens = []                            # that were given, with their keys

    @property
    def now(self):
        return Database.offset

    # ---- transactions

    def holder(self, key):
        """Who has the key's lock."""
        return next((number for number, transaction in enumerate(self.transactions)
                     if transaction and key in transaction.before), None)

    def committed(self, number, key):
        """As that session sees it."""
        holder = self.holder(key)
        record = self.records.get(key) if holder in (None, number) else self.transactions[holder].before[key]
        return record if record and record.expires_at > self.now else None

    def take(self, number, key):
        """The key is that session's, to the end of its transaction."""
        transaction = self.transactions[number]
        if transaction:
            transaction.before.setdefault(key, copy.copy(self.records.get(key)))

    def write(self, number, key, record):
        if not self.transactions[number]:
            self.writes += 1
            self.written[key] = self.writes
        if record:
            self.records[key] = record
        else:
            self.records.pop(key, None)

    def rows(self, number, query, *arguments, key=None):
        """Runs it; the error's code is raised as such.  Contention only where there can be any."""
        transaction = self.transactions[number]
        try:
            return sessions[number].rows(query, *arguments)
        except psycopg2.Error as error:
            if transaction:
                self.roll_back(number)
            if error.pgcode != "40001":
                raise
            assert transaction and transaction.level != "READ COMMITTED", "contention without a snapshot: %s" % error
            # of others' keys, too, when it is serializable
            last = self.written.get(key, 0) if transaction.level == "REPEATABLE READ" else self.writes
            assert last > transaction.writes, "contention with nobody: %s" % error
            raise Contention from None

    def roll_back(self, number):
        transaction = self.transactions[number]
        sessions[number].run("ROLLBACK")
        sessions[number].shifted = None     # which may have undone it
        for key, record in transaction.before.items():
            if record:
                self.records[key] = record
            else:
                self.records.pop(key, None)
        self.transactions[number] = None

    def commit_or_roll_back(self, number, commit):
        transaction = self.transactions[number]
        if not commit:
            self.roll_back(number)
            return
        try:
            self.rows(number, "COMMIT; SELECT 1")
        except Contention:
            return
        self.transactions[number] = None
        for key in transaction.before:
            self.writes += 1
            self.written[key] = self.writes

    session = st.integers(0, SESSIONS - 1)
    keys = st.sampled_from(["a", "a", "b", "c"])

    @rule(number=session, level=st.sampled_from(["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]),
          commit=st.sampled_from([True, True, False]))
    def begin_or_end_a_transaction(self, number, level, commit):
        if self.transactions[number]:
            self.commit_or_roll_back(number, commit)
        else:
            sessions[number].run("BEGIN ISOLATION LEVEL " + level + "; SELECT 1")
            self.transactions[number] = Transaction(level, self.writes)

    # ---- calls

    def refused(self, code, number, query, *arguments):
        try:
            found = self.rows(number, query, *arguments, key=arguments[0])
        except Contention:
            return
        except psycopg2.Error as error:
            assert error.pgcode == code, (code, error)
        else:
            raise AssertionError("no %s but %s" % (code, found))

    def is_busy(self, number, key, if_busy, skipped, query, *arguments):
        """Somebody else's open transaction has the key: whether that was all."""
        if self.holder(key) in (None, number):
            return False
        if if_busy == "skip":
            try:
                assert self.rows(number, query, *arguments, key=key) == [(skipped,)]
            except Contention:
                pass
        else:
            self.refused("MP409" if if_busy == "fail" else "55P03", number, query, *arguments)
        return True

    def note_token(self, key, token):
        assert all(token > other for other, _ in self.tokens), "tokens rise"
        self.tokens.append((token, key))

    ttls = st.sampled_from([1000, 1000, 80000, DAY, 5 * DAY])
    leases = st.sampled_from([0, 300, 300, 2000, 50000])
    wishes = st.sampled_from(["retry", "retry", "verify", "block"])
    busies = st.sampled_from(["wait", "fail", "skip"])

    @rule(number=session, key=keys, request=st.sampled_from([None, 1, 1, 2]), ttl=ttls, lease=leases, wish=wishes,
          if_busy=busies, then=st.sampled_from(["leave", "leave", "complete"]))
    def begin_operation(self, number, key, request, ttl, lease, wish, if_busy, then):
        query = """SELECT mp_begin_operation('op', %s, %s, %s, %s, %s, %s, %s)"""
        arguments = (key, None if request is None else json.dumps(request), ttl, lease, wish, self.account, if_busy)
        if self.is_busy(number, key, if_busy, {"status": "in_progress", "retry_after": 1}, query, *arguments):
            return
        record = self.committed(number, key)
        if record and record.request != request:
            self.refused("MP422", number, query, *arguments)
            return
        strictest = max(wish, record.wish, key=STRICTNESS.index) if record else wish
        lost = record and not record.completed and record.lease_until <= self.now
        if lost and strictest == "block":
            self.refused("MP409", number, query, *arguments)
            return
        try:
            answer = self.rows(number, query, *arguments, key=key)[0][0]
        except Contention:
            return
        self.take(number, key)
        if record and record.completed:
            assert answer == {"status": "completed", "result": record.result}
            return
        if record and not lost:
            assert answer["status"] == "in_progress" and abs(answer["retry_after"] - (record.lease_until - self.now)) < 60
            return
        assert answer["status"] == ("verify" if lost and strictest == "verify" else "started"), answer
        attempt = record.attempt + 1 if record else 1
        assert answer["attempt"] == attempt
        if answer["status"] == "verify":
            assert answer["request"] == record.request
        self.note_token(key, answer["token"])
        # what an owner wanted for its loss is not forgotten with it
        new = Record(request, strictest, attempt, answer["token"], ttl, record.begun_at if record else self.now, self.now + lease)
        new.expires_at = self.now + max(ttl, lease) if strictest == "retry" else FOREVER
        self.write(number, key, new)
        if then == "complete":
            self.complete_with(number, answer["token"], key, "done")

    def complete_with(self, number, token, key, result):
        query = "SELECT mp_complete_operation(%s, %s)"
        arguments = (token, json.dumps(result))
        record = self.committed(number, key)
        owns = record and record.token == token
        if owns and self.holder(key) not in (None, number):
            self.refused_token("55P03", number, key, query, *arguments)
            return
        try:
            answer = self.rows(number, query, *arguments, key=key)[0][0]
        except Contention:
            return
        if not owns:
            assert answer is False, "a token that is fenced off completes"
            return
        self.take(number, key)
        if record.completed:
            assert answer == (record.result == result)
            return
        assert answer is True
        done = copy.copy(record)
        done.complete(result, self.now)
        self.write(number, key, done)

    def refused_token(self, code, number, key, query, *arguments):
        try:
            self.rows(number, query, *arguments, key=key)
        except Contention:
            return
        except psycopg2.Error as error:
            assert error.pgcode == code, error
        else:
            raise AssertionError("no " + code)

    def draw_token(self, data):
        """One that owns something, more often than a zombie's."""
        owning = [(record.token, key) for key, record in self.records.items() if record.token]
        return data.draw(st.sampled_from(owning * 3 + self.tokens[-8:]))

    @precondition(lambda self: self.tokens)
    @rule(data=st.data(), number=session, result=st.sampled_from(["done", "other", None]))
    def complete(self, data, number, result):
        self.complete_with(number, *self.draw_token(data), result)

    @precondition(lambda self: self.tokens)
    @rule(data=st.data(), number=session)
    def release(self, data, number):
        token, key = self.draw_token(data)
        query = "SELECT mp_release_operation(%s)"
        record = self.committed(number, key)
        owns = record and record.token == token
        if owns and self.holder(key) not in (None, number):
            self.refused_token("55P03", number, key, query, token)
            return
        try:
            answer = self.rows(number, query, token, key=key)[0][0]
        except Contention:
            return
        assert answer == bool(owns and not record.completed)
        if owns:
            self.take(number, key)
        if answer:
            self.write(number, key, None)

    @rule(number=session, key=keys, ttl=ttls, if_busy=busies, result=st.sampled_from([None, "marked"]))
    def mark(self, number, key, ttl, if_busy, result):
        query = "SELECT mp_mark_processed(%s, 'op', %s, %s, %s, %s)"
        arguments = (key, ttl, None if result is None else json.dumps(result), self.account, if_busy)
        if self.is_busy(number, key, if_busy, None, query, *arguments):
            return
        record = self.committed(number, key)
        if record and not record.completed and (record.lease_until > self.now or record.wish != "retry"):
            self.refused("MP409", number, query, *arguments)
            return
        try:
            answer = self.rows(number, query, *arguments, key=key)[0][0]
        except Contention:
            return
        self.take(number, key)
        assert answer == (not (record and record.completed))
        if answer:
            marked = Record(None, "retry", record.attempt + 1 if record else 1, None, ttl, self.now, None)
            marked.complete(result, self.now)
            self.write(number, key, marked)

    @rule(number=session, key=keys)
    def check(self, number, key):
        record = self.committed(number, key)
        try:
            answer = self.rows(number, "SELECT mp_check_processed(%s, 'op', %s)", key, self.account, key=key)[0][0]
        except Contention:
            return
        assert answer == bool(record and record.completed)

    # ---- time

    @rule(seconds=st.sampled_from([100, 100, 1000, 3600, 43200, DAY]))
    def advance(self, seconds):
        Database.advance(seconds)

    def next_times(self):
        times = [time for record in self.records.values() for time in (record.lease_until, record.expires_at)]
        return sorted({time for time in times if time is not None and self.now < time < FOREVER})

    @precondition(lambda self: self.next_times())
    @rule(data=st.data())
    def advance_to_what_is_next(self, data):
        Database.advance(data.draw(st.sampled_from(self.next_times())) - self.now)

    @rule(number=session)
    def purge(self, number):
        if not self.transactions[number]:
            sessions[number].run("SELECT meal_planner.sweep_purge()")

    # ---- both show the same

    @invariant()
    def what_is_remembered_is_the_same(self):
        if not hasattr(self, "account"):
            return
        watcher = next((number for number in range(SESSIONS) if not self.transactions[number]), None)
        if watcher is None:
            return
        found = {key: tuple(row) for key, *row in sessions[watcher].rows(
            """SELECT o.key, o.completed_at IS NOT NULL, o.on_owner_lost, o.attempt, o.token,
                      CASE WHEN o.completed_at IS NULL THEN o.request ELSE o.result END,
                      round(extract(epoch FROM o.lease_until - c.now) / 100)::int,
                      CASE WHEN o.expires_at < 'infinity' THEN round(extract(epoch FROM o.expires_at - c.now) / 100)::int END
                 FROM meal_planner.operation o, (SELECT meal_planner.clock() AS now) c
                WHERE o.account = %s AND o.expires_at > c.now""", self.account)}
        records = {key: self.committed(watcher, key) for key in "abc"}
        assert found == {key: record.shown(self.now) for key, record in records.items() if record}

    def teardown(self):
        for number, transaction in enumerate(getattr(self, "transactions", [])):
            if transaction:
                self.roll_back(number)


class OperationModel(unittest.TestCase):
    def test_operations_do_what_the_model_does(self):
        run_model(Operations, examples=120)


if __name__ == "__main__":
    unittest.main()
