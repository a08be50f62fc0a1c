"""Decision points: sources of policy elsewhere, what is asked of them, and what their word counts.

Pure: the shell is `decisionpoint`.  The question and the reply are JSON and documented in
`docs/decision-points.md`.  All points are asked at the same time and waited for (draft section
5.4); then the first in the file that has an opinion wins, and else the local rule.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

from policy.rule import ANY_PORT, Category, OnFailure, PortRange, Require, Rule, SstStrength

VERSION = 1

# Our choices.
LONGEST_REPLY = 16384  # octets
LONGEST_REASON = 200  # characters that we keep of a reply's
DEFAULT_TTL = 60.0  # seconds
AFTER_FAILURE = 10.0  # seconds for which a failure that denies is good
CACHED = 8192  # opinions of all points

WordT = TypeVar("WordT")


class PointError(OSError):
    """A point can't be asked at all; the message names it and says why."""


class Role(Enum):
    """Who began: we for a packet that was trapped, or a peer."""

    INITIATOR = "initiator"
    RESPONDER = "responder"


class OnTimeout(Enum):
    """What it counts that a point gave no usable answer."""

    LOCAL = "local"  # as if it had no opinion
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class DecisionPoint:
    """One point as configured.  ``timeout`` and ``longest_ttl`` are in seconds."""

    name: str
    url: str
    timeout: float = 2.0
    on_timeout: OnTimeout = OnTimeout.LOCAL
    longest_ttl: float = 3600.0
    ca: Path | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be decided: all that one connection covers, seen from our side.

    ``protocol`` of None: any.  ``identity`` and ``gateway``: of the peer, where it is known.
    """

    role: Role
    rule: str
    local: str
    remote: str
    protocol: int | None
    local_ports: PortRange
    remote_ports: PortRange
    identity: str | None = None
    gateway: str | None = None

    def document(self) -> dict[str, Any]:
        """The JSON object that is sent."""
        peer = None
        if self.identity is not None:
            peer = {"identity": self.identity, "address": self.gateway}
        return {
            "version": VERSION,
            "role": self.role.value,
            "rule": self.rule,
            "local": self.local,
            "remote": self.remote,
            "protocol": self.protocol,
            "local_ports": _ports(self.local_ports),
            "remote_ports": _ports(self.remote_ports),
            "peer": peer,
        }


def _ports(ports: PortRange) -> list[int] | None:
    return None if ports == ANY_PORT else [ports.first, ports.last]


# ------------------------------------------------------------------------- replies


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a point says.  ``category`` of None: nothing; None elsewhere: as the rule says.

    ``ttl``: seconds for which it holds.
    """

    category: Category | None
    on_failure: OnFailure | None = None
    require: Require | None = None
    initiate: bool | None = None
    icmp: bool = False
    ttl: float = DEFAULT_TTL
    reason: str = ""


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """A point gave no usable answer.  ``trigger`` names why, for the counter."""

    trigger: str
    detail: str = ""


Reply = Opinion | NoAnswer
Replies = tuple[tuple[DecisionPoint, Reply], ...]
"""Of all points, in the order of the file."""


class MalformedReply(Exception):  # noqa: N818  (it names the fact)
    """What a point sent is no reply of this version; the message says why."""


_CATEGORIES = {
    "permit": Category.PERMIT,
    "deny": Category.DENY,
    "opportunistic": Category.OPPORTUNISTIC,
    "none": None,
}
_BELONGS = {  # which further words belong to which decision
    "on_failure": "opportunistic",
    "require": "opportunistic",
    "initiate": "opportunistic",
    "icmp": "deny",
}


