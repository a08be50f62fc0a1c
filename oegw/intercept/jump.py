"""The jump to a queue: nft ``queue`` where the kernel has it, else iptables rules in both families.

The iptables rules match a mark, name the queue, and never say bypass: no
process, no traffic.  They are found and removed by their comment.
"""

from __future__ import annotations

import asyncio
import shlex
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from oegw.intercept.imprint import imprints
from oegw.intercept.interface import InterceptError, InterceptSettings, Marks
from oegw.intercept.nft import Nft, NftError
from oegw.powers import elsewhere
from oegw.powers.orders import Iptables, IptablesDone

_FAMILIES = {"iptables": "ip", "ip6tables": "ip6"}


def has_nft_queue(nft: Nft, table: str) -> bool:
    """Whether this kernel has nft ``queue``."""
    return _takes(nft, table, "queue num 0")


def has_nft_reject(nft: Nft, table: str) -> bool:
    """Whether this kernel has nft ``reject`` before routing: Linux 5.9 and later."""
    return _takes(nft, table, "reject with icmpx type admin-prohibited")


def _takes(nft: Nft, table: str, statement: str) -> bool:
    """Whether the kernel takes a statement: it checks a rule with it, and does not keep it."""
    probe = f"{table}_probe"
    try:
        nft.run(
            f"add table inet {probe}\n"
            f"add chain inet {probe} c {{ type filter hook prerouting priority 0; }}\n"
            f"add rule inet {probe} c {statement}\n",
            dry=True,
        )
    except NftError as refusal:
        if refusal.missing or "not supported" in refusal.words:
            return False
        raise
    return True


@dataclass(frozen=True, slots=True)
class QueueRule:
    """What has ``mark`` under ``mask`` at a hook of an iptables table goes into a queue."""

    table: str
    hook: str
    mark: int
    mask: int
    queue: int

    def words(self, comment: str) -> tuple[str, ...]:
        """As iptables lists it, behind ``-A``."""
        return (
            *(self.hook, "-m", "mark", "--mark", f"{self.mark:#x}/{self.mask:#x}"),
            *("-m", "comment", "--comment", comment),
            *("-j", "NFQUEUE", "--queue-num", str(self.queue)),
        )


def trap_rules(settings: InterceptSettings) -> tuple[QueueRule, ...]:
    """Those of interception."""
    trap = Marks(settings.mark_mask).trap
    return tuple(
        QueueRule("mangle", hook, trap, settings.mark_mask, settings.queue)
        for hook in ("PREROUTING", "OUTPUT")
    )


@dataclass(frozen=True, slots=True)
class _Found:
    """A rule of ours as iptables lists it: program, table, and the words after ``-A``."""

    program: str
    table: str
    words: tuple[str, ...]


class Jump:
    """The iptables rules that lead into the queues of one nftables table of ours."""

    def __init__(self, nft_table: str, rules: tuple[QueueRule, ...]) -> None:
        self._comment = f"oegw-{nft_table}"
        self._rules = rules
        self._imprints: tuple[str, ...] = ()

    async def add(self) -> list[_Found]:
        """Put in what is missing, and return it.  Rules of an earlier run stay for now.

        Raises InterceptError, and then has added nothing.
        """
        added: list[_Found] = []
        try:
            for program in _programs():
                present = await self._find(program)
                for rule in self._wanted(program):
                    if rule not in present:
                        await _iptables(rule, "-A")
                        added.append(rule)
        except InterceptError:
            await self.take_out(added)
            raise
        return added

    async def mend(self, thorough: bool) -> tuple[str, ...]:
        """Put in what somebody else took out; returns what that was.

        ``thorough``: even if nothing says that they have changed, for the old iptables is none of
        nftables.  Raises InterceptError.
        """
        taken = self._taken()
        if taken == self._imprints and not thorough:
            return ()
        rules = await self.add()
        self._imprints = self._taken() if rules else taken
        return tuple(f"{rule.program}'s rule in {rule.words[0]}" for rule in rules)

    def _taken(self) -> tuple[str, ...]:
        """Imprints of the nftables tables that they are in, where iptables makes such."""
        names = dict.fromkeys(rule.table for rule in self._rules)
        reading = imprints()
        try:
            return tuple(reading.taken(_FAMILIES[p], name) for p in _programs() for name in names)
        finally:
            reading.close()

    async def remove_stale(self, *, keep_current: bool) -> None:
        """Remove rules that an earlier run left; with ``keep_current`` only those unlike ours."""
        for program in _programs():
            try:
                present = await self._find(program)
            except InterceptError:
                if keep_current:
                    raise
                continue  # no iptables, and so no rule of ours in it
            kept = set(self._wanted(program)) if keep_current else set()
            for rule in present:
                if rule in kept:
                    kept.discard(rule)  # a second one like it is too many
                else:
                    await _iptables(rule, "-D")

    async def take_out(self, rules: list[_Found]) -> None:
        """Remove just these."""
        for rule in rules:
            await _iptables(rule, "-D")

    def _wanted(self, program: str) -> list[_Found]:
        return [_Found(program, rule.table, rule.words(self._comment)) for rule in self._rules]

    async def _find(self, program: str) -> list[_Found]:
        found = []
        for table in dict.fromkeys(rule.table for rule in self._rules):
            listing = await _iptables(_Found(program, table, ()), "-S")
            for line in listing.splitlines():
                words = shlex.split(line)
                if words[:1] == ["-A"] and _follows(words, "--comment", self._comment):
                    found.append(_Found(program, table, tuple(words[1:])))
        return found


def _follows(words: list[str], option: str, value: str) -> bool:
    return any(pair == (option, value) for pair in pairwise(words))


def _programs() -> tuple[str, ...]:
    has_ipv6 = Path("/proc/net/if_inet6").exists()
    return ("iptables", "ip6tables") if has_ipv6 else ("iptables",)


async def _iptables(rule: _Found, action: str) -> str:
    order = Iptables(rule.program, rule.table, action, rule.words)
    kernel = elsewhere.kernel()
    done = await (iptables(order) if kernel is None else kernel.iptables(order))
    if done.code:
        raise InterceptError(f"{shlex.join(_command(order))} failed: {done.words.strip()}")
    return done.output


def _command(order: Iptables) -> tuple[str, ...]:
    return (order.program, "-w", "-t", order.table, order.action, *order.words)


async def iptables(order: Iptables) -> IptablesDone:
    """In this process.  Raises InterceptError if there is no such program."""
    try:
        process = await asyncio.create_subprocess_exec(
            *_command(order), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
    except OSError as error:
        raise InterceptError(f"{order.program} can't be started: {error}") from error
    output, words = (octets.decode(errors="replace") for octets in await process.communicate())
    return IptablesDone(process.returncode or 0, output, words)
