"""All moments at which this endpoint must act by itself, in one queue."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count

_SWEEP_FROM = 64  # below this many entries, cancelled ones are not worth sweeping


class Alarm:
    """One future moment.  ``cancel`` makes it silent."""

    __slots__ = ("_alarms", "ring", "when")

    def __init__(self, alarms: Alarms, when: float, ring: Callable[[float], None]) -> None:
        self._alarms = alarms
        self.when = when
        self.ring: Callable[[float], None] | None = ring

    def cancel(self) -> None:
        if self.ring is not None:
            self.ring = None
            self._alarms.alarm_cancelled()


class Alarms:
    """A queue of alarms.  Cancelled ones are swept when they are more than the live ones."""

    def __init__(self) -> None:
        self._queue: list[tuple[float, int, Alarm]] = []
        self._order = count()
        self._silent = 0

    def set(self, when: float, ring: Callable[[float], None]) -> Alarm:
        """Have ``ring(now)`` called at ``when`` or soon after."""
        alarm = Alarm(self, when, ring)
        heapq.heappush(self._queue, (when, next(self._order), alarm))
        return alarm

    def alarm_cancelled(self) -> None:
        self._silent += 1
        if self._silent > _SWEEP_FROM and self._silent * 2 > len(self._queue):
            self._queue = [entry for entry in self._queue if entry[2].ring is not None]
            heapq.heapify(self._queue)
            self._silent = 0

    def next(self) -> float | None:
        """When the first alarm rings."""
        while self._queue and self._queue[0][2].ring is None:
            heapq.heappop(self._queue)
            self._silent -= 1
        return self._queue[0][0] if self._queue else None

    def ring(self, now: float) -> None:
        """Ring all that are due.  One set while ringing waits for the next call."""
        due: list[Alarm] = []
        while (when := self.next()) is not None and when <= now:
            due.append(heapq.heappop(self._queue)[2])
        for alarm in due:
            ring, alarm.ring = alarm.ring, None
            if ring is not None:
                ring(now)
            else:  # cancelled while an earlier one rang: it had left the queue already
                self._silent = max(0, self._silent - 1)
