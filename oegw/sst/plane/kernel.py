"""The plane in nftables and NFQUEUE: stands behind `interface.RunningPlane`."""

from __future__ import annotations

import asyncio
import fcntl
import re
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from oegw.intercept.imprint import NONE, Imprints, imprints
from oegw.intercept.interface import InterceptError
from oegw.intercept.jump import Jump, QueueRule, has_nft_queue
from oegw.intercept.nft import Nft, NftError
from oegw.packet.ip import PacketError
from oegw.sst.interface import Entry, IPAddress, Leg, Listener, PortFlow, Reason, SstError
from oegw.sst.permutation import NotEligible
from oegw.sst.plane import names
from oegw.sst.plane.byhand import fragmentable, rewritten
from oegw.sst.plane.flows import Flows
from oegw.sst.plane.marks import PlaneMarks
from oegw.sst.plane.netlink import NfTables, RefusedError
from oegw.sst.plane.queues import Queues
from oegw.sst.plane.rewriting import rules
from oegw.sst.plane.ruleset import (
    COUNTERS,
    PolicyChains,
    flags_fragments,
    fragment_table,
    new_policy,
    no_fragment_table,
    no_table,
    policy_chains,
    residue,
    unhooked_table,
    whole_table,
)
from oegw.sst.plane.settings import PlaneSettings, checked
from oegw.sst.quote import quote_of
from oegw.sst.settings import Fragments
from oegw.sst.signal import Signal
from oegw.trace import Trace
from policy.table import PolicyTable

# Specification values: linux/sockios.h; ports of IKE (RFC 2408, RFC 3948).
_SIOCGIFMTU = 0x8921
_IKE_PORTS = (500, 4500)

_COUNTER = re.compile(r"counter (\w+) \{\s*packets (\d+)")


