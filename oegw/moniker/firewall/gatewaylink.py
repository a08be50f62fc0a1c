"""The host's end of the lease protocol: one connection to the gateway's daemon, kept (MK-18)."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from oegw.moniker.firewall import handshake
from oegw.moniker.firewall.attached import ipv4_routes, ipv6_routes, is_neighbour
from oegw.moniker.firewall.book import plain
from oegw.moniker.firewall.handshake import LeaseProtocolError
from oegw.moniker.firewall.messages import (
    Alive,
    EndPort,
    Message,
    NotOpened,
    Opened,
    OpenPort,
    Question,
    Told,
)
from oegw.moniker.firewall.stream import (
    ALIVE_SECONDS,
    HANDSHAKE_SECONDS,
    LeaseStream,
    read_line,
)
from oegw.moniker.interface import IPAddress, Lease, LeaseRefused, Opening, Place
from oegw.moniker.names import MonikerError
from oegw.moniker.settings import GatewayInFront
from oegw.moniker.steps import Source
from oegw.moniker.wire import Code
from oegw.sst.statickey import StaticKey
from oegw.trace import Trace

Answering = Callable[[str, Source], Awaitable[str]]
"""Answers a question's line that a client put to the gateway (MK-14), with a line."""

FindKey = Callable[[IPAddress], Awaitable[bytes | None]]
"""The X25519 public key of a host in the DNS, where the configuration doesn't have it."""

# Our choices.
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 5.0
OPEN_SECONDS = 3.0  # for the gateway's word, the wait for a connection included
MAX_PENDING = 256
MAX_QUESTIONS = 64  # of the gateway's at a time
MAX_UNTOLD = 1024  # services that ended while there was no connection
CATEGORY = "moniker"

_ROUTES = Path("/proc/thread-self/net")
_OVER = (OSError, EOFError, TimeoutError, LeaseProtocolError)


def neighbours(client: IPAddress) -> bool:
    """Whether a client is on a network of this host, by the routes of this moment."""
    name, read = ("route", ipv4_routes) if client.version == 4 else ("ipv6_route", ipv6_routes)
    try:
        return is_neighbour(client, read((_ROUTES / name).read_text(encoding="ascii")))
    except OSError:
        return False


