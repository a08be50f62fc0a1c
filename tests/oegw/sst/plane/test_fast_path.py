"""What the kernel makes of packets, against what `oegw.sst.packet` makes of them."""

from __future__ import annotations

import random
import struct

import pytest

from oegw.sst.interface import Reason, Way
from oegw.sst.packet import open_sealed, seal
from oegw.sst.settings import Ipv4Signal
from oegw.sst.signal import Signal
from tests.support.intercept_net import INSIDE, INSIDE6, PEER, PEER6, Net, wait_for
from tests.support.sst_packets import (
    DESTINATION_OPTIONS,
    DONT_FRAGMENT,
    HOP_BY_HOP,
    ROUTING,
    TCP,
    UDP,
    faults,
    ipv4,
    ipv6,
    options_header,
    packed,
    routing_header,
    tcp,
    udp,
)
from tests.support.sst_plane import (
    KEY,
    SIGNAL,
    Link,
    alike,
    deafen,
    invalid,
    off,
    only,
    running,
    settings,
    watch_invalid,
)

pytestmark = pytest.mark.netns

FLOWS = 60
OPTIONS = (
    b"",
    b"\x94\x04\0\0",  # router alert
    b"\x07\x07\x04abcd\x01",  # record route: the forwarding kernel writes into it
    b"\x01\x1e\x06abcd\x01",  # experimental
)


@pytest.fixture
def net():
    with Net() as net:
        deafen(net, net.inside)
        deafen(net, net.outside)
        yield net


def made(rng: random.Random, version: int, mark: int, *, plain: bool = False) -> bytes:
    """A packet of a flow of its own; its last four octets are ``mark``."""
    source, destination = (
        (packed(INSIDE), packed(PEER)) if version == 4 else (packed(INSIDE6), packed(PEER6))
    )
    ports = rng.randrange(1, 65536), rng.randrange(1, 65536)
    payload = rng.randbytes(rng.randrange(300)) + struct.pack("!I", mark)
    protocol = rng.choice((TCP, UDP))
    if protocol == TCP:
        segment = tcp(
            source, destination, *ports, payload,
            sequence=rng.getrandbits(32), flags=0x02, options=b"\x01" * 4 * rng.randrange(11),
        )  # fmt: skip
    else:
        segment = udp(source, destination, *ports, payload, checksum=rng.random() < 0.7)
    if version == 4:
        return ipv4(
            source, destination, protocol, segment,
            options=b"" if plain else rng.choice(OPTIONS),
            field=rng.choice((0, DONT_FRAGMENT)),
            tos=rng.choice((0, 1, 2, 3, 0xB8)),
            identification=rng.getrandbits(16),
        )  # fmt: skip
    headers = []
    if not plain and rng.random() < 0.3:
        headers.append((HOP_BY_HOP, options_header(b"\x1e\x03abc")))
    if not plain and rng.random() < 0.2:
        headers.append((ROUTING, routing_header(4, 0, [destination, rng.randbytes(16)])))
    if not plain and rng.random() < 0.3:
        headers.append((DESTINATION_OPTIONS, options_header(b"\x1e\x03xyz")))
    return ipv6(
        source, destination, protocol, segment,
        headers=tuple(headers), traffic_class=rng.choice((0, 1, 3, 0xB8)),
        flow_label=rng.getrandbits(20),
    )  # fmt: skip


def number(packet: bytes) -> int:
    return struct.unpack("!I", packet[-4:])[0]


def came(capture, address: str, count: int) -> dict[int, bytes]:
    """The packets by their marks."""

    def packets():
        found = {number(p): p for p in capture.to(address) if p[6 if ":" in address else 9] != 58}
        return found if len(found) >= count else None

    return wait_for(packets, 10)


def sent_once(net, link, packets, interface, host, destination):
    capture = net.capture(host, interface)
    try:
        link.put(*packets)
        return came(capture, destination, len(packets))
    finally:
        capture.close()


@pytest.mark.parametrize("version", [4, 6])
def test_the_kernel_seals_as_the_core_does(net, version):
    """SST-1 to SST-7, and that slow and fast path can't be told apart."""
    rng = random.Random(version)
    packets = [made(rng, version, n) for n in range(FLOWS)]
    peer = PEER if version == 4 else PEER6
    way = (net.outside, "out0")
    watch_invalid(net, net.gateway)
    with running(net.gateway, off()):
        link = Link(net, net.inside, "in0", net.gateway)
        plain = sent_once(net, link, packets, way[1], way[0], peer)
    with running(net.gateway, only()) as gate:
        gate.listener.rewrites = True
        slow = sent_once(net, link, packets, way[1], way[0], peer)
        assert gate.counters["sealed_slowly"] == FLOWS
    with running(net.gateway, only()) as gate:
        first = sent_once(net, link, packets, way[1], way[0], peer)
        before = gate.counters
        fast = sent_once(net, link, packets, way[1], way[0], peer)
        after = gate.counters
        by_hand = sum(behind_headers(p) for p in packets)
        assert not gate.listener.faults
        assert after["sealed"] - before["sealed"] == FLOWS - by_hand
        assert after["sealed_slowly"] - before["sealed_slowly"] == by_hand
        assert len(gate.listener.caught) == FLOWS + by_hand
    for n in range(FLOWS):
        wanted = seal(plain[n], KEY, SIGNAL)
        for got in (slow[n], first[n], fast[n]):
            assert alike(got, wanted), f"{wanted.hex(' ')}\n{got.hex(' ')}"
            assert faults(got) == []
            assert SIGNAL.flagged(got)
    assert invalid(net, net.gateway) == 0


