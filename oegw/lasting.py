"""What is learned for a while, for the next life: verdicts that stand, gateways that are silent.

A restart need not ask the DNS again, nor hold packets or wait for a gateway, for what was found out
a minute ago: a lifespan goes on for what is left of it.  What is remembered is never a reason to
let out what the policy forbids now: `resume` puts a verdict back only under the rule that it was
found under, and each packet is looked up in the policy as ever.

Times are those of the monotonic clock, which goes on in the next process but not over a boot: what
an earlier boot has left is forgotten.  So nobody who sets the clock makes a lifespan longer, and no
power cut, after which the file may lack its last lines, brings back a verdict that was withdrawn.
Without IO: `memorytable.py` keeps it on disk.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from oegw.connection import Selectors
from oegw.memory import pair_text
from oegw.shelf import Shelf
from policy.flow import IPAddress
from policy.rule import Rule

# Our choices: of more, the oldest are forgotten.
VERDICTS_MOST = 2048  # half a second of the next start
SILENCES_MOST = 1024


def basis_of(*parts: object) -> str:
    """A short text that is another one if any part is.  Parts show what they are by ``repr``."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Standing:
    """A verdict without a tunnel, and until when it stands.

    ``rule``: the name of the one that it was found under; ``basis``: all else that it rests on.
    """

    selectors: Selectors
    rule: str
    basis: str
    denied: bool
    until: float
    reason: str


@dataclass(frozen=True, slots=True)
class LastingChanges:
    """What is to be written down, as `memory.Changes`."""

    verdicts: Mapping[str, str | None] = field(default_factory=dict)
    silences: Mapping[str, str | None] = field(default_factory=dict)
    whole: bool = False

    @property
    def tables(self) -> Mapping[str, Mapping[str, str | None]]:
        """By the name of the table of the state file."""
        return {"verdict": self.verdicts, "silence": self.silences}


class Lasting:
    """``boot``: of the system; empty: nothing is remembered.  ``basis``: what of the settings all
    verdicts rest on.  ``verdicts`` and ``silences`` are what was saved, the oldest first."""

    def __init__(
        self,
        boot: str = "",
        basis: str = "",
        verdicts: Iterable[tuple[str, str]] = (),
        silences: Iterable[tuple[str, str]] = (),
        most: int = VERDICTS_MOST,
    ) -> None:
        self._boot = boot
        self._basis = basis
        self._verdicts = Shelf(verdicts, most)
        self._silences = Shelf(silences, min(most, SILENCES_MOST))
        self._whole = False
        self.urgent = False  # a tunnel takes a verdict's place: to be written before a crash comes

    def __len__(self) -> int:
        return len(self._verdicts) + len(self._silences)

    # Verdicts.

    def basis(self, rule: Rule) -> str:
        """What a verdict under this rule rests on, but for the prefixes, which are looked up."""
        return basis_of(
            self._basis, rule.category.value, rule.on_failure.value, rule.require.value,
            rule.initiate, rule.icmp, rule.relax, rule.sst.value, rule.sst_strength.value,
            rule.protocol, rule.source_ports, rule.destination_ports,
        )  # fmt: skip

    def stands(
        self, selectors: Selectors, rule: Rule, denied: bool, until: float, reason: str
    ) -> None:
        """A verdict was found, and the DNS or a gateway asked for it."""
        if not self._boot:
            return
        document = [self._boot, round(until, 3), denied, self.basis(rule), reason[:200]]
        self._verdicts.put(_key(selectors, rule.name), json.dumps(document))
        self._note()

    def withdraw(self, selectors: Selectors, rule: str, urgent: bool) -> None:
        """It stands no longer.  ``urgent``: a tunnel takes its place."""
        key = _key(selectors, rule)
        if self._verdicts.get(key) is not None:
            self.urgent = self.urgent or urgent
            self._verdicts.drop(key)
            self._note()

    def standing(self, now: float, longest: float) -> Iterator[Standing]:
        """What was saved and still stands, the latest first; the rest is forgotten.

        ``longest``: seconds that a verdict stands at most by the settings of today.
        """
        for key in reversed(self._verdicts.keys()):
            found = self._read(key)
            if found is not None and 0.0 < found.until - now <= longest:
                yield found
            else:
                self._verdicts.drop(key)
        self._note()

    def _read(self, key: str) -> Standing | None:
        """None for what is of an earlier boot, or was not written by us."""
        try:
            boot, until, denied, basis, reason = json.loads(self._verdicts.get(key) or "")
            local, remote, protocol, ours, theirs, rule = key.split(" ", 5)
            selectors = Selectors(
                ip_network(local), ip_network(remote), int(protocol), int(ours), int(theirs)
            )
            if boot != self._boot or not boot or not isinstance(denied, bool):
                return None
            return Standing(selectors, rule, str(basis), denied, float(until), str(reason))
        except (ValueError, TypeError, ArithmeticError, RecursionError):
            return None

    # Silent gateways.

    def fell_silent(self, gateway: IPAddress, until: float) -> None:
        if self._boot:
            self._silences.put(str(gateway), json.dumps([self._boot, round(until, 3)]))
            self._note()

    def silence_over(self, gateway: IPAddress) -> None:
        self._silences.drop(str(gateway))

    def silent(self, now: float, longest: float) -> list[tuple[IPAddress, float]]:
        """Gateways that are silent still, and the seconds that are left; the rest is forgotten."""
        found = []
        for key in self._silences.keys():  # noqa: SIM118  (a shelf is no mapping)
            try:
                boot, until = json.loads(self._silences.get(key) or "")
                gateway, left = ip_address(key), float(until) - now
            except (ValueError, TypeError, ArithmeticError, RecursionError):
                boot, left = None, 0.0
            if self._boot and boot == self._boot and 0.0 < left <= longest:
                found.append((gateway, left))
            else:
                self._silences.drop(key)
        return found

    # For who writes it down.

    @property
    def changed(self) -> bool:
        return self._whole or self._verdicts.changed or self._silences.changed

    def take_changes(self) -> LastingChanges:
        """What has changed since the last call."""
        whole, self._whole, self.urgent = self._whole, False, False
        return LastingChanges(self._verdicts.take(whole), self._silences.take(whole), whole)

    def write_all(self) -> None:
        """What was taken did not get onto the disk: next time it is everything."""
        self._whole = True

    def _note(self) -> None:
        """Nobody writes down for long: all of it is shorter than the changes."""
        if self._verdicts.overflowed or self._silences.overflowed:
            self._verdicts.take(whole=False)
            self._silences.take(whole=False)
            self._whole = True


def _key(selectors: Selectors, rule: str) -> str:
    return f"{pair_text(selectors)} {rule}"
