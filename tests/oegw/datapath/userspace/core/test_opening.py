"""Every opening core: what it does by itself, what it hands back, and what is joined."""

from __future__ import annotations

import os
import random
import struct
from dataclasses import replace

import pytest

from oegw.datapath.userspace.core.choice import CoreChoice
from oegw.datapath.userspace.core.cutting import cut
from oegw.datapath.userspace.core.interface import Unchecked, Unopened
from oegw.datapath.userspace.esp import InboundSa, OutboundSa
from oegw.packet.ip import UDP
from tests.support.datapath_cores import NOW, Opening, opening, to_loopback
from tests.support.datapath_packets import SYN, Inner, followers, single
from tests.support.datapath_sas import ALGORITHMS, arriving

PACKETS = [packet.whole() for packet in followers(Inner(), [1000] * 4)]
SMALL = Inner(b"small").whole()
DESTINATION = bytes((127, 0, 0, 1))


class Road:
    """A sender, and the core that receives from it; flows of ordinary packets are known."""

    def __init__(
        self, side: Opening, algorithm: str = "gcm-128", know: bool = True, **fields: object
    ) -> None:
        self.side = side
        spec = to_loopback(algorithm, **fields)
        unlimited = replace(spec, soft_bytes=None, hard_bytes=None)
        self.sender = OutboundSa(unlimited, random.Random(1).randbytes)
        self.receiver: InboundSa = side.sa(spec)
        if know:
            side.learn(self.receiver, SMALL, Inner(version=6).whole())

    def sealed(self, packet: bytes, next_header: int = 0, number: int | None = None) -> bytes:
        if number is not None:
            self.sender.sequence = number - 1
        octets = self.sender.seal(packet, 4)
        assert octets is not None
        if next_header:
            self.sender.sequence -= 1
            transform = self.sender.transform
            padding = -(len(packet) + 2) % transform.block
            plain = packet + bytes(range(1, padding + 1)) + bytes((padding, next_header))
            self.sender.sequence += 1
            octets = transform.seal(octets[:8], b"", plain)
        return octets

    def send(self, *octets: bytes, outer_class: int = 0) -> None:
        for each in octets:
            self.side.send(each, outer_class=outer_class)

    def through(self, *packets: bytes, outer_class: int = 0) -> list[bytes]:
        """Frames, when nothing needs care."""
        self.send(*(self.sealed(packet) for packet in packets), outer_class=outer_class)
        assert self.side.fill() > 0
        assert self.side.care() == []
        return self.side.frames()


def cut_again(frames: list[bytes]) -> list[bytes]:
    return [packet for frame in frames for packet in cut(frame[:10], frame[10:])]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("extended", [False, True])
def test_neighbours_become_one_frame(core: CoreChoice, algorithm: str, extended: bool) -> None:
    with opening(core) as side:
        road = Road(side, algorithm, extended_sequence_numbers=extended)
        frames = road.through(*PACKETS)
        assert len(frames) == 1
        assert cut_again(frames) == PACKETS
        octets = sum(len(packet) for packet in PACKETS)
        assert side.core.counted() == {"esp_in_packets": 4, "esp_in_octets": octets}
        assert side.core.counted() == {}
        usage = road.receiver.usage
        assert (usage.packets, usage.bytes, usage.last_used) == (4, octets, NOW)
        assert road.receiver.window.top == 4


@pytest.mark.parametrize("joins", [True, False])
def test_many_packets_in_one_datagram(core: CoreChoice, joins: bool) -> None:
    """As UDP_GRO hands them over; the last is shorter."""
    inner = followers(Inner(protocol=UDP), [1000, 1000, 1000, 7])
    with opening(core, joins_udp=joins) as side:
        road = Road(side, know=False)
        side.learn(road.receiver, inner[0].whole())
        packets = [road.sealed(packet.whole()) for packet in inner]
        side.send(b"".join(packets), len(packets[0]))
        assert side.fill() == 1
        assert side.care() == []
        frames = side.frames()
        assert len(frames) == (1 if joins else 4)
        assert cut_again(frames) == [packet.whole() for packet in inner]