def behind_headers(packet: bytes) -> bool:
    """What the rules leave to the entry: routing headers and destination options."""
    if packet[0] >> 4 == 4:
        return False
    return packet[6] in (ROUTING, DESTINATION_OPTIONS) or (
        packet[6] == HOP_BY_HOP and packet[40] in (ROUTING, DESTINATION_OPTIONS)
    )


@pytest.mark.parametrize("version", [4, 6])
def test_the_kernel_opens_as_the_core_does(net, version):
    """SST-3, SST-13: before anybody else has looked at them."""
    rng = random.Random(10 + version)
    host = INSIDE if version == 4 else INSIDE6
    turned = [turned_around(made(rng, version, n), version) for n in range(FLOWS)]
    sealed = [seal(p, KEY, SIGNAL) for p in turned]
    way = ("in0", net.inside, host)
    watch_invalid(net, net.gateway)
    link = Link(net, net.outside, "out0", net.gateway)
    with running(net.gateway, off()) as gate:
        first = sent_once(net, link, sealed, *way)
        fast = sent_once(net, link, sealed, *way)
        assert not gate.listener.faults
        counted = gate.counters
        assert counted["opened"] + counted["opened_slowly"] == 2 * FLOWS
        assert counted["opened"] >= FLOWS - sum(behind_headers(p) for p in sealed)
    with running(net.gateway, off()) as gate:
        gate.listener.rewrites = True
        slow = sent_once(net, link, sealed, *way)
        assert gate.counters["opened_slowly"] == FLOWS
    restored = [open_sealed(p, KEY, SIGNAL) for p in sealed]
    with running(net.gateway, off()):
        wanted = sent_once(net, link, restored, *way)
    for n in range(FLOWS):
        for got in (first[n], fast[n], slow[n]):
            assert alike(got, wanted[n]), f"{wanted[n].hex(' ')}\n{got.hex(' ')}"
            assert not SIGNAL.flagged(got)
    assert invalid(net, net.gateway) == 0


def turned_around(packet: bytes, version: int) -> bytes:
    """From outside to inside; the sums of checksums don't change."""
    changed = bytearray(packet)
    width, at = (4, 12) if version == 4 else (16, 8)
    changed[at : at + 2 * width] = packet[at + width : at + 2 * width] + packet[at : at + width]
    if version == 6:  # the address in the routing header is not looked at any more
        assert changed[at : at + width] == packed(PEER6)
    return bytes(changed)


def test_sst_13_unflagged_packets_pass_bit_identical(net):
    rng = random.Random(3)
    for version, host in ((4, INSIDE), (6, INSIDE6)):
        packets = [turned_around(made(rng, version, n), version) for n in range(FLOWS)]
        link = Link(net, net.outside, "out0", net.gateway)
        plain = sent_once(net, link, packets, "in0", net.inside, host)
        with running(net.gateway, only()) as gate:
            assert sent_once(net, link, packets, "in0", net.inside, host) == plain
            assert gate.listener.caught == []


def test_the_code_point_works_in_ipv4_too(net):
    given = settings(ipv4_signal=Ipv4Signal.DSCP)
    signal = Signal.of(given.sst)
    rng = random.Random(5)
    packets = [made(rng, 4, n, plain=True) for n in range(20)]
    link = Link(net, net.inside, "in0", net.gateway)
    with running(net.gateway, off()):
        plain = sent_once(net, link, packets, "out0", net.outside, PEER)
    with running(net.gateway, only(), given) as gate:
        sent_once(net, link, packets, "out0", net.outside, PEER)
        fast = sent_once(net, link, packets, "out0", net.outside, PEER)
        assert len(gate.listener.caught) == 20
        for n in range(20):
            assert alike(fast[n], seal(plain[n], KEY, signal))
        back = Link(net, net.outside, "out0", net.gateway)
        answers = [seal(turned_around(p, 4), KEY, signal) for p in packets]
        opened = sent_once(net, back, answers, "in0", net.inside, INSIDE)
        assert {opened[n][1] >> 2 for n in opened} == {given.sst.restored_dscp}


def test_a_first_packet_is_rewritten_by_the_kernel_and_handed_up_once(net):
    with running(net.gateway, only()) as gate:
        host, wire = net.udp(net.inside, INSIDE, 4000), net.capture(net.outside, "out0")
        for word in "abc":
            host.send(word, PEER)
            wait_for(lambda: wire.to(PEER))
        [caught] = gate.listener.caught
        assert (caught.way, caught.reason, caught.flagged) == (Way.SEAL, Reason.UNKNOWN_FLOW, False)
        assert len(wait_for(lambda: p if len(p := wire.to(PEER)) == 3 else None)) == 3
        assert all(SIGNAL.flagged(p) for p in wire.to(PEER))
        assert gate.counters["sealed"] == 3
