"""Lines to the daemon of this host and back, sockets beside them (SCM_RIGHTS)."""

from __future__ import annotations

import array
import errno
import os
import select
import socket
import struct
from collections import deque
from contextlib import suppress
from pathlib import Path

from oegw.moniker.localwire import MAX_LINE_OCTETS
from oegw.moniker.names import MonikerError

# Our choices.
CHUNK = 65536  # octets read at once
MAX_SOCKETS = 16  # that come with one read
TURN_SECONDS = 2.0
CROWDED_WAIT = 0.02  # seconds, where more sockets are on their way than the kernel allows

_LATER = (errno.EAGAIN, errno.ETOOMANYREFS, errno.ENOBUFS)


class LineLost(MonikerError, ConnectionError):  # noqa: N818  (it names the fact)
    """The daemon is gone, or sent more than a line may have."""


class Wake:
    """By which another thread ends a wait."""

    def __init__(self) -> None:
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        return self._event

    def set(self) -> None:
        """Nothing happens once it is closed."""
        if self._event >= 0:
            os.eventfd_write(self._event, 1)

    def clear(self) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(self._event)

    def wait(self, seconds: float) -> None:
        """Until it is set, or the time is over."""
        poll = select.poll()
        poll.register(self._event, select.POLLIN)
        poll.poll(seconds * 1000)
        self.clear()

    def close(self) -> None:
        number, self._event = self._event, -1
        if number >= 0:
            os.close(number)


class LocalLine:
    """A connection to the daemon of this host, once it is there."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._outgoing: deque[tuple[memoryview, socket.socket | None]] = deque()
        self._incoming = bytearray()
        self._sockets: deque[socket.socket] = deque()
        self._crowded = False

    def connect(self, path: Path) -> None:
        """The only step that may wait: where many connect at once, for its turn; a socket that
        does not wait gets none.  Raises OSError."""
        self._socket.settimeout(None)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval(TURN_SECONDS))
        self._socket.connect(os.fspath(path))
        self._socket.setblocking(False)

    @property
    def unsent(self) -> bool:
        return bool(self._outgoing)

    def put(self, octets: bytes, beside: socket.socket | None = None) -> None:
        """To be sent; ``beside`` goes along, if it is still open then."""
        self._outgoing.append((memoryview(octets), beside))

    def wait(self, wake: Wake, seconds: float | None) -> None:
        """Until there is something to read, room to write, a wake, or the time is over."""
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        writing = self.unsent and not self._crowded
        poll.register(self._socket, select.POLLIN | (select.POLLOUT if writing else 0))
        if self._crowded:
            seconds = min(CROWDED_WAIT, seconds or CROWDED_WAIT)
        poll.poll(None if seconds is None else max(seconds, 0) * 1000)
        wake.clear()

    def flush(self) -> None:
        """Send what there is room for.  Raises LineLost."""
        self._crowded = False
        while self._outgoing:
            octets, beside = self._outgoing[0]
            try:
                sent = self._socket.sendmsg([octets], _rights(beside))
            except OSError as error:
                if error.errno == errno.EBADF and beside is not None:
                    self._outgoing[0] = (octets, None)  # closed meanwhile: the daemon refuses it
                    continue
                if error.errno not in _LATER:
                    raise LineLost("the daemon of this host is gone") from None
                self._crowded = error.errno != errno.EAGAIN
                return
            if sent < len(octets):
                self._outgoing[0] = (octets[sent:], None)
            else:
                self._outgoing.popleft()

    def received(self) -> list[bytes]:
        """The lines that came.  Raises LineLost when there will be no more."""
        try:
            octets, beside, _, _ = self._socket.recvmsg(
                CHUNK,
                socket.CMSG_SPACE(MAX_SOCKETS * array.array("i").itemsize),
                socket.MSG_CMSG_CLOEXEC,
            )
        except BlockingIOError:
            return []
        except OSError:
            raise LineLost("the daemon of this host is gone") from None
        self._keep(beside)
        if not octets:
            raise LineLost("the daemon of this host is gone")
        self._incoming += octets
        *lines, rest = self._incoming.split(b"\n")
        self._incoming = rest
        if len(rest) > MAX_LINE_OCTETS:
            raise LineLost("the daemon of this host sends a line that does not end")
        return [bytes(each) for each in lines]

    def next_socket(self) -> socket.socket | None:
        """The first of those that came along and were not yet asked for."""
        return self._sockets.popleft() if self._sockets else None

    def close(self) -> None:
        self._socket.close()
        for each in self._sockets:
            each.close()
        self._sockets.clear()
        self._outgoing.clear()

    def _keep(self, beside: list[tuple[int, int, bytes]]) -> None:
        for level, kind, content in beside:
            if (level, kind) != (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                continue
            numbers = array.array("i")
            numbers.frombytes(content[: len(content) - len(content) % numbers.itemsize])
            for number in numbers:
                try:
                    self._sockets.append(socket.socket(fileno=number))
                except OSError:  # another kind of file
                    os.close(number)


def timeval(seconds: float) -> bytes:
    """struct timeval, whose 0 would be without limit."""
    return struct.pack("@ll", int(seconds), max(1, int(seconds % 1 * 1e6)))


def _rights(beside: socket.socket | None) -> list[tuple[int, int, array.array[int]]]:
    if beside is None or beside.fileno() < 0:
        return []
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [beside.fileno()]))]
