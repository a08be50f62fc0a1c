"""Packets become a super-packet (GRO)."""

from __future__ import annotations

from typing import Any

from oegw.datapath.userspace.core.cutting import (
    TCP_CHECKSUM,
    UDP_CHECKSUM,
    UDP_HEADER,
    layout_of_headers,
    sum_of,
)
from oegw.datapath.userspace.core.interface import JOINED_PACKETS
from oegw.datapath.userspace.core.virtio import (
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP_L4,
    HEADER,
    NEEDS_CSUM,
    NONE,
)
from oegw.packet.ip import IPV4_HEADER, IPV6_HEADER, TCP, UDP, Buffer

# Specification values (RFC 9293 section 3.1, RFC 791).
_PSH, _ACK, _ECE = 0x08, 0x10, 0x40
_DONT_FRAGMENT = 0x40
_LARGEST = 65535

Parts = list[Buffer]
"""A frame, in pieces that are written together."""


class Joiner:
    """Packets in, in their order; frames out.

    Only neighbours are joined, and only what is exactly next: with the same headers, and after the
    checksums of both were verified.  A packet that is wrong goes on alone and as it is: its
    receiver judges it, as if there were no tunnel.

    Alike are all fields but lengths, checksums, TCP's sequence number and PSH; the IPv4
    identification counts up, or with DF may stay.  TCP has ACK and perhaps ECE, and no other flag
    but PSH, which only the last has.  All have as much payload as the first but the last, which
    may have less, but not none.  UDP has a checksum.
    """

    def __init__(self, offloads: bool, joins_udp: bool) -> None:
        """``offloads``: whether frames begin with a virtio header; without, nothing is joined.
        ``joins_udp``: whether the device takes super-packets of UDP (UDP_L4)."""
        self._offloads = offloads
        self._joins_udp = joins_udp
        self._frames: list[tuple[Parts, int]] = []
        self._first: _First | None = None

    def add(self, packet: Buffer) -> None:
        """The next packet, an ordinary one; its octets may not change until ``clear``."""
        if self.extend(packet):
            return
        self._close()
        if self._offloads:
            first = _first_of(packet, self._joins_udp)
            if first is not None:
                self._first = first
                if first.ended:
                    self._close()
                return
        self._alone(packet)

    def extend(self, packet: Buffer) -> bool:
        """Whether ``packet`` could be joined to what is before it; else nothing was done."""
        first = self._first
        if first is None or not first.extend(packet):
            return False
        if first.ended:
            self._close()
        return True

    def append(self, packet: Buffer) -> None:
        """The next packet goes alone."""
        self._close()
        self._alone(packet)

    def frames(self) -> list[tuple[Parts, int]]:
        """What was made since ``clear``: the parts of each frame, and how many packets it has."""
        self._close()
        return self._frames

    def clear(self) -> None:
        self._first = None
        self._frames = []

    def _alone(self, packet: Buffer) -> None:
        self._frames.append(([NONE, packet] if self._offloads else [packet], 1))

    def _close(self) -> None:
        first, self._first = self._first, None
        if first is None:
            return
        if len(first.payloads) == 1:
            self._alone(first.packet)
        else:
            self._frames.append(([first.header(), *first.payloads], len(first.payloads)))


