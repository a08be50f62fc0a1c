"""Frames of a tunnel device, and what becomes of ESP packets on their way: honest and otherwise,
from a seed."""

from __future__ import annotations

import random
from ipaddress import ip_address
from struct import Struct

from oegw.datapath.userspace.core.virtio import (
    GSO_ECN,
    GSO_NONE,
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP_L4,
    NEEDS_CSUM,
    VirtioHeader,
)
from oegw.packet.checksum import checksum
from oegw.packet.ip import ICMP, TCP, UDP, UDP_LITE
from tests.support.datapath_sas import A4, A6, B4, B6

_IPV4 = Struct("!BBHHHBBH8s")
_IPV6 = Struct("!IHBB32s")
_TCP = Struct("!HHIIBBHHH")
_UDP = Struct("!HHHH")
_ACK, _PSH, _FIN, _SYN, _ECE, _CWR = 0x10, 0x08, 0x01, 0x02, 0x40, 0x80
_CHECKSUM = {TCP: 16, UDP: 6}
_PAIRS = {4: (A4, B4), 6: (A6, B6)}


def _addresses(version: int) -> bytes:
    return b"".join(ip_address(text).packed for text in _PAIRS[version])


def ip_packet(
    version: int,
    protocol: int,
    upper: bytes,
    traffic_class: int = 0,
    identification: int = 1,
    dont_fragment: bool = True,
    ttl: int = 64,
) -> bytes:
    addresses = _addresses(version)
    if version == 6:
        head = 6 << 28 | traffic_class << 20
        return _IPV6.pack(head, len(upper), protocol, ttl, addresses) + upper
    fields = (0x45, traffic_class, 20 + len(upper), identification, dont_fragment << 14, ttl)
    check = checksum(_IPV4.pack(*fields, protocol, 0, addresses))
    return _IPV4.pack(*fields, protocol, check, addresses) + upper


def pseudo_header(version: int, protocol: int, length: int) -> bytes:
    return _addresses(version) + Struct("!II").pack(length, protocol)


def tcp(
    version: int,
    payload: bytes,
    port: int,
    sequence: int,
    flags: int = _ACK,
    acknowledgement: int = 7,
    options: bytes = b"",
    partial: bool = False,
) -> bytes:
    offset = (20 + len(options)) // 4 << 4
    fields = port, 80, sequence & 0xFFFFFFFF, acknowledgement, offset, flags, 512
    upper = _TCP.pack(*fields, 0, 0) + options + payload
    check = check_of(version, TCP, upper, partial)
    return _TCP.pack(*fields, check, 0) + options + payload


def udp(version: int, payload: bytes, port: int, partial: bool = False) -> bytes:
    fields = port, 53, 8 + len(payload)
    check = check_of(version, UDP, _UDP.pack(*fields, 0) + payload, partial)
    return _UDP.pack(*fields, check or 0xFFFF) + payload


def check_of(version: int, protocol: int, upper: bytes, partial: bool) -> int:
    pseudo = pseudo_header(version, protocol, len(upper))
    return ~checksum(pseudo) & 0xFFFF if partial else checksum(pseudo + upper)


