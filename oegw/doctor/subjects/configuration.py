"""The configuration: read, right, and about this box."""

from __future__ import annotations

from collections.abc import Iterator

from oegw.advice import advice
from oegw.doctor.facts import Facts
from oegw.doctor.finding import PROBLEM, WARNING, Finding, Kind
from oegw.environment import UnsuitableBox
from oegw.nat import nat_of
from oegw.resolvers import in_use

MISSING = Kind(
    "configuration-missing",
    PROBLEM,
    "there is no configuration",
    "without it `oegw run` does not start",
    "{init}",
)
FAULTY = Kind(
    "configuration-faulty",
    PROBLEM,
    "the configuration has an error",
    "a start, and a reload, would refuse it",
    "${{EDITOR:-vi}} {path} && {check}",
)
UNSUITABLE = Kind(
    "configuration-of-another-box",
    PROBLEM,
    "the configuration names an interface or an address that this box does not have",
    "a start would refuse it",
    "ip -brief address; ${{EDITOR:-vi}} {path} && {check}",
)
ADVICE = Kind(
    "configuration-advice",
    WARNING,
    "a part of the configuration is right and does not do what its words say",
    "somebody believes traffic to be treated in a way in which it is not",
    "${{EDITOR:-vi}} {path} && {check}",
)
KINDS = (MISSING, FAULTY, UNSUITABLE, ADVICE)


def look(facts: Facts) -> Iterator[Finding]:
    mending = facts.mending
    words = {"path": facts.path, "check": mending.oegw("check")}
    faults = facts.examined()[1]
    if faults and not facts.files().configuration.path.exists():
        yield MISSING.found(faults[0], init=mending.oegw("init"))
        return
    for fault in faults:
        yield FAULTY.found(fault, **words)
    surveyed = facts.surveyed()
    if isinstance(surveyed, UnsuitableBox):
        yield UNSUITABLE.found(str(surveyed), **words)
        return
    settings = facts.settings
    try:
        servers = in_use(settings.dns)
    except UnsuitableBox as error:
        yield UNSUITABLE.found(str(error), **words)
        return
    # What it says of NAT is the subject of NAT.
    nat = nat_of(
        settings.nat, surveyed.addresses, named=True, served=settings.dns.local_reverse,
        translates=(),
    )  # fmt: skip
    for sentence in advice(settings, servers, nat):
        yield ADVICE.found(sentence, **words)
