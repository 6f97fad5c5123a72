"""What docs/breaker.md says of a circuit breaker, in plain Python.  Times are seconds."""

from collections import Counter, namedtuple

DEFAULTS = {
    "failure_threshold": 5, "open_seconds": 30, "growth": 1, "max_open_seconds": 3600, "decay_seconds": 300, "jitter": 0,
    "half_open_permits": 1, "success_threshold": 1, "permit_seconds": 60, "window": None, "window_size": 100,
    "minimum_calls": 10, "failure_rate": 0, "slow_call_seconds": 0, "slow_rate": 0, "metrics_only": False}
BUCKETS = 10        # of a window of time

Change = namedtuple("Change", "epoch from_state to_state reason")
Answer = namedtuple("Answer", "allowed state retry_at")

# The lines of the state table: (from, to, reason).
PATHS = {
    ("closed", "open", "consecutive_failures"), ("closed", "open", "failure_rate"), ("closed", "open", "slow_rate"),
    ("open", "half-open", "probing"), ("half-open", "closed", "recovered"), ("half-open", "open", "probe_failed"),
    ("half-open", "open", "probe_lost"), ("closed", "closed", "would_open"),
    ("open", "closed", "configured"), ("half-open", "closed", "configured"),
    # whatever it was, an operator may force it; what was held open may be tried, what was held closed is closed
    *((was, held, "forced") for was in ("closed", "open", "half-open") for held in ("closed", "open")),
    *((held, held, reason) for held in ("closed", "open") for reason in ("released", "expired")),
    # one that only measures is not left open
    ("open", "closed", "released"), ("open", "closed", "expired")}


