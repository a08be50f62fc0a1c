"""What the kernel's routing table says of an address (rtnetlink(7))."""

from __future__ import annotations

import socket
import struct

from oegw.socks5.wire import IPAddress

# Specification: <linux/netlink.h>, <linux/rtnetlink.h>.
_REQUEST = 1  # NLM_F_REQUEST
_NEW_ROUTE, _GET_ROUTE = 24, 26
_DESTINATION = 1  # RTA_DST
_LOCAL, _ANYCAST = 2, 4  # types of routes

_HEADER = struct.Struct("=IHHII")  # length, type, flags, number, sender
_ROUTE = struct.Struct("=8BI")  # family, length of the prefix, ..., type; flags
_ATTRIBUTE = struct.Struct("=HH")  # length, type


def is_own(address: IPAddress) -> bool:
    """Whether what is sent to ``address`` is for this box itself.

    That is more than the addresses of its interfaces: a router has those of its IPv6 networks with
    nothing behind the prefix (RFC 4291 section 2.6.1), and whole networks may be routed to it.
    Raises OSError.
    """
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    packed = address.packed
    route = _ROUTE.pack(family, 8 * len(packed), 0, 0, 0, 0, 0, 0, 0)
    body = route + _ATTRIBUTE.pack(_ATTRIBUTE.size + len(packed), _DESTINATION) + packed
    header = _HEADER.pack(_HEADER.size + len(body), _GET_ROUTE, _REQUEST, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        sock.send(header + body)
        answer = sock.recv(8192)
    _, kind, _, _, _ = _HEADER.unpack_from(answer)
    if kind != _NEW_ROUTE:
        return False  # an error: there is no route
    return _ROUTE.unpack_from(answer, _HEADER.size)[7] in (_LOCAL, _ANYCAST)
