"""The engines: packets in, actions out; A's and B's."""

from __future__ import annotations

import random
from ipaddress import ip_address
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6PacketTooBig, IPv6, IPv6ExtHdrFragment
from scapy.packet import Packet, Raw

from oegw.datapath.interface import (
    SaExpired,
    SecurityAssociation,
    Selector,
    UdpEncapsulation,
    UnknownSpiReceived,
)
from oegw.datapath.userspace.engine import (
    Deliver,
    DontFragment,
    EngineSettings,
    SendEsp,
    SendIcmp,
)
from oegw.datapath.userspace.esp import OutboundSa
from tests.support.datapath_engines import Engines
from tests.support.datapath_sas import (
    A4,
    A6,
    ALGORITHMS,
    B4,
    B6,
    GATEWAY_A4,
    GATEWAY_B4,
    GATEWAY_B6,
    arriving,
    make_sa,
    selector,
)

SOURCE, DESTINATION = ip_address(GATEWAY_A4).packed, ip_address(GATEWAY_B4).packed
INNER6 = (selector(A6), selector(B6))
NOW = 100.0


class Pair:
    """A sends, B receives."""

    def __init__(
        self,
        *sas: SecurityAssociation,
        path_mtu: int = 1500,
        settings: EngineSettings | None = None,
    ) -> None:
        source = random.Random(1)
        self.a = Engines(settings or EngineSettings(), source.randbytes)
        self.b = Engines(settings or EngineSettings(), source.randbytes)
        for sa in sas:
            self.a.install(sa, NOW)
            self.b.install(arriving(sa), NOW)
            self.a.set_path_mtu(sa.destination, path_mtu, NOW)

    def send(self, packet: Packet | bytes) -> list[Any]:
        return list(self.a.outbound(bytes(packet), NOW))

    def receive(self, send: SendEsp, outer_class: int = 0, **changes: Any) -> list[Any]:
        encapsulated = send.sa.sa.encapsulation is not None
        return list(
            self.b.inbound(
                changes.get("payload", send.payload),
                SOURCE,
                send.sa.sa.destination.packed,
                outer_class,
                changes.get("source_port", 4500 if encapsulated else None),
                NOW,
            )
        )

    def through(self, packet: Packet | bytes, outer_class: int = 0) -> bytes | None:
        [send] = self.send(packet)
        assert isinstance(send, SendEsp)
        for delivered in self.receive(send, outer_class):
            assert isinstance(delivered, Deliver)
            return delivered.packet
        return None


def udp(source: str = A4, destination: str = B4, sport: int = 1, dport: int = 2) -> bytes:
    return bytes(IP(src=source, dst=destination) / UDP(sport=sport, dport=dport) / b"text")


def udp6(source: str = A6, destination: str = B6) -> bytes:
    return bytes(IPv6(src=source, dst=destination) / UDP(sport=1, dport=2) / b"text")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_both_families_through_each_algorithm(algorithm: str) -> None:
    pair = Pair(make_sa(algorithm), make_sa(algorithm, spi=0x1001, inner=INNER6))
    assert pair.through(udp()) == udp()
    assert pair.through(udp6()) == udp6()
    assert pair.b.counters == {"esp_in_packets": 2, "esp_in_octets": len(udp()) + len(udp6())}
    assert [usage.packets for usage in pair.b.usage().values()] == [1, 1]


TCP_TO_80 = (selector(A4, 6), selector(B4, 6, 80))
UDP_FROM_1 = (selector(A4, 17, 1), selector(B4, 17))
NETWORKS = (selector("192.1.0.0/24"), selector("192.2.0.0/16"))
FRAGMENT = bytes(IP(src=A4, dst=B4, frag=10, proto=17) / Raw(b"12345678"))

