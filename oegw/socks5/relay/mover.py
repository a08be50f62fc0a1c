"""Moves the octets of a share of the connections."""

from __future__ import annotations

import select
import socket
import time
from collections import deque
from collections.abc import Callable

from oegw.socks5.relay.direction import SMALL, Direction, Outcome
from oegw.socks5.relay.idleness import Idleness
from oegw.socks5.relay.pair import Pair
from oegw.socks5.relay.pipes import Pipes

# Our choices
BATCH = 256  # events that are asked for at a time

READABLE = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
WANTED = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET


class Mover:
    """Edge-triggered: a socket is registered once, for both ways; what has more to do when its
    turn is over stands in a queue.  ``over`` is called with pairs whose sockets are closed.

    One thread uses it, the one that runs it: whoever else wants something makes a descriptor
    readable that is attended to, and what is said there is done from within `run`.
    """

    def __init__(self, pipes: int, over: Callable[[list[Pair]], None]) -> None:
        self.pipes = Pipes(pipes)
        self._over = over
        self._epoll = select.epoll()
        self._attended: dict[int, Callable[[], None]] = {}
        # By each socket: the connection, the way from this socket, the way to it.
        self._sockets: dict[int, tuple[Pair, Direction, Direction]] = {}
        self._idleness = Idleness()
        self._queue: deque[tuple[Pair, Direction]] = deque()
        self._finished: list[Pair] = []
        self._buffer = memoryview(bytearray(SMALL))
        self._stopping = False

    def attend(self, descriptor: int, readable: Callable[[], None]) -> None:
        self._attended[descriptor] = readable
        self._epoll.register(descriptor, select.EPOLLIN)

    def begin(self, pair: Pair) -> None:
        """The kernel tells of both sockets soon: they are writable, at least."""
        pair.active_at = time.monotonic()
        client, destination = pair.client.fileno(), pair.destination.fileno()
        self._sockets[client] = (pair, pair.to_destination, pair.to_client)
        self._sockets[destination] = (pair, pair.to_client, pair.to_destination)
        if pair.idle:
            self._idleness.watch(pair)
        try:
            self._epoll.register(client, WANTED)
            self._epoll.register(destination, WANTED)
        except OSError:  # too many are watched already
            self.end(pair)

    def end(self, pair: Pair) -> None:
        self._finish(pair, "closed")

    def stop(self) -> None:
        self._stopping = True

    def run(self) -> None:
        """Until one of those that it attends to stops it; all connections are closed then."""
        while not self._stopping:
            for number, what in self._epoll.poll(self._patience(), BATCH):
                if (found := self._sockets.get(number)) is not None:
                    self._ready(what, *found)
                elif (readable := self._attended.get(number)) is not None:
                    readable()
            now = time.monotonic()
            for _ in range(len(self._queue)):
                self._turn(*self._queue.popleft(), now)
            for pair in self._idleness.over(now):
                self._finish(pair, "idle")
            self._tell_finished()
        for pair, _, _ in list(self._sockets.values()):
            self._finish(pair, "closed")
        self._tell_finished()
        self.pipes.close()
        self._epoll.close()

    def _patience(self) -> float:
        if self._queue:
            return 0.0
        due = self._idleness.next()
        return -1.0 if due is None else max(0.0, due - time.monotonic())

    def _ready(self, what: int, pair: Pair, forth: Direction, back: Direction) -> None:
        """``forth`` comes from the socket that ``what`` is true of, ``back`` leads to it."""
        if what & select.EPOLLERR and forth.source.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._fail(pair, back)
        if what & READABLE and not forth.blocked:
            self._enqueue(pair, forth)
        if what & select.EPOLLOUT and back.blocked:
            self._enqueue(pair, back)

    def _enqueue(self, pair: Pair, direction: Direction) -> None:
        if not (direction.queued or direction.over):
            direction.queued = True
            self._queue.append((pair, direction))

    def _turn(self, pair: Pair, direction: Direction, now: float) -> None:
        direction.queued = False
        if direction.over or pair.reason:
            return
        pair.active_at = now
        outcome = direction.turn(self.pipes, self._buffer)
        if outcome is Outcome.UNFINISHED:
            self._enqueue(pair, direction)
        elif outcome is Outcome.SINK_FAILED:
            self._fail(pair, direction)
        elif outcome is Outcome.SOURCE_FAILED:
            self._finish(pair, "reset")
        elif pair.failed:
            if not direction.blocked:  # all that the dead socket had sent is delivered
                self._finish(pair, "reset")
        elif outcome is Outcome.ENDED:
            if pair.other(direction).over:
                self._finish(pair, "ended")  # closing a socket passes it on
            elif not direction.end(self.pipes):
                self._fail(pair, direction)

    def _fail(self, pair: Pair, back: Direction) -> None:
        """The socket that ``back`` leads to is dead.  What it sent before may wait to be read."""
        pair.failed = True
        back.drop(self.pipes)
        forth = pair.other(back)
        if forth.over:
            self._finish(pair, "reset")
        elif not forth.blocked:
            self._enqueue(pair, forth)

    def _finish(self, pair: Pair, reason: str) -> None:
        """Its sockets are closed after all events of this batch, which may tell of them still."""
        if pair.reason:
            return
        pair.reason = reason
        for direction in (pair.to_destination, pair.to_client):
            direction.drop(self.pipes)
        for sock in (pair.client, pair.destination):
            self._sockets.pop(sock.fileno(), None)
        self._idleness.forget(pair)
        self._finished.append(pair)

    def _tell_finished(self) -> None:
        if self._finished:
            finished, self._finished = self._finished, []
            for pair in finished:
                pair.close_sockets()
            self._over(finished)
