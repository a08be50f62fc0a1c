"""The flag: seen, set and cleared, with nothing else touched."""

from __future__ import annotations

import random

import pytest
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6

from oegw.sst.settings import Ipv4Signal, SstSettings
from oegw.sst.signal import Signal
from tests.support.sst_packets import RESERVED, UDP, faults, ipv4, ipv6, packed, udp

ONE, OTHER = packed("192.0.2.1"), packed("198.51.100.7")
ONE6, OTHER6 = packed("2001:db8:1::1"), packed("2001:db8:2::2")

FLAG = Signal()
DSCP = Signal(Ipv4Signal.DSCP, dscp=7, restored_dscp=10)


def four(tos: int = 0, field: int = 0) -> bytes:
    return ipv4(ONE, OTHER, UDP, udp(ONE, OTHER, 1, 2), tos=tos, field=field)


def six(traffic_class: int = 0) -> bytes:
    segment = udp(ONE6, OTHER6, 1, 2)
    return ipv6(ONE6, OTHER6, UDP, segment, traffic_class=traffic_class, flow_label=0xFFFFF)


def flagged(signal: Signal, packet: bytes) -> bytes:
    octets = bytearray(packet)
    signal.flag(octets)
    return bytes(octets)


def test_settings_become_a_signal() -> None:
    settings = SstSettings(ipv4_signal=Ipv4Signal.DSCP, dscp=7, restored_dscp=10)
    assert Signal.of(settings) == DSCP
    assert Signal.of(SstSettings()) == FLAG


def test_sst_4_the_flag_of_ipv4_is_the_reserved_bit() -> None:
    packet = flagged(FLAG, four(tos=0xB9))
    assert IP(packet).flags == "evil"
    assert IP(packet).tos == 0xB9
    assert not faults(packet)
    assert FLAG.flagged(packet)
    assert FLAG.cleared(packet) == four(tos=0xB9)


@pytest.mark.parametrize("ecn", range(4))
def test_sst_5_the_flag_of_ipv6_is_a_code_point_and_ecn_stays(ecn: int) -> None:
    packet = flagged(FLAG, six(traffic_class=0xB8 | ecn))
    assert IPv6(packet).tc == 3 << 2 | ecn
    assert IPv6(packet).fl == 0xFFFFF
    assert FLAG.flagged(packet)
    assert FLAG.cleared(packet) == six(traffic_class=ecn)
    assert DSCP.cleared(flagged(DSCP, packet)) == six(traffic_class=10 << 2 | ecn)


@pytest.mark.parametrize("ecn", range(4))
def test_sst_5_ipv4_may_use_the_code_point_too(ecn: int) -> None:
    packet = flagged(DSCP, four(tos=0xB8 | ecn, field=RESERVED))
    assert IP(packet).tos == 7 << 2 | ecn
    assert IP(packet).flags == "evil"  # is none of ours then
    assert not faults(packet)
    assert DSCP.flagged(packet)
    cleared = DSCP.cleared(packet)
    assert cleared == four(tos=10 << 2 | ecn, field=RESERVED)
    assert not DSCP.flagged(cleared)


def test_every_code_point_is_set_and_read() -> None:
    for dscp in range(1, 64):
        signal = Signal(Ipv4Signal.DSCP, dscp, restored_dscp=0)
        for packet in (four(), six()):
            assert not signal.flagged(packet)
            assert signal.flagged(flagged(signal, packet))
            assert not faults(flagged(signal, packet))
            assert signal.cleared(flagged(signal, packet)) == packet


def test_sst_17_a_native_flag_is_cleared_and_what_has_none_stays_as_it_is() -> None:
    native = four(field=RESERVED)
    assert FLAG.flagged(native)
    assert FLAG.cleared(native) == four()
    assert FLAG.cleared(six(traffic_class=3 << 2 | 1)) == six(traffic_class=1)
    for packet in (four(tos=3 << 2), six(traffic_class=7 << 2)):
        assert FLAG.cleared(packet) is packet


def test_header_checksums_come_back_whatever_they_were() -> None:
    """One that is wrong stays as wrong as it was; 0xffff is the same as 0 (sst.md section 14.1)."""
    rng = random.Random(3)
    for signal in (FLAG, DSCP):
        for check in (0, 1, 0x7FFF, 0x8000, 0xFFFE, *(rng.getrandbits(16) for _ in range(500))):
            packet = bytearray(four(tos=10 << 2))
            packet[10:12] = check.to_bytes(2, "big")
            back = signal.cleared(flagged(signal, bytes(packet)))
            packet[10:12] = (check % 0xFFFF).to_bytes(2, "big")
            assert back == packet


@pytest.mark.parametrize("octets", [b"", b"\x45", b"\x60" * 19, b"\x55" * 40, bytes(40)])
def test_what_is_no_packet_is_not_flagged(octets: bytes) -> None:
    for signal in (FLAG, DSCP):
        assert not signal.flagged(octets)
        assert signal.cleared(octets) is octets
