"""Datagrams by way of a SOCKS server, in asyncio."""

from __future__ import annotations

import asyncio
import socket
from types import TracebackType
from typing import Self

from oegw.socks5.client import asking, relayed
from oegw.socks5.client.aioline import AsyncLine
from oegw.socks5.client.errors import ProxyError, ProxyUnreachable, TooSlow
from oegw.socks5.client.line import accepted, timely
from oegw.socks5.wire import Address, AddressId, Datagram, Reply


class UdpAssociation:
    """As `association.UdpAssociation`; made by `associated`."""

    def __init__(self, line: AsyncLine, sock: socket.socket, id: AddressId | None) -> None:
        self.id = id
        self._line = line
        self._socket = sock
        self._loop = asyncio.get_running_loop()
        self._waiting: set[asyncio.Future[None]] = set()
        self._control: asyncio.Future[Reply] | None = None
        self._one_at_a_time = asyncio.Lock()
        self._end: ProxyError | None = None
        self._loop.add_reader(line.connection, self._line_readable)

    async def send(self, payload: bytes, destination: Address, port: int) -> None:
        """Raises DestinationUnusable, ProxyUnreachable, and OSError, as for what is too long."""
        self._going_on()
        octets = asking.datagram_octets(payload, destination, port)
        await self._loop.sock_sendall(self._socket, octets)

    async def receive(self) -> Datagram:
        """The next datagram; its address is the ID or name that was sent to, where that was one.

        Raises ProxyUnreachable once the server has ended the association.
        """
        while True:
            if self._socket.fileno() < 0:
                self._going_on()
            try:
                with timely(self._line.proxy):
                    octets = self._socket.recv(relayed.MAX_DATAGRAM_OCTETS)
            except BlockingIOError:
                self._going_on()
                await self._readable()
            else:
                if (datagram := asking.datagram_in(octets)) is not None:
                    return datagram

    async def interface_towards(self, destination: Address, port: int) -> tuple[Address, int]:
        """The server's address and port that the destination sees (SK-43).

        Raises RequestRefused, after which the association goes on.
        """
        request = asking.interface_request(destination, port)
        async with self._one_at_a_time:
            self._going_on()
            self._control = self._loop.create_future()
            try:
                async with asyncio.timeout(self._line.timeout):
                    await self._line.send_control(request)
                    reply = await self._control
            except TimeoutError:
                self._over(TooSlow(f"the SOCKS server at {self._line.proxy}: no answer in time"))
                self._going_on()
                raise
            except asyncio.CancelledError:
                # Its reply would be taken for the next one's.
                self._over(ProxyUnreachable("a question was given up"))
                raise
            finally:
                self._control = None
        reply = accepted(reply)
        return reply.address, reply.port

    def fileno(self) -> int:
        """Of the socket that datagrams come to."""
        return self._socket.fileno()

    def close(self) -> None:
        self._over(ProxyUnreachable("the association is closed"))
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

    # ------------------------------------------------------------- what the loop calls

    def _line_readable(self) -> None:
        try:
            reply = self._line.notice()
        except ProxyError as error:
            self._over(error)
            return
        if reply is not None and self._control is not None and not self._control.done():
            self._control.set_result(reply)

    async def _readable(self) -> None:
        ready = self._loop.create_future()
        self._waiting.add(ready)
        self._loop.add_reader(self._socket, self._wake)
        try:
            await ready
        finally:
            self._waiting.discard(ready)
            if not self._waiting and self._socket.fileno() >= 0:
                self._loop.remove_reader(self._socket)

    def _wake(self) -> None:
        for each in self._waiting:
            if not each.done():
                each.set_result(None)

    def _going_on(self) -> None:
        if self._end is not None:
            raise self._end

    def _over(self, why: ProxyError) -> None:
        if self._end is not None:
            return
        self._end = why
        for each in (self._line.connection, self._socket):
            self._loop.remove_reader(each)  # before they are closed: numbers are given again
        self._line.close()
        self._wake()
        if self._control is not None and not self._control.done():
            self._control.set_exception(why)


async def associated(
    line: AsyncLine, *, associate: Address | None, flag: int, declared: bool
) -> UdpAssociation:
    """The base command of ``line``, which is the association's from now on, or closed."""
    try:
        with timely(line.proxy):
            sock = relayed.opened(line.connection)
        try:
            own, port = relayed.declared(sock, declared)
            reply = await line.ask(asking.udp_request(own, port, flag, associate=associate))
            found = None if associate is None else asking.id_in(reply)
        except BaseException:
            sock.close()
            raise
        with timely(line.proxy):
            sock = relayed.directed(sock, line.connection, reply)
        sock.setblocking(False)
        return UdpAssociation(line, sock, found)
    except BaseException:
        line.close()
        raise
