"""Who may be connected to whom (SK-5, SK-23).  Without IO.

The first rule that matches decides.  If none does, a client of our listeners may reach all but what
is ours: loopback, link-local and this box's own addresses are opened only by a rule that names
them.  What stands behind a name or an ID is judged, at the moment at which it is used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
    """``destination``: the address that would be used, of a BIND the peer's; None if it is not
    known yet (a UDP ASSOCIATE, a BIND for any peer).  ``name``: by which it was asked for, or for
    which the ID stands.  ``encrypted``: the listener or the user demands it."""

    command: str
    client: IPAddress
    user: str = ""
    destination: IPAddress | None = None
    port: int = 0
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

    def decide(self, asked: Asked) -> Verdict:
        """With ``destination`` None: whether anything at all may be allowed; each peer is asked
        for again when it is known."""
        who = [rule for rule in self._rules if rule.concerns(asked)]
        if asked.destination is None:
            return _before_it_is_known(asked, who)
        destination = plain(asked.destination)
        for reason, prefixes in _NETWORKS_NEVER.items():
            if _within(destination, prefixes):
                return Verdict(False, reason)
        special = self._special(destination)
        name = None if asked.name is None else canonical(asked.name)
        for rule in who:
            if rule.matches(destination, asked.port, name) and (
                special is None or not rule.rule.allow or rule.names_special(destination, special)
            ):
                return _verdict(asked, rule.rule)
        if special is not None:
            return Verdict(False, special)
        return Verdict(True, "unruled", Demand(asked.encrypted))

    def _special(self, destination: IPAddress) -> str | None:
        for reason, prefixes in _NETWORKS_NAMED_ONLY.items():
            if _within(destination, prefixes):
                return reason
        return "own" if self._own(destination) else None


def _before_it_is_known(asked: Asked, rules: Sequence[_Reading]) -> Verdict:
    """Refused only if no peer at all could be allowed."""
    for reading in rules:
        if reading.rule.allow:
            return _verdict(asked, reading.rule)
        if reading.concerns_any_destination():
            return Verdict(False, reading.rule.origin)
    return Verdict(True, "unruled", Demand(asked.encrypted))


def _verdict(asked: Asked, rule: Rule) -> Verdict:
    if not rule.allow:
        return Verdict(False, rule.origin)
    return Verdict(True, rule.origin, Demand(asked.encrypted or rule.encrypted))


class _Reading:
    """A rule, made ready for comparison.  All its keys must match; an empty one does."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self._names = [_pattern(name) for name in rule.names]

    def concerns(self, asked: Asked) -> bool:
        rule = self.rule
        return (
            (not rule.commands or asked.command in rule.commands)
            and (not rule.users or asked.user in rule.users)
            and (not rule.clients or _within(plain(asked.client), rule.clients))
        )

    def concerns_any_destination(self) -> bool:
        return not (self.rule.destinations or self.rule.names or self.rule.ports)

    def matches(self, destination: IPAddress, port: int, name: str | None) -> bool:
        """``name``: canonical."""
        rule = self.rule
        return (
            (not rule.destinations or _within(destination, rule.destinations))
            and (not rule.ports or any(low <= port <= high for low, high in rule.ports))
            and (
                not self._names
                or (name is not None and any(each.fullmatch(name) for each in self._names))
            )
        )

    def names_special(self, destination: IPAddress, special: str) -> bool:
        """Whether this rule, which matches, means what is ours in particular."""
        prefixes = [each for each in self.rule.destinations if _within(destination, (each,))]
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
