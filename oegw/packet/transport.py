"""TCP's maximum segment size, lowered on its way through a tunnel."""

from __future__ import annotations

from struct import Struct

from oegw.packet.checksum import updated_checksum
from oegw.packet.ip import IPV4_HEADER, IPV6_HEADER

# Specification values: RFC 9293 section 3.1.
TCP_HEADER = 20
_FLAGS = 13
_CHECKSUM = 16
_SYN = 0x02
_OPTION_END = 0
_OPTION_NOP = 1
_OPTION_MSS = 2

_WORD = Struct("!H")


# Our choice: a path that takes less is broken, and fragments do what is left.
SMALLEST_MSS = 48


def clamp_mss(packet: bytes, version: int, offset: int, mtu: int) -> bytes:
    """``packet`` with the MSS option of a SYN lowered to what fits into ``mtu`` octets.

    ``offset`` is where the TCP header begins, ``mtu`` the largest IP packet that the tunnel
    takes whole.  Other packets, and options that make no sense, come back unchanged:
    the endpoint judges them.
    """
    if len(packet) < offset + TCP_HEADER or not packet[offset + _FLAGS] & _SYN:
        return packet
    headers = TCP_HEADER + (IPV4_HEADER if version == 4 else IPV6_HEADER)
    limit = max(mtu - headers, SMALLEST_MSS)
    end = min(offset + (packet[offset + 12] >> 4) * 4, len(packet))
    place = offset + TCP_HEADER
    while place + 1 < end and packet[place] != _OPTION_END:
        if packet[place] == _OPTION_NOP:
            place += 1
            continue
        size = packet[place + 1]
        if size < 2:
            return packet
        if packet[place] == _OPTION_MSS and size == 4 and place + 4 <= end:
            if _WORD.unpack_from(packet, place + 2)[0] <= limit:
                return packet
            return _with_mss(packet, offset, place + 2, limit)
        place += size
    return packet


def _with_mss(packet: bytes, offset: int, place: int, mss: int) -> bytes:
    changed = bytearray(packet)
    _WORD.pack_into(changed, place, mss)
    # NOPs before it may put the option at an odd place; the checksum sums even ones.
    first = place - (place - offset) % 2
    last = place + 2 + (place - offset) % 2
    check = _WORD.unpack_from(packet, offset + _CHECKSUM)[0]
    check = updated_checksum(check, packet[first:last], changed[first:last])
    _WORD.pack_into(changed, offset + _CHECKSUM, check)
    return bytes(changed)
