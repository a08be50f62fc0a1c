"""Port encryption as the daemon sees it: plane, keys, probes, timers around `sealing.Sealing`."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dnsrecords.outcome import SstKeyOutcome
from oegw.intercept.tracking import Tracking
from oegw.sst.books import Surroundings, WishOf
from oegw.sst.directory import KeyDirectory
from oegw.sst.interface import Caught, IPAddress, IPNetwork, PortFlow, RunningPlane
from oegw.sst.keys import StaticKey, read_private
from oegw.sst.orders import AskKeys, Order, SendProbe, TellShielded
from oegw.sst.plane.marks import PlaneMarks
from oegw.sst.report import Report
from oegw.sst.sealing import Sealing
from oegw.sst.sender import RawSender
from oegw.sst.settings import SstSettings
from oegw.sst.shown import shown
from oegw.trace import Trace
from policy.table import PolicyTable

LookUp = Callable[[IPAddress, bool], Awaitable[SstKeyOutcome]]
"""Finds the SST keys of an address; the second says whether it may use what the resolver's budget
keeps from strangers."""


@dataclass(frozen=True, slots=True)
class Given:
    """What the daemon gives.  ``addresses``: our outer ones; ``own_mark``: of what the gateway
    sends itself; ``wish``: what the policy says of a flow."""

    addresses: tuple[IPAddress, ...]
    own_mark: int
    wish: WishOf
    look_up: LookUp


def read_keys(settings: SstSettings) -> tuple[StaticKey, ...]:
    """Our static keys, the current one first.  Raises KeyFileError."""
    paths: tuple[Path, ...] = settings.old_keys
    if settings.private_key is not None:
        paths = (settings.private_key, *paths)
    return tuple({key.public: key for key in map(read_private, paths)}.values())


class SstService:
    """What `daemon.Daemon` holds while port encryption runs; an `interface.TunnelPorts`.

    Raises KeyFileError.
    """

    def __init__(
        self,
        settings: SstSettings,
        plane: RunningPlane,
        given: Given,
        trace: Trace,
        directory: KeyDirectory | None = None,
    ) -> None:
        self.plane = plane
        self.directory = directory or KeyDirectory()
        self._settings = settings
        self._own = read_keys(settings)
        self._given = given
        self._trace = trace
        self._sender = RawSender(given.addresses, given.own_mark)
        self._tracking = Tracking()
        self._sealing: Sealing | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._shields: dict[int, asyncio.Future[str | None]] = {}
        self._requests = 0

    # ------------------------------------------------------------------ life of it

    async def start(self, table: PolicyTable) -> None:
        """Rules, queues and sockets.  Raises SstError, and then the kernel is as before."""
        lingering = await asyncio.to_thread(self._lingering)
        self._sealing = Sealing(
            self._settings,
            Surroundings(
                plane=self.plane, directory=self.directory, own=self._own,
                addresses=self._given.addresses, wish=self._given.wish, knows=self._knows,
                trace=self._trace, random=os.urandom, started=time.monotonic(),
                lingering=lingering,
            ),
        )  # fmt: skip
        self._sender.open()
        try:
            await self.plane.start(table, self._caught)
        except BaseException:
            self._sender.close()
            raise

    async def replace_policy(self, table: PolicyTable) -> None:
        """Another policy: flows stay, what was declined is asked again.  Raises SstError."""
        await self.plane.replace_policy(table)

    async def mend(self) -> tuple[str, ...]:
        """Put back rules that somebody else took away; returns which.  Raises SstError."""
        return await self.plane.mend()

    async def mend_jump(self, thorough: bool) -> tuple[str, ...]:
        """The same of those that lead into the queues, where they stand apart."""
        return await self.plane.mend_jump(thorough)

    def residue(self) -> str:
        """The nft text of what `close` will leave."""
        return self.plane.residue()

    def policy_replaced(self) -> None:
        """What the daemon's ``wish`` says has changed, too."""
        self._follow(self._running.replace_policy(time.monotonic(), time.time()))

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for waiting in self._shields.values():
            waiting.cancel()
        if self._sealing is not None:
            self._sealing.close()
        await self.plane.close()
        self._sender.close()
        self._tracking.close()

    # ---------------------------------------------------------------------- inputs

    def prepare(self, local: IPAddress, remote: IPAddress) -> None:
        """Look the key up, and probe the path, for a flow that may come in a moment.

        The key is that of the gateway of ``remote``, whoever sends.
        """
        self._follow(self._running.prepare(remote, time.monotonic(), time.time()))

    def tunnel_keyed(self, tunnel: int, local: IPNetwork, remote: IPNetwork, key: bytes) -> None:
        """`commands.SealTunnel`."""
        self._follow(self._running.tunnel_keyed(tunnel, local, remote, key, time.monotonic()))

    def send_sealed(self, tunnel: int) -> None:
        """`commands.SendSealed`."""
        self._follow(self._running.send_sealed(tunnel, time.monotonic(), time.time()))

    def send_unsealed(self, tunnel: int) -> None:
        """`commands.SendUnsealed`."""
        self._follow(self._running.send_unsealed(tunnel))

    def tunnel_closed(self, tunnel: int) -> None:
        """`commands.UnsealTunnel`."""
        self._follow(self._running.tunnel_closed(tunnel, time.monotonic()))

    async def shield(self, local: IPAddress, remote: IPAddress) -> str | None:
        """`commands.ShieldGateway`: None, or why the ports stay as they are."""
        self._requests += 1
        request = self._requests
        waiting: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._shields[request] = waiting
        try:
            self._follow(
                self._running.shield(request, local, remote, time.monotonic(), time.time())
            )
            return await waiting
        finally:
            del self._shields[request]

    def unshield(self, local: IPAddress, remote: IPAddress) -> None:
        """`commands.UnshieldGateway`."""
        self._follow(self._running.unshield(local, remote))

    def came_shielded(self, local: IPAddress, remote: IPAddress) -> bool:
        return self._running.came_shielded(local, remote, time.monotonic())

    def forget(self, network: IPNetwork) -> int:
        """Forget keys, paths and flows of hosts, the declined ones too; returns of how many."""
        number = self._running.forget(network)
        self._rearm()
        return number

    # -------------------------------------------------------------------- snapshot

    def snapshot(self) -> dict[str, Any]:
        """For ``oegw status``."""
        now = time.monotonic()
        report = self._running.report(now)
        keys = [key.key_id.hex() for key in self._own]
        return {**shown(report, now), "own_keys": keys, "directory": self.directory.snapshot(now)}

    def report(self) -> Report:
        return self._running.report(time.monotonic())

    def counters(self) -> dict[str, int]:
        """Of the plane; what the core counts is in the trace."""
        return self.plane.counters()

    # --------------------------------------------------------------------- details

    @property
    def _running(self) -> Sealing:
        if self._sealing is None:
            raise RuntimeError("port encryption was not started")
        return self._sealing

    def _caught(self, caught: Caught) -> None:
        self._follow(self._running.packet_caught(caught, time.monotonic(), time.time()))

    def _follow(self, orders: list[Order]) -> None:
        for order in orders:
            match order:
                case AskKeys(address=address, ours=ours):
                    self._spawn(address, ours=ours)
                case SendProbe(destination=destination, packet=packet):
                    try:
                        self._sender.send(packet, destination)
                    except OSError as error:
                        self._trace.drop(
                            "sst", "probe_not_sent", remote=destination, detail=error.strerror
                        )
                case TellShielded(request=request, reason=reason):
                    waiting = self._shields.get(request)
                    if waiting is not None and not waiting.done():
                        waiting.set_result(reason)
        self._rearm()

    def _spawn(self, address: IPAddress, *, ours: bool) -> None:
        task = asyncio.get_running_loop().create_task(self._look_up(address, ours=ours))
        self._tasks.add(task)
        task.add_done_callback(self._looked_up)

    def _looked_up(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error  # in a callback: the daemon's handler stops everything

    async def _look_up(self, address: IPAddress, *, ours: bool) -> None:
        outcome = await self._given.look_up(address, ours)
        now = time.monotonic()
        self.directory.learn(address, outcome, now)
        self._follow(self._running.keys_learned(address, now, time.time()))

    def _rearm(self) -> None:
        due = self._running.next_timer()
        if self._timer is not None:
            if due is not None and self._timer.when() <= due:
                return  # it looks again then
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = None if due is None else loop.call_at(due, self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        self._follow(self._running.handle_timer(time.monotonic(), time.time()))

    def _knows(self, flow: PortFlow) -> bool:
        try:
            return self._tracking.knows(
                flow.remote, flow.local, flow.protocol, flow.remote_port, flow.local_port
            )
        except OSError as error:
            self._trace.drop("sst", "conntrack_unread", detail=error.strerror)
            return False

    def _lingering(self) -> frozenset[int]:
        """The epochs of connections that an earlier run left in the kernel."""
        marks = PlaneMarks(self._settings.mark_mask)
        tracking = Tracking()
        try:
            found = tracking.marks(marks.sticky, marks.sticky)
        except OSError as error:
            self._trace.drop("sst", "conntrack_unread", detail=error.strerror)
            return frozenset(range(4))  # perhaps any
        finally:
            tracking.close()
        return frozenset(map(marks.epoch_of, found))