def test_without_offloads_a_packet_is_a_frame(core: CoreChoice) -> None:
    with opening(core, offloads=False) as side:
        assert Road(side).through(*PACKETS) == PACKETS


def test_an_unknown_sa_needs_care(core: CoreChoice) -> None:
    with opening(core) as side:
        road = Road(side)
        sealed = road.sealed(SMALL)
        unknown = b"\0\0\x99\x99" + sealed[4:]
        road.send(unknown, b"\xff", sealed, b"1234567", bytes(60), outer_class=0xB8)
        assert side.fill() == 5
        source, port = road.receiver.peer
        care = side.care()
        assert [(bytes(each.payload), *each[1:]) for each in care] == [
            (octets, source, port, DESTINATION, 0xB8)
            for octets in (unknown, b"\xff", b"1234567", bytes(60))
        ]
        assert side.frames() == [single(SMALL)]


def test_a_packet_before_the_first_sa_needs_care(core: CoreChoice) -> None:
    with opening(core) as side:
        side.send(bytes(range(64)))
        side.fill()
        assert [type(each) for each in side.care()] == [Unopened]


def test_the_other_kind_of_socket_needs_care(core: CoreChoice) -> None:
    """Agreed was UDP, or it was not."""
    with opening(core) as side:
        road = Road(side)
        spec = replace(arriving(to_loopback(spi=0x2000)), encapsulation=None)
        plain = InboundSa(spec, os.urandom)
        side.core.install(plain)
        road.send(b"\0\0\x20\0" + road.sealed(SMALL)[4:])
        side.fill()
        [care] = side.care()
        assert isinstance(care, Unopened)


def test_what_was_removed_needs_care(core: CoreChoice) -> None:
    with opening(core) as side:
        road = Road(side)
        assert road.through(SMALL) == [single(SMALL)]
        side.core.remove(road.receiver)
        road.send(road.sealed(SMALL))
        side.fill()
        assert [type(each) for each in side.care()] == [Unopened]
        side.core.install(road.receiver)
        road.send(road.sealed(SMALL))
        side.fill()
        assert [type(each) for each in side.care()] == [Unchecked]  # its flows were forgotten


UNCHECKED: list[tuple[bytes, int, int]] = [
    (Inner(source_port=9).whole(), 4, 0),
    (Inner(flags=SYN).whole(), 4, 0),
    (SMALL + b"padding", 4, 0),
    (SMALL[:-1], 4, 0),
    (SMALL, 41, 0),
    (Inner(version=6).whole(), 4, 0),
    (SMALL, 59, 0),
    (b"", 59, 0),
    (b"", 4, 0),
    (SMALL[:1], 4, 0),
    (b"nothing", 99, 0),
    (Inner(traffic_class=1).whole(), 4, 3),
    (Inner(traffic_class=2).whole(), 4, 1),
    (SMALL, 4, 3),
]


@pytest.mark.parametrize(("inner", "next_header", "outer_class"), UNCHECKED)
def test_what_is_inside_may_need_care(
    core: CoreChoice, inner: bytes, next_header: int, outer_class: int
) -> None:
    with opening(core) as side:
        road = Road(side)
        before, odd, after = PACKETS[0], road.sealed(inner, next_header, 2), PACKETS[1]
        road.send(road.sealed(before, number=1), outer_class=outer_class & 0xFC)
        road.send(odd, outer_class=outer_class)
        road.send(road.sealed(after, number=3), outer_class=outer_class & 0xFC)
        side.fill()
        care = side.core.open(NOW)
        assert isinstance(care, Unchecked)
        assert (care.sa, care.next_header, bytes(care.payload), care.traffic_class) == (
            road.receiver,
            next_header,
            inner,
            outer_class,
        )
        # It counts for the SA and its window, before it is looked at.
        assert road.receiver.window.top == 2
        assert road.receiver.usage.packets == 2
        side.core.append(b"with care")
        assert side.core.open(NOW) is None
        assert side.frames() == [single(before), single(b"with care"), single(after)]
        assert side.core.counted()["esp_in_packets"] == 2


