"""The book of leases: who may open connections to what, until when.  Sans IO.

A hole is what a packet shows: client, host, protocol, port.  There is one lease for a hole, the
longest that was asked for; a lease that is asked for again is renewed and costs nothing.  All is
bounded: leases in all, of one host, of one client (of its /64 with IPv6) to one host; and new ones
a second, of one host and in all.  What one host does takes nothing from another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv6Address
from typing import TypeVar

from oegw.moniker.interface import IPAddress, Lease, LeaseRefused, Place
from oegw.moniker.transports import UnknownTransport, named
from oegw.moniker.wire import Code
from oegw.sst.allowance import Allowance

_Name = TypeVar("_Name")

# Our choices.
MAX_LEASES = 16000  # below the size of the kernel's sets, which hold expired ones a little longer
MAX_OF_CLIENT = 128
MAX_SECONDS = 3600
SLACK = 2.0  # an answer is on its way for a while before its TTL begins
NEW_A_SECOND, NEW_AT_ONCE = 500.0, 1000.0
NEW_OF_HOST, NEW_OF_HOST_AT_ONCE = 100.0, 500.0  # of one behind us, so that others have theirs


@dataclass(frozen=True, slots=True)
class Hole:
    """What the kernel looks for."""

    client: IPAddress
    host: IPAddress
    protocol: int
    port: int

    @classmethod
    def of(cls, lease: Lease) -> Hole:
        """Raises LeaseRefused: no such transport, or no addresses and port that can be."""
        protocol = protocol_of(lease.transport)
        if protocol is None:
            raise LeaseRefused(
                Code.TRANSPORT.value, f"the firewall does not know {lease.transport[:20]!r}"
            )
        client, host = plain(lease.client), plain(lease.host)
        if client.version != host.version:
            raise LeaseRefused(
                Code.MALFORMED.value, "client and host are not of one address family"
            )
        if not 0 < lease.port < 65536 or lease.seconds < 1:
            raise LeaseRefused(Code.MALFORMED.value, "a lease needs a port and a time")
        return cls(client, host, protocol, lease.port)


@dataclass(frozen=True, slots=True)
class Forward:
    """``port`` of our address ``asked`` leads to a hole's port of its host, for its client."""

    hole: Hole
    asked: IPAddress
    port: int

    @property
    def outer(self) -> Hole:
        """As the client sees it."""
        return Hole(self.hole.client, self.asked, self.hole.protocol, self.port)


@dataclass(frozen=True, slots=True)
class Guard:
    """A port of this box that needs a lease: of one address (``version`` is its), or of all."""

    version: int
    protocol: int
    port: int
    address: IPAddress | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """A lease that lives.  ``until``: on the shell's clock, with the slack.  ``group``: whose
    limit it counts for."""

    hole: Hole
    lease: Lease
    until: float
    group: str


def protocol_of(transport: str) -> int | None:
    """What packets of a transport have as their protocol; None for one that nobody knows."""
    try:
        return named(transport).ip_protocol
    except UnknownTransport:
        return None


def plain(address: IPAddress) -> IPAddress:
    """An IPv4 address as such, also if a socket of both families told it; no scope.

    A scope is any text, and these addresses go into commands; packets don't have it either.
    """
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped or IPv6Address(int(address))
    return address


def guards_of(place: Place, protocol: int) -> list[Guard]:
    """What guards a place.  One that nobody outside can reach needs nothing; and what is guarded
    is never more than what the service has, for the rest of a port may be another user's."""
    address = None if place.address is None else plain(place.address)
    if not 0 < place.port < 65536 or (address is not None and address.is_loopback):
        return []
    versions = [address.version] if address is not None else [int(f) for f in place.families]
    return [Guard(version, protocol, place.port, address) for version in versions]


def full_name(lease: Lease) -> str:
    """What the service is called in logs and in the table (MK-32)."""
    return f"{lease.namespace}::{lease.service}" if lease.namespace else lease.service


