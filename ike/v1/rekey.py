"""When a successor is made, and how long the replaced one still receives.

    established                     margin begins                              lifetime over
    |------------------------------------|--I--I--|--------------|-R-|---------|

The initiator asks at a random moment in the first third of the margin, the responder
near the end of it.  So both ask at once hardly ever, and the successors of what was made
at one time are not made at one time (RFC 4322 section 3.4.1).
"""

from __future__ import annotations

from collections.abc import Callable

from ike.constants import (
    CHANNEL_REUSE_MARGIN,
    REKEY_FRACTION,
    REKEY_INTERVAL,
    REKEY_MARGIN,
    REKEY_SHORTEST_INTERVAL,
    RETIRE_FRACTION,
    RETIRE_GRACE,
    REUSE_FRACTION,
)

_INITIATOR = (0.0, 1 / 3)  # between which parts of the margin to ask first
_RESPONDER = (3 / 4, 7 / 8)
_OFTEN = 6  # attempts with the short interval; then it is six times as long


class Margin:
    """The moments at which a successor is asked for: first once, then until there is one."""

    def __init__(
        self,
        begun: float,
        lifetime: float,
        initiator: bool,
        random_octets: Callable[[int], bytes],
    ) -> None:
        margin = min(REKEY_MARGIN, lifetime * REKEY_FRACTION)
        low, high = _INITIATOR if initiator else _RESPONDER
        fraction = int.from_bytes(random_octets(4), "big") / (1 << 32)
        self.first = begun + lifetime - margin + margin * (low + (high - low) * fraction)
        self._interval = max(REKEY_SHORTEST_INTERVAL, min(REKEY_INTERVAL, margin / _OFTEN))
        self._asked = 0

    def asked(self, now: float) -> float:
        """Note that it was asked for; says when to ask again."""
        self._asked += 1
        return now + self._interval * (1 if self._asked <= _OFTEN else _OFTEN)


def grace(lifetime: float) -> float:
    """Seconds from "a successor is up" to the end of the replaced one."""
    return min(RETIRE_GRACE, lifetime * RETIRE_FRACTION)


def reuse_margin(lifetime: float) -> float:
    """A channel with less left than these seconds is not used for a new tunnel."""
    return min(CHANNEL_REUSE_MARGIN, lifetime * REUSE_FRACTION)
