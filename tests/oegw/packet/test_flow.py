"""`flow_of`: headers made by scapy, an independent writer, must be read as meant."""

from __future__ import annotations

import random
from ipaddress import ip_address

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.sctp import SCTP
from scapy.packet import Packet, Raw

from oegw.packet.flow import PacketError, flow_of
from policy.flow import Flow

A4, B4 = "192.1.0.65", "192.2.0.66"
A6, B6 = "2001:db8:1::65", "2001:db8:2::66"


def four(
    protocol: int, source: int | None, destination: int | None, fragment: bool = False
) -> Flow:
    return Flow(ip_address(A4), ip_address(B4), protocol, source, destination, fragment)


def six(protocol: int, source: int | None, destination: int | None, fragment: bool = False) -> Flow:
    return Flow(ip_address(A6), ip_address(B6), protocol, source, destination, fragment)


IP4 = IP(src=A4, dst=B4)
IP6 = IPv6(src=A6, dst=B6)
HOP = IPv6ExtHdrHopByHop()
ROUTE = IPv6ExtHdrRouting(addresses=[])
OPTIONS = IPv6ExtHdrDestOpt()

CASES = {
    "udp": (IP4 / UDP(sport=1, dport=2), four(17, 1, 2)),
    "tcp": (IP4 / TCP(sport=65535, dport=80), four(6, 65535, 80)),
    "sctp": (IP4 / SCTP(sport=9, dport=10), four(132, 9, 10)),
    "icmp": (IP4 / ICMP(), four(1, None, None)),
    "unknown protocol": (IP(src=A4, dst=B4, proto=253) / Raw(b""), four(253, None, None)),
    "options": (
        IP(src=A4, dst=B4, options=[IPOption_NOP()] * 40) / UDP(sport=7, dport=8),
        four(17, 7, 8),
    ),
    "first fragment": (IP(src=A4, dst=B4, flags="MF") / UDP(sport=7, dport=8), four(17, 7, 8)),
    "later fragment": (
        IP(src=A4, dst=B4, frag=2, proto=6) / Raw(b"x" * 8),
        four(6, None, None, True),
    ),
    "udp6": (IP6 / UDP(sport=1, dport=2), six(17, 1, 2)),
    "icmp6": (IP6 / ICMPv6EchoRequest(), six(58, None, None)),
    "extension headers": (IP6 / HOP / ROUTE / OPTIONS / TCP(sport=1, dport=2), six(6, 1, 2)),
    "first fragment 6": (
        IP6 / IPv6ExtHdrFragment(m=1, offset=0) / OPTIONS / UDP(sport=3, dport=4),
        six(17, 3, 4),
    ),
    "later fragment 6": (
        IP6 / HOP / IPv6ExtHdrFragment(nh=17, offset=100) / Raw(b"x"),
        six(17, None, None, True),
    ),
    "no next header": (IPv6(src=A6, dst=B6, nh=59), six(59, None, None)),
    "link padding": (IP(src=A4, dst=B4, len=28, proto=17) / Raw(bytes(30)), four(17, 0, 0)),
}


@pytest.mark.parametrize("name", CASES)
def test_flow(name: str) -> None:
    packet, flow = CASES[name]
    assert flow_of(bytes(packet)) == flow
    assert flow_of(memoryview(bytes(packet))) == flow


@pytest.mark.parametrize("name", [name for name in CASES if name != "link padding"])
def test_truncated_at_every_length(name: str) -> None:
    octets = bytes(CASES[name][0])
    for length in range(len(octets)):
        with pytest.raises(PacketError) as error:
            flow_of(octets[:length])
        assert error.value.trigger == "packet_truncated"


REFUSED: dict[str, tuple[Packet | bytes, str]] = {
    "empty": (b"", "packet_truncated"),
    "version": (b"\x55" * 60, "packet_version"),
    "ihl": (b"\x44" + bytes(40), "packet_length"),
    "total length": (IP(src=A4, dst=B4, len=19), "packet_length"),
    "port cut": (IP(src=A4, dst=B4, proto=6) / Raw(b"123"), "packet_truncated"),
    "overlap": (IP(src=A4, dst=B4, frag=1, proto=6) / Raw(b"x" * 8), "packet_overlapping_fragment"),
    "overlap 6": (
        IP6 / IPv6ExtHdrFragment(nh=6, offset=1) / Raw(b"x"),
        "packet_overlapping_fragment",
    ),
    "too many headers": (
        IPv6(
            bytes(
                IP6
                / (HOP / OPTIONS / OPTIONS / OPTIONS)
                / (OPTIONS / OPTIONS / OPTIONS)
                / (OPTIONS / OPTIONS / UDP())
            )
        ),
        "packet_extension_headers",
    ),
    "header beyond the end": (
        IPv6(src=A6, dst=B6, nh=60) / Raw(b"\x11\x02" + bytes(6)),
        "packet_truncated",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    packet, trigger = REFUSED[name]
    with pytest.raises(PacketError) as error:
        flow_of(bytes(packet))
    assert error.value.trigger == trigger


@pytest.mark.fuzz
def test_any_octets_give_a_flow_or_an_error() -> None:
    random_ = random.Random(20240501)
    seeds = [bytes(packet) for packet, _ in CASES.values()]
    read = refused = 0
    for _ in range(100_000):
        octets = bytearray(random_.choice(seeds))
        for _ in range(random_.randrange(1, 6)):
            octets[random_.randrange(len(octets))] = random_.randrange(256)
        if random_.random() < 0.3:
            del octets[random_.randrange(len(octets) + 1) :]
        elif random_.random() < 0.1:
            octets = bytearray(random_.randbytes(random_.randrange(80)))
        try:
            flow = flow_of(bytes(octets))
        except PacketError:
            refused += 1
        else:
            assert flow.source.version == flow.destination.version == octets[0] >> 4
            read += 1
    assert read > 10_000
    assert refused > 10_000
