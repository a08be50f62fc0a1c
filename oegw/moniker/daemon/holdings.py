"""Whether who registered a port has it still: a port that was given back is somebody else's soon.

Else a user could register a socket, close it, and wait for a service of another to get its port:
the firewall would open that one's port under the first one's name (MK-30).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

# Our choices.
SEARCH_PAUSE = 1.0  # seconds between two searches through all descriptors of a process
MOST_SEARCHED = 65536  # descriptors of one


@dataclass(slots=True)
class _Holding:
    pid: int
    inode: int
    descriptor: int | None = None  # where it was seen last
    searched: float | None = None
    found: bool = True


class Holdings:
    """Which process has to have which socket, by the number of its entry.

    A process that may not be looked at is believed.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._holdings: dict[int, _Holding] = {}
        self._round: list[int] = []

    def __len__(self) -> int:
        return len(self._holdings)

    def add(self, number: int, pid: int, inode: int) -> None:
        """``inode``: of the socket that came along."""
        self._holdings[number] = _Holding(pid, inode)

    def remove(self, number: int) -> None:
        self._holdings.pop(number, None)

    def is_held(self, number: int) -> bool:
        """Whether it has it.  False for a number that is not known."""
        holding = self._holdings.get(number)
        if holding is None:
            return False
        if holding.descriptor is not None and _is(holding, holding.descriptor):
            return True
        now = self._clock()
        if holding.searched is None or now >= holding.searched + SEARCH_PAUSE:
            holding.searched = now
            holding.found = _search(holding)
        return holding.found

    def given_up(self, most: int) -> list[int]:
        """Of the next ``most`` entries, those whose socket is gone; all have their turn."""
        if not self._round:
            self._round = sorted(self._holdings, reverse=True)
        turn = [self._round.pop() for _ in range(min(most, len(self._round)))]
        return [number for number in turn if number in self._holdings and not self.is_held(number)]


def _is(holding: _Holding, descriptor: int) -> bool:
    try:
        target = os.readlink(f"/proc/{holding.pid}/fd/{descriptor}")  # noqa: PTH115  (each question)
        return target == f"socket:[{holding.inode}]"
    except PermissionError:
        return True
    except OSError:
        return False


def _search(holding: _Holding) -> bool:
    try:
        with os.scandir(f"/proc/{holding.pid}/fd") as entries:
            for entry in islice(entries, MOST_SEARCHED):
                if _is(holding, int(entry.name)):
                    holding.descriptor = int(entry.name)
                    return True
    except PermissionError:
        return True
    except OSError:
        return False
    return False
