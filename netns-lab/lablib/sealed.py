"""Reads sealed packets of a capture: flag, checksums, ports, with a key or beside the clear ones.

It shares no code with the gateway, on purpose; see `ff1`.  The section numbers are those of the
draft (draft-unice-dispatch-enc-ports) and of the standards.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address

from lablib.ff1 import Ff1, open_block
from lablib.pcap import ICMP, ICMP_ERRORS, ICMPV6, TCP, UDP, IPAddress, Packet

RESERVED, DONT_FRAGMENT, OFFSET = 0x8000, 0x4000, 0x1FFF
DSCP = 3  # what says in IPv6 that ports are sealed, unless it is configured otherwise
ETHERNET = 14
EXTENSIONS = frozenset({0, 43, 60})  # hop by hop, routing, destination options
FRAGMENT = 44
NAMES = {TCP: "tcp", UDP: "udp"}


@dataclass(frozen=True, slots=True)
class Ported:
    """A TCP or UDP packet, or the beginning of one that an ICMP error quotes."""

    source: IPAddress
    destination: IPAddress
    protocol: int
    source_port: int
    destination_port: int
    flagged: bool
    whole: (
        bool  # all octets are there, and it is no fragment: its transport checksum can be checked
    )
    header: bytes = field(repr=False)  # IP
    transport: bytes = field(repr=False)

    @property
    def pair(self) -> frozenset[IPAddress]:
        return frozenset({self.source, self.destination})

    @property
    def way(self) -> tuple[IPAddress, int, IPAddress, int, int]:
        return (
            *(self.source, self.source_port),
            *(self.destination, self.destination_port, self.protocol),
        )

    @property
    def opening(self) -> bool:
        """Whether it opens a TCP connection: SYN without ACK."""
        return self.protocol == TCP and len(self.transport) > 13 and self.transport[13] & 0x12 == 2

    @property
    def payload(self) -> bytes:
        """What UDP carries."""
        return self.transport[8:] if self.protocol == UDP else b""

    def __str__(self) -> str:
        ends = f"{self.source} {self.source_port} -> {self.destination} {self.destination_port}"
        return f"{NAMES[self.protocol]} {ends}{', flagged' if self.flagged else ''}"


def ported(octets: bytes, dscp: int | None = None) -> Ported | None:
    """The packet that begins there; None for one without ports (other protocol, later fragment).

    ``dscp``: what flags IPv4 as well, in place of the reserved bit.
    """
    if len(octets) >= 20 and octets[0] >> 4 == 4:
        return _ported_v4(octets, dscp)
    if len(octets) >= 40 and octets[0] >> 4 == 6:
        return _ported_v6(octets, DSCP if dscp is None else dscp)
    return None


def _ported_v4(octets: bytes, dscp: int | None) -> Ported | None:
    size, (total,) = (octets[0] & 15) * 4, struct.unpack_from("!H", octets, 2)
    (word,) = struct.unpack_from("!H", octets, 6)
    flagged = bool(word & RESERVED) if dscp is None else octets[1] >> 2 == dscp
    if word & OFFSET or size < 20:
        return None
    whole = len(octets) >= total and not word & 0x2000
    return _made(octets[:size], octets[size:total], octets[9], flagged, whole)


def _ported_v6(octets: bytes, dscp: int) -> Ported | None:
    (first, length) = struct.unpack_from("!IH", octets)
    following, at, whole = octets[6], 40, len(octets) >= 40 + length
    while following in EXTENSIONS or following == FRAGMENT:
        if at + 8 > len(octets):
            return None
        if following == FRAGMENT:
            (word,) = struct.unpack_from("!H", octets, at + 2)
            if word >> 3:
                return None
            whole = whole and not word & 1
        following, at = octets[at], at + (8 if following == FRAGMENT else 8 + 8 * octets[at + 1])
    flagged = first >> 22 & 0x3F == dscp
    return _made(octets[:at], octets[at : 40 + length], following, flagged, whole)


def _made(
    header: bytes, transport: bytes, protocol: int, flagged: bool, whole: bool
) -> Ported | None:
    if protocol not in NAMES or len(transport) < 8:
        return None
    ends = (header[12:16], header[16:20]) if header[0] >> 4 == 4 else (header[8:24], header[24:40])
    source, destination = (ip_address(end) for end in ends)
    return Ported(
        *(source, destination, protocol, *struct.unpack_from("!HH", transport)),
        *(flagged, whole, header, transport),
    )


def ported_packet(packet: Packet, dscp: int | None = None) -> Ported | None:
    """The same for a captured frame."""
    return ported(packet.frame[ETHERNET:], dscp) if packet.source is not None else None


def quoted(packet: Packet, dscp: int | None = None) -> Ported | None:
    """The packet with ports that a captured ICMP error is about, if it is one."""
    octets = packet.frame[ETHERNET:]
    if packet.source is None or len(octets) < 28:
        return None
    at = (octets[0] & 15) * 4 if octets[0] >> 4 == 4 else 40
    if packet.protocol == ICMP and packet.first in ICMP_ERRORS:
        return ported(octets[at + 8 :], dscp)
    if packet.protocol == ICMPV6 and packet.first < 128:
        return ported(octets[at + 8 :], dscp)
    return None


def _sum(octets: bytes) -> int:
    """The ones' complement sum of 16-bit words (RFC 1071); 0xffff if a checksum in it is right."""
    total = sum(struct.unpack(f"!{(len(octets) + 1) // 2}H", octets + bytes(len(octets) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def wrong_checksum(one: Ported) -> str:
    """Which checksum of a packet is wrong; empty if none is, or what there is can't be checked."""
    if one.source.version == 4 and _sum(one.header) != 0xFFFF:
        return "IPv4 header"
    if not one.whole:
        return ""
    if one.protocol == UDP and one.transport[6:8] == b"\0\0":
        return "" if one.source.version == 4 else "UDP: none at all"
    pseudo = one.source.packed + one.destination.packed
    pseudo += struct.pack("!IHBB", len(one.transport), 0, 0, one.protocol)
    return "" if _sum(pseudo + one.transport) == 0xFFFF else NAMES[one.protocol].upper()


def wrong_icmp_checksum(packet: Packet) -> bool:
    """Whether the checksum of an ICMP message is wrong."""
    octets = packet.frame[ETHERNET:]
    if octets[0] >> 4 == 4:
        return _sum(octets[(octets[0] & 15) * 4 : struct.unpack_from("!H", octets, 2)[0]]) != 0xFFFF
    (length,) = struct.unpack_from("!H", octets, 4)
    pseudo = octets[8:40] + struct.pack("!II", length, ICMPV6)
    return _sum(pseudo + octets[40 : 40 + length]) != 0xFFFF


@dataclass(frozen=True, slots=True)
class Candidate:
    """A key that may have sealed; ``name`` says which in the lab's reports."""

    name: str
    algorithm: int
    cipher: Ff1 = field(repr=False)

    def opened(self, one: Ported) -> tuple[int, int]:
        """Source and destination port as they were before sealing (sst.md, section 3)."""
        ends = sorted(
            [
                (one.source.packed, one.source_port),
                (one.destination.packed, one.destination_port),
            ]
        )
        tweak = f"SST{self.algorithm}".encode() + bytes([0, one.source.version, one.protocol])
        tweak += ends[0][0] + ends[1][0]
        block = open_block(self.cipher, tweak, ends[0][1] << 16 | ends[1][1])
        low, high = block >> 16, block & 0xFFFF
        return (low, high) if one.source.packed == ends[0][0] else (high, low)


class Decoder:
    """Opens the flows of a capture with the candidates; remembers each, because it is slow."""

    def __init__(self, candidates: Iterable[Candidate]) -> None:
        self._candidates = tuple(candidates)
        self._known: dict[tuple[str, object], tuple[int, int]] = {}

    def opened(self, one: Ported) -> dict[str, tuple[int, int]]:
        """By the candidates' names, the ports that they open to."""
        result = {}
        for candidate in self._candidates:
            key = candidate.name, one.way
            if key not in self._known:
                self._known[key] = candidate.opened(one)
            result[candidate.name] = self._known[key]
        return result


def likeness(one: Ported) -> bytes:
    """All that sealing leaves as it is; the same for a packet in clear and sealed, on any link.

    Left out: ports, checksums, the flag (IPv4: the reserved bit, and DF, which is set; IPv6: the
    DSCP), and what each router changes (TTL, hop limit).
    """
    header, transport = bytearray(one.header), bytearray(one.transport)
    transport[:4] = bytes(4)
    at = 16 if one.protocol == TCP else 6
    if len(transport) >= at + 2:
        transport[at : at + 2] = bytes(2)
    if one.source.version == 4:
        header[6] &= 0x3F
        header[8] = 0
        header[10:12] = bytes(2)
    else:
        traffic = int.from_bytes(header[:2], "big") & 0xF03F
        header[:2] = traffic.to_bytes(2, "big")
        header[7] = 0
    return bytes(header + transport)
