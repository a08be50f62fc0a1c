"""Which opening worker has which inbound SA: that of the peer's address (`filters.worker_of`).

When a peer moves, its SA may change the worker.  Never do two have it, or its replay window would
have two writers; and its packets stay in order: the new worker keeps back what comes from
now on, the old one carries what was sent on to it, forgets the SA, and then the new one has it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any
from weakref import WeakValueDictionary

from oegw.datapath.interface import DatapathError, SecurityAssociation
from oegw.datapath.userspace import channel
from oegw.datapath.userspace.channel import Kind
from oegw.datapath.userspace.filters import worker_of
from oegw.datapath.userspace.installed import Installed, InstalledSas
from oegw.datapath.userspace.supervisor import Request, Supervisor


class OpeningPlaces:
    """What ``sas`` says, the ``workers`` (their supervisors) are told."""

    def __init__(self, sas: InstalledSas, workers: list[Supervisor]) -> None:
        self._sas = sas
        self._workers = workers
        self._locks: WeakValueDictionary[Installed, asyncio.Lock] = WeakValueDictionary()

    def request(self, installed: Installed, index: int) -> Request | None:
        """What the worker ``index``, which knows nothing yet, is to be told of it."""
        if installed.home == index:
            return self._install(installed)
        if len(self._workers) == 1:
            return None
        home = self._of(installed.sa) if installed.home is None else installed.home
        return Kind.HOME, channel.home_body(installed.sa.key, home)

    def install(self, added: Installed) -> asyncio.Future[Any]:
        """What its worker answers."""
        added.home = home = self._of(added.sa)
        self._tell(added, home, home)
        return self._workers[home].ask(*self._install(added))

    def remove(self, removed: Installed) -> Awaitable[Any]:
        """Done when it is in no worker any more.  Who has it is asked before this returns, but for
        one that is being moved."""
        lock = self._locks.get(removed)
        if lock is not None and lock.locked():
            return self._remove_later(removed, lock)
        home, removed.home = removed.home, None
        assert home is not None
        self._tell(removed, None, home)
        return self._workers[home].ask(Kind.REMOVE, channel.key_body(removed.told))

    async def _remove_later(self, removed: Installed, lock: asyncio.Lock) -> None:
        async with lock:
            pass
        await self.remove(removed)

    async def move(self, moved: Installed) -> None:
        """It has other addresses by now, and perhaps another worker."""
        async with self._alone(moved):
            if not self._sas.has(moved):
                return
            old, new = moved.home, self._of(moved.sa)
            assert old is not None  # who moves it waits until it has arrived
            before, sa = moved.told, moved.sa
            if before != sa.key:
                self._tell(moved, None, old)
            moved.told = sa.key
            if new == old:
                if before != sa.key:
                    self._tell(moved, new, new)
                addresses = sa.source, sa.destination, sa.encapsulation
                await self._ask(new, Kind.MOVE, channel.move_body(before, *addresses))
                return
            moved.home = None
            body = channel.home_body(sa.key, new)
            await self._ask(new, Kind.HOME, body)
            self._workers[old].tell(Kind.HOME, body)
            await self._ask(old, Kind.REMOVE, channel.key_body(before))
            moved.home = new
            self._tell(moved, new, new)
            await self._ask(new, *self._install(moved))

    # Steps.

    def _of(self, sa: SecurityAssociation) -> int:
        return worker_of(sa.source.packed, len(self._workers))

    def _install(self, installed: Installed) -> Request:
        installed.told = installed.sa.key
        return Kind.INSTALL, channel.install_body(installed.sa, installed.offset)

    def _tell(self, installed: Installed, home: int | None, but: int | None) -> None:
        """All workers ``but`` one, which knows."""
        body = channel.home_body(installed.told, home)
        for index, worker in enumerate(self._workers):
            if index != but:
                worker.tell(Kind.HOME, body)

    def _alone(self, installed: Installed) -> asyncio.Lock:
        """One change of an SA comes after the other."""
        return self._locks.setdefault(installed, asyncio.Lock())

    async def _ask(self, index: int, kind: Kind, body: Any) -> None:
        """What we checked, no worker refuses; if one does, it has other SAs than it is to have,
        and its successor will have the right ones."""
        try:
            await self._workers[index].ask(kind, body)
        except DatapathError:
            self._workers[index].restart()
