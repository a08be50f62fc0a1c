"""Every sealing core: what it does by itself, what it hands back, and in which runs."""

from __future__ import annotations

import random
from typing import Any

import pytest

from oegw.datapath.userspace.core import virtio
from oegw.datapath.userspace.core.choice import CoreChoice
from oegw.datapath.userspace.core.cutting import cut
from oegw.datapath.userspace.core.flows import key_of
from oegw.datapath.userspace.core.interface import (
    BATCH_FRAMES,
    BATCH_OCTETS,
    RUN_OCTETS,
    RUN_PACKETS,
    SMALLEST_SEGMENT,
)
from oegw.datapath.userspace.core.virtio import VirtioHeader
from oegw.datapath.userspace.esp import InboundSa, OutboundSa
from oegw.packet.ip import UDP
from tests.support.datapath_cores import NOW, outbound, packets_of, sealing
from tests.support.datapath_packets import ACK, CWR, PSH, Inner, single
from tests.support.datapath_sas import ALGORITHMS, arriving

BULK = Inner(random.Random(1).randbytes(5000), flags=ACK | PSH)
SMALL = Inner(b"small")


def opened(sa: OutboundSa, runs: list[Any]) -> list[bytes]:
    """The inner packets in these runs, as a receiver finds them; each is in its place."""
    receiver = InboundSa(arriving(sa.sa), random.Random(1).randbytes)
    packets = []
    for run in runs:
        inner_packets = []
        for packet in packets_of(run):
            next_header, inner = receiver.open(packet, int.from_bytes(packet[4:8], "big"))
            assert next_header == (4 if inner[0] >> 4 == 4 else 41)
            inner_packets.append(inner)
        assert run.sa is sa
        assert run.count == len(inner_packets) == len(packets_of(run))
        assert run.octets == sum(len(inner) for inner in inner_packets)
        packets += inner_packets
    return packets


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("extended", [False, True])
def test_a_frame_becomes_the_packets_that_were_cut(
    core: CoreChoice, algorithm: str, extended: bool
) -> None:
    sa = outbound(algorithm, extended_sequence_numbers=extended)
    bulk, small = BULK.frame(1300), single(SMALL.whole())
    with sealing(core) as side:
        side.install(sa, BULK.whole())
        runs, care = side.seal(bulk, small)
        assert care == []
        assert opened(sa, runs) == [*cut(bulk[:10], bulk[10:]), SMALL.whole()]
        assert sa.usage.packets == 5
        assert sa.usage.bytes == sum(run.octets for run in runs)
        assert sa.usage.last_used == NOW
        assert sa.sequence == 5


def test_a_frame_before_the_first_sa_needs_care(core: CoreChoice) -> None:
    with sealing(core) as side:
        assert side.seal(single(SMALL.whole())) == ([], [0])


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", [6, 17])
@pytest.mark.parametrize("size", [1300, 1301])
def test_both_families_and_both_protocols(
    core: CoreChoice, version: int, protocol: int, size: int
) -> None:
    bulk = BULK.with_(version=version, protocol=protocol, flags=ACK | CWR | PSH)
    sa = outbound()
    frame = bulk.frame(size)
    with sealing(core) as side:
        side.install(sa, bulk.whole())
        runs, care = side.seal(frame)
        assert care == []
        assert opened(sa, runs) == cut(frame[:10], frame[10:])


def test_a_partial_checksum_is_completed(core: CoreChoice) -> None:
    sa = outbound()
    header = VirtioHeader(virtio.NEEDS_CSUM, 0, 0, 0, 20, 16).serialize()
    with sealing(core) as side:
        side.install(sa, SMALL.whole())
        runs, care = side.seal(header + SMALL.whole(partial=True))
        assert care == []
        assert opened(sa, runs) == [SMALL.whole()]


def test_without_offloads_a_frame_is_a_packet(core: CoreChoice) -> None:
    sa = outbound()
    with sealing(core, offloads=False) as side:
        side.install(sa, SMALL.whole())
        runs, care = side.seal(SMALL.whole(), SMALL.whole())
        assert (len(runs), care) == (1, [])
        assert opened(sa, runs) == [SMALL.whole()] * 2
        assert bytes(side.core.frame(1).packet) == SMALL.whole()
        assert bytes(side.core.frame(1).header) == b""


OTHER = Inner(b"other", source_port=9)
UNFIT = BULK.frame(1300)
CARE: list[bytes] = [
    single(OTHER.whole()),
    single(SMALL.whole() + b"1"),
    BULK.frame(1349),  # 1401 octets
    single(BULK.with_(payload=bytes(1349)).whole()),
    BULK.frame(SMALLEST_SEGMENT - 1),
    b"\0" + UNFIT[1:],
    UNFIT[:1] + b"\4" + UNFIT[2:],
    UNFIT[:1] + b"\3" + UNFIT[2:],
    UNFIT[:6] + b"\1\1" + UNFIT[8:],
    UNFIT[:8] + b"\1\1" + UNFIT[10:],
    VirtioHeader(virtio.NEEDS_CSUM, 0, 0, 0, 20, 9999).serialize() + SMALL.whole(),
    single(b"\x45"),
    single(bytes(range(100))),
]


