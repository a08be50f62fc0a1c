"""One query to one server, by UDP or TCP, and the response to it: the sockets of this room.

Each query has a socket, hence a source port, and an ID of its own (RFC 5452 section 4).
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

import dns.name
import dns.rdatatype

from dnsrecords.errors import RecordError
from dnsrecords.message import MalformedResponse
from dnsrecords.response import (
    MismatchedResponse,
    Response,
    query_octets,
    read_response,
)
from dnsrecords.upstream import Upstream

MAX_DATAGRAM = 65535  # what a server sends although we announced 1232


class Exchange:
    """One question to one server.

    ``mark`` is set on each socket.  ``refused`` hears of each response that is not ours or can't
    be read.
    """

    def __init__(
        self,
        upstream: Upstream,
        name: dns.name.Name,
        rdtype: dns.rdatatype.RdataType,
        *,
        port: int,
        mark: int | None,
        edns: bool,
        unchecked: bool,
        refused: Callable[[RecordError], None],
    ) -> None:
        self._upstream = upstream
        self._name = name
        self._rdtype = rdtype
        self._port = port
        self._mark = mark
        self._edns = edns
        self._unchecked = unchecked
        self._refused = refused
        self._id = 0

    async def ask_by(self, transport: str) -> Response:
        """Send and wait.  Raises OSError and, by TCP, EOFError and RecordError."""
        self._id = secrets.randbelow(1 << 16)
        octets = query_octets(
            self._name,
            self._rdtype,
            self._id,
            edns=self._edns,
            authentic=self._upstream.trusted and not self._unchecked,
            unchecked=self._unchecked,
        )
        if transport == "udp":
            return await self._exchange_by_udp(octets)
        return await self._exchange_by_tcp(octets)

    async def _exchange_by_udp(self, octets: bytes) -> Response:
        loop = asyncio.get_running_loop()
        with marked_socket(self._upstream.address, socket.SOCK_DGRAM, self._mark) as sock:
            # Connected, so that the kernel keeps other senders' datagrams away
            # and picks a random source port.
            sock.connect((str(self._upstream.address), self._port))
            await loop.sock_sendall(sock, octets)
            while True:
                received = await loop.sock_recv(sock, MAX_DATAGRAM)
                try:
                    return self._read(received)
                except RecordError:
                    continue  # a forger must not be able to end the wait for the true response

    async def _exchange_by_tcp(self, octets: bytes) -> Response:
        loop = asyncio.get_running_loop()
        with marked_socket(self._upstream.address, socket.SOCK_STREAM, self._mark) as sock:
            await loop.sock_connect(sock, (str(self._upstream.address), self._port))
            await loop.sock_sendall(sock, len(octets).to_bytes(2, "big") + octets)
            length = int.from_bytes(await receive_exactly(sock, 2), "big")
            return self._read(await receive_exactly(sock, length))

    def _read(self, octets: bytes) -> Response:
        try:
            return read_response(
                octets, self._name, self._rdtype, self._id, trusted=self._upstream.trusted
            )
        except (MismatchedResponse, MalformedResponse) as error:
            self._refused(error)
            raise


def marked_socket(
    server: IPv4Address | IPv6Address, kind: socket.SocketKind, mark: int | None
) -> socket.socket:
    """A socket towards ``server``, whose packets have ``mark``.  Raises OSError."""
    family = socket.AF_INET6 if isinstance(server, IPv6Address) else socket.AF_INET
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK)
    try:
        if mark is not None:
            octets = struct.pack("=I", mark)  # all 32 bits
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, octets)
    except OSError:
        sock.close()
        raise
    return sock


async def receive_exactly(sock: socket.socket, count: int) -> bytes:
    """So many octets.  Raises OSError and EOFError."""
    loop = asyncio.get_running_loop()
    received = bytearray()
    while len(received) < count:
        piece = await loop.sock_recv(sock, count - len(received))
        if not piece:
            raise EOFError("server closed the connection")
        received += piece
    return bytes(received)
