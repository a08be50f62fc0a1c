"""Waiting for a socket whose next octets are read by hand, as asyncio's streams can't.

And what becomes of a mistake of our own in one of many connections.
"""

from __future__ import annotations

import asyncio
import socket
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from oegw.trace import Trace


def reported(trace: Trace, trigger: str) -> Callable[[asyncio.Task[None]], None]:
    """To be called when a task is done: what it raised is counted and told, and the rest goes on.

    A stranger who finds such a mistake ends his own connection by it, not the daemon.
    """

    def report(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            frames = traceback.extract_tb(error.__traceback__)
            where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
            trace.drop("moniker", trigger, detail=repr(error), where=where)

    return report


async def until_readable(connection: socket.socket) -> None:
    """Return when there is something to read, or the end."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    descriptor = connection.fileno()
    loop.add_reader(descriptor, _wake, ready)
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)


async def until_writable(connection: socket.socket) -> None:
    """Return when something can be written."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    descriptor = connection.fileno()
    loop.add_writer(descriptor, _wake, ready)
    try:
        await ready
    finally:
        loop.remove_writer(descriptor)


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


async def send_all(
    connection: socket.socket, octets: bytes, descriptors: Sequence[int] = ()
) -> None:
    """Write all of ``octets``, the descriptors with the first of them.  Raises OSError."""
    sent = 0
    while sent < len(octets):
        with suppress(BlockingIOError):
            if descriptors:
                sent += socket.send_fds(connection, [octets[sent:]], descriptors)
                descriptors = ()
            else:
                sent += connection.send(octets[sent:])
            continue
        await until_writable(connection)


async def line_of(connection: socket.socket, most: int) -> bytes | None:
    """The octets of the first line without its end, CRLF or LF; None for the end of the
    connection.

    Not one octet behind the line is taken, for who gets the connection next shall find it (RFC
    1078).  A line of more than ``most`` octets is cut off there.  Raises OSError.
    """
    line = b""
    while True:
        try:
            seen = connection.recv(most + 2 - len(line), socket.MSG_PEEK)
        except BlockingIOError:
            await until_readable(connection)
            continue
        if not seen:
            return None
        end = seen.find(b"\n") + 1
        line += connection.recv(end or len(seen))
        if end or len(line) > most + line.endswith(b"\r"):
            return line.removesuffix(b"\n").removesuffix(b"\r")[: most + 1]
