"""Reads the nft rules that oegw/intercept/order.py writes, and follows a packet through them."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_address, ip_network

from policy.flow import Flow

_SIDE = r"ip6? (?P<side{n}>[sd]addr)(?: & (?P<mask{n}>\S+))?"
_PAIR = re.compile(_SIDE.format(n=1) + r" \. " + _SIDE.format(n=2) + r" \{ (?P<elements>.*?) \}")
_LIST = re.compile(_SIDE.format(n=1) + r" \{ (?P<elements>.*?) \}")
_NETWORK = re.compile(r"ip6? (?P<side>[sd]addr) (?P<network>\S+)")
_PROTOCOL = re.compile(r"meta l4proto (?:\{ (?P<several>.*?) \}|(?P<one>\d+))")
_PORTS = re.compile(r"th (?P<side>[sd]port) (?P<first>\d+)(?:-(?P<last>\d+))?")
_FRAGMENT = re.compile(r"ip frag-off & 0x1fff != 0|frag frag-off != 0")
_VERDICT = re.compile(r"accept|return|goto \w+")

Condition = Callable[[Flow], bool]


def verdict_of(chain: str) -> Callable[[Flow], str]:
    """The verdict that a chain has for a packet."""
    rules = [_rule(line.strip()) for line in chain.splitlines()[1:-1]]

    def follow(flow: Flow) -> str:
        return next(
            verdict for conditions, verdict in rules if all(holds(flow) for holds in conditions)
        )

    return follow


def _rule(line: str) -> tuple[list[Condition], str]:
    conditions: list[Condition] = []
    rest = line
    while True:
        for pattern, condition in _READERS:
            if match := pattern.match(rest):
                conditions.append(condition(match))
                rest = rest[match.end() :].strip()
                break
        else:
            assert _VERDICT.fullmatch(rest), f"what is {rest!r} in {line!r}?"
            return conditions, rest


def _side(flow: Flow, side: str, mask: str | None) -> int:
    address = flow.source if side == "saddr" else flow.destination
    return int(address) & (int(ip_address(mask)) if mask else (1 << address.max_prefixlen) - 1)


def _pair(match: re.Match[str]) -> Condition:
    elements = {
        tuple(int(ip_address(part)) for part in element.split(" . "))
        for element in match["elements"].split(", ")
    }
    return lambda flow: (
        (_side(flow, match["side1"], match["mask1"]), _side(flow, match["side2"], match["mask2"]))
        in elements
    )


def _list(match: re.Match[str]) -> Condition:
    elements = {int(ip_address(element)) for element in match["elements"].split(", ")}
    return lambda flow: _side(flow, match["side1"], match["mask1"]) in elements


def _network(match: re.Match[str]) -> Condition:
    network = ip_network(match["network"])
    return lambda flow: (flow.source if match["side"] == "saddr" else flow.destination) in network


def _protocol(match: re.Match[str]) -> Condition:
    numbers = {int(number) for number in (match["several"] or match["one"]).split(", ")}
    return lambda flow: flow.protocol in numbers


def _ports(match: re.Match[str]) -> Condition:
    first, last = int(match["first"]), int(match["last"] or match["first"])

    def holds(flow: Flow) -> bool:
        port = flow.source_port if match["side"] == "sport" else flow.destination_port
        return port is not None and first <= port <= last

    return holds


_READERS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], Condition]], ...] = (
    (_PAIR, _pair),
    (_LIST, _list),
    (_FRAGMENT, lambda match: lambda flow: flow.fragment),
    (_NETWORK, _network),
    (_PROTOCOL, _protocol),
    (_PORTS, _ports),
)