SELECTED: list[tuple[tuple[Selector, Selector], bytes, bool]] = [
    ((selector(A4), selector(B4)), udp(), True),
    ((selector(A4), selector(B4)), udp(source="192.1.0.66"), False),
    ((selector(A4), selector(B4)), udp(destination="192.2.0.67"), False),
    ((selector(A4), selector(B4)), udp(source=B4, destination=A4), False),
    ((selector(A4), selector(B4)), udp6(), False),
    ((selector(A4), selector(B4)), FRAGMENT, True),
    (UDP_FROM_1, udp(), True),
    (UDP_FROM_1, udp(sport=2), False),
    (UDP_FROM_1, FRAGMENT, False),  # shows no port
    (TCP_TO_80, udp(dport=80), False),
    (TCP_TO_80, bytes(IP(src=A4, dst=B4) / TCP(dport=80)), True),
    (TCP_TO_80, bytes(IP(src=A4, dst=B4) / TCP(dport=81)), False),
    (NETWORKS, udp(source="192.1.0.200", destination="192.2.255.1"), True),
    (NETWORKS, udp(source="192.1.1.200", destination="192.2.255.1"), False),
    (NETWORKS, udp(source="192.1.0.200", destination="192.3.0.1"), False),
    (INNER6, udp6(), True),
    (INNER6, udp6(source="2001:db8:1::66"), False),
    ((selector("::/0"), selector("2001:db8:2::/48")), udp6(), True),
]


@pytest.mark.parametrize(("inner", "packet", "fits"), SELECTED)
def test_selectors_on_both_sides(
    inner: tuple[Selector, Selector], packet: bytes, fits: bool
) -> None:
    pair = Pair(make_sa(inner=inner))
    if fits:
        assert pair.through(packet) == packet
        return
    assert pair.send(packet) == []
    assert pair.a.counters["drop_out_no_tunnel"] == 1
    # A peer that sends it nevertheless (RFC 4301 section 5.2, step 5):
    sa = make_sa(inner=inner)
    payload = OutboundSa(sa, random.randbytes).seal(packet, 4 if packet[0] >> 4 == 4 else 41)
    arrived = pair.b.inbound(payload, SOURCE, DESTINATION, 0, None, NOW)
    assert arrived == []
    assert pair.b.counters == {"drop_in_selectors": 1}


def test_longest_prefix_then_protocol_then_newest_sends() -> None:
    engine = Engines(EngineSettings(), random.randbytes)
    for spi, inner in (
        (0x1000, (selector("0.0.0.0/0"), selector("0.0.0.0/0"))),
        (0x1001, NETWORKS),
        (0x1002, (selector(A4), selector(B4))),
        (0x1003, UDP_FROM_1),
        (0x1004, (selector(A4), selector(B4))),
    ):
        engine.install(make_sa(spi=spi, inner=inner), NOW)

    def spi_of(packet: bytes) -> int:
        send = engine.outbound(packet, NOW)[-1]
        assert isinstance(send, SendEsp)
        return send.sa.key.spi

    assert spi_of(udp()) == 0x1003
    assert spi_of(udp(sport=9)) == 0x1004
    assert spi_of(udp(source="192.1.0.1")) == 0x1001
    assert spi_of(udp(source="10.0.0.1")) == 0x1000
    for spi, next_one in ((0x1004, 0x1002), (0x1002, 0x1001), (0x1001, 0x1000)):
        assert engine.remove(make_sa(spi=spi).key) is not None
        assert spi_of(udp(sport=9)) == next_one


@pytest.mark.parametrize(
    ("changes", "trigger"),
    [
        ({"payload": b""}, "drop_in_truncated"),
        ({"payload": bytes(7)}, "drop_in_truncated"),
        ({"payload": bytes(40)}, "drop_in_unknown_spi"),
        ({"source_port": 4500}, "drop_in_encapsulation"),
        ({"payload": b"\0\0\x10\0" + bytes(40)}, "drop_in_replay"),
        ({"payload": b"\0\0\x10\0\0\0\0\1" + bytes(40)}, "drop_in_invalid"),
    ],
)
def test_inbound_drops(changes: dict[str, Any], trigger: str) -> None:
    pair = Pair(make_sa())
    [send] = pair.send(udp())
    assert pair.receive(send, **changes) == []
    assert pair.b.counters == {trigger: 1}
    assert pair.receive(send) == [Deliver(udp())]
    assert pair.receive(send) == []
    assert pair.b.counters["drop_in_replay"] == (2 if trigger == "drop_in_replay" else 1)


