"""How many connections strangers may have, each source and in all (MK-26)."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address

from oegw.moniker.interface import IPAddress
from oegw.moniker.sources import IPV6_PREFIX

# Our choices.
CONNECTIONS = 512
CONNECTIONS_OF_A_SOURCE = 256  # an honest one asks for many services at once, 200 by default

Site = tuple[int, int]


def site_of(source: IPAddress) -> Site:
    """What is counted as one source: an IPv4 address, or the prefix of an IPv6 address."""
    if isinstance(source, IPv6Address):
        return 6, int(source) >> (128 - IPV6_PREFIX)
    return 4, int(source)


class Crowd:
    """The connections that are open.

    When there are as many as there may be, the oldest of the source with the most gives way: so a
    flood of slow connections pushes out its own, and an honest client is served.
    """

    def __init__(
        self, in_all: int = CONNECTIONS, of_a_source: int = CONNECTIONS_OF_A_SOURCE
    ) -> None:
        self._in_all = in_all
        self._of_a_source = of_a_source
        self._open: OrderedDict[int, tuple[Site, Callable[[], None]]] = OrderedDict()
        self._sites: Counter[Site] = Counter()
        self._last = 0

    def __len__(self) -> int:
        return len(self._open)

    def enter(self, source: IPAddress, leave: Callable[[], None]) -> int | None:
        """A number for `left`; None if the source has as many as it may.  ``leave`` closes it."""
        site = site_of(source)
        if self._sites.get(site, 0) >= self._of_a_source:
            return None
        if len(self._open) >= self._in_all:
            self._make_room()
        self._last += 1
        self._open[self._last] = site, leave
        self._sites[site] += 1
        return self._last

    def left(self, number: int) -> None:
        found = self._open.pop(number, None)
        if found is None:
            return
        site = found[0]
        self._sites[site] -= 1
        if not self._sites[site]:
            del self._sites[site]

    def _make_room(self) -> None:
        most = max(self._sites.values())
        number, leave = next(
            (number, leave) for number, (site, leave) in self._open.items()
            if self._sites[site] == most
        )  # fmt: skip
        self.left(number)
        leave()