class LeaseBook:
    """``group_of``: the name of the host that has an address, and how many leases it may have."""

    def __init__(self, group_of: Callable[[IPAddress], tuple[str, int]]) -> None:
        self._group_of = group_of
        self._held: dict[Hole, Held] = {}
        self._forwards: dict[Hole, dict[IPAddress, Forward]] = {}
        self._of_port: dict[tuple[int, int], set[Hole]] = {}
        self._of_client: Counter[tuple[str, str]] = Counter()
        self._of_group: Counter[str] = Counter()
        self._new = Allowance(NEW_A_SECOND, NEW_AT_ONCE)
        self._new_of_group: dict[str, Allowance] = {}

    def get(self, hole: Hole) -> Held | None:
        """The lease for a hole, if there is one; it may be over."""
        return self._held.get(hole)

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Held]:
        return iter(list(self._held.values()))

    def open(self, lease: Lease, now: float) -> Held:
        """A lease, new or longer than it was.  Raises LeaseRefused."""
        hole = Hole.of(lease)
        if hole not in self._held:
            group, limit = self._group_of(hole.host)
            self._admit(hole, group, limit)  # who may have no more uses up nothing
            self._charge(group, now)
        return self._enter(lease, now)

    def _enter(self, lease: Lease, now: float) -> Held:
        hole = Hole.of(lease)
        seconds = min(lease.seconds, MAX_SECONDS)
        lease = replace(lease, client=hole.client, host=hole.host, seconds=seconds)
        until = now + seconds + SLACK
        known = self._held.get(hole)
        if known is not None:
            held = Held(hole, lease, max(until, known.until), known.group)
        else:
            group, limit = self._group_of(hole.host)
            self._admit(hole, group, limit)
            self._of_client[group, _source(hole.client)] += 1
            self._of_group[group] += 1
            self._of_port.setdefault((hole.protocol, hole.port), set()).add(hole)
            held = Held(hole, lease, until, group)
        self._held[hole] = held
        return held

    def adopt(self, lease: Lease, left: float, now: float) -> Held | None:
        """A lease that the kernel still knows from a process before us; None if it can't be."""
        try:
            held = self._enter(replace(lease, seconds=max(1, int(left))), now)
        except LeaseRefused:
            return None
        held = replace(held, until=now + left)
        self._held[held.hole] = held
        return held

    def forward(self, hole: Hole, asked: IPAddress) -> Forward | None:
        """The port of ours that leads there, if there is one."""
        return self._forwards.get(hole, {}).get(asked)

    def add_forward(self, forward: Forward) -> None:
        """It lives as long as the lease of its hole, which must be there."""
        if forward.hole not in self._held:
            raise ValueError("a port can be forwarded under a lease only")
        self._forwards.setdefault(forward.hole, {})[forward.asked] = forward

    def end(
        self, ends: Callable[[Held], bool], port: tuple[int, int] | None = None
    ) -> list[tuple[Held, list[Forward]]]:
        """Take out the leases for which it is true, with the ports that led there.

        ``port``: protocol and port, so that only leases of that one are looked at.
        """
        asked = self if port is None else [self._held[h] for h in self._of_port.get(port, ())]
        return [(held, self._take(held)) for held in asked if ends(held)]

    def expire(self, now: float) -> list[tuple[Held, list[Forward]]]:
        """Take out those whose time is over; the kernel has forgotten them by itself."""
        return self.end(lambda held: held.until <= now)

    def _take(self, held: Held) -> list[Forward]:
        hole = held.hole
        del self._held[hole]
        of_port = self._of_port[hole.protocol, hole.port]
        of_port.discard(hole)
        if not of_port:
            del self._of_port[hole.protocol, hole.port]
        _less(self._of_client, (held.group, _source(hole.client)))
        _less(self._of_group, held.group)
        return list(self._forwards.pop(held.hole, {}).values())

    def _admit(self, hole: Hole, group: str, limit: int) -> None:
        if len(self._held) >= MAX_LEASES:
            raise LeaseRefused(Code.BUSY.value, "there are too many leases")
        if self._of_client[group, _source(hole.client)] >= MAX_OF_CLIENT:
            raise LeaseRefused(Code.BUSY.value, "this client has too many leases")
        if self._of_group[group] >= limit:
            raise LeaseRefused(Code.BUSY.value, "this host has too many leases")

    def _charge(self, group: str, now: float) -> None:
        """A host's own measure first: what it has too many of costs no other anything."""
        if group and not self._of_host(group).take(now):
            raise LeaseRefused(Code.BUSY.value, "too many new leases of this host at once")
        if not self._new.take(now):
            raise LeaseRefused(Code.BUSY.value, "too many new leases at once")

    def _of_host(self, group: str) -> Allowance:
        return self._new_of_group.setdefault(group, Allowance(NEW_OF_HOST, NEW_OF_HOST_AT_ONCE))


def _source(client: IPAddress) -> str:
    """Who has one address of a /64 has them all."""
    return f"{int(client) >> 64:x}/64" if client.version == 6 else str(client)


def _less(counter: Counter[_Name], name: _Name) -> None:
    """One less; a name that has none is forgotten, so that the table does not grow."""
    counter[name] -= 1
    if not counter[name]:
        del counter[name]
