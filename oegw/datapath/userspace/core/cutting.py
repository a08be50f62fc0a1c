"""A super-packet becomes packets, as the kernel's own segmentation would make them (GSO).

Per packet the IPv4 identification counts up; lengths, checksums and TCP's sequence number are
set anew; CWR stays on the first (RFC 3168 section 6.1.2), PSH and FIN on the last.
A checksum of 0 becomes 0xFFFF in UDP (RFC 768), and wherever a partial one is completed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from struct import Struct
from typing import NamedTuple

from oegw.datapath.userspace.core.columns import counted, packed, rising
from oegw.datapath.userspace.core.summing import pieces, pieces_of, sum_of
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

_MOST = 256  # packets of which a column is made as one number: our choice; more are nobody's bulk

_WORD = Struct("!H")

EndOf = Callable[[int], bytes]
"""What to put behind a packet of so many octets."""


def no_end(size: int) -> bytes:
    return b""


class Front(NamedTuple):
    """What to put before the first packet; and of each number of four octets that is another one
    before the next, where it is and by how much."""

    octets: bytes
    rising: Sequence[tuple[int, int]]


_NO_FRONT = Front(b"", ())


class Cutting(NamedTuple):
    """How a super-packet is to be cut: octets of headers, of payload per packet, and packets."""

    version: int
    protocol: int
    offset: int  # of the transport header
    headers: int
    segment: int
    packets: int


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


def segments(cutting: Cutting, packet: Buffer, end_of: EndOf = no_end) -> list[bytes]:
    """The packets of a super-packet, in their order, each with what ``end_of`` puts behind it;
    ``cutting`` is that of `cutting_of`."""
    return [
        head + payload + end
        for heads, payloads, end in _rows(cutting, packet, end_of, _NO_FRONT)
        for head, payload in zip(heads, payloads, strict=True)
    ]


def lay(
    cutting: Cutting, packet: Buffer, end_of: EndOf, front: Front, out: memoryview, place: int
) -> tuple[int, int]:
    """The same packets, with a front before each, are written to ``out``, from ``place`` on: where
    they end, and how long the first one is."""
    first = 0
    for heads, payloads, end in _rows(cutting, packet, end_of, front):
        count = len(payloads)
        parts = [end] * (3 * count)
        parts[::3], parts[1::3] = heads, payloads
        form = _form(len(heads[0]), len(payloads[0]), len(end), count)
        form.pack_into(out, place, *parts)
        place += form.size
        first = first or form.size // count
    return place, first


@lru_cache(maxsize=256)
def _form(head: int, payload: int, end: int, count: int) -> Struct:
    return Struct(f"{head}s{payload}s{end}s" * count)


_Row = tuple[Sequence[bytes], Sequence[bytes], bytes]
"""Packets with payloads of the same length: what is before each, the payloads, and the end."""


_Column = tuple[int, memoryview]
"""Where it is in the first header, and its numbers."""


def _rows(cutting: Cutting, packet: Buffer, end_of: EndOf, front: Front) -> Iterator[_Row]:
    headers, segment = cutting.headers, cutting.segment
    alike, last = divmod(len(packet) - headers, segment)
    for first, count, size in ((0, alike, segment), (alike, 1, last)):
        if count and size:
            start = headers + first * segment
            payloads, sums = pieces_of(packet, start, size, size, count)
            heads = _heads(cutting, packet, front, first, size, sums)
            yield heads, payloads, end_of(headers + size)


def _heads(
    cutting: Cutting, packet: Buffer, front: Front, first: int, size: int, sums: Sequence[int]
) -> Sequence[bytes]:
    """What is before the payloads, of ``size`` octets and with these sums, of packets from the
    number ``first`` on.

    All begin as the same, and what changes from one to the next is written over that, one field of
    all of them at a time.
    """
    version, protocol, offset, headers, segment, packets = cutting
    count, total = len(sums), headers + size
    header = bytearray(packet[:headers])
    columns: list[_Column] = []
    if version == 4:
        columns = _network(header, offset, first, count, total)
        addresses = header[12:20]
    else:
        _WORD.pack_into(header, 4, total - IPV6_HEADER)
        addresses = header[8:40]
    pseudo = int.from_bytes(addresses, "big") + protocol + total - offset
    shown = [0, 0]  # flags of the first and the last
    if protocol == TCP:
        flags = header[offset + 13]
        header[offset + 13] = flags & ~(_FIN | _PSH | _CWR)
        shown = [
            0 if first else flags & _CWR,
            flags & (_FIN | _PSH) if first + count == packets else 0,
        ]
        sequence = int.from_bytes(header[offset + 4 : offset + 8], "big") + first * segment
        header[offset + 4 : offset + 8] = bytes(4)
        numbers = counted(sequence, segment, count, 32)
        at, zero = offset + TCP_CHECKSUM, 0
    else:
        _WORD.pack_into(header, offset + 4, UDP_HEADER + size)
        numbers = (0,) * count
        at, zero = offset + UDP_CHECKSUM, 0xFFFF
    _WORD.pack_into(header, at, 0)
    base = pseudo + int.from_bytes(header[offset:], "big") % 0xFFFF
    checks = [
        -(base + carried + number) % 0xFFFF or zero
        for carried, number in zip(sums, numbers, strict=True)
    ]
    checks[0] = (checks[0] - shown[0]) % 0xFFFF or zero
    checks[-1] = (checks[-1] - shown[1]) % 0xFFFF or zero
    columns.append((at, packed("H", checks)))
    begin = len(front.octets)
    width = begin + headers
    heads = bytearray((front.octets + header) * count)
    halves, words = memoryview(heads).cast("H"), memoryview(heads).cast("I")
    for at, by in front.rising:
        number = int.from_bytes(front.octets[at : at + 4], "big") + first * by
        words[at // 4 :: width // 4] = rising("I", number, by, count)
    for at, column in columns:
        halves[(begin + at) // 2 :: width // 2] = column
    if protocol == TCP:
        words[(begin + offset) // 4 + 1 :: width // 4] = packed("I", numbers)
        heads[begin + offset + 13] |= shown[0]
        heads[width * (count - 1) + begin + offset + 13] |= shown[1]
    return pieces(heads, 0, width, width, count)


def _network(header: bytearray, offset: int, first: int, count: int, total: int) -> list[_Column]:
    """Put into an IPv4 header what all packets have, and where and what the columns of the others
    are: identifications and checksums."""
    number = int.from_bytes(header[4:6], "big") + first & 0xFFFF
    _WORD.pack_into(header, 2, total)
    header[4:6] = header[10:12] = bytes(2)
    base = int.from_bytes(header[:offset], "big") % 0xFFFF
    check = -(base + number) % 0xFFFF
    if check < count - 1 or number + count > 0x10000 or count > _MOST:
        numbers = counted(number, 1, count, 16)
        return [
            (4, packed("H", numbers)),
            (10, packed("H", [-(base + each) % 0xFFFF for each in numbers])),
        ]
    return [(4, rising("H", number, 1, count)), (10, rising("H", check, -1, count))]


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
    return segments(cutting, packet)
