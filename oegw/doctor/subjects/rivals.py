"""Others who do IPsec here: daemons, and what stands in the kernel."""

from __future__ import annotations

from collections.abc import Iterator

from oegw.doctor.facts import Facts
from oegw.doctor.finding import PROBLEM, WARNING, Finding, Kind, Shell

DAEMON = Kind(
    "other-ike-daemon",
    PROBLEM,
    "another IKE daemon runs here",
    "it takes UDP 500 and 4500, answers our peers, and has the kernel treat packets as it likes",
    "{mend}",
)
POLICIES = Kind(
    "foreign-ipsec",
    WARNING,
    "the kernel has IPsec policies or states that are not ours",
    "packets that they fit are sealed, or dropped, before or behind our rules",
    "{mend}",
)
KINDS = (DAEMON, POLICIES)

# By the name of the process: the service that starts it.
DAEMONS = {
    "charon": "strongswan-starter",
    "charon-systemd": "strongswan",
    "charon-nm": "NetworkManager",
    "pluto": "ipsec",
    "racoon": "racoon",
    "racoon2": "racoon2",
    "iked": "openiked",
    "isakmpd": "isakmpd",
}
SHOWN = 8  # deletions in one command


def look(facts: Facts) -> Iterator[Finding]:
    for process in facts.processes().values():
        if process.name in DAEMONS:
            mend = Shell(f"kill {process.number}")
            if facts.host().systemd:
                unit = process.unit or DAEMONS[process.name]
                mend = Shell(f"systemctl disable --now {unit}")
            yield DAEMON.found(f"process {process.number} is {process.name}", mend=mend)
    ours = facts.settings.datapath.interface_id
    foreign = [item for item in facts.xfrm() if item.interface_id != ours]
    if foreign:
        mend = Shell(" && ".join(item.deletion for item in foreign[:SHOWN]))
        more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
        yield POLICIES.found(f"{foreign[0].what} {foreign[0].words}{more}", mend=mend)
