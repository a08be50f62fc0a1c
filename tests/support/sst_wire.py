"""Packets with ports, built and read from the RFCs alone: nothing here knows the gateway's code.

What tests of port encryption put on the wire and see there.  The flag is the reserved bit of IPv4
(draft-unice-dispatch-enc-ports section 3 A), and DSCP 3 in IPv6 (3 B).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

IPAddress = IPv4Address | IPv6Address

TCP, UDP, ICMP, ICMP6, FRAGMENT = 6, 17, 1, 58, 44
RESERVED, DONT_FRAGMENT, MORE_FRAGMENTS = 0x8000, 0x4000, 0x2000
DSCP = 3
EXTENSIONS = (0, 43, 60)  # hop-by-hop options, routing, destination options
SYN, ACK = 0x02, 0x10


def ones_sum(octets: bytes) -> int:
    """RFC 1071: 0xffff over what has a right checksum in it."""
    if len(octets) % 2:
        octets += b"\0"
    total = sum(struct.unpack(f"!{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def _pseudo(source: bytes, destination: bytes, protocol: int, length: int) -> bytes:
    if len(source) == 4:
        return source + destination + struct.pack("!BBH", 0, protocol, length)
    return source + destination + struct.pack("!IHBB", length, 0, 0, protocol)


def segment(
    source: IPAddress | str, destination: IPAddress | str, protocol: int, ports: tuple[int, int],
    payload: bytes = b"", *, flags: int = ACK, zero_checksum: bool = False,
) -> bytes:  # fmt: skip
    """A TCP segment or UDP datagram with its checksum."""
    here, there = ip_address(source).packed, ip_address(destination).packed
    if protocol == TCP:
        body = struct.pack("!HHIIBBHHH", *ports, 1000, 2000, 0x50, flags, 512, 0, 0) + payload
        place = 16
    else:
        body = struct.pack("!HHHH", *ports, 8 + len(payload), 0) + payload
        place = 6
    check = ~ones_sum(_pseudo(here, there, protocol, len(body)) + body) & 0xFFFF
    if protocol == UDP:
        check = 0 if zero_checksum else check or 0xFFFF
    return body[:place] + struct.pack("!H", check) + body[place + 2 :]


def around(
    body: bytes, source: IPAddress | str, destination: IPAddress | str, protocol: int,
    *, flagged: bool = False, dont_fragment: bool = True, dscp: int = 0, ecn: int = 0,
    ttl: int = 64, options: bytes = b"", extensions: tuple[tuple[int, bytes], ...] = (),
    offset: int = 0, more: bool = False, identification: int = 7,
) -> bytes:  # fmt: skip
    """``body`` in an IP packet.  ``offset``: in octets, of a fragment.

    ``extensions``: (kind, all octets behind the two of kind and length, 6 modulo 8).
    """
    here, there = ip_address(source), ip_address(destination)
    if isinstance(here, IPv4Address):
        word = offset // 8 | MORE_FRAGMENTS * more | DONT_FRAGMENT * dont_fragment
        word |= RESERVED * flagged
        head = struct.pack(
            "!BBHHHBBH", 0x45 + len(options) // 4, dscp << 2 | ecn, 20 + len(options) + len(body),
            identification, word, ttl, protocol, 0,
        ) + here.packed + there.packed + options  # fmt: skip
        check = ~ones_sum(head) & 0xFFFF
        return head[:10] + struct.pack("!H", check) + head[12:] + body
    chain = list(extensions)
    if offset or more:
        chain.append((FRAGMENT, struct.pack("!HI", offset | more, identification)))
    kinds = [kind for kind, _ in chain] + [protocol]
    inner = b""
    for place, (kind, rest) in enumerate(chain):
        length = 0 if kind == FRAGMENT else (len(rest) + 2) // 8 - 1
        inner += bytes((kinds[place + 1], length)) + rest
    inner += body
    word = 6 << 28 | ((DSCP if flagged else dscp) << 2 | ecn) << 20
    return (
        struct.pack("!IHBB", word, len(inner), kinds[0], ttl) + here.packed + there.packed + inner
    )


def build(
    source: IPAddress | str, destination: IPAddress | str, protocol: int, source_port: int,
    destination_port: int, payload: bytes = b"", *, flags: int = ACK, flagged: bool = False,
) -> bytes:  # fmt: skip
    """A whole packet of a flow."""
    body = segment(
        source, destination, protocol, (source_port, destination_port), payload, flags=flags
    )
    return around(body, source, destination, protocol, flagged=flagged)


@dataclass(frozen=True)
class Seen:
    """``ports``: source and destination, None where there are none to see (ICMP, later fragments,
    cut off).  ``right``: whether all checksums that can be checked are."""

    source: IPAddress
    destination: IPAddress
    protocol: int
    flagged: bool
    ports: tuple[int, int] | None
    right: bool
    body: bytes
    dont_fragment: bool = False
    fragment: bool = False

    @property
    def payload(self) -> bytes:
        return self.body[20:] if self.protocol == TCP else self.body[8:]


def look(packet: bytes, *, quoted: bool = False) -> Seen:
    """``quoted``: cut short inside an ICMP error: lengths and transport checksums don't hold."""
    if packet[0] >> 4 == 4:
        head = (packet[0] & 15) * 4
        word = int.from_bytes(packet[6:8])
        source, destination = packet[12:16], packet[16:20]
        protocol, body = packet[9], packet[head : int.from_bytes(packet[2:4])]
        right = ones_sum(packet[:head]) == 0xFFFF
        flagged, offset, more = bool(word & RESERVED), word & 0x1FFF, bool(word & MORE_FRAGMENTS)
        whole = bool(word & DONT_FRAGMENT)
    else:
        source, destination = packet[8:24], packet[24:40]
        flagged, protocol = (packet[0] & 15) << 2 | packet[1] >> 6 == DSCP, packet[6]
        body, offset, more, right = packet[40:], 0, False, True
        whole = True  # no router fragments it (RFC 8200 section 5)
        while protocol in (*EXTENSIONS, FRAGMENT) and len(body) >= 8:
            length = 8 if protocol == FRAGMENT else 8 + 8 * body[1]
            if protocol == FRAGMENT:
                offset, more = int.from_bytes(body[2:4]) & 0xFFF8, bool(body[3] & 1)
            elif protocol == 43 and body[2] == 2 and body[3]:  # mobile IPv6: one address to go
                destination = body[8:24]
            protocol, body = body[0], body[length:]
    ports = None
    if protocol in (TCP, UDP) and not offset and len(body) >= 4:
        ports = int.from_bytes(body[:2]), int.from_bytes(body[2:4])
    if not quoted and not offset and not more:
        pseudo = _pseudo(source, destination, protocol, len(body))
        if protocol == TCP or (protocol == UDP and len(body) >= 8 and body[6:8] != b"\0\0"):
            right = right and ones_sum(pseudo + body) == 0xFFFF
        elif protocol == ICMP:
            right = right and ones_sum(body) == 0xFFFF
        elif protocol == ICMP6:
            right = right and ones_sum(pseudo + body) == 0xFFFF
    return Seen(
        ip_address(source), ip_address(destination), protocol, flagged, ports, right, body,
        whole, bool(offset or more),
    )  # fmt: skip


