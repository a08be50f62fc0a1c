"""Packets become super-packets."""

from __future__ import annotations

import random
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oegw.datapath.userspace.core import virtio
from oegw.datapath.userspace.core.cutting import cut
from oegw.datapath.userspace.core.flows import key_of
from oegw.datapath.userspace.core.interface import JOINED_PACKETS
from oegw.datapath.userspace.core.joining import Joiner
from oegw.packet.checksum import checksum
from oegw.packet.ip import UDP
from tests.support.datapath_packets import (
    ACK,
    CWR,
    ECE,
    FIN,
    PSH,
    RST,
    URG,
    Inner,
    followers,
    single,
)


def joined(*packets: bytes, offloads: bool = True, joins_udp: bool = True) -> list[bytes]:
    joiner = Joiner(offloads, joins_udp)
    for packet in packets:
        joiner.add(packet)
    frames = joiner.frames()
    assert sum(count for _, count in frames) == len(packets)
    return [b"".join(parts) for parts, _ in frames]


def all_of(packets: list[Inner]) -> bytes:
    return b"".join(packet.payload for packet in packets)


def cut_again(frames: list[bytes]) -> list[bytes]:
    return [
        packet for frame in frames for packet in cut(frame[: virtio.SIZE], frame[virtio.SIZE :])
    ]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", [6, 17])
@pytest.mark.parametrize("last", [1, 299, 300])
def test_neighbours_are_joined(version: int, protocol: int, last: int) -> None:
    first = Inner(version=version, protocol=protocol, sequence=2**32 - 500, identification=65535)
    packets = followers(first, [300, 300, 300, last])
    [frame] = joined(*(packet.whole() for packet in packets))
    assert frame == first.with_(payload=all_of(packets)).frame(300)


def test_push_ends_and_reaches_the_super_packet() -> None:
    packets = followers(Inner(), [300] * 4)
    packets[1] = packets[1].with_(flags=ACK | PSH)
    frames = joined(*(packet.whole() for packet in packets))
    assert frames == [
        packets[0].with_(payload=all_of(packets[:2]), flags=ACK | PSH).frame(300),
        packets[2].with_(payload=all_of(packets[2:])).frame(300),
    ]


def test_congestion_echo_stays() -> None:
    packets = followers(Inner(flags=ACK | ECE, traffic_class=3), [300] * 3)
    [frame] = joined(*(packet.whole() for packet in packets))
    assert frame == packets[0].with_(payload=all_of(packets)).frame(300)


TWO = followers(Inner(), [300, 300])
TWO_UDP = followers(Inner(protocol=UDP), [300, 300])
DIFFERENT: list[tuple[Inner, Inner]] = [
    (TWO[0], TWO[1].with_(sequence=302)),
    (TWO[0], TWO[1].with_(sequence=300)),
    (TWO[0], TWO[0]),
    (TWO[1], TWO[0]),
    (TWO[0], TWO[1].with_(payload=bytes(301))),
    (TWO[0], TWO[1].with_(payload=b"")),
    (TWO[0].with_(payload=b""), TWO[1].with_(sequence=1)),
    (TWO[0], TWO[1].with_(source_port=1)),
    (TWO[0], TWO[1].with_(destination_port=1)),
    (TWO[0], TWO[1].with_(acknowledgement=6)),
    (TWO[0], TWO[1].with_(window=501)),
    (TWO[0], TWO[1].with_(urgent=1)),
    (TWO[0], TWO[1].with_(options=bytes.fromhex("0101080a0000000100000003"))),
    (TWO[0], TWO[1].with_(options=b"")),
    (TWO[0], TWO[1].with_(ttl=63)),
    (TWO[0], TWO[1].with_(traffic_class=1)),
    (TWO[0], TWO[1].with_(dont_fragment=False)),
    (TWO[0], TWO[1].with_(identification=3)),
    (TWO[0].with_(dont_fragment=False), TWO[1].with_(dont_fragment=False, identification=1)),
    (TWO[0], TWO[1].with_(version=6)),
    (TWO[0], TWO_UDP[1]),
    (TWO_UDP[0], TWO_UDP[1].with_(source_port=1)),
    (TWO_UDP[0], TWO_UDP[1].with_(no_checksum=True)),
    (TWO_UDP[0].with_(no_checksum=True), TWO_UDP[1].with_(no_checksum=True)),
    (TWO_UDP[0], TWO_UDP[1].with_(payload=bytes(301))),
    (TWO_UDP[0].with_(payload=b""), TWO_UDP[1].with_(payload=b"")),
    *((TWO[0], TWO[1].with_(flags=ACK | flag)) for flag in (CWR, FIN, URG, RST, ECE)),
    *(
        (TWO[0].with_(flags=flags), TWO[1].with_(flags=flags))
        for flags in (ACK | CWR, ACK | FIN, ACK | URG, ACK | RST, 0, PSH)
    ),
    (TWO[0].with_(flags=ACK | PSH), TWO[1]),
]