class Breaker:
    def __init__(self, epoch, now):
        self.options = dict(DEFAULTS)
        self.state = "closed"
        self.epoch = epoch
        self.changed_at = now
        self.forced = self.forced_until = None      # open or closed; None: for ever
        self.consecutive = 0
        self.opened_at = self.open_until = None
        self.open_count = 0
        self.open_length = 0
        self.successes = 0          # of probes
        self.out = {}               # probe's permit: end of its lease
        self.told = False           # that it would have opened
        self.clear_window()
        self.changes = []
        self.counters = Counter()
        # the permit that everybody has while it is closed in that epoch
        self.common = lambda epoch: "common"
        # where chance decides: gets the shortest and the longest, gives the open time
        self.choose = lambda shortest, longest: longest

    # ---- from state to state

    def clear_window(self):
        self.calls = []     # that count, (bucket, failed, slow)
        self.kept = []

    def change(self, state, reason, at):
        self.epoch += 1
        self.changes.append(Change(self.epoch, self.state, state, reason))
        self.state = state
        self.changed_at = at
        self.successes = 0
        self.out = {}
        self.told = False
        self.clear_window()
        if state == "closed":
            self.consecutive = 0

    def open(self, reason, at):
        if reason != "probe_lost":
            if self.state == "closed":
                self.open_count -= min(self.open_count, int((at - self.changed_at) // self.options["decay_seconds"]))
            self.open_count += 1
            longest = min(self.options["open_seconds"] * self.options["growth"] ** (self.open_count - 1),
                          self.options["max_open_seconds"])
            self.open_length = self.choose(longest * (1 - self.options["jitter"]), longest)
        self.change("open", reason, at)
        self.opened_at = at
        self.open_until = at + self.open_length

    def end_force(self, reason, now):
        was_open = self.forced == "open"
        self.forced = self.forced_until = None
        if was_open and not self.options["metrics_only"]:
            self.change("open", reason, now)
            self.open_until = now
        else:
            self.change("closed", reason, now)

    def settle(self, now):
        """Lets what is over end."""
        if self.forced_until is not None and self.forced_until <= now:
            self.end_force("expired", now)
        if self.forced:
            return
        # a clock that was set back makes nothing longer
        self.changed_at = min(self.changed_at, now)
        if self.state == "open":
            self.open_until = min(self.open_until, now + self.open_length)
        self.out = {permit: min(end, now + self.options["permit_seconds"]) for permit, end in self.out.items()}
        lost = [end for end in self.out.values() if end <= now]
        if lost:
            self.open("probe_lost", min(lost))

    # ---- what callers do

    def acquire(self, now):
        """Of a probe the caller then tells the permit to `hand_out`."""
        self.settle(now)
        if self.state == "closed":
            return Answer(True, "closed", None)
        if self.forced:
            retry_at = self.forced_until
        else:
            if self.state == "open" and self.open_until <= now:
                self.change("half-open", "probing", now)
            if self.state == "half-open" and len(self.out) < self.options["half_open_permits"]:
                self.counters["probes"] += 1
                return Answer(True, "half-open", None)
            retry_at = self.open_until if self.state == "open" else min([now + 1] + list(self.out.values()))
        self.counters["rejected"] += 1
        return Answer(False, self.state, retry_at)

    def hand_out(self, permit, now):
        self.out[permit] = now + self.options["permit_seconds"]

    def report(self, now, permit, outcome, slow=False):
        self.settle(now)
        self.counters["slow"] += slow
        if not (permit == self.common(self.epoch) if self.state == "closed" else permit in self.out):
            self.counters["late"] += 1
            return
        self.counters[outcome if outcome == "ignored" else outcome + ("s" if outcome == "failure" else "es")] += 1
        if self.state == "closed":
            if not self.forced and outcome != "ignored":
                self.count(now, outcome == "failure", slow)
            return
        del self.out[permit]
        if outcome == "failure" or outcome == "success" and slow and self.options["slow_rate"]:
            self.consecutive += 1
            self.open("probe_failed", now)
        elif outcome == "success":
            self.successes += 1
            if self.successes >= self.options["success_threshold"]:
                self.change("closed", "recovered", now)

    def count(self, now, failed, slow):
        options = self.options
        self.consecutive = self.consecutive + 1 if failed else 0
        if options["window"] == "count":
            self.calls = (self.calls + [(0, failed, slow)])[-options["window_size"]:]
        elif options["window"] == "time":
            bucket = now // (options["window_size"] / BUCKETS)
            # one stretch takes the place of another that is a whole number of windows away
            self.kept = [call for call in self.kept if call[0] == bucket or (call[0] - bucket) % BUCKETS] + [(bucket, failed, slow)]
            # what lies ahead, after the clock was set back, counts when it comes
            self.calls = [call for call in self.kept if bucket - BUCKETS < call[0] <= bucket]
        enough = options["window"] and len(self.calls) >= options["minimum_calls"]
        if 0 < options["failure_threshold"] <= self.consecutive:
            reason = "consecutive_failures"
        elif enough and options["failure_rate"] and self.failures >= options["failure_rate"] * len(self.calls):
            reason = "failure_rate"
        elif enough and options["slow_rate"] and self.slow >= options["slow_rate"] * len(self.calls):
            reason = "slow_rate"
        else:
            return
        if not options["metrics_only"]:
            self.open(reason, now)
        elif not self.told:
            self.told = True
            self.changes.append(Change(self.epoch, self.state, self.state, "would_open"))

    @property
    def failures(self):
        return sum(failed for _, failed, _ in self.calls)

    @property
    def slow(self):
        return sum(slow for _, _, slow in self.calls)

    # ---- what operators do

    def force(self, now, state, until=None):
        self.settle(now)
        if state == "auto":
            if self.forced:
                self.end_force("released", now)
            return
        self.forced, self.forced_until = state, until
        self.change(state, "forced", now)
        if state == "open":
            self.opened_at = now

    def configure(self, now, options):
        self.options = {**DEFAULTS, **options}
        self.settle(now)
        self.clear_window()
        if self.options["metrics_only"] and not self.forced and self.state != "closed":
            self.change("closed", "configured", now)
