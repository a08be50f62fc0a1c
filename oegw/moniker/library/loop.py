"""The same for asyncio: `oegw.moniker.aio`.

async with aio.serve("starwars", version="1") as service:
    async for session in service: ...

async with aio.connect("starwars://theforce.net") as session: ...
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Coroutine, Generator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from oegw.moniker.library.awaiting import Places, forgotten, readable, run, sent, wake
from oegw.moniker.library.client import (
    TIMEOUT,
    Resolved,
    finding,
    resolved_of,
    session_of,
    wish_of,
)
from oegw.moniker.library.datagrams import Sender
from oegw.moniker.library.errors import DaemonAbsent
from oegw.moniker.library.finding import (
    Finding,
    Wish,
)
from oegw.moniker.library.keeper import ANSWER_WAIT, CLOSING_WAIT
from oegw.moniker.library.policy import policy_of_this_host
from oegw.moniker.library.service import BACKLOG, Service, held, strings
from oegw.moniker.library.session import Session
from oegw.moniker.names import ServiceName
from oegw.moniker.settings import DEFAULT_SOCKET
from oegw.moniker.transports import Kind
from oegw.moniker.wire import DEFAULT_PORT

_Outcome = TypeVar("_Outcome")


class _Enterable(Protocol):
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None: ...


_Opened = TypeVar("_Opened", bound=_Enterable)


class AsyncSession:
    """What `Session` is, for asyncio."""

    def __init__(self, session: Session) -> None:
        self.service = session.service
        self.peer = session.peer
        self.kind = session.kind
        self.encrypted = session.encrypted
        self.path = session.path
        self._socket = session.detach()
        self._socket.setblocking(False)

    def __repr__(self) -> str:
        return f"<AsyncSession {self.service} with {self.peer}>"

    async def send(self, octets: bytes) -> int:
        """All octets; with a datagram transport, one message."""
        if self.kind is Kind.STREAM:
            await asyncio.get_running_loop().sock_sendall(self._socket, octets)
            return len(octets)
        return await sent(self._socket, lambda: self._socket.send(octets))

    async def recv(self, size: int) -> bytes:
        """At most ``size`` octets; none: the other end is done."""
        return await asyncio.get_running_loop().sock_recv(self._socket, size)

    async def recv_exactly(self, size: int) -> bytes:
        """``size`` octets.  Raises EOFError if the other end is done before."""
        received = bytearray()
        while len(received) < size:
            octets = await self.recv(size - len(received))
            if not octets:
                raise EOFError(f"{self.service}: {len(received)} of {size} octets came")
            received += octets
        return bytes(received)

    async def streams(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The connection as asyncio's own streams; the session has none from now on."""
        sock = socket.socket(fileno=self._socket.detach())
        return await asyncio.open_connection(sock=sock)

    def finish(self) -> None:
        """Nothing more will be sent; what the other end sends is still received."""
        self._socket.shutdown(socket.SHUT_WR)

    def reveal_port(self) -> int:
        """The far port, for those who must know."""
        return int(self._socket.getpeername()[1])

    def close(self) -> None:
        self._socket.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class AsyncService:
    """What `Service` is, for asyncio.  One task at a time accepts, or receives."""

    def __init__(self, service: Service) -> None:
        self.kind = service.kind
        self.transport = service.transport
        self._service = service
        self._waiting: set[asyncio.Future[None]] = set()
        self._closed = False
        service.settimeout(0)

    def __repr__(self) -> str:
        return f"<AsyncService {self.name}>"

    @property
    def name(self) -> ServiceName:
        return self._service.name

    @property
    def registered(self) -> bool:
        """Whether the daemon of this host knows it at this moment."""
        return self._service.registered

    async def update(
        self,
        *,
        weight: int | None = None,
        exported: bool | None = None,
        text: Sequence[str] | None = None,
    ) -> None:
        """What is registered changes (MK-8).  Raises RegistrationRefused."""
        update = self._service.update
        await asyncio.to_thread(update, weight=weight, exported=exported, text=text)

    async def accept(self) -> AsyncSession:
        """The next client.  Raises OSError (EBADF) once it is closed, by another task perhaps."""
        while True:
            if (session := self._service.accepted()) is not None:
                return AsyncSession(session)
            await readable(self._service.sources(), self._waiting)

    async def __aiter__(self) -> AsyncIterator[AsyncSession]:
        """Each client, until the service is closed."""
        while not self._closed:
            try:
                session = await self.accept()
            except OSError:
                if self._closed:
                    return
                raise
            yield session

    async def receive(self, size: int = 65535) -> tuple[bytes, Sender]:
        """The next datagram, and who is to be answered.  Raises OSError as `accept` does."""
        while True:
            with suppress(BlockingIOError):
                return self._service.receive(size)
            await readable(self._service.sources(), self._waiting)

    async def answer(self, octets: bytes, sender: Sender | None = None) -> int:
        """To ``sender``, or to whom the last datagram came from."""
        return await sent(self._service, lambda: self._service.answer(octets, sender))

    def reveal_port(self) -> int:
        """The port, for those who must know."""
        return self._service.reveal_port()

    async def close(self) -> None:
        """The name is given back, and then the port; in a child that was forked, neither.  Who
        waits for clients in another task waits no longer."""
        try:
            ended = asyncio.wrap_future(self._service.end())
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(ended), CLOSING_WAIT)
        finally:
            self._closed = True
            forgotten(self._service.sources())
            self._service.release()
            wake(self._waiting)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