@pytest.mark.parametrize(("first", "second"), DIFFERENT)
def test_what_is_not_exactly_next_goes_alone(first: Inner, second: Inner) -> None:
    packets = [first.whole(), second.whole()]
    assert joined(*packets) == [single(packet) for packet in packets]


def test_the_identification_may_stay_where_nothing_is_fragmented() -> None:
    packets = [packet.with_(identification=0) for packet in followers(Inner(), [300] * 3)]
    [frame] = joined(*(packet.whole() for packet in packets))
    assert frame == packets[0].with_(payload=all_of(packets)).frame(300)


@pytest.mark.parametrize("place", [10, 36, 60, 351])
@pytest.mark.parametrize("which", [0, 1, 2, 3])
def test_a_corrupted_packet_goes_on_alone_and_as_it_is(place: int, which: int) -> None:
    packets = [packet.whole() for packet in followers(Inner(), [300] * 4)]
    wrong = bytearray(packets[which])
    wrong[place] ^= 0x10
    packets[which] = bytes(wrong)
    frames = joined(*packets)
    assert single(packets[which]) in frames
    assert cut_again(frames) == packets


def test_at_most_so_many_packets() -> None:
    packets = [packet.whole() for packet in followers(Inner(), [100] * (JOINED_PACKETS + 3))]
    frames = joined(*packets)
    assert [len(frame) for frame in frames] == [62 + 100 * JOINED_PACKETS, 62 + 300]
    assert cut_again(frames) == packets


@pytest.mark.parametrize("version", [4, 6])
def test_at_most_so_many_octets(version: int) -> None:
    packets = [packet.whole() for packet in followers(Inner(version=version), [1460] * 50)]
    frames = joined(*packets)
    assert [len(frame) for frame in frames] == [
        virtio.SIZE + Inner(version=version).headers + count * 1460 for count in (44, 6)
    ]
    assert cut_again(frames) == packets


def test_others_go_alone() -> None:
    packets = [packet.whole() for packet in TWO]
    assert joined(*packets, offloads=False) == packets
    datagrams = [packet.whole() for packet in TWO_UDP]
    assert joined(*datagrams, joins_udp=False) == [single(packet) for packet in datagrams]
    icmp = bytearray(Inner(protocol=UDP).whole())
    icmp[9] = 1
    assert joined(bytes(icmp), bytes(icmp)) == [single(bytes(icmp))] * 2


def test_what_was_appended_stands_between() -> None:
    packets = [packet.whole() for packet in followers(Inner(), [300] * 4)]
    joiner = Joiner(True, True)
    for packet in packets[:2]:
        joiner.add(packet)
    joiner.append(b"with care")
    for packet in packets[2:]:
        joiner.add(packet)
    assert [count for _, count in joiner.frames()] == [2, 1, 2]
    assert b"".join(joiner.frames()[1][0]) == single(b"with care")
    joiner.clear()
    assert joiner.frames() == []


FRONT, BEHIND = bytes(16), b"\x01\x02\x02\x04"


def row_of(packets: list[bytes]) -> tuple[memoryview, int]:
    """Packets of the same length as they lie where they were opened, and how far apart."""
    octets = b"".join(FRONT + packet + BEHIND + FRONT for packet in packets)
    return memoryview(bytearray(octets)), len(octets) // len(packets)


def joined_in_rows(packets: list[bytes]) -> list[bytes]:
    joiner = Joiner(True, True)
    for size, alike in groupby(packets, len):
        left = list(alike)
        octets, stride = row_of(left)
        place, count = len(FRONT), len(left)
        while count:
            taken = joiner.extend(octets, place, size, stride, count, BEHIND)
            if not taken:
                joiner.begin(octets[place : place + size])
                taken = 1
            place += taken * stride
            count -= taken
    return [b"".join(parts) for parts, _ in joiner.frames()]


