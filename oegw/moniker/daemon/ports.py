"""Ports that services of this host have, and the firewall that is told of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

from oegw.moniker.interface import Opener, Place


class Ports:
    """A port is guarded as long as a service has it, and its leases end with the last one.

    Of one port things happen in their order; several services may share it (SO_REUSEPORT).
    """

    def __init__(self, opener: Opener) -> None:
        self._opener = opener
        self._services: Counter[Place] = Counter()
        self._last: dict[Place, asyncio.Task[None]] = {}

    async def taken(self, place: Place) -> None:
        """A service has it; returns when it is guarded."""
        self._services[place] += 1
        if self._services[place] == 1:
            await asyncio.shield(self._next(place, self._guard))
        elif (under_way := self._last.get(place)) is not None:
            await asyncio.shield(under_way)

    def left(self, place: Place) -> None:
        """A service that had it is gone."""
        self._services[place] -= 1
        if not self._services[place]:
            del self._services[place]
            self._next(place, self._end)

    def opened_late(self, place: Place) -> None:
        """A lease may have been opened after the service was gone."""
        if place not in self._services:
            self._next(place, self._end)

    async def close(self) -> None:
        """Returns when what is under way has been done."""
        await asyncio.gather(*self._last.values(), return_exceptions=True)

    def _next(self, place: Place, what: Callable[[Place], Awaitable[None]]) -> asyncio.Task[None]:
        before = self._last.get(place)

        async def in_turn() -> None:
            if before is not None:
                await asyncio.wait((before,))
            await what(place)

        task = asyncio.create_task(in_turn())
        self._last[place] = task
        task.add_done_callback(lambda done: self._over(place, done))
        return task

    def _over(self, place: Place, done: asyncio.Task[None]) -> None:
        if self._last.get(place) is done:
            del self._last[place]

    async def _guard(self, place: Place) -> None:
        await self._opener.guard(place)

    async def _end(self, place: Place) -> None:
        await self._opener.end(place)
