"""The firewall of this box: the nft table ``inet oegw_moniker`` (MK-18)."""

from __future__ import annotations

import asyncio
import itertools
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from urllib.parse import unquote

from oegw.moniker.firewall import ruleset
from oegw.moniker.firewall.book import (
    Forward,
    Guard,
    Held,
    Hole,
    LeaseBook,
    full_name,
    guards_of,
    plain,
    protocol_of,
)
from oegw.moniker.firewall.heldport import hold_port, is_ours, is_taken
from oegw.moniker.firewall.ruleset import FirewallError
from oegw.moniker.firewall.table import Found, Table
from oegw.moniker.interface import IPAddress, Lease, LeaseRefused, Opening, Place
from oegw.moniker.settings import FirewallSettings, HostSettings
from oegw.moniker.transports import known
from oegw.moniker.wire import Code
from oegw.sst.allowance import Allowance
from oegw.trace import Trace

__all__ = ["FirewallError", "OwnFirewall"]

# Our choices.
OF_THIS_BOX = 4096  # leases for its own services
GUARDED_AFTER_START = 30.0  # seconds in which services of before register again
SWEEP_SECONDS = 1.0
MAX_REFUSED = 16000  # clients that are refused aloud; more are met with silence
SWEEPS_TO_COUNT = 5  # the kernel's counters are read each so many sweeps
LINES_PER_SECOND, LINES_AT_ONCE = 50.0, 1000.0  # of the trace, about leases
CATEGORY = "moniker"