class NftPlane:
    """One nftables table, two queues, and where nft has no ``queue`` an iptables rule per hook.

    ``clock`` gives monotonic seconds.  Raises SstError for settings that can't work.
    """

    def __init__(
        self,
        settings: PlaneSettings,
        trace: Trace,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = checked(settings)
        self._trace = trace
        self._clock = clock
        self._marks = PlaneMarks(settings.sst.mark_mask)
        self._signal = Signal.of(settings.sst)
        self._jump = Jump(settings.table, queue_rules(settings))
        self._nft: Nft | None = None
        self._kernel: NfTables | None = None
        self._queues: Queues | None = None
        self._flows: Flows | None = None
        self._policy: PolicyChains | None = None
        self._mtus: dict[str, int] = {}
        self._nft_queue = False
        self._shielded: dict[tuple[IPAddress, IPAddress], None] = {}
        self._imprints: Imprints | None = None
        self._imprinted: tuple[str, ...] = ()  # of our tables, as we made them

    @property
    def queue_kind(self) -> str:
        """How packets come into the queues: ``"nft"``, behind source NAT, or ``"iptables"``,
        before it."""
        return "nft" if self._nft_queue else "iptables"

    async def start(self, table: PolicyTable, listener: Listener) -> None:
        """Open the queues, add the jumps, then replace the table of an earlier run.

        Until that one transaction the earlier table stays.  The rules that rewrite follow in one of
        their own; until then there is no entry that they could find.
        """
        policy = await asyncio.to_thread(policy_chains, table)
        with _sst_errors():
            await self._start(policy, listener)
        self._trace.event("sst", "plane_started", queue=self.queue_kind, mtus=dict(self._mtus))
        try:
            await self._jump.remove_stale(keep_current=not self._nft_queue)
        except InterceptError as error:
            self._trace.event("sst", "stale_rule_left", reason=str(error))

    async def _start(self, policy: PolicyChains, listener: Listener) -> None:
        settings = self._settings
        nft = Nft()
        queues: Queues | None = None
        kernel: NfTables | None = None
        added = []
        try:
            kernel = NfTables()
            self._mtus = self._measured()
            self._nft_queue = has_nft_queue(nft, settings.table)
            self._try_rules(nft, kernel)
            queues = Queues(
                settings,
                listener,
                self._trace,
                lambda name: self._mtus.get(name),
                self._leg_of_quote,
            )
            queues.open()
            if not self._nft_queue:
                added = await self._jump.add()
            self._imprints = imprints()
            self._put_tables(nft, kernel, policy)
        except BaseException:
            self._end_imprints()
            if queues is not None:
                queues.close()
            if kernel is not None:
                kernel.close()
            nft.close()
            await self._jump.take_out(added)
            raise
        self._nft, self._kernel, self._queues, self._policy = nft, kernel, queues, policy
        self._flows = Flows(settings, kernel, self._clock)
        loop = asyncio.get_running_loop()
        for queue in queues.both:
            loop.add_reader(queue.fileno(), queue.read)

    def _put_tables(self, nft: Nft, kernel: NfTables, policy: PolicyChains) -> None:
        """In place of what is there; without what is in maps and sets."""
        settings = self._settings
        if flags_fragments(settings):
            _flag_fragments(nft, settings, self._mtus)
        else:
            _flag_no_fragments(nft, settings)
        nft.run(whole_table(settings, policy, self._mtus, nft_queue=self._nft_queue))
        kernel.run(rules(settings.table, self._marks))
        self._imprinted = self._imprints_taken()

    def _put_elements(self) -> None:
        """What was in maps and sets; a flow that finds no room is asked for again."""
        for pair in self._shielded:
            self._run(self._on_pair("add", *pair))
        if self._flows is not None:
            try:
                self._flows.put_back()
            except RefusedError as refusal:
                self._trace.drop("sst", "flows_not_put_back", detail=str(refusal))

    def _imprints_taken(self) -> tuple[str, ...]:
        assert self._imprints is not None
        families = ("inet", "netdev") if flags_fragments(self._settings) else ("inet",)
        return tuple(self._imprints.taken(family, self._settings.table) for family in families)

    def _end_imprints(self) -> None:
        if self._imprints is not None:
            self._imprints.close()
            self._imprints = None

    def _try_rules(self, nft: Nft, kernel: NfTables) -> None:
        """Whether the kernel takes the rules that rewrite: in a table that no packet passes."""
        probe = f"{self._settings.table}_probe"
        nft.run(unhooked_table(self._settings, probe))
        try:
            kernel.run(rules(probe, self._marks))
        finally:
            nft.run(f"delete table inet {probe}")

    async def replace_policy(self, table: PolicyTable) -> None:
        """Other rules in one transaction; entries stay, what was declined is asked again."""
        policy = await asyncio.to_thread(policy_chains, table)
        mtus = self._measured()
        with _sst_errors():
            self._run(new_policy(self._settings, policy, mtus, nft_queue=self._nft_queue))
            self._imprinted = self._imprints_taken()
        self._policy, self._mtus = policy, mtus
        if self._flows is not None:
            self._flows.declined_forgotten()

    async def mend(self) -> tuple[str, ...]:
        """Put back tables that somebody else took away or changed, with what has been decided;
        returns what was gone.  Raises SstError."""
        if self._nft is None or self._kernel is None or self._policy is None:
            return ()
        with _sst_errors():
            taken = self._imprints_taken()
            if taken == self._imprinted and NONE not in taken:
                return ()
            self._put_tables(self._nft, self._kernel, self._policy)
            self._put_elements()
        return (f"table inet {self._settings.table}",)

    async def mend_jump(self, thorough: bool) -> tuple[str, ...]:
        """The same of iptables' rules.  Raises SstError."""
        if self._nft is None or self._nft_queue:
            return ()
        with _sst_errors():
            return await self._jump.mend(thorough)

    def residue(self) -> str:
        """The nft text of what `close` will leave; nothing before `start`."""
        return "" if self._policy is None else residue(self._settings, self._policy)

    async def close(self) -> None:
        """Drop what is held, and remove all but what drops what requires port encryption."""
        if self._nft is None or self._queues is None or self._policy is None:
            return
        loop = asyncio.get_running_loop()
        for queue in self._queues.both:
            loop.remove_reader(queue.fileno())
        try:
            with _sst_errors():
                self._run(self.residue())
                _flag_no_fragments(self._nft, self._settings)
                await self._jump.remove_stale(keep_current=False)
        finally:
            self._queues.close()
            self._nft.close()
            if self._kernel is not None:
                self._kernel.close()
            self._end_imprints()
            self._nft = self._kernel = self._queues = self._flows = self._policy = None
        self._trace.event("sst", "plane_closed")

    def enter(self, entry: Entry) -> bool:
        """Put a flow into the fast path, in place of what is there for it.  False: no room."""
        return self._flows is not None and self._flows.enter(entry)

    def decline(self, leg: Leg, flow: PortFlow, lifespan: float) -> None:
        """Let a flow go on unsealed for so many seconds, though it was wanted."""
        if self._flows is not None:
            self._flows.decline(leg, flow, lifespan)

    def forget(self, leg: Leg, remote: IPAddress | None = None) -> None:
        """Forget all flows, entered and declined, to one host or all."""
        if self._flows is not None:
            self._flows.forget(leg, remote)

    def shield(self, local: IPAddress, remote: IPAddress) -> None:
        """Seal what we send ourselves between two gateways."""
        self._shielded[local, remote] = None
        with _sst_errors():
            try:
                self._run(self._on_pair("add", local, remote))
            except NftError as refusal:
                if not refusal.missing:  # of a table that is put back, with this in it
                    raise

    def unshield(self, local: IPAddress, remote: IPAddress) -> None:
        """No longer; the flows between them are asked again."""
        self._shielded.pop((local, remote), None)
        with _sst_errors():
            try:
                self._run(self._on_pair("delete", local, remote))
            except NftError as refusal:
                if not refusal.missing:
                    raise
        if self._flows is not None:
            self._flows.forget_between(Leg.OUTSIDE, local, remote, _IKE_PORTS)

    def _on_pair(self, verb: str, local: IPAddress, remote: IPAddress) -> str:
        name = names.shielded(local.version)
        return f"{verb} element inet {self._settings.table} {name} {{ {local} . {remote} }}"

    def release(self, number: int, packet: bytes | None = None, epoch: int | None = None) -> None:
        """Let a packet go on: through the fast path, or as ``packet``, which is final."""
        if self._queues is None or self._flows is None:
            return
        caught = self._queues.caught(number)
        if caught is not None:
            if packet is None:
                tries = self._settings.sst.fragments is Fragments.TRY
                known = rewritten(caught, self._flows, self._signal, tries=tries)
                packet, epoch = known or (None, None)
            if caught.reason is Reason.FRAGMENT and packet not in (None, caught.packet):
                packet = fragmentable(packet)
        self._queues.release(number, packet, epoch)

    def drop(self, number: int) -> None:
        """Drop a packet."""
        if self._queues is not None:
            self._queues.drop(number)

    def counters(self) -> dict[str, int]:
        """Packets by fate (`ruleset.COUNTERS`), the queues' numbers, flows and lack of room."""
        counted = dict.fromkeys(COUNTERS, 0)
        if self._queues is not None and self._flows is not None:
            counted |= self._queues.counters()
            counted["flows"] = len(self._flows)
            counted["flows_full"] = self._flows.full
            with _sst_errors():
                listing = self._run(f"list counters table inet {self._settings.table}")
            counted |= {name: int(packets) for name, packets in _COUNTER.findall(listing)}
        return counted

    def _run(self, command: str) -> str:
        if self._nft is None:
            raise SstError("the plane isn't started")
        return self._nft.run(command)

    def _measured(self) -> dict[str, int]:
        """The MTUs of our interfaces, as far as they are there."""
        found = {}
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            for name in (*self._settings.outside, self._settings.tunnel_interface):
                request = struct.pack("16sI12x", name.encode(), 0)
                try:
                    answer = fcntl.ioctl(asking, _SIOCGIFMTU, request)
                except OSError:
                    continue
                found[name] = struct.unpack_from("=I", answer, 16)[0]
        return found

    def _leg_of_quote(self, octets: bytes) -> Leg:
        """Of an error that this box wrote about a packet that was sealed already."""
        try:
            place = quote_of(octets)
        except (PacketError, NotEligible):
            return Leg.TUNNEL
        if self._flows is not None and place.source_port and place.destination_port:
            ports = place.source_port, place.destination_port
            for leg in Leg:
                if self._flows.of_sealed(
                    leg, place.source, place.destination, place.protocol, ports
                ):
                    return leg
        return Leg.TUNNEL


async def remove_leftovers(settings: PlaneSettings) -> bool:
    """Remove what an earlier run left, where port encryption no longer runs.

    Whether there was anything.  Raises SstError.
    """
    with _sst_errors():
        nft = Nft()
        try:
            if f"table inet {settings.table}" not in nft.run("list tables").splitlines():
                return False
            _flag_no_fragments(nft, settings)
            nft.run(no_table(settings))
        finally:
            nft.close()
        await Jump(settings.table, queue_rules(settings)).remove_stale(keep_current=False)
    return True


def queue_rules(settings: PlaneSettings) -> tuple[QueueRule, ...]:
    """Where nft has no ``queue``: raw is behind reassembly, mangle before source NAT."""
    marks, first = PlaneMarks(settings.sst.mark_mask), settings.sst.queue
    arriving = [
        QueueRule("raw", hook, marks.waiting, marks.state, first)
        for hook in ("PREROUTING", "OUTPUT")
    ]
    leaving = [
        QueueRule("mangle", "POSTROUTING", mark, marks.state, first + 1)
        for mark in (marks.waiting, marks.waiting_sticky)
    ]
    return (*arriving, *leaving)


def _flag_fragments(nft: Nft, settings: PlaneSettings, devices: Iterable[str]) -> None:
    try:
        nft.run(fragment_table(settings, devices))
    except NftError as error:
        raise SstError(f'sst.fragments "try" needs egress hooks (Linux 5.16): {error}') from error


def _flag_no_fragments(nft: Nft, settings: PlaneSettings) -> None:
    """Remove what an earlier run left; a kernel without the family has nothing."""
    with suppress(NftError):
        nft.run(no_fragment_table(settings))


@contextmanager
def _sst_errors() -> Iterator[None]:
    """Whatever the kernel refuses is our neighbours' error."""
    try:
        yield
    except InterceptError as error:
        raise SstError(str(error)) from error
