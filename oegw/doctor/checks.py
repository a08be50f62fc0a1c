"""All subjects, in the order in which they are told of."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from oegw.doctor.fact import Unexamined
from oegw.doctor.facts import Facts
from oegw.doctor.finding import Finding, Kind, Severity
from oegw.doctor.subjects import (
    clock,
    configuration,
    daemon,
    files,
    firewall,
    forwarding,
    ipv6,
    kernel,
    leftovers,
    limits,
    marks,
    mtu,
    ports,
    records,
    resolver,
    rivals,
    standing,
    translation,
)

Look = Callable[[Facts], Iterator[Finding]]


@dataclass(frozen=True, slots=True)
class Subject:
    """``look`` gives what is found.  It raises Unexamined where what it needs can't be known."""

    name: str
    look: Look
    kinds: tuple[Kind, ...]


SUBJECTS = (
    Subject("configuration", configuration.look, configuration.KINDS),
    Subject("files", files.look, files.KINDS),
    Subject("daemon", daemon.look, daemon.KINDS),
    Subject("standing", standing.look, standing.KINDS),
    Subject("leftovers", leftovers.look, leftovers.KINDS),
    Subject("kernel", kernel.look, kernel.KINDS),
    Subject("clock", clock.look, clock.KINDS),
    Subject("resolver", resolver.look, resolver.KINDS),
    Subject("records", records.look, records.KINDS),
    Subject("rivals", rivals.look, rivals.KINDS),
    Subject("ports", ports.look, ports.KINDS),
    Subject("firewall", firewall.look, firewall.KINDS),
    Subject("marks", marks.look, marks.KINDS),
    Subject("forwarding", forwarding.look, forwarding.KINDS),
    Subject("mtu", mtu.look, mtu.KINDS),
    Subject("nat", translation.look, translation.KINDS),
    Subject("ipv6", ipv6.look, ipv6.KINDS),
    Subject("limits", limits.look, limits.KINDS),
)
NAMES = frozenset(
    {subject.name for subject in SUBJECTS}
    | {kind.name for subject in SUBJECTS for kind in subject.kinds}
)


@dataclass(frozen=True, slots=True)
class Examination:
    """``unexamined``: subjects, or what is left of them, with the reason."""

    examined: tuple[str, ...]
    findings: tuple[tuple[str, Finding], ...]
    unexamined: tuple[tuple[str, str], ...]

    def count(self, severity: Severity) -> int:
        return sum(finding.severity is severity for _, finding in self.findings)


def examine(facts: Facts, only: Collection[str] = ()) -> Examination:
    """``only``: names of subjects and of findings; without them, all."""
    examined, findings, unexamined = [], dict[tuple[str, Finding], None](), []
    for subject in SUBJECTS:
        wanted = {kind.name for kind in subject.kinds}
        if only and subject.name not in only:
            wanted &= set(only)
            if not wanted:
                continue
        try:
            for finding in subject.look(facts):
                if finding.name in wanted:
                    findings[subject.name, finding] = None
            examined.append(subject.name)
        except Unexamined as why:
            unexamined.append((subject.name, str(why)))
    return Examination(tuple(examined), tuple(findings), tuple(unexamined))