class AskGateway:
    """Asks the gateway in front for each lease.  Without a connection every lease is refused with
    code ``gateway``; it connects again by itself."""

    def __init__(
        self,
        gateway: GatewayInFront,
        key: StaticKey,
        *,
        trace: Trace,
        answering: Answering | None = None,
        find_key: FindKey | None = None,
        is_neighbour: Callable[[IPAddress], bool] = neighbours,
    ) -> None:
        self._gateway = gateway
        self._key = key
        self._trace = trace
        self._answering = answering
        self._find_key = find_key
        self._is_neighbour = is_neighbour
        self._stream: LeaseStream | None = None
        self._linked = asyncio.Event()
        self._wanted = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._answers: set[asyncio.Task[None]] = set()
        self._pending: dict[int, asyncio.Future[Opened | NotOpened]] = {}
        self._sent: set[int] = set()  # of the pending, those that the gateway was asked for
        self._untold: deque[EndPort] = deque(maxlen=MAX_UNTOLD)
        self._tags = itertools.count(1)

    async def start(self) -> None:
        """Begin to connect; doesn't wait for it."""
        self._keeper = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """Never raises."""
        tasks = [*self._answers, *([self._keeper] if self._keeper else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._keeper = None

    def take_key(self, key: StaticKey) -> None:
        """Another key of ours, from the next connection on."""
        self._key = key

    @property
    def connected(self) -> bool:
        """Whether the gateway would hear us now."""
        return self._stream is not None

    async def guard(self, place: Place) -> None:
        """The gateway denies by default: nothing to do."""

    async def open(self, lease: Lease) -> Opening:
        """Raises LeaseRefused, with the gateway's code and words or ``gateway``.

        A neighbour does not come by the gateway, so there is nothing to be opened for him.
        """
        if self._is_neighbour(plain(lease.client)):
            return Opening(lease.port, lease.seconds)
        if len(self._pending) >= MAX_PENDING:
            raise LeaseRefused(Code.BUSY.value, "too many leases are being asked for")
        tag = next(self._tags)
        answer: asyncio.Future[Opened | NotOpened] = asyncio.get_running_loop().create_future()
        self._pending[tag] = answer
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                self._wanted.set()
                await self._linked.wait()
                if self._stream is not None:
                    self._stream.send(OpenPort(tag, lease))
                    self._sent.add(tag)
                said = await answer
        except TimeoutError:
            raise _unheard() from None
        finally:
            self._pending.pop(tag, None)
            self._sent.discard(tag)
        if isinstance(said, NotOpened):
            raise LeaseRefused(Code.of(said.code).value, said.text)
        return Opening(said.port, said.seconds)

    async def end(self, place: Place) -> None:
        """Tell the gateway that the service ended, now or when there is a connection again."""
        if place.address is not None and place.address.is_loopback:
            return  # the gateway never had a lease for it
        ended = EndPort(place.address, place.transport, place.port)
        if self._stream is not None:
            self._stream.send(ended)
        else:
            self._untold.append(ended)

    async def _keep(self) -> None:
        """One connection after the other, until we are closed."""
        pause = FIRST_PAUSE
        while True:
            try:
                if await self._talk():
                    pause = FIRST_PAUSE
            except _OVER as error:
                self._trace.drop(CATEGORY, _trigger(error), gateway=str(self._gateway.address))
            self._wanted.clear()
            await asyncio.sleep(FIRST_PAUSE)
            if not self._pending:  # who asks for a lease now does not wait for our patience
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wanted.wait(), pause - FIRST_PAUSE)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _talk(self) -> bool:
        """One connection, from its beginning to its end; whether the gateway was ever heard.

        Raises one of _OVER.
        """
        public = await self._gateway_key()
        async with asyncio.timeout(HANDSHAKE_SECONDS):
            reader, writer = await asyncio.open_connection(
                str(self._gateway.address), self._gateway.port
            )
        heard = False
        alive: asyncio.Task[None] | None = None
        try:
            ephemeral = StaticKey(os.urandom(handshake.KEY_OCTETS))
            writer.write(handshake.hello(self._key, ephemeral).encode() + b"\r\n")
            e_g = handshake.read_welcome(await read_line(reader))
            keys = handshake.keys_of_host(self._key, ephemeral, public, e_g)
            stream = LeaseStream(reader, writer, receiving=keys.to_host, sending=keys.to_gateway)
            stream.send(Alive())
            alive = asyncio.create_task(_tell_we_live(stream))
            while True:
                message = await stream.receive()
                if not heard:
                    heard = True
                    self._begun(stream)
                self._received(stream, message)
        except (EOFError, OSError, TimeoutError):
            if heard:
                return True
            raise
        finally:
            if alive is not None:
                alive.cancel()
            self._ended()
            writer.transport.abort()

    async def _gateway_key(self) -> bytes:
        if self._gateway.key is not None:
            return self._gateway.key
        try:
            found = await self._find_key(self._gateway.address) if self._find_key else None
        except (MonikerError, OSError) as error:
            raise LeaseProtocolError("lease_gateway_without_key", str(error)) from None
        if found is None:
            raise LeaseProtocolError("lease_gateway_without_key", "no key of the gateway is known")
        return found

    def _begun(self, stream: LeaseStream) -> None:
        """The gateway has proven its key: it could seal a message."""
        self._stream = stream
        self._linked.set()
        self._trace.event(CATEGORY, "gateway_connected", gateway=str(self._gateway.address))
        while self._untold:
            stream.send(self._untold.popleft())

    def _ended(self) -> None:
        if self._stream is not None:
            self._trace.event(CATEGORY, "gateway_lost", gateway=str(self._gateway.address))
        self._stream = None
        self._linked.clear()
        for tag in self._sent:  # the others wait for a connection still
            answer = self._pending[tag]
            if not answer.done():
                answer.set_exception(_unheard())
                answer.exception()  # who waited may have given up: then nobody else looks

    def _received(self, stream: LeaseStream, message: Message) -> None:
        match message:
            case Opened(tag=tag) | NotOpened(tag=tag):
                answer = self._pending.get(tag)
                if answer is not None and not answer.done():
                    answer.set_result(message)
            case Question() if self._answering is not None:
                if len(self._answers) >= MAX_QUESTIONS:
                    self._trace.drop(CATEGORY, "lease_too_many_questions")
                    return
                task = asyncio.create_task(self._answer(self._answering, stream, message))
                self._answers.add(task)
                task.add_done_callback(self._answers.discard)
            case Alive():
                pass
            case _:
                self._trace.drop(CATEGORY, "lease_unexpected", message=type(message).__name__)

    async def _answer(self, answering: Answering, stream: LeaseStream, asked: Question) -> None:
        source = Source(asked.client, asked.host, protected=asked.encrypted)
        stream.send(Told(asked.tag, await answering(asked.line, source)))


async def _tell_we_live(stream: LeaseStream) -> None:
    while True:
        await asyncio.sleep(ALIVE_SECONDS)
        stream.send(Alive())


def _trigger(error: BaseException) -> str:
    if isinstance(error, LeaseProtocolError):
        return error.trigger
    return "lease_gateway_silent" if isinstance(error, TimeoutError) else "lease_gateway_refused"


def _unheard() -> LeaseRefused:
    return LeaseRefused(Code.GATEWAY.value, "the gateway in front does not answer")
