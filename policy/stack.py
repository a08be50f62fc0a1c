"""What is left of the policy for one pair of cells: the rules that match, in order.

A *stack* holds every rule that matches the addresses of the pair.  Protocol and
ports decide among them, and the first that matches applies.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from policy.order import PORTED_PROTOCOLS, Exemption, OrderKey, gives_ports
from policy.rule import ANY_PORT, Category, OnFailure, PortRange, Rule

EXTENSION_HEADERS = frozenset({0, 43, 44, 60, 135, 139, 140})
"""IPv6 extension headers (RFC 8200 section 4.5): behind one, in a non-first fragment, the
protocol itself isn't to be seen.  The authentication header has no place here: it is a protocol
that rules give."""


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A rule, or the part of it that names DHCP, made quick to compare with a packet.

    Entries are compared by identity: two rules may be equal, and yet are two.
    """

    rule: Rule
    number: int  # of the rule, in the order in which they were given
    exemption: Exemption
    protocol: int | None
    source_ports: PortRange
    destination_ports: PortRange
    any_port: bool
    family: int | None = None  # the only family to which it applies

    @classmethod
    def of(cls, rule: Rule, number: int, exemption: Exemption) -> Entry:
        return cls(
            rule,
            number,
            exemption,
            rule.protocol,
            rule.source_ports,
            rule.destination_ports,
            not gives_ports(rule),
        )

    def has_ports(self, source: int, destination: int) -> bool:
        return (
            self.source_ports.first <= source <= self.source_ports.last
            and self.destination_ports.first <= destination <= self.destination_ports.last
        )

    def covers(self, other: Entry) -> bool:
        """Whether nothing is left for ``other`` behind this entry."""
        return (
            (self.protocol is None or self.protocol == other.protocol)
            and self.source_ports.first <= other.source_ports.first
            and self.source_ports.last >= other.source_ports.last
            and self.destination_ports.first <= other.destination_ports.first
            and self.destination_ports.last >= other.destination_ports.last
        )


Stack = tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Match:
    """The rule for a protocol and ports, and for how much of these it applies."""

    rule: Rule
    protocol: int | None
    source_ports: PortRange
    destination_ports: PortRange


def sort_stack(entries: Iterable[tuple[OrderKey, Entry]]) -> list[tuple[OrderKey, Entry]]:
    """Entries in the order of the rules; of equals, the user's before the built-in."""
    return sorted(
        entries, key=lambda pair: (pair[0].precedence, pair[1].rule.builtin, pair[1].number)
    )


def reachable(entries: Iterable[Entry]) -> Stack:
    """The entries up to the first that matches everything."""
    stack = []
    for entry in entries:
        stack.append(entry)
        if entry.protocol is None and entry.any_port:
            break
    return tuple(stack)


def first_match(stack: Stack, default: Rule, protocol: int, ports: tuple[int, int] | None) -> Match:
    """The rule for a protocol, and for ports where it has them.

    The protocol of the match is ``None``, which is any, if no rule looked at it.
    What concerns DHCP alone leaves no mark on the match of other traffic: a
    cache must take DHCP out first (`policy.table.PolicyTable.lookup`).
    """
    depends = False
    obstacles: list[Entry] = []
    for entry in stack:
        if entry.exemption.of_ports:
            if entry.protocol == protocol and ports is not None and entry.has_ports(*ports):
                return Match(entry.rule, protocol, entry.source_ports, entry.destination_ports)
            continue
        if entry.protocol is not None:
            depends = True
            if entry.protocol != protocol:
                continue
        if entry.any_port:
            rule, outer_source, outer_destination = entry.rule, ANY_PORT, ANY_PORT
            break
        depends = True
        if ports is None:
            continue
        if entry.has_ports(*ports):
            rule = entry.rule
            outer_source, outer_destination = entry.source_ports, entry.destination_ports
            break
        obstacles.append(entry)
    else:
        rule, outer_source, outer_destination = default, ANY_PORT, ANY_PORT
    if obstacles and ports is not None:
        outer_source, outer_destination = _free_ports(
            outer_source, outer_destination, ports, obstacles
        )
    return Match(rule, protocol if depends else None, outer_source, outer_destination)


def _free_ports(
    outer_source: PortRange,
    outer_destination: PortRange,
    ports: tuple[int, int],
    obstacles: Sequence[Entry],
) -> tuple[PortRange, PortRange]:
    """A rectangle of ports around ``ports`` that meets no obstacle and can't grow on any side."""
    # Plain integers, for there may be hundreds of obstacles.
    spans = [
        (
            e.source_ports.first,
            e.source_ports.last,
            e.destination_ports.first,
            e.destination_ports.last,
        )
        for e in obstacles
    ]
    port, destination_port = ports
    low, high = outer_source.first, outer_source.last
    bottom, top = outer_destination.first, outer_destination.last
    for left, right, lower, upper in spans:
        if left > high or right < low or lower > top or upper < bottom:
            continue
        # Cut where more remains.  An obstacle that has one of the ports leaves
        # nothing on that axis; it doesn't have both.
        new_low, new_high = _beside(low, high, port, left, right)
        new_bottom, new_top = _beside(bottom, top, destination_port, lower, upper)
        by_source = (new_high - new_low + 1) * (top - bottom + 1)
        by_destination = (high - low + 1) * (new_top - new_bottom + 1)
        if by_source >= by_destination:
            low, high = new_low, new_high
        else:
            bottom, top = new_bottom, new_top
    # A later cut may have made an earlier one needless.
    low, high = outer_source.first, outer_source.last
    for left, right, lower, upper in spans:
        if lower <= top and upper >= bottom:
            low, high = _beside(low, high, port, left, right)
    bottom, top = outer_destination.first, outer_destination.last
    for left, right, lower, upper in spans:
        if left <= high and right >= low:
            bottom, top = _beside(bottom, top, destination_port, lower, upper)
    return PortRange(low, high), PortRange(bottom, top)


def _beside(first: int, last: int, port: int, left: int, right: int) -> tuple[int, int]:
    """The ports on that side of ``left`` to ``right`` where ``port`` is; none if it is within."""
    if left > port:
        return first, min(last, left - 1)
    if right < port:
        return max(first, right + 1), last
    return port, port - 1


def strictest(stack: Stack, default: Rule, protocol: int | None) -> tuple[Rule, bool]:
    """The strictest rule of those that some ports could match, and whether it is the only one.

    A ``protocol`` of None is one that the packet doesn't show.
    """
    possible: list[Entry] = []
    rules: list[Rule] = []
    for entry in stack:
        if entry.exemption.of_ports:
            continue  # DHCP comes whole, and a rule that names it stands here once more
        if protocol is not None and entry.protocol not in (None, protocol):
            continue
        if not any(before.covers(entry) for before in possible):
            possible.append(entry)
            rules.append(entry.rule)
        if entry.any_port and (protocol is not None or entry.protocol is None):
            break
    else:
        rules.append(default)
    return max(rules, key=strictness), len(rules) == 1


def strictness(rule: Rule) -> int:
    """Deny, configured, opportunistic that drops, opportunistic that may go clear, permit."""
    if rule.category is Category.OPPORTUNISTIC:
        return 2 if rule.on_failure is OnFailure.DROP else 1
    return {Category.DENY: 4, Category.CONFIGURED: 3, Category.PERMIT: 0}[rule.category]


def shows_ports(protocol: int) -> bool:
    """Whether packets of a protocol have ports."""
    return protocol in PORTED_PROTOCOLS
