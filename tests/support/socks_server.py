"""A SOCKS server in a thread of its own, with twins of what it is handed; and a client by hand."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, TypeVar

from oegw.socks5.codes import ReplyCode
from oegw.socks5.interface import Demand, Refused, Relay, Resolved, Transferred
from oegw.socks5.server.service import Server
from oegw.socks5.settings import Listener, Rule, SocksSettings
from oegw.socks5.wire import (
    Credentials,
    Greeting,
    IPAddress,
    Reply,
    Request,
    parse_credentials_answer,
    parse_method_choice,
    parse_reply,
)
from oegw.trace import JsonTrace
from tests.support.socks_relay import relay_in_threads

T = TypeVar("T")

PATIENCE = 10.0  # seconds that a busy machine may need

LOOPBACK = tuple(map(ip_address, ("127.0.0.1", "::1")))
# Destinations of unit tests are on loopback, which only a rule that names it opens.
OPEN = (Rule(True, destinations=(ip_network("127.0.0.0/8"), ip_network("::1/128")), origin="open"),)


@dataclass
class Names:
    """A resolver's twin.  ``asked``: what it was asked, in that order."""

    of: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    reverse: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 60.0
    asked: list[str] = field(default_factory=list)

    async def resolve(self, name: str, transport: str) -> Resolved:
        self.asked.append(name)
        if name not in self.of:
            raise Refused(ReplyCode.HOST_UNREACHABLE, "no_such_name")
        addresses = tuple(ip_address(each) for each in self.of[name])
        return Resolved(addresses, self.seconds, self.ports.get(name))

    async def name_of(self, address: IPAddress) -> str:
        self.asked.append(str(address))
        if str(address) not in self.reverse:
            raise Refused(ReplyCode.HOST_UNREACHABLE, "no_such_name")
        return self.reverse[str(address)]


@dataclass
class Gateway:
    """A dialler's twin.  ``refuses``: addresses that can't be reached as demanded; ``silent``:
    those of which nothing is heard."""

    refuses: frozenset[str] = frozenset()
    silent: frozenset[str] = frozenset()
    allowed: list[tuple[str, int, str, Demand]] = field(default_factory=list)
    prepared: list[Demand] = field(default_factory=list)

    async def allow(
        self, destination: IPAddress, port: int, transport: str, demand: Demand
    ) -> None:
        self.allowed.append((str(destination), port, transport, demand))
        if str(destination) in self.silent:
            await asyncio.get_running_loop().create_future()
        if str(destination) in self.refuses:
            raise Refused(ReplyCode.NOT_ALLOWED, "not_encrypted")

    def prepare(self, sock: socket.socket, demand: Demand) -> None:
        self.prepared.append(demand)


@dataclass
class Kept:
    """A relay's twin: what it is given it has, until a test ends it."""

    begun: list[tuple[socket.socket, socket.socket, bytes, float]] = field(default_factory=list)
    ends: list[Callable[[Transferred], None]] = field(default_factory=list)

    def begin(
        self,
        client: socket.socket,
        destination: socket.socket,
        early: bytes,
        idle: float,
        ended: Callable[[Transferred], None],
    ) -> Kept:
        self.begun.append((client, destination, early, idle))
        self.ends.append(ended)
        return self

    def close(self) -> None:
        for client, destination, _, _ in self.begun:
            client.close()
            destination.close()


