"""Random lives of gateways with port encryption, with somebody bad between them.

The middle loses, strips, plays again, forges, reorders, delays.  Whatever happens: nothing that
requires port encryption leaves without; what the middle left alone comes to the port that it was
sent to, or not at all; what waits is bounded; each packet has one fate; nothing raises.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from ipaddress import ip_address

import pytest

from dnsrecords.trust import Trust
from oegw.sst.interface import Wish
from oegw.sst.settings import Fragments, Strangers
from policy.flow import Flow
from policy.rule import Sst
from tests.support.sst_kernel import with_flag
from tests.support.sst_wire import (
    ACK,
    SYN,
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
from tests.support.sst_world import NOON, OFF, ONLY, REQUIRED, Gate, World, Zone

A4, B4, C4 = "192.0.2.1", "198.51.100.7", "203.0.113.9"
A6, B6, C6 = "2001:db8:1::1", "2001:db8:2::2", "2001:db8:3::3"
HOST_A, HOST_B = "192.0.2.65", "198.51.100.66"
SERVICES = (22, 53, 443, 993)
PATIENCE = 2.0


@dataclass(frozen=True)
class Sent:
    """What a host sent.  ``required``: must not be seen in clear.  ``answers``: something that was
    forged, and so may arrive anywhere."""

    gate: Gate
    source: str
    destination: str
    protocol: int
    ports: tuple[int, int]
    required: bool
    answers: bool = False


class Life:
    """``seed`` decides everything."""

    def __init__(self, seed: int) -> None:
        self.chance = chance = random.Random(seed)
        self.midnight = chance.random() < 0.3
        self.world = World(seed, NOON + 43200 - 100 if self.midnight else NOON)
        wishes = (OFF, ONLY, REQUIRED, REQUIRED)
        self.gates = [
            self.world.gate(
                name, *addresses, wish=chance.choice(wishes), patience=PATIENCE,
                hold_packets=chance.choice((4, 64)), flows=chance.choice((16, 4096)),
                strangers=chance.choice(tuple(Strangers)),
                fragments=chance.choice(tuple(Fragments)),
                flow_lifespan=chance.choice((5.0, 600.0)),
                probe_interval=chance.choice((10.0, 60.0)),
            )
            for name, addresses in (("a", (A4, A6)), ("b", (B4, B6)), ("c", (C4, C6)))
        ]  # fmt: skip
        self.world.behind(self.gates[0], HOST_A)
        self.world.behind(self.gates[1], HOST_B)
        for gate in self.gates:
            for other in self.gates:
                if other is not gate:
                    for host in sorted(other.hosts, key=str):
                        if chance.random() < 0.5:
                            gate.wishes[host] = chance.choice(wishes)
        self.wishes = {gate.name: dict(gate.wishes) for gate in self.gates}
        self.malice = chance.choice((0.0, 0.05, 0.3))
        self.sent: dict[bytes, Sent] = {}
        self.touched: set[bytes] = set()
        self.seen: list[bytes] = []
        self.number = 0
        self.fates: Counter[str] = Counter()
        self.world.middle = self.middle
        self.world.arrived = self.arrived

    # The network between.

    def middle(self, packet: bytes) -> list[tuple[float, bytes]]:
        self.look_at(packet)
        chance = self.chance
        self.seen.append(packet)
        if chance.random() >= self.malice:
            return [(0.01, packet)]
        delay = chance.choice((0.001, 0.01, 0.3))
        match chance.randrange(6):
            case 0:
                return []
            case 1:
                return [(delay, self.spoiled(with_flag(packet, flagged=False)))]
            case 2:
                return [(delay, packet), (delay + 0.1, packet)]
            case 3:
                old = chance.choice(self.seen[-200:])
                return [(0.01, packet), (delay, self.spoiled(old))]
            case 4:
                return [(0.01, packet), (delay, self.spoiled(self.forged(packet)))]
            case _:
                return [(delay, packet)]

    def forged(self, packet: bytes) -> bytes:
        chance = self.chance
        seen = look(packet, quoted=True)
        ports = chance.randrange(1, 65536), chance.choice((*SERVICES, chance.randrange(1, 65536)))
        kind = chance.randrange(4)
        if kind == 0:
            return with_flag(packet, flagged=True)
        if kind == 1:
            changed = bytearray(packet)
            changed[chance.randrange(20, len(changed))] ^= 1 << chance.randrange(8)
            return bytes(changed)
        if kind == 2:
            return icmp_error(
                packet, seen.destination, chance.choice((UNREACHABLE, TOO_BIG, TIME_EXCEEDED))
            )
        return build(
            str(seen.source), str(seen.destination), chance.choice((TCP, UDP)), *ports,
            self.tag(), flags=chance.choice((SYN, ACK)), flagged=chance.random() < 0.7,
        )  # fmt: skip

    def spoiled(self, packet: bytes) -> bytes:
        """From now on whoever gets this packet's words may get them anywhere."""
        self.touched.add(words_of(packet))
        return packet

    def look_at(self, packet: bytes) -> None:
        """On the public link."""
        seen = look(packet, quoted=True)
        if not seen.fragment:
            assert look(packet).right, "a wrong checksum on the public link"
        sent = self.sent.get(words_of(packet))
        if sent is None or seen.fragment:
            return
        if not seen.flagged:
            assert not sent.required, f"{sent} left in clear"
            assert seen.ports == sent.ports
        else:
            assert seen.ports is not None
            assert all(seen.ports)
            assert seen.dont_fragment

    def arrived(self, gate: Gate, packet: bytes) -> None:
        """At a host."""
        words = words_of(packet)
        sent = self.sent.get(words)
        if sent is None or words in self.touched or sent.answers:
            self.fates["forged"] += 1
            return
        seen = look(packet, quoted=True)
        assert str(seen.destination) == sent.destination
        if seen.flagged and gate.settings.strangers is Strangers.PASS:
            self.fates["passed"] += 1
            return
        assert not seen.flagged
        if not seen.fragment:
            assert seen.right
            if seen.ports != sent.ports and self.midnight and self.malice:
                # Whoever keeps all of a flow from coming before midnight has it opened by the
                # new day's key behind it: the flow keeps its own, and nobody here knows it.
                self.fates["wrong behind midnight"] += 1
                return
            assert seen.ports == sent.ports, f"wrong delivery: {sent} came as {seen.ports}"
        self.fates["delivered"] += 1

    # What happens.

    def tag(self) -> bytes:
        self.number += 1
        return b"words %010d" % self.number

    def step(self) -> None:
        steps = (
            (20, self.packet), (8, self.answer), (3, self.errors), (2, self.fragments),
            (1, self.native_flag), (10, self.time_passes), (0.7, self.dns), (0.4, self.restart),
            (0.4, self.forget), (1, self.flood), (0.2, self.policy),
        )  # fmt: skip
        [step] = self.chance.choices([s for _, s in steps], [w for w, _ in steps])
        step()
        self.check()

    def ends(self) -> tuple[Gate, str, str]:
        chance = self.chance
        gate, other = chance.sample(self.gates, 2)
        version = chance.choice((4, 4, 6))
        here, there = (
            chance.choice(sorted(str(h) for h in each.hosts if h.version == version))
            for each in (gate, other)
        )
        return gate, here, there

    def packet(self) -> None:
        gate, here, there = self.ends()
        protocol = self.chance.choice((TCP, UDP))
        ports = 40000 + self.chance.randrange(8), self.chance.choice(SERVICES)
        self.send(gate, here, there, protocol, ports, SYN)

    def send(
        self, gate: Gate, here: str, there: str, protocol: int, ports: tuple[int, int],
        flags: int = ACK, *, answers: bool = False,
    ) -> None:  # fmt: skip
        words, asked = self.tag(), self.chance.random() < 0.2
        wish = gate.wish(Flow(ip_address(here), ip_address(there), protocol, *ports))
        required = self.required(wish, asked=asked)
        self.sent[words] = Sent(gate, here, there, protocol, ports, required, answers)
        self.world.send(gate, build(here, there, protocol, *ports, words, flags=flags), asked=asked)

    @staticmethod
    def required(wish: Wish, *, asked: bool) -> bool:
        return wish.strength is REQUIRED.strength and (asked or wish.sst is Sst.ONLY)

    def answer(self) -> None:
        gate = self.chance.choice(self.gates)
        came = [seen for seen in gate.got[-50:] if seen.ports is not None and not seen.fragment]
        if not came:
            return
        seen = self.chance.choice(came)
        assert seen.ports is not None
        there, words = str(seen.source), seen.payload
        if ip_address(there) in gate.hosts:
            return
        sent = self.sent.get(words)
        forged = sent is None or sent.answers or words in self.touched or sent.ports != seen.ports
        self.send(
            gate, str(seen.destination), there, seen.protocol, seen.ports[::-1], answers=forged
        )

    def errors(self) -> None:
        gate = self.chance.choice(self.gates)
        if gate.packets:
            about = self.chance.choice(gate.packets[-50:])
            kinds = self.chance.choice((UNREACHABLE, TOO_BIG, TIME_EXCEEDED))
            self.world.send(gate, icmp_error(about, look(about, quoted=True).destination, kinds))

    def fragments(self) -> None:
        gate, here, there = self.ends()
        ports = 41000, self.chance.choice(SERVICES)
        body = segment(here, there, UDP, ports, self.chance.randbytes(1000))
        for offset in (0, 600):
            self.world.send(
                gate,
                around(
                    body[offset : offset + 600], here, there, UDP, offset=offset,
                    more=not offset, dont_fragment=False, identification=self.number & 0xFFFF,
                ),
            )  # fmt: skip

    def native_flag(self) -> None:
        gate, here, there = self.ends()
        self.world.send(gate, build(here, there, UDP, 5, 6, self.tag(), flagged=True))

    def time_passes(self) -> None:
        self.world.run(self.chance.choice((0.01, 0.1, 1.0, 3.0, 30.0)))

    def dns(self) -> None:
        chance = self.chance
        gate = chance.choice(self.gates)
        address = chance.choice(sorted(gate.hosts, key=str))
        if chance.random() < 0.4:
            word = chance.choice(("none", "silence", "bogus"))
            self.world.records[address] = Zone(word=word, ttl=5.0)
        else:
            self.world.publish(
                address, gate, trust=chance.choice((Trust.INSECURE, Trust.SECURE)),
                ttl=chance.choice((5.0, 600.0)), delay=chance.choice((0.01, 1.0, 5.0)),
            )  # fmt: skip

    def restart(self) -> None:
        self.chance.choice(self.gates).restart()

    def forget(self) -> None:
        gate = self.chance.choice(self.gates)
        gate.kernel.forget(None)  # type: ignore[arg-type]

    def policy(self) -> None:
        gate = self.chance.choice(self.gates)
        gate.act(gate.sealing.replace_policy)

    def flood(self) -> None:
        """Flagged packets of chance, in a peer's name and in nobody's."""
        if not self.malice:
            return
        chance = self.chance
        _gate, here, there = self.ends()
        for _ in range(20):
            source = here if chance.random() < 0.5 else str(ip_address(chance.getrandbits(31) + 1))
            if ":" in there and ":" not in source:
                source = here
            ports = chance.randrange(1, 65536), chance.randrange(1, 65536)
            forged = build(
                source, there, chance.choice((TCP, UDP)), *ports, self.tag(), flagged=True
            )
            self.world.inject(forged, 0.001)

    # What holds.

    def check(self) -> None:
        for gate in self.gates:
            report = gate.sealing.report(self.world.now)
            assert report.held == len(gate.kernel.waiting) <= gate.settings.hold_packets
            now = self.world.now
            assert all(now - each.since < PATIENCE + 0.01 for each in gate.kernel.waiting.values())
            count = gate.kernel.counters_
            assert count["caught"] == count["decided"] + len(gate.kernel.waiting)

    def wind_down(self) -> None:
        self.malice = 0.0
        self.world.run(PATIENCE + 10.0)
        self.check()


def words_of(packet: bytes) -> bytes:
    """The payload, by which a packet is known whatever became of its ports."""
    seen = look(packet, quoted=True)
    if seen.protocol in (TCP, UDP):
        return seen.payload
    return b""


def live(seed: int, steps: int) -> Counter[str]:
    life = Life(seed)
    done: Counter[str] = Counter()
    try:
        for _ in range(steps):
            life.step()
        life.wind_down()
    except Exception as error:
        tail = "\n".join(
            f"{gate.name} {line}" for gate in life.gates for line in gate.trace.lines[-25:]
        )
        raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}\n{tail}") from error
    for gate in life.gates:
        done.update(gate.kernel.counters_)
    return done + life.fates


@pytest.mark.parametrize("seed", range(30))
def test_a_short_life(seed: int) -> None:
    live(seed, 150)


def test_much_happens_in_these_lives() -> None:
    """Else the others would show nothing."""
    total: Counter[str] = Counter()
    for seed in range(12):
        total += live(seed, 150)
    for what in ("delivered", "forged", "sealed", "opened", "clear", "came_clear", "caught"):
        assert total[what] > 20, total


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1000, 1300))
def test_a_long_life(seed: int) -> None:
    live(seed, 600)
