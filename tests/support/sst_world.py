"""Gateways with port encryption in virtual time: real cores, a model of the kernel, a bad network.

    world = World()
    a, b = world.gate("a", "192.0.2.1"), world.gate("b", "198.51.100.7")
    world.send(a, build("192.0.2.1", "198.51.100.7", TCP, 40000, 22, b"hello"))
    world.run(5.0)
    assert b.got[-1].ports == (40000, 22)

Hosts are the gateways themselves, and whoever is said to be behind them.  The reverse zone is
``world.records``: keys, or a word for what the DNS does instead.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from dnsrecords.outcome import (
    Malformed,
    NothingFound,
    SstKeyOutcome,
    SstKeysFound,
    Unanswered,
)
from dnsrecords.sstkey import SstKey
from dnsrecords.trust import Trust
from oegw.sst.books import Surroundings
from oegw.sst.directory import KeyDirectory
from oegw.sst.interface import Caught, Wish
from oegw.sst.orders import AskKeys, Order, SendProbe, TellShielded
from oegw.sst.sealing import Sealing
from oegw.sst.settings import SstSettings
from oegw.sst.statickey import StaticKey
from policy.flow import Flow
from policy.rule import Sst, SstStrength
from tests.support.playbook import CountingTrace
from tests.support.sst_kernel import KernelModel
from tests.support.sst_wire import IPAddress, Seen, look

NOON = 20_000 * 86400 + 43200.0
OFF = Wish(Sst.OFF, SstStrength.OPPORTUNISTIC)
ONLY = Wish(Sst.ONLY, SstStrength.OPPORTUNISTIC)
REQUIRED = Wish(Sst.ONLY, SstStrength.REQUIRED)

Middle = Callable[[bytes], list[tuple[float, bytes]]]
"""What becomes of a packet on the public link: when, and as what, it arrives."""


def straight(packet: bytes) -> list[tuple[float, bytes]]:
    return [(0.01, packet)]


@dataclass
class Zone:
    """What the DNS says of one address: keys, or "none", "silence", "bogus"."""

    keys: tuple[SstKey, ...] = ()
    word: str = ""
    trust: Trust = Trust.INSECURE
    ttl: float = 3600.0
    delay: float = 0.05

    def outcome(self) -> SstKeyOutcome:
        if self.word == "silence":
            return Unanswered("silence")
        if self.word == "bogus":
            return Malformed("bogus", 60.0)
        if not self.keys:
            return NothingFound(self.ttl, "none")
        return SstKeysFound(self.keys, self.ttl, self.trust)


class Gate:
    """One gateway; ``restart`` makes its process anew, the kernel stays."""

    def __init__(
        self, world: World, name: str, addresses: tuple[IPAddress, ...], wish: Wish,
        settings: SstSettings, *, published: bool,
    ) -> None:  # fmt: skip
        self.world = world
        self.name = name
        self.addresses = addresses
        self.hosts = set(addresses)
        self.settings = settings
        self.wishes: dict[IPAddress, Wish] = {}
        self.otherwise = wish
        self.own = (StaticKey(world.chance.randbytes(32)),)
        self.clock_is_off_by = 0.0
        self.trace = CountingTrace()
        self.got: list[Seen] = []
        self.packets: list[bytes] = []
        self.shielded: list[TellShielded] = []
        self.questions: list[IPAddress] = []
        self.kernel = KernelModel(
            self.wish, self.hosts.__contains__, self._out, self._inside, self._caught,
            lambda: world.now, room=settings.flows,
        )  # fmt: skip
        self.alarms: set[float] = set()
        self.begin()
        if published:
            for address in addresses:
                world.publish(address, self)

    def begin(self) -> None:
        self.directory = KeyDirectory()
        self.sealing = Sealing(
            self.settings,
            Surroundings(
                self.kernel, self.directory, self.own, self.addresses, self.wish,
                self.kernel.knows, self.trace, self.world.chance.randbytes, self.world.now,
            ),
        )  # fmt: skip

    def restart(self) -> None:
        self.sealing.close()
        self.begin()

    def roll(self) -> None:
        """Another static key, published; the old one still opens."""
        self.own = (StaticKey(self.world.chance.randbytes(32)), *self.own[:1])
        self.restart()
        for address in self.addresses:
            self.world.publish(address, self)

    def key(self, number: int = 10, algorithm: int = 1) -> SstKey:
        return SstKey(number, self.addresses[0], algorithm, self.own[0].public)

    @property
    def wall(self) -> float:
        return self.world.wall + self.clock_is_off_by

    def wish(self, flow: Flow) -> Wish:
        return self.wishes.get(flow.destination, self.otherwise)

    def obey(self, orders: list[Order]) -> None:
        for order in orders:
            match order:
                case AskKeys(address=address):
                    self.questions.append(address)
                    zone = self.world.records.get(address, Zone())
                    self.world.after(zone.delay, lambda a=address, z=zone: self._answer(a, z))
                case SendProbe(packet=packet):
                    self.world.transmit(self, packet)
                case TellShielded():
                    self.shielded.append(order)
        self._set_alarm()

    def act(self, what: Callable[..., list[Order]], *given: Any) -> None:
        """Tell the core something, with both clocks."""
        self.obey(what(*given, self.world.now, self.wall))

    def _answer(self, address: IPAddress, zone: Zone) -> None:
        self.directory.learn(address, zone.outcome(), self.world.now)
        self.act(self.sealing.keys_learned, address)

    def _caught(self, caught: Caught) -> None:
        self.act(self.sealing.packet_caught, caught)

    def _out(self, packet: bytes) -> None:
        self.world.transmit(self, packet)

    def _inside(self, packet: bytes) -> None:
        self.packets.append(packet)
        self.got.append(look(packet, quoted=True))
        self.world.arrived(self, packet)

    def _set_alarm(self) -> None:
        moment = self.sealing.next_timer()
        if moment is None:
            return
        moment = max(moment, self.world.now)
        if not any(each <= moment + 1e-9 for each in self.alarms):
            self.alarms.add(moment)
            self.world.at(moment, lambda: self._ring(moment))

    def _ring(self, moment: float) -> None:
        self.alarms.discard(moment)
        self.act(self.sealing.handle_timer)


class World:
    def __init__(self, seed: int = 1, start: float = NOON) -> None:
        self.chance = random.Random(seed)
        self.now = 1000.0
        self._start = start - self.now
        self.gates: list[Gate] = []
        self.records: dict[IPAddress, Zone] = {}
        self.middle: Middle = straight
        self.wire: list[tuple[str, bytes]] = []
        """All that ever was on the public link, and whose gateway sent it."""
        self.arrived: Callable[[Gate, bytes], None] = lambda gate, packet: None
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    @property
    def wall(self) -> float:
        return self._start + self.now

    def gate(
        self, name: str, *addresses: str, wish: Wish = ONLY, published: bool = True, **settings: Any
    ) -> Gate:
        gate = Gate(
            self, name, tuple(map(ip_address, addresses)), wish, SstSettings(**settings),
            published=published,
        )  # fmt: skip
        self.gates.append(gate)
        return gate

    def publish(self, address: IPAddress, gate: Gate, **zone: Any) -> None:
        mine = [each for each in gate.addresses if each.version == address.version]
        keys = tuple(SstKey(10, mine[0], number, gate.own[0].public) for number in (1, 2))
        self.records[address] = Zone(keys, **zone)

    def behind(self, gate: Gate, host: str) -> IPAddress:
        """A host behind a gateway, with a record of its own."""
        address = ip_address(host)
        gate.hosts.add(address)
        self.publish(address, gate)
        return address

    def at(self, moment: float, what: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (moment, self._count, what))

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        self.at(self.now + seconds, what)

    def send(self, gate: Gate, packet: bytes, *, asked: bool = False) -> None:
        """A host of ours sends."""
        gate.kernel.leave(packet, asked=asked)

    def transmit(self, gate: Gate, packet: bytes) -> None:
        self.wire.append((gate.name, packet))
        for delay, arriving in self.middle(packet):
            self.inject(arriving, delay)

    def inject(self, packet: bytes, delay: float = 0.0) -> None:
        """A packet on the public link, whoever sent it."""
        destination = look(packet, quoted=True).destination
        for gate in self.gates:
            if destination in gate.hosts:
                self.after(delay, lambda g=gate: g.kernel.arrive(packet))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self._events and self._events[0][0] <= end:
            moment, _, what = heapq.heappop(self._events)
            self.now = max(self.now, moment)
            what()
        self.now = end
