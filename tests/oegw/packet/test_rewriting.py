"""Checksums, marks and MSS against scapy, which computes each header anew."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.utils import checksum as scapy_checksum

from oegw.packet.checksum import checksum, updated_checksum
from oegw.packet.ecn import DECAPSULATION, decapsulated, traffic_class
from oegw.packet.icmp import may_be_answered
from oegw.packet.ip import layout_of
from oegw.packet.transport import clamp_mss


@given(st.binary(max_size=200))
def test_checksum(octets: bytes) -> None:
    assert checksum(octets) == scapy_checksum(octets)


@given(st.binary(min_size=8, max_size=64), st.integers(0, 6), st.binary(min_size=2, max_size=2))
def test_update_equals_computing_anew(octets: bytes, place: int, new: bytes) -> None:
    place -= place % 2
    changed = octets[:place] + new + octets[place + 2 :]
    update = updated_checksum(checksum(octets), octets[place : place + 2], new)
    # 0 and 0xFFFF are the same number of ones' complement.
    assert update % 0xFFFF == checksum(changed) % 0xFFFF


def test_decapsulation_for_each_header_checksum() -> None:
    for identification in range(0, 65536, 97):
        packet = IP(src="192.1.0.65", dst="192.2.0.66", tos=2, id=identification)
        expected = IP(src="192.1.0.65", dst="192.2.0.66", tos=3, id=identification)
        assert decapsulated(bytes(packet), 3) == bytes(expected)
        assert traffic_class(bytes(expected)) == 3
    assert [row.count(None) for row in DECAPSULATION] == [1, 0, 0, 0]


def test_clamping_for_each_checksum() -> None:
    for sequence in range(0, 2**32, 2**32 // 499):
        packet = IP() / TCP(flags="S", seq=sequence, options=[("NOP", None), ("MSS", 1460)])
        expected = IP() / TCP(flags="S", seq=sequence, options=[("NOP", None), ("MSS", 1360)])
        assert clamp_mss(bytes(packet), 4, 20, 1400) == bytes(expected)


def test_sources_that_are_no_host_get_no_answer() -> None:
    for source in ("0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"):
        packet = bytes(IP(src=source, dst="192.2.0.66") / TCP())
        assert not may_be_answered(packet, layout_of(packet))
    packet = bytes(IP(src="192.1.0.65", dst="192.2.0.66") / TCP())
    assert may_be_answered(packet, layout_of(packet))


def test_clamping_never_breaks_on_garbage() -> None:
    source = random.Random(9293)
    for _ in range(20_000):
        packet = source.randbytes(source.randrange(20, 90))
        clamped = clamp_mss(packet, 4, 20, 1400)
        assert len(clamped) == len(packet)


@pytest.mark.parametrize("mtu", [0, 39, 68, 87])
def test_a_path_that_takes_next_to_nothing_breaks_no_syn(mtu: int) -> None:
    packet = bytes(IP(src="192.1.0.65", dst="192.2.0.66") / TCP(flags="S", options=[("MSS", 1460)]))
    clamped = IP(clamp_mss(packet, 4, 20, mtu))
    assert clamped[TCP].options == [("MSS", 48)]
