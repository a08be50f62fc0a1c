"""Octets between pairs of sockets, moved outside asyncio by a few threads."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from oegw.socks5.interface import Relayed, Transferred
from oegw.socks5.relay.mover import Mover
from oegw.socks5.relay.pair import Pair

# Our choices
THREADS = 2
PIPES = 2048  # in all: two directions of as many busy connections as one machine serves well
PIPE_OCTETS = 256 * 1024


class SpliceRelay:
    """The `Relay` of `interface.py`.

    ``threads``: each has its share of the connections.  ``pipes``: lent at a time, at most; where
    none is left, octets are copied.  It may be used by one event loop.
    """

    def __init__(
        self, threads: int = THREADS, pipes: int = PIPES, pipe_octets: int = PIPE_OCTETS
    ) -> None:
        self._movers = [
            Mover(pipes // threads, pipe_octets, self._over, f"relay {number}")
            for number in range(threads)
        ]
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: deque[Pair] = deque()
        self._waking = False  # the loop will call `_tell`
        self._next = 0

    def begin(
        self,
        client: socket.socket,
        destination: socket.socket,
        early: bytes,
        idle: float,
        ended: Callable[[Transferred], None],
    ) -> Relayed:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        mover = self._movers[self._next]
        self._next = (self._next + 1) % len(self._movers)
        return mover.begin(Pair(client, destination, early, idle, ended, mover.end))

    def close(self) -> None:
        """Ends all, and waits for the threads.  Whose connections those were is told."""
        for mover in self._movers:
            mover.close()
        self._tell()

    def snapshot(self) -> dict[str, int]:
        """``pipes``: lent now.  ``copied``: how often none was left."""
        return {
            "pipes": sum(mover.pipes.lent for mover in self._movers),
            "copied": sum(mover.pipes.refused for mover in self._movers),
        }

    def _over(self, pairs: list[Pair]) -> None:
        """By a thread: the loop is woken once for all that ended at about the same time."""
        self._ended.extend(pairs)
        if not self._waking and self._loop is not None:
            self._waking = True
            with suppress(RuntimeError):  # the loop was closed: nobody wants to know any more
                self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        self._waking = False  # first: who adds one now wakes the loop again
        while self._ended:
            pair = self._ended.popleft()
            pair.ended(pair.transferred())
