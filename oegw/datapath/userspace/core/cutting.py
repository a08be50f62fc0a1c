"""A super-packet becomes packets, as the kernel's own segmentation would make them (GSO).

Per packet the IPv4 identification counts up; lengths, checksums and TCP's sequence number are
set anew; CWR stays on the first (RFC 3168 section 6.1.2), PSH and FIN on the last.
A checksum of 0 becomes 0xFFFF in UDP (RFC 768), and wherever a partial one is completed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from struct import Struct
from typing import Any, NamedTuple

from oegw.datapath.userspace.core.virtio import (
    GSO_ECN,
    GSO_NONE,
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP_L4,
    HEADER,
    NEEDS_CSUM,
    SIZE,
)
from oegw.packet.ip import IPV6_HEADER, TCP, UDP, Buffer, PacketError, layout_of
from oegw.packet.transport import TCP_HEADER

# Specification values (RFC 9293 section 3.1, RFC 768).
UDP_HEADER = 8
TCP_CHECKSUM = 16
UDP_CHECKSUM = 6
_FIN, _PSH, _CWR = 0x01, 0x08, 0x80

_WORD = Struct("!H")

# Our choice: the best of some, for payloads of 1000 to 1500 octets.
_PARTS = 8

EndOf = Callable[[int], bytes]
"""What to put behind a packet of so many octets."""


def no_end(size: int) -> bytes:
    return b""


class Cutting(NamedTuple):
    """How a super-packet is to be cut: octets of headers, of payload per packet, and packets."""

    version: int
    protocol: int
    offset: int  # of the transport header
    headers: int
    segment: int
    packets: int


@lru_cache(maxsize=256)
def _layout_of_headers(version: int, protocol: int, offset: int, headers: int) -> Struct:
    """A whole header: what changes from packet to packet, and between that what does not.

    IPv4: first part, total length, identification, second part, checksum.  IPv6: first part,
    payload length.  Then all up to the ports.  TCP: sequence number, acknowledgement and data
    offset, flags, window, checksum, the rest.  UDP: length, checksum.
    """
    network = f"!2sHH4sH{offset - 8}s" if version == 4 else f"!4sH{offset - 2}s"
    transport = f"I5sB2sH{headers - offset - 18}s" if protocol == TCP else "HH"
    return Struct(network + transport)


def cutting_of(header: Buffer, packet: Buffer) -> Cutting | None:
    """How to cut what a virtio header with a GSO type describes; None if it does not fit.

    It fits if it asks for a checksum where that of the packet's TCP or UDP is, if the type is that
    of the packet, and if the packet is no fragment and as long as it says.
    """
    flags, gso, _, segment, start, place = HEADER.unpack_from(header)
    try:
        version, size, protocol, offset, _, _, _ = layout_of(packet)
    except PacketError:
        return None
    if not flags & NEEDS_CSUM or not segment or start != offset or size != len(packet):
        return None
    if version == 4 and (packet[6] & 0xBF or packet[7]):
        return None
    if protocol == TCP:
        if gso & ~GSO_ECN != (GSO_TCPV4 if version == 4 else GSO_TCPV6) or place != TCP_CHECKSUM:
            return None
        if size < offset + TCP_HEADER:
            return None
        headers = offset + (packet[offset + 12] >> 4) * 4
        if headers < offset + TCP_HEADER:
            return None
    elif protocol == UDP:
        if gso != GSO_UDP_L4 or place != UDP_CHECKSUM:
            return None
        headers = offset + UDP_HEADER
    else:
        return None
    if headers >= size:
        return None
    return Cutting(version, protocol, offset, headers, segment, -((headers - size) // segment))


def segments(cutting: Cutting, packet: Buffer, end_of: EndOf = no_end) -> Iterator[bytes]:
    """The packets of a super-packet, in their order, each with what ``end_of`` puts behind it;
    ``cutting`` is that of `cutting_of`."""
    if cutting.protocol == TCP:
        return _tcp_segments(cutting, packet, end_of)
    return _udp_segments(cutting, packet, end_of)


def _tcp_segments(cutting: Cutting, packet: Buffer, end_of: EndOf) -> Iterator[bytes]:
    version, protocol, offset, headers, size, packets = cutting
    form = _layout_of_headers(version, protocol, offset, headers)
    fields = form.unpack_from(packet)
    network, pseudo = _network(version, protocol, fields)
    fixed, identification, before, after, base = network
    sequence, acknowledged, flags, window, _, rest = fields[-6:]
    pack, number, join = form.pack, int.from_bytes, b"".join
    # All of the header but sequence number, flags and checksum.
    unchanged = after[-4:] + bytes(4) + acknowledged + b"\0" + window + bytes(2) + rest
    pseudo += number(unchanged, "big") % 0xFFFF
    parts = parts_of(size).unpack
    even = size % 2 == 0
    shown = flags & ~(_FIN | _PSH)
    total = headers + size
    end = end_of(total)
    # Constant for all but the last.
    base += total
    pseudo += total - offset
    ahead = total - IPV6_HEADER
    place = headers
    stop = place + size
    for left in range(packets - 1, -1, -1):
        if not left:
            stop = len(packet)
            even = False
            shorter = size - (stop - place)
            total -= shorter
            base -= shorter
            pseudo -= shorter
            ahead -= shorter
            end = end_of(total)
            shown |= flags & (_FIN | _PSH)
        payload = packet[place:stop]
        carried = sum(map(number, parts(payload))) if even else sum_of(payload)
        check = -(carried + pseudo + sequence + shown) % 0xFFFF
        if version == 4:
            head = pack(
                fixed,
                total,
                identification,
                before,
                -(base + identification) % 0xFFFF,
                after,
                sequence,
                acknowledged,
                shown,
                window,
                check,
                rest,
            )
            identification = identification + 1 & 0xFFFF
        else:
            head = pack(fixed, ahead, after, sequence, acknowledged, shown, window, check, rest)
        yield join((head, payload, end))
        place = stop
        stop += size
        sequence = sequence + size & 0xFFFFFFFF
        shown &= ~_CWR


def _udp_segments(cutting: Cutting, packet: Buffer, end_of: EndOf) -> Iterator[bytes]:
    version, protocol, offset, headers, size, packets = cutting
    form = _layout_of_headers(version, protocol, offset, headers)
    fields = form.unpack_from(packet)
    network, pseudo = _network(version, protocol, fields)
    fixed, identification, before, after, base = network
    pseudo += int.from_bytes(after[-4:], "big")
    end = len(packet)
    place = headers
    for _ in range(packets):
        stop = min(place + size, end)
        length = stop - place + UDP_HEADER
        total = offset + length
        payload = packet[place:stop]
        check = -(sum_of(payload) + pseudo + 2 * length) % 0xFFFF or 0xFFFF
        if version == 4:
            checked = -(base + total + identification) % 0xFFFF
            head = form.pack(fixed, total, identification, before, checked, after, length, check)
            identification = identification + 1 & 0xFFFF
        else:
            head = form.pack(fixed, total - IPV6_HEADER, after, length, check)
        yield b"".join((head, payload, end_of(total)))
        place = stop


def _network(
    version: int, protocol: int, fields: tuple[Any, ...]
) -> tuple[tuple[bytes, int, bytes, bytes, int], int]:
    """First part, identification, second part, the rest and the ports, and the sum of what of an
    IPv4 header does not change.  And the sum of the pseudo-header without its length."""
    if version == 6:
        fixed, _, after = fields[:3]
        return (fixed, 0, b"", after, 0), int.from_bytes(after[2:34], "big") % 0xFFFF + protocol
    fixed, _, identification, before, _, after = fields[:6]
    base = int.from_bytes(fixed + before + after[:-4], "big") % 0xFFFF
    pseudo = int.from_bytes(after[:8], "big") % 0xFFFF + protocol
    return (fixed, identification, before, after, base), pseudo


def sum_of(octets: Buffer) -> int:
    """The sum of the 16-bit words; only its remainder modulo 0xFFFF means something."""
    size = len(octets)
    if size % 2:
        return int.from_bytes(octets, "big") % 0xFFFF << 8
    if size < _PARTS * 32:
        return int.from_bytes(octets, "big") % 0xFFFF
    return sum(map(int.from_bytes, parts_of(size).unpack(octets))) % 0xFFFF


@lru_cache(maxsize=256)
def parts_of(size: int) -> Struct:
    """Parts of ``size`` octets, an even number, whose sum as numbers is that of all, modulo 0xFFFF:
    the remainder of one long number takes twice the time of some short ones and theirs."""
    part = size // _PARTS // 2 * 2
    return Struct(f"{part}s" * (_PARTS - 1) + f"{size - part * (_PARTS - 1)}s")


def completed(header: Buffer, packet: Buffer, offset: int) -> bytes | None:
    """A packet, whose upper layer begins at ``offset``, with the checksum that NEEDS_CSUM asks for.

    None unless its place is in that layer (it may be a tunnel of its own) and behind the ports:
    what decided the packet's way does not change.
    """
    _, _, _, _, start, place = HEADER.unpack_from(header)
    place += start
    if start < offset or place < offset + 4 or place + 2 > len(packet):
        return None
    whole = bytearray(packet)
    _WORD.pack_into(whole, place, -sum_of(whole[start:]) % 0xFFFF or 0xFFFF)
    return bytes(whole)


def cut(header: Buffer, packet: Buffer) -> list[bytes]:
    """The packets of a frame with the virtio header ``header``, which may be empty.

    None if the header does not fit the packet, which a kernel never does.
    """
    if len(header) < SIZE:
        return [bytes(packet)]
    if header[1] == GSO_NONE:
        if not header[0] & NEEDS_CSUM:
            return [bytes(packet)]
        try:
            whole = completed(header, packet, layout_of(packet)[3])
        except PacketError:
            return []
        return [] if whole is None else [whole]
    cutting = cutting_of(header, packet)
    if cutting is None:
        return []
    return list(segments(cutting, packet))
