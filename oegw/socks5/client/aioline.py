"""The TCP connection to a SOCKS server, in asyncio."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Collection

from oegw.socks5.client.line import OpenLine, dialogue_with, reply_in, timely
from oegw.socks5.client.proxy import Proxy
from oegw.socks5.client.reaching import Place, Reaching
from oegw.socks5.wire import ControlRequest, IPAddress, Reply, Request


class AsyncLine(OpenLine):
    """Its connection is made by `open`."""

    def __init__(self, proxy: Proxy, timeout: float | None) -> None:
        super().__init__(proxy, timeout, dialogue_with(proxy))

    async def open(self) -> None:
        """Raises ProxyUnreachable, TooSlow."""
        with timely(self.proxy):
            async with asyncio.timeout(self.timeout):
                self._socket = await _reached(self.proxy.host, self.proxy.port)

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


async def _reached(host: str, port: int) -> socket.socket:
    """As `reaching.reached`; its socket is non-blocking."""
    loop = asyncio.get_running_loop()
    reaching = Reaching(await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    running: dict[asyncio.Task[socket.socket], IPAddress] = {}
    try:
        while not reaching.race.lost():
            while (address := reaching.race.begin(time.monotonic())) is not None:
                running[asyncio.create_task(_connected(reaching.places[address]))] = address
            wake_at = reaching.race.wake_at()
            pause = None if wake_at is None else max(0.0, wake_at - time.monotonic())
            done, _ = await asyncio.wait(
                running, timeout=pause, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                address = running.pop(task)
                try:
                    return task.result()
                except OSError as error:
                    reaching.failed(address, error)
        raise reaching.problem
    finally:
        await _ended(running)


async def _connected(place: Place) -> socket.socket:
    family, address = place
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


async def _ended(tasks: Collection[asyncio.Task[socket.socket]]) -> None:
    """Those that came second."""
    for task in tasks:
        task.cancel()
    for ended in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(ended, socket.socket):
            ended.close()
