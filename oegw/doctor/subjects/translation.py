"""NAT: by this box, and before it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_network

from oegw.doctor.facts import Facts
from oegw.doctor.finding import NOTE, WARNING, Finding, Kind
from oegw.nat import unserved
from policy.flow import IPNetwork

UNDECLARED = Kind(
    "nat-undeclared",
    WARNING,
    "this box translates sources, and the configuration has no [[nat]] that says so",
    "hosts inside are asked about by their private addresses, which nobody has records of: they "
    "have no opportunistic tunnels",
    "{setting} && {restart}",
)
BEHIND = Kind(
    "behind-nat",
    NOTE,
    "the outer address of this box is private: there is a NAT before it",
    "peers know us by a name only (gateway.fqdn), and can't begin a tunnel unless the NAT hands "
    "UDP 500 and 4500 on to us",
    "{setting} && {restart}",
)
KINDS = (UNDECLARED, BEHIND)

_OUT = re.compile(r'oifname (?:"[^"]*"|\{[^}]*\})|(?<!! )-o \S+')
_NAME = re.compile(r"[^\s\"{},]+")
_SOURCE = re.compile(r"(?:ip saddr|(?<!! )-s) ([0-9./]+)")


def look(facts: Facts) -> Iterator[Finding]:
    environment, settings, mending = facts.environment, facts.settings, facts.mending
    networks: dict[str, str] = {}  # with a rule that translates it
    for rule in environment.translates if not settings.nat else ():
        for link in facts.inside:
            for each in link.addresses:
                if each.version == 4 and _translated(rule, each.network, environment.outside):
                    networks.setdefault(str(each.network), rule)
    if networks:
        yield UNDECLARED.found(
            f"{' and '.join(networks)}: {next(iter(networks.values()))}",
            setting=mending.appending(
                "\n".join(f'[[nat]]\ninside = "{network}"' for network in networks)
            ),
            restart=mending.restart,
        )
    private = [
        str(address)
        for address in environment.addresses
        if unserved(ip_network(address), settings.dns.local_reverse)
    ]
    if private:
        named = settings.gateway.fqdn or settings.gateway.identity
        called = f"we are called {named}" if named else "we have no name"
        yield BEHIND.found(
            f"{' and '.join(private)} can't be reached from outside, and {called}",
            NOTE if named else WARNING,
            setting=mending.setting("gateway", {"fqdn": '"gateway.example"'}),
            restart=mending.restart,
        )


def _translated(rule: str, network: IPNetwork, outside: tuple[str, ...]) -> bool:
    """Whether a rule, in the words of nft or iptables, may be about what a network sends out."""
    out = _OUT.search(rule)
    if out and not any(name in _NAME.findall(out[0]) for name in outside):
        return False
    source = _SOURCE.search(rule)
    if source is None:
        return True
    try:
        return ip_network(source[1], strict=False).overlaps(network)
    except (ValueError, TypeError):
        return True
