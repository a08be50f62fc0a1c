"""A SOCKS server in a process and a network of its own, and who uses it, written without its code.

Namespaces are those of `intercept_net`: the server runs on ``gateway`` (10.1.0.1, fd00:1::1), its
clients are ``inside`` (10.1.0.2 and more, fd00:1::2), destinations ``outside`` (10.9.0.2,
fd00:9::2), where the gateway is 10.2.0.1 and fd00:2::1.
"""

from __future__ import annotations

import asyncio
import select
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import dns.rdatatype

from oegw.control import ControlError
from oegw.socksstatus import status
from tests.support.dns_server import DnsServer, Records
from tests.support.intercept_net import PEER, PEER6, Net, enter, wait_for, within
from tests.support.serving import Serving

HERE, HERE6 = "10.1.0.1", "fd00:1::1"
CLIENT, CLIENT6 = "10.1.0.2", "fd00:1::2"
OTHERS = [f"10.1.0.{number}" for number in range(10, 30)]  # further clients
PORT = 1080
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: a close is a reset
ECHO = 7

CONNECT, BIND, UDP_ASSOCIATE, ASSOCIATE = 1, 2, 3, 8
GREETING, CHOSEN = b"\x05\x01\x00", b"\x05\x00"


class SocksServer(Serving):
    """``oegw socks serve`` on the gateway of a net.  ``rest``: what is below ``[socks]``."""

    def __init__(self, net: Net, folder: Path, rest: str = "") -> None:
        super().__init__(net.gateway, folder, ("socks", "serve"))
        self.net = net
        self.socket = folder / "socks.sock"
        self.configure(rest)

    def configure(self, rest: str = "") -> None:
        self.write(
            f'[interfaces]\noutside = ["out0"]\n[dns]\nresolvers = ["{PEER}"]\n'
            f'[socks]\nsocket = "{self.socket}"\n{rest}'
        )

    def is_ready(self) -> bool:
        try:
            return all(row["listening"] for row in self.status()["listeners"])
        except ControlError:
            return False

    def status(self) -> dict[str, Any]:
        return status(self.socket)

    def counters(self) -> dict[str, int]:
        counted: dict[str, int] = self.status()["counters"]
        return counted

    def idle(self) -> bool:
        """Whether it has no connection any more."""
        return self.status()["connections"]["total"] == 0


@dataclass(frozen=True)
class Said:
    """A reply, or a datagram's header: ``address`` as it was, its port, and what follows."""

    code: int
    kind: int
    address: str | bytes
    port: int
    rest: bytes = b""


def place(address: str | bytes, port: int) -> bytes:
    """ATYP, address, port; four octets are an ADDRESS ID, what is no address a name."""
    if isinstance(address, bytes):
        return b"\x08" + address + port.to_bytes(2, "big")
    try:
        packed = ip_address(address).packed
    except ValueError:
        name = address.encode()
        return bytes([3, len(name)]) + name + port.to_bytes(2, "big")
    return bytes([1 if len(packed) == 4 else 4]) + packed + port.to_bytes(2, "big")


def read_place(octets: bytes) -> Said | None:
    """From the code to the port; None if some of it is missing.

    A reply is ``VER REP RSV ATYP``, a datagram ``RSV RSV FRAG ATYP``: the code is in the second.
    """
    if len(octets) < 5:
        return None
    kind = octets[3]
    size = {1: 4, 4: 16, 8: 4}.get(kind, 1 + octets[4])
    assert kind in (1, 3, 4, 8), f"address type {kind}"
    if len(octets) < 4 + size + 2:
        return None
    body, port = octets[4 : 4 + size], int.from_bytes(octets[4 + size : 6 + size], "big")
    address: str | bytes = body
    if kind == 3:
        address = body[1:].decode()
    elif kind != 8:
        address = str(ip_address(body))
    return Said(octets[1], kind, address, port, octets[6 + size :])


class Client:
    """A connection to the server, and what is said on it."""

    def __init__(self, net: Net, source: str = CLIENT, port: int = PORT) -> None:
        self.source = source
        self._net = net
        here = HERE6 if ":" in source else HERE

        def make() -> socket.socket:
            return socket.create_connection((here, port), 10, source_address=(source, 0))

        self.socket = within(net.inside, make)
        self.heard = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def say(self, octets: bytes) -> None:
        self.socket.sendall(octets)

    def hear(self, size: int) -> bytes:
        """So many octets.  Raises EOFError."""
        while len(self.heard) < size:
            more = self.socket.recv(65536)
            if not more:
                raise EOFError(f"closed after {self.heard!r}")
            self.heard += more
        heard, self.heard = self.heard[:size], self.heard[size:]
        return heard

    def to_the_end(self) -> bytes:
        """All that it says until it closes, or resets the connection."""
        with suppress(ConnectionResetError):
            while more := self.socket.recv(65536):
                self.heard += more
        heard, self.heard = self.heard, b""
        return heard

    def greet(self, user: str = "", password: str = "") -> bool:
        """Whether we are in."""
        if not user:
            self.say(GREETING)
            return self.hear(2) == CHOSEN
        self.say(b"\x05\x01\x02")
        assert self.hear(2) == b"\x05\x02"
        self.say(bytes([1, len(user)]) + user.encode() + bytes([len(password)]) + password.encode())
        version, code = self.hear(2)
        assert version == 1
        return code == 0

    def reply(self) -> Said:
        while (said := read_place(self.heard)) is None:
            more = self.socket.recv(65536)
            if not more:
                raise EOFError(f"closed after {self.heard!r}")
            self.heard += more
        version, reserved, self.heard = self.heard[0], self.heard[2], said.rest
        assert (version, reserved) == (5, 0)
        return said

    def ask(self, command: int, address: str | bytes, port: int, flag: int = 0) -> Said:
        self.say(bytes([5, command, flag]) + place(address, port))
        return self.reply()

    def associated(self, destination: str) -> bytes:
        """An ADDRESS ID for it."""
        said = self.ask(ASSOCIATE, destination, 0)
        assert (said.code, said.kind) == (0, 8), said
        assert isinstance(said.address, bytes)
        return said.address


