"""Interception by nftables and NFQUEUE: stands behind `interface.Interception`."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from oegw.commands import Assurance, Verdict
from oegw.datapath.interface import SaKey
from oegw.intercept.assurance import elements
from oegw.intercept.conntrack import forget_other_sources
from oegw.intercept.imprint import NONE, Imprints, imprints
from oegw.intercept.interface import InterceptError, InterceptSettings, Marks, TrapListener
from oegw.intercept.jump import Jump, has_nft_queue, has_nft_reject, trap_rules
from oegw.intercept.leaving import Leaving
from oegw.intercept.nft import Nft, NftError
from oegw.intercept.queue import PacketQueue
from oegw.intercept.ruleset import (
    CLEAR,
    COUNTERS,
    StaticChains,
    checked,
    new_policy,
    residue,
    static_chains,
    whole_table,
)
from oegw.intercept.verdicts import (
    HASH_SIZE,
    INTERVAL_SIZE,
    Element,
    Installed,
    commands,
    creations,
    deletions,
    parts,
    shape_of,
    together,
    whole_elements,
)
from oegw.powers import elsewhere
from oegw.trace import Trace
from policy.rule import Scope
from policy.table import PolicyTable

# Our choice: as many verdicts are remembered as the maps of both families have room for.
_REMEMBERED = 2 * (HASH_SIZE + 3 * INTERVAL_SIZE)

_SURELY_GONE = 1.0  # seconds after its time that an element can't be in the kernel any more
_COUNTER = re.compile(r"counter (\w+) \{\s*packets (\d+) bytes (\d+)")


class NftInterception:
    """One nftables table, one queue, and where nft has no ``queue`` an iptables rule per hook.

    ``clock`` gives monotonic seconds.  Raises InterceptError for settings that can't work.
    """

    def __init__(
        self,
        settings: InterceptSettings,
        trace: Trace,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = checked(settings)
        self._trace = trace
        self._clock = clock
        self._marks = Marks(settings.mark_mask)
        self._nft: Nft | None = None
        self._queue: PacketQueue | None = None
        self._chains: StaticChains | None = None
        self._installed: dict[Scope, Installed] = {}
        self._assured: dict[SaKey, tuple[Scope, Assurance]] = {}
        self._places: Counter[tuple[Scope, Assurance]] = Counter()
        self._nft_queue = self._nft_reject = False
        self._not_cached = 0
        self._leaving = Leaving(settings.table, self._speak)
        self._imprints: Imprints | None = None
        self._imprinted = NONE  # of our table, as we made it
        self._jump = Jump(settings.table, trap_rules(settings))
        self._conntrack = ThreadPoolExecutor(1, "conntrack")  # a look at all flows takes a moment

    @property
    def queue_kind(self) -> str:
        """How packets come into the queue: ``"nft"`` or ``"iptables"``."""
        return "nft" if self._nft_queue else "iptables"

    async def start(self, table: PolicyTable, listener: TrapListener) -> None:
        """Open the queue, add the jump, then replace the table of an earlier run.

        Until that one transaction the earlier table stays, and with it what it
        keeps from leaving.  Raises InterceptError, and then leaves the kernel
        as it was.
        """
        chains = await asyncio.to_thread(static_chains, table, self._settings.translations)
        nft = Nft()
        queue = PacketQueue(self._settings, listener, self._trace)
        reading = imprints()
        added = []
        try:
            self._nft_queue = has_nft_queue(nft, self._settings.table)
            self._nft_reject = has_nft_reject(nft, self._settings.table)
            queue.open()
            if not self._nft_queue:
                added = await self._jump.add()
            whole = whole_table(
                self._settings, chains, nft_queue=self._nft_queue, nft_reject=self._nft_reject
            )
            nft.run(whole)
            self._imprints = reading
            self._imprinted = self._imprint()
        except BaseException:
            self._imprints = None
            queue.close()
            nft.close()
            reading.close()
            await self._jump.take_out(added)
            raise
        self._nft, self._queue, self._chains = nft, queue, chains
        self._leaving.clear()
        self._installed.clear()
        self._assured.clear()
        self._places.clear()
        asyncio.get_running_loop().add_reader(queue.fileno(), queue.read)
        self._trace.event("intercept", "started", queue=self.queue_kind, icmp=self._nft_reject)
        try:
            await self._jump.remove_stale(keep_current=not self._nft_queue)
        except InterceptError as error:
            self._trace.event("intercept", "stale_rule_left", reason=str(error))

    async def replace_policy(self, table: PolicyTable) -> None:
        """Install the static rules of a new policy and empty the verdicts, in one transaction.

        TUNNEL verdicts stay, and pairs whose clear packets from outside are
        dropped.  Raises InterceptError, and then all is as before.
        """
        chains = await asyncio.to_thread(static_chains, table, self._settings.translations)
        now = self._clock()
        kept: dict[Scope, Installed] = {}
        commands = [new_policy(self._settings, chains)]
        for scope, installed in self._installed.items():
            verdict = Verdict.TUNNEL if installed.verdict is Verdict.TUNNEL else None
            remaining = installed.remaining(now)
            if (remaining is not None and remaining <= 0) or not (
                verdict or installed.drop_clear_inbound
            ):
                continue
            kept[scope] = Installed(verdict, installed.drop_clear_inbound, installed.expires)
            commands += creations(self._settings.table, scope, kept[scope], remaining)
        self._run("\n".join(commands))
        self._installed = kept
        self._chains = chains
        self._imprinted = self._imprint()

    async def mend(self) -> tuple[str, ...]:
        """Look whether our table is there, and as we made it; if not, put it back, with the
        verdicts that still last.  Returns what was gone.  Raises InterceptError."""
        if self._nft is None or self._chains is None:
            return ()
        if self._imprinted and self._imprint() == self._imprinted:
            return ()
        self._put_back(self._chains)
        return (f"table inet {self._settings.table}",)

    async def mend_jump(self, thorough: bool) -> tuple[str, ...]:
        """The same of iptables' rules.  Raises InterceptError."""
        if self._nft is None or self._nft_queue:
            return ()
        return await self._jump.mend(thorough)

    def _put_back(self, chains: StaticChains) -> None:
        """As it was, in one transaction.  Verdicts that can't be put back are asked for again."""
        whole = whole_table(
            self._settings, chains, nft_queue=self._nft_queue, nft_reject=self._nft_reject
        )
        now, table = self._clock(), self._settings.table
        lasting = {
            scope: installed
            for scope, installed in self._installed.items()
            if (left := installed.remaining(now)) is None or left > 0
        }
        verdicts: list[Element] = []
        for scope, installed in lasting.items():
            verdicts += whole_elements(scope, installed, installed.remaining(now))
        marks = [each for place in self._places for each in elements(*place)]
        self._leaving.clear()
        try:
            self._speak(whole + together("create", table, (*verdicts, *marks)))
        except NftError as refusal:
            self._trace.drop("intercept", "verdicts_not_put_back", detail=str(refusal))
            self._speak(whole)
            lasting = {}
            self._assured.clear()
            self._places.clear()
        self._installed = lasting
        self._imprinted = self._imprint()

    def demand(self) -> None:
        """After a stop as well, what must be encrypted is kept from leaving in clear."""
        self._settings = replace(self._settings, demanded=True)

    def residue(self) -> str:
        """The nft text of what `close` will leave.  Raises InterceptError before `start`."""
        if self._chains is None:
            raise InterceptError("interception isn't started")
        return residue(self._settings, self._chains, nft_reject=self._nft_reject)

    async def close(self) -> None:
        """Drop what is held, and remove all but the guard.  Raises InterceptError."""
        if self._nft is None or self._queue is None or self._chains is None:
            return
        asyncio.get_running_loop().remove_reader(self._queue.fileno())
        self._leaving.clear()
        try:
            self._run(self.residue())
            await self._jump.remove_stale(keep_current=False)
        finally:
            self._queue.close()
            self._nft.close()
            if self._imprints is not None:
                self._imprints.close()
            self._nft = self._queue = self._chains = self._imprints = None
            self._installed.clear()
            self._conntrack.shutdown(wait=False, cancel_futures=True)
        self._trace.event("intercept", "closed")

    def install_policy(
        self, scope: Scope, verdict: Verdict, lifespan: float | None, drop_clear_inbound: bool
    ) -> None:
        """Cache a verdict in the kernel, in place of an earlier one for the same scope.

        If the kernel has no room for it, or another element in the way, that is
        counted, and packets of the scope are trapped one by one.  Raises
        InterceptError for any other refusal.
        """
        table = self._settings.table
        if lifespan is not None and lifespan <= 0:
            self.remove_policy(scope)
            return
        expires = None if lifespan is None else self._clock() + lifespan
        new = Installed(verdict, drop_clear_inbound, expires)
        old = self._installed.get(scope)
        if old is None and not self._may_remember():
            self._count_not_cached(scope, "remembered enough")
            return
        create = creations(table, scope, new, lifespan)
        try:
            self._run("\n".join([*(deletions(table, scope, old) if old else ()), *create]))
        except NftError:
            # The old one timed out meanwhile, in part perhaps, or something unknown is there.
            for possible in (
                old,
                *(Installed(other, drop_clear_inbound, None) for other in Verdict),
            ):
                if possible is not None:
                    self._forget(scope, possible)
            try:
                self._run("\n".join(create))
            except NftError as refusal:
                if refusal.exists or refusal.full:
                    self._count_not_cached(scope, refusal.words.strip().splitlines()[0])
                    return
                if not refusal.missing:  # of a table that is put back, with this in it
                    raise
        self._installed[scope] = new
        if verdict is Verdict.TUNNEL:
            self._translate_anew(scope)

    def _translate_anew(self, scope: Scope) -> None:
        """Flows of a translated host that were there before its tunnel."""
        source, destination = scope.source.network_address, scope.destination.network_address
        hosts = scope.source.max_prefixlen == scope.source.prefixlen == scope.destination.prefixlen
        by = next((t for t in self._settings.translations if t.covers(source)), None)
        if by is not None and hosts:
            kernel, outward = elsewhere.kernel(), by.outward(source)
            if kernel is not None:
                asked: asyncio.Future[int] = asyncio.ensure_future(
                    kernel.forget_other_sources(source, destination, outward)
                )
            else:
                asked = asyncio.get_running_loop().run_in_executor(
                    self._conntrack, forget_other_sources, source, destination, outward
                )
            asked.add_done_callback(partial(self._translated_anew, scope))

    def _translated_anew(self, scope: Scope, asked: asyncio.Future[int]) -> None:
        if asked.cancelled():
            return
        if (error := asked.exception()) is not None:
            self._trace.drop("intercept", "conntrack_unread", scope=scope, detail=str(error))
        elif asked.result():
            self._trace.event("intercept", "translated_anew", scope=scope, flows=asked.result())

    def remove_policy(self, scope: Scope) -> None:
        """Forget a verdict, with all others of this turn of the event loop; no error if it is gone
        already."""
        installed = self._installed.pop(scope, None)
        if installed is None:
            return
        left = installed.remaining(self._clock())
        # What the kernel has surely dropped by itself needs no transaction.
        if left is None or left >= -_SURELY_GONE:
            self._leaving.add(parts(scope, installed))

    def assure(self, key: SaKey, scope: Scope, assurance: Assurance) -> None:
        """Mark what an inbound SA carries.  Several SAs may carry the same.

        Without room for it, or beside another element that has a part of it, its packets get the
        mark of what is there, or none; that is counted.  Raises InterceptError.
        """
        self.forget_assurance(key)
        place = (scope, assurance)
        if not self._places[place]:
            try:
                self._run("\n".join(commands("create", self._settings.table, elements(*place))))
            except NftError as refusal:
                if refusal.exists or refusal.full:
                    self._count_not_cached(scope, refusal.words.strip().splitlines()[0])
                    return
                if not refusal.missing:
                    raise
        self._places[place] += 1
        self._assured[key] = place

    def forget_assurance(self, key: SaKey) -> None:
        """The SA goes; the mark with the last that carries the same."""
        place = self._assured.pop(key, None)
        if place is None:
            return
        self._places[place] -= 1
        if not self._places[place]:
            del self._places[place]
            self._leaving.add((name, key, "") for name, key in elements(*place))

    def release(self, packets: tuple[int, ...], verdict: Verdict) -> None:
        """Let packets go on, in this order, in clear or into the tunnel device.

        Those to be refused go on to the chain that answers and drops them.
        """
        if self._queue is None:
            return
        match verdict:
            case Verdict.DENY:
                self._queue.discard(packets)
            case Verdict.REFUSE:
                self._queue.release(packets, self._marks.trap)
            case Verdict.TUNNEL:
                self._queue.release(packets, self._marks.tunnel)
            case Verdict.CLEAR:
                self._queue.release(packets, 0)

    def discard(self, packets: tuple[int, ...]) -> None:
        """Drop packets."""
        if self._queue is not None:
            self._queue.discard(packets)

    def counters(self) -> dict[str, int]:
        """Packets by fate (`ruleset.COUNTERS`), the queue's numbers, and what isn't cached."""
        counted = dict.fromkeys(COUNTERS, 0)
        counted["verdict_not_cached"] = self._not_cached
        if self._queue is not None:
            counted |= self._queue.counters()
            listing = self._run(f"list counters table inet {self._settings.table}")
            for name, packets, octets in _COUNTER.findall(listing):
                counted[name] = int(packets)
                if name == CLEAR:
                    counted[f"{name}_octets"] = int(octets)
        return counted

    def _run(self, command: str) -> str:
        """Behind what is about to leave."""
        self._leaving.go()
        return self._speak(command)

    def _speak(self, command: str) -> str:
        if self._nft is None:
            raise InterceptError("interception isn't started")
        return self._nft.run(command)

    def _forget(self, scope: Scope, installed: Installed) -> None:
        """Delete the elements of a scope now, as far as they are there."""
        self._installed.pop(scope, None)
        self._leaving.add(parts(scope, installed))
        self._leaving.go()

    def _imprint(self) -> str:
        assert self._imprints is not None
        return self._imprints.taken("inet", self._settings.table)

    def _may_remember(self) -> bool:
        if len(self._installed) >= _REMEMBERED:
            now = self._clock()
            self._installed = {
                scope: installed
                for scope, installed in self._installed.items()
                if installed.expires is None or installed.expires > now
            }
        return len(self._installed) < _REMEMBERED

    def _count_not_cached(self, scope: Scope, reason: str) -> None:
        self._not_cached += 1
        if self._not_cached & (self._not_cached - 1) == 0:  # 1st, 2nd, 4th, 8th, ...
            self._trace.event(
                "intercept",
                "verdict_not_cached",
                scope=scope,
                shape=shape_of(scope).value,
                reason=reason,
                so_far=self._not_cached,
            )