@pytest.mark.parametrize("dont_fragment", [False, True])
@pytest.mark.parametrize("protocol", [6, 17])
@pytest.mark.parametrize("version", [4, 6])
def test_rows_are_joined_as_their_packets_are(
    version: int, protocol: int, dont_fragment: bool
) -> None:
    """Over the ends of all that counts up or down, too."""
    for start in range(0, 0x10000, 0x777):
        first = Inner(
            version=version,
            protocol=protocol,
            sequence=-start % 2**32,
            identification=start,
            dont_fragment=dont_fragment,
        )
        sizes = [start % 1449 + 1] * (start % 150 + 2)
        packets = [packet.whole() for packet in followers(first, sizes)]
        frames = joined_in_rows(packets)
        assert frames == joined(*packets)
        assert cut_again(frames) == packets
        ends = min(JOINED_PACKETS, (0xFFFF - first.headers) // sizes[0])
        assert len(frames) == -(-len(packets) // ends)


@pytest.mark.parametrize("protocol", [6, 17])
@pytest.mark.parametrize("version", [4, 6])
def test_one_that_is_another_ends_a_row(version: int, protocol: int) -> None:
    source = random.Random(3)
    inners = followers(Inner(version=version, protocol=protocol), [300] * 30)
    whole = [packet.whole() for packet in inners]
    for place in range(inners[0].headers + 4):
        which = source.randrange(30)
        wrong = bytearray(whole[which])
        wrong[place] ^= 1 << source.randrange(8)
        packets = [*whole[:which], bytes(wrong), *whole[which + 1 :]]
        assert joined_in_rows(packets) == joined(*packets)
    for changes in ({"flags": ACK | PSH}, {"urgent": 1}, {"no_checksum": True}, {"window": 9}):
        packets = [*whole[:9], inners[9].with_(**changes).whole(), *whole[10:]]
        assert joined_in_rows(packets) == joined(*packets)


def test_a_row_ends_where_another_end_is() -> None:
    whole = [packet.whole() for packet in followers(Inner(), [300] * 9)]
    octets, stride = row_of(whole)
    octets[4 * stride + len(FRONT) + len(whole[0])] ^= 1
    joiner = Joiner(True, True)
    joiner.begin(octets[len(FRONT) :][: len(whole[0])])
    place = len(FRONT) + stride
    assert joiner.extend(octets, place, len(whole[0]), stride, 8, BEHIND) == 3


INNERS = st.builds(
    Inner,
    payload=st.just(b""),
    version=st.sampled_from([4, 6]),
    protocol=st.sampled_from([6, 17]),
    sequence=st.integers(0, 2**32 - 1),
    identification=st.integers(0, 2**16 - 1),
    flags=st.sampled_from([ACK, ACK | PSH, ACK | ECE]),
    dont_fragment=st.booleans(),
    traffic_class=st.integers(0, 255),
)


@given(INNERS, st.binary(min_size=1, max_size=1500), st.integers(24, 400))
def test_what_was_cut_is_joined_again(first: Inner, payload: bytes, segment: int) -> None:
    super_packet = first.with_(payload=payload)
    count = -(-len(payload) // segment)
    packets = cut_again([super_packet.frame(segment)])
    expected = super_packet.frame(segment) if count > 1 else single(super_packet.whole())
    assert joined(*packets) == [expected]


def some_packets(source: random.Random) -> list[bytes]:
    """A stream of two flows in which now and then something is lost, doubled, mixed or wrong."""
    flows = [
        Inner(version=source.choice((4, 6)), protocol=source.choice((6, 6, 17)), source_port=port)
        for port in (1, 2)
    ]
    packets: list[bytes] = []
    for _ in range(source.randrange(1, 5)):
        first = source.choice(flows)
        sizes = [source.choice((100, 100, 100, 60, 0))] * source.randrange(1, 6)
        train = followers(first, [*sizes, source.randrange(120)])
        if source.randrange(3) == 0:
            train[-1] = train[-1].with_(flags=source.randrange(64) & ~2)
        packets += [packet.whole() for packet in train]
    for _ in range(source.randrange(3)):
        place = source.randrange(len(packets))
        action = source.randrange(4)
        if action == 0:
            packets.insert(place, packets[place])
        elif action == 1:
            packets.insert(source.randrange(len(packets)), packets.pop(place))
        elif action == 2:
            changed = bytearray(packets[place])
            changed[source.randrange(len(changed))] ^= 1 << source.randrange(8)
            packets[place] = bytes(changed)
        elif len(packets) > 1:
            del packets[place]
    return [packet for packet in packets if key_of(packet) is not None]


def without_identification(packet: bytes) -> bytes:
    """Where nothing may be fragmented, the identification says nothing (RFC 6864 section 4.1)."""
    if packet[0] >> 4 == 6 or not packet[6] & 0x40 or checksum(packet[:20]):
        return packet
    return packet[:4] + packet[6:10] + packet[12:]


def joined_then_cut(rounds: int) -> None:
    source = random.Random(9)
    together = 0
    for _ in range(rounds):
        packets = some_packets(source)
        frames = joined(*packets)
        assert joined_in_rows(packets) == frames
        together += len(packets) - len(frames)
        cut_packets = cut_again(frames)
        assert [without_identification(packet) for packet in cut_packets] == [
            without_identification(packet) for packet in packets
        ]
    assert together > rounds


def test_what_was_joined_is_cut_again() -> None:
    joined_then_cut(200)


@pytest.mark.fuzz
def test_what_was_joined_is_cut_again_at_length() -> None:
    joined_then_cut(1200)
