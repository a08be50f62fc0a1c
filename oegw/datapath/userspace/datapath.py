"""The `Datapath` whose packets move in worker processes; here is only the control of them."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import replace
from typing import Any

from oegw.datapath.interface import (
    Capability,
    DatapathError,
    DatapathEvent,
    DatapathFailed,
    Direction,
    IPAddress,
    KeyingDatagram,
    SaExpired,
    SaKey,
    SecurityAssociation,
    UdpEncapsulation,
    Usage,
    WorkerReport,
)
from oegw.datapath.userspace import channel
from oegw.datapath.userspace.channel import Kind
from oegw.datapath.userspace.core.choice import COMPILED, PYTHON, PYTHON_BY_OPENSSL
from oegw.datapath.userspace.equipment import Equipment
from oegw.datapath.userspace.grounds import Grounds
from oegw.datapath.userspace.installed import Installed, InstalledSas
from oegw.datapath.userspace.keyingsocket import KeyingDescriptors, KeyingSockets
from oegw.datapath.userspace.placing import OpeningPlaces
from oegw.datapath.userspace.settings import MOST_WORKERS, UserspaceSettings
from oegw.datapath.userspace.supervisor import Place, Request, Supervisor
from oegw.datapath.userspace.transform import CIPHERS
from oegw.intercept.interface import Marks

# Our choices.
_CRASHES = 3  # of the compiled core
_CRASH_TIME = 60.0  # within so many seconds: then the Python core runs


class UserspaceDatapath:
    """ESP in user space over one TUN device, as the `Datapath` protocol says.

    It can be started once.  A worker that dies has a successor at once.  If there can be none,
    ``DatapathFailed`` is reported, each method but ``close`` raises DatapathError, and
    marked packets are unreachable until the next start of a datapath.
    """

    def __init__(self, settings: UserspaceSettings, reason: str = "asked for") -> None:
        self._settings = settings
        self._reason = reason
        self._listener: Callable[[DatapathEvent], None] | None = None
        self._marks = Marks(settings.mark_mask)
        self._keying = KeyingSockets(
            self._marks.own, self._keying_received, elsewhere=settings.keying_elsewhere
        )
        self._count = settings.workers or min(max((os.cpu_count() or 1) // 2, 1), MOST_WORKERS)
        self._grounds: Grounds | None = None
        self._sas: InstalledSas | None = None
        self._places: OpeningPlaces | None = None
        self._supervisors: dict[Direction, list[Supervisor]] = {}
        self._paths: dict[IPAddress, int] = {}  # the path MTU to each peer, where it was measured
        self._core = self._wanted = settings.core
        self._core_reason = ""  # why it is another than the settings say
        self._crashes: deque[float] = deque(maxlen=_CRASHES)
        self._clock: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._failure: str | None = "the datapath does not run"
        self._started = False

    async def start(self, listener: Callable[[DatapathEvent], None]) -> Capability:
        if self._started:
            raise DatapathError("the datapath was started already")
        if not 0 < self._count <= MOST_WORKERS:
            raise DatapathError(f"{self._count} workers, of at most {MOST_WORKERS}")
        self._started = True
        settings = self._settings
        try:
            # In a thread: what it asks the kernel by netlink has an event loop of its own.
            self._grounds = await asyncio.to_thread(Grounds, settings, self._count)
            self._sas = InstalledSas(
                self._grounds.memory, self._grounds.versions, settings.encapsulation_port
            )
            self._failure = None
            for direction in Direction:
                places = (Place(direction, index) for index in range(self._count))
                self._supervisors[direction] = [Supervisor(place, self) for place in places]
            self._places = OpeningPlaces(self._sas, self._supervisors[Direction.INBOUND])
            await _all(supervisor.start() for supervisor in self._each())
            self._require_one_core()
            if settings.encapsulation_port is not None:
                self._keying.open(
                    settings.encapsulation_port, self._grounds.versions, self._grounds.joined
                )
                self._keying.open_strays(*self._grounds.keying_strays)
            await asyncio.to_thread(self._grounds.lead)
            self._running()  # none has failed for good meanwhile
        except BaseException:
            self._failure = self._failure or "the datapath does not run"
            await self._end()
            raise
        self._listener = listener
        report = self._supervisors[Direction.OUTBOUND][0].report
        # A successor would choose anew, and after an upgrade another one; but all must have the
        # same: they share how numbers are taken.
        self._core, self._core_reason = report.core, report.core_reason
        self._wanted = report.core
        return Capability(
            "userspace",
            self._reason,
            tuple(CIPHERS),
            udp_encapsulation=settings.encapsulation_port is not None,
            core=report.core,
            core_reason=report.core_reason,
            libraries=report.libraries,
            offloads=self._grounds.told,
            workers=self._count,
        )

    async def close(self) -> None:
        self._listener = None
        orderly = self._failure is None
        try:
            await self._end_workers()
            if orderly and self._grounds is not None:
                await asyncio.to_thread(self._grounds.mislead)
        except DatapathError:
            pass  # the refusing route stays
        finally:
            await self._end()

    async def install(self, sa: SecurityAssociation) -> None:
        sas = self._running()
        installed = sas.install(sa, _now())
        self._set_clock()
        try:
            if sa.direction is Direction.INBOUND:
                assert self._places is not None
                await self._places.install(installed)
            else:
                body = channel.install_body(sa, installed.offset)
                await self._ask(Kind.INSTALL, body)
        except (DatapathError, asyncio.CancelledError):
            if sas.remove(sa.key) is not None:
                self._forget(installed, sa.key)
            raise
        self._tell_path(installed)

    async def remove(self, key: SaKey) -> Usage | None:
        removed = self._running().remove(key)
        if removed is None:
            return None
        # Whoever waits may be cancelled; the record is freed when no worker knows it any more.
        return await asyncio.shield(self._forget(removed, key))

    async def move(
        self,
        key: SaKey,
        source: IPAddress,
        destination: IPAddress,
        encapsulation: UdpEncapsulation | None,
    ) -> SaKey:
        moved = self._running().move(key, source, destination, encapsulation)
        name = moved.sa.key
        self._forget_path(key)
        if key.direction is Direction.OUTBOUND:
            body = channel.move_body(key, source, destination, encapsulation)
            await self._change(Kind.MOVE, body)
        else:
            assert self._places is not None
            # Whoever waits may be cancelled; no SA stays halfway between two workers.
            await asyncio.shield(self._in_background(self._places.move(moved)))
            self._running()
            self._tell_path(moved)
        # What a worker said under the old name meanwhile, nobody knew.
        for event in self._running().unsaid((moved,)):
            self._report(event)
        return name

    async def prefer(self, key: SaKey) -> None:
        self._running().prefer(key)
        await self._change(Kind.PREFER, channel.key_body(key))

    def send_keying(
        self, data: bytes, source: IPAddress, destination: IPAddress, port: int
    ) -> None:
        self._keying.send(data, source, destination, port)

    async def mend(self) -> tuple[str, ...]:
        self._running()
        assert self._grounds is not None
        return await asyncio.to_thread(self._grounds.mend)

    async def usage(self) -> dict[SaKey, Usage]:
        return self._running().usage()

    async def counters(self) -> dict[str, int]:
        self._running()
        assert self._grounds is not None
        return dict(self._keying.counters() + self._grounds.counters.counted())

    def workers(self) -> tuple[WorkerReport, ...]:
        reports = (supervisor.report for supervisor in self._each())
        if not self._core_reason:
            return tuple(reports)
        # All have the same one; who has another yet is being replaced.
        core, reason = self._core, self._core_reason
        return tuple(replace(report, core=core, core_reason=reason) for report in reports)

    @property
    def keying(self) -> KeyingDescriptors | None:
        """What another process is to read, where the settings say so."""
        wanted = self._settings.keying_elsewhere and self._settings.encapsulation_port is not None
        return self._keying.descriptors if wanted and self._failure is None else None

    # What the supervisors need.

    def equipment(self, place: Place) -> Equipment:
        assert self._grounds is not None
        return self._grounds.equipment(*place, self._wanted)

    def all_told(self, place: Place) -> Iterable[Request]:
        assert self._sas is not None
        direction, index = place
        for installed in self._sas:
            if installed.sa.direction is not direction:
                continue
            if direction is Direction.OUTBOUND:
                yield Kind.INSTALL, channel.install_body(installed.sa, installed.offset)
            elif self._places and (request := self._places.request(installed, index)):
                yield request
        for path in self._paths.items():
            yield Kind.PATH_MTU, channel.path_mtu_body(*path)

    def said(self, kind: Kind, body: Any) -> None:
        if kind is Kind.PATH_MTU:
            self._path_measured(*channel.path_mtu_of(body))
            return
        event = channel.event_of(body)
        assert self._sas is not None
        if not isinstance(event, SaExpired) or self._sas.first_said(event):
            self._report(event)

    def died(self, core: str, crashed_by: signal.Signals | None) -> None:
        assert self._sas is not None
        for event in self._sas.unsaid():
            self._report(event)
        if crashed_by is None or core != COMPILED:
            return
        self._crashes.append(_now())
        if len(self._crashes) == _CRASHES and _now() - self._crashes[0] < _CRASH_TIME:
            # Without what may have been the reason.
            self._core, self._wanted = PYTHON, PYTHON_BY_OPENSSL
            self._core_reason = (
                f"the compiled core crashed {_CRASHES} times within {_CRASH_TIME:g} s, "
                f"the last time by {crashed_by.name}"
            )
            # All have the same core: they share how numbers are taken.
            for supervisor in self._each():
                supervisor.restart()

    def failed(self, reason: str) -> None:
        if self._failure is not None:
            return
        self._failure = reason
        for supervisor in self._each():
            supervisor.give_up(reason)
        # Not from inside of who says so.
        self._in_background(self._stop(reason))

    # Steps.

    def _running(self) -> InstalledSas:
        if self._failure is not None or self._sas is None:
            raise DatapathError(self._failure or "the datapath does not run")
        return self._sas

    def _each(self) -> list[Supervisor]:
        return [each for supervisors in self._supervisors.values() for each in supervisors]

    def _ask(self, kind: Kind, body: Any) -> Coroutine[Any, Any, None]:
        """All workers that seal have every SA outbound.  They are asked before this returns."""
        supervisors = self._supervisors[Direction.OUTBOUND]
        return _all([supervisor.ask(kind, body) for supervisor in supervisors])

    def _require_one_core(self) -> None:
        """Of all workers: they share how numbers are taken.  Raises DatapathError."""
        reports = self.workers()
        if len({each.core for each in reports}) > 1:
            told = "; ".join(f"{each.name} {each.core}: {each.core_reason}" for each in reports)
            raise DatapathError(f"the workers chose different cores ({told})")

    async def _change(self, kind: Kind, body: Any) -> None:
        """What we checked, no worker refuses; if one does, it has other SAs than it is to have,
        and its successor will have the right ones."""
        try:
            await self._ask(kind, body)
        except DatapathError:
            self._running()
            for supervisor in self._supervisors[Direction.OUTBOUND]:
                supervisor.restart()

    def _forget(self, removed: Installed, key: SaKey) -> asyncio.Task[Usage]:
        """No worker has it, and then its record is free; what it carried."""
        self._forget_path(key)
        # Now, and not in a task: the next may install another one with this name.
        if key.direction is Direction.OUTBOUND:
            asked: Awaitable[Any] = self._ask(Kind.REMOVE, channel.key_body(key))
        else:
            assert self._places is not None
            asked = self._places.remove(removed)
        return self._in_background(self._release(removed, asked))

    async def _release(self, removed: Installed, asked: Awaitable[Any]) -> Usage:
        await asked
        usage = removed.usage
        if self._sas is not None:
            self._sas.release(removed)
        return usage

    def _path_measured(self, peer: IPAddress, mtu: int) -> None:
        """All but who measured it (and it, again, which harms nobody) are told."""
        if self._sas is None or not self._sas.sends_to(peer) or self._paths.get(peer) == mtu:
            return
        self._paths[peer] = mtu
        for supervisor in self._each():
            supervisor.tell(Kind.PATH_MTU, channel.path_mtu_body(peer, mtu))

    def _tell_path(self, installed: Installed) -> None:
        """How wide the path to the peer of an inbound SA is, if it was measured already."""
        peer, home = installed.sa.source, installed.home
        if home is not None and peer in self._paths:
            told = channel.path_mtu_body(peer, self._paths[peer])
            self._supervisors[Direction.INBOUND][home].tell(Kind.PATH_MTU, told)

    def _forget_path(self, key: SaKey) -> None:
        if self._sas is not None and not self._sas.sends_to(key.destination):
            self._paths.pop(key.destination, None)

    def _set_clock(self) -> None:
        """Look at the limits of seconds when the next is due."""
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None
        deadline = self._sas.next_deadline() if self._sas is not None else None
        if deadline is not None:
            seconds = max(deadline - _now(), 0.0)
            self._clock = asyncio.get_running_loop().call_later(seconds, self._expire_due)

    def _expire_due(self) -> None:
        if self._sas is not None and self._failure is None:
            for event in self._sas.expire_due(_now()):
                self._report(event)
            self._set_clock()

    def _report(self, event: DatapathEvent) -> None:
        if self._listener is not None:
            self._listener(event)

    def _keying_received(self, datagram: KeyingDatagram) -> None:
        self._report(datagram)

    def _in_background(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _stop(self, reason: str) -> None:
        """The device goes, so that what is marked meets the refusing route."""
        await self._end_workers()
        self._keying.close()
        if self._grounds is not None:
            self._grounds.close()
        self._report(DatapathFailed(reason))

    async def _end_workers(self) -> None:
        await asyncio.gather(*(each.end() for each in self._each()))

    async def _end(self) -> None:
        self._failure = self._failure or "the datapath does not run"
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None
        for supervisor in self._each():
            supervisor.give_up(self._failure)
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._end_workers()
        self._keying.close()
        if self._grounds is not None:
            self._grounds.close()


def _now() -> float:
    return time.monotonic()


async def _all(work: Iterable[Any]) -> None:
    """Wait for all of it, and raise the first that went wrong."""
    for done in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(done, BaseException):
            raise done
