"""What the server counts under a name, and what of it the trace is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from oegw.trace import Trace

# Our choice: lines of each event that the trace gets within a second; counted are all.
LINES_PER_SECOND = 20

CATEGORY = "socks"


class Tally:
    def __init__(self, trace: Trace, clock: Callable[[], float]) -> None:
        self._trace = trace
        self._clock = clock
        self._second = 0
        self._lines: Counter[str] = Counter()
        self.counters: Counter[str] = Counter()

    def event(self, event: str, **fields: Any) -> None:
        self.counters[event] += 1
        second = int(self._clock())
        if second != self._second:
            self._second = second
            self._lines.clear()
        self._lines[event] += 1
        if self._lines[event] <= LINES_PER_SECOND:
            self._trace.event(CATEGORY, event, **fields)

    def drop(self, trigger: str, **fields: Any) -> None:
        """Something was refused, or not forwarded."""
        self.counters[f"drop.{trigger}"] += 1
        self._trace.drop(CATEGORY, trigger, **fields)
