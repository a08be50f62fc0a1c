"""The UDP socket of an association: ours, connected to the server's relay."""

from __future__ import annotations

import socket
from contextlib import suppress
from ipaddress import ip_address

from oegw.socks5.client.asking import plain_address, relay_in
from oegw.socks5.wire import IPAddress, Reply

MAX_DATAGRAM_OCTETS = 65535 + 262  # of IP, and of the longest header


def opened(connection: socket.socket) -> socket.socket:
    """A UDP socket with the address that ``connection``, to the server, has: another address may
    not use the association (SK-6)."""
    # Nothing is said on it for as long as the association lives: a server that is gone is noticed.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, True)
    host, _, *rest = connection.getsockname()
    sock = socket.socket(connection.family, socket.SOCK_DGRAM)
    try:
        sock.bind((host, 0, *rest))
    except BaseException:
        sock.close()
        raise
    return sock


def declared(sock: socket.socket, said: bool) -> tuple[IPAddress, int]:
    """What the server is told of where our datagrams come from: zeros for nothing."""
    host, port = sock.getsockname()[:2]
    if said:
        return plain_address(host), port
    return ip_address("::" if sock.family == socket.AF_INET6 else "0.0.0.0"), 0  # noqa: S104


def directed(sock: socket.socket, connection: socket.socket, reply: Reply) -> socket.socket:
    """The socket connected to the relay that ``reply`` names, so that the kernel leaves out what
    comes from elsewhere.  Where the relay has an address of the other family it is another socket,
    with the same port if that is free.

    Raises AnswerUnusable, OSError; ``sock`` is closed then.
    """
    host, _, *rest = connection.getpeername()
    server = plain_address(host)
    try:
        relay, port = relay_in(reply, server)
        if relay == server:
            sock.connect((host, port, *rest))
        elif relay.version == (6 if sock.family == socket.AF_INET6 else 4):
            sock.connect((str(relay), port))
        else:
            sock = _other_family(sock)
            sock.connect((str(relay), port))
    except BaseException:
        sock.close()
        raise
    return sock


def _other_family(sock: socket.socket) -> socket.socket:
    family = socket.AF_INET if sock.family == socket.AF_INET6 else socket.AF_INET6
    other = socket.socket(family, socket.SOCK_DGRAM)
    with sock, suppress(OSError):  # taken: the server may know us by the first datagram
        other.bind(("", sock.getsockname()[1]))
    return other
