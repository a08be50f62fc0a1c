"""A daemon in a process and a network of its own, and who asks it, written without its code.

Namespaces are those of `intercept_net`: the daemon runs on ``gateway`` (10.1.0.1, fd00:1::1) at
port 1, strangers ask from ``inside`` (10.1.0.2 and more, fd00:1::2).
"""

from __future__ import annotations

import json
import secrets
import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.intercept_net import Net, within
from tests.support.serving import Serving

HERE, HERE6 = "10.1.0.1", "fd00:1::1"
ASKER, ASKER6 = "10.1.0.2", "fd00:1::2"
PORT = 1
CRLF = b"\r\n"


class MonikerDaemon(Serving):
    """``oegw moniker serve`` on the gateway of a net; a context that ends it again.

    ``rest``: more of its configuration, below ``[moniker]``.
    """

    def __init__(self, net: Net, folder: Path, rest: str = "") -> None:
        super().__init__(net.gateway, folder, ("moniker", "serve"))
        self.net = net
        self.socket = folder / "moniker.sock"
        self.configure(rest)

    def configure(self, rest: str = "") -> None:
        self.write(f'[moniker]\nport = {PORT}\nsocket = "{self.socket}"\n{rest}')

    def status(self) -> dict[str, Any]:
        """What it tells of itself."""
        with Application(self) as application:
            return application.ask({"do": "status"})


class Application:
    """A connection to the daemon's Unix socket, with the lines of `localwire` written by hand."""

    def __init__(self, daemon: MonikerDaemon, seconds: float = 10.0) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(str(daemon.socket))  # without a timeout it waits for its turn
        self.socket.settimeout(seconds)
        self._net = daemon.net
        self._rest = b""
        self._held: list[socket.socket] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def ask(self, request: dict[str, Any], *descriptors: int) -> dict[str, Any]:
        line = json.dumps(request).encode() + b"\n"
        if descriptors:
            socket.send_fds(self.socket, [line], list(descriptors))
        else:
            self.socket.sendall(line)
        return self.read()

    def read(self) -> dict[str, Any]:
        """The next line's object.  Raises EOFError at the end."""
        while b"\n" not in self._rest:
            more = self.socket.recv(65536)
            if not more:
                raise EOFError("the daemon closed the connection")
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def register(self, service: str, version: str = "1", **more: Any) -> int:
        """A listening TCP socket of the gateway's is registered, and held; returns its port."""
        held = within(self._net.gateway, bound)
        self._held.append(held)
        said = self.ask({"do": "register", "service": service, "version": version, **more},
                        held.fileno())  # fmt: skip
        assert said["ok"], said
        return int(held.getsockname()[1])

    def close(self) -> None:
        for held in self._held:
            held.close()
        self.socket.close()


def bound(port: int = 0) -> socket.socket:
    """A listening socket of both families."""
    made = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    made.bind(("::", port))
    made.listen()
    return made


class Asker:
    """Someone on the network: questions and answers as octets."""

    def __init__(self, net: Net, source: str = ASKER) -> None:
        self._net = net
        self.source = source
        self._here = HERE6 if ":" in source else HERE
        self._family = socket.AF_INET6 if ":" in source else socket.AF_INET

    def connected(self, seconds: float = 10.0) -> socket.socket:
        """A TCP connection to the daemon."""

        def make() -> socket.socket:
            made = socket.socket(self._family, socket.SOCK_STREAM)
            made.settimeout(seconds)
            made.bind((self.source, 0))
            made.connect((self._here, PORT))
            return made

        return within(self._net.inside, make)

    def datagrams(self, seconds: float = 2.0) -> socket.socket:
        """A UDP socket towards the daemon."""

        def make() -> socket.socket:
            made = socket.socket(self._family, socket.SOCK_DGRAM)
            made.settimeout(seconds)
            made.bind((self.source, 0))
            made.connect((self._here, PORT))
            return made

        return within(self._net.inside, make)

    def say(self, octets: bytes, seconds: float = 10.0) -> bytes:
        """All that the daemon answers to a line over TCP, until it closes."""
        with self.connected(seconds) as connection:
            try:
                connection.sendall(octets)
                connection.shutdown(socket.SHUT_WR)
                return read_all(connection)
            except (ConnectionResetError, BrokenPipeError):
                return b""

    def port_of(self, service: str, seconds: float = 10.0) -> int | None:
        """The port of a service, asked over TCP; None: the daemon refuses."""
        nonce = secrets.token_hex(8)
        fields = self.say(question(service, nonce) + CRLF, seconds).decode().split()
        assert fields[:3:2] == ["MON/1", nonce], fields
        return int(fields[3]) if fields[1] == "+" else None


def question(service: str, nonce: str | None = None, *more: str, transport: str = "*") -> bytes:
    """A question without its end; ``more``: a cookie."""
    nonce = nonce or secrets.token_hex(8)
    return " ".join(["MON/1", "Q", nonce, transport, "-", service, "*", *more]).encode()


def read_all(connection: socket.socket) -> bytes:
    said = b""
    while more := connection.recv(65536):
        said += more
    return said


def seconds_of(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began
