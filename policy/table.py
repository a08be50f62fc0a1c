"""The policy: which rule applies to a flow, and how far around it.

At load time the destinations of all rules are cut into cells, and for each
chain of destinations the sources of the rules in it; each pair gets its stack.
A lookup is then two bisections and a short scan.  Nothing changes after that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from policy.cells import Cells, Level, cut
from policy.conflicts import ambiguous, meaningless, undeclared_overrides
from policy.errors import (
    AmbiguousRules,
    MeaninglessRule,
    PolicyConflicts,
    PolicyError,
    RuleConflict,
    UndeclaredOverride,
    described,
)
from policy.flow import Flow, IPNetwork
from policy.order import (
    Exemption,
    OrderKey,
    gives_ports,
    is_dhcp_exemption,
    is_management_exemption,
    is_own_exemption,
    names_dhcp,
    order_key,
)
from policy.prefixes import WIDTHS, Prefixes, keys, network_of
from policy.rule import Category, Decision, PortRange, Rule, Scope
from policy.stack import (
    EXTENSION_HEADERS,
    Entry,
    Stack,
    first_match,
    reachable,
    shows_ports,
    sort_stack,
    strictest,
)


@dataclass(frozen=True, slots=True)
class Group:
    """Rules of one place in the order; no two of its entries match the same flow.

    ``entries`` are source, destination, rule.  Where ``order.exemption`` is
    NAMED, the rule is cut down to its ports of DHCP.
    """

    order: OrderKey
    entries: Iterable[tuple[IPNetwork, IPNetwork, Rule]]


@dataclass(frozen=True, slots=True)
class _Destination:
    """A chain of destinations: the sources that matter there, and their stacks by source chain."""

    sources: Cells
    stacks: dict[int, Stack]


class _Family:
    """The cells of one address family."""

    def __init__(self, family: int, entries: Iterable[Entry]) -> None:
        self.family = family
        self.width = WIDTHS[family]
        self.conflicts: dict[tuple[type[RuleConflict], int, int], tuple[int, int]] = {}
        self._prefixes: dict[int, Prefixes] = {}  # by list number
        self._numbers: dict[int, int] = {}  # by identity of the list
        self._sources: dict[Entry, int] = {}
        self._by_destination: dict[int, list[Entry]] = {}
        self._cuts: dict[frozenset[int], Cells] = {}
        for entry in entries:
            if entry.family in (None, family):
                self._sources[entry] = self._number(entry.rule.source)
                destination = self._number(entry.rule.destination)
                self._by_destination.setdefault(destination, []).append(entry)
        self.destinations = self._cut(frozenset(self._by_destination))
        self.chains: list[_Destination | None] = [None] * len(self.destinations.levels)
        for chain in sorted(set(self.destinations.chains)):
            self.chains[chain] = self._destination(chain)

    def _number(self, prefixes: Prefixes) -> int:
        number = self._numbers.setdefault(id(prefixes), len(self._numbers))
        self._prefixes[number] = prefixes
        return number

    def _cut(self, numbers: frozenset[int]) -> Cells:
        cells = self._cuts.get(numbers)
        if cells is None:
            lists = ((n, keys(self._prefixes[n], self.family)) for n in sorted(numbers))
            cells = self._cuts[numbers] = cut(self.width, lists)
        return cells

    def _destination(self, chain: int) -> _Destination:
        lengths: dict[Entry, int] = {}
        for length, numbers in self.destinations.levels[chain]:
            for number in numbers:
                for entry in self._by_destination[number]:
                    lengths.setdefault(entry, length)
        sources = self._cut(frozenset(self._sources[entry] for entry in lengths))
        stacks: dict[int, Stack] = {}
        for source_chain in sorted(set(sources.chains)):
            ordered = self._ordered(lengths, sources.levels[source_chain])
            self._note_conflicts(ordered, chain, sources, source_chain)
            stacks[source_chain] = reachable(entry for _, entry in ordered)
        return _Destination(sources, stacks)

    def _ordered(
        self, destination_lengths: dict[Entry, int], levels: tuple[Level, ...]
    ) -> list[tuple[OrderKey, Entry]]:
        source_lengths: dict[int, int] = {}
        for length, numbers in levels:
            for number in numbers:
                source_lengths.setdefault(number, length)
        matching = []
        for entry, length in destination_lengths.items():
            source_length = source_lengths.get(self._sources[entry])
            if source_length is not None:
                key = order_key(entry.rule, length, source_length, entry.exemption)
                matching.append((key, entry))
        return sort_stack(matching)

    def _note_conflicts(
        self,
        ordered: list[tuple[OrderKey, Entry]],
        chain: int,
        sources: Cells,
        source_chain: int,
    ) -> None:
        for kind, found in (
            (AmbiguousRules, ambiguous(ordered)),
            (UndeclaredOverride, undeclared_overrides(ordered)),
        ):
            for first, second in found:
                if (kind, first, second) not in self.conflicts:
                    self.conflicts[kind, first, second] = (
                        sources.starts[sources.chains.index(source_chain)],
                        self.destinations.starts[self.destinations.chains.index(chain)],
                    )


class PolicyTable:
    """An immutable policy.

    Raises PolicyConflicts with everything that is wrong with the rules, and
    PolicyError if ``default``, which applies where no rule matches, isn't for
    all traffic or is of category configured: strangers have no configured peer.
    """

    def __init__(self, rules: Iterable[Rule], default: Rule) -> None:
        self.rules = tuple(rules)
        self.default = default
        _check_default(default)
        found = [meaningless(rule) for rule in self.rules]
        self._entries = tuple(
            entry for entry in _entries(self.rules) if found[entry.number] is None
        )
        self._families = {family: _Family(family, self._entries) for family in (4, 6)}
        errors: list[MeaninglessRule | RuleConflict] = [error for error in found if error]
        errors.extend(self._conflicts())
        if errors:
            raise PolicyConflicts(errors)

    def _conflicts(self) -> Iterator[RuleConflict]:
        seen = set()
        for family, cells in self._families.items():
            for (kind, first, second), (source, destination) in cells.conflicts.items():
                if (kind, first, second) not in seen:
                    seen.add((kind, first, second))
                    yield kind(
                        self.rules[first],
                        self.rules[second],
                        network_of(family, source, WIDTHS[family]).network_address,
                        network_of(family, destination, WIDTHS[family]).network_address,
                    )

    def lookup(self, flow: Flow) -> Decision:
        """The rule for a flow, and the scope in which every flow gets the same rule.

        The scope doesn't speak for DHCP (both ports 67 to 68, or 546 to 547): who caches
        verdicts takes DHCP out before it looks into the cache, or else every scope of UDP
        would have holes.
        A non-first fragment, and any other packet that hides the ports that its
        protocol has, gets the strictest of the rules that could match.  Raises
        ValueError for a flow between two families.
        """
        family = flow.destination.version
        if family != flow.source.version:
            raise ValueError(f"a flow between two families: {flow}")
        cells = self._families[family]
        destination = int(flow.destination)
        source = int(flow.source)
        destination_cell = cells.destinations.find(destination)
        at_destination = cells.chains[cells.destinations.chains[destination_cell]]
        assert at_destination is not None
        sources = at_destination.sources
        source_cell = sources.find(source)
        stack = at_destination.stacks[sources.chains[source_cell]]

        protocol = flow.protocol
        ports: tuple[int, int] | None = None
        hidden = flow.fragment and family == 6 and protocol in EXTENSION_HEADERS
        if hidden or shows_ports(protocol):
            if flow.fragment or flow.source_port is None or flow.destination_port is None:
                rule, certain = strictest(stack, self.default, None if hidden else protocol)
                if not certain:
                    return Decision(rule, _exactly(flow), cacheable=False)
            else:
                ports = flow.source_port, flow.destination_port
        match = first_match(stack, self.default, protocol, ports)
        return Decision(
            match.rule,
            Scope(
                _block(family, source, sources.block_length(source_cell, source)),
                _block(
                    family,
                    destination,
                    cells.destinations.block_length(destination_cell, destination),
                ),
                match.protocol,
                match.source_ports,
                match.destination_ports,
            ),
        )

    def groups(self, family: int) -> Iterator[Group]:
        """The rules of one family as groups, those that apply first before the others.

        The first match of a search through the groups in turn is what
        ``lookup`` finds.  The default rule isn't in a group; ``None`` prefixes
        appear as 0.0.0.0/0 or ::/0.
        """
        members: dict[tuple[tuple[int, ...], bool], tuple[OrderKey, list[Entry]]] = {}
        for entry in self._entries:
            if entry.family not in (None, family):
                continue
            for destination_length in _lengths(entry.rule.destination, family):
                for source_length in _lengths(entry.rule.source, family):
                    key = order_key(entry.rule, destination_length, source_length, entry.exemption)
                    place = key.precedence, entry.rule.builtin
                    members.setdefault(place, (key, []))[1].append(entry)
        for place in sorted(members):
            key, entries = members[place]
            yield Group(key, _GroupEntries(family, key, tuple(entries)))


@dataclass(frozen=True, slots=True)
class _GroupEntries:
    """The entries of a group, made anew at each iteration: there may be millions."""

    family: int
    key: OrderKey
    entries: tuple[Entry, ...]

    def __iter__(self) -> Iterator[tuple[IPNetwork, IPNetwork, Rule]]:
        for entry in self.entries:
            rule = entry.rule
            if entry.exemption is Exemption.NAMED:
                rule = replace(
                    rule,
                    source_ports=entry.source_ports,
                    destination_ports=entry.destination_ports,
                )
            sources = list(_of_length(entry.rule.source, self.family, self.key.source_length))
            for destination in _of_length(
                entry.rule.destination, self.family, self.key.destination_length
            ):
                for source in sources:
                    yield source, destination, rule


def _entries(rules: tuple[Rule, ...]) -> Iterator[Entry]:
    """Each rule as an entry, and once more for each part of DHCP that it names."""
    exemptions = [rule for rule in rules if is_dhcp_exemption(rule)]
    for number, rule in enumerate(rules):
        if is_own_exemption(rule):
            yield Entry.of(rule, number, Exemption.OWN)
            continue
        if is_management_exemption(rule):
            yield Entry.of(rule, number, Exemption.MANAGEMENT)
            continue
        if is_dhcp_exemption(rule):
            yield Entry.of(rule, number, Exemption.DHCP)
            continue
        yield Entry.of(rule, number, Exemption.NONE)
        for exemption in exemptions:
            if names_dhcp(rule, exemption):
                for family in sorted({network.version for network in exemption.destination or ()}):
                    yield Entry(
                        rule,
                        number,
                        Exemption.NAMED,
                        rule.protocol,
                        _common(rule.source_ports, exemption.source_ports),
                        _common(rule.destination_ports, exemption.destination_ports),
                        any_port=False,
                        family=family,
                    )


def _common(one: PortRange, other: PortRange) -> PortRange:
    return PortRange(max(one.first, other.first), min(one.last, other.last))


def _lengths(prefixes: Prefixes, family: int) -> list[int]:
    return sorted({key & 0xFF for key in keys(prefixes, family)})


def _of_length(prefixes: Prefixes, family: int, length: int) -> Iterator[IPNetwork]:
    for key in keys(prefixes, family):
        if key & 0xFF == length:
            yield network_of(family, key >> 8, length)


def _block(family: int, address: int, length: int) -> IPNetwork:
    host_bits = WIDTHS[family] - length
    return network_of(family, address >> host_bits << host_bits, length)


def _exactly(flow: Flow) -> Scope:
    family = flow.destination.version
    return Scope(
        network_of(family, int(flow.source), WIDTHS[family]),
        network_of(family, int(flow.destination), WIDTHS[family]),
        flow.protocol,
    )


def _check_default(default: Rule) -> None:
    if default.category is Category.CONFIGURED:
        raise PolicyError(
            f"{described(default)}: a default can't be configured, for strangers have no peer"
        )
    whole = default.source is None and default.destination is None and default.protocol is None
    if not whole or gives_ports(default):
        raise PolicyError(f"{described(default)}: a default is for all traffic")
