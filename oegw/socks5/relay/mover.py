"""A thread that moves octets of its share of the connections."""

from __future__ import annotations

import heapq
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable

from oegw.socks5.relay.direction import SMALL, Direction, Outcome
from oegw.socks5.relay.pair import Pair
from oegw.socks5.relay.pipes import Pipes

# Our choices
BATCH = 256  # events that are asked for at a time

READABLE = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
WANTED = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET


class Mover:
    """Edge-triggered: a socket is registered once, for both ways, and what is not finished in a
    turn stands in a queue of its own.  ``over`` is called by the thread."""

    def __init__(
        self, pipes: int, octets: int, over: Callable[[list[Pair]], None], name: str
    ) -> None:
        self._pipes = Pipes(pipes, octets)
        self._over = over
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._pairs: dict[int, Pair] = {}  # by each of their two sockets
        self._orders: deque[Pair] = deque()  # to be closed
        self._aging: list[tuple[float, int, Pair]] = []  # a heap: when to look at it again
        self._numbered = 0
        self._queue: deque[tuple[Pair, Direction]] = deque()
        self._finished: list[Pair] = []
        self._buffer = memoryview(bytearray(SMALL))
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def begin(self, pair: Pair) -> Pair:
        """By another thread.  The kernel tells ours: both sockets are writable, at least."""
        raise NotImplementedError

    def end(self, pair: Pair) -> None:
        """By another thread."""
        raise NotImplementedError

    def close(self) -> None:
        """By another thread: end all, and the thread."""
        raise NotImplementedError

    def _run(self) -> None:
        raise NotImplementedError
