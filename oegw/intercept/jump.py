"""The jump to the queue: nft ``queue`` where the kernel has it, else one iptables rule per family.

The iptables rules match the trap mark, name the queue, and never say bypass: no
process, no traffic.  They are found and removed by their comment.
"""

from __future__ import annotations

import asyncio
import shlex
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from oegw.intercept.interface import InterceptError, InterceptSettings, Marks
from oegw.intercept.nft import Nft, NftError

_HOOKS = ("PREROUTING", "OUTPUT")


def has_nft_queue(nft: Nft, settings: InterceptSettings) -> bool:
    """Whether this kernel has nft ``queue``."""
    return _takes(nft, settings, f"queue num {settings.queue}")


def has_nft_reject(nft: Nft, settings: InterceptSettings) -> bool:
    """Whether this kernel has nft ``reject`` before routing: Linux 5.9 and later."""
    return _takes(nft, settings, "reject with icmpx type admin-prohibited")


def _takes(nft: Nft, settings: InterceptSettings, statement: str) -> bool:
    """Whether the kernel takes a statement: it checks a rule with it, and does not keep it."""
    probe = f"{settings.table}_probe"
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
class _Found:
    """A rule of ours as iptables lists it: program, and the words after ``-A``."""

    program: str
    words: tuple[str, ...]


class Jump:
    """The iptables rules of one table of ours."""

    def __init__(self, settings: InterceptSettings) -> None:
        self._comment = f"oegw-{settings.table}"
        marks = Marks(settings.mark_mask)
        self._rule = (
            *("-m", "mark", "--mark", f"{marks.trap:#x}/{settings.mark_mask:#x}"),
            *("-m", "comment", "--comment", self._comment),
            *("-j", "NFQUEUE", "--queue-num", str(settings.queue)),
        )

    async def add(self) -> list[_Found]:
        """Put in what is missing, and return it.  Rules of an earlier run stay for now.

        Raises InterceptError, and then has added nothing.
        """
        added: list[_Found] = []
        try:
            for program in _programs():
                present = await self._find(program)
                for hook in _HOOKS:
                    rule = _Found(program, (hook, *self._rule))
                    if rule not in present:
                        await _iptables(program, "-A", *rule.words)
                        added.append(rule)
        except InterceptError:
            await self.take_out(added)
            raise
        return added

    async def remove_stale(self, *, keep_current: bool) -> None:
        """Remove rules that an earlier run left; with ``keep_current`` only those unlike ours."""
        for program in _programs():
            try:
                present = await self._find(program)
            except InterceptError:
                if keep_current:
                    raise
                continue  # no iptables, and so no rule of ours in it
            kept = {(hook, *self._rule) for hook in _HOOKS} if keep_current else set()
            for rule in present:
                if rule.words in kept:
                    kept.discard(rule.words)  # a second one like it is too many
                else:
                    await _iptables(program, "-D", *rule.words)

    async def take_out(self, rules: list[_Found]) -> None:
        """Remove just these."""
        for rule in rules:
            await _iptables(rule.program, "-D", *rule.words)

    async def _find(self, program: str) -> list[_Found]:
        listing = await _iptables(program, "-S")
        found = []
        for line in listing.splitlines():
            words = shlex.split(line)
            if words[:1] == ["-A"] and _follows(words, "--comment", self._comment):
                found.append(_Found(program, tuple(words[1:])))
        return found


def _follows(words: list[str], option: str, value: str) -> bool:
    return any(pair == (option, value) for pair in pairwise(words))


def _programs() -> tuple[str, ...]:
    has_ipv6 = Path("/proc/net/if_inet6").exists()
    return ("iptables", "ip6tables") if has_ipv6 else ("iptables",)


async def _iptables(program: str, *arguments: str) -> str:
    command = (program, "-w", "-t", "mangle", *arguments)
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
    except OSError as error:
        raise InterceptError(f"{program} can't be started: {error}") from error
    output, words = await process.communicate()
    if process.returncode:
        said = words.decode(errors="replace").strip()
        raise InterceptError(f"{shlex.join(command)} failed: {said}")
    return output.decode(errors="replace")