class Running:
    """The server, from the thread of a test."""

    def __init__(
        self,
        settings: SocksSettings,
        names: Names,
        gateway: Gateway,
        enter: Callable[[], None],
        relay: Callable[[], Relay],
    ) -> None:
        self._relay = relay
        self.names = names
        self.gateway = gateway
        self.settings = settings
        self.events: list[dict[str, Any]] = []
        self.trace = JsonTrace(None, time.time)
        self.trace.listeners.append(lambda line: self.events.append(dict(line)))
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._body, args=(enter,), daemon=True)
        self._thread.start()
        self.server: Server = self.wait(self._start())

    def _body(self, enter: Callable[[], None]) -> None:
        enter()
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    async def _start(self) -> Server:
        server = Server(self.settings, self.names, self.gateway, self._relay(), self.trace)
        await server.start()
        return server

    def wait(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(PATIENCE)

    def close(self) -> None:
        try:
            self.wait(self.server.close())
        finally:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()
            self.loop.close()

    def reload(self, settings: SocksSettings) -> list[str]:
        notes: list[str] = self.wait(self.server.reload(settings))
        return notes

    def snapshot(self) -> dict[str, Any]:
        async def body() -> dict[str, Any]:
            return self.server.snapshot()

        found: dict[str, Any] = self.wait(body())
        return found

    def counter(self, name: str) -> int:
        counters: dict[str, int] = self.snapshot()["counters"]
        return counters.get(name, 0)

    def until(self, true: Callable[[], bool], what: str = "it") -> None:
        """The server has come that far."""
        end = time.monotonic() + PATIENCE
        while not true():
            assert time.monotonic() < end, f"{what} did not happen"
            time.sleep(0.005)

    def client(self, which: int = 0, *, source: str | None = None) -> Client:
        """Connected to a listener, by its place in the settings."""
        listener = self.settings.listeners[which]
        return Client.connected(str(listener.address), self.server.ports[which], source)


class Client:
    """A client by hand: octets, and messages where that is not the point."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(PATIENCE)
        self.left = b""  # received, and of no message yet

    @classmethod
    def connected(cls, host: str, port: int, source: str | None = None) -> Client:
        sock = socket.create_connection(
            (host, port), PATIENCE, source_address=(source, 0) if source else None
        )
        return cls(sock)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, octets: bytes) -> None:
        self.sock.sendall(octets)

    def _message(self, parse: Callable[[bytes], tuple[T, int] | None]) -> T:
        while (found := parse(self.left)) is None:
            octets = self.sock.recv(65536)
            if not octets:
                raise EOFError(f"the server has closed, after {self.left!r}")
            self.left += octets
        message, taken = found
        self.left = self.left[taken:]
        return message

    def greet(self, *methods: int) -> int:
        self.send(Greeting(methods or (0,)).octets())
        return self._message(parse_method_choice).method

    def log_in(self, user: bytes, password: bytes) -> int:
        """The status."""
        assert self.greet(2) == 2
        self.send(Credentials(user, password).octets())
        return self._message(parse_credentials_answer).status

    def reply(self) -> Reply:
        return self._message(parse_reply)

    def ask(self, command: int, address: Any, port: int, flag: int = 0) -> Reply:
        """A request and the reply to it.  ``address``: an address as text is meant as such."""
        if isinstance(address, str):
            with suppress(ValueError):
                address = ip_address(address)
        self.send(Request(command, address, port, flag).octets())
        return self.reply()

    def received(self, octets: int) -> bytes:
        while len(self.left) < octets:
            more = self.sock.recv(65536)
            assert more, f"the end, after {self.left!r}"
            self.left += more
        found, self.left = self.left[:octets], self.left[octets:]
        return found

    def rest(self) -> bytes:
        """All until the end."""
        while more := self.sock.recv(65536):
            self.left += more
        found, self.left = self.left, b""
        return found


SETTINGS = SocksSettings(
    present=True,
    listeners=(Listener(LOOPBACK[0], 0), Listener(LOOPBACK[1], 0)),
    rules=OPEN,
)


@contextmanager
def running(
    directory: Path,
    settings: SocksSettings = SETTINGS,
    names: Names | None = None,
    gateway: Gateway | None = None,
    enter: Callable[[], None] = lambda: None,
    relay: Callable[[], Relay] = relay_in_threads,
) -> Iterator[Running]:
    """``enter``: called in the server's thread, for a network namespace."""
    settings = replace(settings, socket=directory / "socks.sock")
    server = Running(settings, names or Names(), gateway or Gateway(), enter, relay)
    try:
        yield server
    finally:
        server.close()


class Destination:
    """A TCP server on loopback: what came, echoed in capitals."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.sock = socket.create_server((host, 0), family=family)
        self.sock.settimeout(PATIENCE)
        self.host = host
        self.port: int = self.sock.getsockname()[1]

    def __enter__(self) -> Destination:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def accept(self) -> socket.socket:
        connection, _ = self.sock.accept()
        connection.settimeout(PATIENCE)
        return connection
