"""A whole packet sealed, and opened (SST-1 to SST-7, SST-12, SST-22).

Checksums follow the ports by RFC 1624, so that one that was wrong stays wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct

from oegw.packet.checksum import updated_checksum
from oegw.packet.ip import UDP
from oegw.sst.permutation import Permutation
from oegw.sst.place import CHECKSUM, Fragment, Place, place_of
from oegw.sst.signal import Signal, rewrite_octet

# Specification values: RFC 791 section 3.1, octet 6.
_DONT_FRAGMENT = 0x40
_FRAGMENT_FIELD = 6

_TWO_PORTS = Struct("!HH")
_WORD = Struct("!H")

_PortsToPorts = Callable[[bytes, bytes, int, int, int], tuple[int, int]]


def seal(packet: bytes, permutation: Permutation, signal: Signal) -> bytes:
    """``packet`` with its ports encrypted, its checksums put right, flagged, and unfragmented IPv4
    with DF.  Of a later fragment only the flag changes.  Octets behind the length that the header
    states stay.

    Raises NotEligible, if the ports can't be sealed, and PacketError, if it can't be read.
    """
    place = place_of(packet)
    changed = bytearray(packet)
    seal_in_place(changed, place, permutation, signal)
    return bytes(changed)


def open_sealed(packet: bytes, permutation: Permutation, signal: Signal) -> bytes:
    """The inverse of ``seal``, whether the flag is still there or a router took it away.

    DF stays set, and a code point becomes the restored one, for there is no bit to remember them.
    Raises NotEligible and PacketError.
    """
    place = place_of(packet)
    changed = bytearray(packet)
    open_in_place(changed, place, permutation, signal)
    return bytes(changed)


def seal_in_place(
    octets: bytearray, place: Place, permutation: Permutation, signal: Signal
) -> None:
    """Seal the packet, or the quote of one, that is at ``place``.  Raises NotEligible."""
    _replace_ports(octets, place, permutation.seal_ports)
    signal.flag(octets, place.start)
    if place.version == 4 and place.fragment is Fragment.WHOLE:
        # Where a router fragments, the reserved bit is lost; with DF it says so instead.
        octet = octets[place.start + _FRAGMENT_FIELD] | _DONT_FRAGMENT
        rewrite_octet(octets, place.start, _FRAGMENT_FIELD, octet)


def open_in_place(
    octets: bytearray, place: Place, permutation: Permutation, signal: Signal
) -> None:
    """Open the packet, or the quote of one, that is at ``place``.  Raises NotEligible."""
    _replace_ports(octets, place, permutation.open_ports)
    signal.clear(octets, place.start)


def _replace_ports(octets: bytearray, place: Place, ports: _PortsToPorts) -> None:
    """Put other ports in, and the difference into the checksum, if that is there."""
    if place.source_port is None or place.destination_port is None:
        return
    found = ports(
        place.source,
        place.destination,
        place.protocol,
        place.source_port,
        place.destination_port,
    )
    offset = place.offset
    new = _TWO_PORTS.pack(*found)
    old = octets[offset : offset + 4]
    octets[offset : offset + 4] = new
    where = offset + CHECKSUM[place.protocol]
    if where + 2 > place.end:
        return  # a quote that ends before it
    check = _WORD.unpack_from(octets, where)[0]
    if place.protocol == UDP:
        if check == 0:
            return  # none was computed (RFC 768; RFC 6935 for IPv6)
        check = updated_checksum(check, old, new) or 0xFFFF
    else:
        check = updated_checksum(check, old, new)
    _WORD.pack_into(octets, where, check)
