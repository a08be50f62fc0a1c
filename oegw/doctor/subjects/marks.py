"""Bits of packet marks that others use as well."""

from __future__ import annotations

from collections.abc import Iterator

from oegw.datapath.routes import PROTOCOL
from oegw.doctor.facts import Facts
from oegw.doctor.finding import PROBLEM, WARNING, Finding, Kind, Shell
from oegw.doctor.nftrules import MarkUse
from oegw.intercept.interface import OWN_TABLE
from oegw.settings import InterceptOptions

ALL_BITS = 0xFFFFFFFF

OVERWRITTEN = Kind(
    "mark-overwritten",
    PROBLEM,
    "a rule of others changes bits of packet marks by which the gateway tells what goes into the "
    "tunnel",
    "packets miss the tunnel: they are dropped, or leave in clear",
    "{mend}",
)
SHARED = Kind(
    "mark-bits-shared",
    WARNING,
    "rules of others look at bits of packet marks that are ours, or set those that our rules clear",
    "packets of ours are treated as theirs, and theirs as ours",
    "{mend}",
)
WHOLE = Kind(
    "mark-compared-whole",
    WARNING,
    "rules of others compare packet marks as a whole, without a mask",
    "they don't fit packets any more that carry bits of ours beside theirs",
    "{mend}",
)
KINDS = (OVERWRITTEN, SHARED, WHOLE)


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
    others = 0
    for use in uses:
        others |= use.bits if use.bits != ALL_BITS else 0
    # The configuration demands that they differ from port encryption's, whether that runs or not.
    values, mending = _free(intercept, others, sst.mark_mask), facts.mending
    other_bits = Shell(f"{mending.setting('intercept', values)} && {mending.restart}")
    found: dict[Kind, list[MarkUse]] = {}
    for use in uses:
        if use.sets and use.bits & intercept.mark_mask:
            found.setdefault(OVERWRITTEN, []).append(use)
        elif use.bits & ours:
            kind = WHOLE if use.bits == ALL_BITS else SHARED
            found.setdefault(kind, []).append(use)
    for kind, all_of_it in found.items():
        use = all_of_it[0]
        more = f" (and {len(all_of_it) - 1} more)" if len(all_of_it) > 1 else ""
        # Whoever wants all bits leaves none for us: it is their rule that has to change.
        mend = Shell(use.shown_by) if use.bits == ALL_BITS else other_bits
        yield kind.found(f"{use.who}: bits {use.bits & ours:#x}{more}", mend=mend)


def _of_routing(facts: Facts) -> Iterator[MarkUse]:
    for rule in facts.routing().rules:
        if rule.mask and rule.protocol != PROTOCOL:
            ip = f"ip -{rule.version} rule"
            masked = f"{rule.mark:#x}/{max(rule.mark, 0xFFFF):#x}"
            words = f"{'not ' if rule.inverted else ''}priority {rule.priority} table {rule.table}"
            better = (
                f"{ip} add {words} fwmark {masked} && {ip} delete {words} fwmark {rule.mark:#x}"
            )
            who = f"{ip} {rule.priority} (fwmark {rule.mark:#x}/{rule.mask:#x})"
            yield MarkUse(who, rule.mask, False, better)


def _free(intercept: InterceptOptions, others: int, reserved: int) -> dict[str, str]:
    """Values for those of our keys that have bits of others, in bits that nobody uses.

    The highest are the least popular.  ``reserved``: bits of ours that are not moved.
    """
    keys = {"mark_mask": 2, "assurance_mask": 2, "encrypted_mark": 1}
    moved = {key: width for key, width in keys.items() if getattr(intercept, key) & others}
    taken = others | reserved
    for key in keys.keys() - moved.keys():
        taken |= getattr(intercept, key)
    found: dict[str, str] = {}
    for key, width in moved.items():
        places = (((1 << width) - 1) << place for place in range(32 - width, -1, -1))
        free = next((bits for bits in places if not bits & taken), None)
        if free is not None:
            taken |= free
            found[key] = f"{free:#x}"
    return found
