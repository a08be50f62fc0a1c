"""Packets that wait for a key, for a probe, or for a tunnel (SST-36): so many, and so long."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass

from oegw.sst.interface import Caught, IPAddress

# Our choices: so many packets may wait for one host, or a quarter of all that may wait, if that is
# more: one whose key is slow must not take the room of all, and a transfer that meets a restart
# should lose little.  No more than half of all room is for packets that may come from anybody.
HELD_PER_HOST = 16
SHARE_OF_ONE_HOST = 4


@dataclass(frozen=True, slots=True)
class Held:
    """``waits_for``: what ends the wait.  ``stranger``: it came in, and nobody vouches for it."""

    caught: Caught
    waits_for: Hashable
    host: IPAddress
    until: float
    stranger: bool


class Holding:
    """At most ``limit`` packets; numbers are the plane's."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._per_host = max(HELD_PER_HOST, limit // SHARE_OF_ONE_HOST)
        self._held: dict[int, Held] = {}
        self._waiting: dict[Hashable, dict[int, None]] = {}
        self._hosts: Counter[IPAddress] = Counter()
        self._strangers = 0
        self._ends: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, held: Held) -> bool:
        """Keep a packet; False if there is no room for it."""
        if len(self._held) >= self._limit or self._hosts[held.host] >= self._per_host:
            return False
        if held.stranger and self._strangers >= max(1, self._limit // 2):
            return False
        number = held.caught.number
        self._held[number] = held
        self._waiting.setdefault(held.waits_for, {})[number] = None
        self._hosts[held.host] += 1
        self._strangers += held.stranger
        heapq.heappush(self._ends, (held.until, number))
        return True

    def take(self, waits_for: Hashable) -> list[Held]:
        """Those that waited for this, in the order they came; they are held no more."""
        return [self._remove(number) for number in list(self._waiting.get(waits_for, ()))]

    def take_all(self) -> list[Held]:
        return [self._remove(number) for number in list(self._held)]

    def overdue(self, now: float) -> list[Held]:
        """Those that have waited long enough; they are held no more."""
        found = []
        while (end := self.next_end()) is not None and end <= now:
            _, number = heapq.heappop(self._ends)
            found.append(self._remove(number))
        return found

    def next_end(self) -> float | None:
        while self._ends:
            end, number = self._ends[0]
            held = self._held.get(number)
            if held is not None and held.until == end:
                return end
            heapq.heappop(self._ends)
        return None

    def _remove(self, number: int) -> Held:
        held = self._held.pop(number)
        waiting = self._waiting[held.waits_for]
        del waiting[number]
        if not waiting:
            del self._waiting[held.waits_for]
        self._hosts[held.host] -= 1
        if not self._hosts[held.host]:
            del self._hosts[held.host]
        self._strangers -= held.stranger
        return held
