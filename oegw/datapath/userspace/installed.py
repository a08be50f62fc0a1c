"""All SAs as the control process sees them, sans IO: which there are, where their records are, and
whose time runs out.  It is what the workers are to have; each of them is told its part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Protocol

from oegw.datapath.checks import check_sa
from oegw.datapath.interface import (
    DatapathError,
    Direction,
    IPAddress,
    SaExpired,
    SaKey,
    SecurityAssociation,
    UdpEncapsulation,
    Usage,
)
from oegw.datapath.userspace.deadlines import Deadlines
from oegw.datapath.userspace.record import EXPIRED, SOFTENED, Record


class Records(Protocol):
    """`state.Memory`: the records themselves."""

    def allocate(self, window: int = 0) -> int: ...
    def record(self, offset: int) -> Record: ...
    def free(self, offset: int, window: int = 0) -> None: ...


class Installed:
    """One SA.  ``softened`` and ``expired``: that this was reported.

    Of an inbound one, ``home`` is the opening worker that has it, None while none has, and ``told``
    its name there.
    """

    __slots__ = (
        "expired",
        "hard_at",
        "home",
        "offset",
        "record",
        "sa",
        "serial",
        "softened",
        "told",
    )

    def __init__(self, sa: SecurityAssociation, serial: int, offset: int, record: Record) -> None:
        self.sa = sa
        self.serial = serial
        self.offset = offset
        self.record = record
        self.softened = False
        self.expired = False
        self.hard_at: float | None = None  # a time
        self.home: int | None = None
        self.told = sa.key

    @property
    def usage(self) -> Usage:
        _, packets, octets, used = self.record.used
        return Usage(packets, octets, used / 1e9 if used else None)

    @property
    def window(self) -> int:
        """As records are allocated."""
        return self.sa.replay_window if self.sa.direction is Direction.INBOUND else 0


class InstalledSas:
    """``versions``: of IP, that there are outer sockets of; ``port``: of ESP in UDP, if any."""

    def __init__(self, records: Records, versions: tuple[int, ...], port: int | None) -> None:
        self._records = records
        self._versions = versions
        self._port = port
        self._sas: dict[SaKey, Installed] = {}
        self._deadlines: Deadlines[Installed] = Deadlines()
        self._peers: Counter[IPAddress] = Counter()  # how many outbound SAs send there
        self._serial = 0

    def __iter__(self) -> Iterator[Installed]:
        """The oldest first; one that was preferred counts as new."""
        return iter(sorted(self._sas.values(), key=lambda installed: installed.serial))

    def install(self, sa: SecurityAssociation, now: float) -> Installed:
        """Raises DatapathError; then nothing is installed."""
        check_sa(sa)
        self._check_way(sa.key, sa.encapsulation)
        self._require_free(sa.key)
        window = sa.replay_window if sa.direction is Direction.INBOUND else 0
        try:
            offset = self._records.allocate(window)
        except OSError as error:
            raise DatapathError(
                f"SA {sa.spi:#010x}: no memory for its record: {error.strerror}"
            ) from None
        self._serial += 1
        added = Installed(sa, self._serial, offset, self._records.record(offset))
        self._sas[sa.key] = added
        self._count_peer(sa.key, 1)
        if sa.hard_seconds is not None:
            added.hard_at = now + sa.hard_seconds
        lifetimes = [
            seconds for seconds in (sa.soft_seconds, sa.hard_seconds) if seconds is not None
        ]
        if lifetimes:
            self._deadlines.set(added, now + min(lifetimes))
        return added

    def remove(self, key: SaKey) -> Installed | None:
        """The SA that was removed, or None.  Its record is to be freed by ``release``."""
        installed = self._sas.pop(key, None)
        if installed is not None:
            self._deadlines.discard(installed)
            self._count_peer(key, -1)
        return installed

    def release(self, removed: Installed) -> None:
        """No worker knows ``removed`` any more."""
        self._records.free(removed.offset, removed.window)

    def move(
        self,
        key: SaKey,
        source: IPAddress,
        destination: IPAddress,
        encapsulation: UdpEncapsulation | None,
    ) -> Installed:
        """Other outer addresses and ports for an SA; all else goes on.

        Raises DatapathError; then the SA is as before.
        """
        installed = self._sas.get(key)
        if installed is None:
            raise DatapathError(f"SA {key.spi:#010x}: there is none to move")
        moved = replace(
            installed.sa, source=source, destination=destination, encapsulation=encapsulation
        )
        check_sa(moved)
        self._check_way(moved.key, encapsulation)
        if moved.key != key:
            self._require_free(moved.key)
            del self._sas[key]
            self._sas[moved.key] = installed
            self._count_peer(key, -1)
            self._count_peer(moved.key, 1)
        installed.sa = moved
        return installed

    def prefer(self, key: SaKey) -> Installed:
        """Of the outbound SAs with the same selectors, this one sends from now on.

        Raises DatapathError; then nothing has changed.
        """
        installed = self._sas.get(key)
        if installed is None or key.direction is not Direction.OUTBOUND:
            raise DatapathError(f"SA {key.spi:#010x}: there is none to send by")
        if installed.record.flag(EXPIRED):
            raise DatapathError(f"SA {key.spi:#010x}: it has expired")
        self._serial += 1
        installed.serial = self._serial
        return installed

    def has(self, installed: Installed) -> bool:
        """Whether it was not removed."""
        return self._sas.get(installed.sa.key) is installed

    def sends_to(self, peer: IPAddress) -> bool:
        """Whether there is an outbound SA to ``peer``."""
        return peer in self._peers

    def usage(self) -> dict[SaKey, Usage]:
        return {key: installed.usage for key, installed in self._sas.items()}

    # Limits.

    def next_deadline(self) -> float | None:
        """When ``expire_due`` has something to do."""
        return self._deadlines.next()

    def expire_due(self, now: float) -> list[SaExpired]:
        """What is to be reported of SAs whose time is over, or nearly; the former carry nothing
        more, as their workers see in the record."""
        events = []
        for installed in self._deadlines.due(now):
            hard = installed.hard_at is not None and now >= installed.hard_at
            installed.record.set_flag(EXPIRED if hard else SOFTENED)
            event = SaExpired(installed.sa.key, hard)
            if self.first_said(event):
                events.append(event)
            if not hard and installed.hard_at is not None:
                self._deadlines.set(installed, installed.hard_at)
        return events

    def first_said(self, event: SaExpired) -> bool:
        """Whether to report what a worker says: each limit of an SA once."""
        installed = self._sas.get(event.key)
        if installed is None:
            return False
        said = installed.expired if event.hard else installed.softened
        if event.hard:
            installed.expired = True
        else:
            installed.softened = True
        return not said

    def unsaid(self, among: Iterable[Installed] | None = None) -> list[SaExpired]:
        """Limits that were reached, and whose worker did not come to say so; None: of all SAs."""
        events = [
            SaExpired(installed.sa.key, hard)
            for installed in (self._sas.values() if among is None else among)
            for hard, flag in ((False, SOFTENED), (True, EXPIRED))
            if installed.record.flag(flag)
        ]
        return [event for event in events if self.first_said(event)]

    # Steps.

    def _require_free(self, key: SaKey) -> None:
        if key in self._sas:
            raise DatapathError(f"SA {key.spi:#010x}: one with this SPI and destination exists")

    def _check_way(self, key: SaKey, encapsulation: UdpEncapsulation | None) -> None:
        """Raises DatapathError if no socket of ours sends or receives so."""
        if key.destination.version not in self._versions or (encapsulation and self._port is None):
            raise DatapathError(f"SA {key.spi:#010x}: no socket for its outer packets")
        if encapsulation is None:
            return
        outbound = key.direction is Direction.OUTBOUND
        port = encapsulation.source_port if outbound else encapsulation.destination_port
        if port != self._port:
            raise DatapathError(f"SA {key.spi:#010x}: our own port {port}, not {self._port}")

    def _count_peer(self, key: SaKey, change: int) -> None:
        if key.direction is Direction.OUTBOUND:
            self._peers[key.destination] += change
            if not self._peers[key.destination]:
                del self._peers[key.destination]
