"""Which item's time comes next: one deadline for an item at most."""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

Item = TypeVar("Item", bound=Hashable)

# Our choice: so many entries of items that have another deadline by now, or none, may wait.
_SLACK = 64


class Deadlines(Generic[Item]):
    """A heap, in which what was set anew or discarded stays behind as a dead entry.

    It is swept once the dead are in the majority, so that an item (an SA and its keys) is
    not kept for hours after its removal.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Item]] = []
        self._numbers: dict[Item, int] = {}
        self._number = 0  # also decides between items of one time, which cannot be compared

    def set(self, item: Item, at: float) -> None:
        """``item`` is due at ``at``, and no more when it was before."""
        self._number += 1
        self._numbers[item] = self._number
        heapq.heappush(self._heap, (at, self._number, item))
        self._sweep()

    def discard(self, item: Item) -> None:
        if self._numbers.pop(item, None) is not None:
            self._sweep()

    def next(self) -> float | None:
        """The earliest deadline."""
        while self._heap and not self._lives(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def due(self, now: float) -> list[Item]:
        """Take out what is due, the earliest first."""
        items = []
        while (at := self.next()) is not None and at <= now:
            item = heapq.heappop(self._heap)[2]
            del self._numbers[item]
            items.append(item)
        return items

    def __len__(self) -> int:
        """How many entries are kept, the dead ones included."""
        return len(self._heap)

    def _lives(self, entry: tuple[float, int, Item]) -> bool:
        return self._numbers.get(entry[2]) == entry[1]

    def _sweep(self) -> None:
        if len(self._heap) > 2 * len(self._numbers) + _SLACK:
            self._heap = [entry for entry in self._heap if self._lives(entry)]
            heapq.heapify(self._heap)
