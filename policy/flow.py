"""The noun that all rooms share: one flow of packets."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Flow:
    """A packet's selectors (RFC 4301 section 4.4.1.1).

    ``protocol`` is the IANA number 0 to 255 of the upper layer.  Ports are
    ``None`` where the packet shows none: the protocol has no ports, or the
    packet is a non-first fragment.  ``source`` and ``destination`` are of the
    same family.
    """

    source: IPAddress
    destination: IPAddress
    protocol: int
    source_port: int | None = None
    destination_port: int | None = None
    fragment: bool = False  # a non-first fragment: ports exist, but are not in this packet

    def reversed(self) -> Flow:
        """The flow of the answers."""
        return Flow(
            self.destination,
            self.source,
            self.protocol,
            self.destination_port,
            self.source_port,
            self.fragment,
        )
