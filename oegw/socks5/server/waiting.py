"""Sockets awaited without a stream around them: not one octet is read too many.

The event loop is told descriptors, not sockets: it would write each one's addresses down, for an
error message that nobody sees.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket

_UNDER_WAY = (errno.EINPROGRESS, errno.EALREADY)


async def connected(sock: socket.socket, address: str, port: int) -> None:
    """Raises OSError."""
    code = sock.connect_ex((address, port))
    if code in _UNDER_WAY:
        await writable(sock)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))


async def writable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    descriptor = sock.fileno()
    loop.add_writer(descriptor, _tell, future)
    try:
        await future
    finally:
        loop.remove_writer(descriptor)


class Input:
    """What comes in by ``sock``.  It stays registered with the event loop from one `receive` to the
    next, unless something comes in between."""

    __slots__ = ("_loop", "_registered", "_waiting", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._loop = asyncio.get_running_loop()
        self._registered = False
        self._waiting: asyncio.Future[None] | None = None

    async def receive(self, octets: int) -> bytes:
        """At least one octet, or none at the end of input.  Raises OSError."""
        while True:
            try:
                return self.sock.recv(octets)
            except BlockingIOError:
                pass
            if not self._registered:
                self._registered = True
                self._loop.add_reader(self.sock.fileno(), self._ready)
            self._waiting = self._loop.create_future()
            try:
                await self._waiting
            finally:
                self._waiting = None

    def release(self) -> None:
        """The event loop forgets the socket: before it is closed or given away."""
        if self._registered:
            self._registered = False
            self._loop.remove_reader(self.sock.fileno())

    def _ready(self) -> None:
        if self._waiting is None or self._waiting.done():
            self.release()
        else:
            self._waiting.set_result(None)


async def sent(sock: socket.socket, octets: bytes) -> None:
    """All of it.  Raises OSError."""
    left = memoryview(octets)
    while left:
        try:
            left = left[sock.send(left) :]
        except BlockingIOError:
            await writable(sock)


def _tell(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
