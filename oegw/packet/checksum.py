"""The Internet checksum (RFC 1071) and its update in place (RFC 1624)."""

from __future__ import annotations

from oegw.packet.ip import Buffer


def checksum(octets: Buffer) -> int:
    """The 16-bit ones' complement checksum of ``octets``, padded with a zero if odd."""
    number = int.from_bytes(octets, "big")
    if len(octets) % 2:
        number <<= 8
    # 2**16 is 1 modulo 2**16 - 1, so the remainder is the ones' complement sum of all words.
    total = number % 0xFFFF
    if total == 0 and number:
        total = 0xFFFF
    return ~total & 0xFFFF


def updated_checksum(check: int, old: Buffer, new: Buffer) -> int:
    """``check`` after the octets ``old`` became ``new`` (RFC 1624, equation 3).

    Both have the same even length and begin at an even place of what is summed.
    """
    total = ~check & 0xFFFF
    for index in range(0, len(old), 2):
        total += ~(old[index] << 8 | old[index + 1]) & 0xFFFF
        total += new[index] << 8 | new[index + 1]
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
