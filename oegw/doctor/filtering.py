"""Would a firewall of this box let a packet pass?  Rules of whatever language, and one packet.

Pure.  A condition that can't be judged from what is known of the packet may hold or not; a packet
counts as dropped only if it is dropped either way.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum


class Action(Enum):
    ACCEPT = "accept"
    DROP = "drop"
    JUMP = "jump"
    GOTO = "goto"
    RETURN = "return"
    MAYBE = "maybe"  # it depends on what is not known here
    NONE = "none"  # counts, logs, marks


class Key(Enum):
    """What a condition is about."""

    IN = "in"
    OUT = "out"
    VERSION = "version"
    PROTOCOL = "protocol"
    PORT = "port"  # of the destination
    ICMP = "icmp"
    STATE = "state"
    STRANGER = "stranger"  # an address of the far side: a packet of anybody has another one
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Condition:
    """``values``: words, of which one must fit; interfaces may be patterns, ports ranges."""

    key: Key
    values: tuple[str, ...] = ()
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """``target``: the chain of a jump.  ``place``: a handle of nft's; ``words``: of iptables."""

    conditions: tuple[Condition, ...]
    action: Action
    target: str = ""
    place: int = 0


@dataclass(frozen=True, slots=True)
class ChainName:
    """``program`` is ``"nft"``, or the one of the iptables that changes it."""

    program: str
    family: str
    table: str
    chain: str

    def __str__(self) -> str:
        if self.program == "nft":
            return f"chain {self.chain} of table {self.family} {self.table}"
        return f"{self.program}'s chain {self.chain}"


@dataclass(frozen=True, slots=True)
class Chain:
    """``hook`` is empty for chains that are only jumped to."""

    name: ChainName
    hook: str = ""
    policy: Action = Action.ACCEPT
    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True)
class Packet:
    """``state``: what connection tracking says of it."""

    version: int
    protocol: str
    incoming: str = ""
    outgoing: str = ""
    port: int | None = None
    icmp: str = ""
    state: str = "new"


Chains = Mapping[ChainName, Chain]

_DEEPEST = 32  # our choice: more jumps than the kernel takes


class _Fate(Enum):
    PASSES = 1
    DROPPED = 2
    RETURNED = 3


def dropping(chains: Chains, hook: str, packet: Packet) -> Iterator[Chain]:
    """The base chains that drop the packet, whatever is not known of it."""
    for chain in chains.values():
        if chain.hook != hook or not _is_of(chain.name.family, packet.version):
            continue
        fate = _walk(chains, chain, packet, 0)
        if fate is _Fate.RETURNED:
            fate = _Fate.DROPPED if chain.policy is Action.DROP else _Fate.PASSES
        if fate is _Fate.DROPPED:
            yield chain


def _is_of(family: str, version: int) -> bool:
    return family in ("inet", "ip" if version == 4 else "ip6")


def _walk(chains: Chains, chain: Chain, packet: Packet, depth: int) -> _Fate:
    for rule in chain.rules:
        holds = _all_hold(rule.conditions, packet)
        if holds is False:
            continue
        match rule.action:
            case Action.ACCEPT | Action.MAYBE:
                return _Fate.PASSES
            case Action.DROP if holds:
                return _Fate.DROPPED
            case Action.RETURN if holds:
                return _Fate.RETURNED
            case Action.JUMP | Action.GOTO:
                name = ChainName(
                    chain.name.program, chain.name.family, chain.name.table, rule.target
                )
                if name not in chains or depth == _DEEPEST:
                    continue
                fate = _walk(chains, chains[name], packet, depth + 1)
                if fate is _Fate.PASSES or (holds and fate is _Fate.DROPPED):
                    return fate
                if rule.action is Action.GOTO and holds:
                    return _Fate.RETURNED
    return _Fate.RETURNED


def _all_hold(conditions: tuple[Condition, ...], packet: Packet) -> bool | None:
    """None: perhaps."""
    certain = True
    for condition in conditions:
        holds = _holds(condition, packet)
        if holds is False:
            return False
        certain = certain and holds is True
    return True if certain else None


def _holds(condition: Condition, packet: Packet) -> bool | None:
    values = condition.values
    match condition.key:
        case Key.IN:
            fits = any(fnmatch.fnmatchcase(packet.incoming, value) for value in values)
        case Key.OUT:
            fits = any(fnmatch.fnmatchcase(packet.outgoing, value) for value in values)
        case Key.VERSION:
            fits = str(packet.version) in values
        case Key.PROTOCOL:
            fits = packet.protocol in values
        case Key.PORT:
            fits = packet.port is not None and any(_within(packet.port, each) for each in values)
        case Key.ICMP:
            fits = packet.icmp in values
        case Key.STATE:
            fits = packet.state in values
        case Key.STRANGER:
            fits = False
        case _:
            return None
    return fits != condition.negated


def _within(port: int, text: str) -> bool:
    first, _, last = text.partition("-")
    if not first.isdigit():
        return False
    return int(first) <= port <= int(last or first)
