"""Who has been idle for how long.  Told the time."""

from __future__ import annotations

import heapq

from oegw.socks5.relay.pair import Pair


class Idleness:
    """Connections by the time at which they are to be looked at.  What moved octets meanwhile is
    looked at again later, so that moving them costs nothing here."""

    def __init__(self) -> None:
        self._watched: set[Pair] = set()
        self._due: list[tuple[float, int, Pair]] = []  # a heap; what is not watched is stale
        self._numbered = 0

    def watch(self, pair: Pair) -> None:
        self._watched.add(pair)
        self._push(pair)

    def forget(self, pair: Pair) -> None:
        self._watched.discard(pair)
        if len(self._due) > 2 * len(self._watched) + 64:  # hours of idle time, minutes of life
            self._due = [each for each in self._due if each[2] in self._watched]
            heapq.heapify(self._due)

    def next(self) -> float | None:
        """When to ask for who is `over`."""
        return self._due[0][0] if self._due else None

    def over(self, now: float) -> list[Pair]:
        """Whose time is over: they are forgotten."""
        found = []
        while self._due and self._due[0][0] <= now:
            _, _, pair = heapq.heappop(self._due)
            if pair not in self._watched:
                continue
            if pair.active_at + pair.idle > now:
                self._push(pair)
            else:
                self._watched.remove(pair)
                found.append(pair)
        return found

    def _push(self, pair: Pair) -> None:
        self._numbered += 1  # two with the same time are not compared themselves
        heapq.heappush(self._due, (pair.active_at + pair.idle, self._numbered, pair))
