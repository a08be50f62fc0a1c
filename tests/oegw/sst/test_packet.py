"""Whole packets sealed and opened: what changes, and that nothing else does."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6

from oegw.packet.ip import PacketError
from oegw.sst.packet import open_sealed, seal
from oegw.sst.permutation import NotEligible
from oegw.sst.settings import Ipv4Signal
from oegw.sst.signal import Signal
from tests.oegw.sst.test_permutation import keyed
from tests.support.amount import amount
from tests.support.sst_packets import (
    DONT_FRAGMENT,
    MORE_FRAGMENTS,
    RESERVED,
    Made,
    faults,
    fragments,
    ipv4,
    ipv6,
    ones_sum,
    packed,
    pseudo_header,
    random_addresses,
    random_packet,
    tcp,
    transport_checksum,
    udp,
)
from tests.support.sst_packets import TCP as TCP_NUMBER
from tests.support.sst_packets import UDP as UDP_NUMBER

ONE, OTHER = packed("192.0.2.1"), packed("198.51.100.7")
ONE6, OTHER6 = packed("2001:db8:1::1"), packed("2001:db8:2::2")

KEYED = keyed()
FLAG = Signal()
DSCP = Signal(Ipv4Signal.DSCP, dscp=7, restored_dscp=0)


def sealed(packet: bytes, signal: Signal = FLAG) -> bytes:
    return seal(packet, KEYED, signal)


def opened(packet: bytes, signal: Signal = FLAG) -> bytes:
    return open_sealed(packet, KEYED, signal)


def random_packets(seed: int, count: int = 2000) -> list[Made]:
    rng = random.Random(seed)
    return [random_packet(rng) for _ in range(count)]


def word(packet: bytes, place: int) -> int:
    return int.from_bytes(packet[place : place + 2], "big")


def test_sst_1_nothing_but_ports_checksums_flag_and_df_changes() -> None:
    for made in random_packets(1):
        wire = sealed(made.packet)
        assert len(wire) == len(made.packet)
        may_change = {*range(made.offset, made.offset + 4), made.checksum_at, made.checksum_at + 1}
        may_change |= {6, 10, 11} if made.version == 4 else {0, 1}
        for place, (before, after) in enumerate(zip(made.packet, wire, strict=True)):
            assert before == after or place in may_change
        ports = word(wire, made.offset), word(wire, made.offset + 2)
        assert ports == KEYED.seal_ports(
            made.source, made.destination, made.protocol, made.source_port, made.destination_port
        )


def test_sst_2_and_3_packets_with_options_and_extension_headers_open_to_what_they_were() -> None:
    for made in random_packets(23, 4000):
        assert opened(sealed(made.packet)) == made.packet


@pytest.mark.fuzz
@pytest.mark.timeout(600)
def test_sst_3_random_packets_come_back_bit_by_bit() -> None:
    """A million of them, all in them random; exceptions are those of sst.md section 14.

    One in five is made anew; the others have other ports and any checksum, valid or not, in the
    same form, often one of those that ones' complement arithmetic stumbles over.
    """
    rng = random.Random(1_000_000)
    edges = (0x0000, 0x0001, 0xFFFE, 0xFFFF)
    permutations = keyed(1), keyed(2)
    signals = FLAG, Signal(Ipv4Signal.FLAG, dscp=7)
    udp_zero = tcp_ones = 0
    groups = amount(200_000, 20_000)
    for number in range(groups):
        permutation, signal = permutations[number % 2], signals[number // 2 % 2]
        made = random_packet(rng, longest=64)
        wire = seal(made.packet, permutation, signal)
        assert open_sealed(wire, permutation, signal) == made.packet

        octets, where = bytearray(made.packet), made.checksum_at
        for _ in range(4):
            ports = rng.randrange(1, 65536) << 16 | rng.randrange(1, 65536)
            check = rng.choice(edges) if rng.random() < 0.3 else rng.getrandbits(16)
            octets[made.offset : made.offset + 4] = ports.to_bytes(4, "big")
            octets[where : where + 2] = check.to_bytes(2, "big")
            wire = seal(bytes(octets), permutation, signal)
            back = open_sealed(wire, permutation, signal)
            if made.protocol == UDP_NUMBER:
                assert (word(wire, where) == 0) == (check == 0)  # SST-7
                udp_zero += check == 0
            elif check == 0xFFFF:
                assert word(back, where) == 0
                back = back[:where] + b"\xff\xff" + back[where + 2 :]
                tcp_ones += 1
            assert back == octets
    assert udp_zero > groups / 40
    assert tcp_ones > groups / 40


@pytest.mark.parametrize("protocol", [TCP_NUMBER, UDP_NUMBER])
def test_sst_4_ipv4_has_the_flag_on_the_wire_and_not_behind_it(protocol: int) -> None:
    rng = random.Random(4)
    for _ in range(300):
        packet = random_packet(rng, version=4, protocol=protocol, plain=True).packet
        assert IP(packet).flags == "DF"
        assert IP(sealed(packet)).flags == "DF+evil"
        assert IP(opened(sealed(packet))).flags == "DF"


def test_sst_5_ipv6_has_the_code_point_on_the_wire_and_ecn_stays() -> None:
    segment = udp(ONE6, OTHER6, 500, 4500)
    for ecn in range(4):
        packet = ipv6(ONE6, OTHER6, UDP_NUMBER, segment, traffic_class=46 << 2 | ecn)
        assert IPv6(sealed(packet)).tc == 3 << 2 | ecn
        assert IPv6(opened(sealed(packet))).tc == ecn
        restored = Signal(restored_dscp=10)
        assert IPv6(opened(sealed(packet), restored)).tc == 10 << 2 | ecn


@pytest.mark.parametrize("signal", [FLAG, DSCP], ids=["flag", "dscp"])
def test_sst_6_checksums_are_valid_on_the_wire_and_behind_it(signal: Signal) -> None:
    for made in random_packets(6):
        wire = sealed(made.packet, signal)
        assert faults(wire) == []
        assert faults(opened(wire, signal)) == []


def test_sst_6_scapy_computes_the_same_checksums() -> None:
    rng = random.Random(66)
    for _ in range(200):
        made = random_packet(rng, plain=True)
        for octets in (sealed(made.packet), opened(sealed(made.packet))):
            packet = (IP if made.version == 4 else IPv6)(octets)
            layer = packet[TCP if made.protocol == TCP_NUMBER else UDP]
            if layer.chksum == 0:
                continue  # UDP without
            del layer.chksum
            if made.version == 4:
                del packet.chksum
            assert bytes(packet) == octets


def test_sst_6_what_was_corrupt_stays_corrupt() -> None:
    rng = random.Random(666)
    for made in random_packets(666, 500):
        packet = bytearray(made.packet)
        if word(made.packet, made.checksum_at) == 0 and made.protocol == UDP_NUMBER:
            continue
        packet[made.offset + 4] ^= 1 << rng.randrange(8)
        if made.first_fragment:
            continue
        assert faults(bytes(packet))
        assert faults(sealed(bytes(packet)))
        assert faults(opened(sealed(bytes(packet))))


@pytest.mark.parametrize("version", [4, 6])
def test_sst_7_a_udp_checksum_of_zero_stays_zero(version: int) -> None:
    source, destination = (ONE, OTHER) if version == 4 else (ONE6, OTHER6)
    segment = udp(source, destination, 500, 4500, b"x", checksum=False)
    make: Callable[..., bytes] = ipv4 if version == 4 else ipv6
    packet = make(source, destination, UDP_NUMBER, segment)
    at = len(packet) - 3
    assert word(sealed(packet), at) == 0
    assert word(opened(sealed(packet)), at) == 0


@pytest.mark.parametrize("version", [4, 6])
def test_sst_7_a_udp_checksum_never_becomes_zero(version: int) -> None:
    """For each of the 65535 there are, one way or the other: a sealed 0 is written as 0xffff."""
    source, destination = (ONE, OTHER) if version == 4 else (ONE6, OTHER6)
    make: Callable[..., bytes] = ipv4 if version == 4 else ipv6
    packet = bytearray(
        make(source, destination, UDP_NUMBER, udp(source, destination, 500, 4500, b"x"))
    )
    if version == 4:
        packet = bytearray(opened(sealed(bytes(packet))))  # with DF, which does not go again
    ones = 0
    for check in range(1, 0x10000):
        packet[-3:-1] = check.to_bytes(2, "big")
        wire = sealed(bytes(packet))
        assert word(wire, len(wire) - 3) != 0
        ones += word(wire, len(wire) - 3) == 0xFFFF
        assert opened(wire) == packet
    assert ones == 1


def test_sst_8_two_flows_to_one_service_show_nothing_alike() -> None:
    wires = [
        sealed(ipv4(ONE, OTHER, TCP_NUMBER, tcp(ONE, OTHER, port, 22)))[20:24]
        for port in range(40000, 40200)
    ]
    assert len({wire[:2] for wire in wires}) > 190
    assert len({wire[2:] for wire in wires}) > 190


def test_sst_12_the_checksum_is_the_one_that_the_wire_octets_have() -> None:
    """It tells no more than they do; the real one would tell the sum of the real ports."""
    for made in random_packets(12):
        if made.first_fragment:
            continue
        wire = sealed(made.packet)
        segment = bytearray(wire[made.offset :])
        check = word(wire, made.checksum_at)
        if made.protocol == UDP_NUMBER and check == 0:
            continue
        place = made.checksum_at - made.offset
        segment[place : place + 2] = b"\0\0"
        assert check == transport_checksum(
            made.source, made.destination, made.protocol, bytes(segment)
        )


def test_sst_21_df_is_set_on_unfragmented_packets_only() -> None:
    datagram = udp(ONE, OTHER, 500, 4500, bytes(40))
    for field, on_the_wire in (
        (0, RESERVED | DONT_FRAGMENT),
        (DONT_FRAGMENT, RESERVED | DONT_FRAGMENT),
        (MORE_FRAGMENTS, RESERVED | MORE_FRAGMENTS),
        (MORE_FRAGMENTS | DONT_FRAGMENT, RESERVED | MORE_FRAGMENTS | DONT_FRAGMENT),
        (6, RESERVED | 6),
        (6 | MORE_FRAGMENTS, RESERVED | MORE_FRAGMENTS | 6),
    ):
        packet = ipv4(ONE, OTHER, UDP_NUMBER, datagram, field=field)
        wire = sealed(packet)
        assert word(wire, 6) == on_the_wire
        assert word(opened(wire), 6) == on_the_wire & ~RESERVED
        assert ones_sum(wire[:20]) == ones_sum(opened(wire)[:20]) == 0xFFFF


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", [TCP_NUMBER, UDP_NUMBER])
def test_sst_21_fragments_are_sealed_as_the_whole_packet_is(version: int, protocol: int) -> None:
    """Whether they are put together before they are opened, or each is opened by itself."""
    rng = random.Random(21)
    for _ in range(100):
        source, destination = random_addresses(rng, version)
        make: Callable[..., bytes] = tcp if protocol == TCP_NUMBER else udp
        segment = make(source, destination, 40000, 443, rng.randbytes(500))
        packet = (ipv4 if version == 4 else ipv6)(source, destination, protocol, segment)
        header = len(packet) - len(segment)
        pieces = fragments(packet, 8 * rng.randrange(3, 30))
        wires = [sealed(piece) for piece in pieces]
        assert all(FLAG.flagged(wire) for wire in wires)
        inner = header if version == 4 else header + 8
        together = b"".join(wire[inner:] for wire in wires)
        assert together == sealed(packet)[header:]
        assert [opened(wire) for wire in wires] == pieces


def test_sst_21_reassembled_packets_open_without_the_flag() -> None:
    """Defragmentation takes the flag off; that a mark says so is the plane's affair."""
    packet = ipv4(ONE, OTHER, UDP_NUMBER, udp(ONE, OTHER, 500, 4500, bytes(40)))
    wire = sealed(packet)
    stripped = bytearray(wire)
    FLAG.clear(stripped)
    assert opened(bytes(stripped)) == opened(wire)


