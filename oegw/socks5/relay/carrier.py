"""A relaying process, as the server sees it."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Protocol

from oegw.socks5.interface import Transferred
from oegw.socks5.relay.channel import (
    MAX_REPORT,
    TOGETHER,
    Begin,
    Close,
    parse_ended,
    serialize_begins,
    serialize_close,
)

# Our choices
ROOT = Path(__file__).resolve().parents[3]  # of the package
CHILD = "oegw.socks5.relay.child"
END_PATIENCE = 10.0  # seconds for it to close its connections

LOST = Transferred(0, 0, "closed")


class Running(Protocol):
    """Who relays at the other end of a channel: a `subprocess.Popen`, or its like."""

    @property
    def pid(self) -> int: ...

    def kill(self) -> None: ...

    def wait(self, timeout: float | None = None) -> int:
        """Raises subprocess.TimeoutExpired."""
        ...


# From its end of the channel, which is closed here afterwards, and the pipes that it may have.
# Raises OSError.
BeginChild = Callable[[socket.socket, int], Running]


def begin_process(channel: socket.socket, pipes: int) -> Running:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", CHILD, str(channel.fileno()), str(pipes)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=(channel.fileno(),),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


class Carried:
    """A connection that it relays, or will (`Relayed`).  ``sockets``: until it has them."""

    __slots__ = ("_carrier", "ended", "message", "sockets")

    def __init__(
        self,
        carrier: Carrier,
        message: Begin,
        sockets: tuple[socket.socket, socket.socket],
        ended: Callable[[Transferred], None],
    ) -> None:
        self._carrier = carrier
        self.message = message
        self.sockets: tuple[socket.socket, ...] = sockets
        self.ended = ended

    def close(self) -> None:
        self._carrier.end(self)

    def release(self) -> None:
        for sock in self.sockets:
            sock.close()
        self.sockets = ()


class Carrier:
    """``lost`` is called when the process has ended by itself, and its connections with it.  Raises
    OSError if it can't be started."""

    def __init__(
        self, pipes: int, lost: Callable[[Carrier], None], begin_child: BeginChild
    ) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        try:
            with theirs:
                self._process = begin_child(theirs, pipes)
        except OSError:
            ours.close()
            raise
        self._channel = ours
        self._lost = lost
        self._carried: dict[int, Carried] = {}
        self._unsent: deque[Carried | Close] = deque()
        # It is sent at the end of this turn of the loop, or when the channel is writable.
        self._sending = False
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(ours, self._receive)

    def __len__(self) -> int:
        """How many connections it has."""
        return len(self._carried)

    @property
    def pid(self) -> int:
        return self._process.pid

    def begin(
        self,
        message: Begin,
        sockets: tuple[socket.socket, socket.socket],
        ended: Callable[[Transferred], None],
    ) -> Carried:
        carried = Carried(self, message, sockets, ended)
        self._carried[message.number] = carried
        self._send(carried)
        return carried

    def end(self, carried: Carried) -> None:
        if carried.message.number in self._carried:
            self._send(Close(carried.message.number))

    def close(self) -> None:
        """Ends all, and tells it, and waits for the process."""
        self._loop.remove_reader(self._channel)
        self._loop.remove_writer(self._channel)
        with suppress(OSError):
            self._channel.shutdown(socket.SHUT_WR)
            self._channel.settimeout(END_PATIENCE)
            while octets := self._channel.recv(MAX_REPORT):
                self._tell(octets)
        self._end_process()

    # ------------------------------------------------------------ the channel

    def _send(self, what: Carried | Close) -> None:
        """What is begun in one turn of the event loop goes together."""
        self._unsent.append(what)
        if not self._sending:
            self._sending = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        while self._unsent:
            begun = self._next_begun()
            try:
                if begun:
                    numbers = [sock.fileno() for each in begun for sock in each.sockets]
                    octets = serialize_begins([each.message for each in begun])
                    socket.send_fds(self._channel, [octets], numbers)
                else:
                    close = self._unsent[0]
                    assert isinstance(close, Close)
                    self._channel.send(serialize_close(close))
            except BlockingIOError:
                self._loop.add_writer(self._channel, self._writable)
                return
            except OSError:  # the process has gone, which `_receive` will see
                for each in begun:
                    del self._carried[each.message.number]
                    self._loop.call_soon(each.ended, LOST)
            for _ in range(len(begun) or 1):
                self._unsent.popleft()
            for each in begun:
                each.release()
        self._sending = False

    def _writable(self) -> None:
        self._loop.remove_writer(self._channel)
        self._flush()

    def _next_begun(self) -> list[Carried]:
        """The first connections that wait to be sent, as many as one message may have; none: it is
        something else that waits first."""
        found: list[Carried] = []
        for each in islice(self._unsent, TOGETHER):
            if isinstance(each, Close) or (found and each.message.early):
                break
            found.append(each)
            if each.message.early:
                break
        return found

    def _receive(self) -> None:
        try:
            octets = self._channel.recv(MAX_REPORT)
        except BlockingIOError:
            return
        except OSError:
            octets = b""
        if octets:
            self._tell(octets)
            return
        self._loop.remove_reader(self._channel)
        self._loop.remove_writer(self._channel)
        self._lost(self)
        self._process.kill()  # it has ended, or it will not
        self._end_process()

    def _tell(self, octets: bytes) -> None:
        for number, transferred in parse_ended(octets):
            self._carried.pop(number).ended(transferred)

    def _end_process(self) -> None:
        self._channel.close()
        try:
            self._process.wait(END_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._unsent.clear()
        carried, self._carried = self._carried, {}
        for each in carried.values():
            each.release()
            each.ended(LOST)