@pytest.mark.parametrize(
    ("inner", "outer"), [(0, 0), (0, 1), (0, 2), (1, 1), (2, 2), (3, 3), (3, 0)]
)
def test_congestion_that_changes_nothing(core: CoreChoice, inner: int, outer: int) -> None:
    packet = Inner(traffic_class=inner).whole()
    with opening(core) as side:
        assert Road(side).through(packet, outer_class=outer) == [single(packet)]


def test_packets_of_different_congestion_in_one_flow(core: CoreChoice) -> None:
    """The mark is on the outer header of the second only."""
    packets = [packet.whole() for packet in followers(Inner(traffic_class=2), [100] * 3)]
    with opening(core) as side:
        road = Road(side)
        for packet, outer_class in zip(packets, (2, 3, 2), strict=True):
            road.send(road.sealed(packet), outer_class=outer_class)
        side.fill()
        [care] = side.care()
        assert isinstance(care, Unchecked)
        assert bytes(care.payload) == packets[1]
        assert side.frames() == [single(packets[0]), single(packets[2])]


def test_replays_are_counted_and_nothing_else(core: CoreChoice) -> None:
    with opening(core) as side:
        road = Road(side)
        sealed = [road.sealed(packet) for packet in PACKETS]
        road.send(*sealed, *sealed, sealed[0])
        side.fill()
        assert side.care() == []
        assert cut_again(side.frames()) == PACKETS
        assert side.core.counted()["drop_in_replay"] == 5
        road.send(*sealed)
        side.fill()
        assert (side.care(), side.frames()) == ([], [])
        assert side.core.counted() == {"drop_in_replay": 4}
        assert road.receiver.usage.packets == 4


def test_the_same_number_twice_in_one_datagram(core: CoreChoice) -> None:
    with opening(core) as side:
        road = Road(side)
        one = road.sealed(SMALL)
        side.send(one * 3, len(one))
        side.fill()
        assert side.care() == []
        assert side.frames() == [single(SMALL)]
        assert side.core.counted()["drop_in_replay"] == 2


def test_any_order(core: CoreChoice) -> None:
    source = random.Random(2)
    with opening(core) as side:
        road = Road(side, replay_window=64)
        sealed = [road.sealed(SMALL) for _ in range(120)]
        order = sorted(range(120), key=lambda number: number + source.randrange(40))
        for start in range(0, 120, 30):
            chosen = order[start : start + 30]
            road.send(*(sealed[number] for number in chosen))
            side.fill()
            assert side.care() == []
            assert side.frames() == [single(SMALL)] * 30
        assert road.receiver.window.top == 120
        road.send(*sealed)
        side.fill()
        assert (side.care(), side.frames()) == ([], [])
        assert side.core.counted()["drop_in_replay"] == 120


def test_too_old_and_far_ahead(core: CoreChoice) -> None:
    with opening(core) as side:
        road = Road(side, replay_window=64)
        numbers = [1, 2, 5000, 4937, 4936, 3, 2**32 - 1, 5001]
        road.send(*(road.sealed(SMALL, number=number) for number in numbers))
        side.fill()
        assert side.care() == []
        assert len(side.frames()) == 5
        assert side.core.counted()["drop_in_replay"] == 3
        assert road.receiver.window.top == 2**32 - 1
        road.send(
            road.sealed(SMALL, number=2**32 - 2), bytes.fromhex("0000100000000000") + bytes(60)
        )
        side.fill()
        assert side.care() == []
        assert len(side.frames()) == 1
        assert side.core.counted()["drop_in_replay"] == 1


def test_numbers_cross_2_to_the_32(core: CoreChoice) -> None:
    with opening(core) as side:
        road = Road(side, extended_sequence_numbers=True)
        road.receiver.record.sequence = 2**32 - 3
        order = [2**32 - 2, 2**32, 2**32 - 1, 2**32 + 1]
        sealed = [road.sealed(SMALL, number=number) for number in order]
        road.send(*sealed, *sealed)
        side.fill()
        assert side.care() == []
        assert side.frames() == [single(SMALL)] * 4
        assert side.core.counted()["drop_in_replay"] == 4
        assert road.receiver.window.top == 2**32 + 1


