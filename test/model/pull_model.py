"""What the model of pull subscriptions knows: events, deliveries, claims, queues.

A time is (seconds, number of the statement that set it), the seconds being
those by which the clock is shifted.
"""


class Policy:
    def __init__(self, types, max_attempts, base_delay, multiplier, max_age=None, order_key=None, on_dead="skip"):
        self.types = types
        self.options = {"max_attempts": max_attempts, "base_delay": base_delay, "multiplier": multiplier,
                        "start": "earliest", "on_dead": on_dead}
        if max_age:
            self.options["max_age"] = max_age
        if order_key:
            self.options["order_key"] = "detail." + order_key
        self.max_attempts = max_attempts
        self.max_age = max_age
        self.ordered = order_key is not None
        self.block_key = on_dead == "block_key"

    def delay(self, attempt):
        """After a failed attempt."""
        return self.options["base_delay"] * self.options["multiplier"] ** (attempt - 1)


class Event:
    def __init__(self, number, account, event_id, detail_type, dish, deliver_after):
        self.number = number                # in detail
        self.account = account
        self.id = event_id
        self.detail_type = detail_type
        self.dish = dish                    # the order key; None: it has none
        self.deliver_after = deliver_after  # None: at once
        self.position = None                # read from the log

    def detail(self):
        return {"number": self.number, "dish": self.dish}


class Delivery:
    """What one subscription has of one event.  state: waiting, held, dead or done."""

    def __init__(self, event, policy, state, attempt=0, due=None):
        self.event = event
        self.policy = policy
        self.state = state
        self.attempt = attempt      # the one that runs or ran last
        self.due = due
        self.key = event.dish if policy.ordered else None
        self.corrected = None       # detail that is handed out in place of the event's own
        self.failed_at = None       # the first time
        self.letter = None          # [status, error type, reason, retry count, alerts]

    def is_due(self, now):
        return self.state == "waiting" and self.due[0] <= now[0]

    def blocks(self):
        """Whether later events of its key have to wait."""
        return self.state in ("waiting", "held") or self.state == "dead" and self.policy.block_key

    def fail(self, now, permanent, retry_after=None):
        """Returns what mp_fail does."""
        if self.failed_at is None:
            self.failed_at = now[0]
        delay = self.policy.delay(self.attempt)
        if permanent:
            return self.die("permanent", "permanent")
        if self.attempt >= self.policy.max_attempts:
            return self.die("transient", "max_attempts")
        if self.policy.max_age and now[0] - self.failed_at + delay > self.policy.max_age:
            return self.die("transient", "max_age")
        self.state = "waiting"
        self.due = (now[0] + (delay if retry_after is None else retry_after), now[1])
        return "retry"

    def finish(self):
        self.state = "done"
        if self.letter:
            self.letter[0] = "resolved"

    def replay(self, now):
        self.state = "waiting"
        self.attempt = 0
        self.due = now
        self.failed_at = None
        self.letter[0] = "replaying"
        if not self.policy.block_key:
            self.key = None         # it has given its place in the order up

    def die(self, error_type, reason):
        self.state = "dead"
        # one that is reopened raises an alert of its own
        self.letter = ["dead", error_type, reason, self.attempt - 1, (self.letter[4] if self.letter else 0) + 1]
        return "dead"


class Claim:
    def __init__(self, queue, token, consumer, held, from_log, stretch, lease_until):
        self.queue = queue
        self.token = token
        self.consumer = consumer
        self.held = held                # {number of the event: Delivery}
        self.from_log = from_log        # numbers of events that were no deliveries
        self.stretch = stretch          # places in the log (first, behind the last), or None
        self.has_deliveries = len(held) > len(from_log)
        self.given_back = set()         # numbers of events that left it without an acknowledgement
        # Whatever becomes of these events, their keys are the claim's to its end.
        self.keys = {held[number].key for number in from_log} - {None}
        self.lease_until = lease_until

    def __repr__(self):
        return "%s of %s" % (self.token, self.queue)

    def is_live(self, now):
        return self in self.queue.claims and self.lease_until > now[0]

    def settle(self, number):
        del self.held[number]
        if not self.held:
            self.queue.claims.remove(self)

    def fail(self, number, now, permanent, retry_after):
        delivery = self.held[number]
        outcome = delivery.fail(now, permanent, retry_after)
        self.given_back.add(number)
        self.settle(number)
        if delivery.key and number in self.from_log and delivery.blocks():
            # Later events of its key leave the claim: they were not tried.
            for later in [d for n, d in self.held.items()
                          if n > number and n in self.from_log and d.key == delivery.key]:
                later.state, later.attempt, later.due = "waiting", later.attempt - 1, now
                self.given_back.add(later.event.number)
                self.settle(later.event.number)
        return outcome


