"""Which packets are ordinary, and what their key is."""

from __future__ import annotations

import random

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.layers.sctp import SCTP
from scapy.packet import Packet, Raw

from oegw.datapath.userspace.core.flows import key_of
from oegw.packet.ip import PacketError, layout_of
from tests.support.datapath_sas import A4, A6, B4, B6

V4 = IP(src=A4, dst=B4)
V6 = IPv6(src=A6, dst=B6)
ADDRESSES4 = bytes.fromhex("c0010041c0020042")
PORTS = bytes.fromhex("000a0014")

ORDINARY: list[tuple[Packet, bytes]] = [
    (V4 / TCP(sport=10, dport=20, flags="A"), b"\4\6" + ADDRESSES4 + PORTS),
    (V4 / TCP(sport=10, dport=20, flags="FRPAUEC", options=[("NOP", None)] * 40), b"\4\6"),
    (V4 / UDP(sport=10, dport=20) / b"text", b"\4\x11" + ADDRESSES4 + PORTS),
    (V4 / ICMP() / b"text", b"\4\1" + ADDRESSES4 + bytes(4)),
    (V4 / SCTP(sport=10, dport=20), b"\4\x84" + ADDRESSES4 + PORTS),
    (IP(src=A4, dst=B4, flags="DF", tos=255, ttl=1) / UDP(), b"\4\x11" + ADDRESSES4),
    (IP(src=A4, dst=B4, proto=255), b"\4\xff" + ADDRESSES4 + bytes(4)),
    (V6 / TCP(sport=10, dport=20, flags="A"), b"\6\6" + bytes(V6)[8:40] + PORTS),
    (V6 / UDP(sport=10, dport=20), b"\6\x11" + bytes(V6)[8:40] + PORTS),
    (V6 / ICMPv6EchoRequest(), b"\6\x3a" + bytes(V6)[8:40] + bytes(4)),
    (IPv6(src=A6, dst=B6, nh=59), b"\6\x3b" + bytes(V6)[8:40] + bytes(4)),
]


@pytest.mark.parametrize(("packet", "key"), ORDINARY)
def test_the_key_of_an_ordinary_packet(packet: Packet, key: bytes) -> None:
    found = key_of(bytes(packet))
    assert found is not None
    assert found.startswith(key)
    assert len(found) == (14 if found[0] == 4 else 38)
    assert key_of(memoryview(bytearray(bytes(packet)))) == found


def changed(packet: Packet, place: int, value: int) -> bytes:
    octets = bytearray(bytes(packet))
    octets[place] = value
    return bytes(octets)


NOT_ORDINARY = [
    b"",
    b"\x45",
    bytes(V4)[:19],
    bytes(V6)[:39],
    bytes(V4 / UDP() / b"text") + b"more",
    bytes(V4 / UDP() / b"text")[:-1],
    bytes(V6 / UDP() / b"text") + b"more",
    bytes(V6 / UDP() / b"text")[:-1],
    bytes(IP(src=A4, dst=B4, options=[Raw(bytes(4))]) / UDP()),
    bytes(IP(src=A4, dst=B4, flags="MF") / UDP() / b"text"),
    bytes(IP(src=A4, dst=B4, flags="evil") / UDP() / b"text"),
    bytes(IP(src=A4, dst=B4, frag=1, proto=255) / b"text"),
    bytes(IP(src=A4, dst=B4, frag=256, proto=255) / b"text"),
    bytes(V4 / TCP(flags="S")),
    bytes(V4 / TCP(flags="SA")),
    bytes(IP(src=A4, dst=B4, proto=6) / Raw(bytes(19))),
    bytes(IP(src=A4, dst=B4, proto=17) / Raw(bytes(7))),
    bytes(IP(src=A4, dst=B4, proto=132) / Raw(bytes(3))),
    changed(V4 / TCP(flags="A"), 32, 0x40),  # data offset 4
    changed(V4 / TCP(flags="A"), 32, 0x60),  # behind the end
    changed(V4 / UDP(), 0, 0x55),
    changed(V4 / UDP(), 0, 0x44),
    bytes(V6 / IPv6ExtHdrDestOpt() / UDP()),
    bytes(V6 / IPv6ExtHdrFragment() / UDP()),
]


@pytest.mark.parametrize("packet", NOT_ORDINARY)
def test_others_have_none(packet: bytes) -> None:
    assert key_of(packet) is None


def hostile(rounds: int) -> None:
    source = random.Random(4)
    seeds = [bytes(packet) for packet, _ in ORDINARY] + [each for each in NOT_ORDINARY if each]
    for _ in range(rounds):
        octets = bytearray(source.choice(seeds))
        for _ in range(source.randrange(3)):
            octets[source.randrange(len(octets))] = source.randrange(256)
        packet = bytes(octets[: source.choice((len(octets), source.randrange(len(octets) + 1)))])
        key = key_of(packet)
        if key is None:
            continue
        # What is ordinary, the engines can read, and they see the same flow.
        version, length, protocol, _, source_port, destination_port, fragment = layout_of(packet)
        assert (key[0], key[1], length, fragment) == (version, protocol, len(packet), False)
        ports = (source_port or 0).to_bytes(2, "big") + (destination_port or 0).to_bytes(2, "big")
        assert key.endswith(ports)


def test_any_octets() -> None:
    hostile(2000)


@pytest.mark.fuzz
def test_any_octets_at_length() -> None:
    hostile(100_000)


def test_what_cannot_be_read_has_none() -> None:
    for packet in NOT_ORDINARY:
        try:
            layout_of(packet)
        except PacketError:
            assert key_of(packet) is None