@pytest.mark.parametrize("frame", CARE)
def test_what_needs_care_is_handed_back_in_its_order(core: CoreChoice, frame: bytes) -> None:
    sa = outbound()
    with sealing(core) as side:
        side.install(sa, SMALL.whole())
        side.fill(single(SMALL.whole()), frame, single(SMALL.whole()))
        [before], index = side.core.seal(NOW)
        assert (before.first, before.last, index) == (0, 0, 1)
        assert bytes(side.core.frame(1).header) + bytes(side.core.frame(1).packet) == frame
        assert sa.sequence == 1  # nothing was done to it
        [after], index = side.core.seal(NOW)
        assert (after.first, after.last, index) == (2, 2, None)
        assert opened(sa, [after]) == [SMALL.whole()]
        assert side.core.seal(NOW) == ([], None)


def test_the_largest_segment_that_fits(core: CoreChoice) -> None:
    sa = outbound()
    with sealing(core) as side:
        side.install(sa, BULK.whole())
        for frame in (BULK.frame(1348), BULK.frame(SMALLEST_SEGMENT)):
            runs, care = side.seal(frame)
            assert care == []
            assert opened(sa, runs) == cut(frame[:10], frame[10:])
        sa.mtu = 1399
        side.core.refresh(sa)
        assert side.seal(BULK.frame(1348)) == ([], [0])


def test_frames_stay_as_they_came(core: CoreChoice) -> None:
    """If the path turns out to be too narrow, they are done again, with care."""
    sa = outbound()
    frames = [BULK.frame(1300), single(SMALL.whole()), BULK.frame(1000)]
    with sealing(core) as side:
        side.install(sa, BULK.whole())
        assert side.seal(*frames)[1] == []
        for index, frame in enumerate(frames):
            header, packet = side.core.frame(index)
            assert bytes(header) + bytes(packet) == frame


def test_the_octets_of_a_run(core: CoreChoice) -> None:
    """Equal packets are one run whatever frame they were in; a shorter one ends it."""
    sa = outbound()
    small, large = SMALL.with_(payload=bytes(100)), SMALL.with_(payload=bytes(200))
    with sealing(core) as side:
        side.install(sa, SMALL.whole())
        frames = [small, small, large, large, small, small, small.with_(traffic_class=4)]
        frames += [small.with_(dont_fragment=False), small]
        runs, care = side.seal(*(single(frame.whole()) for frame in frames))
        assert care == []
        assert opened(sa, runs) == [frame.whole() for frame in frames]
        shown = [(run.first, run.last, run.traffic_class, run.dont_fragment) for run in runs]
        assert shown == [
            (0, 1, 0, True),
            (2, 4, 0, True),
            (5, 5, 0, True),
            (6, 6, 4, True),
            (7, 7, 0, False),
            (8, 8, 0, True),
        ]


def test_a_run_has_at_most_so_many_packets_and_octets(core: CoreChoice) -> None:
    sa = outbound(extended_sequence_numbers=True)
    long = Inner(bytes(65000))
    with sealing(core) as side:
        side.install(sa, SMALL.whole())
        runs, _ = side.seal(*[single(SMALL.whole())] * (RUN_PACKETS + 1))
        assert [run.count for run in runs] == [RUN_PACKETS, 1]
        runs, care = side.seal(long.frame(1300), long.frame(1300))
        assert (care, sum(run.count for run in runs)) == ([], 100)
        assert all(len(run.packets) <= RUN_OCTETS for run in runs)
        assert len(runs[0].packets) + runs[0].size > RUN_OCTETS
        runs, care = side.seal(long.frame(500))
        assert [run.count for run in runs] == [RUN_PACKETS, RUN_PACKETS, 2]
        assert opened(sa, runs) == cut(long.frame(500)[:10], long.frame(500)[10:])


def test_two_sas_take_turns(core: CoreChoice) -> None:
    first, second = outbound(), outbound(spi=0x2000)
    with sealing(core) as side:
        side.install(first, SMALL.whole())
        side.install(second, OTHER.whole())
        frames = [single(packet.whole()) for packet in (SMALL, OTHER, OTHER, SMALL)]
        runs, care = side.seal(*frames)
        assert care == []
        assert [(run.sa, run.count) for run in runs] == [(first, 1), (second, 2), (first, 1)]
        assert opened(second, [runs[1]]) == [OTHER.whole()] * 2


def test_what_was_forgotten_needs_care_again(core: CoreChoice) -> None:
    first, second = outbound(), outbound(spi=0x2000)
    with sealing(core) as side:
        side.install(first, SMALL.whole())
        side.install(second, OTHER.whole())
        side.core.remove(second)
        frames = [single(SMALL.whole()), single(OTHER.whole())]
        assert side.seal(*frames)[1] == [1]
        side.core.forget()
        assert side.seal(*frames) == ([], [0, 1])
        key = key_of(SMALL.whole())
        assert key is not None
        side.core.learn(key, first)
        assert side.seal(*frames)[1] == [1]