class Traffic:
    """A few flows in both versions."""

    def __init__(self, seed: int, offloads: bool = True) -> None:
        self.random = random.Random(seed)
        self._offloads = offloads
        self._identification = 0xFFF0
        self._sequence = dict.fromkeys(range(1000, 1003), 0xFFFF0000)

    @staticmethod
    def samples() -> list[bytes]:
        """A packet of each flow."""
        found = []
        for version in (4, 6):
            for port in range(1000, 1003):
                found.append(ip_packet(version, TCP, tcp(version, b"", port, 1)))
                found.append(ip_packet(version, UDP, udp(version, b"", port)))
            found.append(ip_packet(version, ICMP, bytes(8)))
            found.append(ip_packet(version, UDP_LITE, bytes((3, 232, 0, 80, 0, 0, 0, 0))))
        return found

    def frame(self) -> bytes:
        """One that the kernel could hand to us, or at times could not."""
        source = self.random
        version = source.choice((4, 4, 6))
        port = source.randrange(1000, 1003)
        traffic_class = source.choice((0, 0, 0, 2, 0xB8))
        kind = source.randrange(10)
        if kind < 6:
            header, upper, protocol, cut = self._tcp(version, port)
        elif kind < 8:
            header, upper, protocol, cut = self._udp(version, port)
        else:
            protocol = source.choice((ICMP, UDP_LITE, 0, 44, 200))
            upper = bytes((3, 232, 0, 80)) + source.randbytes(source.randrange(600))
            header, cut = VirtioHeader(0, GSO_NONE, 0, 0, 0, 0), 1
        packet = ip_packet(
            version, protocol, upper, traffic_class, self._identification, source.random() < 0.8
        )
        self._identification = self._identification + cut & 0xFFFF
        frame = header.serialize() + packet if self._offloads else packet
        return spoilt(frame, source) if source.random() < 0.15 else frame

    def _tcp(self, version: int, port: int) -> tuple[VirtioHeader, bytes, int, int]:
        source = self.random
        segment = source.choice((256, 300, 536, 1000, 1348, 1348, 1348, 1400))
        size = source.choice((0, 1, source.randrange(3000), source.randrange(60000)))
        if not self._offloads:
            size = min(size, 1400)
        gso = self._offloads and (size > segment or source.random() < 0.1)
        partial = self._offloads and (gso or source.random() < 0.5)
        flags = _ACK | source.choice((0, 0, _PSH, _PSH | _FIN, _ECE, _CWR, _SYN))
        options = source.choice((b"", b"\1\1\x08\x0a" + bytes(8)))
        sequence = self._sequence[port]
        self._sequence[port] = sequence + size
        upper = tcp(
            version, source.randbytes(size), port, sequence, flags, options=options, partial=partial
        )
        kind = GSO_TCPV4 if version == 4 else GSO_TCPV6
        return (
            self._header(version, TCP, 20 + len(options), gso, partial, segment, kind),
            upper,
            TCP,
            max(-(-size // segment), 1) if gso else 1,
        )

    def _udp(self, version: int, port: int) -> tuple[VirtioHeader, bytes, int, int]:
        source = self.random
        segment = source.choice((64, 256, 1200))
        size = source.choice((0, 18, source.randrange(1300), source.randrange(20000)))
        if not self._offloads:
            size = min(size, 1400)
        gso = self._offloads and size > segment
        partial = self._offloads and (gso or source.random() < 0.5)
        upper = udp(version, source.randbytes(size), port, partial)
        return (
            self._header(version, UDP, 8, gso, partial, segment, GSO_UDP_L4),
            upper,
            UDP,
            max(-(-size // segment), 1) if gso else 1,
        )

    def _header(
        self,
        version: int,
        protocol: int,
        length: int,
        gso: bool,
        partial: bool,
        segment: int,
        kind: int,
    ) -> VirtioHeader:
        if not partial:
            return VirtioHeader(0, GSO_NONE, 0, 0, 0, 0)
        offset = 20 if version == 4 else 40
        if kind != GSO_UDP_L4 and self.random.random() < 0.1:
            kind |= GSO_ECN
        return VirtioHeader(
            NEEDS_CSUM,
            kind if gso else GSO_NONE,
            offset + length if gso else 0,
            segment if gso else 0,
            offset,
            _CHECKSUM[protocol],
        )


def spoilt(octets: bytes, source: random.Random) -> bytes:
    """Cut off, made longer, or with a few octets changed, of the headers more often."""
    kind = source.randrange(4)
    if kind == 0:
        return octets[: source.randrange(len(octets) + 1)] or b"\0"
    if kind == 1:
        return octets + source.randbytes(source.randrange(1, 30))
    changed = bytearray(octets)
    for _ in range(source.randrange(1, 4)):
        reach = len(changed) if source.random() < 0.3 else min(len(changed), 80)
        changed[source.randrange(reach)] = source.randrange(256)
    return bytes(changed)
