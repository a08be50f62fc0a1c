"""Super-packets become packets."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.packet import Packet, Raw

from oegw.datapath.userspace.core import virtio
from oegw.datapath.userspace.core.cutting import cut
from oegw.datapath.userspace.core.virtio import VirtioHeader
from oegw.packet.ip import UDP as UDP_PROTOCOL
from tests.support.datapath_packets import ACK, CWR, ECE, FIN, PSH, TIMESTAMPS, Inner
from tests.support.datapath_sas import A4, A6, B4, B6


def cut_frame(frame: bytes) -> list[bytes]:
    return cut(frame[: virtio.SIZE], frame[virtio.SIZE :])


def parsed(packet: bytes) -> Packet:
    return IP(packet) if packet[0] >> 4 == 4 else IPv6(packet)


def has_right_checksums(packet: bytes) -> bool:
    """Scapy makes lengths and checksums anew: they must come out the same."""
    anew = parsed(packet)
    layer: Packet | None = anew
    while layer is not None:
        for field in ("chksum", "len", "plen"):
            if field in layer.fields:
                layer.delfieldval(field)
        layer = layer.payload or None
    return bytes(anew) == packet


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("segment", [256, 1001, 1400])
def test_tcp(version: int, segment: int) -> None:
    payload = random.Random(1).randbytes(5000)
    first = Inner(payload, version, sequence=2**32 - 700, identification=0xFFFF)
    packets = cut_frame(first.frame(segment))
    sizes = [len(packet) - first.headers for packet in packets]
    assert sizes == [segment] * (5000 // segment) + [5000 % segment]
    assert b"".join(packet[first.headers :] for packet in packets) == payload
    for number, packet in enumerate(packets):
        assert has_right_checksums(packet)
        shown = parsed(packet)
        assert shown[TCP].seq == (2**32 - 700 + number * segment) % 2**32
        if version == 4:
            assert shown.id == (0xFFFF + number) % 2**16
            assert shown.flags.DF


@pytest.mark.parametrize("version", [4, 6])
def test_udp(version: int) -> None:
    payload = random.Random(1).randbytes(3001)
    packets = cut_frame(Inner(payload, version, UDP_PROTOCOL).frame(1000))
    assert [parsed(packet)[UDP].len for packet in packets] == [1008, 1008, 1008, 9]
    assert b"".join(bytes(parsed(packet)[UDP].payload) for packet in packets) == payload
    assert all(has_right_checksums(packet) for packet in packets)


def test_flags_of_the_first_and_of_the_last() -> None:
    first = Inner(bytes(1000), flags=ACK | ECE | CWR | PSH | FIN)
    flags = [packet[33] for packet in cut_frame(first.frame(300))]
    assert flags == [ACK | ECE | CWR, ACK | ECE, ACK | ECE, ACK | ECE | PSH | FIN]
    # Of one packet that is first and last, all stay.
    assert [packet[33] for packet in cut_frame(first.frame(1000))] == [first.flags]


def test_headers_that_are_not_ordinary_are_cut_as_well() -> None:
    options = IP(src=A4, dst=B4, options=[Raw(b"\1" * 4)]) / TCP(flags="A") / bytes(900)
    header = VirtioHeader(virtio.NEEDS_CSUM, virtio.GSO_TCPV4, 44, 300, 24, 16)
    packets = cut(header.serialize(), bytes(options))
    assert [len(packet) for packet in packets] == [344] * 3
    assert all(has_right_checksums(packet) for packet in packets)
    extended = IPv6(src=A6, dst=B6) / IPv6ExtHdrDestOpt() / TCP(flags="A") / bytes(900)
    header = VirtioHeader(virtio.NEEDS_CSUM, virtio.GSO_TCPV6, 68, 300, 48, 16)
    packets = cut(header.serialize(), bytes(extended))
    assert [len(packet) for packet in packets] == [368] * 3
    assert all(has_right_checksums(packet) for packet in packets)


def test_a_checksum_of_zero() -> None:
    """Payloads are chosen so that the sum is 0xFFFF: UDP must not send 0, which means none."""
    udp = Inner(bytes(4), protocol=UDP_PROTOCOL)
    for packet in (udp, udp.with_(version=6)):
        whole = packet.whole()
        place = packet.headers - 2
        check = int.from_bytes(whole[place : place + 2], "big")
        zero = packet.with_(payload=bytes(2) + check.to_bytes(2, "big"))
        [one] = cut_frame(zero.frame(1400))
        assert one[place : place + 2] == b"\xff\xff"
        header = VirtioHeader(virtio.NEEDS_CSUM, 0, 0, 0, packet.headers - 8, 6).serialize()
        assert cut(header, zero.whole(partial=True)) == [one]


def test_without_segmentation() -> None:
    packet = Inner().whole()
    assert cut(b"", packet) == [packet]
    assert cut(virtio.NONE, packet) == [packet]
    header = VirtioHeader(virtio.NEEDS_CSUM, 0, 52, 0, 20, 16).serialize()
    assert cut(header, Inner().whole(partial=True)) == [packet]


FRAME = Inner(bytes(1000)).frame(300)
HEADER = VirtioHeader.parse(FRAME)
UNFIT: list[tuple[VirtioHeader, bytes]] = [
    (HEADER._replace(flags=0), FRAME[10:]),
    (HEADER._replace(gso=virtio.GSO_TCPV6), FRAME[10:]),
    (HEADER._replace(gso=virtio.GSO_UDP_L4), FRAME[10:]),
    (HEADER._replace(gso=3), FRAME[10:]),
    (HEADER._replace(gso=virtio.GSO_ECN), FRAME[10:]),
    (HEADER._replace(segment=0), FRAME[10:]),
    (HEADER._replace(checksum_start=24), FRAME[10:]),
    (HEADER._replace(checksum_offset=6), FRAME[10:]),
    (HEADER, FRAME[10:-1]),
    (HEADER, FRAME[10:] + b"1"),
    (HEADER, FRAME[10:30]),
    (HEADER, b""),
    (HEADER, Inner(b"").whole()),  # nothing to cut
    (HEADER, bytes(IP(src=A4, dst=B4, flags="MF") / TCP(flags="A") / bytes(900))),
    (VirtioHeader(virtio.NEEDS_CSUM, 0, 0, 0, 20, 16), Inner(options=b"").whole()[:37]),
    (VirtioHeader(virtio.NEEDS_CSUM, 0, 0, 0, 20, 16), bytes(60)),
    (VirtioHeader(virtio.NEEDS_CSUM, 0, 0, 0, 12, 24), Inner().whole()),  # the IP header
    (VirtioHeader(virtio.NEEDS_CSUM, 0, 0, 0, 20, 2), Inner().whole()),  # the ports
    (VirtioHeader(virtio.NEEDS_CSUM, 0, 0, 0, 20, 65535), Inner().whole()),
]


@pytest.mark.parametrize(("header", "packet"), UNFIT)
def test_a_header_that_does_not_fit(header: VirtioHeader, packet: bytes) -> None:
    assert cut(header.serialize(), packet) == []


@given(
    st.binary(min_size=10, max_size=10),
    st.sampled_from([4, 6]),
    st.binary(max_size=200),
    st.integers(0, 255),
    st.integers(0, 250),
)
def test_any_header_and_any_packet(
    header: bytes, version: int, payload: bytes, value: int, place: int
) -> None:
    packet = bytearray(Inner(payload, version, options=TIMESTAMPS).whole())
    packet[place % len(packet)] = value
    packets = cut(header, bytes(packet))
    assert sum(len(each) for each in packets) <= 101 * len(packet)


def test_round_trip_of_the_header() -> None:
    assert VirtioHeader.parse(HEADER.serialize()) == HEADER
    assert len(HEADER.serialize()) == virtio.SIZE
