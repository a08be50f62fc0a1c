"""Reading IPv4 and IPv6 headers: where the upper layer is, and what the selectors are.

Everything here is strangers' input.  The only error is `PacketError`, whose
``trigger`` names the counter of the drop.
"""

from __future__ import annotations

from struct import Struct

# Specification values: IANA protocol numbers, and RFC 791 / RFC 8200 header sizes.
HOP_BY_HOP = 0
ICMP = 1
IPV4 = 4
TCP = 6
UDP = 17
DCCP = 33
IPV6 = 41
ROUTING = 43
FRAGMENT = 44
ESP = 50
ICMPV6 = 58
NO_NEXT_HEADER = 59
DESTINATION_OPTIONS = 60
SCTP = 132
UDP_LITE = 136

IPV4_HEADER = 20
IPV6_HEADER = 40

# The extension headers that RFC 4301 section 4.4.1.1 skips to find the next layer
# protocol.  Others (AH, mobility, ...) are themselves the next layer.
SKIPPED = frozenset({HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION_OPTIONS})
WITH_PORTS = frozenset({TCP, UDP, DCCP, SCTP, UDP_LITE})

# Our choice: RFC 8200 section 4.1 knows an order with at most 5 headers before the upper
# layer; nobody honest sends more than this.
EXTENSION_HEADERS_LIMIT = 8

_IPV4 = Struct("!BxHxxHxBxx")  # version and IHL, total length, fragment field, protocol
_IPV6 = Struct("!BxxxHB")  # version, payload length, next header
_TWO_PORTS = Struct("!HH")
_FRAGMENT = Struct("!BxH")

Buffer = bytes | bytearray | memoryview

Layout = tuple[int, int, int, int, int | None, int | None, bool]
"""``(version, length, protocol, offset, source port, destination port, fragment)``: the octets of
the IP packet (what follows is link padding), the next layer protocol, where that layer
begins, ports or None, and whether it is a non-first fragment.  A plain tuple, because it is made
for each packet."""


class PacketError(Exception):
    """A packet that cannot be read; ``trigger`` is the name of its counter."""

    def __init__(self, trigger: str) -> None:
        super().__init__(trigger)
        self.trigger = trigger


def layout_of(packet: Buffer) -> Layout:
    """Find the upper layer of one IP packet.

    Non-first fragments have no ports and ``fragment`` set; their offset is that of the
    fragment's payload.  First fragments too small for the ports, and fragments that
    would overwrite them (RFC 1858 section 3.2, RFC 3128), are refused, because they get
    past checks of ports.  Raises PacketError.
    """
    if not packet:
        raise PacketError("packet_truncated")
    version = packet[0] >> 4
    if version == 4:
        return _ipv4_layout(packet)
    if version == 6:
        return _ipv6_layout(packet)
    raise PacketError("packet_version")


def _ipv4_layout(packet: Buffer) -> Layout:
    size = len(packet)
    if size < IPV4_HEADER:
        raise PacketError("packet_truncated")
    first, length, fragmentation, protocol = _IPV4.unpack_from(packet)
    offset = (first & 15) * 4
    if offset < IPV4_HEADER or length < offset:
        raise PacketError("packet_length")
    if length > size:
        raise PacketError("packet_truncated")
    fragment_offset = fragmentation & 0x1FFF
    if fragment_offset:
        if fragment_offset == 1 and protocol in WITH_PORTS:
            raise PacketError("packet_overlapping_fragment")
        return 4, length, protocol, offset, None, None, True
    if protocol not in WITH_PORTS:
        return 4, length, protocol, offset, None, None, False
    if length - offset < 4:
        raise PacketError("packet_truncated")
    source_port, destination_port = _TWO_PORTS.unpack_from(packet, offset)
    return 4, length, protocol, offset, source_port, destination_port, False


def _ipv6_layout(packet: Buffer) -> Layout:
    size = len(packet)
    if size < IPV6_HEADER:
        raise PacketError("packet_truncated")
    _, payload, protocol = _IPV6.unpack_from(packet)
    length = IPV6_HEADER + payload
    if length > size:
        raise PacketError("packet_truncated")
    offset = IPV6_HEADER
    headers = 0
    while protocol in SKIPPED:
        headers += 1
        if headers > EXTENSION_HEADERS_LIMIT:
            raise PacketError("packet_extension_headers")
        if length - offset < 8:
            raise PacketError("packet_truncated")
        if protocol == FRAGMENT:
            protocol, fragmentation = _FRAGMENT.unpack_from(packet, offset)
            offset += 8
            if fragmentation >> 3:
                if fragmentation >> 3 == 1 and protocol in WITH_PORTS:
                    raise PacketError("packet_overlapping_fragment")
                return 6, length, protocol, offset, None, None, True
            continue
        extension = (packet[offset + 1] + 1) * 8
        protocol = packet[offset]
        offset += extension
        if offset > length:
            raise PacketError("packet_truncated")
    if protocol not in WITH_PORTS:
        return 6, length, protocol, offset, None, None, False
    if length - offset < 4:
        raise PacketError("packet_truncated")
    source_port, destination_port = _TWO_PORTS.unpack_from(packet, offset)
    return 6, length, protocol, offset, source_port, destination_port, False
