"""What the gateway that runs has put into the kernel, and whether it still stands."""

from __future__ import annotations

from collections.abc import Iterator

from oegw.datapath.routes import PROTOCOL
from oegw.doctor.facts import Facts
from oegw.doctor.finding import PROBLEM, WARNING, Finding, Kind
from oegw.intercept.interface import OWN_TABLE, Marks
from oegw.standing import WARNED

TABLE = Kind(
    "own-rules-gone",
    PROBLEM,
    "the gateway runs, and its packet rules are gone: somebody has emptied the rule set",
    "all traffic leaves in clear, protected or not",
    "{restart}",
)
JUMP = Kind(
    "own-queue-rule-gone",
    PROBLEM,
    "the gateway runs, and the iptables rule that queues packets for it is gone",
    "first packets are dropped, and no tunnel begins",
    "{restart}",
)
RULE = Kind(
    "own-routing-gone",
    PROBLEM,
    "the gateway runs, and its rule of policy routing is gone",
    "packets for a tunnel don't get there: they are dropped",
    "ip -{version} rule add priority 4500 fwmark {mark} table 4500 protocol {protocol}",
)
DEVICE = Kind(
    "own-device-gone",
    PROBLEM,
    "the gateway runs, and the tunnel's device is gone or has no route",
    "packets for a tunnel don't get there: they are dropped",
    "{restart}",
)
TAKEN = Kind(
    "own-rules-taken-away",
    WARNING,
    "somebody has taken away what the gateway needs in the kernel; it has put it back",
    "without its packet rules protected packets leave in clear, each time for a moment",
    "{status}",
)
KINDS = (TABLE, JUMP, RULE, DEVICE, TAKEN)


def look(facts: Facts) -> Iterator[Finding]:
    if not facts.runs:
        return
    status = facts.daemon().status or {}
    restart = facts.mending.restart
    taken = status.get("standing") or {}
    if taken.get("put_back") and taken.get("ago", WARNED) < WARNED:
        who = taken.get("author") or "somebody"
        times = f"{taken['put_back']} times since it runs"
        what = f"{who} took away {', '.join(taken.get('what', ()))}; {times} something was put back"
        yield TAKEN.found(what, status=facts.mending.oegw("status"))
    if ("inet", OWN_TABLE) not in facts.nftables().tables:
        yield TABLE.found(f"table inet {OWN_TABLE} is not there", restart=restart)
    if (status.get("interception") or {}).get("queue") == "iptables":
        missing = ", ".join(_missing_jumps(facts))
        if missing:
            yield JUMP.found(f"there is none in {missing}", restart=restart)
    settings = facts.settings
    mask = settings.intercept.mark_mask
    mark = Marks(mask).tunnel
    for version in _versions(facts):
        rules = [r for r in facts.routing().rules if r.version == version]
        ours = [r for r in rules if r.protocol == PROTOCOL and (r.mark, r.mask) == (mark, mask)]
        if not ours:
            yield RULE.found(
                f"no rule for packets of IPv{version} with mark {mark:#x}",
                version=version, mark=f"{mark:#x}/{mask:#x}", protocol=PROTOCOL,
            )  # fmt: skip
            continue
        device = settings.datapath.tunnel_interface
        if device not in facts.routing().tables.get((version, ours[0].table), ()):
            what = f"no IPv{version} route of table {ours[0].table} leads into {device}"
            yield DEVICE.found(what, restart=restart)


def _versions(facts: Facts) -> list[int]:
    return sorted({address.version for address in facts.environment.addresses})


def _missing_jumps(facts: Facts) -> Iterator[str]:
    found = {
        (rule.program.partition("-")[0], rule.chain)
        for program in facts.iptables()
        for rule in program.rules
        if f"oegw-{OWN_TABLE}" in rule.words
    }
    for version in _versions(facts):
        program = "iptables" if version == 4 else "ip6tables"
        for chain in ("PREROUTING", "OUTPUT"):
            if (program, chain) not in found:
                yield f"{program}'s chain {chain}"