class Queue:
    """One subscription in one account."""

    def __init__(self, account, name, policy, log):
        self.account = account
        self.name = name
        self.policy = policy
        self.log = log
        self.passed = 0         # events of the log that were read
        self.deliveries = {}    # by number of the event: the passed ones that match; ordered: all that match
        self.claims = []        # whose rows are there

    def __repr__(self):
        return "%s in %s" % (self.name, self.account)

    def matches(self, event):
        return event.detail_type in self.policy.types

    def expire(self, now):
        over = [claim for claim in self.claims if claim.lease_until <= now[0]]
        for claim in over:
            self.claims.remove(claim)
            for delivery in claim.held.values():
                delivery.fail(now, permanent=False)
        return over

    def is_done(self):
        return self.passed == len(self.log) and not self.claims and not any(
            delivery.state == "waiting" for delivery in self.deliveries.values())

    # ---- without an order key: what a claim gets is known beforehand

    def check_claim(self, found, limit, now):
        """found: (Event, attempt) of each row.  Returns which of them were in the log."""
        due = sorted((d for d in self.deliveries.values() if d.is_due(now)), key=lambda d: d.due)
        taken = []
        reached = self.passed
        while len(due) + len(taken) < limit and reached < len(self.log):
            event = self.log[reached]
            if self.matches(event) and (event.deliver_after is None or event.deliver_after[0] <= now[0]):
                taken.append(event)
            reached += 1
        count = min(limit, len(due))
        assert [(e.number, attempt) for e, attempt in found[count:]] == [(e.number, 1) for e in taken]

        # Of what one statement made due at the same time any may come first.
        chosen = [self.deliveries[event.number] for event, _ in found[:count]]
        assert all(delivery in due for delivery in chosen)
        assert sorted(d.due for d in chosen) == [d.due for d in due[:count]]
        assert [(e.number, attempt) for e, attempt in found[:count]] == [
            (d.event.number, d.attempt + 1) for d in sorted(chosen, key=lambda d: d.event.number)]

        # Read, though not handed out: delayed.
        for event in self.log[self.passed:reached]:
            if self.matches(event):
                self.deliveries[event.number] = Delivery(event, self.policy, "waiting",
                                                         due=now if event in taken else event.deliver_after)
        self.passed = reached
        return {event.number for event in taken}

    # ---- with an order key: what a claim gets must keep to the order

    def know_all(self):
        """Events of the log that nobody has got yet wait like any other."""
        for event in self.log:
            if self.matches(event) and event.number not in self.deliveries:
                self.deliveries[event.number] = Delivery(event, self.policy, "waiting",
                                                         due=event.deliver_after or (0, 0))

    def behind(self, delivery):
        """What a delivery has to wait for."""
        return [] if delivery.key is None else [
            d for d in self.deliveries.values()
            if d.key == delivery.key and d.event.number < delivery.event.number and d.blocks()]

    def holds_key(self, key):
        """Whether a claim holds it."""
        return key is not None and any(
            key in claim.keys or any(d.key == key for d in claim.held.values()) for claim in self.claims)

    def check_ordered_claim(self, found, limit, now, ended_some):
        self.know_all()
        got = [self.deliveries[event.number] for event, _ in found]
        assert len(found) <= limit and len({d.event.number for d in got}) == len(found)
        for place, (delivery, (event, attempt)) in enumerate(zip(got, found)):
            assert delivery.is_due(now), "%d is not due" % event.number
            assert attempt == delivery.attempt + 1
            assert not self.holds_key(delivery.key), "%d: its key is held by another claim" % event.number
            assert all(before in got[:place] for before in self.behind(delivery)), "%d is out of order" % event.number
        # What may be handed out is, as far as there is room.  (What waited for a
        # lease that this call has ended is due only now.)
        if len(got) < limit and not ended_some:
            for delivery in self.deliveries.values():
                assert delivery in got or not delivery.is_due(now) or self.behind(delivery) or self.holds_key(
                    delivery.key), "%d was forgotten" % delivery.event.number
