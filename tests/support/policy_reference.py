"""The policy as plainly as possible: a scan of all rules, all prefixes, written independently.

Nothing of `policy.order`, `policy.cells` or `policy.stack` is used here.
"""

from __future__ import annotations

from ipaddress import ip_network

from policy.flow import Flow
from policy.rule import Category, OnFailure, Rule

PORTED = (6, 17, 33, 132, 136)


def networks(prefixes, family):
    if prefixes is None:
        return [ip_network("0.0.0.0/0" if family == 4 else "::/0")]
    return [network for network in prefixes if network.version == family]


def longest(prefixes, address):
    lengths = [n.prefixlen for n in networks(prefixes, address.version) if address in n]
    return max(lengths, default=None)


def restricts_ports(rule):
    return (
        rule.source_ports.first,
        rule.source_ports.last,
        rule.destination_ports.first,
        rule.destination_ports.last,
    ) != (0, 65535, 0, 65535)


def matches(rule: Rule, flow: Flow) -> bool:
    if longest(rule.source, flow.source) is None:
        return False
    if longest(rule.destination, flow.destination) is None:
        return False
    if rule.protocol is not None and rule.protocol != flow.protocol:
        return False
    if not restricts_ports(rule):
        return True
    return (
        flow.protocol in PORTED
        and rule.source_ports.first <= flow.source_port <= rule.source_ports.last
        and rule.destination_ports.first <= flow.destination_port <= rule.destination_ports.last
    )


def is_dhcp(rule: Rule) -> bool:
    return rule.builtin and rule.protocol == 17 and restricts_ports(rule)


def is_dhcp_flow(rules, flow: Flow) -> bool:
    return any(is_dhcp(rule) and matches(rule, flow) for rule in rules)


def sort_key(rule: Rule, flow: Flow):
    """Smaller is more specific; the five criteria of the order, then the user's before built-in."""
    return (
        -longest(rule.destination, flow.destination),
        -longest(rule.source, flow.source),
        rule.protocol is None,
        rule.destination_ports.last - rule.destination_ports.first,
        rule.source_ports.last - rule.source_ports.first,
        rule.builtin,
    )


def names(rule: Rule, dhcp: Rule) -> bool:
    def overlap(one, other):
        return max(one.first, other.first) <= min(one.last, other.last)

    return (
        rule.protocol == 17
        and restricts_ports(rule)
        and overlap(rule.source_ports, dhcp.source_ports)
        and overlap(rule.destination_ports, dhcp.destination_ports)
    )


def best(rules, default: Rule, flow: Flow) -> Rule:
    """The rule for a flow that shows its ports, or has none."""
    matching = [rule for rule in rules if matches(rule, flow)]
    dhcp = [rule for rule in matching if is_dhcp(rule)]
    if dhcp:
        matching = [r for r in matching if not r.builtin and names(r, dhcp[0])] or dhcp
    return min(matching, key=lambda rule: sort_key(rule, flow), default=default)


def ties(rules, flow: Flow) -> bool:
    """Whether two rules of the user's match a flow and neither precedes the other."""
    found = [sort_key(rule, flow) for rule in rules if not rule.builtin and matches(rule, flow)]
    return len(set(found)) < len(found)


def takes_unasked(rules, flow: Flow) -> bool:
    """Whether an opportunistic or permit rule precedes a deny or configured one, both matching."""
    found = [rule for rule in rules if not rule.builtin and matches(rule, flow)]
    return any(
        taker.category in (Category.OPPORTUNISTIC, Category.PERMIT)
        and not taker.override
        and victim.category in (Category.DENY, Category.CONFIGURED)
        and sort_key(taker, flow) < sort_key(victim, flow)
        for taker in found
        for victim in found
    )


def severity(rule: Rule) -> int:
    order = [
        (Category.PERMIT, None),
        (Category.OPPORTUNISTIC, OnFailure.CLEAR),
        (Category.OPPORTUNISTIC, OnFailure.DROP),
        (Category.CONFIGURED, None),
        (Category.DENY, None),
    ]
    failure = rule.on_failure if rule.category is Category.OPPORTUNISTIC else None
    return order.index((rule.category, failure))


def port_samples(rules):
    """Ports such that each combination of rules that some port meets is met by one of these."""
    ports = {0, 65535}
    for rule in rules:
        for span in (rule.source_ports, rule.destination_ports):
            ports |= {span.first, span.last, max(0, span.first - 1), min(65535, span.last + 1)}
    return sorted(ports)
