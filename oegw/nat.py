"""Hosts behind our own NAT: what the policy, the DNS and phase 2 see of them (draft section 7.1).

A packet is translated before it is subject to opportunistic encryption.  The kernel translates
what enters the tunnel; what it decides on is a packet's address before that.  So the coordinator
knows translated pairs only, and the verdicts that it gives to the kernel are for the pairs before:
each client of a NAPT has a verdict of its own, and all of them share one connection.

A configured rule that names the addresses inside is for just these: configured tunnels join
islands of private addresses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from policy.builtin import all_never_public, never_public
from policy.flow import Flow, IPAddress, IPNetwork
from policy.rule import Category, PortRange, Rule, Scope
from policy.table import PolicyTable


@dataclass(frozen=True, slots=True)
class NatRule:
    """``[[nat]]`` as it is written; ``outside`` of None is the gateway's own outer address."""

    inside: IPNetwork
    outside: IPNetwork | None = None
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Translation:
    """Sources within ``inside`` leave as ``outside``: one address, or a prefix as long."""

    inside: IPNetwork
    outside: IPNetwork

    @property
    def shared(self) -> bool:
        """Whether several hosts have one address (NAPT)."""
        return self.outside.prefixlen != self.inside.prefixlen

    def covers(self, address: IPAddress) -> bool:
        return address.version == self.inside.version and address in self.inside

    def outward(self, address: IPAddress) -> IPAddress:
        """What becomes of a source within ``inside``."""
        first = self.outside.network_address
        if self.shared:
            return first
        return _same_kind(first, int(first) + int(address) - int(self.inside.network_address))

    def inward(self, network: IPNetwork) -> IPNetwork | None:
        """The hosts inside whose translated address is within ``network``; None if none is."""
        if network.version != self.outside.version:
            return None
        if contains(network, self.outside):
            return self.inside
        if not contains(self.outside, network):
            return None
        offset = int(network.network_address) - int(self.outside.network_address)
        first = _same_kind(network.network_address, int(self.inside.network_address) + offset)
        return _network(first, network.prefixlen)

    def __str__(self) -> str:
        how = "all share one address" if self.shared else "one for one"
        outside = self.outside.network_address if _is_host(self.outside) else self.outside
        return f"{self.inside} as {outside}, {how}"


@dataclass(frozen=True, slots=True)
class Seen:
    """A packet as the coordinator sees it.

    ``flow`` and ``rule`` are those of the translated pair, ``policy_scope`` is how far around it
    the rule goes.  ``scope`` is the same for the kernel, which decides before it translates.
    """

    flow: Flow
    rule: Rule
    policy_scope: Scope
    scope: Scope
    cacheable: bool
    by: Translation | None = None


@dataclass(frozen=True, slots=True)
class Nat:
    """All translations of this box; none overlaps another.

    ``noticed``: in what rules the box translates sources, if it does and no ``[[nat]]`` says so.
    ``nameless``: our own outer addresses that nobody could look us up by.
    """

    translations: tuple[Translation, ...] = ()
    noticed: str = ""
    nameless: tuple[IPAddress, ...] = ()

    def warnings(self) -> tuple[str, ...]:
        """What the operator should know, as sentences."""
        said = []
        if self.noticed and not self.translations:
            said.append(
                f"this box translates sources ({self.noticed}) and the configuration has no "
                "[[nat]] that says to what: no opportunistic tunnel for private sources"
            )
        said += [
            f"our outer address {address} is private, and gateway.fqdn gives no name: no "
            f"opportunistic tunnel can be had over IPv{address.version}"
            for address in self.nameless
        ]
        return tuple(said)

    def by(self, source: IPAddress) -> Translation | None:
        """The translation that a source is subject to."""
        return next((t for t in self.translations if t.covers(source)), None)

    def seen(self, flow: Flow, table: PolicyTable) -> Seen:
        """What the policy says of a packet that leaves, by its translated source."""
        plain = table.lookup(flow)
        by = self.by(flow.source)
        if by is None or plain.rule.category is Category.CONFIGURED:
            scope = self._unmixed(plain.scope, flow) if by is None else plain.scope
            return Seen(flow, plain.rule, plain.scope, scope, plain.cacheable)
        translated = replace(flow, source=by.outward(flow.source))
        found = table.lookup(translated)
        inward = by.inward(found.scope.source)
        assert inward is not None  # it covers the translated source
        scope = _common(replace(found.scope, source=inward), plain.scope)
        return Seen(
            translated, found.rule, found.scope, scope, plain.cacheable and found.cacheable, by
        )

    def _unmixed(self, scope: Scope, flow: Flow) -> Scope:
        """Without hosts inside that have another address, and so perhaps another rule."""
        for translation in self.translations:
            if contains(scope.source, translation.inside) and not contains(
                scope.source, translation.outside
            ):
                return replace(scope, source=_network(flow.source, flow.source.max_prefixlen))
        return scope

    def hides(self, network: IPNetwork) -> Translation | None:
        """The translation behind which addresses are, that no peer can know of."""
        return next((t for t in self.translations if _overlap(t.inside, network)), None)

    def objection(self, source: IPAddress, served: Iterable[IPNetwork]) -> str:
        """Why no opportunistic tunnel can be had for a (translated) source; empty if it can.

        ``served``: private ranges whose reverse map there is.
        """
        if never_public(source) and not any(covered(source, n) for n in served):
            if self.noticed:
                return (
                    f"{source} is private, and this box translates it ({self.noticed}): "
                    "to what? no [[nat]] says so"
                )
            return f"{source} is private: no reverse map says who speaks for it"
        for address in self.nameless:
            if address.version == source.version:
                return f"our own address {address} is private, and gateway.fqdn gives no name"
        return ""


