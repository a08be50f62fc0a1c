"""The compiled core and the reference get the same, and make the same: octets, runs, care, counts
and records."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from oegw.datapath.userspace.core.choice import choose, what_is_missing
from oegw.datapath.userspace.core.flows import key_of
from oegw.datapath.userspace.core.interface import Run, Unchecked
from oegw.datapath.userspace.esp import InboundSa, OutboundSa
from tests.support.core_traffic import Traffic, spoilt
from tests.support.datapath_cores import (
    NOW,
    Opening,
    Sealing,
    opening,
    outbound,
    packets_of,
    sealing,
    to_loopback,
)

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


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
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
