"""The compiled core and the reference get the same, and make the same: octets, runs, care, counts
and records."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from oegw.datapath.userspace.core.choice import choose, what_is_missing
from oegw.datapath.userspace.core.flows import key_of
from oegw.datapath.userspace.core.interface import FLOWS, Run, Unchecked
from oegw.datapath.userspace.core.virtio import NONE
from oegw.datapath.userspace.esp import InboundSa, OutboundSa
from oegw.packet.ip import TCP, UDP
from tests.support.core_traffic import Traffic, ip_packet, spoilt, udp
from tests.support.datapath_cores import (
    NOW,
    Opening,
    Sealing,
    opening,
    outbound,
    packets_of,
    sealing,
    to_loopback,
    without_library,
)
from tests.support.datapath_packets import ACK, ECE, FIN, PSH, TIMESTAMPS, Inner, followers

NAMES = "python", "compiled"
FRAMES = 8  # in one batch: as many as a socket of the kind that plays the device takes
ALGORITHMS = (
    {"algorithm": "gcm-128", "spi": 0x1000},
    {"algorithm": "gcm-256", "spi": 0x1001, "extended_sequence_numbers": True},
    {"algorithm": "cbc-sha2", "spi": 0x1002},
    {"algorithm": "3des-md5", "spi": 0x1003, "extended_sequence_numbers": True},
)


def test_it_is_there() -> None:
    """It is built when oegw is installed; without it all that follows would compare nothing."""
    assert what_is_missing() is None


class Sealers:
    """Both sealing cores, with the same SAs, randomness and flows."""

    def __init__(self, stack: ExitStack, offloads: bool = True, mtu: int = 1440) -> None:
        self.sides: list[Sealing] = []
        self.sas: list[list[OutboundSa]] = []
        for name in NAMES:
            side = stack.enter_context(sealing(choose(name), offloads=offloads))
            said = {"destination": "127.0.0.1", **to_udp()}
            sas = [outbound(mtu=mtu, **fields, **said) for fields in ALGORITHMS]
            for sa in sas:
                side.core.install(sa)
            self.sides.append(side)
            self.sas.append(sas)

    def learn(self, packet: bytes, which: int) -> None:
        key = key_of(packet)
        assert key is not None
        for side, sas in zip(self.sides, self.sas, strict=True):
            side.core.learn(key, sas[which])

    def seal(self, *frames: bytes) -> tuple[list[Run], list[int]]:
        """What the compiled one made, which is what the other did."""
        said = [side.seal(*frames) for side in self.sides]
        shown = [
            ([(sas.index(run.sa), bytes(run.packets), *run[2:]) for run in runs], care)
            for (runs, care), sas in zip(said, self.sas, strict=True)
        ]
        assert shown[0] == shown[1]
        for index in range(len(frames)):
            assert self.sides[0].core.frame(index) == self.sides[1].core.frame(index)
        for one, other in zip(*self.sas, strict=True):
            assert bytes(one.record.memory) == bytes(other.record.memory)
        return said[1]


def to_udp() -> dict[str, Any]:
    return {"encapsulation": to_loopback().encapsulation}


class Openers:
    """Both opening cores."""

    def __init__(self, stack: ExitStack, sealers: Sealers, **how: Any) -> None:
        self.sides: list[Opening] = []
        self.sas: list[list[InboundSa]] = []
        for name in NAMES:
            side = stack.enter_context(opening(choose(name), **how))
            self.sides.append(side)
            self.sas.append([side.sa(sa.sa) for sa in sealers.sas[0]])

    def learn(self, packet: bytes, which: int) -> None:
        key = key_of(packet)
        assert key is not None
        for side, sas in zip(self.sides, self.sas, strict=True):
            side.core.learn(key, sas[which])

    def open(self, datagrams: list[tuple[bytes, int, int]], appends: random.Random) -> list[bytes]:
        """The frames that the compiled one made, which are the other's.  Some of what needs care
        goes on."""
        chances = [appends.random() for _ in range(1000)]
        said = [
            self._one(side, sas, datagrams, chances)
            for side, sas in zip(self.sides, self.sas, strict=True)
        ]
        assert said[0] == said[1]
        for one, other in zip(*self.sas, strict=True):
            assert bytes(one.record.memory) == bytes(other.record.memory)
        frames: list[bytes] = said[1][1]
        return frames

    @staticmethod
    def _one(
        side: Opening,
        sas: list[InboundSa],
        datagrams: list[tuple[bytes, int, int]],
        chances: list[float],
    ) -> Any:
        for octets, size, outer_class in datagrams:
            side.send(octets, size, outer_class)
        assert side.fill() == len(datagrams)
        core, care, chance = side.core, [], iter(chances)
        while (said := core.open(NOW)) is not None:
            if isinstance(said, Unchecked):
                care.append((sas.index(said.sa), *said[1:2], bytes(said.payload), said[3]))
                if next(chance) < 0.5 and said.payload:
                    core.append(said.payload)
            else:
                assert said.port == side.peer.getsockname()[1]
                care.append((bytes(said.payload), said.source, *said[3:]))
        moved = [(sas.index(moved.sa), moved.peer[0]) for moved in core.moved()]
        softened = [sas.index(sa) for sa in core.softened()]
        return care, side.frames(), dict(core.counted()), moved, softened


@pytest.fixture(params=["ipsec-mb", "openssl"])
def stack(request: pytest.FixtureRequest) -> Iterator[ExitStack]:
    """What the test opens, it closes; AES-GCM is done by this library."""
    with ExitStack() as stack:
        if request.param == "openssl":
            stack.enter_context(without_library())
        yield stack


def on_the_way(runs: list[Run], source: random.Random) -> list[tuple[bytes, int, int]]:
    """Datagrams with the size of each packet in them, and the outer traffic class: whole runs, or
    packets alone; lost, doubled, out of order, spoilt."""
    found = []
    for run in runs:
        outer_class = run.traffic_class if source.random() < 0.9 else source.randrange(256)
        if source.random() < 0.6 and run.size * run.count <= 60000:
            found.append((bytes(run.packets), run.size, outer_class))
            continue
        for packet in packets_of(run)[:20]:
            chance = source.random()
            if chance < 0.1:
                packet = spoilt(packet, source)
            if chance > 0.05:
                found.append((packet, 0, outer_class))
            if chance > 0.9:
                found.append((packet, 0, outer_class))
    if source.random() < 0.3:
        source.shuffle(found)
    return found


def compare(stack: ExitStack, seed: int, batches: int, offloads: bool = True) -> dict[str, int]:
    """Random traffic through both ways of both; how much there was of what, since a comparison of
    nothing would succeed too."""
    source = random.Random(seed)
    traffic = Traffic(seed, offloads)
    sealers = Sealers(stack, offloads)
    openers = Openers(stack, sealers, offloads=offloads, joins_udp=seed % 2 == 0)
    seen = {"packets": 0, "care": 0, "frames": 0, "joined": 0}
    for number in range(batches):
        if number % 40 == 0:
            for packet in Traffic.samples():
                which = source.randrange(len(ALGORITHMS))
                sealers.learn(packet, which)
                openers.learn(packet, which)
        runs, care = sealers.seal(*(traffic.frame() for _ in range(source.randrange(1, FRAMES))))
        seen["packets"] += sum(run.count for run in runs)
        seen["care"] += len(care)
        for start in range(0, len(arrived := on_the_way(runs, source)), FRAMES):
            frames = openers.open(arrived[start : start + FRAMES], source)
            seen["frames"] += len(frames)
            seen["joined"] += sum(len(frame) > 1600 for frame in frames)
    return seen


@pytest.mark.parametrize("offloads", [True, False])
def test_what_they_make_of_random_traffic_is_alike(stack: ExitStack, offloads: bool) -> None:
    seen = compare(stack, 9, 150, offloads)
    assert seen["packets"] > 300
    assert seen["care"] > 100
    assert seen["frames"] > 200
    assert seen["joined"] > 30 or not offloads


@pytest.mark.parametrize("window", [1, 3, 32, 100, 1024])
@pytest.mark.parametrize("start", [0, 2**32 - 40])
def test_their_windows_move_alike(stack: ExitStack, window: int, start: int) -> None:
    """Numbers in any order, doubled, with jumps; with extended ones over the end of a subspace."""
    source = random.Random(window + start)
    said = to_loopback(extended_sequence_numbers=bool(start), replay_window=window)
    sender = OutboundSa(said, source.randbytes)
    inner = ip_packet(4, UDP, udp(4, b"", 1000))
    sealed = {}
    number = start
    for _ in range(150):
        number += source.choice((1, 1, 1, 1, 2, 9, window, 3 * window))
        sender.sequence = number - 1
        sealed[number] = sender.seal(inner, 4)
    late = {number: number + source.randrange(2 * window) for number in (*sealed, *sealed)}
    order = sorted([*late, *source.sample(list(late), 50)], key=lambda number: late[number])
    arriving = [sealed[number] for number in order]
    sides = [stack.enter_context(opening(choose(name))) for name in NAMES]
    made = []
    for side in sides:
        sa = side.sa(said)
        sa.record.sequence = start
        side.learn(sa, inner)
        outcome: list[Any] = []
        for place in range(0, len(arriving), FRAMES):
            for packet in arriving[place : place + FRAMES]:
                assert packet is not None
                side.send(packet)
            side.fill()
            assert side.core.open(NOW) is None
            outcome.append((side.frames(), dict(side.core.counted()), bytes(sa.record.memory)))
        made.append(outcome)
    assert made[0] == made[1]
    assert sum(len(frames) for frames, _, _ in made[1]) > 60
    refused = (
        "drop_in_replay",
        "drop_in_invalid",
    )  # too old is, with ESN, one of the next subspace
    assert sum(counted.get(name, 0) for _, counted, _ in made[1] for name in refused) >= 50


def otherwise(packet: Inner, source: random.Random) -> bytes:
    """One that is not quite what is due, by its headers or by its checksums."""
    if source.random() < 0.5:
        octets = bytearray(packet.whole())
        octets[source.choice((source.randrange(20), source.randrange(len(octets))))] ^= 1
        return bytes(octets)
    changes: list[dict[str, object]] = [
        {"flags": ACK | PSH},
        {"flags": ACK | ECE},
        {"flags": ACK | FIN},
        {"sequence": packet.sequence ^ 4},
        {"acknowledgement": 6},
        {"window": 501},
        {"urgent": 1},
        {"identification": packet.identification ^ 3},
        {"traffic_class": 2},
        {"ttl": 63},
        {"source_port": 1001},
        {"no_checksum": True},
        {"payload": packet.payload[:-4]},
        {"payload": b""},
    ]
    return packet.with_(**source.choice(changes)).whole()


def one_datagram(source: random.Random, sender: OutboundSa) -> tuple[bytes, int, Inner]:
    """Packets of one flow that mostly follow each other, mostly sealed one after the other, the
    size of each but the last, and what they begin with."""
    first = Inner(
        version=source.choice((4, 4, 6)),
        protocol=source.choice((TCP, TCP, UDP)),
        sequence=2**32 - source.randrange(1, 5000),
        identification=0x10000 - source.randrange(1, 20),
        dont_fragment=source.random() < 0.8,
        options=source.choice((b"", TIMESTAMPS)),
    )
    size = source.choice((10, 300, 301, 302, 1000))
    packets = followers(first, [size] * source.randrange(2, 50))
    if source.random() < 0.2:
        packets = [each.with_(identification=first.identification) for each in packets]
    inner = [packet.whole() for packet in packets]
    for _ in range(source.choice((0, 1, 1, 2, 5))):
        place = source.randrange(len(inner))
        inner[place] = otherwise(packets[place], source)
    sealed = [
        bytearray(sender.seal(packet, 4 if first.version == 4 else 41) or b"") for packet in inner
    ]
    for _ in range(source.choice((0, 0, 1, 3))):
        one, other = (source.randrange(len(sealed)) for _ in range(2))
        kind = source.randrange(4)
        if kind == 0:
            sealed[one][source.randrange(len(sealed[one]))] ^= 1
        elif kind == 1:
            sealed[one], sealed[other] = sealed[other], sealed[one]
        elif kind == 2:
            sealed[one] = bytearray(sealed[other])
        elif len(sealed) > 2:
            del sealed[one]
    width = max(map(len, sealed))
    alike = [each for each in sealed if len(each) == width]
    shorter = [each for each in sealed if len(each) < width][:1]
    return b"".join(alike + shorter), width, first


@pytest.mark.parametrize("extended", [False, True])
@pytest.mark.parametrize("joins_udp", [False, True])
def test_what_comes_together_and_is_not_quite_alike(
    stack: ExitStack, extended: bool, joins_udp: bool
) -> None:
    """Pure Python looks at such packets together: anything among them ends that, at any place."""
    source = random.Random(8 + 2 * extended + joins_udp)
    said = to_loopback(extended_sequence_numbers=extended, replay_window=64)
    sender = OutboundSa(said, source.randbytes)
    sides = [stack.enter_context(opening(choose(name), joins_udp=joins_udp)) for name in NAMES]
    sas = [side.sa(said) for side in sides]
    sender.sequence = 2**32 - 3000 if extended else 0
    for sa in sas:
        sa.record.sequence = sender.sequence
    joined = 0
    for _ in range(250):
        octets, size, first = one_datagram(source, sender)
        made: list[Any] = []
        for side, sa in zip(sides, sas, strict=True):
            side.learn(sa, first.whole())
            side.send(octets, size)
            assert side.fill() == 1
            care = [(bytes(each.payload), isinstance(each, Unchecked)) for each in side.care()]
            counted = dict(side.core.counted())
            made.append((care, side.frames(), counted, bytes(sa.record.memory)))
        assert made[0] == made[1]
        joined += sum(len(frame) > 2000 for frame in made[0][1])
    assert joined > 50


def test_an_sa_that_is_gone_leaves_its_flows_to_nobody() -> None:
    """Numbers of SAs are used again in the compiled core; what was learned for the one before is
    not the next one's."""
    with sealing(choose("compiled")) as side:
        packets = [ip_packet(4, UDP, udp(4, b"", port)) for port in range(300)]
        sas = [outbound(spi=0x1000 + number) for number in range(300)]
        for sa, packet in zip(sas, packets, strict=True):
            side.install(sa, packet)
        for sa in sas[::2]:
            side.core.remove(sa)
        later = [outbound(spi=0x2000 + number) for number in range(150)]
        for sa in later:
            side.core.install(sa)
        for place in range(0, 300, FRAMES):
            runs, care = side.seal(*(NONE + packet for packet in packets[place : place + FRAMES]))
            assert care == [number - place for number in range(place, min(place + FRAMES, 300), 2)]
            assert [run.sa for run in runs] == sas[place + 1 : place + FRAMES : 2]


