"""A super-packet as it grows: its first packet, and what was joined to that.

A row is ``count`` packets of ``size`` octets each, ``stride`` apart, with the octets ``behind``
after each: all packets of a row are looked at together, a column of their fields at a time, which
takes half the time of one by one.
"""

from __future__ import annotations

from functools import lru_cache
from operator import add
from struct import Struct
from typing import Any

from oegw.datapath.userspace.core.cutting import TCP_CHECKSUM, UDP_CHECKSUM, UDP_HEADER
from oegw.datapath.userspace.core.interface import JOINED_PACKETS
from oegw.datapath.userspace.core.summing import pieces_of, sum_of
from oegw.datapath.userspace.core.virtio import (
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP_L4,
    HEADER,
    NEEDS_CSUM,
)
from oegw.packet.checksum import checksum
from oegw.packet.ip import IPV4_HEADER, IPV6_HEADER, TCP, UDP, Buffer

# Specification values (RFC 9293 section 3.1, RFC 791).
_PSH, _ACK, _ECE = 0x08, 0x10, 0x40
_DONT_FRAGMENT = 0x40
_LARGEST = 65535

_UDP = Struct("!4sHH")  # ports, length, checksum
_WORD = Struct("!H")


def train_of(packet: Buffer, joins_udp: bool) -> Train | None:
    """None if nothing can be joined to ``packet``, an ordinary one."""
    version = packet[0] >> 4
    protocol, offset = (packet[9], IPV4_HEADER) if version == 4 else (packet[6], IPV6_HEADER)
    if protocol == TCP:
        headers = offset + (packet[offset + 12] >> 4) * 4
        if packet[offset + 13] & ~_ECE != _ACK:
            return None
    elif protocol == UDP and joins_udp:
        headers = offset + UDP_HEADER
        length, check = _UDP.unpack_from(packet, offset)[1:]
        if not check or length != len(packet) - offset:
            return None
    else:
        return None
    if headers >= len(packet) or (version == 4 and sum_of(packet[:offset])):
        return None
    addresses = packet[12:20] if version == 4 else packet[8:40]
    pseudo = int.from_bytes(addresses, "big") % 0xFFFF + protocol
    if (sum_of(packet[offset:]) + pseudo + len(packet) - offset) % 0xFFFF:
        return None
    return Train(bytes(packet), protocol, offset, headers, pseudo)


