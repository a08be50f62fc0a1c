"""NAT: by this box, and before it."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network

from oegw.doctor.facts import Facts
from oegw.doctor.finding import NOTE, WARNING, Finding, Kind
from oegw.nat import unserved

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


def look(facts: Facts) -> Iterator[Finding]:
    environment, settings, mending = facts.environment, facts.settings, facts.mending
    if environment.translates and not settings.nat:
        networks = dict.fromkeys(
            str(each.network)
            for link in facts.inside
            for each in link.addresses
            if each.version == 4
        )
        tables = "\n".join(f'[[nat]]\ninside = "{network}"' for network in networks)
        yield UNDECLARED.found(
            f"it does so by {environment.translates[0]}",
            setting=mending.appending(tables or "[[nat]]\n"),
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
