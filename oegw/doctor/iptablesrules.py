"""The rules of iptables, as ``iptables-save`` lists them: filtering and marks.  Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from oegw.doctor.box import IptablesRule
from oegw.doctor.filtering import Action, Chain, ChainName, Condition, Key, Rule
from oegw.doctor.nftrules import MarkUse

_ALL_BITS = 0xFFFFFFFF
_TARGETS = {
    "ACCEPT": Action.ACCEPT,
    "DROP": Action.DROP,
    "REJECT": Action.DROP,
    "RETURN": Action.RETURN,
    "NFQUEUE": Action.MAYBE,
    "QUEUE": Action.MAYBE,
}
_NOT_TERMINAL = {"LOG", "NFLOG", "MARK", "CONNMARK", "TCPMSS", "CT", "AUDIT", "TRACE", "CLASSIFY"}
_HOOKS = {"INPUT": "input", "FORWARD": "forward"}
_OPTIONS = {
    "-i": Key.IN,
    "-o": Key.OUT,
    "-p": Key.PROTOCOL,
    "--dport": Key.PORT,
    "--dports": Key.PORT,
    "--ctstate": Key.STATE,
    "--state": Key.STATE,
    "-s": Key.STRANGER,
    "--icmp-type": Key.ICMP,
    "--icmpv6-type": Key.ICMP,
}
_ICMP = {
    "3": "destination-unreachable",
    "3/4": "destination-unreachable",
    "fragmentation-needed": "destination-unreachable",
    "2": "packet-too-big",
}


class Iptables:
    """Of one program: its rules, and the policies of its chains."""

    def __init__(self, program: str, listing: str) -> None:
        self.program = program
        self.rules: list[IptablesRule] = []
        self.policies: dict[tuple[str, str], str] = {}
        table = ""
        for line in listing.splitlines():
            if line.startswith("*"):
                table = line[1:].strip()
            elif line.startswith(":"):
                chain, policy, *_ = line[1:].split()
                self.policies[table, chain] = policy
            elif line.startswith("-A "):
                _, chain, *words = shlex.split(line)
                self.rules.append(IptablesRule(program, table, chain, tuple(words)))

    def chains(self) -> dict[ChainName, Chain]:
        """What filters."""
        rules: dict[str, list[Rule]] = {}
        for each in self.rules:
            if each.table == "filter":
                rules.setdefault(each.chain, []).append(_rule(each.words))
        family = "ip6" if self.program.startswith("ip6") else "ip"
        found = {}
        for (table, chain), policy in self.policies.items():
            if table == "filter":
                name = ChainName(self.program, family, table, chain)
                dropped = Action.DROP if policy == "DROP" else Action.ACCEPT
                hook = _HOOKS.get(chain, "")
                found[name] = Chain(name, hook, dropped, tuple(rules.get(chain, ())))
        return found

    def marks(self, comment: str) -> Iterator[MarkUse]:
        """Of all rules but ours, which carry ``comment``."""
        for each in self.rules:
            if comment in each.words:
                continue
            for bits, sets in _marks(each.words):
                chain = f"{self.program} -t {each.table}"
                who = f"{chain} -A {each.chain} {shlex.join(each.words)}"
                yield MarkUse(who, bits, sets, f"{chain} -S {each.chain}")


def _marks(words: Sequence[str]) -> Iterator[tuple[int, bool]]:
    pairs = dict(_pairs(words))
    for option, value in pairs.items():
        match option:
            case "--mark":
                yield _mask(value), False
            case "--set-xmark" | "--set-mark":
                yield _mask(value), True
            case "--or-mark" | "--xor-mark":
                yield int(value, 0), True
            case "--and-mark":
                yield _ALL_BITS ^ int(value, 0), True
            case "--restore-mark":
                yield int(pairs.get("--nfmask", hex(_ALL_BITS)), 0), True


def _pairs(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    return zip(words, (*words[1:], ""), strict=True)


def _mask(text: str) -> int:
    _, slash, mask = text.partition("/")
    return int(mask, 0) if slash else _ALL_BITS


def _rule(words: tuple[str, ...]) -> Rule:
    conditions: list[Condition] = []
    negated = False
    position = 0
    while position < len(words):
        word = words[position]
        value = words[position + 1] if position + 1 < len(words) else ""
        position += 2
        if word == "!":
            negated = True
            position -= 1
            continue
        if word in ("-j", "-g"):
            return Rule(tuple(conditions), *_target(word, value))
        if word in ("-m", "--comment"):
            continue
        key = _OPTIONS.get(word)
        if key is None:
            conditions.append(Condition(Key.UNKNOWN))
            position -= value.startswith("-")
        else:
            conditions.append(Condition(key, _words(key, value), negated))
        negated = False
    return Rule(tuple(conditions), Action.NONE)


def _target(word: str, value: str) -> tuple[Action, str]:
    if value in _TARGETS:
        return _TARGETS[value], ""
    if value in _NOT_TERMINAL:
        return Action.NONE, ""
    return (Action.JUMP if word == "-j" else Action.GOTO), value


def _words(key: Key, value: str) -> tuple[str, ...]:
    if key in (Key.IN, Key.OUT):
        return (value.replace("+", "*"),)
    values = tuple(value.lower().split(","))
    match key:
        case Key.PORT:
            return tuple(each.replace(":", "-") for each in values)
        case Key.PROTOCOL:
            return tuple("icmpv6" if each == "ipv6-icmp" else each for each in values)
        case Key.ICMP:
            return tuple(_ICMP.get(each, each) for each in values)
        case _:
            return values
