"""Reads capture files (the classic pcap format) and the headers of the packets in them.

It shares no code with the gateway, on purpose: what the lab proves rests on
this file and on tcpdump alone.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from lablib.errors import LabError

IPAddress = IPv4Address | IPv6Address

MAGIC = {0xA1B2C3D4: 1e-6, 0xA1B23C4D: 1e-9}  # microsecond and nanosecond files
LINKTYPE_ETHERNET, LINKTYPE_RAW = 1, 101  # raw: IP packets, as on a tunnel's device
ETHERTYPES = {0x0800: "ipv4", 0x86DD: "ipv6", 0x0806: "arp"}
ICMP, TCP, UDP, ESP, ICMPV6 = 1, 6, 17, 50, 58
ICMP_ERRORS = frozenset({3, 4, 5, 11, 12})  # those that quote the packet they are about
NEIGHBOUR_DISCOVERY = frozenset({133, 134, 135, 136, 137})
LISTENER_REPORTS = frozenset({130, 131, 132, 143})  # multicast, sent when an address is set


@dataclass(frozen=True, slots=True)
class Packet:
    """One frame of a capture: the outermost addresses and selectors, and all its octets."""

    time: float  # seconds since 1970
    ethertype: str  # ipv4, ipv6, arp, or hexadecimal digits
    frame: bytes
    cut: bool = False  # octets are missing at its end
    source: IPAddress | None = None
    destination: IPAddress | None = None
    protocol: int = -1
    first: int = 0  # source port, or ICMP type
    second: int = 0  # destination port, or ICMP code
    fragment: tuple[int, int] | None = None  # identification and offset, if it is a fragment
    inside: str = ""  # what UDP or ICMP carries for IPsec: ike, udp-esp, keepalive, returned

    @property
    def kind(self) -> str:
        """What it is, in the words of the lab's facts and reports."""
        if self.source is None:
            return self.ethertype
        if self.fragment is not None and self.fragment[1] and self.protocol != ESP:
            return "fragment"
        ports = {self.first, self.second}
        if self.protocol == ESP:
            return "esp"
        if self.inside:
            return self.inside
        if self.protocol in (UDP, TCP) and 53 in ports:
            return "dns"
        if self.protocol == ICMPV6 and self.first in NEIGHBOUR_DISCOVERY:
            return "neighbour discovery"
        if self.protocol == ICMPV6 and self.first in LISTENER_REPORTS:
            return "multicast listener report"
        if (self.protocol, self.first) in ((ICMP, 8), (ICMPV6, 128)):
            return "echo request"
        if (self.protocol, self.first) in ((ICMP, 0), (ICMPV6, 129)):
            return "echo reply"
        names = {ICMP: "icmp", ICMPV6: "icmpv6", TCP: "tcp", UDP: "udp"}
        return names.get(self.protocol, f"protocol {self.protocol}")

    def is_a(self, kind: str, within: str = "") -> bool:
        """Whether it is of this kind.  ``"esp"`` is all ESP, unless ``within`` says in what:
        ``"ip"`` (protocol 50) or ``"udp"`` (RFC 3948)."""
        if kind == "esp":
            return (
                self.kind in {"": ("esp", "udp-esp"), "ip": ("esp",), "udp": ("udp-esp",)}[within]
            )
        return self.kind == kind

    @property
    def spi(self) -> str:
        """The SPI of ESP in eight hexadecimal digits; empty for another packet."""
        if self.kind not in ("esp", "udp-esp"):
            return ""
        at = 14 + ((self.frame[14] & 15) * 4 if self.ethertype == "ipv4" else 40)
        at += 8 if self.kind == "udp-esp" else 0
        return self.frame[at : at + 4].hex()

    def __str__(self) -> str:
        return f"{self.kind} {self.source} -> {self.destination}, {len(self.frame)} octets"


def frames(path: Path) -> Iterator[tuple[float, bytes, bool]]:
    """Times and octets of the frames, and whether octets were left out (the snapshot length).

    A record that is incomplete because the file ends is left out.  Where packets have no Ethernet
    header, they get one, without addresses.  Raises LabError for a file of other frames.
    """
    octets = path.read_bytes()
    if len(octets) < 24:
        raise LabError(f"{path}: no capture file")
    for order in "<>":
        (magic,) = struct.unpack_from(order + "I", octets)
        if magic in MAGIC:
            break
    else:
        raise LabError(f"{path}: no capture file")
    (linktype,) = struct.unpack_from(order + "I", octets, 20)
    if linktype & 0xFFFF not in (LINKTYPE_ETHERNET, LINKTYPE_RAW):
        raise LabError(f"{path}: link type {linktype}, neither Ethernet nor IP")
    bare = linktype & 0xFFFF == LINKTYPE_RAW
    offset = 24
    while offset + 16 <= len(octets):
        seconds, fraction, kept, length = struct.unpack_from(order + "IIII", octets, offset)
        offset += 16
        if offset + kept > len(octets):
            return
        frame = octets[offset : offset + kept]
        if bare:
            frame = bytes(12) + (b"\x86\xdd" if frame[:1] >= b"\x60" else b"\x08\0") + frame
        yield seconds + fraction * MAGIC[magic], frame, kept < length
        offset += kept


