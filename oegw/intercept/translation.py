"""The part of the table about translated sources.  Pure: translations and policy in, text out.

The kernel translates in postrouting, after everything here has decided.  So a chain that asks the
policy comes in three: for a source that is translated it asks with the address that the source
will have; for all others, and for what a configured rule claims as it is, with that of the packet.

    guard4         -> configured, as it is? goto guard4_asis
                   -> source inside?        goto guard4_nat0
                   -> goto guard4_asis
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from oegw.intercept.order import Question, ordered_chain
from oegw.nat import Translation
from policy.flow import IPNetwork
from policy.order import Exemption
from policy.rule import Category, Rule
from policy.table import Group, PolicyTable

# Our choice: just before the priorities of source NAT (100) and destination NAT (-100), so that
# rules of the user's that translate whatever leaves do not see what enters the tunnel.
_SOURCE_NAT = 99
_DESTINATION_NAT = -101
_BEHIND_DESTINATION_NAT = -90

STRAYS = "unasked_dropped"

_WORDS = {4: "ip", 6: "ip6"}
_ANY: dict[int, IPNetwork] = {4: IPv4Network("0.0.0.0/0"), 6: IPv6Network("::/0")}


@dataclass(frozen=True, slots=True)
class _Outward:
    """The policy as hosts behind a translation meet it: sources are those before it."""

    table: PolicyTable
    by: Translation

    @property
    def default(self) -> Rule:
        return self.table.default

    def groups(self, family: int) -> Iterator[Group]:
        for group in self.table.groups(family):
            if group.order.exemption is Exemption.MANAGEMENT:
                continue  # it is the box itself that is managed, not those who share its address
            yield Group(group.order, list(self._entries(group)))

    def _entries(self, group: Group) -> Iterator[tuple[IPNetwork, IPNetwork, Rule]]:
        for source, destination, rule in group.entries:
            inward = self.by.inward(source)
            if inward == self.by.inside:  # all of them, and no other source comes here
                yield _ANY[source.version], destination, rule
            elif inward is not None:
                yield inward, destination, rule


def asking_chains(
    name: str,
    table: PolicyTable,
    family: int,
    question: Question,
    translations: tuple[Translation, ...],
) -> str:
    """The chain ``name`` that asks the policy about packets on their way out."""
    mine = _of_family(translations, family)
    if not mine:
        return ordered_chain(name, table, family, question)
    lines = []
    chains = ordered_chain(_as_is(name), table, family, question)
    claims = Question(_is_configured, f"goto {_as_is(name)}", "return")
    chains += ordered_chain(_claims(name), table, family, claims)
    lines.append(f"{_from_inside(family, mine.values())} jump {_claims(name)}")
    for number, by in mine.items():
        view = _Outward(table, by)
        chains += ordered_chain(_behind(name, number), view, family, question)
        lines.append(f"{_WORDS[family]} saddr {by.inside} goto {_behind(name, number)}")
    lines.append(f"goto {_as_is(name)}")
    return chains + _chain(name, lines)


def asking_names(name: str, family: int, translations: tuple[Translation, ...]) -> list[str]:
    """The chains that ``asking_chains`` makes, so that they can be made anew."""
    mine = _of_family(translations, family)
    if not mine:
        return [name]
    return [name, _as_is(name), _claims(name), *(_behind(name, number) for number in mine)]


def translating_chains(table: PolicyTable, translations: tuple[Translation, ...]) -> str:
    """What is translated as it enters the tunnel: the part that the policy decides."""
    text = ""
    for family, mine in _by_family(translations):
        claims = Question(_is_configured, "accept", "return")
        text += ordered_chain(f"translate{family}_claims", table, family, claims)
        inside = _from_inside(family, mine.values())
        lines = [f"{inside} jump translate{family}_claims", *map(_source_nat, mine.values())]
        text += _chain(f"translate{family}", lines)
    return text


def translating_names(translations: tuple[Translation, ...]) -> list[str]:
    """The chains of ``translating_chains``."""
    families = [family for family, _ in _by_family(translations)]
    return [f"translate{f}{part}" for f in families for part in ("", "_claims")]


def translating_hooks(tunnel_interface: str, translations: tuple[Translation, ...]) -> str:
    """Where what enters the tunnel is translated, and what comes out of it back.

    Answers are for conntrack; only where each host has an address of its own can one be begun
    from the other side.
    """
    if not translations:
        return ""
    families = {4: "meta nfproto ipv4", 6: "meta nfproto ipv6"}
    outward = [
        f"type nat hook postrouting priority {_SOURCE_NAT}; policy accept;",
        f'oifname != "{tunnel_interface}" accept',
        *(f"{families[family]} jump translate{family}" for family, _ in _by_family(translations)),
    ]
    text = _chain("translate_out", outward)
    backward = [_destination_nat(by) for by in translations if not by.shared]
    if backward:
        hook = f"type nat hook prerouting priority {_DESTINATION_NAT}; policy accept;"
        passing = f'iifname != "{tunnel_interface}" accept'
        text += _chain("translate_in", [hook, passing, *backward])
    shared = [by for by in translations if by.shared]
    if shared:
        hook = f"type filter hook prerouting priority {_BEHIND_DESTINATION_NAT}; policy accept;"
        passing = f'iifname != "{tunnel_interface}" accept'
        text += _chain("translate_strays", [hook, passing, *map(_stray, shared)])
    return text


def _stray(by: Translation) -> str:
    """Out of the tunnel, for a shared address, and no host behind it asked for it.

    If the address is none of this box's, the packet would go on to who has it, in clear.
    """
    address = f"{_WORDS[by.outside.version]} daddr {by.outside.network_address}"
    return f"{address} fib daddr type != local counter name {STRAYS} drop"


def _source_nat(by: Translation) -> str:
    word = _WORDS[by.inside.version]
    if by.shared or by.inside.prefixlen == by.inside.max_prefixlen:
        target = f"snat {word} to {by.outside.network_address}"
    else:
        target = f"snat {word} prefix to {word} saddr map {{ {by.inside} : {by.outside} }}"
    return f"{word} saddr {by.inside} {target}"


def _destination_nat(by: Translation) -> str:
    word = _WORDS[by.inside.version]
    if by.inside.prefixlen == by.inside.max_prefixlen:
        target = f"dnat {word} to {by.inside.network_address}"
    else:
        target = f"dnat {word} prefix to {word} daddr map {{ {by.outside} : {by.inside} }}"
    return f"{word} daddr {by.outside} {target}"


def _is_configured(rule: Rule) -> bool:
    return rule.category is Category.CONFIGURED


def _of_family(translations: tuple[Translation, ...], family: int) -> dict[int, Translation]:
    return {n: by for n, by in enumerate(translations) if by.inside.version == family}


def _by_family(
    translations: tuple[Translation, ...],
) -> Iterator[tuple[int, dict[int, Translation]]]:
    for family in _WORDS:
        if mine := _of_family(translations, family):
            yield family, mine


def _from_inside(family: int, mine: Iterable[Translation]) -> str:
    return f"{_WORDS[family]} saddr {{ {', '.join(str(by.inside) for by in mine)} }}"


def _as_is(name: str) -> str:
    return f"{name}_asis"


def _claims(name: str) -> str:
    return f"{name}_claims"


def _behind(name: str, number: int) -> str:
    return f"{name}_nat{number}"


def _chain(name: str, lines: Iterable[str]) -> str:
    body = "".join(f"    {line}\n" for line in lines)
    return f"  chain {name} {{\n{body}  }}\n"
