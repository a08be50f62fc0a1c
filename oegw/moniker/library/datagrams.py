"""Datagrams of a service: each is answered from the address that it was sent to.

A socket for all addresses of a host would answer from any of them, which its client, and each
firewall on the way, takes for a stranger's.  So the kernel is asked where a datagram was sent
(IP_PKTINFO, RFC 3542), and told to answer from there.
"""

from __future__ import annotations

import errno
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from oegw.moniker.library.session import host_of

# Specification: Linux's ip(7); the module `socket` has it from Python 3.12 on.
IP_PKTINFO = 8
IN_PKTINFO_OCTETS = 12  # index of an interface, source for the answer, destination
IN6_PKTINFO_OCTETS = 20  # RFC 3542: address, index of an interface


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sent a datagram, to be answered.  ``host``: without a port."""

    host: str
    address: tuple[Any, ...] = field(repr=False)
    origin: tuple[int, int, bytes] | None = field(default=None, repr=False, compare=False)


def prepare(sock: socket.socket) -> None:
    """Once, before the first datagram."""
    with suppress(OSError):  # a transport without it answers from where it can
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)


def receive(sock: socket.socket, size: int) -> tuple[bytes, Sender]:
    octets, beside, _, address = sock.recvmsg(size, socket.CMSG_SPACE(IN6_PKTINFO_OCTETS))
    if not address:  # it was shut down
        raise OSError(errno.EBADF, "the service is closed")
    origin = next((each for each in map(_origin, beside) if each is not None), None)
    return octets, Sender(host_of(address), address, origin)


def answer(sock: socket.socket, octets: bytes, sender: Sender) -> int:
    beside = [sender.origin] if sender.origin is not None else []
    return sock.sendmsg([octets], beside, 0, sender.address)


def _origin(beside: tuple[int, int, bytes]) -> tuple[int, int, bytes] | None:
    """What makes the answer leave from where the datagram came; any interface will do for it."""
    level, kind, content = beside
    if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
        link_local = content[:2] == b"\xfe\x80"
        index = content[16:IN6_PKTINFO_OCTETS] if link_local else bytes(4)
        return level, kind, content[:16] + index
    if (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO) and len(content) >= IN_PKTINFO_OCTETS:
        return level, kind, bytes(4) + content[8:12] + bytes(4)
    return None
