"""What other tables of this box make of packets that come out of a tunnel.  Pure.

Opportunistic traffic is no more special than clear traffic (draft section 1.2, RFC 4322 section
12.2), but it arrives by another interface: a firewall that names the outside interface and
not ours lets it by, or stops it, by accident.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from oegw.intercept.interface import InterceptSettings

_HOOKS = ("forward", "input")  # where what came out of the tunnel passes
_INTERFACE = ("iifname", "iif")

Statement = dict[str, Any]
SetName = tuple[str, str, str]  # family, table, set


@dataclass(frozen=True, slots=True)
class Gap:
    """A base chain that judges by an outside interface, and does not name the tunnel's."""

    family: str
    table: str
    chain: str
    hook: str
    named: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"chain {self.chain} of table {self.family} {self.table} ({self.hook}) names "
            f"{', '.join(self.named)} and not the tunnel's interface"
        )


@dataclass(slots=True)
class _Chain:
    hook: str = ""
    rules: list[list[Statement]] = field(default_factory=list)


class Ruleset:
    """The rules of all tables, as ``nft -j`` lists them.  Strange entries are passed over."""

    def __init__(self, listing: Any) -> None:
        self._chains: dict[tuple[str, str, str], _Chain] = {}
        self._sets: dict[SetName, list[str]] = {}
        entries = listing.get("nftables") if isinstance(listing, dict) else None
        for entry in entries if isinstance(entries, list) else ():
            for kind, body in entry.items() if isinstance(entry, dict) else ():
                if isinstance(body, dict):
                    self._take(kind, body)

    def _take(self, kind: str, body: Statement) -> None:
        family, table = str(body.get("family")), str(body.get("table"))
        match kind:
            case "chain":
                chain = self._chains.setdefault((family, table, str(body.get("name"))), _Chain())
                chain.hook = str(body.get("hook") or "")
            case "rule":
                name = family, table, str(body.get("chain"))
                statements = body.get("expr")
                if isinstance(statements, list):
                    rule = [each for each in statements if isinstance(each, dict)]
                    self._chains.setdefault(name, _Chain()).rules.append(rule)
            case "set" | "map":
                elements = body.get("elem")
                self._sets[family, table, str(body.get("name"))] = list(_texts(elements))

    def sets_of_interfaces(self) -> list[SetName]:
        """The named sets that rules compare an incoming interface with."""
        found: dict[SetName, None] = {}
        for (family, table, _), chain in self._chains.items():
            for rule in chain.rules:
                for word in _compared(rule):
                    if word.startswith("@"):
                        found[family, table, word[1:]] = None
        return list(found)

    def add_set(self, listing: Any) -> None:
        """The elements of one set, which a terse listing leaves out."""
        self._sets |= Ruleset(listing)._sets

    def gaps(self, settings: InterceptSettings) -> list[Gap]:
        """The base chains that let what comes out of a tunnel by, or stop it, unseen."""
        found = []
        for (family, table, name), chain in self._chains.items():
            if chain.hook not in _HOOKS or table == settings.table:
                continue
            rules = list(self._reachable(family, table, name))
            words = {
                word
                for rule in rules
                for text in _compared(rule)
                for word in (self._sets.get((family, table, text[1:]), ())
                             if text.startswith("@") else (text,))
            }  # fmt: skip
            named = tuple(o for o in settings.outside if _names(words, o))
            covered = _names(words, settings.tunnel_interface) or any(
                _looks_at(rule, settings.assurance_mask) for rule in rules
            )
            if named and not covered:
                found.append(Gap(family, table, name, chain.hook, named))
        return found

    def _reachable(self, family: str, table: str, first: str) -> Iterator[list[Statement]]:
        """The rules of a chain, and of those that it jumps to."""
        todo, seen = [first], {first}
        while todo:
            chain = self._chains.get((family, table, todo.pop()))
            for rule in chain.rules if chain else ():
                yield rule
                for target in _targets(rule):
                    if target not in seen:
                        seen.add(target)
                        todo.append(target)


def _names(words: Iterable[str], interface: str) -> bool:
    return any(word == interface or fnmatch.fnmatchcase(interface, word) for word in words)


def _compared(rule: list[Statement]) -> Iterator[str]:
    """What an incoming interface is compared with, in any statement of a rule."""
    for statement in rule:
        for body in statement.values():
            if not isinstance(body, dict):
                continue
            for asked, answers in (("left", "right"), ("key", "data")):
                if any(key in _INTERFACE for key in _metas(body.get(asked))):
                    yield from _texts(body.get(answers))


def _looks_at(rule: list[Statement], mask: int) -> bool:
    """Whether a rule asks for the bits of ``mask`` in the packet's mark."""
    for statement in rule:
        match statement.get("match"):
            case {"left": {"&": [{"meta": {"key": "mark"}}, int(asked)]}} if asked & mask == mask:
                return True
    return False


def _metas(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("meta"), dict):
            yield str(value["meta"].get("key"))
        for inner in value.values():
            yield from _metas(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _metas(inner)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key not in ("jump", "goto"):  # whose targets are no interfaces
                yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def _targets(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in ("jump", "goto") and isinstance(inner, dict):
                yield str(inner.get("target"))
            yield from _targets(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _targets(inner)
