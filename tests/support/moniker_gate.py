"""The Gate without a kernel: what a gateway would have opened."""

from __future__ import annotations

from oegw.moniker.firewall.book import Held, LeaseBook
from oegw.moniker.interface import IPAddress, Lease, Opening
from oegw.moniker.settings import HostSettings


class MemoryGate:
    """A book of leases and nothing behind it.  ``first_port``: of what is forwarded."""

    def __init__(self, hosts: tuple[HostSettings, ...], first_port: int = 20000) -> None:
        self._hosts = hosts
        self._next = first_port
        self.book = LeaseBook(self._group_of)
        self.forwarded: dict[int, tuple[Lease, IPAddress]] = {}

    def _group_of(self, host: IPAddress) -> tuple[str, int]:
        mine = [each for each in self._hosts if host in each.addresses]
        return (mine[0].name, mine[0].leases) if mine else ("", 100)

    @property
    def leases(self) -> list[Lease]:
        return [held.lease for held in self.book]

    async def open(self, lease: Lease) -> Opening:
        held = self.book.open(lease, 0.0)
        return Opening(lease.port, held.lease.seconds)

    async def forward(self, lease: Lease, asked: IPAddress) -> Opening:
        held = self.book.open(lease, 0.0)
        self._next += 1
        self.forwarded[self._next] = (lease, asked)
        return Opening(self._next, held.lease.seconds)

    async def end_of(self, host: IPAddress, transport: str, port: int) -> None:
        self.book.end(lambda held: (held.hole.host, held.hole.port) == (host, port))

    async def end_all_of(self, host: HostSettings) -> None:
        def meant(held: Held) -> bool:
            return held.hole.host in host.addresses

        self.book.end(meant)
