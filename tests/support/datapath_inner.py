"""Inner packets by the thousand: flows that look like bulk and are not quite, octet by octet."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from ipaddress import ip_address
from random import Random

TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58
FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << bit for bit in range(8))


def total(octets: bytes) -> int:
    """The Internet checksum before its complement (RFC 1071)."""
    return int.from_bytes(octets + bytes(len(octets) % 2), "big") % 0xFFFF


def checksum(octets: bytes) -> int:
    return 0xFFFF - total(octets)


def ipv4(
    source: str,
    destination: str,
    protocol: int,
    payload: bytes,
    *,
    identification: int = 0,
    dont_fragment: bool = True,
    offset: int = 0,
    more: bool = False,
    ttl: int = 64,
    tos: int = 0,
    options: bytes = b"",
) -> bytes:
    fields = bytearray(
        struct.pack(
            "!BBHHHBBH4s4s",
            0x45 + len(options) // 4,
            tos,
            20 + len(options) + len(payload),
            identification & 0xFFFF,
            dont_fragment << 14 | more << 13 | offset,
            ttl,
            protocol,
            0,
            ip_address(source).packed,
            ip_address(destination).packed,
        )
        + options
    )
    struct.pack_into("!H", fields, 10, checksum(bytes(fields)))
    return bytes(fields) + payload


def ipv6(
    source: str, destination: str, header: int, payload: bytes, *, hops: int = 64, tos: int = 0
) -> bytes:
    ends = ip_address(source).packed + ip_address(destination).packed
    return struct.pack("!IHBB", 6 << 28 | tos << 20, len(payload), header, hops) + ends + payload


def _checked(source: str, destination: str, protocol: int, segment: bytes, at: int) -> bytes:
    """With the checksum at ``at``, by the pseudo header of either version."""
    ends = ip_address(source).packed + ip_address(destination).packed
    found = checksum(ends + struct.pack("!HI", protocol, len(segment)) + segment)
    return segment[:at] + struct.pack("!H", found) + segment[at + 2 :]


def tcp(
    source: str,
    destination: str,
    ports: tuple[int, int],
    sequence: int,
    payload: bytes,
    flags: int = ACK,
    *,
    window: int = 1000,
    options: bytes = b"",
) -> bytes:
    head = struct.pack(
        "!HHIIBBHHH", *ports, sequence & 0xFFFFFFFF, 7, (5 + len(options) // 4) << 4, flags,
        window, 0, 0,
    )  # fmt: skip
    return _checked(source, destination, TCP, head + options + payload, 16)


def udp(source: str, destination: str, ports: tuple[int, int], payload: bytes) -> bytes:
    segment = struct.pack("!HHHH", *ports, 8 + len(payload), 0) + payload
    return _checked(source, destination, UDP, segment, 6)


class Flow:
    """One flow of TCP or UDP, mostly like bulk."""

    def __init__(self, source: str, destination: str, port: int, protocol: int, dice: Random):
        self._ends = source, destination
        self._ports = port, 5002
        self._protocol = protocol
        self._dice = dice
        self._sequence = dice.choice((0, 2**32 - 5000, 77))
        self._identification = dice.choice((0, 65530, 300))
        self._version = 4 if "." in source else 6
        self._size = dice.choice((1300, 1000, 512, 511, 257, 64))
        self._options = dice.choice((b"", b"\1\1\x08\x0a" + bytes(8)))
        self._quirk = 0.06

    def next(self) -> bytes:
        dice, quirk = self._dice, self._quirk
        size = self._size
        if dice.random() < quirk:
            size = dice.choice((0, 1, size - 1, size // 2, size + 7))
        payload = dice.randbytes(size)
        if self._protocol == TCP:
            flags = ACK
            if dice.random() < quirk:
                flags |= dice.choice((PSH, PSH | FIN, FIN, ECE, CWR, URG, RST, SYN, PSH | ECE))
            if dice.random() < quirk:
                self._sequence += dice.choice((1, -1, 1000))
            window = 1000 + (dice.random() < quirk)
            segment = tcp(
                *self._ends, self._ports, self._sequence, payload, flags, window=window,
                options=self._options,
            )  # fmt: skip
            self._sequence += len(payload)
        else:
            segment = udp(*self._ends, self._ports, payload)
            if self._version == 4 and dice.random() < quirk:
                segment = segment[:6] + bytes(2) + segment[8:]  # none, as IPv4 allows
        if dice.random() < quirk:  # something else than its checksum says
            at = dice.randrange(len(segment))
            segment = (
                segment[:at] + bytes((segment[at] ^ 1 << dice.randrange(8),)) + segment[at + 1 :]
            )
        tos = dice.choice((0x10, 0x02)) if dice.random() < quirk else 0
        if self._version == 6:
            if dice.random() < quirk:  # an empty option header in between
                segment = bytes((self._protocol, 0, 1, 4, 0, 0, 0, 0)) + segment
                return ipv6(*self._ends, 60, segment)
            hops = 64 - (dice.random() < quirk)
            return ipv6(*self._ends, self._protocol, segment, hops=hops, tos=tos)
        self._identification += 1 if dice.random() > quirk else dice.choice((0, 2, 100))
        fragment = dice.random() < quirk / 2
        return ipv4(
            *self._ends, self._protocol, segment,
            identification=self._identification,
            dont_fragment=not fragment and dice.random() > quirk,
            offset=dice.choice((0, 185)) if fragment else 0,
            more=fragment,
            ttl=64 - (dice.random() < quirk),
            tos=tos,
            options=b"\1\1\1\0" if dice.random() < quirk / 2 else b"",
        )  # fmt: skip


def flows(ends: list[tuple[str, str]], seed: int, count: int) -> Iterator[bytes]:
    """Packets of several flows, one flow for a while and then another."""
    dice = Random(seed)
    lot = [
        Flow(*pair, 6000 + number, protocol, dice)
        for number, pair in enumerate(ends * 2)
        for protocol in (TCP, UDP)
    ]
    left = count
    while left > 0:
        flow = dice.choice(lot)
        turn = min(left, dice.choice((1, 2, 5, 20, 70)))
        for _ in range(turn):
            yield flow.next()
        left -= turn


def rubbish(seed: int, count: int, ends: list[tuple[str, str]]) -> Iterator[bytes]:
    """What no host sends: packets with some octets changed, cut off, or nothing but noise."""
    dice = Random(seed)
    for packet in flows(ends, seed + 1, count):
        kind = dice.random()
        if kind < 0.3:
            yield dice.randbytes(dice.randrange(100))
        elif kind < 0.5:
            yield packet[: dice.randrange(len(packet))]
        else:
            changed = bytearray(packet)
            for _ in range(dice.randint(1, 4)):
                changed[dice.randrange(min(len(changed), 60))] = dice.randrange(256)
            yield bytes(changed)


def as_forwarded(packet: bytes) -> bytes:
    """What a router leaves as it was: all but TTL and header checksum; and the identification of
    a packet that is never to be fragmented, which says nothing (RFC 6864).  A sum of ones'
    complement has two zeros, and a kernel that segments may write TCP's other one."""
    if packet[0] >> 4 == 6:
        return _with_one_zero(packet[:7] + b"\0" + packet[8:], packet[6], 40)
    never = packet[6] & 0x40 and not packet[6] & 0x3F and not packet[7]
    identification = bytes(2) if never else packet[4:6]
    plain = packet[:4] + identification + packet[6:8] + b"\0" + packet[9:10] + bytes(2)
    upper = (packet[0] & 15) * 4 if not packet[6] & 0x1F and not packet[7] else len(packet)
    return _with_one_zero(plain + packet[12:], packet[9], upper)


def _with_one_zero(packet: bytes, protocol: int, upper: int) -> bytes:
    at = upper + 16  # TCP's checksum
    if protocol == 6 and packet[at : at + 2] == b"\xff\xff":
        return packet[:at] + bytes(2) + packet[at + 2 :]
    return packet