@pytest.mark.parametrize(
    ("next_header", "inner", "trigger"),
    [
        (59, b"anything", "drop_in_dummy"),
        (41, udp(), "drop_in_next_header"),
        (4, udp6(), "drop_in_next_header"),
        (6, udp(), "drop_in_next_header"),
        (4, udp()[:-1], "drop_in_packet_truncated"),
        (4, b"", "drop_in_packet_truncated"),
        (4, b"\x75" + udp()[1:], "drop_in_packet_version"),
    ],
)
def test_inner_packet_must_make_sense(next_header: int, inner: bytes, trigger: str) -> None:
    pair = Pair(make_sa())
    sender = OutboundSa(make_sa(), random.randbytes)
    count = -(len(inner) + 2) % 4
    plain = inner + bytes(range(1, count + 1)) + bytes((count, next_header))
    payload = sender.transform.seal(bytes.fromhex("0000100000000001"), b"", plain)
    assert pair.b.inbound(payload, SOURCE, DESTINATION, 0, None, NOW) == []
    assert pair.b.counters == {trigger: 1}


def test_flow_confidentiality_padding_is_cut_off() -> None:
    pair = Pair(make_sa())
    payload = OutboundSa(make_sa(), random.randbytes).seal(udp() + bytes(100), 4)
    assert pair.b.inbound(payload, SOURCE, DESTINATION, 0, None, NOW) == [Deliver(udp())]


def test_unknown_spi_is_reported_once_a_second_per_peer() -> None:
    engine = Engines(EngineSettings(), random.randbytes)
    for now in (10.0, 10.2, 10.9, 11.1):
        engine.inbound(b"\0\0\x20\0" + bytes(30), SOURCE, DESTINATION, 0, None, now)
    expected = UnknownSpiReceived(ip_address(GATEWAY_A4), ip_address(GATEWAY_B4), 0x2000)
    assert engine.events == [expected, expected]
    for peer in range(1000):
        engine.inbound(
            b"\0\0\x20\0" + bytes(30), peer.to_bytes(4, "big"), DESTINATION, 0, None, 12.5
        )
    assert len(engine.events) <= 102
    assert engine.counters["drop_in_unknown_spi"] == 1004


def test_limits_of_octets() -> None:
    size = len(udp())
    pair = Pair(make_sa(soft_bytes=2 * size, hard_bytes=3 * size))
    key = make_sa().key
    assert pair.through(udp()) == udp()
    assert pair.a.events == []
    assert pair.through(udp()) == udp()
    assert pair.a.events == [SaExpired(key, hard=False)]
    assert pair.through(udp()) == udp()
    for _ in range(2):
        assert pair.send(udp()) == []
    assert pair.a.events == [SaExpired(key, hard=False), SaExpired(key, hard=True)]
    assert pair.a.counters["drop_out_expired"] == 2
    # The receiver keeps its own count, whatever the peer does.
    sender = OutboundSa(make_sa(), random.randbytes)
    sender.sequence = 10
    for _ in range(2):
        assert pair.b.inbound(sender.seal(udp(), 4), SOURCE, DESTINATION, 0, None, NOW) == []
    assert pair.b.counters["drop_in_expired"] == 2
    assert [event.hard for event in pair.b.events if isinstance(event, SaExpired)] == [False, True]


