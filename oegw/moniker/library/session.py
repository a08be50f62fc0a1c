"""A connection to a service, or from a client: the application sees no port (MK-4, MK-5)."""

from __future__ import annotations

import socket
from io import BufferedRWPair
from ipaddress import IPv6Address, ip_address
from types import TracebackType
from typing import Any, Self

from oegw.moniker.names import ServiceName
from oegw.moniker.transports import Kind


class Session:
    """``service``: its name.  ``peer``: the host at the other end, without a port.  ``encrypted``:
    whether the question for it was.  ``path``: what the URI has after its host.

    With a datagram transport each `send` is a message, and so is what each `recv` returns.
    """

    def __init__(
        self,
        sock: socket.socket,
        service: ServiceName,
        peer: str,
        kind: Kind = Kind.STREAM,
        *,
        encrypted: bool = False,
        path: str = "",
    ) -> None:
        self.service = service
        self.peer = peer
        self.kind = kind
        self.encrypted = encrypted
        self.path = path
        self._socket = sock

    def __repr__(self) -> str:
        return f"<Session {self.service} with {self.peer}>"

    def send(self, octets: bytes | bytearray | memoryview) -> int:
        """All octets; returns their number, as the paper's calls do."""
        if self.kind is Kind.STREAM:
            self._socket.sendall(octets)
            return len(octets)
        return self._socket.send(octets)

    def recv(self, size: int) -> bytes:
        """At most ``size`` octets; none: the other end is done."""
        return self._socket.recv(size)

    def recv_exactly(self, size: int) -> bytes:
        """``size`` octets.  Raises EOFError if the other end is done before."""
        received = bytearray()
        while len(received) < size:
            octets = self._socket.recv(size - len(received))
            if not octets:
                raise EOFError(f"{self.service}: {len(received)} of {size} octets came")
            received += octets
        return bytes(received)

    def finish(self) -> None:
        """Nothing more will be sent; what the other end sends is still received."""
        self._socket.shutdown(socket.SHUT_WR)

    def makefile(self) -> BufferedRWPair:
        """A file to read from and to write to, in binary; what is written waits for `flush`."""
        return self._socket.makefile("rwb")

    def settimeout(self, seconds: float | None) -> None:
        """For `send` and `recv`, which then raise TimeoutError; None: they wait."""
        self._socket.settimeout(seconds)

    def fileno(self) -> int:
        """For select and its like; -1 once it is closed."""
        return self._socket.fileno()

    def detach(self) -> socket.socket:
        """The socket below, which knows its ports; the session has none from now on."""
        timeout = self._socket.gettimeout()
        sock = socket.socket(fileno=self._socket.detach())
        sock.settimeout(timeout)
        return sock

    def reveal_port(self) -> int:
        """The far port, for those who must know."""
        return int(self._socket.getpeername()[1])

    def close(self) -> None:
        """This process's end of it: a child that was forked with it still has its own."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def host_of(address: tuple[Any, ...]) -> str:
    """The host of a socket's address: an IPv4 address that is mapped into IPv6 as it is."""
    found = ip_address(str(address[0]))
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return str(found if mapped is None else mapped)
