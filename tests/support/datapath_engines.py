"""A user-space datapath in one piece, without IO: what the control process keeps, and both engines.

As in `UserspaceDatapath`, but nothing is sent anywhere, and the test tells the time.
"""

from __future__ import annotations

from collections import Counter

from oegw.datapath.interface import (
    DatapathEvent,
    Direction,
    IPAddress,
    SaExpired,
    SaKey,
    SecurityAssociation,
    UdpEncapsulation,
    Usage,
)
from oegw.datapath.userspace.engine import Action, EngineSettings
from oegw.datapath.userspace.inbound import InboundEngine
from oegw.datapath.userspace.installed import InstalledSas
from oegw.datapath.userspace.outbound import OutboundEngine
from oegw.datapath.userspace.record import Record, private_record
from oegw.datapath.userspace.transform import Random
from oegw.packet.ip import Buffer


class PrivateRecords:
    """`state.Memory` in this process alone."""

    def __init__(self) -> None:
        self.records: dict[int, Record] = {}
        self._last = 0

    def allocate(self, window: int = 0) -> int:
        self._last += 1
        self.records[self._last] = private_record(window)
        return self._last

    def record(self, offset: int) -> Record:
        return self.records[offset]

    def free(self, offset: int, window: int = 0) -> None:
        del self.records[offset]


class Engines:
    """``counters`` and ``events`` are those of both directions."""

    def __init__(self, settings: EngineSettings, random: Random) -> None:
        self.counters: Counter[str] = Counter()
        self.events: list[DatapathEvent] = []
        self.sealing = OutboundEngine(settings, random, self.counters)
        self.opening = InboundEngine(settings, random, self.counters)
        self._records = PrivateRecords()
        self._sas = InstalledSas(self._records, (4, 6), 4500)

    def install(self, sa: SecurityAssociation, now: float) -> None:
        installed = self._sas.install(sa, now)
        record = self._records.record(installed.offset)
        if sa.direction is Direction.OUTBOUND:
            self.sealing.install(sa, record)
        else:
            self.opening.install(sa, record)

    def remove(self, key: SaKey) -> Usage | None:
        removed = self._sas.remove(key)
        if removed is None:
            return None
        self._of(key).remove(key)
        usage = removed.usage
        self._sas.release(removed)
        return usage

    def move(
        self,
        key: SaKey,
        source: IPAddress,
        destination: IPAddress,
        encapsulation: UdpEncapsulation | None,
    ) -> SaKey:
        moved = self._sas.move(key, source, destination, encapsulation)
        self._of(key).move(key, source, destination, encapsulation)
        return moved.sa.key

    def prefer(self, key: SaKey) -> None:
        self._sas.prefer(key)
        self.sealing.prefer(key)

    def set_path_mtu(self, peer: IPAddress, mtu: int, now: float) -> None:
        self.sealing.set_path_mtu(peer, mtu, now)
        self.opening.set_path_mtu(peer, mtu)

    def usage(self) -> dict[SaKey, Usage]:
        return self._sas.usage()

    def next_deadline(self) -> float | None:
        return self._sas.next_deadline()

    def expire_due(self, now: float) -> None:
        self.events += self._sas.expire_due(now)

    def outbound(self, packet: bytes, now: float) -> list[Action]:
        actions = self.sealing.outbound(packet, now)
        self._hear(self.sealing.events)
        return actions

    def inbound(
        self,
        esp: Buffer,
        source: bytes,
        destination: bytes,
        outer_class: int,
        source_port: int | None,
        now: float,
    ) -> list[Action]:
        actions = self.opening.inbound(esp, source, destination, outer_class, source_port, now)
        self._hear(self.opening.events)
        return actions

    def _of(self, key: SaKey) -> OutboundEngine | InboundEngine:
        return self.sealing if key.direction is Direction.OUTBOUND else self.opening

    def _hear(self, events: list[DatapathEvent]) -> None:
        self.events += [
            event
            for event in events
            if not isinstance(event, SaExpired) or self._sas.first_said(event)
        ]
        events.clear()
