"""The order of the rules, which is total, in its one place.

Of the rules that match a flow, that one applies which has, in this sequence,

1. the longer destination prefix,
2. the longer source prefix,
3. a protocol given,
4. fewer destination ports,
5. fewer source ports.

Two rules of the user's that match a common flow and are equal in all five are
a load error.  A rule of the user's precedes a built-in that is equal to it.

Before all that come three exemptions.  What is for this box itself is permitted,
whatever any rule says: a list of networks that all members of a mesh share
contains each of them, and nobody encrypts to oneself.  What this box exchanges
with the addresses that it is managed from is permitted likewise: a rule must not
lock out who could correct it.  DHCP is told by its
ports, whatever the destination, so that by the order above any rule with a
destination would trap it.  Therefore to DHCP traffic only those rules apply, in
the order above, that *name* it: that give protocol UDP, and ports that overlap
its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from policy.rule import ANY_PORT, Rule

UDP = 17

PORTED_PROTOCOLS = frozenset({6, UDP, 33, 132, 136})
"""TCP, UDP, DCCP, SCTP, UDP-Lite: a rule with ports matches these only."""


OWN_NAME = "built-in: traffic to oneself"
MANAGEMENT_NAME = "built-in: management"


class Exemption(IntEnum):
    """Where a rule stands with regard to the exemptions."""

    OWN = 0  # the box itself
    MANAGEMENT = 1  # between it and those who manage it
    NAMED = 2  # the part of a user's rule that names DHCP
    DHCP = 3
    NONE = 4

    @property
    def of_ports(self) -> bool:
        """Whether an entry is for some ports of UDP only, and not there for other traffic."""
        return self in (Exemption.NAMED, Exemption.DHCP)


@dataclass(frozen=True, slots=True)
class OrderKey:
    """What the order looks at: prefix lengths, whether a protocol is given, how many ports."""

    destination_length: int
    source_length: int
    protocol: bool
    destination_ports: int
    source_ports: int
    exemption: Exemption = Exemption.NONE

    @property
    def precedence(self) -> tuple[int, ...]:
        """Sorts keys so that the rule that applies comes first."""
        return (
            self.exemption,
            -self.destination_length,
            -self.source_length,
            not self.protocol,
            self.destination_ports,
            self.source_ports,
        )

    def precedes(self, other: OrderKey) -> bool:
        return self.precedence < other.precedence


def order_key(
    rule: Rule,
    destination_length: int,
    source_length: int,
    exemption: Exemption = Exemption.NONE,
) -> OrderKey:
    """The place in the order of one pair of a rule's prefixes."""
    return OrderKey(
        destination_length,
        source_length,
        rule.protocol is not None,
        rule.destination_ports.width,
        rule.source_ports.width,
        exemption,
    )


def gives_ports(rule: Rule) -> bool:
    """Whether a rule matches some ports only."""
    return rule.source_ports != ANY_PORT or rule.destination_ports != ANY_PORT


def is_own_exemption(rule: Rule) -> bool:
    """Whether a rule is the built-in for what is for the box itself."""
    return rule.builtin and rule.name == OWN_NAME


def is_management_exemption(rule: Rule) -> bool:
    """Whether a rule is one of the built-ins for the addresses that the box is managed from."""
    return rule.builtin and rule.name == MANAGEMENT_NAME


def is_dhcp_exemption(rule: Rule) -> bool:
    """Whether a rule is one of the built-ins for DHCP."""
    return rule.builtin and rule.protocol == UDP and gives_ports(rule)


def names_dhcp(rule: Rule, exemption: Rule) -> bool:
    """Whether a rule of the user's applies to the DHCP traffic of a built-in."""
    return (
        not rule.builtin
        and rule.protocol == UDP
        and gives_ports(rule)
        and rule.source_ports.overlaps(exemption.source_ports)
        and rule.destination_ports.overlaps(exemption.destination_ports)
    )


def share_traffic(one: Rule, other: Rule) -> bool:
    """Whether two rules have a protocol and ports in common, prefixes aside."""
    if one.protocol is not None and other.protocol is not None and one.protocol != other.protocol:
        return False
    protocol = one.protocol if one.protocol is not None else other.protocol
    if protocol is not None and protocol not in PORTED_PROTOCOLS:
        return not gives_ports(one) and not gives_ports(other)
    return one.source_ports.overlaps(other.source_ports) and one.destination_ports.overlaps(
        other.destination_ports
    )