@pytest.mark.parametrize(("extended", "last"), [(False, 2**32 - 1), (True, 2**64 - 1)])
def test_sequence_numbers_never_come_again(extended: bool, last: int) -> None:
    engine = Engines(EngineSettings(), random.randbytes)
    engine.install(make_sa(extended_sequence_numbers=extended), NOW)
    first = engine.outbound(udp(), NOW)[-1]
    assert isinstance(first, SendEsp)
    first.sa.sequence = last - 1
    final = engine.outbound(udp(), NOW)[-1]
    assert isinstance(final, SendEsp)
    assert final.payload[4:8] == b"\xff" * 4
    assert engine.outbound(udp(), NOW) == []
    assert engine.events == [SaExpired(first.sa.key, False), SaExpired(first.sa.key, True)]


def test_extended_numbers_cross_a_subspace() -> None:
    pair = Pair(make_sa("cbc-sha1", extended_sequence_numbers=True))
    [first] = pair.send(udp())
    # As if two thirds of a subspace had passed, twice.
    for sequence in (2**31, 2**32 - 2):
        first.sa.sequence = sequence
        assert pair.through(udp()) == udp()
    sends = [pair.send(udp())[0] for _ in range(4)]
    for send in reversed(sends):
        assert pair.receive(send) == [Deliver(udp())]
        assert pair.receive(send) == []


# Inner, outer, what arrives (None: dropped); RFC 6040, figure 4.
ECN = {
    (0, 0): 0, (0, 1): 0, (0, 2): 0, (0, 3): None,
    (2, 0): 2, (2, 2): 2, (2, 1): 1, (2, 3): 3,
    (1, 0): 1, (1, 2): 1, (1, 1): 1, (1, 3): 3,
    (3, 0): 3, (3, 2): 3, (3, 1): 3, (3, 3): 3,
}  # fmt: skip


@pytest.mark.parametrize(("marks", "arrives"), ECN.items())
def test_congestion_marks(marks: tuple[int, int], arrives: int | None) -> None:
    inner, outer = marks
    pair = Pair(make_sa(), make_sa(spi=0x1001, inner=INNER6))
    dscp = 46 << 2
    four = IP(src=A4, dst=B4, tos=dscp | inner) / UDP()
    six = IPv6(src=A6, dst=B6, tc=dscp | inner, fl=0xABCDE) / UDP()
    for packet, field in ((four, "tos"), (six, "tc")):
        [send] = pair.send(packet)
        assert send.traffic_class == dscp | inner  # normal mode, and DSCP copied outward
        got = pair.receive(send, outer_class=outer)  # outer DSCP was cleared on the way
        if arrives is None:
            assert got == []
            continue
        expected = packet.copy()
        setattr(expected, field, dscp | arrives)
        assert got == [Deliver(bytes(expected))]  # scapy computes the header checksum anew
    if arrives is None:
        assert pair.b.counters == {"drop_in_congestion": 2}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("encapsulated", [False, True])
@pytest.mark.parametrize("path_mtu", [1500, 1400, 1281])
def test_inner_mtu_is_exact(algorithm: str, encapsulated: bool, path_mtu: int) -> None:
    encapsulation = UdpEncapsulation() if encapsulated else None
    pair = Pair(make_sa(algorithm, encapsulation=encapsulation), path_mtu=path_mtu)
    [probe] = pair.send(udp())
    overhead = 20 + (8 if encapsulated else 0)
    mtu = probe.sa.mtu

    def sized(size: int) -> bytes:
        return bytes(IP(src=A4, dst=B4, flags="DF") / UDP() / bytes(size - 28))

    [fits] = pair.send(sized(mtu))
    assert overhead + len(fits.payload) <= path_mtu
    assert fits.dont_fragment
    assert overhead + len(probe.sa.seal(sized(mtu + 1), 4)) > path_mtu
    [icmp] = pair.send(sized(mtu + 1))
    assert isinstance(icmp, SendIcmp)
    assert icmp.destination == ip_address(A4).packed
    message = ICMP(icmp.message)
    assert (message.type, message.code, message.nexthopmtu) == (3, 4, mtu)
    assert bytes(message.payload)[:28] == sized(mtu + 1)[:28]
    checked = message.copy()
    del checked.chksum
    assert ICMP(bytes(checked)).chksum == message.chksum


