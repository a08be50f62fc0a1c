"""Moniker's firewall in a network namespace: a loop there, services, and clients that knock."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing, contextmanager
from typing import Any, TypeVar

from oegw.trace import JsonTrace
from tests.support.intercept_net import Net, enter, within

T = TypeVar("T")

SILENCE = 0.15  # seconds after which nobody has answered, on a link of microseconds


class Loop:
    """An event loop in a thread of its own, in a network namespace."""

    def __init__(self, namespace: str) -> None:
        self.events: list[dict[str, Any]] = []
        self.trace = JsonTrace(None, time.time)
        self.trace.listeners.append(lambda line: self.events.append(dict(line)))
        self.loop = asyncio.new_event_loop()
        self._namespace = namespace
        ready = threading.Event()
        self._thread = threading.Thread(target=self._body, args=(ready,), daemon=True)
        self._thread.start()
        ready.wait()

    def _body(self, ready: threading.Event) -> None:
        enter(self._namespace)
        asyncio.set_event_loop(self.loop)
        self.loop.call_soon(ready.set)
        self.loop.run_forever()

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def make(self, maker: Callable[[], T]) -> T:
        """Call in the loop's thread."""

        async def body() -> T:
            return maker()

        return self.wait(body())

    def end(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@contextmanager
def loop_in(namespace: str) -> Iterator[Loop]:
    loop = Loop(namespace)
    try:
        yield loop
    finally:
        loop.end()


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


@contextmanager
def listening(namespace: str, address: str, port: int = 0) -> Iterator[socket.socket]:
    """A TCP server that the kernel accepts connections for."""

    def made() -> socket.socket:
        server = socket.socket(_family(address), socket.SOCK_STREAM)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address, port))
        server.listen(16)
        server.settimeout(2)
        return server

    with closing(within(namespace, made)) as server:
        yield server


def connected(
    net: Net, address: str, port: int, source: str = "", seconds: float = 2.0
) -> socket.socket:
    """A TCP connection from outside.  Raises OSError."""

    def made() -> socket.socket:
        client = socket.socket(_family(address), socket.SOCK_STREAM)
        client.settimeout(seconds)
        if source:
            client.bind((source, 0))
        return client

    client = within(net.outside, made)
    try:
        client.connect((address, port))
    except BaseException:
        client.close()
        raise
    return client


def knock(net: Net, address: str, port: int, source: str = "", seconds: float = 5.0) -> str:
    """What becomes of a TCP connection from outside: ``open``, ``refused`` or ``silent``."""
    try:
        connected(net, address, port, source, seconds).close()
    except ConnectionRefusedError:
        return "refused"
    except TimeoutError:
        return "silent"
    return "open"


def silent(net: Net, address: str, port: int, source: str = "") -> bool:
    """Whether nobody answers a TCP connection from outside."""
    return knock(net, address, port, source, SILENCE) == "silent"
