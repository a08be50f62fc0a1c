"""IPv4 and IPv6 packets made octet by octet: options, extension headers, fragments, errors.

Nothing here comes from the gateway's code, so that both can't be wrong in the same way.

    rng = random.Random(7)
    made = random_packet(rng)                       # any eligible packet, and what is in it
    made = random_packet(rng, version=4, protocol=UDP, plain=True)
    pieces = fragments(made.packet, 400)            # IPv4 or IPv6
    error = icmp_error(made.packet, router, 3, 4)   # quotes it, as the router sends it
    assert faults(made.packet) == []                # all checksums recomputed
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass
from ipaddress import ip_address

HOP_BY_HOP, ICMP, TCP, UDP, ROUTING, FRAGMENT, ICMPV6, DESTINATION_OPTIONS = (
    0, 1, 6, 17, 43, 44, 58, 60,
)  # fmt: skip

RESERVED, DONT_FRAGMENT, MORE_FRAGMENTS = 0x8000, 0x4000, 0x2000


@dataclass(frozen=True, slots=True)
class Made:
    """A packet, and where what is in it.  Addresses are packed, ``destination`` is the final."""

    packet: bytes
    version: int
    source: bytes
    destination: bytes
    protocol: int
    offset: int
    source_port: int
    destination_port: int
    first_fragment: bool = False

    @property
    def checksum_at(self) -> int:
        return self.offset + (16 if self.protocol == TCP else 6)


def packed(text: str) -> bytes:
    return ip_address(text).packed


# ----------------------------------------------------------------------- checksums


def ones_sum(octets: bytes) -> int:
    """The ones' complement sum of 16-bit words, one after the other (RFC 1071)."""
    if len(octets) % 2:
        octets += b"\0"
    total = sum(struct.unpack(f"!{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def pseudo_header(source: bytes, destination: bytes, protocol: int, length: int) -> bytes:
    """RFC 9293 section 3.1, RFC 8200 section 8.1."""
    if len(source) == 4:
        return source + destination + struct.pack("!BBH", 0, protocol, length)
    return source + destination + struct.pack("!IBBBB", length, 0, 0, 0, protocol)


def transport_checksum(source: bytes, destination: bytes, protocol: int, segment: bytes) -> int:
    """What belongs into a segment whose own checksum is zero."""
    total = ones_sum(pseudo_header(source, destination, protocol, len(segment)) + segment)
    check = ~total & 0xFFFF
    return 0xFFFF if protocol == UDP and check == 0 else check


def faults(packet: bytes) -> list[str]:
    """Checksums of a whole packet that are wrong; extension headers other than Routing are skipped.

    A UDP checksum of zero is none, and right.
    """
    found = []
    if packet[0] >> 4 == 4:
        header = (packet[0] & 15) * 4
        if ones_sum(packet[:header]) != 0xFFFF:
            found.append("ip")
        source, destination, protocol, offset = packet[12:16], packet[16:20], packet[9], header
        end = struct.unpack_from("!H", packet, 2)[0]
        if struct.unpack_from("!H", packet, 6)[0] & 0x3FFF:
            return found
    else:
        source, destination, protocol, offset = packet[8:24], packet[24:40], packet[6], 40
        end = 40 + struct.unpack_from("!H", packet, 4)[0]
        while protocol in (HOP_BY_HOP, ROUTING, DESTINATION_OPTIONS, FRAGMENT):
            if protocol == FRAGMENT and struct.unpack_from("!H", packet, offset + 2)[0] & 0xFFF9:
                return found
            size = 8 if protocol == FRAGMENT else (packet[offset + 1] + 1) * 8
            if protocol == ROUTING and packet[offset + 3]:
                destination = _last_stop(packet[offset : offset + size], destination)
            protocol, offset = packet[offset], offset + size
    segment = packet[offset:end]
    if protocol == UDP and segment[6:8] == b"\0\0":
        return found
    whole = segment
    if protocol != ICMP:
        whole = pseudo_header(source, destination, protocol, len(segment)) + segment
    if ones_sum(whole) != 0xFFFF:
        found.append({TCP: "tcp", UDP: "udp", ICMP: "icmp", ICMPV6: "icmpv6"}[protocol])
    return found


def _last_stop(header: bytes, destination: bytes) -> bytes:
    """The final destination of the Routing headers that are made here."""
    if header[2] == 4:
        return header[8:24]
    if header[2] == 3:  # made with the same compression of all addresses, and no pad
        kept = 16 - (header[4] & 15)
        return destination[: 16 - kept] + header[-kept:]
    return header[-16:]


# ------------------------------------------------------------------------- headers


def ipv4(
    source: bytes,
    destination: bytes,
    protocol: int,
    payload: bytes,
    *,
    options: bytes = b"",
    field: int = 0,
    tos: int = 0,
    ttl: int = 64,
    identification: int = 0,
) -> bytes:
    """``field``: flags and fragment offset; ``options`` are padded with end-of-options."""
    options += bytes(-len(options) % 4)
    first = 0x45 + len(options) // 4
    length = 20 + len(options) + len(payload)
    before = struct.pack("!BBHHHBB", first, tos, length, identification, field, ttl, protocol)
    check = ~ones_sum(before + source + destination + options) & 0xFFFF
    return before + struct.pack("!H", check) + source + destination + options + payload


def ipv6(
    source: bytes,
    destination: bytes,
    protocol: int,
    payload: bytes,
    *,
    headers: tuple[tuple[int, bytes], ...] = (),
    traffic_class: int = 0,
    flow_label: int = 0,
    hop_limit: int = 64,
) -> bytes:
    """``headers``: number and octets of each extension header, whose first octet is replaced."""
    numbers = [number for number, _ in headers] + [protocol]
    chain = b"".join(
        bytes((following,)) + octets[1:]
        for (_, octets), following in zip(headers, numbers[1:], strict=True)
    )
    first = 6 << 28 | traffic_class << 20 | flow_label
    length = len(chain) + len(payload)
    return (
        struct.pack("!IHBB", first, length, numbers[0], hop_limit)
        + source
        + destination
        + chain
        + payload
    )


def tcp(
    source: bytes,
    destination: bytes,
    source_port: int,
    destination_port: int,
    payload: bytes = b"",
    *,
    sequence: int = 0,
    acknowledgment: int = 0,
    flags: int = 0x10,
    window: int = 1024,
    options: bytes = b"",
) -> bytes:
    """A segment with its checksum; ``options`` have a multiple of 4 octets."""
    offset = (20 + len(options)) // 4 << 4
    segment = struct.pack(
        "!HHIIBBHHH",
        source_port,
        destination_port,
        sequence,
        acknowledgment,
        offset,
        flags,
        window,
        0,
        0,
    )
    segment += options + payload
    check = transport_checksum(source, destination, TCP, segment)
    return segment[:16] + struct.pack("!H", check) + segment[18:]


def udp(
    source: bytes,
    destination: bytes,
    source_port: int,
    destination_port: int,
    payload: bytes = b"",
    *,
    checksum: bool = True,
) -> bytes:
    segment = struct.pack("!HHHH", source_port, destination_port, 8 + len(payload), 0) + payload
    check = transport_checksum(source, destination, UDP, segment) if checksum else 0
    return segment[:6] + struct.pack("!H", check) + segment[8:]


def options_header(*options: bytes) -> bytes:
    """A hop-by-hop or destination options header, padded with PadN or Pad1."""
    octets = b"\0\0" + b"".join(options)
    missing = -len(octets) % 8
    octets += b"\0" if missing == 1 else b""
    octets += bytes((1, missing - 2)) + bytes(missing - 2) if missing > 1 else b""
    return octets[:1] + bytes((len(octets) // 8 - 1,)) + octets[2:]


def routing_header(kind: int, left: int, addresses: list[bytes], kept: int = 16) -> bytes:
    """Type 0, 2, 3 or 4; ``kept``: octets of each address that type 3 carries."""
    if kind == 4:
        body = bytes((len(addresses) - 1, 0, 0, 0)) + b"".join(reversed(addresses))
    elif kind == 3:
        body = bytes(((16 - kept) * 17, 0, 0, 0)) + b"".join(each[-kept:] for each in addresses)
    else:
        body = bytes(4) + b"".join(addresses)
    assert (4 + len(body)) % 8 == 0, "type 3 is made without a pad here"
    return bytes((0, (4 + len(body)) // 8 - 1, kind, left)) + body


# ------------------------------------------------------------------ random packets


def random_packet(
    rng: random.Random,
    *,
    version: int | None = None,
    protocol: int | None = None,
    plain: bool = False,
    longest: int = 200,
) -> Made:
    """An eligible packet without a native flag; ``plain``: no options, extensions, fragments.

    DSCP is random in IPv4 and 0 in IPv6, for there it would not come back; so is DF set in IPv4.
    """
    version = version or rng.choice((4, 6))
    protocol = protocol or rng.choice((TCP, UDP))
    source, destination = random_addresses(rng, version)
    headers: tuple[tuple[int, bytes], ...] = ()
    towards = destination
    if version == 6 and not plain:
        headers, towards = _random_headers(rng, destination)
    ports = random_port(rng), random_port(rng)
    payload = rng.randbytes(rng.randrange(longest + 1))
    if protocol == TCP:
        segment = tcp(
            source,
            destination,
            *ports,
            payload,
            sequence=rng.getrandbits(32),
            acknowledgment=rng.getrandbits(32),
            flags=rng.getrandbits(8),
            window=rng.getrandbits(16),
            options=random_tcp_options(rng),
        )
    else:
        segment = udp(source, destination, *ports, payload, checksum=rng.random() < 0.9)
    first = not plain and rng.random() < 0.15
    if version == 4:
        packet = ipv4(
            source,
            destination,
            protocol,
            segment,
            options=b"" if plain else random_ipv4_options(rng),
            field=MORE_FRAGMENTS | rng.choice((0, DONT_FRAGMENT)) if first else DONT_FRAGMENT,
            tos=rng.getrandbits(8),
            ttl=rng.randrange(1, 256),
            identification=rng.getrandbits(16),
        )
        offset = (packet[0] & 15) * 4
    else:
        if first:
            headers += ((FRAGMENT, struct.pack("!BBHI", 0, 0, 1, rng.getrandbits(32))),)
        packet = ipv6(
            source,
            towards,
            protocol,
            segment,
            headers=headers,
            traffic_class=rng.randrange(4),
            flow_label=rng.getrandbits(20),
            hop_limit=rng.randrange(1, 256),
        )
        offset = 40 + sum(len(octets) for _, octets in headers)
    return Made(packet, version, source, destination, protocol, offset, *ports, first)


def random_addresses(rng: random.Random, version: int) -> tuple[bytes, bytes]:
    """Two different single hosts."""
    if version == 4:
        one = bytes((rng.randrange(1, 224),)) + rng.randbytes(3)
        other = bytes((rng.randrange(1, 224),)) + rng.randbytes(3)
    else:
        one, other = (b"\x20\x01" + rng.randbytes(14) for _ in range(2))
    return (one, other) if one != other else random_addresses(rng, version)


def random_port(rng: random.Random) -> int:
    """Any but 0; often one that somebody watches."""
    if rng.random() < 0.3:
        return rng.choice((1, 22, 25, 53, 80, 123, 443, 500, 4500, 65535))
    return rng.randrange(1, 65536)


def random_ipv4_options(rng: random.Random) -> bytes:
    """None, mostly; no source route."""
    if rng.random() < 0.7:
        return b""
    options = b""
    while len(options) < 28 and rng.random() < 0.7:
        options += rng.choice(
            (
                b"\x01",  # no operation
                b"\x94\x04\0\0",  # router alert
                b"\x07\x07\x04" + rng.randbytes(4),  # record route
                b"\x44\x08\x05\x00" + rng.randbytes(4),  # timestamp
                bytes((rng.choice((30, 94, 158)), 6)) + rng.randbytes(4),  # experimental
            )
        )
    return options


def random_tcp_options(rng: random.Random) -> bytes:
    """Well-formed ones, padded with no-operations."""
    options = b""
    while len(options) < 24 and rng.random() < 0.6:
        options += rng.choice(
            (
                b"\x01",
                b"\x02\x04" + rng.randbytes(2),  # maximum segment size
                b"\x03\x03" + rng.randbytes(1),  # window scale
                b"\x04\x02",  # selective acknowledgment permitted
                b"\x08\x0a" + rng.randbytes(8),  # timestamps
            )
        )
    return options + b"\x01" * (-len(options) % 4)


def _random_headers(
    rng: random.Random, destination: bytes
) -> tuple[tuple[tuple[int, bytes], ...], bytes]:
    """Extension headers in the order of RFC 8200, and where the IPv6 header sends the packet."""
    headers = []
    towards = destination
    if rng.random() < 0.2:
        headers.append((HOP_BY_HOP, options_header(b"\x05\x02\0\0")))
    if rng.random() < 0.2:
        headers.append((DESTINATION_OPTIONS, options_header(b"\x1e\x03" + rng.randbytes(3))))
    if rng.random() < 0.3:
        header, towards = random_routing_header(rng, destination)
        headers.append((ROUTING, header))
    if rng.random() < 0.2:
        size = rng.randrange(12)
        option = bytes((0x3E, size)) + rng.randbytes(size)
        headers.append((DESTINATION_OPTIONS, options_header(b"\0", option)))
    return tuple(headers), towards


def random_routing_header(
    rng: random.Random, destination: bytes, kind: int | None = None
) -> tuple[bytes, bytes]:
    """A Routing header somewhere on the way to ``destination``, and the next stop."""
    kind = rng.choice((0, 2, 3, 4)) if kind is None else kind
    count = 1 if kind == 2 else rng.randrange(1, 5)
    kept = rng.choice((8, 16)) if kind == 3 else 16
    stops = [destination[: 16 - kept] + rng.randbytes(kept) for _ in range(count - 1)]
    stops.append(destination)
    left = rng.randrange(count + 1)
    if left == 0:
        return routing_header(kind, 0, [*stops[:-1], rng.randbytes(16)], kept), destination
    towards = destination[: 16 - kept] + rng.randbytes(kept)
    return routing_header(kind, left, stops, kept), towards


# ---------------------------------------------------------------- fragments, errors


def fragments(packet: bytes, size: int, identification: int = 0x0E0E) -> list[bytes]:
    """``packet`` as fragments with at most ``size`` octets of payload, a multiple of 8.

    IPv6: of a packet without extension headers.  IPv4: flags other than MF are copied.
    """
    assert size % 8 == 0
    if packet[0] >> 4 == 4:
        header = (packet[0] & 15) * 4
        payload = packet[header:]
        flags = struct.unpack_from("!H", packet, 6)[0] & (RESERVED | DONT_FRAGMENT)
        return [
            ipv4(
                packet[12:16],
                packet[16:20],
                packet[9],
                payload[place : place + size],
                options=packet[20:header],
                field=flags | (place + size < len(payload)) << 13 | place // 8,
                tos=packet[1],
                ttl=packet[8],
                identification=identification,
            )
            for place in range(0, len(payload), size)
        ]
    payload = packet[40:]
    first = struct.unpack_from("!I", packet)[0]
    return [
        ipv6(
            packet[8:24],
            packet[24:40],
            packet[6],
            payload[place : place + size],
            headers=(
                (
                    FRAGMENT,
                    struct.pack(
                        "!BBHI", 0, 0, place | (place + size < len(payload)), identification
                    ),
                ),
            ),
            traffic_class=first >> 20 & 0xFF,
            flow_label=first & 0xFFFFF,
            hop_limit=packet[7],
        )
        for place in range(0, len(payload), size)
    ]


def icmp_error(
    packet: bytes,
    router: bytes,
    kind: int,
    code: int = 0,
    *,
    rest: int = 0,
    quoted: int | None = None,
    towards: bytes | None = None,
    extension: bytes = b"",
) -> bytes:
    """The error by which ``router`` tells the source of ``packet``; ``quoted``: octets of it.

    ``rest``: the four octets behind the checksum, as a number.  With ``extension`` the quote is
    padded to 128 octets and has its length in the header (RFC 4884).
    """
    version = packet[0] >> 4
    if towards is None:
        towards = packet[12:16] if version == 4 else packet[8:24]
    quote = packet[: (548 if version == 4 else 1232) if quoted is None else quoted]
    if extension:
        quote = quote[:128] + bytes(128 - len(quote[:128]))
        rest |= 32 << 16 if version == 4 else 16 << 24
    message = struct.pack("!BBHI", kind, code, 0, rest) + quote + extension
    covered = message
    if version == 6:
        covered = pseudo_header(router, towards, ICMPV6, len(message)) + message
    message = message[:2] + struct.pack("!H", ~ones_sum(covered) & 0xFFFF) + message[4:]
    if version == 4:
        return ipv4(router, towards, ICMP, message, tos=0xC0)
    return ipv6(router, towards, ICMPV6, message)
