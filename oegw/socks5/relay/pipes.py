"""Pipes that octets go through from one socket to another, lent out while octets are under way."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass

# Our choices
KEPT = 64  # open and unused, of one thread: as many as busy connections usually want


@dataclass(frozen=True, slots=True)
class Pipe:
    """``room``: octets that it takes at least; a page is counted for each piece of any size."""

    reading: int
    writing: int
    room: int

    def close(self) -> None:
        os.close(self.reading)
        os.close(self.writing)


class Pipes:
    """The pipes of one thread: at most ``most``, each of ``octets`` where the kernel allows it.

    A connection without octets under way has none, so that idle ones cost their two sockets only.
    """

    def __init__(self, most: int, octets: int) -> None:
        self._most = most
        self._octets = octets
        self._unused: list[Pipe] = []
        self.lent = 0
        self.refused = 0  # times that none was left

    def take(self) -> Pipe | None:
        """None: as many as may be are lent, or the process has no descriptor left."""
        if self._unused:
            self.lent += 1
            return self._unused.pop()
        made = self._made() if self.lent < self._most else None
        if made is None:
            self.refused += 1
        else:
            self.lent += 1
        return made

    def give(self, pipe: Pipe) -> None:
        """It is empty again."""
        self.lent -= 1
        if len(self._unused) < KEPT:
            self._unused.append(pipe)
        else:
            pipe.close()

    def discard(self, pipe: Pipe) -> None:
        """There are octets in it that nobody wants any more."""
        self.lent -= 1
        pipe.close()

    def close(self) -> None:
        for pipe in self._unused:
            pipe.close()
        self._unused.clear()

    def _made(self) -> Pipe | None:
        try:
            reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            room = fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, self._octets)
        except OSError:  # fs.pipe-max-size, or the user's share of pages is used up
            room = fcntl.fcntl(writing, fcntl.F_GETPIPE_SZ)
        return Pipe(reading, writing, room)
