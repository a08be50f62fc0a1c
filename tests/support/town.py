"""A town: any number of whole gateways in virtual time, with a network and a DNS of their own.

A house is what `oegw.daemon` is around the same cores: coordinator, keying core, ESP engine, with
interception, DNS and sockets played.  The packets are real ones, and what crosses the town between
houses is real ISAKMP and ESP; so a test says what hosts send, and reads what came and how.

    town = Town()
    sg_a = town.house("sg-a", "192.1.1.4", "192.1.0.0/24")
    sg_b = town.house("sg-b", "192.1.1.5", "192.2.0.0/24")
    town.publish(sg_a, "192.1.0.65")
    town.publish(sg_b, "192.2.0.66")
    assert town.ping("192.1.0.65", "192.2.0.66") == "tunnel"
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

from oegw.packet.flow import flow_of
from policy.flow import Flow
from policy.rule import Rule
from tests.support.town_dns import Zones
from tests.support.town_house import (
    ECHO,
    ICMP,
    REPLY,
    House,
    IPAddress,
    echo,
    enclosed,
    packet_of,
    ports,
    town_key,
)

__all__ = ["House", "Town", "echo", "ports", "town_key"]


@dataclass(frozen=True)
class Crossing:
    """Something between two houses.  ``kind``: "clear", "esp" or "ike"."""

    time: float
    kind: str
    source: IPAddress
    destination: IPAddress
    octets: int


@dataclass(frozen=True)
class Arrival:
    """A packet at its host, and how it came there: "clear", "tunnel" or "local"."""

    time: float
    flow: Flow
    how: str
    packet: bytes


@dataclass
class Town:
    """All houses, and what is between them.

    ``delay`` in seconds; ``loss`` and ``doubled`` are the parts of what crosses that is lost, or
    comes twice.  ``held_back(crossing)`` may keep something from arriving.  ``record``: whether
    crossings, arrivals, events and traces are kept, for a test to read.
    """

    seed: int = 1
    delay: float = 0.005
    loss: float = 0.0
    doubled: float = 0.0
    now: float = 1000.0
    zones: Zones = field(default_factory=Zones)
    houses: dict[str, House] = field(default_factory=dict)
    crossings: list[Crossing] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)
    held_back: Callable[[Crossing], bool] = lambda crossing: False
    record: bool = True

    def __post_init__(self) -> None:
        self._dice = random.Random(self.seed)
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self._pings = 0
        self._owner: dict[IPAddress, House | None] = {}

    def house(
        self,
        name: str,
        address: str,
        *inside: str,
        rules: tuple[Rule, ...] = (),
        default: Rule | None = None,
        ike: dict[str, Any] | None = None,
        check_own: bool = True,
        fqdn: str | None = None,
        **settings: Any,
    ) -> House:
        house = House(
            self, name, address, inside, rules, default, ike or {}, settings, check_own, fqdn
        )
        self.houses[name] = house
        self._owner.clear()
        return house

    def put_behind(self, house: House, gateway: House) -> None:
        """``house`` is a host in the network of ``gateway``."""
        house.behind = gateway
        self._owner.clear()

    def publish(self, house: House, *clients: str, with_key: bool = True) -> None:
        """The records of a gateway and its clients, as the draft's section 6 has them."""
        key = house.key.public_key()
        self.zones.publish_key(house.address, key)
        for client in clients:
            self.zones.delegate(ip_address(client), house.address, key if with_key else None)

    # Time.

    def at(self, moment: float, work: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._queue, (max(moment, self.now), self._order, work))

    def later(self, seconds: float, work: Callable[[], None]) -> None:
        self.at(self.now + seconds, work)

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while self._queue and self._queue[0][0] <= end:
            moment, _, work = heapq.heappop(self._queue)
            self.now = max(self.now, moment)
            work()
        self.now = end

    # The network.

    def owner(self, address: IPAddress) -> House | None:
        if address not in self._owner:
            owners = [h for h in self.houses.values() if h.owns(address)]
            behind = [h for h in owners if h.behind is not None]
            self._owner[address] = next(iter(behind or owners), None)
        return self._owner[address]

    def cross(self, kind: str, source: IPAddress, destination: IPAddress, data: bytes) -> None:
        """Something leaves a house, or a host without one, and is under way."""
        crossing = Crossing(self.now, kind, source, destination, len(data))
        if self.record:
            self.crossings.append(crossing)
        if self.held_back(crossing) or (self.loss and self._dice.random() < self.loss):
            return
        times = 2 if self.doubled and self._dice.random() < self.doubled else 1
        for again in range(times):
            self.later(
                self.delay * (1 + again), lambda: self._deliver(kind, source, destination, data)
            )

    def _deliver(self, kind: str, source: IPAddress, destination: IPAddress, data: bytes) -> None:
        house = self.owner(destination)
        if house is not None and house.behind is not None:
            if kind != "clear":
                data = enclosed(kind, source, destination, data)
            kind, house = "clear", house.behind
        if house is None:
            if kind == "clear":
                self.arrive(data, "clear")
        elif house.on:
            house.come_in(kind, source, destination, data)

    def arrive(self, packet: bytes, how: str) -> None:
        """At its host, which answers an echo request."""
        flow = flow_of(packet)
        if self.record:
            self.arrivals.append(Arrival(self.now, flow, how, packet))
        if flow.protocol == ICMP and packet[20] == ECHO:
            answer = packet_of(flow.destination, flow.source, ICMP, bytes((REPLY,)) + packet[21:])
            self._leave(answer)

    def _leave(self, packet: bytes) -> None:
        flow = flow_of(packet)
        house, there = self.owner(flow.source), self.owner(flow.destination)
        if house is None:
            self.cross("clear", flow.source, flow.destination, packet)
        elif house is there:
            self.arrive(packet, "local")
        elif house.on:
            house.leave(packet)

    def send(
        self, source: str, destination: str, protocol: int = ICMP, rest: bytes | None = None
    ) -> None:
        """A host sends a packet."""
        body = echo(0, REPLY) if rest is None else rest
        self._leave(packet_of(ip_address(source), ip_address(destination), protocol, body))

    def ping(self, source: str, destination: str, wait: float = 10.0) -> str | None:
        """An echo request; how its answer came back within ``wait`` seconds, or None."""
        self._pings += 1
        number, end = self._pings, self.now + wait
        self.send(source, destination, ICMP, echo(number))
        while self.now < end:
            self.run(min(0.05, end - self.now))
            for arrival in reversed(self.arrivals):
                if arrival.packet[20:] == echo(number, REPLY):
                    return arrival.how
        return None

    # To read.

    def came(self, source: str, destination: str) -> list[str]:
        """How the packets of a pair came, in order."""
        pair = (ip_address(source), ip_address(destination))
        return [a.how for a in self.arrivals if (a.flow.source, a.flow.destination) == pair]

    def clear_on_the_way(self, *hosts: str) -> list[Crossing]:
        """The clear packets between these hosts that were seen outside."""
        wanted = {ip_address(host) for host in hosts}
        return [
            c for c in self.crossings
            if c.kind == "clear" and c.source in wanted and c.destination in wanted
        ]  # fmt: skip
