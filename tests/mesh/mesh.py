"""A mesh: each of n gateways, with one client, has a tunnel to every other one.

Counted are what one gateway sends, asks and keeps.  If these grow in proportion to the number of
peers, a gateway's cost per peer does not depend on how many others there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.support.town import House, Town, echo

# The same for every size, so that what happens by the clock happens equally often.
FORMING = 20.0  # seconds in which the clients write to each other
SETTLING = 8.0  # seconds until what is redundant is gone


@dataclass(frozen=True)
class Counts:
    """Of one gateway, on average; ``most`` of the busiest."""

    gateways: int
    messages: float  # ISAKMP, sent
    queries: float  # DNS, asked of the resolver's server
    channels: float
    tunnels: float
    associations: float  # SAs in the datapath
    connections: float
    verdicts: float
    retransmissions: int  # in the whole mesh
    failures: int  # pings that were not answered through a tunnel, in the whole mesh
    spread: float  # messages of the busiest gateway by those of the idlest

    @property
    def peers(self) -> int:
        return self.gateways - 1


MEASURES: dict[str, Callable[[Counts], float]] = {
    "messages": lambda c: c.messages,
    "DNS queries": lambda c: c.queries,
    "channels": lambda c: c.channels,
    "tunnels": lambda c: c.tunnels,
    "SAs": lambda c: c.associations,
    "connections": lambda c: c.connections,
    "verdicts": lambda c: c.verdicts,
}


def client(number: int) -> str:
    return f"8.{number // 200}.{number % 200}.65"


def build(gateways: int) -> tuple[Town, list[House]]:
    town = Town(record=False)
    houses = []
    for number in range(gateways):
        network = f"8.{number // 200}.{number % 200}.0/24"
        house = town.house(f"gateway {number}", f"9.0.{number // 200}.{number % 200 + 1}", network)
        town.publish(house, client(number))
        houses.append(house)
    return town, houses


def run(gateways: int, crossing: bool = False) -> Counts:
    """Every client writes to every other one; with ``crossing``, each pair at the same moment."""
    town, houses = build(gateways)
    keyed = 0

    def write(one: int, other: int) -> None:
        town.send(client(one), client(other), rest=echo(one * gateways + other))

    for distance in range(1, gateways):
        for one in range(gateways):
            other = (one + distance) % gateways
            if one < other:
                apart = FORMING / (gateways // 2 + 1)
                moment = town.now + apart * min(distance, gateways - distance)
                town.at(moment, lambda a=one, b=other: write(a, b))  # type: ignore[misc]
                if crossing:
                    town.at(moment, lambda a=other, b=one: write(a, b))  # type: ignore[misc]
    town.run(FORMING + SETTLING)
    for number, house in enumerate(houses):
        keyed += sum(
            house.state(client(number), client(other)) == "keyed"
            for other in range(gateways)
            if other != number
        )

    def mean(of: Callable[[House], int]) -> float:
        return sum(map(of, houses)) / gateways

    sent = [h.sent.total() for h in houses]
    views = {id(h): h.endpoint.snapshot() for h in houses}
    return Counts(
        gateways,
        mean(lambda h: h.sent.total()),
        mean(lambda h: len(h.stub.asked)),
        mean(lambda h: len(views[id(h)].channels)),
        mean(lambda h: views[id(h)].tunnels),
        mean(lambda h: h.sas),
        mean(lambda h: len(list(h.gateway.connections()))),
        mean(lambda h: len(h.verdicts)),
        sum(h.retransmissions for h in houses),
        gateways * (gateways - 1) - keyed,
        max(sent) / max(min(sent), 1),
    )


@dataclass(frozen=True)
class Line:
    """The straight line nearest to the points, and how far the farthest is from it."""

    slope: float
    intercept: float
    error: float  # of the largest value

    @classmethod
    def through(cls, xs: Sequence[float], ys: Sequence[float]) -> Line:
        count = len(xs)
        middle_x, middle_y = sum(xs) / count, sum(ys) / count
        spread = sum((x - middle_x) ** 2 for x in xs)
        slope = sum((x - middle_x) * (y - middle_y) for x, y in zip(xs, ys, strict=True)) / spread
        intercept = middle_y - slope * middle_x
        worst = max(abs(y - intercept - slope * x) for x, y in zip(xs, ys, strict=True))
        return cls(slope, intercept, worst / max(ys))
