"""Sockets awaited without a stream around them: not one octet is read too many."""

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


async def readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    descriptor = sock.fileno()
    loop.add_reader(descriptor, _tell, future)
    try:
        await future
    finally:
        loop.remove_reader(descriptor)


async def received(sock: socket.socket, octets: int) -> bytes:
    """At least one octet, or none at the end of input.  Raises OSError."""
    while True:
        try:
            return sock.recv(octets)
        except BlockingIOError:
            await readable(sock)


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
