"""The commands of `finding`, carried out in asyncio; and waiting for sockets there."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar

from oegw.moniker import tcpmux
from oegw.moniker.library import waiting
from oegw.moniker.library.client import host_keys
from oegw.moniker.library.finding import (
    Ask,
    Command,
    FindKey,
    LookUpHost,
    Open,
    OpenByTcpmux,
    Place,
    Steps,
)
from oegw.moniker.library.holding import opened
from oegw.moniker.names import MonikerError
from oegw.moniker.transports import TCP
from oegw.moniker.wire import MAX_LINE_OCTETS

_Outcome = TypeVar("_Outcome")


class WithNumber(Protocol):
    def fileno(self) -> int: ...


Places = Callable[[str], Awaitable[list[Place]]]


async def run(steps: Steps[_Outcome], places: Places | None = None) -> _Outcome:
    """``places``: of a host, in the order to be tried; None: as the system knows it.  Raises
    HostUnreachable."""
    try:
        command = next(steps)
        while True:
            try:
                outcome = await _done(command, places)
            except (OSError, MonikerError) as error:
                command = steps.throw(error)
            else:
                command = steps.send(outcome)
    except StopIteration as end:
        found: _Outcome = end.value
        return found


async def _done(command: Command, places: Places | None) -> Any:
    match command:
        case LookUpHost(host) if places is not None:
            return await places(host)
        case LookUpHost(host):
            return waiting.places_of(host, await _addresses(host))
        case FindKey(host, address, seconds):
            return await host_keys().look_up(host, address, seconds)
        case Ask():
            async with asyncio.timeout(command.seconds):
                return await _answer(command)
        case Open(place, port, _, _, seconds):
            sock = waiting.prepared(command)
            async with asyncio.timeout(seconds):
                return await _connected(sock, place, port)
        case OpenByTcpmux():
            async with asyncio.timeout(command.seconds):
                return await _by_tcpmux(command)


async def _addresses(host: str) -> list[Any]:
    try:
        loop = asyncio.get_running_loop()
        return list(await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM))
    except (OSError, UnicodeError) as error:
        raise waiting.no_address(host, error) from None


async def _answer(ask: Ask) -> str:
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(ask.handshake):
        sock = await _connected(opened(TCP, ask.place.family), ask.place, ask.port)
    with sock:
        await loop.sock_sendall(sock, ask.line.encode("utf-8") + b"\r\n")
        return waiting.line_of(await _line(sock, MAX_LINE_OCTETS))


async def _by_tcpmux(command: OpenByTcpmux) -> socket.socket:
    sock = await _connected(opened(TCP, command.place.family), command.place, command.port)
    try:
        request = tcpmux.request_text(tcpmux.MuxRequest(command.name)).encode("utf-8")
        await asyncio.get_running_loop().sock_sendall(sock, request)
        waiting.accepted_by(command, await _line(sock, 1))  # what follows it is the service's
    except BaseException:
        sock.close()
        raise
    return sock


async def _line(sock: socket.socket, at_once: int) -> bytearray:
    received = bytearray()
    while not waiting.complete(received):
        octets = await asyncio.get_running_loop().sock_recv(sock, at_once)
        if not octets:
            break
        received += octets
    return received


async def _connected(sock: socket.socket, place: Place, port: int) -> socket.socket:
    """Not by asyncio's own call, which looks up the address once more, knows the transports TCP and
    UDP only, and has the port in its errors."""
    try:
        sock.setblocking(False)
        number = sock.connect_ex(waiting.address_of(place, port))
        if number == errno.EINPROGRESS:
            await _writable(sock)
            number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            raise OSError(number, os.strerror(number))
    except BaseException:
        sock.close()
        raise
    return sock


async def sent(to: WithNumber, send: Callable[[], int]) -> int:
    """What ``send`` gives, as soon as there is room."""
    while True:
        try:
            return send()
        except BlockingIOError:
            await _writable(to)


async def _writable(to: WithNumber) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_writer(to, _set, ready)
    try:
        await ready
    finally:
        loop.remove_writer(to)


async def readable(sources: Sequence[WithNumber], waiting: set[asyncio.Future[None]]) -> None:
    """Until one of them can be read; ``waiting`` has who waits meanwhile, for `wake`."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    for each in sources:
        loop.add_reader(each, _set, ready)
    waiting.add(ready)
    try:
        await ready
    finally:
        waiting.discard(ready)
        forgotten(sources)


def forgotten(sources: Sequence[WithNumber]) -> None:
    """The loop looks at them no longer; to be called before they are closed, for afterwards their
    numbers are those of others."""
    for each in sources:
        if each.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(each)


def wake(waiting: set[asyncio.Future[None]]) -> None:
    for each in waiting:
        _set(each)


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