class OwnFirewall:
    """Leases for services of this box, and for hosts behind it, as elements with timeouts.

    It is there on a gateway (``hosts``), with or without ``deny``, and on any host with ``deny``.
    If this process dies, the table stays, and the leases time out in the kernel.
    """

    def __init__(
        self,
        settings: FirewallSettings,
        hosts: Sequence[HostSettings] = (),
        *,
        trace: Trace,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._hosts = tuple(hosts)
        self._trace = trace
        self._clock = clock
        self._behind: dict[IPAddress, HostSettings] = {}
        self._book = LeaseBook(self._group_of)
        self._table = Table()
        self._held_ports: dict[Forward, socket.socket] = {}
        self._lines = Allowance(LINES_PER_SECOND, LINES_AT_ONCE)
        self._refused: dict[Hole, float] = {}
        self._guards: dict[Guard, set[Place]] = {}
        self._leaving: dict[Guard, None] = {}  # of services that ended, perhaps still reachable
        self._sweeper: asyncio.Task[None] | None = None
        self.packets: dict[str, int] = {}
        """By the names of `ruleset.COUNTERS`, as of a few seconds ago."""

    async def start(self) -> None:
        """Put the table in place, in one transaction.  Raises FirewallError.

        Leases of a process before us live on: services register again with the same ports.
        """
        ruleset.checked(self._settings)
        self._set_hosts(self._hosts)
        await self._table.open()
        text = ruleset.whole_table(self._settings, self._hosts)
        try:
            text += self._adopted(await self._table.found())
            await self._table.run(text)
        except FirewallError:
            await self._name_what_is_wrong()
            await self._table.close()
            raise
        self._sweeper = asyncio.create_task(self._sweep())
        self._trace.event(
            CATEGORY, "firewall_started", deny=self._settings.deny, leases=len(self._book)
        )

    async def close(self) -> None:
        """Leave the deny chains without a lease (``keep``), or nothing.  Never raises."""
        if self._sweeper is None:
            return
        self._sweeper.cancel()
        self._sweeper = None
        for forward in list(self._held_ports):
            self._held_ports.pop(forward).close()
        keep = self._settings.deny and self._settings.keep
        try:
            await self._table.write(ruleset.residue() if keep else ruleset.removing())
        except FirewallError as error:
            self._trace.drop(CATEGORY, "firewall_not_left", text=str(error))
        await self._table.close()

    async def reload(self, hosts: Sequence[HostSettings]) -> None:
        """Other hosts: leases of those that are gone end.  Raises FirewallError."""
        gone = ruleset.addresses_of(self._hosts) - ruleset.addresses_of(hosts)
        await self._table.write(ruleset.questions(hosts))
        self._set_hosts(tuple(hosts))
        await self._end(lambda held: held.hole.host in gone, "host")

    async def guard(self, place: Place) -> None:
        """A service of this box is there: from outside it is closed but for leases."""
        if (protocol := protocol_of(place.transport)) is not None:
            for guard in guards_of(place, protocol):
                self._guards.setdefault(guard, set()).add(place)
                self._leaving.pop(guard, None)
                await self._write_quietly(ruleset.guarded(guard))

    async def open(self, lease: Lease) -> Opening:
        """Open a port of this box, or of a host behind it.  Raises LeaseRefused."""
        new = self._is_new(lease)
        held = self._open(lease)
        await self._written(held, ruleset.opened(held.hole, self._left(held), full_name(lease)))
        if new:
            self._tell("lease_opened", held)
        return Opening(held.hole.port, held.lease.seconds)

    async def forward(self, lease: Lease, asked: IPAddress) -> Opening:
        """Open a random port of our own address ``asked`` that leads to the lease's (MK-14).

        For exactly the lease's client.  Raises LeaseRefused.
        """
        new = self._is_new(lease)
        asked = plain(asked)
        if asked.version != plain(lease.host).version:
            raise LeaseRefused(Code.GATEWAY.value, "asked over another address family")
        held = self._open(lease)
        try:
            forward = self._book.forward(held.hole, asked) or self._hold(held, asked)
        except LeaseRefused:
            if new:
                self._book.end(lambda other: other.hole == held.hole)
            raise
        left, name = self._left(held), full_name(lease)
        text = ruleset.opened(held.hole, left, name) + ruleset.forwarded(forward, left, name)
        await self._written(held, text)
        if new:
            self._tell("lease_opened", held, asked=str(asked), forwarded=forward.port)
        return Opening(forward.port, held.lease.seconds)

    async def end(self, place: Place) -> None:
        """Its leases end; the clients that had one are refused from then on."""
        protocol = protocol_of(place.transport)
        if protocol is None:
            return
        left = [guard for guard in guards_of(place, protocol) if self._has_left(guard, place)]
        await self._unguard(left)

        def meant(held: Held) -> bool:
            hole = held.hole
            return (
                hole.host not in self._behind
                and place.address in (None, hole.host)
                and str(hole.host.version) in place.families
            )

        await self._end(meant, "service", (protocol, place.port))

    def _has_left(self, guard: Guard, place: Place) -> bool:
        """Whether this was the last service there; one of MPTCP may have what one of TCP has."""
        places = self._guards.get(guard, set())
        places.discard(place)
        if places:
            return False
        self._guards.pop(guard, None)
        self._leaving[guard] = None
        return True

    async def _unguard(self, left: Iterable[Guard]) -> None:
        """What no service has any more, nor anybody who got the service's socket."""
        text = ""
        for guard in left:
            if not is_taken(guard):
                del self._leaving[guard]
                text += ruleset.unguarded(guard)
        if text:
            await self._write_quietly(text)

    async def end_of(self, host: IPAddress, transport: str, port: int) -> None:
        """The leases for a port of a host behind us end, as those of `end`."""
        protocol, address = protocol_of(transport), plain(host)
        if protocol is not None:
            await self._end(lambda held: held.hole.host == address, "service", (protocol, port))

    async def end_all_of(self, host: HostSettings) -> None:
        """All leases of a host behind us end, since it is gone.  Never raises."""
        await self._end(lambda held: held.hole.host in host.addresses, "host")

    def leases(self) -> list[Lease]:
        """Those that live, for the status; ``seconds`` is what is left of each."""
        now = self._clock()
        return [replace(held.lease, seconds=max(0, round(held.until - now))) for held in self._book]

    async def counters(self) -> dict[str, int]:
        """Packets by the names of `ruleset.COUNTERS`.  Raises FirewallError."""
        return await self._table.counters()

    def _set_hosts(self, hosts: Sequence[HostSettings]) -> None:
        self._hosts = tuple(hosts)
        self._behind = {address: host for host in hosts for address in host.addresses}

    def _group_of(self, host: IPAddress) -> tuple[str, int]:
        behind = self._behind.get(host)
        return ("", OF_THIS_BOX) if behind is None else (behind.name, behind.leases)

    def _is_new(self, lease: Lease) -> bool:
        """Raises LeaseRefused."""
        known, now = self._book.get(Hole.of(lease)), self._clock()
        if known is not None and known.until <= now:  # the kernel has forgotten it
            self._expire(now)
            return True
        return known is None

    def _open(self, lease: Lease) -> Held:
        if self._sweeper is None:
            raise LeaseRefused(Code.GATEWAY.value, "the firewall is not running")
        try:
            return self._book.open(lease, self._clock())
        except LeaseRefused as refused:
            self._trace.drop(
                CATEGORY,
                f"lease_{refused.code}",
                service=full_name(lease),
                client=str(lease.client),
                host=str(lease.host),
                text=str(refused),
            )
            raise

    def _hold(self, held: Held, asked: IPAddress) -> Forward:
        port, holder = hold_port(asked, held.lease.transport)
        forward = Forward(held.hole, asked, port)
        self._book.add_forward(forward)
        self._held_ports[forward] = holder
        return forward

    def _left(self, held: Held) -> float:
        return held.until - self._clock()

    async def _written(self, held: Held, text: str) -> None:
        """What the kernel refuses is no lease.  Raises LeaseRefused."""
        try:
            await self._table.write(text)
        except FirewallError as error:
            self._release(self._book.end(lambda other: other.hole == held.hole))
            self._trace.drop(CATEGORY, "lease_not_written", text=str(error))
            raise LeaseRefused(Code.GATEWAY.value, "the firewall did not open the port") from None

    async def _end(
        self, meant: Callable[[Held], bool], why: str, port: tuple[int, int] | None = None
    ) -> None:
        """``port``: protocol and port, where only leases of that one can be meant."""
        now = self._clock()
        over = self._book.end(meant, port)
        if not over:
            return
        text = refusing = ""
        for held, forwards in over:
            text += ruleset.ended(held.hole)
            text += "".join(ruleset.forward_ended(forward) for forward in forwards)
            if held.until > now:
                refusing += self._refusing(held, now)
            # What is over already has not ended for another reason.
            self._tell("lease_ended", held, why=why if held.until > now else "time")
        await self._write_quietly(text)
        if refusing:  # apart: whether the clients are told must not decide whether the leases end
            await self._write_quietly(refusing)
        self._release(over)

    def _refusing(self, held: Held, now: float) -> str:
        if held.hole not in self._refused and len(self._refused) >= MAX_REFUSED:
            return ""
        self._refused[held.hole] = held.until
        return ruleset.refused(held.hole, held.until - now)

    async def _write_quietly(self, text: str) -> None:
        try:
            await self._table.write(text)
        except FirewallError as error:
            self._trace.drop(CATEGORY, "firewall_not_written", text=str(error))

    def _release(self, over: Sequence[tuple[Held, Sequence[Forward]]]) -> None:
        for _, forwards in over:
            for forward in forwards:
                if (held := self._held_ports.pop(forward, None)) is not None:
                    held.close()

    async def _sweep(self) -> None:
        for sweep in itertools.count():
            if not sweep % SWEEPS_TO_COUNT:
                await self._look()
            await asyncio.sleep(SWEEP_SECONDS)
            now = self._clock()
            for hole in [hole for hole, until in self._refused.items() if until <= now]:
                del self._refused[hole]
            self._expire(now)
            await self._unguard(list(self._leaving))

    async def _look(self) -> None:
        """Read the counters; if the table is gone (`nft flush ruleset`), put it back as it was."""
        with suppress(FirewallError):
            self.packets = await self._table.counters()
            return
        now, text = self._clock(), ruleset.whole_table(self._settings, self._hosts)
        for held in self._book:
            if held.until > now:
                text += ruleset.opened(held.hole, held.until - now, full_name(held.lease))
        for forward in self._held_ports:
            under = self._book.get(forward.hole)
            if under is not None and under.until > now:
                text += ruleset.forwarded(forward, under.until - now, full_name(under.lease))
        text += "".join(ruleset.guarded(guard) for guard in (*self._guards, *self._leaving))
        try:
            await self._table.run(text)
        except FirewallError as error:
            self._trace.drop(CATEGORY, "firewall_gone", text=str(error))
        else:
            self._trace.event(CATEGORY, "firewall_put_back", leases=len(self._book))

    def _expire(self, now: float) -> None:
        """The kernel has forgotten them by itself."""
        over = self._book.expire(now)
        self._release(over)
        for held, _ in over:
            self._tell("lease_ended", held, why="time")

    def _adopted(self, found: Found) -> str:
        """Commands that put leases and guarded ports of before into the new table."""
        now = self._clock()
        text = ""
        for hole, name, left in found.leases:
            lease = _lease_again(hole, name)
            ours = hole.host in self._behind or is_ours(hole.host)
            if lease is None or not ours or left <= 0:
                continue
            held = self._book.adopt(lease, left, now)
            if held is not None:
                text += ruleset.opened(held.hole, left, name)
        for guard in found.guarded:
            text += ruleset.guarded(guard, GUARDED_AFTER_START)
        return text

    async def _name_what_is_wrong(self) -> None:
        """Which of ``allow`` the kernel refuses.  Raises FirewallError."""
        for match in self._settings.allow:
            try:
                await self._table.run(ruleset.trial(match), dry=True)
            except FirewallError as error:
                await self._table.close()
                raise FirewallError(f"moniker.firewall.allow: {match!r}: {error}") from None

    def _tell(self, event: str, held: Held, **more: object) -> None:
        """A line of the trace, with the service's name (MK-32).

        A renewal changes nothing, so there is none about it; and strangers can ask for many leases,
        so there is a limit.
        """
        if self._lines.take(self._clock()):
            self._trace.event(CATEGORY, event, **_shown(held), **more)
        else:
            self._trace.drop(CATEGORY, f"{event}_unwritten", service=full_name(held.lease))


def _shown(held: Held) -> dict[str, object]:
    """Who may reach which service, by its name (MK-32)."""
    return {
        "service": full_name(held.lease),
        "client": str(held.hole.client),
        "host": str(held.hole.host),
        "transport": held.lease.transport,
        "port": held.hole.port,
        "seconds": held.lease.seconds,
    }


def _lease_again(hole: Hole, name: str) -> Lease | None:
    """A lease by what the kernel kept of it."""
    for transport in known():
        if transport.ip_protocol == hole.protocol:
            namespace, _, service = unquote(name).rpartition("::")
            return Lease(hole.client, hole.host, transport.name, hole.port, 1, service, namespace)
    return None


async def remove_what_was_left(trace: Trace) -> None:
    """Of a daemon that denied, where this one has nothing to do with a firewall.  Never raises."""
    table = Table()
    try:
        await table.open()
    except FirewallError:
        return  # without the library nobody has made a table either
    try:
        if await table.is_there():
            await table.run(ruleset.removing())
            trace.event(CATEGORY, "firewall_removed")
    except FirewallError as error:
        trace.drop(CATEGORY, "firewall_not_removed", text=str(error))
    finally:
        await table.close()
