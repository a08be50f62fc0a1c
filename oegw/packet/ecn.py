"""Explicit congestion notification through a tunnel (RFC 6040), and the traffic class octet.

On the way in, "normal mode": the outer header gets a copy of the inner traffic
class, ECN and DSCP (RFC 6040 section 4.1, RFC 4301 section 5.1.2).
"""

from __future__ import annotations

from struct import Struct

from oegw.packet.checksum import updated_checksum
from oegw.packet.ip import Buffer

# RFC 3168 section 5.
NOT_ECT, ECT_1, ECT_0, CE = range(4)

DECAPSULATION: tuple[tuple[int | None, ...], ...] = (
    # outer: Not-ECT  ECT(1)   ECT(0)   CE
    (NOT_ECT, NOT_ECT, NOT_ECT, None),  # inner Not-ECT; None: drop
    (ECT_1, ECT_1, ECT_1, CE),  # inner ECT(1)
    (ECT_0, ECT_1, ECT_0, CE),  # inner ECT(0)
    (CE, CE, CE, CE),  # inner CE
)
"""RFC 6040 section 4.2, figure 4: ``DECAPSULATION[inner][outer]`` is the ECN field to forward."""

_WORD = Struct("!H")


def traffic_class(packet: Buffer) -> int:
    """DSCP and ECN of an IPv4 or IPv6 packet as one octet."""
    if packet[0] >> 4 == 4:
        return packet[1]
    return (packet[0] & 15) << 4 | packet[1] >> 4


def decapsulated(packet: bytes, outer: int) -> bytes | None:
    """The inner ``packet`` after congestion marks of the ``outer`` traffic class reached it.

    None means drop: congestion was signalled to a transport that would not see the mark.
    """
    inner = traffic_class(packet) & 3
    ecn = DECAPSULATION[inner][outer & 3]
    if ecn is None:
        return None
    if ecn == inner:
        return packet
    changed = bytearray(packet)
    if packet[0] >> 4 == 4:
        changed[1] = packet[1] & 0xFC | ecn
        check = _WORD.unpack_from(packet, 10)[0]
        _WORD.pack_into(changed, 10, updated_checksum(check, packet[0:2], changed[0:2]))
    else:
        changed[1] = packet[1] & 0xCF | ecn << 4
    return bytes(changed)
