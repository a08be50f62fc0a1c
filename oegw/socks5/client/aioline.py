"""The TCP connection to a SOCKS server, in asyncio."""

from __future__ import annotations

import asyncio
import socket

from oegw.socks5.client.line import OpenLine, dialogue_with, reply_in, timely
from oegw.socks5.client.proxy import Proxy
from oegw.socks5.wire import ControlRequest, Reply, Request


class AsyncLine(OpenLine):
    """Its connection is made by `open`."""

    def __init__(self, proxy: Proxy, timeout: float | None) -> None:
        super().__init__(proxy, timeout, dialogue_with(proxy))

    async def open(self) -> None:
        """Raises ProxyUnreachable, TooSlow."""
        with timely(self.proxy):
            async with asyncio.timeout(self.timeout):
                self._socket = await _connected(self.proxy)

    async def ask(self, request: Request, early: bytes = b"") -> Reply:
        """Raises the errors of `errors`."""
        self._dialogue.ask(request, early)
        return await self.await_reply(self.timeout)

    async def await_reply(self, timeout: float | None) -> Reply:
        """The next reply, which may be the second one of a BIND."""
        sock, dialogue = self.connection, self._dialogue
        loop = asyncio.get_running_loop()
        try:
            with timely(self.proxy):
                async with asyncio.timeout(timeout):
                    while (event := dialogue.next_event()) is None:
                        if octets := dialogue.octets_to_send():
                            await loop.sock_sendall(sock, octets)
                        elif octets := await loop.sock_recv(sock, dialogue.wanted()):
                            dialogue.receive(octets)
                        else:
                            dialogue.end_of_input()
            return reply_in(event)
        except BaseException:
            self.close()
            raise

    async def send_control(self, request: ControlRequest) -> None:
        """The reply is what `notice` returns."""
        self._dialogue.ask_control(request)
        with timely(self.proxy):
            octets = self._dialogue.octets_to_send()
            await asyncio.get_running_loop().sock_sendall(self.connection, octets)


async def _connected(proxy: Proxy) -> socket.socket:
    """To the first address of the server that answers, as socket.create_connection does it."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(proxy.host, proxy.port, type=socket.SOCK_STREAM)
    problem = OSError("it has no address")
    for family, kind, protocol, _, address in found:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            await loop.sock_connect(sock, address)
        except OSError as error:
            sock.close()
            problem = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise problem
