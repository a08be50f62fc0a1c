"""Rules: which traffic falls in which of the four categories (draft section 1.1)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from policy.flow import IPNetwork
from policy.prefixes import PrefixList


class Category(Enum):
    """The four categories of draft section 1.1."""

    DENY = "deny"
    PERMIT = "permit"
    OPPORTUNISTIC = "opportunistic"
    CONFIGURED = "configured"


class OnFailure(Enum):
    """What an opportunistic rule does with traffic that can't be encrypted (draft section 1.2)."""

    CLEAR = "clear"
    DROP = "drop"


class Require(Enum):
    """What the DNS records of an opportunistic tunnel must be (RFC 4033 section 5)."""

    ANY = "any"
    SECURE = "secure"  # validated by DNSSEC


class Sst(Enum):
    """Where the ports of a rule's traffic are encrypted (draft-unice-dispatch-enc-ports)."""

    OFF = "off"  # nowhere, unless the sender asks
    INNER = "inner"  # inside the ESP tunnel
    OUTER = "outer"  # around IKE and ESP in UDP: the gateways' own ports
    ONLY = "only"  # without ESP: ports are hidden, nothing else is


class SstStrength(Enum):
    """What becomes of traffic whose ports should be encrypted, and can't be."""

    OPPORTUNISTIC = "opportunistic"  # it goes on without
    REQUIRED = "required"  # it is dropped


@dataclass(frozen=True, slots=True)
class PortRange:
    """Ports ``first`` to ``last``, both included, 0 to 65535."""

    first: int = 0
    last: int = 65535

    @classmethod
    def of(cls, port: int) -> PortRange:
        """One port; 0 is any, as in the selectors of a tunnel."""
        return cls(port, port) if port else cls()

    @property
    def width(self) -> int:
        """How many ports these are."""
        return self.last - self.first + 1

    def overlaps(self, other: PortRange) -> bool:
        return self.first <= other.last and other.first <= self.last


ANY_PORT = PortRange()


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the policy.

    ``source`` and ``destination`` are lists of prefixes: the rule stands for
    each pair of them.  ``None`` means every address of both families.
    ``origin`` says where the rule was written, for error messages
    (``"oegw.toml: rule[3]"``).  ``builtin`` marks the exemptions that every
    gateway has; a rule of the user's with the same selectors replaces one.
    ``initiate`` of False: an opportunistic rule that only accepts what peers begin (RFC 4322
    section 3.3.2); until then its traffic is clear or dropped, as ``on_failure`` says.  ``icmp``:
    what this deny rule drops is answered with ICMP 3/13 (RFC 4322 section 3.1.4).  ``relax``: other
    sources of policy may say less than this opportunistic rule demands.  ``sst``: where ports are
    encrypted; ``sst_strength`` also holds for what senders ask for where it is OFF.
    """

    name: str
    category: Category
    source: tuple[IPNetwork, ...] | PrefixList | None = None
    destination: tuple[IPNetwork, ...] | PrefixList | None = None
    protocol: int | None = None
    source_ports: PortRange = ANY_PORT
    destination_ports: PortRange = ANY_PORT
    on_failure: OnFailure = OnFailure.CLEAR
    override: bool = False
    origin: str = ""
    builtin: bool = False
    initiate: bool = True
    icmp: bool = False
    require: Require = Require.ANY
    relax: bool = False
    sst: Sst = Sst.OFF
    sst_strength: SstStrength = SstStrength.OPPORTUNISTIC

    @property
    def protected(self) -> bool:
        """Whether traffic of this rule must never leave in clear, as far as the rule goes."""
        return self.category is Category.CONFIGURED or (
            self.category is Category.OPPORTUNISTIC
            and (self.on_failure is OnFailure.DROP or self.needs_sealed_tunnel)
        )

    @property
    def needs_sealed_tunnel(self) -> bool:
        """Whether ports must be encrypted in or around a tunnel: nothing goes without one."""
        return self.sst_strength is SstStrength.REQUIRED and self.sst in (Sst.INNER, Sst.OUTER)

    @property
    def guarded(self) -> bool:
        """Whether nobody else may let traffic of this rule out in clear."""
        return self.protected and not self.relax


@dataclass(frozen=True, slots=True)
class Scope:
    """How far an answer holds: every flow inside it gets the same rule."""

    source: IPNetwork
    destination: IPNetwork
    protocol: int | None = None
    source_ports: PortRange = ANY_PORT
    destination_ports: PortRange = ANY_PORT


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer of ``PolicyTable.lookup``.

    ``cacheable`` is false where the packet showed no ports and the answer
    depends on them: the verdict is for this packet, and flows that show their
    ports may get another one.
    """

    rule: Rule
    scope: Scope
    cacheable: bool = True