def test_numbers_end_within_a_datagram(core: CoreChoice) -> None:
    """Whoever has the key may count on from 0: without extended numbers that is a replay."""
    with opening(core) as side:
        road = Road(side)
        road.receiver.record.sequence = 2**32 - 4
        padding = -(len(PACKETS[0]) + 2) % 4
        end = bytes(range(1, padding + 1)) + bytes((padding, 4))
        sealed = [
            road.sender.transform.seal(
                struct.pack("!II", road.sender.sa.spi, number % 2**32), b"", packet + end
            )
            for number, packet in enumerate(PACKETS + PACKETS[:1], 2**32 - 3)
        ]
        side.send(b"".join(sealed), len(sealed[0]))
        side.fill()
        assert side.care() == []
        assert cut_again(side.frames()) == PACKETS[:3]
        assert side.core.counted()["drop_in_replay"] == 2
        assert road.receiver.window.top == 2**32 - 1


@pytest.mark.parametrize("packets", [1, 3, 4])
def test_a_limit_within_a_datagram(core: CoreChoice, packets: int) -> None:
    """What the limit does not allow is left to the engine, and all before is opened."""
    with opening(core) as side:
        road = Road(side, hard_bytes=len(PACKETS[0]) * packets + 60)
        sealed = [road.sealed(packet) for packet in PACKETS]
        side.send(b"".join(sealed), len(sealed[0]))
        side.fill()
        assert len(side.care()) == 4 - packets
        assert cut_again(side.frames()) == PACKETS[:packets]


@pytest.mark.parametrize("algorithm", ["gcm-128", "cbc-sha2", "3des-md5"])
def test_corrupted_and_truncated_packets_are_counted(core: CoreChoice, algorithm: str) -> None:
    source = random.Random(5)
    with opening(core) as side:
        road = Road(side, algorithm)
        good = road.sealed(SMALL, number=100)
        for _ in range(25):
            wrong = bytearray(good)
            wrong[source.randrange(8, len(wrong))] ^= 1 << source.randrange(8)
            road.send(bytes(wrong))
            road.send(good[: source.randrange(8, len(good))])
        side.fill()
        assert side.care() == []
        assert side.frames() == []
        assert side.core.counted() == {"drop_in_invalid": 50}
        assert road.receiver.window.top == 0
        assert road.receiver.usage.packets == 0
        assert road.receiver.usage.last_used is None
        # None of it hurt what comes after it.
        road.send(good)
        side.fill()
        assert side.care() == []
        assert side.frames() == [single(SMALL)]


@pytest.mark.parametrize("algorithm", ["gcm-128", "gcm-192", "gcm-256"])
@pytest.mark.parametrize("extended", [False, True])
def test_one_bit_of_a_packet_of_any_length(
    core: CoreChoice, algorithm: str, extended: bool
) -> None:
    """Lengths of all remainders, in blocks and in strides of blocks; a bit of the IV, of the text,
    of its end, of the ICV.  The packet itself goes on, though its number was tried before."""
    lengths = [*range(1, 70), *range(240, 275), *range(750, 790), *range(1380, 1400)]
    with opening(core, offloads=False) as side:
        road = Road(side, algorithm, extended_sequence_numbers=extended)
        for number, length in enumerate(lengths, 1):
            inner = Inner(bytes((length & 0xFF,)) * length).whole()
            good = road.sealed(inner, number=number)
            for place in (8, 16, -17, -16, -1):
                wrong = bytearray(good)
                wrong[place] ^= 1 << number % 8
                road.send(bytes(wrong))
            road.send(good)
            side.fill()
            assert side.care() == []
            assert side.frames() == [inner]
            counted = side.core.counted()
            assert counted == {
                "drop_in_invalid": 5, "esp_in_packets": 1, "esp_in_octets": len(inner),
            }  # fmt: skip
            assert road.receiver.window.top == number


