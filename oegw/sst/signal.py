"""How a packet says that its ports are encrypted (draft section 3 A and B; SST-4, SST-5).

IPv4: the reserved bit of the flags, or a code point (DSCP); IPv6: a code point.  The two ECN bits
stay what they are.
"""

from __future__ import annotations

from dataclasses import dataclass

from oegw.packet.checksum import updated_checksum
from oegw.sst.settings import Ipv4Signal, SstSettings

# Specification values: RFC 791 section 3.1, "bit 0: reserved, must be zero", in octet 6.
_RESERVED = 0x80
_FRAGMENT_FIELD = 6
_HEADER_CHECKSUM = 10


@dataclass(frozen=True, slots=True)
class Signal:
    """``dscp`` flags; ``restored_dscp`` takes its place when the flag is cleared."""

    ipv4: Ipv4Signal = Ipv4Signal.FLAG
    dscp: int = 3
    restored_dscp: int = 0

    @classmethod
    def of(cls, settings: SstSettings) -> Signal:
        return cls(settings.ipv4_signal, settings.dscp, settings.restored_dscp)

    def flagged(self, packet: bytes | bytearray, start: int = 0) -> bool:
        """Whether an IPv4 or IPv6 header that begins at ``start`` is flagged.

        A packet without the octets that tell is not.
        """
        if len(packet) < start + 20:
            return False
        version = packet[start] >> 4
        if version == 4 and self.ipv4 is Ipv4Signal.FLAG:
            return bool(packet[start + _FRAGMENT_FIELD] & _RESERVED)
        return version in (4, 6) and _dscp(packet, start) == self.dscp

    def flag(self, packet: bytearray, start: int = 0) -> None:
        """Flag a whole header in place, the checksum of an IPv4 header included."""
        if packet[start] >> 4 == 4 and self.ipv4 is Ipv4Signal.FLAG:
            rewrite_octet(
                packet, start, _FRAGMENT_FIELD, packet[start + _FRAGMENT_FIELD] | _RESERVED
            )
        else:
            _set_dscp(packet, start, self.dscp)

    def clear(self, packet: bytearray, start: int = 0) -> None:
        """Take the flag off a whole header in place; one that is not flagged stays as it is."""
        if not self.flagged(packet, start):
            return
        if packet[start] >> 4 == 4 and self.ipv4 is Ipv4Signal.FLAG:
            field = packet[start + _FRAGMENT_FIELD] & ~_RESERVED
            rewrite_octet(packet, start, _FRAGMENT_FIELD, field)
        else:
            _set_dscp(packet, start, self.restored_dscp)

    def cleared(self, packet: bytes) -> bytes:
        """``packet`` without a flag: what native use of it becomes at our exit (SST-17)."""
        if not self.flagged(packet):
            return packet
        changed = bytearray(packet)
        self.clear(changed)
        return bytes(changed)


def _dscp(packet: bytes | bytearray, start: int) -> int:
    if packet[start] >> 4 == 4:
        return packet[start + 1] >> 2
    return (packet[start] & 15) << 2 | packet[start + 1] >> 6


def _set_dscp(packet: bytearray, start: int, dscp: int) -> None:
    if packet[start] >> 4 == 4:
        rewrite_octet(packet, start, 1, dscp << 2 | packet[start + 1] & 3)
        return
    packet[start] = packet[start] & 0xF0 | dscp >> 2
    packet[start + 1] = packet[start + 1] & 0x3F | (dscp & 3) << 6


def rewrite_octet(packet: bytearray, start: int, place: int, value: int) -> None:
    """Change one octet of an IPv4 header, and its checksum with it."""
    word = start + place - place % 2
    old = bytes(packet[word : word + 2])
    packet[start + place] = value
    check = start + _HEADER_CHECKSUM
    number = int.from_bytes(packet[check : check + 2], "big")
    packet[check : check + 2] = updated_checksum(number, old, packet[word : word + 2]).to_bytes(
        2, "big"
    )
