"""The mark that says by what kind of tunnel a packet came (RFC 4322 sections 12.1, 12.2).  Pure.

Packets that come out of the tunnel device get it before any firewall sees them, from sets of
what the inbound SAs carry.  Where several SAs could have carried a packet, the least assured
counts: an opportunistic peer must not pass for a configured one.  A packet that came in clear
has none.
"""

from __future__ import annotations

from collections.abc import Iterator

from oegw.commands import Assurance
from oegw.intercept.verdicts import FAMILIES, HASH_SIZE, INTERVAL_SIZE, Shape, keys, shape_of
from policy.rule import Scope

# The least assured first, as they are asked.
ORDER = (Assurance.INSECURE, Assurance.SECURE, Assurance.CONFIGURED)


def mark_of(assurance: Assurance, mask: int) -> int:
    """The value of the two bits of ``mask``: 1 without DNSSEC, 2 with it, 3 configured."""
    return (ORDER.index(assurance) + 1) * (mask & -mask)


def set_name(assurance: Assurance, shape: Shape, family: int) -> str:
    return f"{assurance.value}_{shape.value}{family}"


def counter_name(assurance: Assurance) -> str:
    return f"inbound_{assurance.value}"


def declarations() -> str:
    """The sets, in the nft language."""
    lines = []
    for assurance in ORDER:
        for shape in Shape:
            for family in FAMILIES:
                flags = "" if shape is Shape.PAIR else "flags interval; "
                size = HASH_SIZE if shape is Shape.PAIR else INTERVAL_SIZE
                lines.append(
                    f"  set {set_name(assurance, shape, family)} "
                    f"{{ type {shape.key_type(family)}; {flags}size {size}; }}\n"
                )
    return "".join(lines)


def rules() -> Iterator[str]:
    """The look-ups, each of which leads to the chain that marks."""
    for assurance in ORDER:
        for shape in Shape:
            for family in FAMILIES:
                name = set_name(assurance, shape, family)
                yield f"{shape.selector(family)} @{name} goto {counter_name(assurance)}"


def elements(scope: Scope, assurance: Assurance) -> list[tuple[str, str]]:
    """Name of set and key for what an inbound SA carries, in the direction of its packets."""
    shape, family = shape_of(scope), scope.source.version
    return [(set_name(assurance, shape, family), key) for key in keys(shape, scope)]
