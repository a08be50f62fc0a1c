"""Octets between pairs of sockets, moved by threads of this process."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from oegw.socks5.interface import Relayed, Transferred
from oegw.socks5.relay.mover import Mover
from oegw.socks5.relay.pair import Pair, reset_when_closed

# Our choices
PIPES = 1024  # in all; each is two descriptors, as long as octets are under way


def threads_here() -> int:
    """Half as many as CPUs, for the kernel does the other half of the work in those who send and
    receive; but two if there are two: measured on such a machine, many connections gain more by
    the second than one connection loses."""
    cpus = len(os.sched_getaffinity(0))
    return min(4, max(min(2, cpus), cpus // 2))


class SpliceRelay:
    """The `Relay` of `interface.py`.

    ``threads``: each has its share of the connections; 0: as suits this machine.  ``pipes``: lent
    at a time, at most; where none is left, octets are copied.  It may be used by one event loop.
    """

    def __init__(self, threads: int = 0, pipes: int = PIPES) -> None:
        threads = threads or threads_here()
        self._movers = [Mover(pipes // threads, self._over) for _ in range(threads)]
        self._threads = [
            threading.Thread(target=mover.run, name="relay", daemon=True) for mover in self._movers
        ]
        for thread in self._threads:
            thread.start()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: deque[Pair] = deque()
        self._waking = False  # the loop will call `_tell`
        self._next = 0
        self._closed = False

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
        reset_when_closed(client, destination)
        mover = self._movers[self._next]
        self._next = (self._next + 1) % len(self._movers)
        pair = Pair(client, destination, early, idle, ended, mover.end)
        if not self._closed:
            return mover.begin(pair)
        pair.reason = "closed"
        pair.close_sockets()
        self._over([pair])
        return pair

    def close(self) -> None:
        """Ends all, and waits for the threads.  Whose connections those were is told."""
        if not self._closed:
            self._closed = True
            for mover in self._movers:
                mover.stop()
            for thread in self._threads:
                thread.join()
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