class _First:
    """The first packet of what may become a super-packet, and what was joined to it."""

    __slots__ = (
        "_addresses",
        "_alike",
        "_base",
        "_fields",
        "_form",
        "_headers",
        "_identification",
        "_may_stay",
        "_next",
        "_offset",
        "_protocol",
        "_pseudo",
        "_room",
        "_segment",
        "_verified",
        "_version",
        "ended",
        "packet",
        "payloads",
    )

    def __init__(self, packet: Buffer, version: int, protocol: int, headers: int) -> None:
        offset = IPV4_HEADER if version == 4 else IPV6_HEADER
        self.packet = packet
        self._version, self._protocol, self._offset, self._headers = (
            version,
            protocol,
            offset,
            headers,
        )
        self._form = layout_of_headers(version, protocol, offset, headers)
        fields = self._fields = self._form.unpack_from(packet)
        payload = packet[headers:]
        self.payloads: list[Buffer] = [payload]
        self._segment = len(payload)
        self._room = _LARGEST - len(packet)
        self.ended = protocol == TCP and bool(fields[-4] & _PSH)
        self._verified = False
        self._alike = self._same(fields)
        self._next = fields[-6] + self._segment & 0xFFFFFFFF if protocol == TCP else 0
        addresses = packet[12:20] if version == 4 else packet[8:40]
        self._pseudo = int.from_bytes(addresses, "big") % 0xFFFF + protocol
        self._identification = self._base = 0
        self._may_stay = False
        if version == 4:
            self._identification = fields[2]
            self._may_stay = bool(packet[6] & _DONT_FRAGMENT)
            fixed, before = fields[0], fields[3]
            self._base = int.from_bytes(fixed + before + bytes(addresses), "big") % 0xFFFF

    def extend(self, packet: Buffer) -> bool:
        """Whether ``packet`` is exactly next, and was joined."""
        size = len(packet)
        payload = size - self._headers
        if payload <= 0 or payload > self._segment or payload > self._room:
            return False
        fields = self._form.unpack_from(packet)
        if self._same(fields) != self._alike:
            return False
        if self._version == 4:
            length, identification = fields[1], fields[2]
            step = identification - self._identification & 0xFFFF
            if length != size or not (step == 1 or (step == 0 and self._may_stay)):
                return False
        elif fields[1] != size - IPV6_HEADER:
            return False
        ends = payload < self._segment
        if self._protocol == TCP:
            if fields[-6] != self._next:
                return False
            ends = ends or bool(fields[-4] & _PSH)
        if not self._verified:
            if not self._right(self.packet, self._fields):
                return False
            self._verified = True
        if not self._right(packet, fields):
            return False
        self.payloads.append(packet[self._headers :])
        self._room -= payload
        self._next = self._next + payload & 0xFFFFFFFF
        if self._version == 4:
            self._identification = identification
        if self._protocol == TCP and fields[-4] & _PSH:
            self._fields = (*self._fields[:-4], self._fields[-4] | _PSH, *self._fields[-3:])
        self.ended = ends or len(self.payloads) == JOINED_PACKETS
        return True

    def header(self) -> bytes:
        """What stands before the payloads: the virtio header, and those of the super-packet."""
        fields = list(self._fields)
        offset, headers = self._offset, self._headers
        size = _LARGEST - self._room
        transport = size - offset
        if self._version == 4:
            fields[1] = size
            fields[4] = -(self._base + size + fields[2]) % 0xFFFF
        else:
            fields[1] = transport
        partial = (self._pseudo + transport) % 0xFFFF or 0xFFFF
        if self._protocol == TCP:
            fields[-2] = partial
            gso = GSO_TCPV4 if self._version == 4 else GSO_TCPV6
            place = TCP_CHECKSUM
        else:
            fields[-2:] = transport, partial
            gso, place = GSO_UDP_L4, UDP_CHECKSUM
        virtio = HEADER.pack(NEEDS_CSUM, gso, headers, self._segment, offset, place)
        return virtio + self._form.pack(*fields)

    def _same(self, fields: tuple[Any, ...]) -> tuple[Any, ...]:
        """Of a header's fields, what has to be alike."""
        network = (
            (fields[0], fields[3], fields[5]) if self._version == 4 else (fields[0], fields[2])
        )
        if self._protocol == UDP:
            return network
        return *network, fields[-5], fields[-4] & ~_PSH, fields[-3], fields[-1]

    def _right(self, packet: Buffer, fields: tuple[Any, ...]) -> bool:
        """Whether the checksums of IPv4 and of TCP or UDP are."""
        if self._version == 4 and (self._base + fields[1] + fields[2] + fields[4]) % 0xFFFF:
            return False
        length = len(packet) - self._offset
        if self._protocol == UDP and (fields[-2] != length or not fields[-1]):
            return False
        return not (sum_of(packet[self._offset :]) + self._pseudo + length) % 0xFFFF


def _first_of(packet: Buffer, joins_udp: bool) -> _First | None:
    """None if nothing can be joined to ``packet``, an ordinary one."""
    version = packet[0] >> 4
    protocol, offset = (packet[9], IPV4_HEADER) if version == 4 else (packet[6], IPV6_HEADER)
    if protocol == TCP:
        headers = offset + (packet[offset + 12] >> 4) * 4
        if packet[offset + 13] & ~(_PSH | _ECE) != _ACK:
            return None
    elif protocol == UDP and joins_udp:
        headers = offset + UDP_HEADER
    else:
        return None
    return _First(packet, version, protocol, headers) if headers < len(packet) else None