def test_too_big_for_ipv6_goes_not_below_1280() -> None:
    pair = Pair(make_sa(inner=INNER6), path_mtu=1300)

    def sized(size: int) -> bytes:
        return bytes(IPv6(src=A6, dst=B6) / UDP() / bytes(size - 48))

    [icmp] = pair.send(sized(1281))
    assert isinstance(icmp, SendIcmp)
    assert (icmp.message[0], int.from_bytes(icmp.message[4:8], "big")) == (2, 1280)
    assert ICMPv6PacketTooBig(icmp.message).mtu == 1280
    assert len(icmp.message) + 40 <= 1280
    [send] = pair.send(sized(1280))
    assert not send.dont_fragment
    assert pair.receive(send) == [Deliver(sized(1280))]


@pytest.mark.parametrize(
    ("setting", "inner", "outer"),
    [
        (DontFragment.COPY, "DF", True),
        (DontFragment.COPY, "", False),
        (DontFragment.SET, "", True),
        (DontFragment.CLEAR, "DF", False),
    ],
)
def test_dont_fragment(setting: DontFragment, inner: str, outer: bool) -> None:
    pair = Pair(make_sa(), settings=EngineSettings(dont_fragment=setting))
    [send] = pair.send(IP(src=A4, dst=B4, flags=inner) / UDP())
    assert send.dont_fragment is outer
    [large] = pair.send(IP(src=A4, dst=B4, flags=inner) / UDP() / bytes(1472))
    if setting is DontFragment.COPY and inner:
        assert isinstance(large, SendIcmp)
    else:
        assert not large.dont_fragment


@pytest.mark.parametrize(
    "packet",
    [
        IP(src=A4, dst=B4, flags="DF") / ICMP(type=3) / bytes(1480),
        IP(src=A4, dst=B4, flags="DF", frag=3) / bytes(1480),
        IPv6(src=A6, dst=B6) / IPv6ExtHdrFragment(nh=17, offset=9) / bytes(1450),
    ],
)
def test_no_icmp_about_errors_and_fragments(packet: Packet) -> None:
    pair = Pair(make_sa(), make_sa(spi=0x1001, inner=INNER6))
    assert pair.send(packet) == []
    assert pair.a.counters["icmp_suppressed"] == 1


def test_icmp_is_limited() -> None:
    pair = Pair(make_sa(inner=INNER6))
    packet = IPv6(src=A6, dst=B6) / ICMPv6EchoRequest(data=bytes(1452))
    assert sum(bool(pair.send(packet)) for _ in range(300)) == 100
    assert pair.a.outbound(bytes(packet), NOW + 1)


def test_path_mtu_is_asked_for_again_after_ten_minutes() -> None:
    pair = Pair(make_sa(), path_mtu=1000)
    assert len(pair.a.outbound(udp(), NOW + 599)) == 1
    assert len(pair.a.outbound(udp(), NOW + 601)) == 2
    assert len(pair.a.outbound(udp(), NOW + 602)) == 1


def test_outer_ipv6_costs_more() -> None:
    six = make_sa(spi=0x1001, source="2001:db8:1:1::4", destination=GATEWAY_B6)
    pair = Pair(six)
    [send] = pair.send(udp())
    assert send.sa.mtu == (1500 - 40 - 8 - 8 - 16) // 4 * 4 - 2


