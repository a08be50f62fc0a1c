"""How many questions may be asked, under way and per second.  Told the time.

A stranger's packet, with whatever source it claims, makes us ask.  So what strangers can cause is
bounded, and a part of the whole is kept for what is ours: configured peers, and the renewal of
tunnels that are up.
"""

from __future__ import annotations

# Our choices.
MAX_UNDER_WAY = 256  # questions; each may hold a few sockets
PER_SECOND = 500  # questions; a burst may have those of two seconds
BURST_SECONDS = 2.0
KEPT = 0.25  # the share that strangers don't get


class Budget:
    """A bucket of tokens and a limit of questions under way."""

    def __init__(
        self, under_way: int = MAX_UNDER_WAY, per_second: float = PER_SECOND, kept: float = KEPT
    ) -> None:
        self.under_way = under_way
        self.per_second = per_second
        self._kept = kept
        self._size = per_second * BURST_SECONDS
        self._tokens = self._size
        self._filled: float | None = None

    def refusal(self, under_way: int, now: float, *, ours: bool) -> str | None:
        """Take one question's worth: None, or the trigger under which the question is dropped."""
        if self._filled is not None:
            elapsed = max(0.0, now - self._filled)
            self._tokens = min(self._size, self._tokens + elapsed * self.per_second)
        self._filled = now
        kept = 0.0 if ours else self._kept
        if under_way >= self.under_way * (1.0 - kept):
            return "dns_too_many_lookups"
        if self._tokens < self._size * kept + 1.0:
            return "dns_too_many_per_second"
        self._tokens -= 1.0
        return None
