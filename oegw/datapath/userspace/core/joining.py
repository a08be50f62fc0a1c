"""Packets become a super-packet (GRO)."""

from __future__ import annotations

from collections.abc import Generator
from functools import lru_cache
from struct import Struct

from oegw.datapath.userspace.core.cutting import (
    TCP_CHECKSUM,
    UDP_CHECKSUM,
    UDP_HEADER,
)
from oegw.datapath.userspace.core.interface import JOINED_PACKETS
from oegw.datapath.userspace.core.summing import sum_of
from oegw.datapath.userspace.core.virtio import (
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP_L4,
    HEADER,
    NEEDS_CSUM,
    NONE,
)
from oegw.packet.checksum import checksum
from oegw.packet.ip import IPV4_HEADER, IPV6_HEADER, TCP, UDP, Buffer

# Specification values (RFC 9293 section 3.1, RFC 791).
_PSH, _ACK, _ECE = 0x08, 0x10, 0x40
_DONT_FRAGMENT = 0x40
_LARGEST = 65535

_IPV4 = Struct("!2sHH4sH8s")  # length, identification; checksum
_IPV6 = Struct("!4sH34s")  # length
_UDP = Struct("!4sHH")  # ports, length, checksum
_WORD = Struct("!H")

Parts = list[Buffer]
"""A frame, in pieces that are written together."""


@lru_cache(maxsize=16)
def _tcp(headers: int) -> Struct:
    """Ports, sequence number, acknowledgement with data offset, flags, window, checksum, rest."""
    return Struct(f"!4sI5sB2sH{headers - 18}s")


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
        self._last: Buffer | None = None  # to which the next packet may be joined
        self._train: _Train | None = None  # or that

    def add(self, packet: Buffer) -> None:
        """The next packet, an ordinary one; its octets may not change until ``clear``."""
        if self.extend(packet):
            return
        self._close()
        if self._offloads:
            self._last = packet
        else:
            self._frames.append(([packet], 1))

    def extend(self, packet: Buffer) -> bool:
        """Whether ``packet`` could be joined to what is before it; else nothing was done."""
        train = self._train
        if train is None:
            last = self._last
            # Most that are not next show it here, and so does one without octets.
            if last is None or packet[:1] != last[:1] or packet[20:24] != last[20:24]:
                return False
            train = _train_of(last, self._joins_udp)
            if train is None or not train.take(packet):
                return False
            self._train, self._last = train, None
        elif not train.take(packet):
            return False
        if train.ended:
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
        self._last = self._train = None
        self._frames = []

    def _alone(self, packet: Buffer) -> None:
        self._frames.append(([NONE, packet] if self._offloads else [packet], 1))

    def _close(self) -> None:
        if self._last is not None:
            self._alone(self._last)
            self._last = None
        elif self._train is not None:
            payloads = self._train.payloads
            self._frames.append(([self._train.header(), *payloads], len(payloads)))
            self._train = None


def _train_of(packet: Buffer, joins_udp: bool) -> _Train | None:
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
    return _Train(packet, protocol, headers, pseudo)


class _Train:
    """A first packet, whose checksums are right, and what was joined to it.

    ``take(packet)`` says whether it was joined; ``ended``: nothing more can be.
    """

    __slots__ = (
        "_headers",
        "_packet",
        "_protocol",
        "_pseudo",
        "_pushed",
        "ended",
        "payloads",
        "take",
    )

    def __init__(self, packet: Buffer, protocol: int, headers: int, pseudo: int) -> None:
        self._packet, self._protocol, self._headers = packet, protocol, headers
        self._pseudo = pseudo  # the sum of the pseudo-header but for the length
        self._pushed = False
        self.ended = False
        self.payloads = [packet[headers:]]
        taking = self._taking()
        next(taking)
        self.take = taking.send

    def _taking(self) -> Generator[bool, Buffer, None]:
        """A coroutine: for each packet it has all at hand that the first one showed."""
        first, protocol, headers = self._packet, self._protocol, self._headers
        payloads, number = self.payloads, int.from_bytes
        segment = len(first) - headers
        room = _LARGEST - len(first)
        fixed_sum = identification = follows = step = 0
        if first[0] >> 4 == 4:
            offset, network = IPV4_HEADER, _IPV4.unpack_from
            fixed, _, identification, before, _, addresses = network(first)
            fixed_sum = number(fixed + before + addresses, "big") % 0xFFFF
            may_stay = bool(first[6] & _DONT_FRAGMENT)
        else:
            offset, network = IPV6_HEADER, _IPV6.unpack_from
            fixed, _, addresses = network(first)
        if protocol == TCP:
            transport = _tcp(headers - offset).unpack_from
            ports, sequence, acknowledged, flags, window, _, rest = transport(first, offset)
            follows = sequence + segment & 0xFFFFFFFF
            unchanged = ports + bytes(4) + acknowledged + b"\0" + window + bytes(2) + rest
        else:
            transport = _UDP.unpack_from
            ports, _, _ = transport(first, offset)
            unchanged = ports
        base = self._pseudo + number(unchanged, "big") % 0xFFFF
        taken = False
        while True:
            packet = yield taken
            taken = False
            size = len(packet)
            payload = size - headers
            if not 0 < payload <= segment or payload > room:
                continue
            if offset == IPV4_HEADER:
                its_fixed, length, its_identification, its_before, check, its_addresses = network(
                    packet
                )
                step = its_identification - identification & 0xFFFF
                if (
                    length != size
                    or its_before != before
                    or (step != 1 and (step or not may_stay))
                    or (fixed_sum + length + its_identification + check) % 0xFFFF
                ):
                    continue
            else:
                its_fixed, length, its_addresses = network(packet)
                if length != size - IPV6_HEADER:
                    continue
            if its_fixed != fixed or its_addresses != addresses:
                continue
            if protocol == TCP:
                (
                    its_ports,
                    sequence,
                    its_acknowledged,
                    its_flags,
                    its_window,
                    check,
                    its_rest,
                ) = transport(packet, offset)
                if (
                    sequence != follows
                    or its_ports != ports
                    or its_acknowledged != acknowledged
                    or its_flags & ~_PSH != flags
                    or its_window != window
                    or its_rest != rest
                ):
                    continue
                total = base + sequence + its_flags + check + size - offset
            else:
                its_ports, length, check = transport(packet, offset)
                if its_ports != ports or not check or length != size - offset:
                    continue
                its_flags = 0
                total = base + 2 * length + check
            carried = packet[headers:]
            if (total + sum_of(carried)) % 0xFFFF:
                continue
            payloads.append(carried)
            taken = True
            room -= payload
            identification += step
            follows = follows + payload & 0xFFFFFFFF
            if payload < segment or its_flags & _PSH or len(payloads) == JOINED_PACKETS:
                self._pushed = bool(its_flags & _PSH)
                self.ended = True

    def header(self) -> bytes:
        """What stands before the payloads: the virtio header, and those of the super-packet."""
        headers = self._headers
        whole = bytearray(self._packet[:headers])
        size = headers + sum(map(len, self.payloads))
        offset = IPV4_HEADER if whole[0] >> 4 == 4 else IPV6_HEADER
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
        segment = len(self.payloads[0])
        return HEADER.pack(NEEDS_CSUM, gso, headers, segment, offset, place) + whole
