"""What an opening worker knows of the SAs of others: who has each, and what waits for one that is
on its way here.  The control process tells it (`placing.py`): nothing is kept of unknown SPIs."""

from __future__ import annotations

from oegw.datapath.interface import SaKey
from oegw.datapath.userspace.strays import Stray

_MOST_HELD = 1024  # our choice: packets of all SAs on their way here

_Name = tuple[int, bytes]


def _name(key: SaKey) -> _Name:
    return key.spi, key.destination.packed


class Homes:
    """``index``: the number of this worker."""

    def __init__(self, index: int) -> None:
        self._index = index
        self._others: dict[_Name, int] = {}
        self._held: dict[_Name, list[Stray]] = {}
        self._count = 0

    def set(self, key: SaKey, home: int | None) -> None:
        """Another worker has the SA; or it comes here, if that is this one; or nobody has it."""
        name = _name(key)
        if home == self._index:
            self._others.pop(name, None)
            self._held.setdefault(name, [])
            return
        self._release(name)
        if home is None:
            self._others.pop(name, None)
        else:
            self._others[name] = home

    def installed(self, key: SaKey) -> list[Stray]:
        """It is here now; what waited for it, in its order."""
        name = _name(key)
        self._others.pop(name, None)
        return self._release(name)

    def of(self, spi: int, destination: bytes) -> int | None:
        """Which other worker has the SA of a packet."""
        return self._others.get((spi, destination))

    def awaits(self, spi: int, destination: bytes) -> bool:
        return (spi, destination) in self._held

    def hold(self, spi: int, stray: Stray) -> bool:
        """For an SA that is awaited; whether there was room."""
        if self._count >= _MOST_HELD:
            return False
        self._count += 1
        self._held[spi, stray.destination].append(stray._replace(payload=bytes(stray.payload)))
        return True

    def _release(self, name: _Name) -> list[Stray]:
        held = self._held.pop(name, [])
        self._count -= len(held)
        return held
