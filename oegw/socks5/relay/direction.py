"""One direction of a relayed connection: from a socket to another."""

from __future__ import annotations

import os
import socket
from enum import Enum, auto

from oegw.socks5.relay.pipes import Pipe, Pipes

# Our choices
SMALL = 16 * 1024  # what comes in pieces smaller than that is copied: cheaper than a pipe
TURN = 1024 * 1024  # octets after which it is another connection's turn

MOVE = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK


class Outcome(Enum):
    """Of a turn."""

    WAITS = auto()  # for a socket to become ready
    UNFINISHED = auto()  # there may be more at once
    ENDED = auto()  # the source says no more; all that it said was passed on
    SOURCE_FAILED = auto()
    SINK_FAILED = auto()


class Direction:
    """Octets on their way from ``source`` to ``sink``, both non-blocking.

    Few octets are copied through a buffer that all directions of a process share; many are spliced
    through a pipe, and never are in this process's memory.  Nothing is read as long as the sink
    has not taken all that was read before: who reads slowly slows the sender down.

    ``blocked``: it waits for the sink, else for the source.  ``queued``: its turn will come.
    """

    __slots__ = (
        "_bulk", "_held", "_pending", "_pipe", "blocked", "octets", "over", "queued", "sink",
        "source",
    )  # fmt: skip

    def __init__(self, source: socket.socket, sink: socket.socket, early: bytes = b"") -> None:
        self.source = source
        self.sink = sink
        self.octets = 0
        self.over = False
        self.queued = False
        self.blocked = bool(early)
        self._held = early  # read already, and not copied by the sink yet
        self._bulk = False
        self._pipe: Pipe | None = None
        self._pending = 0  # octets in the pipe

    def turn(self, pipes: Pipes, buffer: memoryview) -> Outcome:
        """Move what can be moved, up to about `TURN` octets."""
        self.blocked = False
        if self._held:
            outcome = self._send(self._held)
            if outcome is not None:
                return outcome
        if self._pipe is None and self._bulk:
            self._pipe = pipes.take()
        if self._pipe is None:
            return self._copy(buffer)
        return self._splice(self._pipe, pipes)

    def end(self, pipes: Pipes) -> bool:
        """Half of the connection has ended; that is passed on.  False: the sink is dead."""
        self.drop(pipes)
        try:
            self.sink.shutdown(socket.SHUT_WR)
        except OSError:
            return False
        return True

    def drop(self, pipes: Pipes) -> None:
        """Nothing goes this way any more."""
        self.over = True
        self._held = b""
        if self._pipe is not None:
            if self._pending:
                pipes.discard(self._pipe)
            else:
                pipes.give(self._pipe)
            self._pipe = None

    def _send(self, octets: bytes | memoryview) -> Outcome | None:
        """What the sink does not take is held.  None: it took all."""
        try:
            sent = self.sink.send(octets)
        except BlockingIOError:
            sent = 0
        except OSError:
            return Outcome.SINK_FAILED
        self.octets += sent
        self._held = bytes(octets[sent:]) if sent < len(octets) else b""
        if not self._held:
            return None
        self.blocked = True
        return Outcome.WAITS

    def _copy(self, buffer: memoryview) -> Outcome:
        try:
            count = self.source.recv_into(buffer)
        except BlockingIOError:
            return Outcome.WAITS
        except OSError:
            return Outcome.SOURCE_FAILED
        if not count:
            return Outcome.ENDED
        self._bulk = count == len(buffer)
        outcome = self._send(buffer[:count])
        return Outcome.UNFINISHED if outcome is None else outcome

    def _splice(self, pipe: Pipe, pipes: Pipes) -> Outcome:
        moved = 0
        while True:
            try:
                while self._pending:
                    count = os.splice(pipe.reading, self.sink.fileno(), self._pending, flags=MOVE)
                    self._pending -= count
                    self.octets += count
                    moved += count
            except BlockingIOError:
                self.blocked = True
                return Outcome.WAITS
            except OSError:
                return Outcome.SINK_FAILED
            if moved >= TURN:
                return Outcome.UNFINISHED
            try:
                self._pending = os.splice(
                    self.source.fileno(), pipe.writing, pipes.piece, flags=MOVE
                )
            except BlockingIOError:
                self._bulk = moved > SMALL
                pipes.give(pipe)
                self._pipe = None
                return Outcome.WAITS
            except OSError:
                return Outcome.SOURCE_FAILED
            if not self._pending:
                return Outcome.ENDED
