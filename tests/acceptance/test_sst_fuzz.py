"""100,000 inputs for the whole path of port encryption, from what a plane hands up to its fate.

Flagged packets of strangers and of peers, random ciphertext, cut headers, quotes in quotes, odd
extension headers, fragments, probes, each also with octets changed.  Each has one fate, soon; it
is counted; nothing raises; where port encryption is required, none leaves without.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from oegw.packet.ip import PacketError
from oegw.sst.interface import Algorithm, Caught, Entry, Leg, PortFlow, Reason, Way
from oegw.sst.orders import SendProbe
from oegw.sst.packet import seal
from oegw.sst.permutation import NotEligible, Permutation
from oegw.sst.place import place_of
from oegw.sst.settings import Strangers
from tests.support.sst_kernel import with_flag
from tests.support.sst_wire import (
    TCP,
    TIME_EXCEEDED,
    TOO_BIG,
    UDP,
    UNREACHABLE,
    around,
    build,
    icmp_error,
    look,
    segment,
)
from tests.support.sst_world import REQUIRED, Gate, World

A4, B4, C4 = "192.0.2.1", "198.51.100.7", "203.0.113.9"
A6, B6, C6 = "2001:db8:1::1", "2001:db8:2::2", "2001:db8:3::3"
PATIENCE = 2.0


class Ledger:
    """A plane that only writes down, and checks what leaves."""

    def __init__(self) -> None:
        self.open: dict[int, tuple[Caught, float]] = {}
        self.fates: Counter[str] = Counter()
        self.entered: list[Entry] = []

    def enter(self, entry: Entry) -> bool:
        assert entry.sealed_local
        assert entry.sealed_remote
        assert 0 <= entry.epoch < 4
        self.entered.append(entry)
        return len(self.entered) % 3 > 0  # now and then there is no room

    def decline(self, leg: Leg, flow: PortFlow, lifespan: float) -> None:
        assert lifespan > 0
        self.fates["declined"] += 1

    def forget(self, leg: Leg, remote: object = None) -> None:
        self.fates["forgotten"] += 1

    def shield(self, local: object, remote: object) -> None:
        raise AssertionError("nobody asked for a shield")

    unshield = shield

    def release(self, number: int, packet: bytes | None = None, epoch: int | None = None) -> None:
        caught, _ = self.open.pop(number)
        self.fates[f"{caught.way.value} released"] += 1
        if packet is None:
            return
        assert len(packet) == len(caught.packet)
        if packet == caught.packet:
            return
        before, after = (look(each, quoted=True) for each in (caught.packet, packet))
        assert (before.source, before.destination) == (after.source, after.destination)
        assert before.protocol == after.protocol
        if caught.way is Way.OPEN and caught.reason is not Reason.QUOTE:
            assert not after.flagged
        if caught.way is Way.SEAL and after.protocol in (TCP, UDP):
            assert after.flagged

    def drop(self, number: int) -> None:
        caught, _ = self.open.pop(number)
        self.fates[f"{caught.way.value} dropped"] += 1

    def counters(self) -> dict[str, int]:
        return dict(self.fates)


class Inputs:
    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.world = World(seed)
        settings = {"patience": PATIENCE, "hold_packets": 64, "wish": REQUIRED}
        strangers = self.chance.choice(tuple(Strangers))
        self.gate = self.world.gate("a", A4, A6, strangers=strangers, **settings)
        self.peer: Gate = self.world.gate("b", B4, B6, **settings)
        for here, there in ((A4, B4), (A6, B6)):
            self.world.send(self.gate, build(here, there, TCP, 40000, 22, flags=2))
        self.world.run(4.0)
        assert len(self.peer.got) == 2
        self.probes = [packet for _, packet in self.world.wire if look(packet).protocol == UDP]
        self.ledger = Ledger()
        self.gate.kernel.waiting.clear()
        self.gate.sealing._books.plane = self.ledger  # from now on it is judged packet by packet
        self.number = 0
        self.gate.kernel.arrive = self.probe  # type: ignore[method-assign]

    def hand_up(self, way: Way, leg: Leg, reason: Reason, packet: bytes, *rest: Any) -> None:
        self.number += 1
        caught = Caught(self.number, way, leg, reason, packet, *rest)
        self.ledger.open[self.number] = caught, self.world.now
        self.gate.act(self.gate.sealing.packet_caught, caught)

    def probe(self, packet: bytes) -> None:
        """What the peer sends by itself: probes."""
        flagged = look(packet).flagged
        self.hand_up(Way.OPEN, Leg.OUTSIDE, Reason.PROBE, packet, False, False, None, flagged)

    def one(self) -> None:
        chance = self.chance
        packet = self.packet()
        if chance.random() < 0.5:
            packet = self.garbled(packet)
        self.hand_up(
            chance.choice(tuple(Way)), chance.choice((Leg.OUTSIDE,) * 4 + (Leg.TUNNEL,)),
            chance.choice(tuple(Reason)), packet, chance.random() < 0.2, chance.random() < 0.3,
            chance.choice((None, 0, 1, 2, 3)), chance.random() < 0.5,
        )  # fmt: skip
        if self.number % 50 == 0:
            self.world.run(chance.choice((0.01, 0.5, 3.0)))
            self.check()

    def check(self) -> None:
        held = self.gate.sealing.report(self.world.now).held
        assert held == len(self.ledger.open) <= 64
        assert all(
            self.world.now - since < PATIENCE + 0.01 for _, since in self.ledger.open.values()
        )

    def packet(self) -> bytes:
        chance = self.chance
        here, there = chance.choice(((A4, B4), (A6, B6), (A4, C4), (A6, C6)))
        if chance.random() < 0.5:
            here, there = there, here
        protocol = chance.choice((TCP, UDP, TCP, UDP, 132, 33, 136, 47, 51, 1, 58, 139))
        ports = chance.choice((0, 22, 443, 40000, chance.randrange(65536))), chance.randrange(65536)
        body = segment(here, there, protocol if protocol in (6, 17) else UDP, ports, self.words())
        extensions = tuple(
            (kind, chance.randbytes(6 + 8 * chance.randrange(3)))
            for kind in (0, 43, 60, 43, 60, 135, 140)
            if chance.random() < 0.15
        )
        options = chance.randbytes(4 * chance.randrange(11)) if chance.random() < 0.2 else b""
        offset = chance.choice((0, 0, 0, 0, 8, 600))
        whole = around(
            body, here, there, protocol, flagged=chance.random() < 0.6, dscp=chance.randrange(64),
            ecn=chance.randrange(4), options=options if ":" not in here else b"",
            extensions=extensions if ":" in here else (), offset=offset,
            more=chance.random() < 0.1, dont_fragment=chance.random() < 0.5,
        )  # fmt: skip
        kind = chance.randrange(10)
        if kind < 4:
            return whole
        if kind == 4:
            return chance.choice(self.probes)
        if kind == 5:
            return chance.randbytes(chance.randrange(120))
        if kind == 6:
            return bytes((chance.choice((0x45, 0x60, 0x4F, 0x44, 0x50)),)) + chance.randbytes(99)
        about = build(here, there, chance.choice((TCP, UDP)), *(p or 1 for p in ports), b"x" * 40)
        if chance.random() < 0.7:
            about = with_flag(about, flagged=True)
        for _ in range(chance.choice((1, 1, 1, 2, 4))):  # an error about an error about ...
            to = chance.choice((None, None, None, look(about, quoted=True).destination))
            about = icmp_error(
                about, there, chance.choice((UNREACHABLE, TOO_BIG, TIME_EXCEEDED)), to=to,
                quote=chance.choice((0, 8, 20, 27, 28, 48, 60, 512)),
            )  # fmt: skip
        return about

    def words(self) -> bytes:
        return self.chance.randbytes(self.chance.randrange(40))

    def garbled(self, packet: bytes) -> bytes:
        chance = self.chance
        octets = bytearray(packet)
        for _ in range(chance.choice((1, 1, 2, 8))):
            if octets:
                octets[chance.randrange(min(len(octets), 80))] = chance.choice(
                    (0, 0xFF, chance.randrange(256))
                )
        if chance.random() < 0.4:
            del octets[chance.randrange(len(octets) + 1) :]
        return bytes(octets)


def throw(seed: int, count: int) -> Counter[str]:
    inputs = Inputs(seed)
    for _ in range(count):
        inputs.one()
    inputs.world.run(PATIENCE + 1.0)
    inputs.check()
    assert not inputs.ledger.open
    fates = inputs.ledger.fates
    assert fates["seal released"] + fates["seal dropped"] + fates["open released"] + fates[
        "open dropped"
    ] == inputs.number  # fmt: skip
    # What was dropped is counted by its reason, and only that.
    dropped = fates["seal dropped"] + fates["open dropped"]
    assert 0 < sum(inputs.gate.trace.drops.values()) <= dropped
    return fates + inputs.gate.trace.drops


def test_some_inputs() -> None:
    found = throw(1, 3000)
    assert len(found) > 20, found  # many kinds of fates and reasons


@pytest.mark.fuzz
@pytest.mark.parametrize("seed", range(2, 12))
def test_sst_16_17_and_21_ten_thousand_inputs(seed: int) -> None:
    throw(seed, 10_000)


@pytest.mark.fuzz
def test_flagged_packets_of_chance_reach_no_port_by_aim() -> None:
    """Strangers' packets into the model of the kernel: 2^-16 each, and the maps stay bounded."""
    world = World(7)
    a = world.gate("a", A4, flows=256, strangers=Strangers.DROP)
    world.gate("b", B4)
    for number in range(6_000):
        ports = world.chance.randrange(1, 65536), 22
        world.inject(build(B4, A4, UDP, *ports, b"%d" % number, flagged=True))
        world.run(0.001)
    world.run(5.0)
    reached = Counter(seen.ports[1] for seen in a.got if seen.ports)
    assert sum(reached.values()) > 3_000
    assert reached[22] <= 5
    assert len(a.kernel._seal) <= 256
    # Nobody here knew these flows: they take a share of the fast path, and no more.
    assert len(a.kernel._seal) <= 256 // 2


