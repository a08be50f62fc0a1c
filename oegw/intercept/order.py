"""The policy's order as a chain of nft rules.

A chain asks one yes-or-no question of each rule: is it *strict* (trap it, or
drop it) or *lenient* (let it pass)?  All pairs of prefixes of one group have
the same lengths, so the kernel masks the addresses and looks them up in a hash
set; 100,000 prefixes load in less than a second, and cost a packet one look.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

from policy.flow import IPNetwork
from policy.order import Exemption
from policy.rule import ANY_PORT, PortRange, Rule
from policy.table import Group

# Specification values: protocols with ports, and IPv6 extension headers (RFC 8200
# section 4.5), behind one of which a non-first fragment hides its protocol.
PORTED_PROTOCOLS = (6, 17, 33, 132, 136)
EXTENSION_HEADERS = (0, 43, 44, 60, 135, 139, 140)

_WORDS = {4: "ip", 6: "ip6"}
_WIDTHS = {4: 32, 6: 128}
_NON_FIRST_FRAGMENT = {4: "ip frag-off & 0x1fff != 0", 6: "frag frag-off != 0"}


class Ordered(Protocol):
    """What a chain is made of: the policy, or a view of it."""

    @property
    def default(self) -> Rule: ...
    def groups(self, family: int) -> Iterator[Group]: ...


@dataclass(frozen=True, slots=True)
class Question:
    """What a chain asks, and the verdicts for yes and no.

    ``reverse``: the packets come from outside, so that a rule's destination is
    their source.  A non-first fragment shows no ports, and perhaps not its
    protocol: it counts as matching what it hides if the rule is strict, and as
    not matching else.
    """

    strict: Callable[[Rule], bool]
    if_strict: str
    if_lenient: str
    reverse: bool = False

    def verdict(self, strict: bool) -> str:
        return self.if_strict if strict else self.if_lenient


@dataclass(frozen=True, slots=True)
class _Part:
    """Pairs of one group that get one verdict on the same protocol and ports."""

    strict: bool
    protocol: int | None
    source_ports: PortRange
    destination_ports: PortRange


def ordered_chain(name: str, table: Ordered, family: int, question: Question) -> str:
    """The chain ``name`` that answers ``question``; only packets of ``family`` may get there."""
    lines = list(_rules(table, family, question))
    lines.append(question.verdict(question.strict(table.default)))
    body = "".join(f"    {line}\n" for line in lines)
    return f"  chain {name} {{\n{body}  }}\n"


def _rules(table: Ordered, family: int, question: Question) -> Iterator[str]:
    default = question.strict(table.default)
    waiting: list[str] = []  # rules with the default's verdict: needed only above others
    for group in table.groups(family):
        if group.order.exemption is Exemption.OWN:
            continue  # what the kernel delivers to this box leaves by no interface
        parts: dict[_Part, dict[tuple[IPNetwork, IPNetwork], None]] = {}
        for source, destination, rule in group.entries:
            part = _Part(
                question.strict(rule), rule.protocol, rule.source_ports, rule.destination_ports
            )
            parts.setdefault(part, {})[source, destination] = None
        lines = [
            line for part, pairs in parts.items() for line in _part(family, question, part, pairs)
        ]
        waiting.extend(lines)
        if any(part.strict != default for part in parts):
            yield from waiting
            waiting.clear()


def _part(
    family: int,
    question: Question,
    part: _Part,
    pairs: dict[tuple[IPNetwork, IPNetwork], None],
) -> Iterator[str]:
    sources = [source for source, _ in pairs]
    destinations = [destination for _, destination in pairs]
    source_ports, destination_ports = part.source_ports, part.destination_ports
    if question.reverse:
        sources, destinations = destinations, sources
        source_ports, destination_ports = destination_ports, source_ports
    addresses = _addresses(family, sources, destinations)
    verdict = question.verdict(part.strict)
    any_port = source_ports == ANY_PORT and destination_ports == ANY_PORT
    protocols: tuple[int, ...] = (part.protocol,) if part.protocol is not None else ()
    if not any_port and not protocols:
        protocols = PORTED_PROTOCOLS
    yield _joined(
        addresses,
        f"meta l4proto {_set(protocols)}" if protocols else "",
        _ports("sport", source_ports),
        _ports("dport", destination_ports),
        verdict,
    )
    hidden = (() if any_port else protocols) + (EXTENSION_HEADERS if family == 6 else ())
    if part.strict and protocols and hidden:
        fragment = _NON_FIRST_FRAGMENT[family]
        yield _joined(addresses, fragment, f"meta l4proto {_set(hidden)}", verdict)


def _addresses(family: int, sources: list[IPNetwork], destinations: list[IPNetwork]) -> str:
    """The condition for a list of pairs, in which all sources and all destinations are as long."""
    few_sources, few_destinations = set(sources), set(destinations)
    if len(few_sources) * len(few_destinations) == len(sources):  # each with each
        return _joined(
            _one_side(family, "saddr", few_sources), _one_side(family, "daddr", few_destinations)
        )
    source = _masked(family, "saddr", sources[0].prefixlen)
    destination = _masked(family, "daddr", destinations[0].prefixlen)
    elements = ", ".join(
        f"{one.network_address} . {other.network_address}"
        for one, other in zip(sources, destinations, strict=True)
    )
    return f"{source} . {destination} {{ {elements} }}"


def _one_side(family: int, side: str, networks: set[IPNetwork]) -> str:
    first = next(iter(networks))
    if first.prefixlen == 0:
        return ""
    if len(networks) == 1:
        return f"{_WORDS[family]} {side} {first}"
    elements = ", ".join(str(network.network_address) for network in sorted(networks, key=_number))
    return f"{_masked(family, side, first.prefixlen)} {{ {elements} }}"


def _masked(family: int, side: str, length: int) -> str:
    if length == _WIDTHS[family]:
        return f"{_WORDS[family]} {side}"
    mask = (2**length - 1) << (_WIDTHS[family] - length)
    return f"{_WORDS[family]} {side} & {_address(family, mask)}"


def _address(family: int, number: int) -> str:
    return str(IPv4Address(number) if family == 4 else IPv6Address(number))


def _number(network: IPNetwork) -> int:
    return int(network.network_address)


def _ports(side: str, ports: PortRange) -> str:
    if ports == ANY_PORT:
        return ""
    if ports.first == ports.last:
        return f"th {side} {ports.first}"
    return f"th {side} {ports.first}-{ports.last}"


def _set(numbers: tuple[int, ...]) -> str:
    if len(numbers) == 1:
        return str(numbers[0])
    return "{ " + ", ".join(map(str, numbers)) + " }"


def _joined(*words: str) -> str:
    return " ".join(word for word in words if word)