@pytest.mark.parametrize("padding", [[], [("NOP", None)], [("WScale", 7), ("NOP", None)]])
@pytest.mark.parametrize(("asked", "granted"), [(1460, None), (8960, None), (1000, 1000)])
def test_mss_is_clamped_both_ways(
    padding: list[tuple[str, int | None]], asked: int, granted: int | None
) -> None:
    options = [*padding, ("MSS", asked), ("NOP", None)]
    for flags in ("S", "SA"):
        four = IP(src=A4, dst=B4) / TCP(flags=flags, options=options) / b"data!"
        six = IPv6(src=A6, dst=B6) / TCP(flags=flags, options=options) / b"data!"
        pair = Pair(make_sa(), make_sa(spi=0x1001, inner=INNER6))
        for packet, header in ((four, 40), (six, 60)):
            [send] = pair.send(packet)
            limit = send.sa.mtu - header
            expected = packet.copy()
            expected[TCP].options = [*padding, ("MSS", granted or limit), ("NOP", None)]
            assert pair.receive(send) == [Deliver(bytes(expected))]
            # And what a peer did not clamp, is on its way in.
            sender = OutboundSa(send.sa.sa, random.randbytes)
            sender.sequence = 100
            sealed = sender.seal(bytes(packet), 4 if header == 40 else 41)
            assert pair.receive(send, payload=sealed) == [Deliver(bytes(expected))]


def test_mss_of_other_packets_stays() -> None:
    pair = Pair(make_sa())
    packet = bytes(IP(src=A4, dst=B4) / TCP(flags="A", options=[("MSS", 1460)]))
    assert pair.through(packet) == packet
    for options in (b"\x02", b"\x02\x00\x05\xb4", b"\x02\x03\x05\x00", b"\x09\x01\x05\xb4"):
        odd = bytes(IP(src=A4, dst=B4) / TCP(flags="S", dataofs=6) / options)
        assert pair.through(odd) == odd


@pytest.mark.fuzz
def test_no_esp_packet_gets_through_changed_nor_raises() -> None:
    source = random.Random(4303)
    pair = Pair(
        make_sa("gcm-128"),
        make_sa("cbc-sha2", spi=0x1001, extended_sequence_numbers=True),
        make_sa("3des-md5", spi=0x1002),
    )
    sealed = []
    for spi in (0x1002, 0x1001, 0x1000):
        sealed += [pair.send(udp())[0].payload for _ in range(20)]
        pair.a.remove(make_sa(spi=spi).key)
    for _ in range(100_000):
        octets = bytearray(source.choice(sealed))
        kind = source.random()
        if kind < 0.7:
            octets[source.randrange(len(octets))] ^= 1 << source.randrange(8)
        elif kind < 0.9:
            del octets[source.randrange(len(octets)) :]
        else:
            octets = octets[:4] + source.randbytes(source.randrange(200))
        assert pair.b.inbound(octets, SOURCE, DESTINATION, 0, None, NOW) == []
    assert "esp_in_packets" not in pair.b.counters
    for payload in sealed:  # and nothing of it moved a window
        assert pair.b.inbound(payload, SOURCE, DESTINATION, 0, None, NOW)


@pytest.mark.fuzz
def test_a_hostile_peer_with_a_valid_sa_only_reaches_its_own_selectors() -> None:
    source = random.Random(5210)
    sa = make_sa(replay_window=64)
    engine = Engines(EngineSettings(), source.randbytes)
    engine.install(arriving(sa), NOW)
    engine.install(make_sa(spi=0x2000), NOW)
    sender = OutboundSa(sa, source.randbytes)
    seeds = [
        udp(),
        FRAGMENT,
        bytes(IP(src=A4, dst=B4) / TCP(flags="S", options=[("MSS", 9000), ("NOP", None)])),
        udp6(),
        bytes(IP(src=A4, dst=B4) / ICMP() / b"x"),
    ]
    delivered = 0
    for _ in range(100_000):
        octets = bytearray(source.choice(seeds))
        for _ in range(source.randrange(4)):
            octets[source.randrange(len(octets))] = source.randrange(256)
        if source.random() < 0.2:
            del octets[source.randrange(len(octets)) :]
        payload = sender.seal(bytes(octets), source.choice((4, 41)))
        actions = engine.inbound(payload, SOURCE, DESTINATION, source.randrange(256), None, NOW)
        for action in actions:
            assert isinstance(action, Deliver)
            assert action.packet[12:20] == udp()[12:20]
            delivered += 1
        engine.outbound(bytes(octets), NOW)  # and from our own side
    assert 10_000 < delivered < 90_000
