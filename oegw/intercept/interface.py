"""The door of interception: what is trapped, what is released, what may never leave in clear."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

from oegw.commands import Assurance, Verdict
from oegw.datapath.interface import SaKey
from oegw.nat import Translation
from policy.flow import Flow
from policy.rule import Scope
from policy.table import PolicyTable

OWN_TABLE = "oegw"


class InterceptError(Exception):
    """The kernel refused; the message names the command and the kernel's words."""


@dataclass(frozen=True, slots=True)
class InterceptSettings:
    """``outside``: interfaces towards the Internet; packets that would leave by them are subject
    to the policy.  ``mark_mask`` has exactly two neighbouring bits, ours on every packet;
    ``assurance_mask`` two others, which firewalls may look at.
    ``tunnel_interface`` is the device of the datapath.  ``resolvers`` are the
    addresses that the gateway asks DNS of: their answers come in, whatever the policy says of
    these hosts.  ``local_resolver``: a resolver runs on this box, so that the box's own traffic
    to and from port 53 is exempt.  ``translations``: what has another source in the tunnel than
    on the inside.  ``encrypted_mark``: one bit more, by which a process of this box says of a
    socket that nothing of it may leave in clear.  ``demanded``: one does, so that this is seen to
    after a stop as well."""

    outside: tuple[str, ...]
    tunnel_interface: str
    mark_mask: int = 0x30000
    assurance_mask: int = 0xC0000
    encrypted_mark: int = 0x400000
    queue: int = 4500
    queue_length: int = 4096
    table: str = OWN_TABLE
    local_resolver: bool = False
    resolvers: tuple[IPv4Address | IPv6Address, ...] = ()
    translations: tuple[Translation, ...] = ()
    demanded: bool = False


@dataclass(frozen=True, slots=True)
class Marks:
    """The three values of our two mark bits, shifted into place.

    A packet that leaves the queue with the trap mark is one to be refused.
    """

    mask: int

    @property
    def _unit(self) -> int:
        return self.mask & -self.mask

    @property
    def trap(self) -> int:
        """On its way into the queue."""
        return self._unit

    @property
    def tunnel(self) -> int:
        """Routed into the tunnel device."""
        return self._unit * 2

    @property
    def own(self) -> int:
        """Sent by the gateway itself: IKE, ESP, DNS.  Set as SO_MARK, never trapped."""
        return self._unit * 3


TrapListener = Callable[[Flow, int, int], None]
"""Called with flow, packet number, size in octets."""


class Interception(Protocol):
    """Rules and queue.  ``start`` replaces whatever an earlier run left, in one transaction."""

    async def start(self, table: PolicyTable, listener: TrapListener) -> None:
        """Install rules, open the queue.  Raises InterceptError, then the kernel is as before."""

    async def replace_policy(self, table: PolicyTable) -> None:
        """Install the static rules of a new policy and empty the verdicts, in one transaction,
        keeping TUNNEL verdicts."""

    async def mend(self) -> tuple[str, ...]:
        """Look whether the rules are there, and put back what somebody else took away, as it was.
        Returns what that was.  Raises InterceptError."""

    async def mend_jump(self, thorough: bool) -> tuple[str, ...]:
        """The same of what leads into the queue where it stands apart.  ``thorough``: the place is
        looked at even if the kernel says that nothing has changed.  Raises InterceptError."""

    def demand(self) -> None:
        """``InterceptSettings.demanded`` is true from now on, until `close`: what was sent while it
        was demanded may be under way still when it is not any more."""

    def residue(self) -> str:
        """The guard as nft text: what `close` will leave, for a boot that finds no daemon yet."""

    async def close(self) -> None:
        """Remove all but the guard: rules that keep protected traffic from leaving in clear."""

    def install_policy(
        self, scope: Scope, verdict: Verdict, lifespan: float | None, drop_clear_inbound: bool
    ) -> None:
        """Cache a verdict in the kernel.  Raises InterceptError."""

    def remove_policy(self, scope: Scope) -> None:
        """Forget a verdict; no error if it is gone already."""

    def assure(self, key: SaKey, scope: Scope, assurance: Assurance) -> None:
        """Mark what an inbound SA carries, as far as there is room.  Raises InterceptError."""

    def forget_assurance(self, key: SaKey) -> None:
        """The SA goes; no error if it was not assured."""

    def release(self, packets: tuple[int, ...], verdict: Verdict) -> None:
        """Let packets go on, in this order."""

    def discard(self, packets: tuple[int, ...]) -> None:
        """Drop packets."""

    def counters(self) -> dict[str, int]:
        """Packets by fate, read from the kernel: ``{"clear_inbound_dropped": 2, ...}``."""
