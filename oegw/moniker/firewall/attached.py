"""Whether a client is a neighbour: on a network that this host is attached to.

The gateway in front is not on the way of neighbours, and they are answered also while it is away.
What decides is the longest of the routes that the kernel lists in /proc/net.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from oegw.moniker.interface import IPAddress

# Specification: linux/route.h, linux/ipv6_route.h.
RTF_UP, RTF_GATEWAY, RTF_REJECT = 0x1, 0x2, 0x200

# Our choice: a host with more than this is a router, and asks for everybody.
MAX_ROUTES = 2048


@dataclass(frozen=True, slots=True)
class Route:
    """``direct``: there is no router in between."""

    network: IPv4Network | IPv6Network
    direct: bool


def is_neighbour(client: IPAddress, routes: Iterable[Route]) -> bool:
    """Whether the longest route to ``client`` is direct.  A default route never is: what is behind
    it is the Internet, also if its device has no routers."""
    found = [r for r in routes if r.network.version == client.version and client in r.network]
    best = max(found, key=lambda route: route.network.prefixlen, default=None)
    return best is not None and best.direct and best.network.prefixlen > 0


def ipv4_routes(text: str) -> Iterator[Route]:
    """Of /proc/net/route; a line that can't be read is left out."""
    for line in text.splitlines()[1 : MAX_ROUTES + 1]:
        fields = line.split()
        try:
            flags = int(fields[3], 16)
            address, mask = _number(fields[1]), _number(fields[7])
            network = IPv4Network((address, mask.bit_count()))
        except (IndexError, OverflowError, ValueError):
            continue
        if flags & RTF_UP and not flags & RTF_REJECT:
            yield Route(network, not flags & RTF_GATEWAY)


def ipv6_routes(text: str) -> Iterator[Route]:
    """Of /proc/net/ipv6_route; a line that can't be read is left out."""
    for line in text.splitlines()[:MAX_ROUTES]:
        fields = line.split()
        try:
            flags = int(fields[8], 16)
            address = int.from_bytes(bytes.fromhex(fields[0]), "big")
            network = IPv6Network((address, int(fields[1], 16)))
        except (IndexError, ValueError):
            continue
        if flags & RTF_UP and not flags & RTF_REJECT:
            yield Route(network, not flags & RTF_GATEWAY)


def _number(word: str) -> int:
    """An address of /proc/net/route: octets in network order, printed as a number of this CPU's."""
    return int.from_bytes(int(word, 16).to_bytes(4, sys.byteorder), "big")