@dataclass
class Datagrams:
    """A client's UDP socket, and where the association's relay is."""

    socket: socket.socket
    relay: tuple[str, int]

    def say(self, address: str | bytes, port: int, payload: bytes) -> None:
        self.socket.sendto(b"\0\0\0" + place(address, port) + payload, self.relay)

    def hear(self, seconds: float = 5.0) -> Said | None:
        """The next; None if there is none by then."""
        if not select.select([self.socket], [], [], seconds)[0]:
            return None
        return read_place(self.socket.recv(65535))


def datagrams(net: Net, client: Client, source: str | None = None) -> Datagrams:
    """UDP ASSOCIATE on a connection that is in already; its datagrams are from ``source``."""
    here = HERE6 if ":" in client.source else HERE
    nowhere = "::" if ":" in client.source else "0.0.0.0"
    said = client.ask(UDP_ASSOCIATE, nowhere, 0)
    assert (said.code, said.address) == (0, here), said

    def make() -> socket.socket:
        made = socket.socket(socket.AF_INET6 if ":" in here else socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((source or client.source, 0))
        return made

    return Datagrams(within(net.inside, make), (here, said.port))


class Echo:
    """Whoever connects to port 7 outside gets back what he sends; and so do datagrams."""

    def __init__(self, net: Net) -> None:
        self.seen: list[bytes] = []  # datagrams
        self.connections = 0
        self._stop, self._stopped = socket.socketpair()

        def listening(address: str) -> list[socket.socket]:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            made = socket.socket(family, socket.SOCK_DGRAM)
            made.bind((address, ECHO))
            return [socket.create_server((address, ECHO), family=family, backlog=512), made]

        def all_of_them() -> list[socket.socket]:
            return [*listening(PEER), *listening(PEER6)]

        self._doors = within(net.outside, all_of_them)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        waiting = select.epoll()
        by = {sock.fileno(): sock for sock in (*self._doors, self._stopped)}
        for number in by:
            waiting.register(number, select.EPOLLIN)
        while True:
            for number, _ in waiting.poll():
                sock = by[number]
                if sock is self._stopped:
                    for each in by.values():
                        each.close()
                    return
                if sock.type == socket.SOCK_DGRAM:
                    payload, source = sock.recvfrom(65535)
                    self.seen.append(payload)
                    sock.sendto(payload, source)
                elif sock in self._doors:
                    made, _ = sock.accept()
                    self.connections += 1
                    by[made.fileno()] = made
                    waiting.register(made, select.EPOLLIN)
                else:
                    try:
                        octets = sock.recv(65536)
                        sock.sendall(octets)
                    except OSError:
                        octets = b""
                    if not octets:
                        waiting.unregister(number)
                        by.pop(number).close()

    def close(self) -> None:
        self._stop.close()
        self._thread.join()


def is_served(net: Net, source: str = CLIENT, **who: str) -> bool:
    """An honest client, from its greeting to the destination's answer."""
    with Client(net, source) as client:
        if not client.greet(**who):
            return False
        peer = PEER6 if isinstance(ip_address(source), IPv4Address) else PEER
        if client.ask(CONNECT, peer, ECHO).code != 0:
            return False
        client.say(b"hello")
        return client.hear(5) == b"hello"


@contextmanager
def inhabited() -> Iterator[Net]:
    """A net with many clients inside."""
    with Net() as net:
        for address in OTHERS:
            net.run(net.inside, "ip", "addr", "add", f"{address}/24", "dev", "in0")
        yield net


class Names:
    """A DNS server outside, and what it was asked."""

    def __init__(self, net: Net, records: Records) -> None:
        self.server = DnsServer(records, host=PEER, port=53)
        self._loop = asyncio.new_event_loop()
        self._ended = asyncio.Event()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._body, args=(net, ready), daemon=True)
        self._thread.start()
        assert ready.wait(10)

    def _body(self, net: Net, ready: threading.Event) -> None:
        async def serve() -> None:
            async with self.server:
                ready.set()
                await self._ended.wait()

        enter(net.outside)
        self._loop.run_until_complete(serve())
        self._loop.close()

    def asked(self) -> set[str]:
        """Names, and the types that were asked for."""
        questions = [query.question[0] for _, query in self.server.queries]
        return {f"{q.name} {dns.rdatatype.to_text(q.rdtype)}" for q in questions}

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()


@contextmanager
def servers(net: Net) -> Iterator[Echo]:
    echo = Echo(net)
    try:
        yield echo
    finally:
        echo.close()


def until_idle(server: SocksServer, seconds: float = 15.0) -> None:
    """All that was connected is gone, and has left nothing behind."""
    wait_for(server.idle, seconds)