def test_what_the_packet_code_says_of_anything() -> None:
    """`place_of` and `seal` either do it or name why not."""
    inputs = Inputs(3)
    key = inputs.gate.own[0].port_key(inputs.peer.own[0].public, Algorithm.FF1_AES_128, None)
    permutation, signal = Permutation(key), inputs.gate.sealing._books.signal
    reasons: Counter[str] = Counter()
    for _ in range(3000):
        packet = inputs.garbled(inputs.packet())
        try:
            place = place_of(packet)
            wire = seal(packet, permutation, signal)
            assert len(wire) == len(packet)
            if place.source_port is not None:
                assert signal.flagged(wire)
        except (NotEligible, PacketError) as error:
            reasons[error.trigger] += 1
    assert len(reasons) > 8, reasons


def test_probes_of_chance_are_answered_to_nobody() -> None:
    """A forged or garbled question has no answer, and so no amplification."""
    inputs = Inputs(5)
    sent: list[object] = []
    inputs.gate.obey = lambda orders: sent.extend(  # type: ignore[method-assign]
        order for order in orders if isinstance(order, SendProbe)
    )
    question = next(
        packet for name, packet in inputs.world.wire if name == "b" and look(packet).protocol == UDP
    )
    for place in range(28, len(question)):
        for bit in range(8):
            octets = bytearray(question)
            octets[place] ^= 1 << bit
            inputs.probe(bytes(octets))
    assert sent == []
