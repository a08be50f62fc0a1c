"""The load-time errors of a policy: ambiguous rules, undeclared overrides, meaningless rules.

Whether two rules conflict is asked for each pair of cells that has addresses in
it, with the stack of the rules that match there.  So rules whose prefixes meet
only where longer prefixes of the same two rules decide don't conflict.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from policy.errors import MeaninglessRule
from policy.order import PORTED_PROTOCOLS, Exemption, OrderKey, gives_ports, share_traffic
from policy.prefixes import Prefixes, PrefixList
from policy.rule import Category, PortRange, Rule
from policy.stack import Entry

Ordered = Sequence[tuple[OrderKey, Entry]]


def ambiguous(stack: Ordered) -> Iterator[tuple[int, int]]:
    """The numbers of the rules of a stack that match common traffic and are equal in order."""
    if len(stack) < 2:
        return
    for _, run in groupby(_users(stack), key=lambda pair: pair[0].precedence):
        equals = [entry for _, entry in run]
        for position, one in enumerate(equals):
            for other in equals[position + 1 :]:
                if share_traffic(one.rule, other.rule):
                    yield one.number, other.number


def undeclared_overrides(stack: Ordered) -> Iterator[tuple[int, int]]:
    """The numbers of rules of a stack: one, and another whose traffic it takes unasked."""
    takers: list[tuple[OrderKey, Entry]] = []
    for key, entry in _users(stack):
        if entry.rule.category in (Category.OPPORTUNISTIC, Category.PERMIT):
            if not entry.rule.override:
                takers.append((key, entry))
            continue
        for taker_key, taker in takers:
            if taker_key.precedes(key) and share_traffic(taker.rule, entry.rule):
                yield taker.number, entry.number


def _users(stack: Ordered) -> Iterator[tuple[OrderKey, Entry]]:
    """The rules that the user wrote, whole."""
    for key, entry in stack:
        if not entry.rule.builtin and entry.exemption is Exemption.NONE:
            yield key, entry


def meaningless(rule: Rule) -> MeaninglessRule | None:
    """What makes a rule unable to match any packet, if something does."""
    for ports in (rule.source_ports, rule.destination_ports):
        if not 0 <= ports.first <= ports.last <= 65535:
            return MeaninglessRule(rule, f"there are no ports {_range(ports)}")
    if rule.protocol is not None and not 0 <= rule.protocol <= 255:
        return MeaninglessRule(rule, f"there is no protocol {rule.protocol}")
    if gives_ports(rule) and rule.protocol is not None and rule.protocol not in PORTED_PROTOCOLS:
        return MeaninglessRule(rule, f"protocol {rule.protocol} has no ports")
    sources, destinations = _families(rule.source), _families(rule.destination)
    if sources and destinations and not sources & destinations:
        return MeaninglessRule(rule, "its sources and destinations are of different families")
    return None


def _range(ports: PortRange) -> str:
    return f"{ports.first} to {ports.last}"


def _families(prefixes: Prefixes) -> set[int]:
    if prefixes is None:
        return {4, 6}
    if isinstance(prefixes, PrefixList):
        return prefixes.families
    return {network.version for network in prefixes}
