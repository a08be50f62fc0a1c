"""The structured trace: JSON lines, and counters of everything that was dropped.

Every line has ``time`` (seconds since 1970), ``category``, ``event``; every
drop names its ``trigger``, and tests assert on it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Protocol


class Lines(Protocol):
    """Where lines go.  It copes with a disk that is full: whoever reports something goes on."""

    def write(self, line: str, /) -> object:
        """Append a line with its end."""


class Trace(Protocol):
    """Where rooms of the gateway report to."""

    def event(self, category: str, event: str, **fields: Any) -> None:
        """Record that something happened."""

    def drop(self, category: str, trigger: str, **fields: Any) -> None:
        """Count something dropped, and record it if the budget of drop lines allows."""


class JsonTrace:
    """Writes lines to ``stream`` and counts.  ``clock`` gives seconds since 1970.

    Drops are always counted, but at most ``drops_per_second`` lines of each
    trigger are written: a flood of garbage must not become a flood of log.
    """

    def __init__(
        self, stream: Lines | None, clock: Callable[[], float], drops_per_second: int = 5
    ) -> None:
        self._stream = stream
        self._clock = clock
        self._limit = drops_per_second
        self._second = 0
        self._written: Counter[str] = Counter()
        self.counters: Counter[str] = Counter()
        self.listeners: list[Callable[[Mapping[str, Any]], None]] = []

    def event(self, category: str, event: str, **fields: Any) -> None:
        self.counters[f"{category}.{event}"] += 1
        self._write(category, event, fields)

    def drop(self, category: str, trigger: str, **fields: Any) -> None:
        name = f"{category}.drop.{trigger}"
        self.counters[name] += 1
        second = int(self._clock())
        if second != self._second:
            self._second = second
            self._written.clear()
        self._written[name] += 1
        if self._written[name] <= self._limit:
            self._write(category, "dropped", {"trigger": trigger, **fields})

    def _write(self, category: str, event: str, fields: Mapping[str, Any]) -> None:
        if self._stream is None and not self.listeners:
            return
        line = {"time": round(self._clock(), 6), "category": category, "event": event, **fields}
        for listener in self.listeners:
            listener(line)
        if self._stream is not None:
            self._stream.write(json.dumps(line, default=str) + "\n")
