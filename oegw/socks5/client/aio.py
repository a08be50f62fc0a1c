"""What an application asks of a SOCKS server, in asyncio: `from oegw.socks5.client import aio`."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from oegw.socks5.client import asking
from oegw.socks5.client.aioassociation import UdpAssociation, associated
from oegw.socks5.client.aioline import AsyncLine
from oegw.socks5.client.connected import Connected, Listening
from oegw.socks5.client.errors import OutOfTurn
from oegw.socks5.client.proxy import TIMEOUT, Proxy
from oegw.socks5.codes import AddressType
from oegw.socks5.wire import Address, IPAddress, Reply


class Conversation:
    """As `conversation.Conversation`; the connection is made by ``async with``, or `open`."""

    def __init__(self, proxy: Proxy, *, timeout: float | None = TIMEOUT) -> None:
        self._held: AsyncLine | None = AsyncLine(proxy, timeout)

    async def open(self) -> Self:
        """Raises ProxyUnreachable, TooSlow."""
        await self._line.open()
        return self

    @property
    def _line(self) -> AsyncLine:
        if self._held is None:
            raise OutOfTurn("this conversation has become an association")
        return self._held

    async def associate(
        self, destination: Address, *, prefer: AddressType | None = None, flag: int = 0
    ) -> Address:
        return (await self._line.ask(asking.associate_request(destination, prefer, flag))).address

    async def address_of(self, name: Address, family: int) -> IPAddress:
        return asking.address_in(await self._preferring(name, asking.PREFERENCE[family]), family)

    async def name_of(self, address: Address) -> str:
        return asking.name_in(await self._preferring(address, AddressType.NAME))

    async def connect(
        self,
        destination: Address,
        port: int,
        *,
        associate: bool = False,
        flag: int = 0,
        early: bytes = b"",
    ) -> Connected:
        """Its socket is non-blocking."""
        request = asking.connect_request(destination, port, flag, associate=associate)
        reply = await self._line.ask(request, early)
        return self._connected(reply)

    async def bind(
        self, peer: Address, port: int = 0, *, associate: bool = False, flag: int = 0
    ) -> Listening:
        reply = await self._line.ask(asking.bind_request(peer, port, flag, associate=associate))
        return Listening(reply.address, reply.port)

    async def accept(self, timeout: float | None = None) -> Connected:
        """Its socket is non-blocking."""
        return self._connected(await self._line.await_reply(timeout))

    async def udp(
        self, *, associate: Address | None = None, flag: int = 0, declared: bool = True
    ) -> UdpAssociation:
        line, self._held = self._line, None
        return await associated(line, associate=associate, flag=flag, declared=declared)

    async def _preferring(self, destination: Address, prefer: AddressType) -> Reply:
        reply = await self._line.ask(asking.associate_request(destination, prefer))
        if asking.asked_further(reply.address):
            reply = await self._line.ask(asking.associate_request(reply.address, prefer))
        return reply

    def _connected(self, reply: Reply) -> Connected:
        return Connected(self._line.detach(), reply.address, reply.port)

    def close(self) -> None:
        """Of no effect on what `connect`, `accept` and `udp` returned."""
        if self._held is not None:
            self._held.close()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


async def connect(
    proxy: Proxy,
    destination: Address,
    port: int,
    *,
    timeout: float | None = TIMEOUT,
    flag: int = 0,
    early: bytes = b"",
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Streams whose other end is the destination's.

    ``timeout``: seconds for the connection to the server, and for its answer.
    """
    async with Conversation(proxy, timeout=timeout) as conversation:
        connected = await conversation.connect(destination, port, flag=flag, early=early)
    return await asyncio.open_connection(sock=connected.socket)


async def udp(
    proxy: Proxy,
    *,
    associate: Address | None = None,
    flag: int = 0,
    declared: bool = True,
    timeout: float | None = TIMEOUT,
) -> UdpAssociation:
    """As `Conversation.udp`."""
    async with Conversation(proxy, timeout=timeout) as conversation:
        return await conversation.udp(associate=associate, flag=flag, declared=declared)


async def address_of(
    proxy: Proxy, name: str, family: int, *, timeout: float | None = TIMEOUT
) -> IPAddress:
    """As `Conversation.address_of`."""
    async with Conversation(proxy, timeout=timeout) as conversation:
        return await conversation.address_of(name, family)


async def name_of(proxy: Proxy, address: Address, *, timeout: float | None = TIMEOUT) -> str:
    """As `Conversation.name_of`."""
    async with Conversation(proxy, timeout=timeout) as conversation:
        return await conversation.name_of(address)
