"""Where this box is managed from: that stays reachable, whatever the rules say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from policy.flow import IPNetwork
from policy.order import is_management_exemption
from policy.prefixes import WIDTHS, keys
from policy.rule import Category, Rule

if TYPE_CHECKING:
    from policy.table import PolicyTable


@dataclass(frozen=True, slots=True)
class ManagementSettings:
    """``addresses``: what this box exchanges with them is always permitted, in clear."""

    addresses: tuple[IPNetwork, ...] = ()


def management_advice(table: PolicyTable) -> Iterator[str]:
    """Rules that promise something else of what is permitted, as sentences."""
    exempt = [rule for rule in table.rules if is_management_exemption(rule)]
    for rule in (*table.rules, table.default):
        promise = _promise(rule)
        if rule.builtin or not promise:
            continue
        networks = [
            network
            for exemption in exempt
            if isinstance(exemption.destination, tuple) and _meet(rule, exemption, "source")
            for network in exemption.destination
            if _overlaps(rule, network, "destination")
        ]
        if networks:
            where = ", ".join(map(str, networks))
            yield (
                f"rule {rule.name!r} {promise}, but not what this box itself exchanges with "
                f"{where}: management.addresses are always permitted, in clear"
            )


def _promise(rule: Rule) -> str:
    if rule.category is Category.DENY:
        return "denies its traffic"
    return "keeps its traffic from leaving in clear" if rule.protected else ""


def _meet(rule: Rule, exemption: Rule, side: str) -> bool:
    return any(_overlaps(rule, network, side) for network in getattr(exemption, side))


def _overlaps(rule: Rule, network: IPNetwork, side: str) -> bool:
    """Whether one of a rule's prefixes has an address in common with ``network``."""
    prefixes = getattr(rule, side)
    width = WIDTHS[network.version]
    value = int(network.network_address)
    for key in keys(prefixes, network.version):
        length = min(key & 0xFF, network.prefixlen)
        if (key >> 8) >> (width - length) == value >> (width - length):
            return True
    return False