def test_numbers_are_taken_for_a_whole_frame_or_not_at_all(core: CoreChoice) -> None:
    sa = outbound()
    with sealing(core) as side:
        side.install(sa, BULK.whole())
        sa.record.sequence = 2**32 - 4  # three are left, four are needed
        runs, care = side.seal(BULK.frame(1300), single(SMALL.whole()))
        assert care == [0]
        assert [run.count for run in runs] == [1]
        assert bytes(runs[0].packets[4:8]) == b"\xff\xff\xff\xfd"
        assert side.seal(*[single(SMALL.whole())] * 3)[1] == [2]
        assert sa.exhausted


def test_numbers_cross_2_to_the_32(core: CoreChoice) -> None:
    sa = outbound(extended_sequence_numbers=True)
    sa.record.sequence = 2**32 - 3
    frame = BULK.frame(1300)
    receiver = InboundSa(arriving(sa.sa), random.Random(1).randbytes)
    receiver.record.sequence = 2**32 - 3
    with sealing(core) as side:
        side.install(sa, BULK.whole())
        runs, care = side.seal(frame)
        assert care == []
        packets = packets_of(runs[0])
        lows = [int.from_bytes(packet[4:8], "big") for packet in packets]
        assert lows == [2**32 - 2, 2**32 - 1, 0, 1]
        inner = [receiver.open(packet, low)[1] for packet, low in zip(packets, lows, strict=True)]
        assert inner == cut(frame[:10], frame[10:])


def test_limits(core: CoreChoice) -> None:
    size = len(SMALL.whole())
    sa = outbound(hard_bytes=2 * size)
    expired = outbound(spi=0x2000)
    with sealing(core) as side:
        side.install(sa, SMALL.whole())
        assert side.seal(*[single(SMALL.whole())] * 4)[1] == [2, 3]
        assert sa.usage.packets == 2
        side.install(expired, OTHER.whole())
        assert side.seal(single(OTHER.whole()))[1] == []
        expired.expire()
        assert side.seal(single(OTHER.whole()))[1] == [0]


def test_the_fragment_bit_is_what_the_sa_says(core: CoreChoice) -> None:
    sa = outbound()
    free = SMALL.with_(dont_fragment=False)
    six = SMALL.with_(version=6)
    with sealing(core) as side:
        side.install(sa, SMALL.whole(), six.whole())
        for says in ((True, True), (False, False), (True, False), (False, True)):
            sa.dont_fragment = says
            side.core.refresh(sa)
            runs, _ = side.seal(*(single(packet.whole()) for packet in (SMALL, free, six)))
            got = [run.dont_fragment for run in runs for _ in range(run.count)]
            assert got == [says[1], says[0], says[1]]


def test_a_batch_is_bounded(core: CoreChoice) -> None:
    sa = outbound()
    with sealing(core) as side:
        side.install(sa, SMALL.whole(), BULK.whole())
        assert side.fill(*[single(SMALL.whole())] * (BATCH_FRAMES + 2)) == BATCH_FRAMES
        assert side.fill() == 2
        assert side.fill() == 0
        frame = BULK.with_(payload=bytes(60000)).frame(1300)
        count = side.fill(*[frame] * 6)
        assert count == -(-BATCH_OCTETS // len(frame))
        runs, index = side.core.seal(NOW)
        assert (index, sum(run.count for run in runs)) == (None, 47 * count)
        assert side.fill() == 6 - count


def test_a_device_that_fails(core: CoreChoice) -> None:
    with sealing(core) as side:
        assert side.fill() == 0
        with pytest.raises(OSError, match="Bad file descriptor"):
            side.core.fill(-1)


def hostile(core: CoreChoice, rounds: int) -> None:
    """Any frame becomes what ``cut`` makes of it, or needs care."""
    source = random.Random(3)
    sa = outbound(extended_sequence_numbers=True)
    seeds = [
        BULK.with_(version=version, protocol=protocol).frame(1300)
        for version in (4, 6)
        for protocol in (6, UDP)
    ] + [single(SMALL.whole()), single(SMALL.with_(version=6).whole())]
    done = 0
    with sealing(core) as side:
        side.install(sa, *(seed[10:] for seed in seeds))
        for _ in range(rounds):
            frame = bytearray(source.choice(seeds))
            for _ in range(source.randrange(4)):
                frame[source.randrange(min(len(frame), 80))] = source.randrange(256)
            if not source.randrange(4):
                del frame[source.randrange(len(frame)) + 1 :]
            runs, care = side.seal(bytes(frame))
            assert len(care) + bool(runs) == 1
            if runs:
                done += 1
                assert opened(sa, runs) == cut(frame[:10], frame[10:])
                for run in runs:
                    assert len(run.packets) <= RUN_OCTETS
    assert done > rounds // 4


def test_any_frame(core: CoreChoice) -> None:
    hostile(core, 1000)


@pytest.mark.fuzz
def test_any_frame_at_length(core: CoreChoice) -> None:
    hostile(core, 10_000)
