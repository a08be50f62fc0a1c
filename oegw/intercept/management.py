"""Where this box is managed from: what it exchanges with that passes before anything else is asked.

The policy has the same exemption (`policy.order`), by the addresses that the box had when it was
read.  These rules ask the kernel which addresses it has now, so that one that has got a new address
is not locked out, also after a stop.  A socket that demands encryption has it all the same.  Pure.
"""

from __future__ import annotations

from oegw.intercept.interface import InterceptSettings
from policy.flow import IPNetwork
from policy.order import is_management_exemption
from policy.table import PolicyTable

_TYPES = {4: "ipv4_addr", 6: "ipv6_addr"}
_WORDS = {4: "ip", 6: "ip6"}

INBOUND = tuple(
    f"fib daddr type local {word} saddr @management{family} accept"
    for family, word in _WORDS.items()
)
GUARD = tuple(
    f"fib saddr type local {word} daddr @management{family} accept"
    for family, word in _WORDS.items()
)


def managed_from(table: PolicyTable) -> tuple[IPNetwork, ...]:
    """The networks that the policy exempts."""
    found: dict[IPNetwork, None] = {}
    for rule in table.rules:
        if is_management_exemption(rule):
            found |= dict.fromkeys(rule.destination or ())
    return tuple(found)


def declarations(networks: tuple[IPNetwork, ...]) -> str:
    """The sets; rules ask them even if they are empty, so that a new policy can fill them."""
    return "".join(
        f"  set management{family} {{ type {kind}; flags interval; auto-merge; "
        f"{_elements(networks, family)}}}\n"
        for family, kind in _TYPES.items()
    )


def renewal(table: str, networks: tuple[IPNetwork, ...]) -> str:
    """Commands that put other networks into the sets."""
    lines = []
    for family in _TYPES:
        lines.append(f"flush set inet {table} management{family}\n")
        if of_family := _joined(networks, family):
            lines.append(f"add element inet {table} management{family} {{ {of_family} }}\n")
    return "".join(lines)


def outbound(settings: InterceptSettings) -> tuple[str, ...]:
    """Of what this box itself sends."""
    free = f"meta mark & {settings.encrypted_mark:#x} == 0"
    return tuple(
        f"{free} {word} daddr @management{family} accept" for family, word in _WORDS.items()
    )


def _elements(networks: tuple[IPNetwork, ...], family: int) -> str:
    joined = _joined(networks, family)
    return f"elements = {{ {joined} }}; " if joined else ""


def _joined(networks: tuple[IPNetwork, ...], family: int) -> str:
    return ", ".join(str(network) for network in networks if network.version == family)
