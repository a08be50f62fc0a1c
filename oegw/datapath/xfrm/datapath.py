"""The `Datapath` whose packets move in the kernel; here is only the control of it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from oegw.datapath.checks import check_sa
from oegw.datapath.device import mend_device
from oegw.datapath.interface import (
    Capability,
    DatapathError,
    DatapathEvent,
    Direction,
    IPAddress,
    PeerAddressChanged,
    SaExpired,
    SaKey,
    SecurityAssociation,
    UdpEncapsulation,
    Usage,
    WorkerReport,
)
from oegw.datapath.routes import TunnelRoutes
from oegw.datapath.userspace.transform import CIPHERS
from oegw.datapath.xfrm.link import has_link, make_link, remove_link
from oegw.datapath.xfrm.messages import Frame, MessageType
from oegw.datapath.xfrm.mover import Mover
from oegw.datapath.xfrm.netlink import Netlink, Reports, Xfrm, XfrmError
from oegw.datapath.xfrm.plan import Senders, standing_policies, state_of
from oegw.datapath.xfrm.policy import Policy, PolicyName
from oegw.datapath.xfrm.port import EncapsulationPort
from oegw.datapath.xfrm.probe import probe
from oegw.datapath.xfrm.reports import Expired, Mapped
from oegw.datapath.xfrm.settings import XfrmSettings
from oegw.datapath.xfrm.state import State, StateName, StateUsage
from oegw.datapath.xfrm.statistics import xfrm_statistics
from oegw.datapath.xfrm.unknown import UnknownSpis
from oegw.intercept.interface import Marks

# Our choices.
_REQUESTS_PER_TURN = 50  # of a sweep, before the event loop's turn
_SAME_MAPPING = 1.0  # seconds: a kernel before 5.17 reports each packet of a peer that moved


_UNUSED = Usage(0, 0, None)


@dataclass(slots=True)
class _Installed:
    """What we know of an SA in the kernel.  ``lost`` was counted by states that it moved from."""

    sa: SecurityAssociation
    usage: Usage = _UNUSED
    looked: float = 0.0
    softened: bool = False
    expired: bool = False
    lost: tuple[int, int] = (0, 0)
    mapping: tuple[IPAddress, int, float] | None = None


class XfrmDatapath:
    """ESP in the kernel behind an XFRM interface, as the `Datapath` protocol says.

    It can be started once.
    """

    def __init__(self, settings: XfrmSettings, reason: str = "asked for") -> None:
        self._settings = settings
        self._reason = reason
        self._listener: Callable[[DatapathEvent], None] | None = None
        self._started = False
        self._kernel: Xfrm | None = None
        self._reports: Reports | None = None
        self._lock: socket.socket | None = None
        self._routes = TunnelRoutes(settings)
        own = Marks(settings.mark_mask).own
        self._port = EncapsulationPort(settings.encapsulation_port or 0, own, self._tell)
        self._unknown = UnknownSpis(settings.encapsulation_port, self._receives_on, self._tell)
        self._installed: dict[StateName, _Installed] = {}
        self._senders = Senders(settings)
        self._standing: list[Policy] = []
        self._statistics: dict[str, int] = {}
        self._gone = {Direction.INBOUND: [0, 0], Direction.OUTBOUND: [0, 0]}
        self._resync: asyncio.Task[None] | None = None
        self._resyncs = 0

    async def start(self, listener: Callable[[DatapathEvent], None]) -> Capability:
        if self._started:
            raise DatapathError("the datapath was started already")
        self._started = True
        async with contextlib.AsyncExitStack() as undo:
            self._lock = _only_one(self._settings)
            undo.callback(self._lock.close)
            if (problem := await probe(self._settings)) is not None:
                raise DatapathError(problem)
            kernel = self._kernel = Netlink()
            undo.callback(kernel.close)
            undo.callback(self._forget)
            if self._settings.encapsulation_port is not None:
                self._port.open(asyncio.get_running_loop())
                undo.callback(self._port.close)
            self._reports = Reports(self._heard, self._missed)
            undo.callback(self._reports.close)
            undo.push_async_callback(self._sweep, kernel)
            await self._sweep(kernel)
            self._stand(kernel)
            await asyncio.to_thread(make_link, self._settings)
            undo.push_async_callback(asyncio.to_thread, remove_link, self._settings)
            await asyncio.to_thread(self._routes.install)
            self._statistics = xfrm_statistics()
            self._unknown.start(asyncio.get_running_loop())
            self._listener = listener
            undo.pop_all()
        udp = self._settings.encapsulation_port is not None
        return Capability("kernel", self._reason, tuple(CIPHERS), udp_encapsulation=udp)

    async def remove_leftovers(self) -> None:
        """What a run with these settings has left, for one who takes another datapath now.

        Raises DatapathError.  Where the kernel has no XFRM, there is nothing.
        """
        async with contextlib.AsyncExitStack() as undo:
            undo.callback(_only_one(self._settings).close)
            try:
                kernel = Netlink()
            except DatapathError:
                return
            undo.callback(kernel.close)
            await asyncio.to_thread(remove_link, self._settings)
            await self._sweep(kernel)

    async def close(self) -> None:
        """The device goes first: what is marked meets the refusing route until all is gone."""
        self._listener = None
        kernel, self._kernel = self._kernel, None
        if kernel is None:
            return
        # If the kernel refuses a step, the refusing route stays; and it is nobody's to cope with.
        async with contextlib.AsyncExitStack() as each:
            each.enter_context(contextlib.suppress(DatapathError))
            if self._lock is not None:
                each.callback(self._lock.close)
            each.callback(kernel.close)
            if self._resync is not None:
                self._resync.cancel()
            if self._reports is not None:
                each.callback(self._reports.close)
            each.callback(self._port.close)
            each.callback(self._unknown.close)
            try:
                await asyncio.to_thread(remove_link, self._settings)
            finally:
                await self._sweep(kernel)
            await asyncio.to_thread(self._routes.remove)
        self._installed.clear()

    async def install(self, sa: SecurityAssociation) -> None:
        kernel = self._require_running()
        self._check(sa)
        name = StateName(sa.destination, sa.spi)
        if name in self._installed:
            raise DatapathError(f"SA {sa.spi:#010x}: one with this SPI and destination exists")
        kernel.ask(MessageType.NEWSA, state_of(sa, self._settings))
        if sa.direction is Direction.OUTBOUND:
            self._senders.add(sa)
            try:
                self._route(kernel, sa)
            except DatapathError:
                self._senders.remove(sa)
                with contextlib.suppress(XfrmError):
                    kernel.ask(MessageType.DELSA, name)
                raise
        self._installed[name] = _Installed(sa, looked=time.monotonic())

    async def remove(self, key: SaKey) -> Usage | None:
        kernel = self._require_running()
        name = StateName(key.destination, key.spi)
        installed = self._installed.get(name)
        if installed is None or installed.sa.key != key:
            return None
        refused: XfrmError | None = None
        if key.direction is Direction.OUTBOUND:
            self._senders.remove(installed.sa)
            try:
                self._route(kernel, installed.sa)
            except XfrmError as error:  # it leads to a state that is gone: nothing passes
                refused = error
        with contextlib.suppress(XfrmError):  # then the last that we know
            answer = kernel.ask(MessageType.GETSA, name)
            if answer is not None:
                self._note(installed, StateUsage.parse(*answer.raw()))
        try:
            kernel.ask(MessageType.DELSA, name)
        except XfrmError as error:
            if error.number != errno.ESRCH:  # it is gone already
                refused = error
        if refused is not None:
            raise refused  # what is left is known still: it can be asked for again
        del self._installed[name]
        total = self._gone[key.direction]
        total[0] += installed.usage.packets
        total[1] += installed.usage.bytes
        return installed.usage

    async def move(
        self,
        key: SaKey,
        source: IPAddress,
        destination: IPAddress,
        encapsulation: UdpEncapsulation | None,
    ) -> SaKey:
        kernel = self._require_running()
        name = StateName(key.destination, key.spi)
        installed = self._installed.get(name)
        if installed is None or installed.sa.key != key:
            raise DatapathError(f"SA {key.spi:#010x}: there is none to move")
        moved = replace(
            installed.sa, source=source, destination=destination, encapsulation=encapsulation
        )
        self._check(moved)
        moved_name = StateName(destination, key.spi)
        if moved.key != key and moved_name in self._installed:
            raise DatapathError(f"SA {key.spi:#010x}: one with this SPI and destination exists")
        if installed.expired:
            raise DatapathError(f"SA {key.spi:#010x}: it has expired")
        mover = Mover(kernel, self._settings, self._senders)
        packets, octets = mover.move(installed.sa, moved)
        installed.lost = installed.lost[0] + packets, installed.lost[1] + octets
        del self._installed[name]
        # Another one than before: a dump under way may miss the state that was made anew.
        self._installed[moved_name] = replace(installed, sa=moved, mapping=None)
        return moved.key

    async def prefer(self, key: SaKey) -> None:
        kernel = self._require_running()
        installed = self._installed.get(StateName(key.destination, key.spi))
        if (
            installed is None
            or installed.sa.key != key
            or installed.sa.direction is not Direction.OUTBOUND
        ):
            raise DatapathError(f"SA {key.spi:#010x}: there is none to send by")
        if installed.expired:
            raise DatapathError(f"SA {key.spi:#010x}: it has expired")
        before = self._senders.prefer(installed.sa)
        try:
            self._route(kernel, installed.sa)
        except XfrmError:
            self._senders.restore(installed.sa, before)
            raise

    def send_keying(
        self, data: bytes, source: IPAddress, destination: IPAddress, port: int
    ) -> None:
        self._port.send(data, source, destination, port)

    async def mend(self) -> tuple[str, ...]:
        """SAs that somebody else took away have expired, and are agreed on anew."""
        kernel = self._require_running()
        gone = list(await asyncio.to_thread(self._mend_link))
        found = await self._found(kernel, MessageType.GETPOLICY)
        wanted = self._wanted_policies()
        if missing := sum(policy.name not in found for policy in wanted):
            for policy in wanted:
                kernel.ask(MessageType.UPDPOLICY, policy)
            gone.append(f"{missing} IPsec policies")
        expired = sum(each.expired for each in self._installed.values())
        await self._look(kernel)
        if lost := sum(each.expired for each in self._installed.values()) - expired:
            gone.append(f"{lost} IPsec SAs")
        return tuple(gone)

    def _mend_link(self) -> tuple[str, ...]:
        settings = self._settings
        gone: tuple[str, ...] = ()
        if not has_link(settings):
            make_link(settings)
            gone = (f"device {settings.tunnel_interface}",)
        return (
            *gone,
            *mend_device(settings.tunnel_interface, settings.mtu),
            *self._routes.mend(),
        )

    def _wanted_policies(self) -> list[Policy]:
        outbound = [
            each.sa for each in self._installed.values() if each.sa.direction is Direction.OUTBOUND
        ]
        of_sas = {policy.name: policy for policy in map(self._senders.policy, outbound) if policy}
        return [*self._standing, *of_sas.values()]

    async def usage(self) -> dict[SaKey, Usage]:
        kernel = self._require_running()
        await self._look(kernel)
        self._require_running()
        return {each.sa.key: each.usage for each in self._installed.values()}

    async def counters(self) -> dict[str, int]:
        totals = {direction: list(gone) for direction, gone in self._gone.items()}
        for key, usage in (await self.usage()).items():
            totals[key.direction][0] += usage.packets
            totals[key.direction][1] += usage.bytes
        counters = {
            trigger: count - self._statistics.get(trigger, 0)
            for trigger, count in xfrm_statistics().items()
            if count != self._statistics.get(trigger, 0)
        }
        for direction, (packets, octets) in totals.items():
            counters[f"esp_{direction.value}_packets"] = packets
            counters[f"esp_{direction.value}_octets"] = octets
        for trigger, count in self._port.counters.items():
            counters[trigger] = counters.get(trigger, 0) + count
        if self._resyncs:
            counters["events_lost"] = self._resyncs
        return counters

    def workers(self) -> tuple[WorkerReport, ...]:
        return ()  # the kernel moves them

    def _receives_on(self, destination: IPAddress, spi: int) -> bool:
        installed = self._installed.get(StateName(destination, spi))
        return installed is not None and installed.sa.direction is Direction.INBOUND

    # What the kernel says by itself.

    def _heard(self, frame: Frame) -> None:
        if frame.kind not in (MessageType.EXPIRE, MessageType.MAPPING):
            return
        try:
            report = frame.content()
        except ValueError:
            self._missed()
            return
        if isinstance(report, Expired):
            installed = self._installed.get(report.state.name)
            if installed is None or report.state.interface_id != self._settings.interface_id:
                return
            self._note(installed, _usage_of(report.state))
            self._expired(installed, report.hard)
        elif isinstance(report, Mapped):
            self._mapped(report)

    def _expired(self, installed: _Installed, hard: bool) -> None:
        if installed.expired or (installed.softened and not hard):
            return
        installed.softened = True
        installed.expired = hard
        if hard and installed.sa.direction is Direction.OUTBOUND and self._kernel is not None:
            self._senders.expire(installed.sa)
            with contextlib.suppress(XfrmError):  # without its state it sends nothing anyway
                self._route(self._kernel, installed.sa)
        self._tell(SaExpired(installed.sa.key, hard))

    def _mapped(self, report: Mapped) -> None:
        installed = self._installed.get(report.name)
        if installed is None or installed.sa.direction is not Direction.INBOUND:
            return
        now = time.monotonic()
        place = report.new_source, report.new_port
        if installed.mapping is not None:
            *before, when = installed.mapping
            if (*before,) == place and now < when + _SAME_MAPPING:
                return
        installed.mapping = (*place, now)
        self._tell(PeerAddressChanged(installed.sa.key, *place))

    def _missed(self) -> None:
        """There were more reports than the socket holds: find out what they said."""
        self._resyncs += 1
        if self._resync is None or self._resync.done():
            self._resync = asyncio.get_running_loop().create_task(self._look_again())

    async def _look_again(self) -> None:
        with contextlib.suppress(DatapathError):
            await self._look(self._require_running())

    async def _look(self, kernel: Xfrm) -> None:
        """Read all states: counters, what reached its soft limit, what is gone."""
        before = dict(self._installed)
        seen = set()
        async for frame in kernel.dump(MessageType.GETSA):
            with contextlib.suppress(ValueError):
                found = StateUsage.parse(*frame.raw())
                installed = self._installed.get(found.name)
                if installed is None or found.interface_id != self._settings.interface_id:
                    continue
                seen.add(found.name)
                self._note(installed, found)
                soft = installed.sa.soft_bytes
                if soft is not None and found.consumed.bytes >= soft:
                    self._expired(installed, hard=False)
        for name, installed in before.items():
            if name not in seen and self._installed.get(name) is installed:
                self._expired(installed, hard=True)

    def _note(self, installed: _Installed, found: StateUsage) -> None:
        """Take over a state's counters.

        The last use: where the kernel tells it, it is in whole seconds of a clock that may be set;
        so it only counts between the looks at which the counters differed.
        """
        now = time.monotonic()
        packets = found.consumed.packets + installed.lost[0]
        octets = found.consumed.bytes + installed.lost[1]
        last = installed.usage.last_used
        if packets > installed.usage.packets:
            last = now
            if found.last_used is not None:
                ago = time.time() - found.last_used
                last = min(now, max(installed.looked, now - ago))
        installed.usage = Usage(packets, octets, last)
        installed.looked = now

    # What the kernel is told.

    def _stand(self, kernel: Xfrm) -> None:
        """Put the policies in place that need no SA.  Raises XfrmError."""
        for policy in standing_policies(self._settings):
            try:
                kernel.ask(MessageType.UPDPOLICY, policy)
                self._standing.append(policy)
            except XfrmError as error:
                if error.number != errno.EAFNOSUPPORT:  # a kernel without IPv6
                    raise

    def _route(self, kernel: Xfrm, sa: SecurityAssociation) -> None:
        """Bring the policy of the selectors of ``sa`` up to date.  Raises XfrmError."""
        policy = self._senders.policy(sa)
        if policy is not None:
            kernel.ask(MessageType.UPDPOLICY, policy)
            return
        selectors = sa.source_selector, sa.destination_selector
        name = PolicyName(
            standing_policies(self._settings)[0].name.direction,
            selectors,
            self._settings.interface_id,
        )
        try:
            kernel.ask(MessageType.DELPOLICY, name)
        except XfrmError as error:
            if error.number != errno.ENOENT:
                raise

    async def _sweep(self, kernel: Xfrm) -> None:
        """Remove each policy and each state with our interface id: first what leads packets to
        states, so that none asks for a state that is gone."""
        for dump, delete in (
            (MessageType.GETPOLICY, MessageType.DELPOLICY),
            (MessageType.GETSA, MessageType.DELSA),
        ):
            for number, name in enumerate(await self._found(kernel, dump)):
                with contextlib.suppress(XfrmError):  # it is gone already
                    kernel.ask(delete, name)
                if number % _REQUESTS_PER_TURN == 0:
                    await asyncio.sleep(0)

    async def _found(self, kernel: Xfrm, dump: MessageType) -> list[PolicyName | StateName]:
        """The policies or states with our interface id.  Raises XfrmError."""
        ours = self._settings.interface_id
        found: list[PolicyName | StateName] = []
        async for frame in kernel.dump(dump):
            with contextlib.suppress(ValueError):
                content = frame.content()
                if content.interface_id == ours:
                    found.append(content.name)
        return found

    def _check(self, sa: SecurityAssociation) -> None:
        check_sa(sa)
        if sa.encapsulation is None:
            return
        port = sa.encapsulation.source_port
        if self._settings.encapsulation_port is None:
            raise DatapathError(f"SA {sa.spi:#010x}: no socket for its outer packets")
        if sa.direction is Direction.OUTBOUND and port != self._settings.encapsulation_port:
            ours = self._settings.encapsulation_port
            raise DatapathError(f"SA {sa.spi:#010x}: source port {port}, not {ours}")

    def _require_running(self) -> Xfrm:
        if self._kernel is None or self._listener is None:
            raise DatapathError("the datapath does not run")
        return self._kernel

    def _forget(self) -> None:
        self._kernel = None

    def _tell(self, event: DatapathEvent) -> None:
        if self._listener is not None:
            self._listener(event)


def _usage_of(state: State) -> StateUsage:
    return StateUsage(state.interface_id, state.name, state.consumed, state.last_used)


def _only_one(settings: XfrmSettings) -> socket.socket:
    """A name that one gateway in this network namespace can have; it goes with the process."""
    lock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        lock.bind(f"\0oegw-xfrm-{settings.interface_id}")
    except OSError:
        lock.close()
        raise DatapathError(
            f"tunnel interface {settings.tunnel_interface}: interface id "
            f"{settings.interface_id} is in use, by another gateway?"
        ) from None
    return lock