UNREACHABLE = {4: (3, 3), 6: (1, 4)}  # the port, RFC 792 and RFC 4443 section 3.1
TOO_BIG = {4: (3, 4), 6: (2, 0)}
TIME_EXCEEDED = {4: (11, 0), 6: (3, 0)}


def icmp_error(
    about: bytes, source: IPAddress | str, kinds: dict[int, tuple[int, int]] = UNREACHABLE,
    *, to: IPAddress | str | None = None, quote: int = 512,
) -> bytes:  # fmt: skip
    """What ``source`` says about a packet, to its sender (RFC 792; RFC 4443)."""
    version = about[0] >> 4
    kind, code = kinds[version]
    destination = look(about, quoted=True).source if to is None else ip_address(to)
    body = struct.pack("!BBHI", kind, code, 0, 1400 if (kind, code) == TOO_BIG[version] else 0)
    body += about[:quote]
    here = ip_address(source)
    if version == 4:
        check = ~ones_sum(body) & 0xFFFF
    else:
        pseudo = _pseudo(here.packed, destination.packed, ICMP6, len(body))
        check = ~ones_sum(pseudo + body) & 0xFFFF
    body = body[:2] + struct.pack("!H", check) + body[4:]
    return around(body, here, destination, ICMP if version == 4 else ICMP6, dont_fragment=False)


def quote_of(error: bytes) -> bytes:
    """The packet that an ICMP error is about."""
    return look(error).body[8:]
