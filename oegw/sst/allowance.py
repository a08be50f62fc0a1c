"""How often something may happen that strangers can cause."""

from __future__ import annotations


class Allowance:
    """``burst`` times at once, and ``per_second`` from then on."""

    def __init__(self, per_second: float, burst: float) -> None:
        self._per_second = per_second
        self._burst = burst
        self._left = burst
        self._at: float | None = None

    def take(self, now: float) -> bool:
        """Use one; False if there is none."""
        if self._at is not None:
            gained = max(0.0, now - self._at) * self._per_second
            self._left = min(self._burst, self._left + gained)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