def _ipv4(packet: Packet, at: int) -> Packet:
    frame = packet.frame
    header = (frame[at] & 15) * 4
    identification, flags = struct.unpack_from("!HH", frame, at + 4)
    return _transport(
        replace(
            packet,
            source=IPv4Address(frame[at + 12 : at + 16]),
            destination=IPv4Address(frame[at + 16 : at + 20]),
            protocol=frame[at + 9],
            fragment=(identification, (flags & 0x1FFF) * 8) if flags & 0x3FFF else None,
        ),
        at + header,
    )


def _ipv6(packet: Packet, at: int) -> Packet:
    frame = packet.frame
    protocol, offset, fragment = frame[at + 6], at + 40, None
    while protocol in (0, 43, 44, 60):  # hop by hop, routing, fragment, destination options
        if offset + 8 > len(frame):
            break
        size = (frame[offset + 1] + 1) * 8
        if protocol == 44:
            word, identification = struct.unpack_from("!HI", frame, offset + 2)
            fragment = (identification, word & 0xFFF8)
            size = 8
        protocol, offset = frame[offset], offset + size
    return _transport(
        replace(
            packet,
            source=IPv6Address(frame[at + 8 : at + 24]),
            destination=IPv6Address(frame[at + 24 : at + 40]),
            protocol=protocol,
            fragment=fragment,
        ),
        offset,
    )


def _transport(packet: Packet, at: int) -> Packet:
    frame = packet.frame
    if packet.fragment is not None and packet.fragment[1]:
        return packet
    if packet.protocol in (TCP, UDP) and at + 4 <= len(frame):
        first, second = struct.unpack_from("!HH", frame, at)
        inside = _in_udp({first, second}, packet, at) if packet.protocol == UDP else ""
        return replace(packet, first=first, second=second, inside=inside)
    if packet.protocol in (ICMP, ICMPV6) and at + 2 <= len(frame):
        inside = "returned" if _quotes_ipsec(packet, at) else ""
        return replace(packet, first=frame[at], second=frame[at + 1], inside=inside)
    return packet


def _in_udp(ports: set[int], packet: Packet, at: int) -> str:
    """What UDP carries: IKE, ESP or a keepalive (RFC 3948 section 2); empty if none of these.

    A NAT may have changed one of the ports.
    """
    frame = packet.frame
    if 500 in ports and at + 8 + 28 <= len(frame):  # an ISAKMP header, at least
        return "ike"
    if 4500 not in ports or at + 8 > len(frame):
        return ""
    (length,) = struct.unpack_from("!H", frame, at + 4)
    payload = frame[at + 8 : at + length]
    if payload == b"\xff":
        return "keepalive"
    if payload[:4] == bytes(4) and len(payload) >= 4 + 28:
        return "ike"
    return "udp-esp" if len(payload) > 8 and payload[:4] != bytes(4) else ""


def _quotes_ipsec(packet: Packet, at: int) -> bool:
    """Whether it is an ICMP error that returns the beginning of an IKE or ESP packet."""
    frame, quoted = packet.frame, at + 8
    if packet.protocol == ICMP and frame[at] in ICMP_ERRORS and len(frame) >= quoted + 28:
        protocol, ports = frame[quoted + 9], quoted + (frame[quoted] & 15) * 4
    elif packet.protocol == ICMPV6 and frame[at] < 128 and len(frame) >= quoted + 48:
        protocol, ports = frame[quoted + 6], quoted + 40
    else:
        return False
    if protocol == UDP and ports + 4 <= len(frame):
        return bool({500, 4500} & set(struct.unpack_from("!HH", frame, ports)))
    return protocol == ESP


def packets(path: Path) -> list[Packet]:
    """All packets of a capture in the order of the file."""
    result = []
    for time, frame, cut in frames(path):
        if len(frame) < 14:
            continue
        (number,) = struct.unpack_from("!H", frame, 12)
        packet = Packet(time, ETHERTYPES.get(number, f"{number:04x}"), frame, cut)
        if packet.ethertype == "ipv4" and len(frame) >= 34:
            packet = _ipv4(packet, 14)
        elif packet.ethertype == "ipv6" and len(frame) >= 54:
            packet = _ipv6(packet, 14)
        result.append(packet)
    return _name_fragments(result)


def _name_fragments(found: list[Packet]) -> list[Packet]:
    """Give later fragments the ports of the first one of their packet, so that they have a kind."""
    firsts = {
        (p.source, p.destination, p.protocol, p.fragment[0]): p
        for p in found
        if p.fragment is not None and p.fragment[1] == 0
    }
    result = []
    for packet in found:
        if packet.fragment is not None and packet.fragment[1]:
            key = (packet.source, packet.destination, packet.protocol, packet.fragment[0])
            head = firsts.get(key)
            if head is not None:
                packet = replace(
                    packet, first=head.first, second=head.second, inside=head.inside, fragment=None
                )
        result.append(packet)
    return result