def nat_of(
    rules: Iterable[NatRule],
    addresses: Iterable[IPAddress],
    *,
    named: bool,
    served: Iterable[IPNetwork],
    translates: tuple[str, ...],
) -> Nat:
    """What a box with these outer addresses does, as declared and as noticed.

    ``named``: it has a name to be looked up by.  ``translates``: the rules that it translates by.
    Raises ValueError as ``resolved``.
    """
    addresses = tuple(addresses)
    served = tuple(served)
    nameless = (a for a in addresses if never_public(a) and not any(covered(a, n) for n in served))
    return Nat(
        tuple(resolved(rules, addresses)),
        translates[0] if translates else "",
        () if named else tuple(nameless),
    )


def resolved(rules: Iterable[NatRule], addresses: Iterable[IPAddress]) -> Iterator[Translation]:
    """The translations of a box with these outer addresses.

    Raises ValueError if the gateway's own address is meant, and it has none of that family.
    """
    addresses = tuple(addresses)
    for rule in rules:
        outside = rule.outside
        if outside is None:
            own = next((a for a in addresses if a.version == rule.inside.version), None)
            if own is None:
                family = rule.inside.version
                raise ValueError(f"{rule.origin}: this box has no outer IPv{family} address")
            outside = _network(own, own.max_prefixlen)
        yield Translation(rule.inside, outside)


def complaint(rules: Iterable[NatRule]) -> Iterator[tuple[int, str, str]]:
    """What is wrong with rules taken together: number of the rule from 1, its key, the reason."""
    before: list[NatRule] = []
    for number, rule in enumerate(rules, 1):
        for other in before:
            if _overlap(rule.inside, other.inside):
                yield number, "inside", f"{rule.inside} overlaps {other.inside} of another [[nat]]"
        before.append(rule)
    for number, rule in enumerate(before, 1):
        for other in before:
            if rule.outside is not None and _overlap(rule.outside, other.inside):
                yield number, "outside", f"{rule.outside} is itself translated, being inside"


def covered(address: IPAddress, network: IPNetwork) -> bool:
    return address.version == network.version and address in network


def unserved(network: IPNetwork, served: Iterable[IPNetwork]) -> bool:
    """Whether a network is private, and our resolvers have no reverse map of any of it."""
    return all_never_public(network) and not any(
        contains(known, network) or contains(network, known) for known in served
    )


def contains(outer: IPNetwork, inner: IPNetwork) -> bool:
    """Whether one network is within the other; networks of two families never are."""
    return outer.prefixlen <= inner.prefixlen and covered(inner.network_address, outer)


def _overlap(one: IPNetwork, other: IPNetwork) -> bool:
    return contains(one, other) or contains(other, one)


def _is_host(network: IPNetwork) -> bool:
    return network.prefixlen == network.max_prefixlen


def _same_kind(like: IPAddress, number: int) -> IPAddress:
    return IPv4Address(number) if like.version == 4 else IPv6Address(number)


def _network(address: IPAddress, length: int) -> IPNetwork:
    if isinstance(address, IPv4Address):
        return IPv4Network((address, length))
    return IPv6Network((address, length))


def _common(one: Scope, other: Scope) -> Scope:
    """What is in both of two scopes; there is a flow that is."""
    return Scope(
        max(one.source, other.source, key=lambda n: n.prefixlen),
        max(one.destination, other.destination, key=lambda n: n.prefixlen),
        other.protocol if one.protocol is None else one.protocol,
        _common_ports(one.source_ports, other.source_ports),
        _common_ports(one.destination_ports, other.destination_ports),
    )


def _common_ports(one: PortRange, other: PortRange) -> PortRange:
    return PortRange(max(one.first, other.first), min(one.last, other.last))
