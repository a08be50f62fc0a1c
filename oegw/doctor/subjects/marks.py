"""Bits of packet marks that others use as well."""

from __future__ import annotations

from collections.abc import Iterator

from oegw.doctor.facts import Facts
from oegw.doctor.finding import PROBLEM, WARNING, Finding, Kind
from oegw.doctor.nftrules import MarkUse
from oegw.intercept.interface import OWN_TABLE

OVERWRITTEN = Kind(
    "mark-overwritten",
    PROBLEM,
    "a rule of others changes bits of packet marks by which the gateway tells what goes into the "
    "tunnel",
    "packets miss the tunnel: they are dropped, or leave in clear",
    "{setting} && {restart}",
)
SHARED = Kind(
    "mark-bits-shared",
    WARNING,
    "rules of others look at bits of packet marks that are ours, or set those that our rules clear",
    "packets of ours are treated as theirs, and theirs as ours",
    "{setting} && {restart}",
)
KINDS = (OVERWRITTEN, SHARED)

ALL_BITS = 0xFFFFFFFF


def look(facts: Facts) -> Iterator[Finding]:
    intercept, sst = facts.settings.intercept, facts.settings.sst
    ours = intercept.mark_mask | intercept.assurance_mask | intercept.encrypted_mark
    if facts.settings.encrypts_ports:
        ours |= sst.mark_mask
    uses = [
        *facts.nftables().marks(OWN_TABLE),
        *(use for program in facts.iptables() for use in program.marks(f"oegw-{OWN_TABLE}")),
        *_of_routing(facts),
    ]
    uses = [use for use in uses if "oegw" not in use.who]
    conflicts = [use for use in uses if use.bits & ours]
    if not conflicts:
        return
    taken = sst.mark_mask if facts.settings.encrypts_ports else 0
    for use in uses:
        taken |= use.bits if use.bits != ALL_BITS else 0
    mending = facts.mending
    words = {
        "setting": mending.setting("intercept", _free(taken)),
        "restart": mending.restart,
    }
    serious = [use for use in conflicts if use.sets and use.bits & intercept.mark_mask]
    for kind, found in (
        (OVERWRITTEN, serious),
        (SHARED, [u for u in conflicts if u not in serious]),
    ):
        if found:
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            bits = found[0].bits & ours
            yield kind.found(f"{found[0].who}: bits {bits:#x}{more}", **words)


def _of_routing(facts: Facts) -> Iterator[MarkUse]:
    from oegw.datapath.routes import PROTOCOL

    for rule in facts.routing().rules:
        if rule.mask and rule.protocol != PROTOCOL:
            who = f"ip{'' if rule.version == 4 else ' -6'} rule {rule.priority}"
            yield MarkUse(f"{who} (fwmark {rule.mark:#x}/{rule.mask:#x})", rule.mask, False)


def _free(taken: int) -> dict[str, str]:
    """Values for our keys in bits that nobody uses; the highest are the least popular."""
    found: dict[str, str] = {}
    for key, width in (("mark_mask", 2), ("assurance_mask", 2), ("encrypted_mark", 1)):
        places = (((1 << width) - 1) << place for place in range(31 - width, -1, -1))
        free = next((bits for bits in places if not bits & taken), None)
        if free is not None:
            taken |= free
            found[key] = f"{free:#x}"
    return found
