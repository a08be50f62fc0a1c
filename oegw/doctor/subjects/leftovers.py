"""What an earlier run left, without a gateway that needs it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from oegw.datapath.routes import PROTOCOL
from oegw.doctor.facts import Facts
from oegw.doctor.finding import WARNING, Finding, Kind, Shell
from oegw.intercept.interface import OWN_TABLE

TABLE = Kind(
    "leftover-table",
    WARNING,
    "our packet rules stand, and no gateway runs",
    "by them protected traffic does not leave in clear; nothing else that they stop passes either. "
    "To open for good what they protect: nft delete table inet oegw",
    "{start}",
)
DEVICE = Kind(
    "leftover-device",
    WARNING,
    "the tunnel's device is there, and no gateway runs",
    "what is routed into it goes nowhere; a start needs its name",
    "ip link delete {device}",
)
ROUTES = Kind(
    "leftover-routes",
    WARNING,
    "our rules of policy routing stand, and no gateway runs",
    "what our packet rules mark is refused; without these rules it is nothing to anybody",
    "{mend}",
)
JUMP = Kind(
    "leftover-queue-rule",
    WARNING,
    "our iptables rule for the packet queue stands, and no gateway runs",
    "packets that our packet rules mark for the queue are dropped there",
    "{mend}",
)
IPSEC = Kind(
    "leftover-ipsec",
    WARNING,
    "our states or policies of the kernel's IPsec stand, and no gateway runs",
    "peers' packets are opened, and nobody answers for them; a start removes them",
    "{mend}",
)
KINDS = (TABLE, DEVICE, ROUTES, JUMP, IPSEC)


def look(facts: Facts) -> Iterator[Finding]:
    if facts.runs:
        return
    if ("inet", OWN_TABLE) in facts.nftables().tables:
        whole = "trap" in facts.nftables().chains_of(("inet", OWN_TABLE))
        end = "killed" if whole else "stopped"
        what = f"table inet {OWN_TABLE} is there, of a gateway that was {end}"
        yield TABLE.found(what, start=facts.mending.start)
    name = facts.settings.datapath.tunnel_interface
    if any(link.name == name for link in facts.links()):
        yield DEVICE.found(f"there is {name}", device=name)
    rules = [rule for rule in facts.routing().rules if rule.protocol == PROTOCOL]
    commands = [
        f"ip -{rule.version} rule delete priority {rule.priority} table {rule.table} "
        f"fwmark {rule.mark:#x}/{rule.mask:#x}"
        for rule in rules
    ]
    commands += [
        f"ip -{version} route flush table {table} proto {PROTOCOL}"
        for version, table in dict.fromkeys((rule.version, rule.table) for rule in rules)
    ]
    if commands:
        priorities = ", ".join(dict.fromkeys(str(rule.priority) for rule in rules))
        yield ROUTES.found(
            f"there are rules with priority {priorities}", mend=Shell(" && ".join(commands))
        )
    comment = f"oegw-{OWN_TABLE}"
    jumps = [rule for each in facts.iptables() for rule in each.rules if comment in rule.words]
    if jumps:
        deletions = (
            f"{rule.program} -t {rule.table} -D {rule.chain} {shlex.join(rule.words)}"
            for rule in jumps
        )
        tables = ", ".join(dict.fromkeys(f"{rule.program}'s {rule.chain}" for rule in jumps))
        yield JUMP.found(f"it is in {tables}", mend=Shell(" && ".join(deletions)))
    ours = facts.settings.datapath.interface_id
    items = [item for item in facts.xfrm() if item.interface_id == ours]
    if items:
        mend = Shell(" && ".join(item.deletion for item in items))
        yield IPSEC.found(f"there are {len(items)} of them", mend=mend)