@pytest.mark.parametrize("signal", [FLAG, DSCP], ids=["flag", "dscp"])
def test_sst_22_ttl_dscp_ecn_options_payload_and_the_tcp_header_are_untouched(
    signal: Signal,
) -> None:
    for made in random_packets(22, 1000):
        wire = sealed(made.packet, signal)
        if made.version == 4:
            assert wire[0] == made.packet[0]
            mask = 0xFF if signal is FLAG else 0x03  # the code point is the flag there
            assert wire[1] & mask == made.packet[1] & mask
            assert wire[2:6] == made.packet[2:6]  # length, identification
            assert word(wire, 6) & 0x3FFF == word(made.packet, 6) & 0x3FFF
            assert wire[8:10] == made.packet[8:10]  # TTL, protocol
            assert wire[12 : made.offset] == made.packet[12 : made.offset]
        else:
            assert wire[0] >> 4 == 6
            assert word(wire, 0) & 0x003F == word(made.packet, 0) & 0x003F  # ECN, flow label
            assert wire[2 : made.offset] == made.packet[2 : made.offset]
        assert (
            wire[made.offset + 4 : made.checksum_at]
            == (made.packet[made.offset + 4 : made.checksum_at])
        )
        assert wire[made.checksum_at + 2 :] == made.packet[made.checksum_at + 2 :]


