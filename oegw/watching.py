"""The trace as it happens, for `oegw watch`: what passes a filter, through a queue with an end.

A listener only puts a line into the queue.  What a watcher is too slow for is counted, and told in
its place; the gateway waits for nobody.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_network,
)
from typing import Any

from oegw.overview import BadWish
from policy.flow import IPNetwork
from policy.rule import Scope

# Our choices.
QUEUE = 1000  # lines that a watcher may be behind
PAUSE = 0.05  # seconds between two hauls: so no watcher gets more than 20,000 lines a second
HEARTBEAT = 10.0  # seconds: a watcher that has gone is noticed when something is sent to it

CATEGORIES = frozenset(
    (
        "apply", "audit", "connection", "decision", "dns", "firewall", "gateway", "guard", "hold",
        "ike", "intercept", "memory", "moniker", "nat", "policy", "recovery", "sa", "socks", "sst",
        "standing", "state", "tunnel", "verdict",
    )
)  # fmt: skip
"""Of all lines of the trace."""

Line = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Filter:
    """``categories``: of these only; empty: all.  ``network``: lines with an address in it."""

    categories: frozenset[str] = frozenset()
    network: IPNetwork | None = None

    def lets_pass(self, line: Line) -> bool:
        if self.categories and line["category"] not in self.categories:
            return False
        return self.network is None or _touches(line.values(), self.network)


def filter_of(request: Mapping[str, Any]) -> Filter:
    """What a request asks for.  Raises BadWish."""
    categories = request.get("categories") or []
    if not isinstance(categories, list) or not all(isinstance(each, str) for each in categories):
        raise BadWish(f"categories: {categories!r} is not a list of names")
    if unknown := sorted(set(categories) - CATEGORIES):
        known = ", ".join(sorted(CATEGORIES))
        raise BadWish(f"there is no category {unknown[0]!r}; there are {known}")
    text = request.get("address")
    try:
        network = None if text is None else ip_network(str(text), strict=False)
    except ValueError:
        raise BadWish(f"address: {text!r} is neither an address nor a prefix") from None
    return Filter(frozenset(categories), network)


def _touches(values: Iterable[object], network: IPNetwork) -> bool:
    for value in values:
        match value:
            case IPv4Address() | IPv6Address():
                if value.version == network.version and value in network:
                    return True
            case IPv4Network() | IPv6Network():
                if value.version == network.version and value.overlaps(network):
                    return True
            case Scope():
                if _touches((value.source, value.destination), network):
                    return True
            case tuple() | list() | frozenset():
                if _touches(value, network):
                    return True
    return False


async def watched(
    listeners: list[Callable[[Line], None]], wanted: Filter
) -> AsyncIterator[dict[str, Any]]:
    """Lines of the trace that pass the filter, without an end; ``lost`` says how many did not fit.

    ``listeners``: those of the trace.  ``heartbeat``: nothing has happened.
    """
    waiting: deque[Line] = deque()
    came = asyncio.Event()
    lost = 0

    def listen(line: Line) -> None:
        nonlocal lost
        if not wanted.lets_pass(line):
            return
        if len(waiting) >= QUEUE:
            lost += 1
            return
        waiting.append(line)
        came.set()

    listeners.append(listen)
    try:
        yield {"watching": True}  # from here on nothing is missed
        while True:
            try:
                async with asyncio.timeout(HEARTBEAT):
                    await came.wait()
            except TimeoutError:
                yield {"heartbeat": True}
                continue
            came.clear()
            for _ in range(len(waiting)):
                yield {"line": waiting.popleft()}
            if lost:
                number, lost = lost, 0
                yield {"lost": number, "time": round(time.time(), 6)}
            await asyncio.sleep(PAUSE)
    finally:
        listeners.remove(listen)