def test_a_corrupted_packet_among_others_of_one_datagram(core: CoreChoice) -> None:
    with opening(core) as side:
        road = Road(side)
        sealed = [bytearray(road.sealed(packet)) for packet in PACKETS]
        sealed[1][50] ^= 1
        side.send(b"".join(sealed), len(sealed[0]))
        side.fill()
        assert side.care() == []
        assert cut_again(side.frames()) == [PACKETS[0], *PACKETS[2:]]
        assert side.core.counted()["drop_in_invalid"] == 1
        assert not road.receiver.window.fresh(4)
        assert road.receiver.window.fresh(2)


@pytest.mark.parametrize("at", [0, 3])
def test_plaintext_in_the_place_of_ciphertext_is_not_authentic(core: CoreChoice, at: int) -> None:
    """A second try, after a row was decrypted where it is, would make it what it has to be."""
    packets = [packet.whole() for packet in followers(Inner(), [1000] * 8)]
    with opening(core) as side:
        road = Road(side)
        sealed = [bytearray(road.sealed(packet)) for packet in packets]
        end = len(sealed[at]) - 16 - 16 - len(packets[at])  # padding and the two octets behind
        plain = packets[at] + bytes(range(1, end - 1)) + bytes((end - 2, 4))
        sealed[at][16:-16] = plain
        side.send(b"".join(sealed), len(sealed[0]))
        side.fill()
        assert side.care() == []
        assert side.core.counted()["drop_in_invalid"] == 1
        assert cut_again(side.frames()) == [*packets[:at], *packets[at + 1 :]]


@pytest.mark.parametrize("padding", [b"\1\2\4\3\4", b"\0\0\2\2\4", b"\xff\4", b"\1\2\3\4\x7f\4"])
def test_wrong_padding(core: CoreChoice, padding: bytes) -> None:
    """It is authentic, so its number is taken; it says no more than a wrong ICV does."""
    with opening(core) as side:
        road = Road(side)
        plain = bytes(-len(padding) % 4) + padding
        head = bytes.fromhex("0000100000000001")
        road.send(road.sender.transform.seal(head, b"", plain))
        side.fill()
        assert (side.care(), side.frames()) == ([], [])
        assert side.core.counted() == {"drop_in_invalid": 1}
        assert road.receiver.window.top == 1
        assert road.receiver.usage.packets == 0


def test_limits(core: CoreChoice) -> None:
    with opening(core) as side:
        sealed_size = len(Road(side).sealed(SMALL))
        size = len(SMALL)
        road = Road(side, spi=0x2000, hard_bytes=2 * size + sealed_size - size, soft_bytes=2 * size)
        road.send(*(road.sealed(SMALL) for _ in range(4)))
        side.fill()
        assert [type(each) for each in side.care()] == [Unopened, Unopened]
        assert len(side.frames()) == 2
        assert side.core.softened() == [road.receiver]
        assert side.core.softened() == []
        road.receiver.expire()
        road.send(road.sealed(SMALL))
        side.fill()
        assert [type(each) for each in side.care()] == [Unopened]


def test_the_soft_limit_is_said_until_it_is_noted(core: CoreChoice) -> None:
    with opening(core) as side:
        road = Road(side, soft_bytes=1)
        road.through(SMALL)
        assert side.core.softened() == [road.receiver]
        road.receiver.soften()
        road.through(SMALL)
        assert side.core.softened() == []


def test_a_peer_that_moved(core: CoreChoice) -> None:
    with opening(core) as side:
        road = Road(side)
        port = side.peer.getsockname()[1]
        first, late, other = (road.sealed(SMALL) for _ in range(3))
        road.send(first)
        side.fill()
        assert side.care() == []
        assert side.core.moved() == []
        road.receiver.peer = bytes((192, 1, 1, 4)), 4500
        side.core.refresh(road.receiver)
        wrong = bytearray(road.sealed(SMALL))
        wrong[-1] ^= 1
        road.send(other, late, first, bytes(wrong))
        side.fill()
        assert side.care() == []
        [moved] = side.core.moved()
        assert (moved.sa, moved.peer) == (road.receiver, (DESTINATION, port))
        # A delayed packet, a replay and what is not authentic move nobody.
        side.frames()
        late = road.sealed(SMALL, number=3000)
        road.send(road.sealed(SMALL, number=3001))
        side.fill()
        side.care()
        assert len(side.core.moved()) == 1
        road.send(late)
        side.fill()
        side.care()
        assert side.core.moved() == []


