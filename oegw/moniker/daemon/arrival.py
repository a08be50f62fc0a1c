"""By which interface, and to which of our addresses, something came."""

from __future__ import annotations

import math
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address

from oegw.moniker.interface import IPAddress

# Our choice: seconds between two looks for the tunnel's interface.
LOOK = 1.0

# Of the Linux headers; Python's socket module does not know them.
IP_PKTINFO = 8  # linux/in.h
IP_PKTOPTIONS = 9
IPV6_PKTOPTIONS = 6  # linux/in6.h: IPV6_2292PKTOPTIONS

_PKTINFO4 = struct.Struct("=I4s4s")  # struct in_pktinfo: interface, our address, destination
_PKTINFO6 = struct.Struct("=16sI")  # struct in6_pktinfo
_CMSG = struct.Struct("@Nii")  # struct cmsghdr
_ROOM = 256  # octets

Ancillary = list[tuple[int, int, bytes]]


def ask_for_arrival(bound: socket.socket) -> None:
    """Have the kernel say how datagrams, and connections that are accepted here, came."""
    if bound.family == socket.AF_INET6:
        bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        bound.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)


def arrival_of(ancillary: Ancillary) -> tuple[IPAddress, int] | None:
    """Our address to which a datagram was sent, and the index of the interface it came by.

    None if the kernel does not say, or for one that was not sent to us alone.
    """
    for level, kind, octets in ancillary:
        if (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO) and len(octets) >= _PKTINFO4.size:
            interface, ours, destination = _PKTINFO4.unpack_from(octets)
            return None if ours != destination else (IPv4Address(destination), interface)
        is_six = (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO)
        if is_six and len(octets) >= _PKTINFO6.size:
            destination, interface = _PKTINFO6.unpack_from(octets)
            address = IPv6Address(destination)
            return None if address.is_multicast else (address, interface)
    return None


def sent_from(address: IPAddress, interface: int) -> Ancillary:
    """What has an answer sent from ``address``."""
    if isinstance(address, IPv4Address):
        octets = _PKTINFO4.pack(0, address.packed, bytes(4))
        return [(socket.IPPROTO_IP, IP_PKTINFO, octets)]
    index = interface if address.is_link_local else 0
    return [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, _PKTINFO6.pack(address.packed, index))]


def interface_of(accepted: socket.socket) -> int:
    """The index of the interface by which a connection came; 0 if the kernel does not say."""
    with suppress(OSError, struct.error):
        if accepted.family == socket.AF_INET6:
            octets = accepted.getsockopt(socket.IPPROTO_IPV6, IPV6_PKTOPTIONS, _ROOM)
            _, level, kind = _CMSG.unpack_from(octets)
            if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
                return int(_PKTINFO6.unpack_from(octets, _CMSG.size)[1])
        else:
            octets = accepted.getsockopt(socket.IPPROTO_IP, IP_PKTOPTIONS, _ROOM)
            _, level, kind = _CMSG.unpack_from(octets)
            if (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO):
                return int(_PKTINFO4.unpack_from(octets, _CMSG.size)[0])
    return 0


class Tunnel:
    """The interface from which only what was encrypted comes, whenever it is there."""

    def __init__(self, name: str, clock: Callable[[], float]) -> None:
        self._name = name
        self._clock = clock
        self._index = 0
        self._looked = -math.inf

    def is_from(self, interface: int) -> bool:
        """Whether an index is that of the tunnel's interface now.

        An index is not given a second time until the kernel has been through all of them.
        """
        now = self._clock()
        if now >= self._looked + LOOK:
            self._looked = now
            try:
                self._index = socket.if_nametoindex(self._name)
            except OSError:
                self._index = 0
        return interface != 0 and interface == self._index
