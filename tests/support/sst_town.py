"""Two gateways with port encryption, each a `Sealing` over a `MemoryPlane`, and the path between.

Nothing is cut out but kernel and network: packets are real, sealed and opened by the real code.
Time is a number, the DNS a table, the path a function.

    town = Town()
    town.a.send(packet)            # from a host behind A, towards one behind B
    town.run(1.0)                  # packets on their way, look-ups, timers
    town.b.delivered               # what came out behind B
    town.wire                      # what was seen between them
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from typing import Any

from dnsrecords.outcome import NothingFound, SstKeyOutcome, SstKeysFound, Unanswered
from dnsrecords.sstkey import SstKey
from dnsrecords.trust import Trust
from oegw.sst.books import Surroundings
from oegw.sst.directory import KeyDirectory
from oegw.sst.interface import Caught, IPAddress, Leg, Way, Wish
from oegw.sst.memory import Connections, MemoryPlane
from oegw.sst.orders import AskKeys, Order, SendProbe, TellShielded
from oegw.sst.probe import is_probe
from oegw.sst.sealing import Sealing
from oegw.sst.settings import SstSettings
from oegw.sst.statickey import StaticKey
from policy.flow import Flow
from policy.rule import Category, Require, Rule, Sst, SstStrength
from policy.table import PolicyTable
from tests.support.playbook import CountingTrace

HOST_A, HOST_B = ip_address("192.1.0.65"), ip_address("192.2.0.66")
GATE_A, GATE_B = ip_address("192.1.1.4"), ip_address("192.1.1.5")
HOST_A6, HOST_B6 = ip_address("2001:db8:1::65"), ip_address("2001:db8:2::66")
GATE_A6, GATE_B6 = ip_address("2001:db8:11::4"), ip_address("2001:db8:11::5")

DAY = 86400.0
NOON = 20_000 * DAY + DAY / 2
"""Seconds since 1970 when a town begins."""
LATENCY = 0.01

ONLY = Rule("only", Category.PERMIT, sst=Sst.ONLY)
REQUIRED = replace(ONLY, sst_strength=SstStrength.REQUIRED)
INNER = Rule("inner", Category.OPPORTUNISTIC, sst=Sst.INNER)
OFF = Rule("off", Category.PERMIT)

PathOf = Callable[[bytes], bytes | None]
"""What the path makes of a packet: another, or nothing."""


def whole(packet: bytes) -> bytes:
    return packet


def silent(packet: bytes) -> None:
    return None


def static_key(number: int) -> StaticKey:
    return StaticKey(number.to_bytes(32, "big"))


KEY_A, KEY_B = static_key(1001), static_key(2002)


def records(
    gateway: IPAddress, key: StaticKey, *algorithms: int, trust: Trust = Trust.INSECURE
) -> SstKeysFound:
    keys = tuple(SstKey(10, gateway, each, key.public) for each in algorithms or (1,))
    return SstKeysFound(keys, 3600.0, trust)


def nothing(ttl: float = 60.0) -> NothingFound:
    return NothingFound(ttl, "no such record")


DEAD = Unanswered("no answer in time")


@dataclass(frozen=True)
class Wire:
    """A packet as the path saw it, before it did anything to it."""

    at: float
    by: str
    leg: Leg
    packet: bytes

    @property
    def probe(self) -> bool:
        return is_probe(self.packet)


class Side:
    """One gateway, and the hosts behind it.  ``skew``: seconds that its clock is ahead."""

    def __init__(
        self, town: Town, name: str, addresses: tuple[IPAddress, ...], own: tuple[StaticKey, ...],
        rule: Rule, settings: SstSettings,
    ) -> None:  # fmt: skip
        self.town, self.name, self.addresses, self.own = town, name, addresses, own
        self.rule, self.settings = rule, settings
        self.skew = 0.0
        self.asked: list[IPAddress] = []
        self.probes: list[bytes] = []
        self.shielded: list[tuple[int, str | None]] = []
        self.delivered: list[bytes] = []
        self.trace = CountingTrace()
        self.connections = Connections()
        self.start()

    def start(self, lingering: frozenset[int] | None = None) -> None:
        """A new process; connection tracking, of the kernel, goes on."""
        self.plane = MemoryPlane(self.settings, lambda: self.town.now, self.connections)
        self.directory = KeyDirectory()
        rng = random.Random(f"{self.name} {self.town.now}")
        self.sealing = Sealing(
            self.settings,
            Surroundings(
                plane=self.plane, directory=self.directory, own=self.own,
                addresses=self.addresses, wish=self._wish, knows=self.connections.knows,
                trace=self.trace, random=rng.randbytes, started=self.town.now,
                lingering=self.connections.epochs() if lingering is None else lingering,
            ),
        )  # fmt: skip
        self._table = PolicyTable((), self.rule)
        _at_once(self.plane.start(self._table, self._caught))
        self._taken = 0

    def stop(self) -> None:
        self.sealing.close()
        _at_once(self.plane.close())

    def use_rule(self, rule: Rule) -> None:
        self.rule = rule
        self._table = PolicyTable((), rule)
        _at_once(self.plane.replace_policy(self._table))
        self.follow(self.sealing.replace_policy(self.town.now, self.wall))

    @property
    def wall(self) -> float:
        return NOON + self.town.now + self.skew

    @property
    def events(self) -> list[str]:
        return [event for category, event, _ in self.trace.lines if category == "sst"]

    def told(self, event: str) -> list[dict[str, Any]]:
        """The fields of each event of this name."""
        return [fields for _, name, fields in self.trace.lines if name == event]

    @property
    def drops(self) -> Counter[str]:
        return self.trace.drops

    def send(
        self, packet: bytes, leg: Leg = Leg.OUTSIDE, *, asked: bool = False, own: bool = False
    ) -> None:
        """A packet from a host behind this gateway, or from itself."""
        self.plane.leave(packet, leg, asked=asked, own=own)
        self.carry()

    def arrive(self, packet: bytes, leg: Leg = Leg.OUTSIDE) -> None:
        self.plane.arrive(packet, leg)
        self.carry()

    def follow(self, orders: list[Order]) -> None:
        for order in orders:
            match order:
                case AskKeys(address=address):
                    self.asked.append(address)
                    self.town.look_up(self, address)
                case SendProbe(packet=packet):
                    self.probes.append(packet)
                    self.town.travel(self, Leg.OUTSIDE, packet)
                case TellShielded(request=request, reason=reason):
                    self.shielded.append((request, reason))
        self.carry()

    def carry(self) -> None:
        """Packets that passed go where they go: into the path, or to hosts."""
        while self._taken < len(self.plane.passed):
            passed = self.plane.passed[self._taken]
            self._taken += 1
            if passed.way is Way.SEAL:
                self.town.travel(self, passed.leg, passed.packet)
            else:
                self.delivered.append(passed.packet)

    def tick(self) -> None:
        due = self.sealing.next_timer()
        if due is not None and due <= self.town.now:
            self.follow(self.sealing.handle_timer(self.town.now, self.wall))

    def _caught(self, caught: Caught) -> None:
        self.follow(self.sealing.packet_caught(caught, self.town.now, self.wall))

    def _wish(self, flow: Flow) -> Wish:
        rule = self._table.lookup(flow).rule
        return Wish(rule.sst, rule.sst_strength, rule.require is Require.SECURE)


class Town:
    """``dns``: outcome by address; ``dns_delay`` in seconds, None for a DNS that never answers."""

    def __init__(
        self, rule_a: Rule = ONLY, rule_b: Rule = OFF, settings: SstSettings | None = None,
        *, own_a: tuple[StaticKey, ...] = (KEY_A,), own_b: tuple[StaticKey, ...] = (KEY_B,),
        skew_a: float = 0.0, skew_b: float = 0.0,
    ) -> None:  # fmt: skip
        settings = settings or SstSettings()
        self.now = 0.0
        self.wire: list[Wire] = []
        self.a_to_b: PathOf = whole
        self.b_to_a: PathOf = whole
        self.dns_delay: float | None = LATENCY
        self.dns: dict[IPAddress, SstKeyOutcome] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self.a = Side(self, "a", (GATE_A, GATE_A6), own_a, rule_a, settings)
        self.b = Side(self, "b", (GATE_B, GATE_B6), own_b, rule_b, settings)
        self.a.skew, self.b.skew = skew_a, skew_b
        for own, places in (
            (own_a, ((HOST_A, GATE_A), (HOST_A6, GATE_A6))),
            (own_b, ((HOST_B, GATE_B), (HOST_B6, GATE_B6))),
        ):
            for host, gateway in places if own else ():
                self.dns[host] = self.dns[gateway] = records(gateway, own[0])

    def publish(self, key: StaticKey, old: StaticKey, *algorithms: int) -> None:
        """In all records another key takes the place of ``old``."""
        for host, outcome in self.dns.items():
            if isinstance(outcome, SstKeysFound) and outcome.keys[0].public_key == old.public:
                self.dns[host] = records(outcome.keys[0].gateway, key, *algorithms)

    def run(self, seconds: float) -> None:
        """Let time pass, with all that happens meanwhile."""
        end = self.now + seconds
        while True:
            moments = [side.sealing.next_timer() for side in (self.a, self.b)]
            moments.append(self._events[0][0] if self._events else None)
            due = min((moment for moment in moments if moment is not None), default=end)
            if due > end:
                break
            self.now = max(self.now, due)
            if self._events and self._events[0][0] <= self.now:
                heapq.heappop(self._events)[2]()
            else:
                self.a.tick()
                self.b.tick()
                if self.now >= end and not self._events:
                    break
        self.now = end

    def later(self, seconds: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._numbers), what))

    def look_up(self, side: Side, address: IPAddress) -> None:
        if self.dns_delay is None:
            return

        def answer() -> None:
            outcome = self.dns.get(address, nothing())
            side.directory.learn(address, outcome, self.now)
            side.follow(side.sealing.keys_learned(address, self.now, side.wall))

        self.later(self.dns_delay, answer)

    def travel(self, side: Side, leg: Leg, packet: bytes) -> None:
        """A packet sets out from one side to the other."""
        self.wire.append(Wire(self.now, side.name, leg, packet))
        path, other = (self.a_to_b, self.b) if side is self.a else (self.b_to_a, self.a)
        arrived = path(packet) if leg is Leg.OUTSIDE else packet  # nobody reads into a tunnel
        if arrived is not None:
            self.later(LATENCY, lambda: other.arrive(arrived, leg))

    def tunnel(self, number: int, key: bytes, *, sending: bool = True) -> None:
        """Both sides agree on a tunnel between their hosts' networks."""
        for side, local, remote in ((self.a, NET_A, NET_B), (self.b, NET_B, NET_A)):
            side.follow(side.sealing.tunnel_keyed(number, local, remote, key, self.now))
        for side in (self.a, self.b) if sending else ():
            side.follow(side.sealing.send_sealed(number, self.now, side.wall))

    @property
    def sealed_wire(self) -> list[bytes]:
        """What was seen, without probes."""
        return [each.packet for each in self.wire if not each.probe]


NET_A, NET_B = ip_network("192.1.0.0/24"), ip_network("192.2.0.0/24")


def _at_once(work: Coroutine[Any, Any, None]) -> None:
    """A coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration:
        return
    work.close()
    raise AssertionError("it waits")