def test_the_table_of_flows_belongs_to_an_sa(core: CoreChoice) -> None:
    with opening(core) as side:
        known = Road(side)
        unknown = Road(side, know=False, spi=0x2000)
        unknown.send(unknown.sealed(SMALL), known.sealed(SMALL))
        side.fill()
        [care] = side.care()
        assert isinstance(care, Unchecked)
        assert care.sa is unknown.receiver


def test_packets_of_two_sas_that_look_alike(core: CoreChoice) -> None:
    """A flow may go on by another SA, where it was not allowed yet."""
    with opening(core) as side:
        known = Road(side)
        unknown = Road(side, know=False, spi=0x2000)
        known.send(known.sealed(PACKETS[0]))
        unknown.send(unknown.sealed(PACKETS[1]))
        known.send(known.sealed(PACKETS[2]))
        side.fill()
        [care] = side.care()
        assert isinstance(care, Unchecked)
        assert bytes(care.payload) == PACKETS[1]
        assert side.frames() == [single(PACKETS[0]), single(PACKETS[2])]


def test_a_device_that_takes_nothing(core: CoreChoice) -> None:
    with opening(core) as side:
        road = Road(side)
        road.send(*(road.sealed(packet) for packet in (*PACKETS, SMALL)))
        side.fill()
        assert side.care() == []
        assert side.core.deliver(-1) == 5
        assert side.frames() == []


def test_a_socket_that_fails(core: CoreChoice) -> None:
    with opening(core) as side:
        assert side.fill() == 0
        assert side.core.open(NOW) is None
        with pytest.raises(OSError, match="Bad file descriptor"):
            side.core.fill(-1, 4, True)


def test_what_came_before_is_gone(core: CoreChoice) -> None:
    with opening(core) as side:
        road = Road(side)
        road.send(road.sealed(SMALL), bytes(9))
        side.fill()
        assert side.core.open(NOW) is not None
        assert side.fill() == 0
        assert side.care() == []
        assert side.frames() == []


def hostile(core: CoreChoice, rounds: int) -> None:
    """Whatever arrives: what is delivered was sent, and nothing twice."""
    source = random.Random(6)
    with opening(core, offloads=False) as side:
        road = Road(side)
        sent: list[tuple[bytes, bytes]] = []  # the last ones, inner packet and sealed
        delivered: list[bytes] = []
        number = 0
        for _ in range(rounds // 20):
            fresh = []
            for _ in range(10):
                number += 1
                inner = Inner(number.to_bytes(4, "big") * 9, sequence=number * 36).whole()
                fresh.append((inner, road.sealed(inner)))
            sent = [*sent, *fresh][-300:]
            batch = [sealed for _, sealed in fresh]
            batch += [source.choice(sent)[1] for _ in range(5)]
            for _ in range(5):
                wrong = bytearray(source.choice(sent)[1])
                wrong[source.randrange(4, len(wrong))] ^= 1 << source.randrange(8)
                batch.append(bytes(wrong[: source.randrange(1, len(wrong) + 1)]))
            source.shuffle(batch)
            if source.randrange(5):
                road.send(*batch)
            else:
                side.send(b"".join(batch), max(len(batch[0]), 60))  # cut anywhere
                fresh.clear()
            side.fill()
            assert all(isinstance(each, Unopened) for each in side.care())
            frames = side.frames()
            assert {inner for inner, _ in fresh} <= set(frames) <= {inner for inner, _ in sent}
            assert side.core.counted().get("esp_in_packets", 0) == len(frames)
            delivered += frames
        assert len(delivered) == len(set(delivered)) == road.receiver.usage.packets


def test_any_datagram(core: CoreChoice) -> None:
    hostile(core, 1000)


@pytest.mark.fuzz
def test_any_datagram_at_length(core: CoreChoice) -> None:
    hostile(core, 20_000)
