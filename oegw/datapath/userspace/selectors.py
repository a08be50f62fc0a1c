"""Whether a packet belongs into a tunnel (RFC 4301 sections 4.4.1.1 and 5.2)."""

from __future__ import annotations

from oegw.datapath.interface import Selector
from oegw.packet.ip import Layout


def address_pair(packet: bytes, version: int) -> bytes:
    """Source and destination of a packet, as they stand there."""
    return packet[12:20] if version == 4 else packet[8:40]


class InnerSelectors:
    """The selectors of one SA, made ready for comparing with packets.

    Both sides are of one family and name the same protocol.
    """

    __slots__ = (
        "destination_port",
        "mask",
        "pair",
        "prefixes",
        "protocol",
        "source_port",
        "version",
    )

    def __init__(self, source: Selector, destination: Selector) -> None:
        self.version = source.network.version
        bits = source.network.max_prefixlen
        self.prefixes = (source.network.prefixlen, destination.network.prefixlen)
        # The two addresses as one number: one AND and one comparison for each packet.
        self.mask = int(source.network.netmask) << bits | int(destination.network.netmask)
        self.pair = int(source.network.network_address) << bits | int(
            destination.network.network_address
        )
        self.protocol = source.protocol
        self.source_port = source.port
        self.destination_port = destination.port

    def match(self, packet: bytes, layout: Layout) -> bool:
        """Whether addresses, protocol and ports of ``packet`` are this SA's."""
        if layout[0] != self.version:
            return False
        addresses = int.from_bytes(address_pair(packet, layout[0]), "big")
        return addresses & self.mask == self.pair and self.match_upper_layer(layout)

    def match_upper_layer(self, layout: Layout) -> bool:
        """Whether protocol and ports are this SA's.  A later fragment shows no ports, so
        it only matches where any port does (RFC 4301 section 7)."""
        if self.protocol and layout[2] != self.protocol:
            return False
        if self.source_port and layout[4] != self.source_port:
            return False
        return not self.destination_port or layout[5] == self.destination_port
