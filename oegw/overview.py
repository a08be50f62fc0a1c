"""A gateway at a glance, however many connections it has: sums over all, and the first few in an
order, with rates between two looks.  For `oegw top` and `oegw metrics`.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from oegw.connection import Connection, State
from oegw.datapath.interface import SaKey, Usage

# Our choices.
MOST_ROWS = 500  # in one answer
SHORTEST = 0.4  # seconds between two looks whose difference is a rate
LONGEST = 30.0  # after that nobody was looking, and an average would say little
BREATH = 256  # connections between two moments for everything else
ORDERS = ("rate", "state", "age", "octets", "source", "destination")

_RANK = {state: rank for rank, state in enumerate((
    State.DENIED, State.PENDING, State.POTENTIAL, State.CLEAR, State.EXPIRING, State.KEYED,
    State.EXPIRED, State.NONEXISTENT,
))}  # fmt: skip

Rates = tuple[float | None, float | None]  # octets a second, in and out; None: not known yet


class BadWish(Exception):  # noqa: N818  (it names the fact)
    """A request for an overview that can't be understood; the message names the field."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """``rows`` of the connections in whose text ``match`` is, in the order ``order``;
    ``neighbours``: what the SOCKS server, Moniker's daemon and port encryption say, too."""

    rows: int = 0
    order: str = "rate"
    reverse: bool = False
    match: str = ""
    neighbours: bool = False


def wanted(request: Mapping[str, Any]) -> Wanted:
    """What a request asks for.  Raises BadWish."""
    rows = request.get("rows", 0)
    if isinstance(rows, bool) or not isinstance(rows, int) or not 0 <= rows <= MOST_ROWS:
        raise BadWish(f"rows: {rows!r} is not a number from 0 to {MOST_ROWS}")
    order = request.get("order", "rate")
    if order not in ORDERS:
        raise BadWish(f"order: {order!r} is none of {', '.join(ORDERS)}")
    match = request.get("match", "")
    if not isinstance(match, str):
        raise BadWish(f"match: {match!r} is no text")
    return Wanted(
        rows, order, bool(request.get("reverse")), match.lower(), bool(request.get("neighbours"))
    )


@dataclass(slots=True)
class Sums:
    """Over all connections.  ``connections``: by state and category; ``trust``: of those keyed;
    ``downgraded``: clear now, and encrypted last time; ``matching``: with the text asked for."""

    connections: dict[str, dict[str, int]] = field(default_factory=dict)
    tunnels: int = 0
    trust: dict[str, int] = field(default_factory=dict)
    downgraded: int = 0
    matching: int = 0

    def add(self, connection: Connection) -> None:
        by_category = self.connections.setdefault(connection.state.value, {})
        category = connection.rule.category.value
        by_category[category] = by_category.get(category, 0) + 1
        self.tunnels += sum(tunnel.up for tunnel in connection.tunnels.values())
        if connection.state is State.KEYED:
            trust = connection.trust.value if connection.trust else "none"
            self.trust[trust] = self.trust.get(trust, 0) + 1
        self.downgraded += bool(connection.encrypted_before)


@dataclass(frozen=True, slots=True)
class Shown:
    """A connection among the first, and its rates."""

    connection: Connection
    rates: Rates


@dataclass(frozen=True, slots=True)
class _Look:
    """Octets in and out of each connection, by its number."""

    time: float
    octets: dict[int, tuple[int, int]]


class Samples:
    """The last two looks, of whoever looked; an order by rate needs all rates at one place."""

    def __init__(self) -> None:
        self._before: _Look | None = None
        self._latest: _Look | None = None

    async def taken(
        self,
        connections: Iterable[Connection],
        usage: Mapping[SaKey, Usage],
        now: float,
        wanted: Wanted,
    ) -> tuple[Sums, list[Shown]]:
        """Look at all connections; everything else has its turn in between."""
        look = _Look(now, {})
        sums = Sums()
        matching = []
        for number, connection in enumerate(connections):
            if number % BREATH == BREATH - 1:
                await asyncio.sleep(0)
            sums.add(connection)
            look.octets[connection.number] = _octets(connection, usage)
            if wanted.rows and (not wanted.match or wanted.match in _text(connection)):
                matching.append(connection)
        sums.matching = len(matching)
        self._keep(look)
        if not wanted.rows:
            return sums, []
        key = self._key(wanted.order, look)
        choose = heapq.nlargest if wanted.reverse else heapq.nsmallest
        first = choose(wanted.rows, matching, key)
        return sums, [Shown(each, self._rates(each.number, look)) for each in first]

    def _keep(self, look: _Look) -> None:
        latest = self._latest
        if latest is None or look.time - latest.time >= SHORTEST:
            self._before, self._latest = latest, look
        if self._before is not None and look.time - self._before.time > LONGEST:
            self._before = None

    def _rates(self, number: int, look: _Look) -> Rates:
        before = self._before
        if before is None or look.time <= before.time:
            return None, None
        # What was not there then has begun since; what is less now has a new tunnel.
        then = before.octets.get(number, (0, 0))
        seconds = look.time - before.time
        rates = [
            round(max(0, octets - earlier) / seconds, 1)
            for octets, earlier in zip(look.octets[number], then, strict=True)
        ]
        return rates[0], rates[1]

    def _key(self, order: str, look: _Look) -> Callable[[Connection], Any]:
        """What the first have least of; what they are equal in goes by their number."""

        def rate(connection: Connection) -> tuple[float, int]:
            rates = self._rates(connection.number, look)
            return -sum(each or 0.0 for each in rates), connection.number

        keys: dict[str, Callable[[Connection], Any]] = {
            "rate": rate,
            "state": lambda c: (_RANK[c.state], *rate(c)),
            "age": lambda c: (-c.since, c.number),
            "octets": lambda c: (-sum(look.octets[c.number]), c.number),
            "source": lambda c: _address(c.selectors.local, c),
            "destination": lambda c: _address(c.selectors.remote, c),
        }
        return keys[order]


def _address(network: Any, connection: Connection) -> tuple[int, int, int]:
    return network.version, int(network.network_address), connection.number


def _octets(connection: Connection, usage: Mapping[SaKey, Usage]) -> tuple[int, int]:
    moved: Counter[bool] = Counter()
    for tunnel in connection.tunnels.values():
        for outward, key in ((False, tunnel.inbound), (True, tunnel.outbound)):
            if key is not None and (used := usage.get(key)) is not None:
                moved[outward] += used.bytes
    return moved[False], moved[True]


def _text(connection: Connection) -> str:
    """What a filter looks for its text in."""
    tunnel = connection.live_tunnel
    parts = (
        connection.selectors.local, connection.selectors.remote, connection.state.value,
        connection.rule.name, connection.rule.category.value, tunnel.gateway if tunnel else "",
        connection.reason,
    )  # fmt: skip
    return " ".join(str(part) for part in parts).lower()
