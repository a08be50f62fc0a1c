"""The sockets of port 1: TCP and UDP at each address, IPv4 and IPv6 (MK-2, MK-29)."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from oegw.moniker.interface import IPAddress

# Our choice: how often another free port is tried where the first is taken for UDP or IPv6.
TRIES = 20

_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT)


@dataclass(frozen=True, slots=True)
class Bound:
    """``streams`` don't listen yet."""

    port: int
    streams: tuple[socket.socket, ...]
    datagrams: tuple[socket.socket, ...]

    def close(self) -> None:
        for each in (*self.streams, *self.datagrams):
            each.close()


def bind(addresses: Sequence[IPAddress], port: int) -> Bound:
    """At ``addresses``, or at all of the host's if there are none.

    ``port`` 0: a free one, the same for all.  Raises OSError that says where.
    """
    for _ in range(TRIES - 1 if not port else 0):
        try:
            return _bind(addresses, 0)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    return _bind(addresses, port)


def _bind(addresses: Sequence[IPAddress], port: int) -> Bound:
    sockets: list[socket.socket] = []
    try:
        for address in addresses or (IPv4Address(0), IPv6Address(0)):
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                try:
                    sockets.append(_bound(address, kind, port))
                except OSError as error:
                    if not addresses and address.version == 6 and error.errno in _NO_IPV6:
                        continue  # a host without IPv6
                    name = "TCP" if kind == socket.SOCK_STREAM else "UDP"
                    reason = f"{name} port {port} of {address}: {error.strerror}"
                    raise OSError(error.errno, reason) from error
                port = port or sockets[0].getsockname()[1]
    except BaseException:
        for each in sockets:
            each.close()
        raise
    return Bound(
        port,
        tuple(each for each in sockets if each.type == socket.SOCK_STREAM),
        tuple(each for each in sockets if each.type == socket.SOCK_DGRAM),
    )


def _bound(address: IPAddress, kind: socket.SocketKind, port: int) -> socket.socket:
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    made = socket.socket(family, kind)
    try:
        made.setblocking(False)
        if kind == socket.SOCK_STREAM:  # of UDP two could have it
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((str(address), port))
    except BaseException:
        made.close()
        raise
    return made
