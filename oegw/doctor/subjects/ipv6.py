"""IPv6: not the way around a policy, and its routes not lost."""

from __future__ import annotations

from collections.abc import Iterator

from oegw.doctor.facts import Facts
from oegw.doctor.finding import WARNING, Finding, Kind
from policy.rule import Rule

LEAK = Kind(
    "ipv6-leak",
    WARNING,
    "rules protect IPv4 destinations only, and this box forwards IPv6, which the default lets pass",
    "a host that has both reaches the same destination by IPv6, in clear. The command's rule drops "
    "all IPv6 that can't be encrypted: where you know the prefixes, write a narrower one",
    "{rule} && {reload}",
)
NO_ADVERTISEMENTS = Kind(
    "ipv6-advertisements-ignored",
    WARNING,
    "an outside interface has its IPv6 address from router advertisements, which a box that "
    "forwards does not listen to any more",
    "the address and the default route run out, and with them all IPv6 tunnels",
    "sysctl -w net/ipv6/conf/{link}/accept_ra=2",
)
KINDS = (LEAK, NO_ADVERTISEMENTS)

_RULE = """\
[[rule]]
name = "no way around by IPv6"
category = "opportunistic"
destination = "::/0"
on_failure = "drop"
"""


def look(facts: Facts) -> Iterator[Finding]:
    sysctls, environment, settings = facts.sysctls(), facts.environment, facts.settings
    if sysctls.get("net/ipv6/conf/all/forwarding", "0") == "0":
        return
    goes_out = any(
        link.has(6) and link.name in environment.outside for link in facts.links()
    ) and any(link.has(6) for link in facts.inside)
    if goes_out and not settings.default.guarded:
        guarded = [rule for rule in settings.rules if rule.guarded]
        if any(_versions(rule) == {4} for rule in guarded) and not any(
            6 in _versions(rule) for rule in guarded
        ):
            names = ", ".join(repr(rule.name) for rule in guarded)
            mending = facts.mending
            yield LEAK.found(
                f"what protects is about IPv4 only: {names}",
                rule=mending.appending(_RULE),
                reload=mending.oegw("reload"),
            )
    for link in facts.links():
        heeds = sysctls.get(f"net/ipv6/conf/{link.name}/accept_ra", "1")
        lent = any(address.version == 6 for address in link.lent)
        if link.name in environment.outside and lent and heeds == "1":
            what = f"{link.name} has a lent address, forwards, and has accept_ra = 1"
            yield NO_ADVERTISEMENTS.found(what, link=link.name)


def _versions(rule: Rule) -> set[int]:
    """The families that a rule is about; by names it may be both."""
    for networks in (rule.destination, rule.source):
        if isinstance(networks, tuple):
            found: set[int] = {network.version for network in networks}
            if len(found) == 1:
                return found
    return {4, 6}
