"""Ports that services of this host have, and the firewall that is told of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

from oegw.moniker.interface import Opener

_Port = tuple[str, int]


class Ports:
    """A port is guarded as long as a service has it, and its leases end with the last one.

    Of one port things happen in their order; several services may share it (SO_REUSEPORT).
    """

    def __init__(self, opener: Opener) -> None:
        self._opener = opener
        self._services: Counter[_Port] = Counter()
        self._last: dict[_Port, asyncio.Task[None]] = {}

    async def taken(self, transport: str, port: int) -> None:
        """A service has it; returns when it is guarded."""
        self._services[transport, port] += 1
        if self._services[transport, port] == 1:
            await asyncio.shield(self._next(transport, port, self._guard))
        elif (under_way := self._last.get((transport, port))) is not None:
            await asyncio.shield(under_way)

    def left(self, transport: str, port: int) -> None:
        """A service that had it is gone."""
        self._services[transport, port] -= 1
        if not self._services[transport, port]:
            del self._services[transport, port]
            self._next(transport, port, self._end)

    def opened_late(self, transport: str, port: int) -> None:
        """A lease may have been opened after the service was gone."""
        if (transport, port) not in self._services:
            self._next(transport, port, self._end)

    async def close(self) -> None:
        """Returns when what is under way has been done."""
        await asyncio.gather(*self._last.values(), return_exceptions=True)

    def _next(
        self, transport: str, port: int, what: Callable[[str, int], Awaitable[None]]
    ) -> asyncio.Task[None]:
        before = self._last.get((transport, port))

        async def in_turn() -> None:
            if before is not None:
                await asyncio.wait((before,))
            await what(transport, port)

        task = asyncio.create_task(in_turn())
        self._last[transport, port] = task
        task.add_done_callback(lambda done: self._over((transport, port), done))
        return task

    def _over(self, port: _Port, done: asyncio.Task[None]) -> None:
        if self._last.get(port) is done:
            del self._last[port]

    async def _guard(self, transport: str, port: int) -> None:
        await self._opener.guard(transport, port)

    async def _end(self, transport: str, port: int) -> None:
        await self._opener.end(None, transport, port)
