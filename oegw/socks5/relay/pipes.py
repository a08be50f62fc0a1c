"""Pipes that octets go through from one socket to another, lent out while octets are under way."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from dataclasses import dataclass

# Our choices
OCTETS = 1024 * 1024  # what pays with few busy connections; the kernel's fs.pipe-max-size
PLENTY = 64  # pipes of a process, as many as busy connections usually want: kept, and filled
SCARCE = 64 * 1024  # octets in each beyond them: who reads slowly holds them, and they add up


@dataclass(frozen=True, slots=True)
class Pipe:
    reading: int
    writing: int

    def close(self) -> None:
        os.close(self.reading)
        os.close(self.writing)


class Pipes:
    """The pipes of a process: at most ``most``.

    A connection without octets under way has none, so that idle ones cost their two sockets only.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._unused: list[Pipe] = []
        self.lent = 0
        self.refused = 0  # times that none was left

    @property
    def piece(self) -> int:
        """Octets to be read into a pipe at most."""
        return OCTETS if self.lent <= PLENTY else SCARCE

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
        if len(self._unused) < PLENTY:
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
        with suppress(OSError):  # fs.pipe-max-size, or the user's share of pages: it is smaller
            fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, OCTETS)
        return Pipe(reading, writing)
