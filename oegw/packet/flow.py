"""From a packet to the noun that all rooms share."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from oegw.packet.ip import PacketError, layout_of
from policy.flow import Flow

__all__ = ["PacketError", "flow_of"]


def flow_of(packet: bytes | memoryview) -> Flow:
    """The selectors of one IPv4 or IPv6 packet (RFC 4301 section 4.4.1.1).

    Octets after the length that the header states are ignored.  Raises PacketError.
    """
    version, _, protocol, _, source_port, destination_port, fragment = layout_of(packet)
    source: IPv4Address | IPv6Address
    destination: IPv4Address | IPv6Address
    if version == 4:
        source = IPv4Address(bytes(packet[12:16]))
        destination = IPv4Address(bytes(packet[16:20]))
    else:
        source = IPv6Address(bytes(packet[8:24]))
        destination = IPv6Address(bytes(packet[24:40]))
    return Flow(source, destination, protocol, source_port, destination_port, fragment)
