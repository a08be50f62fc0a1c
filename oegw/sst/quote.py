"""ICMP errors that quote a packet with sealed ports (SST-19, SST-20).

The packet quoted travelled the other way, but the permutation is the same for both.
"""

from __future__ import annotations

from struct import Struct

from oegw.packet.checksum import updated_checksum
from oegw.packet.ip import ICMP, ICMPV6, PacketError, layout_of
from oegw.sst.packet import open_in_place, seal_in_place
from oegw.sst.permutation import NotEligible, Permutation
from oegw.sst.place import CHECKSUM, ERRORS, Place, locate
from oegw.sst.signal import Signal

# Specification values: type, code and checksum, then four octets that depend on the type.
_HEADER = 8
_CHECKSUM_BEFORE_QUOTE = 6

# RFC 4884 section 4: where the length of the quote is, in units of so many octets, if something
# follows the quote.
_LENGTH = {ICMP: (5, 4, frozenset({3, 11, 12})), ICMPV6: (4, 8, frozenset({1, 3}))}

_WORD = Struct("!H")


def quote_of(packet: bytes) -> Place:
    """Where the quoted packet is in an ICMP or ICMPv6 error.

    Its addresses tell the key, and ``signal.flagged(packet, place.start)`` whether it was flagged.

    Raises PacketError, if quote or error can't be read, and NotEligible: not an error, or it quotes
    what has no ports, or another error, or what its addressee did not send.
    """
    version, length, protocol, offset, _, _, fragment = layout_of(packet)
    if fragment or protocol != (ICMP if version == 4 else ICMPV6):
        raise NotEligible("sst_not_an_error")
    if length - offset < _HEADER:
        raise PacketError("packet_truncated")
    if packet[offset] not in ERRORS[protocol]:
        raise NotEligible("sst_not_an_error")
    start, end = offset + _HEADER, length
    octet, unit, kinds = _LENGTH[protocol]
    if packet[offset] in kinds and packet[offset + octet]:
        end = min(end, start + packet[offset + octet] * unit)
    if start < end and packet[start] >> 4 != version:
        raise PacketError("quote_version")
    place = locate(packet, start, end, quoted=True)
    # Errors go to the sender of what they are about (RFC 1122 section 3.2.2, RFC 4443 section 2.4).
    # One to somebody else would show him ports that are not his: who is inside reads by it what he
    # has seen outside, and who is outside has ports sealed that he chose.
    to = packet[16:20] if version == 4 else packet[24:40]
    if to != place.source:
        raise NotEligible("sst_quote_for_another")
    return place


def open_quote(packet: bytes, permutation: Permutation, signal: Signal) -> bytes:
    """An error about a packet that we sealed, as the sender of the packet must see it.

    Ports, flag and checksums of the quote and the checksum of the error are put right.  Raises
    NotEligible and PacketError.
    """
    place = quote_of(packet)
    changed = bytearray(packet)
    open_in_place(changed, place, permutation, signal)
    _update(packet, changed, place)
    return bytes(changed)


def seal_quote(packet: bytes, permutation: Permutation, signal: Signal) -> bytes:
    """An error about a packet that we opened, as its sender's side must see it.

    Only for quotes of connections that were opened: by address alone clear flows would be garbled.
    The packet around the quote carries no flag.  Raises NotEligible and PacketError.
    """
    place = quote_of(packet)
    changed = bytearray(packet)
    seal_in_place(changed, place, permutation, signal)
    _update(packet, changed, place)
    signal.clear(changed)
    return bytes(changed)


def _update(packet: bytes, changed: bytearray, place: Place) -> None:
    """The error's checksum, after the quoted headers changed; the quote begins at an even place."""
    start = place.start
    end = min(place.offset + CHECKSUM[place.protocol] + 2, place.end)
    end -= (end - start) % 2  # an octet that is left over is of a checksum that was not touched
    where = start - _CHECKSUM_BEFORE_QUOTE
    check = _WORD.unpack_from(packet, where)[0]
    check = updated_checksum(check, packet[start:end], changed[start:end])
    _WORD.pack_into(changed, where, check)
