"""Whether who registered a port has it still, and alone: else it is somebody else's soon.

Else a user could register a socket, close it, or let others have its port too, and wait for a
service of another to get it: the firewall would open that one's port under the first one's name
(MK-30).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice

from oegw.moniker.daemon.processes import copied
from oegw.moniker.daemon.proof import is_kept

# Our choices.
SEARCH_PAUSE = 1.0  # seconds between two searches through all descriptors of a process
MOST_SEARCHED = 65536  # descriptors of one
REST = 9  # after a search, times what it took: a user with many files costs a tenth of our time


@dataclass(slots=True, eq=False)
class _Process:
    """``seen``: where a search found the sockets, by their inodes.  ``searched``: when, by the
    clock; ``search``: which step it was."""

    pid: int
    holdings: dict[int, _Holding] = field(default_factory=dict)
    seen: dict[int, int] = field(default_factory=dict)
    searched: float | None = None
    search: int = 0
    hidden: bool = False


@dataclass(slots=True, eq=False)
class _Holding:
    """``added``: which step it was.  ``held``: what was found last."""

    process: _Process
    inode: int
    added: int
    descriptor: int | None = None
    held: bool = True


class Holdings:
    """Which process has to have which socket, by the number of its entry.

    A process that may not be looked at is believed, and so is one at which it is too early to look
    again.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._holdings: dict[int, _Holding] = {}
        self._processes: dict[int, _Process] = {}
        self._round: list[int] = []
        self._steps = 0
        self._resting_until = clock()

    def __len__(self) -> int:
        return len(self._holdings)

    def add(self, number: int, pid: int, inode: int) -> None:
        """``inode``: of the socket that came along."""
        self._steps += 1
        process = self._processes.setdefault(pid, _Process(pid))
        holding = _Holding(process, inode, self._steps)
        self._holdings[number] = process.holdings[number] = holding

    def remove(self, number: int) -> None:
        if (holding := self._holdings.pop(number, None)) is None:
            return
        del holding.process.holdings[number]
        if not holding.process.holdings:
            del self._processes[holding.process.pid]

    def is_held(self, number: int) -> bool:
        """Whether it has it.  False for a number that is not known."""
        holding = self._holdings.get(number)
        if holding is None:
            return False
        if not self._is_in_place(holding):
            self._search(holding.process)
            if not self._is_in_place(holding) and holding.process.search > holding.added:
                holding.held = holding.process.hidden
        return holding.held

    def given_up(self, most: int) -> list[int]:
        """Of the next ``most`` entries, those whose socket is gone; all have their turn."""
        if not self._round:
            self._round = sorted(self._holdings, reverse=True)
        turn = [self._round.pop() for _ in range(min(most, len(self._round)))]
        return [number for number in turn if number in self._holdings and not self.is_held(number)]

    def _is_in_place(self, holding: _Holding) -> bool:
        """Whether it is where it was seen last; ``held`` says then whether the port is its own."""
        if holding.descriptor is None:
            holding.descriptor = holding.process.seen.get(holding.inode)
        if holding.descriptor is None:
            return False
        name = f"/proc/{holding.process.pid}/fd/{holding.descriptor}"
        try:
            if _inode_of(name) == holding.inode:
                with copied(holding.process.pid, holding.descriptor) as bound:
                    holding.held = is_kept(bound)
                return True
        except PermissionError:
            return True
        except OSError:
            pass
        holding.descriptor = None
        return False

    def _search(self, process: _Process) -> None:
        """Look through all descriptors of a process, unless it is too early."""
        now = self._clock()
        early = process.searched is not None and now < process.searched + SEARCH_PAUSE
        if early or now < self._resting_until:
            return
        self._steps += 1
        process.searched, process.search = now, self._steps
        wanted = {holding.inode for holding in process.holdings.values()}
        process.seen = {}
        try:
            with os.scandir(f"/proc/{process.pid}/fd") as entries:
                for entry in islice(entries, MOST_SEARCHED):
                    with suppress(FileNotFoundError):  # closed just now
                        if (inode := _inode_of(entry.path)) in wanted:
                            process.seen[inode] = int(entry.name)
            process.hidden = False
        except PermissionError:
            process.hidden = True
        except OSError:  # it is gone
            process.hidden = False
        ended = self._clock()
        self._resting_until = ended + REST * (ended - now)


def _inode_of(name: str) -> int:
    """The inode of the socket that is behind a name in /proc/PID/fd; 0 for another file.

    Raises OSError.
    """
    target = os.readlink(name)  # noqa: PTH115  (at each question)
    return int(target[8:-1]) if target.startswith("socket:[") else 0
