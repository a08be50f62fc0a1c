"""Inner packets for tests of the datapath, ordinary and not, made without scapy: by thousands."""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import ip_address

from oegw.datapath.userspace.core import virtio
from oegw.datapath.userspace.core.virtio import VirtioHeader
from oegw.packet.checksum import checksum
from oegw.packet.ip import TCP, UDP
from tests.support.datapath_sas import A4, A6, B4, B6

FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = 1, 2, 4, 8, 16, 32, 64, 128
TIMESTAMPS = bytes.fromhex("0101080a0000000100000002")


@dataclass(frozen=True, slots=True)
class Inner:
    """One TCP or UDP packet from A to B; ``whole`` makes it, ``frame`` a super-packet of it."""

    payload: bytes = b"payload"
    version: int = 4
    protocol: int = TCP
    source_port: int = 1000
    destination_port: int = 2000
    sequence: int = 1
    acknowledgement: int = 5
    flags: int = ACK
    window: int = 500
    urgent: int = 0
    options: bytes = TIMESTAMPS
    identification: int = 1
    dont_fragment: bool = True
    ttl: int = 64
    traffic_class: int = 0
    no_checksum: bool = False

    @property
    def headers(self) -> int:
        transport = 20 + len(self.options) if self.protocol == TCP else 8
        return (20 if self.version == 4 else 40) + transport

    def with_(self, **changes: object) -> Inner:
        return replace(self, **changes)  # type: ignore[arg-type]

    def whole(self, partial: bool = False) -> bytes:
        """``partial``: with the sum of the pseudo-header in the checksum's place."""
        ports = self.source_port.to_bytes(2, "big") + self.destination_port.to_bytes(2, "big")
        if self.protocol == TCP:
            place = 16
            segment = (
                ports
                + self.sequence.to_bytes(4, "big")
                + self.acknowledgement.to_bytes(4, "big")
                + bytes((5 + len(self.options) // 4 << 4, self.flags))
                + self.window.to_bytes(2, "big")
                + bytes(2)
                + self.urgent.to_bytes(2, "big")
                + self.options
                + self.payload
            )
        else:
            place = 6
            length = (8 + len(self.payload)).to_bytes(2, "big")
            segment = ports + length + bytes(2) + self.payload
        source, destination = (A4, B4) if self.version == 4 else (A6, B6)
        addresses = ip_address(source).packed + ip_address(destination).packed
        pseudo = addresses + self.protocol.to_bytes(4, "big") + len(segment).to_bytes(4, "big")
        check = ~checksum(pseudo) & 0xFFFF if partial else checksum(pseudo + segment)
        if self.protocol == UDP and not partial:
            check = 0 if self.no_checksum else check or 0xFFFF
        segment = segment[:place] + check.to_bytes(2, "big") + segment[place + 2 :]
        if self.version == 6:
            first = 6 << 28 | self.traffic_class << 20 | 7
            head = first.to_bytes(4, "big") + len(segment).to_bytes(2, "big")
            return head + bytes((self.protocol, self.ttl)) + addresses + segment
        head = (
            bytes((0x45, self.traffic_class))
            + (20 + len(segment)).to_bytes(2, "big")
            + self.identification.to_bytes(2, "big")
            + (b"\x40\0" if self.dont_fragment else bytes(2))
            + bytes((self.ttl, self.protocol))
        )
        check = checksum(head + bytes(2) + addresses)
        return head + check.to_bytes(2, "big") + addresses + segment

    def frame(self, segment: int) -> bytes:
        """A super-packet as the kernel hands it over, to be cut into ``segment`` octets each."""
        offset = 20 if self.version == 4 else 40
        if self.protocol == UDP:
            gso, place = virtio.GSO_UDP_L4, 6
        else:
            gso, place = virtio.GSO_TCPV4 if self.version == 4 else virtio.GSO_TCPV6, 16
            if self.flags & CWR:
                gso |= virtio.GSO_ECN
        header = VirtioHeader(virtio.NEEDS_CSUM, gso, self.headers, segment, offset, place)
        return header.serialize() + self.whole(partial=True)


def single(packet: bytes) -> bytes:
    """The frame of a packet that is whole."""
    return virtio.NONE + packet


def followers(first: Inner, sizes: list[int]) -> list[Inner]:
    """Packets with so many octets of payload that come one after the other, beginning as
    ``first`` does."""
    packets = []
    sequence, identification = first.sequence, first.identification
    for number, size in enumerate(sizes):
        payload = bytes((number * 7 + index) & 0xFF for index in range(size))
        packets.append(
            first.with_(payload=payload, sequence=sequence, identification=identification)
        )
        sequence = sequence + size & 0xFFFFFFFF
        identification = identification + 1 & 0xFFFF
    return packets