class Train:
    """``ended``: nothing more can be joined."""

    __slots__ = (
        "_first",
        "_follows",
        "_headers",
        "_identification",
        "_offset",
        "_protocol",
        "_pseudo",
        "_pushed",
        "_room",
        "_segment",
        "_unchanged",
        "ended",
        "payloads",
    )

    def __init__(
        self, packet: bytes, protocol: int, offset: int, headers: int, pseudo: int
    ) -> None:
        """The first packet, whose checksums are right, where its upper layer begins, and the sum of
        its pseudo-header but for the length."""
        self._protocol, self._offset, self._headers = protocol, offset, headers
        self._first = packet[:headers]
        self._pseudo = pseudo
        self._segment = len(packet) - headers
        self._room = _LARGEST - len(packet)
        self._identification = int.from_bytes(packet[4:6], "big")
        self._follows = int.from_bytes(packet[offset + 4 : offset + 8], "big") + self._segment
        # The sum of what of the upper layer's header stays, and of the pseudo-header.
        stays = packet[offset : offset + 4]
        if protocol == TCP:
            stays += packet[offset + 8 : offset + 16] + packet[offset + 18 : headers]
        self._unchanged = sum_of(stays) + pseudo
        self._pushed = False
        self.ended = False
        self.payloads = [packet[headers:]]

    def take(
        self, octets: Buffer, place: int, size: int, stride: int, count: int, behind: bytes
    ) -> int:
        """How many packets of a row, the first of which is at ``place``, were joined."""
        payload = size - self._headers
        if not 0 < payload <= self._segment:
            return 0
        if payload < self._segment:
            count = 1
        count = min(count, JOINED_PACKETS - len(self.payloads), self._room // payload)
        if count < 1:
            return 0
        gap = stride - size - len(behind) if count > 1 else 0
        form = _row(self._offset, self._protocol, self._headers, payload, len(behind), gap, count)
        fields = form.unpack_from(octets, place)
        columns = [fields[index :: len(fields) // count] for index in range(len(fields) // count)]
        step = 0
        if self._offset == IPV4_HEADER:
            step = columns[1][0] - self._identification & 0xFFFF
            if step > 1 or not (step or self._first[6] & _DONT_FRAGMENT):
                return 0
            count = self._next_of_ipv4(columns, size, step)
        else:
            start = self._first[:4] + _WORD.pack(size - IPV6_HEADER) + self._first[6:8]
            count = min(_all_are(columns[0], start), _all_are(columns[1], self._first[8:44]))
        count = min(count, _all_are(columns[-1], behind))
        pushed = False
        if self._protocol == TCP:
            count, pushed = self._next_of_tcp(columns, count)
        else:
            count = min(count, _all_are(columns[-3], size - self._offset))
            if 0 in columns[-2]:
                count = min(count, columns[-2].index(0))
        if not count:
            return 0
        payloads, sums = pieces_of(octets, place + self._headers, payload, stride, count)
        base = self._unchanged + size - self._offset
        totals = columns[-2]
        if self._protocol == TCP:
            totals = tuple(map(add, columns[-5], columns[-3]))
        else:
            base += size - self._offset
        wrong = tuple(
            [(base + its + each) % 0xFFFF for each, its in zip(sums, totals, strict=False)]
        )
        if pushed:
            wrong = (*wrong[:-1], (wrong[-1] + _PSH) % 0xFFFF)
        taken = _all_are(wrong, 0)
        if not taken:
            return 0
        self.payloads += payloads[:taken]
        self._room -= taken * payload
        self._follows += taken * payload
        self._identification += taken * step
        self._pushed = pushed and taken == count
        self.ended = payload < self._segment or self._pushed or len(self.payloads) == JOINED_PACKETS
        return taken

    def _next_of_ipv4(self, columns: list[_Column], size: int, step: int) -> int:
        first = self._first
        starts, numbers, middles, checks, ends = columns[:5]
        begin = self._identification + step
        due = [each & 0xFFFF for each in range(begin, begin + len(numbers))] if step else []
        base = sum_of(first[:2] + first[6:10] + first[12:20]) + size
        return min(
            _all_are(starts, first[:2] + _WORD.pack(size)),
            _same(numbers, tuple(due or [begin & 0xFFFF] * len(numbers))),
            _all_are(middles, first[6:10]),
            _all_are(
                tuple([(base + a + b) % 0xFFFF for a, b in zip(numbers, checks, strict=True)]), 0
            ),
            _all_are(ends, first[12:24]),
        )

    def _next_of_tcp(self, columns: list[_Column], count: int) -> tuple[int, bool]:
        """``count`` or less, and whether the last of them has PSH."""
        sequences, middles, _, rests, _ = columns[-5:]
        segment, begin, offset = self._segment, self._follows, self._offset
        due = [
            each & 0xFFFFFFFF for each in range(begin, begin + len(sequences) * segment, segment)
        ]
        quiet = self._first[offset + 8 : offset + 16]
        count = min(
            count, _same(sequences, tuple(due)), _all_are(rests, self._first[offset + 18 :])
        )
        still = _all_are(middles, quiet)
        if still >= count:
            return count, False
        pushed = middles[still] == quiet[:5] + bytes((quiet[5] | _PSH,)) + quiet[6:]
        return still + pushed, pushed

    def header(self) -> bytes:
        """What stands before the payloads: the virtio header, and those of the super-packet."""
        whole = bytearray(self._first)
        headers, offset = self._headers, self._offset
        size = headers + sum(map(len, self.payloads))
        partial = (self._pseudo + size - offset) % 0xFFFF or 0xFFFF
        if offset == IPV4_HEADER:
            _WORD.pack_into(whole, 2, size)
            _WORD.pack_into(whole, 10, 0)
            _WORD.pack_into(whole, 10, checksum(whole[:offset]))
        else:
            _WORD.pack_into(whole, 4, size - offset)
        if self._protocol == TCP:
            whole[offset + 13] |= _PSH if self._pushed else 0
            gso = GSO_TCPV4 if offset == IPV4_HEADER else GSO_TCPV6
            place = TCP_CHECKSUM
        else:
            _WORD.pack_into(whole, offset + 4, size - offset)
            gso, place = GSO_UDP_L4, UDP_CHECKSUM
        _WORD.pack_into(whole, offset + place, partial)
        return HEADER.pack(NEEDS_CSUM, gso, headers, self._segment, offset, place) + whole


_Column = tuple[Any, ...]


def _all_are(column: _Column, value: object) -> int:
    """How many, from the first on."""
    return _same(column, (value,) * len(column))


def _same(column: _Column, due: _Column) -> int:
    """How many are as they are due, from the first on."""
    if column == due:
        return len(column)
    return next(index for index, each in enumerate(column) if each != due[index])


@lru_cache(maxsize=1024)
def _row(
    offset: int, protocol: int, headers: int, payload: int, behind: int, gap: int, count: int
) -> Struct:
    """What of packets changes, and what is between.

    IPv4: up to the length, identification, up to the protocol, checksum, addresses and ports.
    IPv6: up to the hop limit, addresses and ports.  TCP: sequence number, from the acknowledgement
    to the window, checksum, the rest.  UDP: length, checksum.  Then what is behind the payload.
    """
    form = "4sH4sH12s" if offset == IPV4_HEADER else "8s36s"
    form += f"I8sH{headers - offset - 18}s" if protocol == TCP else "HH"
    form += f"{payload}x{behind}s"
    return Struct("!" + f"{gap}x".join([form] * count))
