"""The door between the lease protocol and the firewall that does it."""

from __future__ import annotations

from typing import Protocol

from oegw.moniker.interface import IPAddress, Lease, Opening
from oegw.moniker.settings import HostSettings


class Gate(Protocol):
    """What a gateway opens for the hosts behind it.  Twins: `OwnFirewall`, and one of the tests."""

    async def open(self, lease: Lease) -> Opening:
        """Raises LeaseRefused."""
        ...

    async def forward(self, lease: Lease, asked: IPAddress) -> Opening:
        """A port of our address ``asked`` leads to the lease's.  Raises LeaseRefused."""
        ...

    async def end_of(self, host: IPAddress, transport: str, port: int) -> None:
        """The leases for a port of a host behind end.  Never raises."""
        ...

    async def end_all_of(self, host: HostSettings) -> None:
        """Never raises."""
        ...