class Opening(Generic[_Opened]):
    """What is to be awaited, or entered with ``async with``."""

    def __init__(self, opening: Coroutine[Any, Any, _Opened]) -> None:
        self._opening = opening
        self._opened: _Opened | None = None

    def __await__(self) -> Generator[Any, None, _Opened]:
        return self._opening.__await__()

    async def __aenter__(self) -> _Opened:
        self._opened = await self._opening
        return self._opened

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._opened is not None:
            await self._opened.__aexit__(kind, error, trace)


def serve(
    name: str,
    *,
    version: str = "1",
    transport: str = "tcp",
    families: str = "46",
    namespace: str | None = None,
    weight: int = 100,
    tcpmux: bool = False,
    sst: bool = False,
    exported: bool = False,
    text: Sequence[str] = (),
    backlog: int = BACKLOG,
    daemon: Path = DEFAULT_SOCKET,
    patience: float = 1.0,
) -> Opening[AsyncService]:
    """As `oegw.moniker.serve`."""
    options = {
        "namespace": namespace, "weight": weight, "tcpmux": tcpmux, "sst": sst,
        "exported": exported, "text": strings(text),
    }  # fmt: skip
    return Opening(_served(name, version, transport, families, options, backlog, daemon, patience))


async def _served(
    name: str,
    version: str,
    transport: str,
    families: str,
    options: dict[str, Any],
    backlog: int,
    daemon: Path,
    patience: float,
) -> AsyncService:
    service, request = held(name, version, transport, families, options)
    try:
        if service.kind is Kind.STREAM:
            service.listen(backlog)
        begun = asyncio.wrap_future(service.begin(request, daemon, patience).begun)
        await asyncio.wait_for(begun, patience + ANSWER_WAIT)
    except BaseException as error:
        service.end()
        service.release()
        if isinstance(error, TimeoutError):
            raise DaemonAbsent(f"{daemon}: the daemon of this host does not answer") from None
        raise
    return AsyncService(service)


def connect(
    target: str,
    service: str | ServiceName | None = None,
    *,
    transport: str | None = None,
    kind: Kind = Kind.STREAM,
    timeout: float = TIMEOUT,
    encrypt: str | None = None,
    sst: bool = False,
    question_port: int = DEFAULT_PORT,
    daemon: Path = DEFAULT_SOCKET,
) -> Opening[AsyncSession]:
    """As `oegw.moniker.connect`."""
    wish, path = wish_of(
        target, service, transport, question_port, timeout, kind=kind, encrypt=encrypt, sst=sst
    )
    return Opening(_connected_to(wish, path, daemon))


async def _connected_to(wish: Wish, path: str, daemon: Path) -> AsyncSession:
    sock, found = await run((await _finding(wish, daemon)).connection())
    return AsyncSession(session_of(wish, sock, found, path))


async def resolve(
    host: str,
    service: str | ServiceName,
    *,
    transport: str | None = None,
    timeout: float = TIMEOUT,
    encrypt: str | None = None,
    question_port: int = DEFAULT_PORT,
    daemon: Path = DEFAULT_SOCKET,
    places: Places | None = None,
) -> Resolved:
    """As `oegw.moniker.resolve`.  ``places``: who knows where the host is; None: the system."""
    wish, _ = wish_of(host, service, transport, question_port, timeout, kind=None, encrypt=encrypt)
    found = await run((await _finding(wish, daemon)).location(), places)
    return resolved_of(found, question_port)


async def _finding(wish: Wish, daemon: Path) -> Finding:
    until = time.monotonic() + wish.seconds
    policy = await asyncio.to_thread(policy_of_this_host, daemon, seconds=wish.seconds)
    return finding(wish, policy, until)
