"""What is right in a configuration and does not do what its words say: told in time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import ip_network

from oegw.assurance import trust_in
from oegw.nat import Nat, contains, unserved
from oegw.settings import DatapathSettings, Settings
from oegw.socksadvice import socks_advice
from oegw.sstadvice import sst_advice
from policy.flow import IPAddress
from policy.rule import Category, Require, Rule


def advice(settings: Settings, resolvers: Sequence[IPAddress], nat: Nat) -> tuple[str, ...]:
    """What the operator should know, as sentences; ``resolvers`` are those that are asked."""
    return (
        *nat.warnings(),
        *_of_addresses(settings, nat),
        *_of_rules(settings, resolvers, nat),
        *sst_advice(settings, nat),
        *socks_advice(settings),
        *_of_datapath(settings.datapath),
    )


def _of_datapath(settings: DatapathSettings) -> Iterator[str]:
    default = DatapathSettings()
    if settings.datapath == "kernel":
        for key in ("core", "offloads", "workers"):
            if getattr(settings, key) != getattr(default, key):
                yield f"datapath.{key} is about the datapath in user space, not the kernel's"


def _of_addresses(settings: Settings, nat: Nat) -> Iterator[str]:
    """Private ones where a public one is meant: nobody can be asked who speaks for them."""
    for by in nat.translations:
        if unserved(by.outside, settings.dns.local_reverse):
            yield f"[[nat]] {by}: the address outside is private, so these hosts have no tunnels"
    for client in settings.publish.clients:
        if unserved(ip_network(client), settings.dns.local_reverse):
            yield f"publish.clients: {client} is private: no peer looks for its records"


def _of_rules(settings: Settings, resolvers: Sequence[IPAddress], nat: Nat) -> Iterator[str]:
    trusting = any(trust_in(each, settings.dns.trusted)[0] for each in resolvers)
    for rule in (*settings.rules, settings.default):
        if reason := _unseen(rule, nat):
            yield f"rule {rule.name!r} applies to nothing: {reason}"
        elif rule.category is Category.OPPORTUNISTIC:
            reason = _unreachable(rule, settings)
            if not trusting:
                reason = reason or _unassured(rule, settings, resolvers)
            if reason:
                other = "is dropped" if rule.protected else "passes in clear"
                if settings.decision_points:
                    other += ", unless a decision point says otherwise"
                yield f"rule {rule.name!r} never has a tunnel, its traffic {other}: {reason}"


def _unseen(rule: Rule, nat: Nat) -> str:
    """Why no packet has the sources of a rule; empty if some may have."""
    sources = rule.source
    if rule.category is Category.CONFIGURED or not isinstance(sources, tuple):
        return ""
    for by in nat.translations:
        if all(contains(by.inside, source) for source in sources):
            return f"[[nat]] translates {by}; its source must be what they are outside"
    return ""


def _unassured(rule: Rule, settings: Settings, resolvers: Sequence[IPAddress]) -> str:
    if rule.require is not Require.SECURE or (rule.relax and settings.decision_points):
        return ""
    servers = ", ".join(map(str, resolvers))
    return (
        f"it requires secure records, and no resolver ({servers}) is on this box or in dns.trusted"
    )


def _unreachable(rule: Rule, settings: Settings) -> str:
    """Why nobody can be asked who speaks for either end; empty if it can be."""
    served = settings.dns.local_reverse
    for key, networks in (("source", rule.source), ("destination", rule.destination)):
        if isinstance(networks, tuple) and all(unserved(n, served) for n in networks):
            return f"its {key} is private, and not in dns.local_reverse"
    return ""
