"""Who may be connected to whom (SK-5, SK-23).  Without IO.

The first rule that matches decides.  If none does, a client of our listeners may reach all but what
is ours: loopback, link-local and this box's own addresses are opened only by a rule that names
them.  What stands behind a name or an ID is judged, at the moment at which it is used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network, IPv6Network, ip_network

from oegw.socks5.settings import IPNetwork, Rule
from oegw.socks5.terms import Demand
from oegw.socks5.wire import IPAddress, plain

CONNECT, BIND, UDP, ASSOCIATE = "connect", "bind", "udp", "associate"  # Rule.commands

# Nobody's peer: Linux takes the unspecified address for loopback; the others are many hosts.
_NEVER = {
    "unspecified": ("0.0.0.0/8", "::/128"),
    "multicast": ("224.0.0.0/4", "ff00::/8", "255.255.255.255/32"),
}
# A prefix of a rule names one of these if it lies within.  "0.0.0.0/0" means the world, not the
# services of the gateway that trust loopback, nor 169.254.169.254 of a cloud.
_NAMED_ONLY = {
    "loopback": ("127.0.0.0/8", "::1/128"),
    "link_local": ("169.254.0.0/16", "fe80::/10"),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """``destination``: the address that would be used, of a BIND the peer's; ``port``: of it.  None
    if it is not known yet (a UDP ASSOCIATE, a BIND for any peer, an ID that is to be made).
    ``name``: by which it was asked for, or for which the ID stands.  ``encrypted``: the listener or
    the user demands it."""

    command: str
    client: IPAddress
    user: str = ""
    destination: IPAddress | None = None
    port: int | None = None
    name: str | None = None
    encrypted: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """``reason``: for trace and counters: a rule's origin, or ``unruled``, ``loopback``,
    ``link_local``, ``multicast``, ``unspecified``, ``own``."""

    allowed: bool
    reason: str
    demand: Demand = field(default_factory=Demand)


class Rules:
    """``own``: whether an address is one of this box's."""

    def __init__(self, rules: Sequence[Rule], own: Callable[[IPAddress], bool]) -> None:
        self._rules = [_Reading(rule) for rule in rules]
        self._own = own
        self._named = any(rule.names for rule in rules)

    def decide(self, asked: Asked) -> Verdict:
        """Of what is not known yet: whether anything at all may be allowed; who asks so asks again
        when it is known."""
        special, destination = None, None
        if asked.destination is not None:
            destination = plain(asked.destination)
            never = _kind(destination, _NETWORKS_NEVER)
            if never is not None:
                return Verdict(False, never)
            special = _kind(destination, _NETWORKS_NAMED_ONLY)
            if special is None and self._own(destination):
                special = "own"
        if self._rules:
            asked = replace(
                asked,
                client=plain(asked.client),
                destination=destination,
                name=canonical(asked.name) if self._named and asked.name is not None else None,
            )
        for reading in self._rules:
            matches, rule = reading.matches(asked), reading.rule
            if matches is False:
                continue
            if not rule.allow:
                if matches is None:
                    continue  # others may be allowed
                return Verdict(False, rule.origin)
            if special is None or reading.names_special(asked.destination, special):
                return Verdict(True, rule.origin, Demand(asked.encrypted or rule.encrypted))
        if special is not None:
            return Verdict(False, special)
        return Verdict(True, "unruled", Demand(asked.encrypted))


class _Reading:
    """A rule, made ready for comparison.  All its keys must match; an empty one does."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self._names = [_pattern(name) for name in rule.names]

    def matches(self, asked: Asked) -> bool | None:
        """None: that depends on what is not known yet.  Addresses and name are in one form."""
        rule, unknown = self.rule, False
        if (
            (rule.commands and asked.command not in rule.commands)
            or (rule.users and asked.user not in rule.users)
            or (rule.clients and not _within(asked.client, rule.clients))
        ):
            return False
        if rule.ports:
            if asked.port is None:
                unknown = True
            elif not any(low <= asked.port <= high for low, high in rule.ports):
                return False
        if asked.destination is None:
            return None if unknown or rule.destinations or rule.names else True
        if rule.destinations and not _within(asked.destination, rule.destinations):
            return False
        if self._names and not self._is_named(asked.name):
            return False
        return None if unknown else True

    def _is_named(self, name: str | None) -> bool:
        return name is not None and any(each.fullmatch(name) for each in self._names)

    def names_special(self, destination: IPAddress | None, special: str) -> bool:
        """Whether this rule, which matches, means what is ours in particular."""
        if destination is None:
            return False
        prefixes = [each for each in self.rule.destinations if destination in each]
        if special == "own":
            return any(each.prefixlen > 0 for each in prefixes)
        return any(
            _subnet(prefix, network)
            for prefix in prefixes
            for network in _NETWORKS_NAMED_ONLY[special]
        )


# ---------------------------------------------------------------- prefixes


def _networks(written: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[IPNetwork, ...]]:
    networks: dict[str, tuple[IPNetwork, ...]] = {}
    for reason, texts in written.items():
        networks[reason] = tuple(ip_network(text) for text in texts)
    return networks


_NETWORKS_NEVER = _networks(_NEVER)
_NETWORKS_NAMED_ONLY = _networks(_NAMED_ONLY)


def _kind(address: IPAddress, networks: Mapping[str, tuple[IPNetwork, ...]]) -> str | None:
    return next((kind for kind, prefixes in networks.items() if _within(address, prefixes)), None)


def _within(address: IPAddress, prefixes: Sequence[IPNetwork]) -> bool:
    return any(address in prefix for prefix in prefixes)


def _subnet(inner: IPNetwork, outer: IPNetwork) -> bool:
    if isinstance(inner, IPv4Network) and isinstance(outer, IPv4Network):
        return inner.subnet_of(outer)
    if isinstance(inner, IPv6Network) and isinstance(outer, IPv6Network):
        return inner.subnet_of(outer)
    return False


# ---------------------------------------------------------------- names

_DOTS = ".\u3002\uff0e\uff61"  # RFC 3490 section 3.1


def canonical(name: str) -> str:
    """One form for all ways to write a name that lead to the same: case, final dots, and
    international labels as the DNS has them (RFC 3490); else only case-folded."""
    name = name.rstrip(_DOTS)
    try:
        return name.encode("idna").decode().lower()
    except UnicodeError:  # a label that is too long or empty; a Moniker URI
        return name.casefold()


def _pattern(written: str) -> re.Pattern[str]:
    """``*`` stands for any number of any characters; nothing else is special."""
    parts = canonical(written).split("*")
    return re.compile(".*".join(map(re.escape, parts)), re.DOTALL)