def test_all_flows_are_forgotten_when_there_are_too_many() -> None:
    with sealing(choose("compiled")) as side:
        sa = outbound()
        first, last = (ip_packet(4, UDP, udp(4, b"", port)) for port in (1, 2))
        side.install(sa, first)
        key = key_of(first)
        assert key is not None
        for number in range(FLOWS - 1):
            side.core.learn(key[:-4] + number.to_bytes(4, "big"), sa)
        assert side.seal(NONE + first)[1] == []
        last_key = key_of(last)
        assert last_key is not None
        side.core.learn(last_key, sa)
        assert side.seal(NONE + first, NONE + last)[1] == [0]


def test_numbers_are_taken_in_one_step() -> None:
    """By the core and by what is done with care, in several workers at once: cffi lets go of the
    interpreter, so these threads are as much at once as processes are."""
    sa = outbound()
    with sealing(choose("compiled")) as side:
        side.core.install(sa)
        taken: list[list[int]] = [[] for _ in range(4)]

        def take(mine: list[int]) -> None:
            for _ in range(5000):
                first = sa.take(3, 100, NOW)
                assert first is not None
                mine += (first, first + 1, first + 2)

        threads = [threading.Thread(target=take, args=(mine,)) for mine in taken]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(number for mine in taken for number in mine) == list(range(1, 60001))
    assert sa.record.used[:3] == (60000, 60000, 20000 * 100)


def test_no_number_is_taken_beyond_the_last() -> None:
    sa = outbound()
    with sealing(choose("compiled")) as side:
        side.core.install(sa)
        sa.sequence = 2**32 - 4
        assert sa.take(4, 1, NOW) is None
        assert sa.take(3, 1, NOW) == 2**32 - 3
        assert sa.take(1, 1, NOW) is None
        assert sa.sequence == 2**32 - 1
