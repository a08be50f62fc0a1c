"""A super-packet as it grows: its first packet, and what was joined to that.

A row is ``count`` packets of ``size`` octets each, ``stride`` apart, with the octets ``behind``
after each.  Its first packet is looked at by itself, and says what the headers of all others have
to be; they are compared together.
"""

from __future__ import annotations

from functools import cache
from struct import Struct

from oegw.datapath.userspace.core.columns import alike, alike_lanes, rising
from oegw.datapath.userspace.core.cutting import TCP_CHECKSUM, UDP_CHECKSUM, UDP_HEADER
from oegw.datapath.userspace.core.interface import JOINED_PACKETS
from oegw.datapath.userspace.core.summing import pieces, sum_of, with_sum
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


def train_of(packet: Buffer, joins_udp: bool, octets: Buffer, place: int) -> Train | None:
    """None if nothing can be joined to ``packet``, an ordinary one; or not what is at ``place``, as
    a quick look says."""
    version = packet[0] >> 4
    protocol, offset = (packet[9], IPV4_HEADER) if version == 4 else (packet[6], IPV6_HEADER)
    if protocol == TCP:
        headers = offset + (packet[offset + 12] >> 4) * 4
        if packet[offset + 13] & ~_ECE != _ACK:
            return None
        sequence = int.from_bytes(packet[offset + 4 : offset + 8], "big") + len(packet) - headers
        place += offset + 4
        if octets[place : place + 4] != (sequence & 0xFFFFFFFF).to_bytes(4, "big"):
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
        "_form",
        "_headers",
        "_identification",
        "_like",
        "_offset",
        "_protocol",
        "_pseudo",
        "_pushed",
        "_pushing",
        "_quiet",
        "_room",
        "_segment",
        "_step",
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
        self._form = _header(offset, protocol, headers)
        # As the next must have it.
        self._like = self._first[:2] if offset == IPV4_HEADER else self._first[:4]
        self._quiet = self._pushing = packet[offset + 8 : offset + 16]
        if protocol == TCP:
            flags = bytes((packet[offset + 13] | _PSH,))
            self._pushing = self._quiet[:5] + flags + self._quiet[6:]
        self._pushed = False
        self._step = 0  # of the IPv4 identification
        self.ended = False
        self.payloads = [packet[headers:]]

    def follow(
        self, octets: Buffer, place: int, size: int, stride: int, count: int, behind: bytes
    ) -> int:
        """How many packets of a row, the first of which is at ``place``, are the next; 0 if there
        is no room for any."""
        payload = size - self._headers
        if not 0 < payload <= min(self._segment, self._room) or self.ended:
            return 0
        found = self._next(octets, place, size)
        if found is None:
            return 0
        step, pushed = found
        if pushed or payload < self._segment:
            count = 1
        if count > 1:
            count = self._as_first(octets, place, size, stride, count, behind, step)
        following = self._right(octets, place, size, stride, count)
        if following:
            self._step, self._pushed = step, pushed
        return following

    def take(self, octets: Buffer, place: int, size: int, stride: int, count: int) -> int:
        """How many of ``count`` packets that follow were joined: as many as have room."""
        payload = size - self._headers
        count = min(count, JOINED_PACKETS - len(self.payloads), self._room // payload)
        self.payloads += pieces(octets, place + self._headers, payload, stride, count)
        self._room -= count * payload
        self._follows += count * payload
        self._identification += count * self._step
        self.ended = payload < self._segment or self._pushed or len(self.payloads) == JOINED_PACKETS
        return count

    def another(self, packet: bytes) -> Train:
        """One that begins with a packet that follows."""
        made = Train(packet, self._protocol, self._offset, self._headers, self._pseudo)
        made._step = self._step
        return made

    def _next(self, octets: Buffer, place: int, size: int) -> tuple[int, bool] | None:
        """How far the packet's IPv4 identification is from the last one's, and whether it has PSH;
        None if it is not the next, but for the checksum of its upper layer."""
        first, offset, step = self._first, self._offset, 0
        if offset == IPV4_HEADER:
            start, length, number, middle, ends, *upper = self._form.unpack_from(octets, place)
            step = number - self._identification & 0xFFFF
            if (
                step > 1
                or not (step or first[6] & _DONT_FRAGMENT)
                or length != size
                or start != self._like
                or middle != first[6:10]
                or ends != first[12:24]
                or sum_of(octets[place : place + offset]) % 0xFFFF
            ):
                return None
        else:
            start, length, middle, *upper = self._form.unpack_from(octets, place)
            if length != size - offset or start != self._like or middle != first[6:44]:
                return None
        if self._protocol == UDP:
            length, check = upper
            return (step, False) if length == size - offset and check else None
        sequence, still, rest = upper
        if sequence != self._follows & 0xFFFFFFFF or rest != first[offset + 18 :]:
            return None
        if still != self._quiet and still != self._pushing:
            return None
        return step, still != self._quiet

    def _as_first(
        self,
        octets: Buffer,
        place: int,
        size: int,
        stride: int,
        count: int,
        behind: bytes,
        step: int,
    ) -> int:
        """How many packets of a row have headers as they follow from those of the first, but for
        the checksum of the upper layer; and the same behind."""
        offset, headers = self._offset, self._headers
        header = bytes(octets[place : place + headers])
        changing = []
        # A row ends before a field that would begin anew.
        if step:
            number, check = (int.from_bytes(header[at : at + 4], "big") for at in (4, 8))
            count = min(count, 0x10000 - (number >> 16), (check & 0xFFFF) + 1)
            changing = [(4, number, 0x10000), (8, check, -1)]
        if self._protocol == TCP:
            at, check_at, payload = offset + 4, offset + TCP_CHECKSUM, size - headers
            sequence = int.from_bytes(header[at : at + 4], "big")
            count = min(count, (0xFFFFFFFF - sequence) // payload + 1)
            changing.append((at, sequence, payload))
        else:
            check_at = offset + UDP_CHECKSUM
        found = b"".join(pieces(octets, place, headers, stride, count))
        due = bytearray(header * count)
        words, halves = memoryview(due).cast("I"), memoryview(due).cast("H")
        for at, first, by in changing:
            words[at // 4 :: headers // 4] = rising("I", first, by, count)
        checks = memoryview(found).cast("H")[check_at // 2 :: headers // 2]
        halves[check_at // 2 :: headers // 2] = checks
        ends = pieces(octets, place + size, len(behind), stride, count)
        same = min(alike_lanes(headers, found, due), alike(ends, (behind,) * count))
        if self._protocol == UDP and 0 in checks.tolist():
            same = min(same, checks.tolist().index(0))
        return same

    def _right(self, octets: Buffer, place: int, size: int, stride: int, count: int) -> int:
        """How many packets of a row have the right checksum, up to the first that has not."""
        upper = size - self._offset
        # Whole words are summed faster: with some of the addresses, which are those of the first.
        lead = -upper % 8 if upper % 2 == 0 else 0
        start = self._offset - lead
        due = sum_of(self._first[start : self._offset]) - self._pseudo - upper
        return with_sum(octets, place + start, upper + lead, stride, count, due)

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


@cache
def _header(offset: int, protocol: int, headers: int) -> Struct:
    """What is the same in all packets of a super-packet, or known of the next.

    IPv4: version and traffic class, length, identification, up to the protocol, addresses and
    ports.  IPv6: up to the flow label, length, up to the ports.  TCP: sequence number, from the
    acknowledgement to the window, and the rest behind the checksum.  UDP: length, checksum.
    """
    form = "2sHH4s2x12s" if offset == IPV4_HEADER else "4sH38s"
    return Struct("!" + form + (f"I8s2x{headers - offset - 18}s" if protocol == TCP else "HH"))
