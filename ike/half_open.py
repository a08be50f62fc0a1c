"""Who may keep an unauthenticated exchange with us, and who gives way (RFC 4322 section 12.3).

A source (an IPv4 address, or an IPv6 /64) may have a few exchanges; the newest
above that is refused.  When the whole table is full, newcomers are not turned
away, for that is what a flood wants: the oldest exchange of the busiest source
goes, and among equally busy sources of the one that has been so for longest.
Exchanges whose peer has answered our cookie go last, since a forger of source
addresses cannot have any.
"""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Generic, TypeVar

from ike.events import IPAddress

T = TypeVar("T")


def source_of(address: IPAddress) -> bytes:
    """What is counted as one source."""
    return address.packed if isinstance(address, IPv4Address) else address.packed[:8]


class _Crowd(Generic[T]):
    """Exchanges by source, and sources by how many they have, so that eviction is quick."""

    def __init__(self) -> None:
        self._by_source: dict[bytes, dict[int, T]] = {}
        self._by_size: dict[int, dict[bytes, None]] = {}
        self.size = 0

    def _resize(self, source: bytes, old: int, new: int) -> None:
        if old:
            sources = self._by_size[old]
            del sources[source]
            if not sources:
                del self._by_size[old]
        if new:
            self._by_size.setdefault(new, {})[source] = None

    def add(self, source: bytes, number: int, exchange: T) -> None:
        members = self._by_source.setdefault(source, {})
        members[number] = exchange
        self._resize(source, len(members) - 1, len(members))
        self.size += 1

    def remove(self, source: bytes, number: int) -> bool:
        members = self._by_source.get(source)
        if members is None or members.pop(number, None) is None:
            return False
        self._resize(source, len(members) + 1, len(members))
        if not members:
            del self._by_source[source]
        self.size -= 1
        return True

    def count(self, source: bytes) -> int:
        return len(self._by_source.get(source, ()))

    def oldest_of_busiest(self) -> T:
        source = next(iter(self._by_size[max(self._by_size)]))
        return next(iter(self._by_source[source].values()))


class HalfOpenTable(Generic[T]):
    """The exchanges that we answer without knowing the peer."""

    def __init__(self, limit: int, per_source: int) -> None:
        self._limit = limit
        self._per_source = per_source
        self._fresh: _Crowd[T] = _Crowd()  # message 1 taken; the source may be forged
        self._reachable: _Crowd[T] = _Crowd()  # message 3 taken; the source saw our cookie

    def __len__(self) -> int:
        return self._fresh.size + self._reachable.size

    @property
    def fresh(self) -> int:
        return self._fresh.size

    def admits(self, address: IPAddress) -> bool:
        """Whether the source may have one more."""
        source = source_of(address)
        held = self._fresh.count(source) + self._reachable.count(source)
        return held < self._per_source

    def must_go(self) -> T | None:
        """The exchange to close before one more is added, if the table is full."""
        if len(self) < self._limit:
            return None
        crowd = self._fresh if self._fresh.size else self._reachable
        return crowd.oldest_of_busiest()

    def add(self, address: IPAddress, number: int, exchange: T) -> None:
        self._fresh.add(source_of(address), number, exchange)

    def proved_reachable(self, address: IPAddress, number: int, exchange: T) -> None:
        """Message 3 came with our cookie."""
        source = source_of(address)
        if self._fresh.remove(source, number):
            self._reachable.add(source, number, exchange)

    def remove(self, address: IPAddress, number: int) -> None:
        source = source_of(address)
        if not self._fresh.remove(source, number):
            self._reachable.remove(source, number)
