"""The budget of set-ups: look-ups and negotiations that packets from inside give rise to.

A forged source address costs nothing, so limits for each source do not bound the sum.  What
exceeds the budget is dropped, never passed in clear; tunnels that are up have no part in it.
"""

from __future__ import annotations

BURST = 1.0  # our choice: seconds' worth of set-ups that may begin at the same moment


class SetupBudget:
    """``limit`` set-ups under way, ``rate`` begun in a second; both in all, not for each source."""

    def __init__(self, limit: int, rate: float) -> None:
        self._limit = limit
        self._rate = rate
        self._most = max(rate * BURST, 1.0)
        self._left = self._most
        self._at: float | None = None

    def refuses(self, under_way: int, now: float) -> str | None:
        """Take one set-up out of the budget; else the trigger that it is counted under."""
        if under_way >= self._limit:
            return "setups_under_way"
        if self._at is not None:
            self._left = min(self._most, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1.0:
            return "setups_per_second"
        self._left -= 1.0
        return None
