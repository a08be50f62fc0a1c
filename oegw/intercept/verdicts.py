"""Which element of which kernel map stands for a scope, and what we put there.

There are four kinds of keys per family.  They are asked in this sequence, so
that the narrower answer is found first:

    port      saddr . daddr . protocol . sport . dport   prefixes and ranges
    protocol  saddr . daddr . protocol                   prefixes
    pair      saddr . daddr                              two hosts: a hash
    wide      saddr . daddr                              prefixes

Each has a map of what may go on, a set ``deny_...`` of what is dropped, a set ``refuse_...`` of
what among that is answered with ICMP, and a set ``keyed_...`` with the directions exchanged:
pairs for which a clear packet from outside is dropped.

No element names a chain.  When one that does is added, the kernel checks the
whole table for loops, all elements included: that took 2.5 ms with 30,000 of
them, against 0.1 ms.  So ``return`` means tunnel, and what is denied has sets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

from oegw.commands import Verdict
from oegw.intercept.order import PORTED_PROTOCOLS
from policy.flow import IPNetwork
from policy.rule import ANY_PORT, PortRange, Scope

FAMILIES = (4, 6)

# Our choice.  The kernel copies a set of prefixes for each change of it, so its
# size bounds what a change costs; a hash is changed in place.
HASH_SIZE = 65536
INTERVAL_SIZE = 4096

_TYPES = {4: "ipv4_addr", 6: "ipv6_addr"}
_WORDS = {4: "ip", 6: "ip6"}
_VALUES = {
    Verdict.CLEAR: " : accept",
    Verdict.TUNNEL: " : return",
    Verdict.DENY: "",
    Verdict.REFUSE: "",
}


class Shape(Enum):
    """The four kinds of keys."""

    PORT = "port"
    PROTOCOL = "protocol"
    PAIR = "pair"
    WIDE = "wide"

    def map_name(self, family: int) -> str:
        return f"{self.value}{family}"

    def deny_name(self, family: int) -> str:
        return f"deny_{self.value}{family}"

    def refuse_name(self, family: int) -> str:
        return f"refuse_{self.value}{family}"

    def keyed_name(self, family: int) -> str:
        return f"keyed_{self.value}{family}"

    def key_type(self, family: int) -> str:
        address = _TYPES[family]
        key = f"{address} . {address}"
        if self is Shape.PROTOCOL:
            key += " . inet_proto"
        elif self is Shape.PORT:
            key += " . inet_proto . inet_service . inet_service"
        return key

    def declaration(self, family: int) -> str:
        """The map and the sets of this shape, in the nft language."""
        key = self.key_type(family)
        flags = "timeout" if self is Shape.PAIR else "interval,timeout"
        size = HASH_SIZE if self is Shape.PAIR else INTERVAL_SIZE
        tail = f"flags {flags}; size {size};"
        return (
            f"  map {self.map_name(family)} {{ type {key} : verdict; {tail} }}\n"
            f"  set {self.deny_name(family)} {{ type {key}; {tail} }}\n"
            f"  set {self.refuse_name(family)} {{ type {key}; {tail} }}\n"
            f"  set {self.keyed_name(family)} {{ type {key}; {tail} }}\n"
        )

    def selector(self, family: int) -> str:
        """What of a packet is looked up."""
        word = _WORDS[family]
        addresses = f"{word} saddr . {word} daddr"
        if self is Shape.PROTOCOL:
            return f"{addresses} . meta l4proto"
        if self is Shape.PORT:
            return f"{addresses} . meta l4proto . th sport . th dport"
        return addresses


@dataclass(frozen=True, slots=True)
class Installed:
    """What the kernel has of ours for one scope.

    ``verdict`` is None where only clear packets from outside are dropped.
    ``expires`` is the monotonic time in seconds, or None for never.
    """

    verdict: Verdict | None
    drop_clear_inbound: bool
    expires: float | None

    def remaining(self, now: float) -> float | None:
        return None if self.expires is None else self.expires - now


Element = tuple[str, str]
"""Name of a map or set, and what is put into it or taken out, in the nft language."""


def creations(table: str, scope: Scope, installed: Installed, lifespan: float | None) -> list[str]:
    """The commands that put a verdict into the kernel, for ``lifespan`` seconds."""
    return commands("create", table, whole_elements(scope, installed, lifespan))


def deletions(table: str, scope: Scope, installed: Installed) -> list[str]:
    """The commands that take it out again; each fails if the element has timed out."""
    return commands("delete", table, [(name, key) for name, key, _ in parts(scope, installed)])


def whole_elements(scope: Scope, installed: Installed, lifespan: float | None) -> list[Element]:
    """The elements that stand for a verdict of ``lifespan`` seconds, with all that they say."""
    timeout = "" if lifespan is None else f" timeout {max(1, round(lifespan * 1000))}ms"
    return [(name, f"{key}{timeout}{value}") for name, key, value in parts(scope, installed)]


def commands(verb: str, table: str, elements: Iterable[Element]) -> list[str]:
    """One for each element, so that what is refused is told apart."""
    return [f"{verb} element inet {table} {name} {{ {text} }}" for name, text in elements]


def together(verb: str, table: str, elements: Iterable[Element]) -> str:
    """One for each map or set, which is read much faster when there are many elements."""
    by_name: dict[str, list[str]] = {}
    for name, text in elements:
        by_name.setdefault(name, []).append(text)
    return "".join(
        f"{verb} element inet {table} {name} {{ {', '.join(texts)} }}\n"
        for name, texts in by_name.items()
    )


def parts(scope: Scope, installed: Installed) -> list[tuple[str, str, str]]:
    """Name of map or set, key, and of a map the value."""
    parts: list[tuple[str, str, str]] = []
    if installed.verdict is not None:
        value = _VALUES[installed.verdict]
        parts += [(*element, value) for element in verdict_elements(scope, installed.verdict)]
    if installed.drop_clear_inbound:
        parts += [(*element, "") for element in keyed_elements(scope)]
    return parts


def verdict_elements(scope: Scope, verdict: Verdict) -> list[Element]:
    """Name of map or set and key, for packets that leave."""
    shape, family = shape_of(scope), scope.source.version
    match verdict:
        case Verdict.DENY:
            names = [shape.deny_name(family)]
        case Verdict.REFUSE:
            names = [shape.deny_name(family), shape.refuse_name(family)]
        case _:
            names = [shape.map_name(family)]
    return [(name, key) for name in names for key in keys(shape, scope)]


def keyed_elements(scope: Scope) -> list[Element]:
    """Name of set and key, for packets that come back."""
    back = Scope(
        scope.destination,
        scope.source,
        scope.protocol,
        scope.destination_ports,
        scope.source_ports,
    )
    shape, family = shape_of(back), back.source.version
    return [(shape.keyed_name(family), key) for key in keys(shape, back)]


def shape_of(scope: Scope) -> Shape:
    """The kind of key that stands for a scope."""
    if scope.source_ports != ANY_PORT or scope.destination_ports != ANY_PORT:
        return Shape.PORT
    if scope.protocol is not None:
        return Shape.PROTOCOL
    if _is_host(scope.source) and _is_host(scope.destination):
        return Shape.PAIR
    return Shape.WIDE


def keys(shape: Shape, scope: Scope) -> Iterator[str]:
    """The elements that stand for a scope, in the nft language."""
    addresses = f"{_text(scope.source)} . {_text(scope.destination)}"
    if shape is Shape.PROTOCOL:
        yield f"{addresses} . {scope.protocol}"
    elif shape is Shape.PORT:
        ports = f"{_range(scope.source_ports)} . {_range(scope.destination_ports)}"
        for protocol in PORTED_PROTOCOLS if scope.protocol is None else (scope.protocol,):
            yield f"{addresses} . {protocol} . {ports}"
    else:
        yield addresses


def _is_host(network: IPNetwork) -> bool:
    return network.prefixlen == network.max_prefixlen


def _text(network: IPNetwork) -> str:
    return str(network.network_address) if _is_host(network) else str(network)


def _range(ports: PortRange) -> str:
    return str(ports.first) if ports.first == ports.last else f"{ports.first}-{ports.last}"
