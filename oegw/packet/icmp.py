"""The ICMP messages with which a tunnel tells a sender its MTU (RFC 1191, RFC 4443)."""

from __future__ import annotations

from struct import Struct

from oegw.packet.checksum import checksum
from oegw.packet.ip import ICMP, ICMPV6, Layout

# Specification values.
_UNREACHABLE = 3  # RFC 792
_FRAGMENTATION_NEEDED = 4
_PACKET_TOO_BIG = 2  # RFC 4443 section 3.2
_ERRORS_V4 = frozenset({3, 4, 5, 11, 12})  # RFC 1122 section 3.2.2
_QUOTE_V4 = 576 - 28  # RFC 1812 section 4.3.2.3: the message fits into 576 octets
_QUOTE_V6 = 1280 - 48  # RFC 4443 section 2.4 (c)

_HEADER_V4 = Struct("!BBHHH")
_HEADER_V6 = Struct("!BBHI")


def too_big(packet: bytes, version: int, mtu: int) -> bytes:
    """The ICMP message, from its type on, that answers ``packet`` with "at most ``mtu`` octets".

    The ICMPv6 checksum is left zero, because it covers the addresses: the kernel
    fills it in where it chooses the source.
    """
    if version == 6:
        return _HEADER_V6.pack(_PACKET_TOO_BIG, 0, 0, mtu) + packet[:_QUOTE_V6]
    quote = packet[:_QUOTE_V4]
    message = _HEADER_V4.pack(_UNREACHABLE, _FRAGMENTATION_NEEDED, 0, 0, mtu) + quote
    check = checksum(message)
    return _HEADER_V4.pack(_UNREACHABLE, _FRAGMENTATION_NEEDED, check, 0, mtu) + quote


def may_be_answered(packet: bytes, layout: Layout) -> bool:
    """Whether RFC 1122 section 3.2.2 and RFC 4443 section 2.4 (e) allow an error about ``packet``.

    Not about errors, not about later fragments, not to a source that is no single host.
    """
    version, length, protocol, offset, _, _, fragment = layout
    if fragment:
        return False
    if version == 4:
        first = packet[12]
        if first == 0 or first == 127 or first >= 224:
            return False
        return not (protocol == ICMP and (offset >= length or packet[offset] in _ERRORS_V4))
    if packet[8] == 0xFF or packet[8:24] == bytes(16):
        return False
    return not (protocol == ICMPV6 and (offset >= length or packet[offset] < 128))
