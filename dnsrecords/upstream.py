"""What is known of one name server: whether its word about DNSSEC counts, and how it does.

Told the time; `resolver` writes it down, and asks in the order of `in_order`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from dnsrecords.outcome import IPAddress

# Our choices.
DEAD_TIMEOUTS = 3  # in a row, and
DEAD_SILENCE = 4.0  # times the time-out of a first try without a word: then it counts as dead
PROBE_INTERVAL = 5.0  # seconds between two questions to find out whether it is back
_SMOOTHING = 0.25  # the share of the newest answer's time in the average


class Standing(Enum):
    """The order of these is the order in which servers are asked."""

    GOOD = "good"
    SLOW = "slow"  # answers, and takes longer than a first try waits
    DEAD = "dead"  # does not answer


@dataclass(frozen=True, slots=True)
class ServerReport:
    """One server in the status.  ``last_answer`` is a moment of the resolver's clock; seconds."""

    address: IPAddress
    trusted: bool
    standing: Standing
    last_answer: float | None
    timeouts: int  # in a row
    smoothed: float | None
    queries: int
    answers: int
    refused: int  # responses that were not to our query, or could not be read: a liar's, mostly


class Upstream:
    """One server.  ``trusted``: it validates, and nobody is in between (RFC 4033 section 7)."""

    def __init__(self, address: IPAddress, *, trusted: bool, timeout: float) -> None:
        self.address = address
        self.trusted = trusted
        self._timeout = timeout
        self.queries = 0
        self.answers = 0
        self.refused = 0
        self.timeouts = 0
        self.smoothed: float | None = None
        self.last_answer: float | None = None
        self._silent_since: float | None = None  # when the first query without an answer was sent
        self._dead = False
        self._next_probe = 0.0

    @property
    def standing(self) -> Standing:
        if self._dead:
            return Standing.DEAD
        slow = self.smoothed is not None and self.smoothed > self._timeout
        return Standing.SLOW if slow else Standing.GOOD

    def asked(self, now: float) -> None:
        self.queries += 1
        if self._silent_since is None:
            self._silent_since = now

    def answered(self, now: float, seconds: float) -> None:
        """A response to a query that was sent ``seconds`` ago."""
        self.answers += 1
        self.last_answer, self.timeouts, self._silent_since = now, 0, None
        self._dead = False
        if self.smoothed is None:
            self.smoothed = seconds
        else:
            self.smoothed += _SMOOTHING * (seconds - self.smoothed)

    def timed_out(self, now: float) -> None:
        """A try was given up, or the server's host refused it."""
        self.timeouts += 1
        silent = 0.0 if self._silent_since is None else now - self._silent_since
        if self.timeouts >= DEAD_TIMEOUTS and silent >= DEAD_SILENCE * self._timeout:
            if not self._dead:
                self._next_probe = now + PROBE_INTERVAL
            self._dead = True

    def probe_due(self, now: float) -> bool:
        """Whether one that is asked last should get a question nevertheless; remembers that."""
        if self.standing is Standing.GOOD or now < self._next_probe:
            return False
        self._next_probe = now + PROBE_INTERVAL
        return True

    def report(self) -> ServerReport:
        return ServerReport(
            self.address,
            self.trusted,
            self.standing,
            self.last_answer,
            self.timeouts,
            self.smoothed,
            self.queries,
            self.answers,
            self.refused,
        )


def in_order(upstreams: Iterable[Upstream]) -> list[Upstream]:
    """Whom to ask first: who lives, then who is trusted, then who is quick, then as configured.

    A trusted server that is slow comes before a quick one that nobody can believe: else whoever
    can slow the first one down chooses our answers.
    """
    rank = {Standing.GOOD: 0, Standing.SLOW: 1, Standing.DEAD: 2}
    return sorted(
        upstreams,
        key=lambda each: (
            each.standing is Standing.DEAD,
            not each.trusted,
            rank[each.standing],
        ),
    )