def test_sst_17_a_native_flag_does_not_come_back() -> None:
    packet = ipv4(ONE, OTHER, UDP_NUMBER, udp(ONE, OTHER, 5, 6), field=RESERVED | DONT_FRAGMENT)
    assert opened(sealed(packet)) == FLAG.cleared(packet)


def test_octets_behind_the_packet_stay() -> None:
    for make, source, destination in ((ipv4, ONE, OTHER), (ipv6, ONE6, OTHER6)):
        packet = make(source, destination, UDP_NUMBER, udp(source, destination, 5, 6))
        assert sealed(packet + b"padding") == sealed(packet) + b"padding"


def test_an_answer_opens_with_the_same_key() -> None:
    """SST-6 of the other direction: what conntrack sees on both sides is one flow."""
    there = sealed(ipv4(ONE, OTHER, TCP_NUMBER, tcp(ONE, OTHER, 40000, 443)))
    back = sealed(ipv4(OTHER, ONE, TCP_NUMBER, tcp(OTHER, ONE, 443, 40000)))
    assert (there[20:22], there[22:24]) == (back[22:24], back[20:22])


def test_another_key_opens_to_other_ports_and_valid_checksums() -> None:
    """There is no integrity in 32 bits: whoever has the wrong key gets a plausible packet."""
    packet = ipv4(ONE, OTHER, TCP_NUMBER, tcp(ONE, OTHER, 40000, 443), field=DONT_FRAGMENT)
    wrong = open_sealed(sealed(packet), keyed(2), FLAG)
    assert wrong[20:24] != packet[20:24]
    assert faults(wrong) == []


def test_the_pseudo_header_is_what_scapy_takes() -> None:
    """The checksums that judge here are themselves judged."""
    for made in random_packets(99, 300):
        if made.first_fragment or made.packet[made.checksum_at : made.checksum_at + 2] == b"\0\0":
            continue
        segment = made.packet[made.offset :]
        pseudo = pseudo_header(made.source, made.destination, made.protocol, len(segment))
        assert ones_sum(pseudo + segment) == 0xFFFF
        if made.version == 6:
            continue
        packet = IP(made.packet)
        layer = packet[TCP if made.protocol == TCP_NUMBER else UDP]
        check = layer.chksum
        del layer.chksum
        assert IP(bytes(packet))[type(layer)].chksum == check


def test_refusals_change_nothing() -> None:
    packet = bytearray(ipv4(ONE, ONE, UDP_NUMBER, udp(ONE, ONE, 5, 6)))
    before = bytes(packet)
    with pytest.raises(NotEligible):
        sealed(bytes(packet))
    with pytest.raises(PacketError):
        sealed(bytes(packet[:27]))
    assert packet == before
