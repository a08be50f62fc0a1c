"""The Opener twins: no firewall, our own, the gateway in front, and several of them.

`firewalls.Firewalls` makes one from the settings; the daemon starts and closes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from oegw.moniker.firewall.gatewaylink import AskGateway
from oegw.moniker.firewall.ownfirewall import OwnFirewall
from oegw.moniker.interface import Lease, Opener, Opening, Place

__all__ = ["AllOf", "AskGateway", "NoFirewall", "OwnFirewall", "RunningOpener"]


class RunningOpener(Opener, Protocol):
    """An opener with a life: the daemon starts it, and closes it last."""

    async def start(self) -> None:
        """Raises FirewallError if it can't work at all."""
        ...

    async def close(self) -> None: ...


class NoFirewall:
    """Every port is open anyway; a lease is a time and nothing else."""

    async def start(self) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        """Nothing to do."""

    async def guard(self, place: Place) -> None:
        """Nothing to do."""

    async def open(self, lease: Lease) -> Opening:
        """Where it is."""
        return Opening(lease.port, lease.seconds)

    async def end(self, place: Place) -> None:
        """Nothing to do."""


class AllOf:
    """Several firewalls in a row, the nearest first: a port is open when all have opened it."""

    def __init__(self, openers: Sequence[RunningOpener]) -> None:
        self._openers = tuple(openers)

    async def start(self) -> None:
        """Raises FirewallError."""
        for opener in self._openers:
            await opener.start()

    async def close(self) -> None:
        for opener in self._openers:
            await opener.close()

    async def guard(self, place: Place) -> None:
        for opener in self._openers:
            await opener.guard(place)

    async def open(self, lease: Lease) -> Opening:
        """The port that the outermost says, for the shortest time.  Raises LeaseRefused."""
        opening = Opening(lease.port, lease.seconds)
        for opener in self._openers:
            opened = await opener.open(lease)
            opening = Opening(opened.port, min(opening.seconds, opened.seconds))
        return opening

    async def end(self, place: Place) -> None:
        for opener in self._openers:
            await opener.end(place)
