"""The rules of nftables, as ``nft -j`` lists them: their filtering, marks, flow tables.  Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from oegw.doctor.filtering import Action, Chain, ChainName, Condition, Key, Rule

Statement = dict[str, Any]

# What iptables made has these chains.
_BUILTIN = {"INPUT", "FORWARD", "OUTPUT", "PREROUTING", "POSTROUTING"}

_ALL_BITS = 0xFFFFFFFF
_PROTOCOLS = {
    "6": "tcp", "17": "udp", "50": "esp", "1": "icmp", "58": "icmpv6", "ipv6-icmp": "icmpv6",
}  # fmt: skip
_VERDICTS = {
    "accept": Action.ACCEPT,
    "drop": Action.DROP,
    "reject": Action.DROP,
    "return": Action.RETURN,
    "jump": Action.JUMP,
    "goto": Action.GOTO,
    "vmap": Action.MAYBE,
    "queue": Action.MAYBE,
}
_UNJUDGED = ("limit", "quota", "ct count", "meter", "connlimit")


@dataclass(frozen=True, slots=True)
class MarkUse:
    """Somebody's rule that looks at bits of packet marks, or ``sets`` them.

    ``shown_by``: the command by which one sees, or changes, it.
    """

    who: str
    bits: int
    sets: bool
    shown_by: str = ""


@dataclass(frozen=True, slots=True)
class FlowRule:
    """A rule that hands flows to a flow table, past all hooks."""

    name: ChainName
    place: int
    table: str


class NftRules:
    """A listing of all tables; strange entries are passed over."""

    def __init__(self, listing: Any) -> None:
        self.tables: set[tuple[str, str]] = set()
        self._heads: dict[ChainName, dict[str, Any]] = {}
        self._rules: dict[ChainName, list[tuple[int, list[Statement]]]] = {}
        entries = listing.get("nftables") if isinstance(listing, dict) else None
        for entry in entries if isinstance(entries, list) else ():
            for kind, body in entry.items() if isinstance(entry, dict) else ():
                if isinstance(body, dict):
                    self._take(kind, body)
        self._of_iptables = {
            (name.family, name.table)
            for name in self._heads
            if name.family != "inet" and name.chain in _BUILTIN
        }

    def _take(self, kind: str, body: Statement) -> None:
        family = str(body.get("family"))
        if kind == "table":
            self.tables.add((family, str(body.get("name"))))
        elif kind == "chain":
            name = ChainName("nft", family, str(body.get("table")), str(body.get("name")))
            self._heads[name] = body
        elif kind == "rule":
            name = ChainName("nft", family, str(body.get("table")), str(body.get("chain")))
            statements = body.get("expr")
            if isinstance(statements, list):
                rule = [each for each in statements if isinstance(each, dict)]
                self._rules.setdefault(name, []).append((int(body.get("handle") or 0), rule))

    def names_interface(self, table: tuple[str, str], interface: str) -> bool:
        """Whether any rule of a table names it."""
        return any(
            interface in _words(rule)
            for name, rules in self._rules.items()
            if (name.family, name.table) == table
            for _, rule in rules
        )

    def chains_of(self, table: tuple[str, str]) -> set[str]:
        return {name.chain for name in self._heads if (name.family, name.table) == table}

    def chains(self, own: str) -> dict[ChainName, Chain]:
        """The filtering of all tables but ours and iptables'.

        What iptables made is read from iptables itself: nft does not show all that it says.
        """
        return {
            name: Chain(
                name,
                str(head.get("hook") or ""),
                Action.DROP if head.get("policy") == "drop" else Action.ACCEPT,
                tuple(_rule(place, rule) for place, rule in self._rules.get(name, ())),
            )
            for name, head in self._heads.items()
            if self._foreign(name, own)
            and (head.get("type") in ("filter", None) or not head.get("hook"))
        }

    def _foreign(self, name: ChainName, own: str) -> bool:
        ours = name.family == "inet" and name.table.partition("_")[0] == own
        return not ours and (name.family, name.table) not in self._of_iptables

    def marks(self, own: str) -> Iterator[MarkUse]:
        for name, rules in self._rules.items():
            if self._foreign(name, own):
                for place, rule in rules:
                    who = f"{name}, rule {place}"
                    for bits, sets in _marks(rule):
                        place_of = f"{name.family} {name.table} {name.chain}"
                        yield MarkUse(who, bits, sets, f"nft -a list chain {place_of}")

    def flow_rules(self) -> Iterator[FlowRule]:
        for name, rules in self._rules.items():
            for place, rule in rules:
                for statement in rule:
                    if isinstance(flow := statement.get("flow"), dict):
                        yield FlowRule(name, place, str(flow.get("flowtable", "")).lstrip("@"))


def _rule(place: int, statements: list[Statement]) -> Rule:
    conditions: list[Condition] = []
    for statement in statements:
        for word, body in statement.items():
            if word == "match" and isinstance(body, dict):
                conditions += _conditions(body)
            elif word in _UNJUDGED or (word == "xt" and body.get("type") == "match"):
                conditions.append(Condition(Key.UNKNOWN))
            elif word in _VERDICTS:
                target = str(body.get("target", "")) if isinstance(body, dict) else ""
                return Rule(tuple(conditions), _VERDICTS[word], target, place)
    return Rule(tuple(conditions), Action.NONE, place=place)


def _conditions(match: Statement) -> Iterator[Condition]:
    """Of one comparison: a port says its protocol, too."""
    operator = match.get("op", "==")
    values = _values(match.get("right"))
    negated = operator == "!="
    if operator not in ("==", "!=", "in") or values is None:
        yield Condition(Key.UNKNOWN)
        return
    match match.get("left"):
        case {"meta": {"key": "iifname" | "iif"}}:
            yield Condition(Key.IN, values, negated)
        case {"meta": {"key": "oifname" | "oif"}}:
            yield Condition(Key.OUT, values, negated)
        case {"meta": {"key": "nfproto"}}:
            versions = tuple({"ipv4": "4", "ipv6": "6"}.get(each, each) for each in values)
            yield Condition(Key.VERSION, versions, negated)
        case (
            {"meta": {"key": "l4proto"}}
            | {"payload": {"protocol": "ip", "field": "protocol"}}
            | {"payload": {"protocol": "ip6", "field": "nexthdr"}}
        ):
            yield Condition(Key.PROTOCOL, tuple(_PROTOCOLS.get(v, v) for v in values), negated)
        case {"payload": {"protocol": "udp" | "tcp" | "sctp" as protocol, "field": "dport"}}:
            yield Condition(Key.PROTOCOL, (protocol,))
            yield Condition(Key.PORT, values, negated)
        case {"payload": {"protocol": "th", "field": "dport"}}:
            yield Condition(Key.PORT, values, negated)
        case {"payload": {"protocol": "icmp" | "icmpv6" as protocol, "field": "type"}}:
            yield Condition(Key.PROTOCOL, (protocol,))
            yield Condition(Key.ICMP, values, negated)
        case {"payload": {"protocol": "udp" | "tcp" | "sctp" | "icmp" | "icmpv6" as protocol}}:
            yield Condition(Key.PROTOCOL, (protocol,))
            yield Condition(Key.UNKNOWN)
        case {"payload": {"protocol": "ip" | "ip6" as family, "field": "saddr"}}:
            yield Condition(Key.VERSION, ("4" if family == "ip" else "6",))
            yield Condition(Key.STRANGER, values, negated)
        case {"ct": {"key": "state"}}:
            yield Condition(Key.STATE, values, negated)
        case _:
            yield Condition(Key.UNKNOWN)


def _values(right: Any) -> tuple[str, ...] | None:
    """As words; None for what only the kernel knows, as named sets."""
    if isinstance(right, str | int) and not isinstance(right, bool):
        return None if str(right).startswith("@") else (str(right),)
    if isinstance(right, dict):
        match right:
            case {"set": list(members)} | {"|": list(members)}:
                right = members
            case {"range": [first, last]}:
                return (f"{first}-{last}",)
            case {"prefix": {"addr": address, "len": length}}:
                return (f"{address}/{length}",)
            case _:
                return None
    if isinstance(right, list):
        found = [_values(each) for each in right]
        return tuple(word for each in found for word in each or ()) if None not in found else None
    return None


def _marks(rule: list[Statement]) -> Iterator[tuple[int, bool]]:
    for statement in rule:
        match statement:
            case {"match": {"left": {"&": [{"meta": {"key": "mark"}}, int(bits)]}}}:
                yield bits, False
            case {"match": {"left": {"meta": {"key": "mark"}}}}:
                yield _ALL_BITS, False
            case {"mangle": {"key": {"meta": {"key": "mark"}}, "value": value}}:
                yield _changed(value), True


def _changed(value: Any) -> int:
    """The bits of the mark that an assignment to it may change."""
    match value:
        case {"meta": {"key": "mark"}}:
            return 0
        case {"&": [inner, int(kept)]}:
            return _changed(inner) | (_ALL_BITS ^ kept)
        case {"|": [inner, int(bits)]} | {"^": [inner, int(bits)]}:
            return _changed(inner) | bits
    return _ALL_BITS


def _words(value: Any) -> set[str]:
    if isinstance(value, str):
        return {value}
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return {word for each in inner for word in _words(each)}
