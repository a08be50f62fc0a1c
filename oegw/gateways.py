"""Which gateways were silent lately: they are tried after the others, until their silence is over.

One memory for all pairs: what the first pair has waited for, the others need not (RFC 4322
section 3.2.5).  A silence is over when its lifespan is, or when the gateway proves that it lives.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from dnsrecords.outcome import Gateway
from policy.flow import IPAddress

# Our choices.
SILENT_MOST = 4096  # gateways remembered; of more, those silent for the longest are forgotten
SOONEST = 1.0  # seconds that a silence lasts at least, however long the try was that noticed it


class Choice(Enum):
    """Which of several tunnels of one pair sends (the option's number in RFC 4322 section 8)."""

    ROUND_ROBIN = "round-robin"  # 1: each in turn
    RECEIVED = "received"  # 2: the gateway from which we received most recently
    REKEYED = "rekeyed"  # 5: the gateway that most recently keyed with us


@dataclass(frozen=True, slots=True)
class MultihomingSettings:
    """``turn``: seconds between two looks at the counters, at which options 1 and 2 choose.
    ``patience``: seconds that all gateways of a destination have together to agree on a tunnel."""

    choice: Choice = Choice.REKEYED
    turn: float = 5.0
    patience: float = 60.0


class SilentGateways:
    """Told the time; ``most`` bounds the memory."""

    def __init__(self, most: int = SILENT_MOST) -> None:
        self._most = most
        self._until: OrderedDict[IPAddress, float] = OrderedDict()  # oldest news first
        self._next: float | None = None

    def __len__(self) -> int:
        return len(self._until)

    def fell_silent(
        self, gateway: IPAddress, lifespan: float, now: float, since: float | None = None
    ) -> float:
        """Nothing came back from it; returns when the silence is over.

        ``since``: when we began to try; the lifespan counts from there, so that one who is tried
        again and again is tried once in each lifespan.
        """
        until = max(now + SOONEST, (now if since is None else since) + lifespan)
        self._until[gateway] = until
        self._until.move_to_end(gateway)
        if len(self._until) > self._most:
            self._until.popitem(last=False)
        self._changed()
        return until

    def heard(self, gateway: IPAddress) -> bool:
        """It has proven that it lives; returns whether it counted as silent."""
        known = self._until.pop(gateway, None) is not None
        if known:
            self._changed()
        return known

    def silent(self, gateway: IPAddress | None, now: float) -> bool:
        return gateway is not None and self._until.get(gateway, now) > now

    def take_over(self, now: float) -> list[IPAddress]:
        """Forget the silences that are over by now; returns whose they were."""
        over = [gateway for gateway, until in self._until.items() if until <= now]
        for gateway in over:
            del self._until[gateway]
        self._changed()
        return over

    def next_over(self) -> float | None:
        """When the next silence is over."""
        return self._next

    def left(self, now: float) -> dict[IPAddress, float]:
        """The seconds that each silence lasts on, for status."""
        return {gateway: until - now for gateway, until in self._until.items() if until > now}

    def _changed(self) -> None:
        self._next = min(self._until.values(), default=None)

    def in_order(self, gateways: Sequence[Gateway], now: float) -> list[Gateway]:
        """Those of whom nothing bad is known first; else the order stays."""
        return sorted(gateways, key=lambda gateway: self.silent(gateway.address, now))