def parse_opinion(octets: bytes, longest_ttl: float) -> Opinion:
    """Read a reply.  Raises MalformedReply.

    Keys that this version does not know are passed over; a known one with a wrong value, or one
    that does not belong to the decision, makes the whole reply void.
    """
    if len(octets) > LONGEST_REPLY:
        raise MalformedReply(f"longer than {LONGEST_REPLY} octets")
    try:
        document = json.loads(octets.decode("utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise MalformedReply(f"no JSON: {type(error).__name__}") from None
    if not isinstance(document, dict):
        raise MalformedReply("no JSON object")
    version = document.get("version")
    if type(version) is not int or version != VERSION:
        raise MalformedReply(f"version is not {VERSION}")
    word = document.get("decision")
    if not isinstance(word, str) or word not in _CATEGORIES:
        raise MalformedReply("decision is not one of permit, deny, opportunistic, none")
    for key, owner in _BELONGS.items():
        if key in document and word != owner:
            raise MalformedReply(f"{key} belongs to decision {owner} only")
    ttl = document.get("ttl", DEFAULT_TTL)
    if isinstance(ttl, bool) or not isinstance(ttl, int | float) or not 0 <= ttl < 1e9:
        raise MalformedReply("ttl is not a number of seconds")
    reason = document.get("reason", "")
    if not isinstance(reason, str):
        raise MalformedReply("reason is not text")
    icmp = _truth(document, "icmp")
    return Opinion(
        _CATEGORIES[word],
        _word(document, "on_failure", {each.value: each for each in OnFailure}),
        _word(document, "require", {each.value: each for each in Require}),
        _truth(document, "initiate"),
        bool(icmp),
        min(max(float(ttl), 1.0), longest_ttl),
        "".join(c if c.isprintable() else "?" for c in reason[:LONGEST_REASON]),
    )


def _no_number(word: str) -> None:
    raise ValueError(word)  # NaN and Infinity are not JSON


def _word(document: dict[str, Any], key: str, words: dict[str, WordT]) -> WordT | None:
    if key not in document:
        return None
    word = document[key]
    if not isinstance(word, str) or word not in words:
        raise MalformedReply(f"{key} is not one of {', '.join(words)}")
    return words[word]


def _truth(document: dict[str, Any], key: str) -> bool | None:
    value = document.get(key)
    if key in document and not isinstance(value, bool):
        raise MalformedReply(f"{key} is neither true nor false")
    return value


# ------------------------------------------------------------------- what it counts


@dataclass(frozen=True, slots=True)
class Ruling:
    """What holds for a connection.

    ``rule``: the local rule as it was changed; ``category``: what is done, which need not be the
    rule's; ``point``: who decided, None if it was the local rule; ``overruled``: what of an
    opinion was not followed, and why.  ``ttl`` of None: no limit but those of the rule.
    """

    rule: Rule
    category: Category = Category.OPPORTUNISTIC
    point: str | None = None
    reason: str = ""
    ttl: float | None = None
    overruled: str = ""


def ruling(rule: Rule, replies: Replies) -> Ruling:
    """What the replies make of an opportunistic rule: the first opinion, else the rule itself.

    No opinion lets out in clear what the rule protects (``on_failure`` "drop"), or has a tunnel
    begun without the DNSSEC that it requires, unless the rule says ``relax``.  No point is asked
    about other than opportunistic rules.
    """
    for point, reply in replies:
        opinion = reply
        if isinstance(reply, NoAnswer):
            if point.on_timeout is OnTimeout.LOCAL:
                continue
            said = f"no answer: {reply.trigger}"
            opinion = Opinion(Category.DENY, ttl=AFTER_FAILURE, reason=said)
        assert isinstance(opinion, Opinion)
        if opinion.category is not None:
            return _followed(rule, point.name, opinion)
    return Ruling(rule)


def _followed(rule: Rule, point: str, opinion: Opinion) -> Ruling:
    strict = not rule.relax
    protected = strict and rule.on_failure is OnFailure.DROP
    match opinion.category:
        case Category.PERMIT if strict and rule.protected:
            return Ruling(rule, overruled=f"{point}: permit, but rule {rule.name!r} does not relax")
        case Category.PERMIT:
            unbound = SstStrength.OPPORTUNISTIC
            changed = replace(rule, on_failure=OnFailure.CLEAR, sst_strength=unbound)
            return Ruling(changed, Category.PERMIT, point, opinion.reason, opinion.ttl)
        case Category.DENY:
            changed = replace(rule, icmp=opinion.icmp)
            return Ruling(changed, Category.DENY, point, opinion.reason, opinion.ttl)
    overruled = []
    on_failure = rule.on_failure if opinion.on_failure is None else opinion.on_failure
    if protected and on_failure is OnFailure.CLEAR:
        on_failure = OnFailure.DROP
        overruled.append("on_failure clear")
    require = rule.require if opinion.require is None else opinion.require
    if strict and rule.require is Require.SECURE and require is not Require.SECURE:
        require = Require.SECURE
        overruled.append(f"require {Require.ANY.value}")
    initiate = rule.initiate and opinion.initiate is not False
    changed = replace(rule, on_failure=on_failure, require=require, initiate=initiate)
    said = f"{point}: {', '.join(overruled)}, but rule {rule.name!r} does not relax"
    return Ruling(
        changed,
        Category.OPPORTUNISTIC,
        point,
        opinion.reason,
        opinion.ttl,
        said if overruled else "",
    )


# --------------------------------------------------------------------------- cache


class OpinionCache:
    """Opinions as long as they are good; the oldest goes when it is full."""

    def __init__(self, limit: int = CACHED) -> None:
        self._limit = limit
        self._opinions: dict[tuple[str, Question], tuple[float, Opinion]] = {}

    def __len__(self) -> int:
        return len(self._opinions)

    def find(self, point: str, question: Question, now: float) -> Opinion | None:
        """A point's opinion that is still good, with what is left of its time."""
        expires, opinion = self._opinions.get((point, question), (now, None))
        if opinion is None:
            return None
        if expires <= now:
            del self._opinions[point, question]
            return None
        return replace(opinion, ttl=expires - now)

    def keep(self, point: str, question: Question, opinion: Opinion, now: float) -> None:
        self._opinions.pop((point, question), None)
        self._opinions[point, question] = now + opinion.ttl, opinion
        if len(self._opinions) > self._limit:
            del self._opinions[next(iter(self._opinions))]

    def clear(self) -> None:
        self._opinions.clear()
