"""The firewall of this box: the nft table ``inet oegw_moniker`` (MK-18)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from oegw.moniker.interface import IPAddress, Lease, Opening
from oegw.moniker.names import MonikerError
from oegw.moniker.settings import FirewallSettings, HostSettings
from oegw.trace import Trace

Permit = Callable[[Lease], str | None]
"""The policy by service name: why a lease is not given, or None if it is."""


def permit_all(lease: Lease) -> str | None:
    """Without rules everybody may have any lease."""
    return None


class FirewallError(MonikerError):
    """The kernel refuses the table, or a setting can't work; the text says which."""


class OwnFirewall:
    """Leases for services of this box, and for hosts behind it, as elements with timeouts.

    It is there on a gateway (``hosts``), with or without ``deny``, and on any host with ``deny``.
    """

    def __init__(
        self,
        settings: FirewallSettings,
        hosts: Sequence[HostSettings] = (),
        *,
        trace: Trace,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        raise NotImplementedError

    async def start(self) -> None:
        """Put the table in place, in one transaction.  Raises FirewallError."""
        raise NotImplementedError

    async def close(self) -> None:
        """Leave the deny chains without a lease (``keep``), or nothing."""
        raise NotImplementedError

    async def reload(self, hosts: Sequence[HostSettings]) -> None:
        """Other hosts: leases of those that are gone end.  Raises FirewallError."""
        raise NotImplementedError

    async def guard(self, transport: str, port: int) -> None:
        """A service of this box has this port: from outside it is closed but for leases."""
        raise NotImplementedError

    async def open(self, lease: Lease) -> Opening:
        """Open a port of this box, or of a host behind it.  Raises LeaseRefused."""
        raise NotImplementedError

    async def forward(self, lease: Lease, asked: IPAddress) -> Opening:
        """Open a random port of our own address ``asked`` that leads to the lease's (MK-14).

        For exactly the lease's client.  Raises LeaseRefused.
        """
        raise NotImplementedError

    async def end(self, host: IPAddress | None, transport: str, port: int) -> None:
        """The leases for a port end; the clients that had one are refused from then on."""
        raise NotImplementedError

    def leases(self) -> list[Lease]:
        """Those that live, for the status; ``seconds`` is what is left of each."""
        raise NotImplementedError
