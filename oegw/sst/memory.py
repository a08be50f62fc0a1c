"""The plane without a kernel: what would become of each packet, for tests.

    plane.leave(packet)      a packet on its way out    -> passed, dropped, or caught
    plane.arrive(packet)     a packet from outside      -> passed, dropped, or caught

Entries rewrite packets here with nothing but ports, flag and checksums, as the kernel's maps do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from struct import Struct

from oegw.packet.checksum import updated_checksum
from oegw.packet.flow import flow_of
from oegw.packet.ip import TCP, UDP, PacketError
from oegw.sst.interface import (
    Caught,
    Entry,
    IPAddress,
    Leg,
    Listener,
    PortFlow,
    Reason,
    SstError,
    Way,
)
from oegw.sst.permutation import NotEligible
from oegw.sst.place import CHECKSUM, PORTED, Fragment, Place, place_of
from oegw.sst.probe import is_probe
from oegw.sst.quote import quote_of
from oegw.sst.settings import SstSettings
from oegw.sst.signal import Signal
from policy.flow import Flow
from policy.rule import Sst, SstStrength
from policy.table import PolicyTable

_TWO_PORTS = Struct("!HH")
_WORD = Struct("!H")
_DONT_FRAGMENT = 0x4000


@dataclass(frozen=True, slots=True)
class Passed:
    """A packet that went on its way, as it then was."""

    way: Way
    leg: Leg
    packet: bytes


class Connections:
    """Connection tracking: it outlives a plane, as the kernel's does.  By flow, seen from our side:
    whether it is sticky, and its epoch."""

    def __init__(self) -> None:
        self._marks: dict[PortFlow, tuple[bool, int | None]] = {}
        self._came_in: set[PortFlow] = set()

    def track(self, flow: PortFlow, way: Way) -> None:
        if flow not in self._marks:
            self._marks[flow] = (False, None)
            if way is Way.OPEN:
                self._came_in.add(flow)

    def came_in(self, flow: PortFlow) -> bool:
        """Whether it began with a packet from outside."""
        return flow in self._came_in

    def mark(self, flow: PortFlow, epoch: int) -> None:
        self._marks[flow] = (True, epoch)

    def knows(self, flow: PortFlow) -> bool:
        """Either side may have begun it, so a flow of this side is a connection."""
        return flow in self._marks

    def mark_of(self, flow: PortFlow) -> tuple[bool, int | None]:
        return self._marks.get(flow, (False, None))

    def epochs(self) -> frozenset[int]:
        """Those of connections that were sealed or opened."""
        return frozenset(e for sticky, e in self._marks.values() if sticky and e is not None)


_Inward = tuple[Leg, IPAddress, IPAddress, int, int, int]


class MemoryPlane:
    """Stands behind `interface.Plane`.  ``clock``: monotonic seconds."""

    def __init__(
        self,
        settings: SstSettings,
        clock: Callable[[], float],
        connections: Connections | None = None,
    ) -> None:
        self.connections = connections or Connections()
        self.passed: list[Passed] = []
        self.caught: list[Caught] = []
        self.waiting: dict[int, Caught] = {}
        self.entries: dict[tuple[Leg, PortFlow], tuple[Entry, float]] = {}
        self.shields: set[tuple[IPAddress, IPAddress]] = set()
        self._settings = settings
        self._signal = Signal.of(settings)
        self._clock = clock
        self._inward: dict[_Inward, tuple[Leg, PortFlow]] = {}
        self._declined: dict[tuple[Leg, PortFlow], float] = {}
        self._table: PolicyTable | None = None
        self._listener: Listener | None = None
        self._number = 0
        self._counters: Counter[str] = Counter()

    # -------------------------------------------------------------- Plane

    async def start(self, table: PolicyTable, listener: Listener) -> None:
        self._table, self._listener = table, listener

    async def replace_policy(self, table: PolicyTable) -> None:
        if self._table is None:
            raise SstError("the plane was not started")
        self._table = table

    async def mend(self) -> tuple[str, ...]:
        return ()

    async def mend_jump(self, thorough: bool) -> tuple[str, ...]:
        return ()

    async def close(self) -> None:
        self._listener = None
        self.waiting.clear()

    def enter(self, entry: Entry) -> bool:
        place = entry.leg, entry.flow
        if place not in self.entries and len(self.entries) >= self._settings.flows:
            self._expire()
            if len(self.entries) >= self._settings.flows:
                return False
        self._remove(place)
        self._declined.pop(place, None)
        self.entries[place] = entry, self._clock() + entry.lifespan
        self._inward[_inward(entry)] = place
        return True

    def decline(self, leg: Leg, flow: PortFlow, lifespan: float) -> None:
        self._remove((leg, flow))
        self._declined[leg, flow] = self._clock() + lifespan

    def forget(self, leg: Leg, remote: IPAddress | None = None) -> None:
        for place in [*self.entries, *self._declined]:
            if place[0] is leg and remote in (None, place[1].remote):
                self._remove(place)
                self._declined.pop(place, None)

    def shield(self, local: IPAddress, remote: IPAddress) -> None:
        self.shields.add((local, remote))

    def unshield(self, local: IPAddress, remote: IPAddress) -> None:
        self.shields.discard((local, remote))

    def release(self, number: int, packet: bytes | None = None, epoch: int | None = None) -> None:
        caught = self.waiting.pop(number)
        if packet is not None:
            plain = caught.packet if caught.way is Way.SEAL else packet
            self._pass(caught.way, caught.leg, packet)
            self._track(caught.way, plain, epoch)
        elif caught.way is Way.SEAL:
            self._release_out(caught)
        else:
            self._release_in(caught)

    def drop(self, number: int) -> None:
        del self.waiting[number]
        self._counters["dropped"] += 1

    def counters(self) -> dict[str, int]:
        return dict(self._counters)

    # ------------------------------------------------------------ packets

    def leave(
        self, packet: bytes, leg: Leg = Leg.OUTSIDE, *, asked: bool = False, own: bool = False
    ) -> None:
        """A packet that is about to leave.  ``own``: the gateway sends it itself."""
        try:
            place = place_of(packet)
        except (NotEligible, PacketError):
            self._leave_without_ports(packet, leg, asked=asked, own=own)
            return
        flow = _flow(place, Way.SEAL)
        sticky, epoch = self.connections.mark_of(flow)
        shielded = (flow.local, flow.remote) in self.shields
        if own and not shielded and not sticky:
            self._leave_clear(packet, leg)
            return
        entry = self._entry(leg, flow)
        if self.connections.came_in(flow) and not sticky and not shielded:
            self._answer_in_clear(packet, leg)
        elif entry is not None and place.fragment is Fragment.WHOLE:
            self._sealed(packet, place, entry)
        elif self._is_declined(leg, flow):
            self._leave_clear(packet, leg)
        elif shielded or sticky or asked or self._wanted(packet, leg):
            whole = place.fragment is Fragment.WHOLE
            reason = Reason.UNKNOWN_FLOW if whole else Reason.FRAGMENT
            self._catch(
                Caught(0, Way.SEAL, leg, reason, packet, asked, sticky, epoch if sticky else None)
            )
        else:
            self._leave_clear(packet, leg)

    def arrive(self, packet: bytes, leg: Leg = Leg.OUTSIDE) -> None:
        """A packet that has come from outside, or out of the tunnel."""
        flagged = self._signal.flagged(packet)
        if is_probe(packet):
            self._catch(Caught(0, Way.OPEN, leg, Reason.PROBE, packet, flagged=flagged))
            return
        if not flagged:
            self._arrive_clear(packet, leg)
            return
        try:
            place = place_of(packet)
        except (NotEligible, PacketError):
            self._catch(Caught(0, Way.OPEN, leg, Reason.UNKNOWN_FLOW, packet, flagged=True))
            return
        entry = self._entry_inward(leg, place)
        if entry is not None and place.fragment is not Fragment.LATER:
            self._opened(packet, place, entry)
            return
        whole = place.fragment is Fragment.WHOLE
        reason = Reason.UNKNOWN_FLOW if whole else Reason.FRAGMENT
        self._catch(Caught(0, Way.OPEN, leg, reason, packet, flagged=True))

    # ------------------------------------------------------------ details

    def _leave_without_ports(self, packet: bytes, leg: Leg, *, asked: bool, own: bool) -> None:
        try:
            quoted = quote_of(packet)
        except (NotEligible, PacketError):
            quoted = None
        if quoted is not None and quoted.source_port is not None:
            flow = _flow(quoted, Way.OPEN)
            sticky, epoch = self.connections.mark_of(flow)
            if sticky or not self.connections.knows(flow):
                self._catch(
                    Caught(0, Way.SEAL, leg, Reason.QUOTE, packet, sticky=sticky, epoch=epoch)
                )
                return
        if not own and _has_ports(packet) and (asked or self._wanted(packet, leg)):
            self._catch(Caught(0, Way.SEAL, leg, Reason.UNKNOWN_FLOW, packet, asked))
            return
        self._leave_clear(packet, leg)

    def _answer_in_clear(self, packet: bytes, leg: Leg) -> None:
        """Its ports were read on the way in."""
        if self._required(packet, leg):
            self._counters["answer_dropped"] += 1
        else:
            self._leave_clear(packet, leg)

    def _arrive_clear(self, packet: bytes, leg: Leg) -> None:
        try:
            quoted = quote_of(packet)
        except (NotEligible, PacketError):
            quoted = None
        if quoted is not None and self._signal.flagged(packet, quoted.start):
            self._catch(Caught(0, Way.OPEN, leg, Reason.QUOTE, packet))
            return
        self._pass(Way.OPEN, leg, packet)
        self._track(Way.OPEN, packet, None)

    def _leave_clear(self, packet: bytes, leg: Leg) -> None:
        self._counters["clear"] += 1
        self._pass(Way.SEAL, leg, self._signal.cleared(packet))
        self._track(Way.SEAL, packet, None)

    def _release_out(self, caught: Caught) -> None:
        flow = None
        try:
            place = place_of(caught.packet)
            flow = _flow(place, Way.SEAL)
        except (NotEligible, PacketError):
            place = None
        entry = None if flow is None else self._entry(caught.leg, flow)
        if place is not None and entry is not None:
            self._sealed(caught.packet, place, entry)
        elif caught.reason is not Reason.QUOTE and self._required(caught.packet, caught.leg):
            self._counters["seal_missed"] += 1
        else:
            self._leave_clear(caught.packet, caught.leg)

    def _release_in(self, caught: Caught) -> None:
        try:
            place = place_of(caught.packet)
        except (NotEligible, PacketError):
            place = None
        entry = None if place is None else self._entry_inward(caught.leg, place)
        if place is not None and entry is not None:
            self._opened(caught.packet, place, entry)
        else:
            self._pass(Way.OPEN, caught.leg, caught.packet)

    def _catch(self, caught: Caught) -> None:
        if self._listener is None:  # no reader, no packet
            self._counters["no_reader"] += 1
            return
        self._number += 1
        caught = replace(caught, number=self._number)
        self.waiting[caught.number] = caught
        self.caught.append(caught)
        self._counters["caught"] += 1
        self._listener(caught)

    def _sealed(self, packet: bytes, place: Place, entry: Entry) -> None:
        octets = bytearray(packet)
        _rewrite(octets, place, entry.sealed_local, entry.sealed_remote)
        self._signal.flag(octets)
        if place.version == 4:
            field = _WORD.unpack_from(octets, 6)[0]
            check = _WORD.unpack_from(octets, 10)[0]
            _WORD.pack_into(octets, 6, field | _DONT_FRAGMENT)
            old = field.to_bytes(2, "big")
            _WORD.pack_into(octets, 10, updated_checksum(check, old, octets[6:8]))
        self._counters["sealed"] += 1
        self._pass(Way.SEAL, entry.leg, bytes(octets))
        self.connections.mark(entry.flow, entry.epoch)

    def _opened(self, packet: bytes, place: Place, entry: Entry) -> None:
        octets = bytearray(packet)
        _rewrite(octets, place, entry.flow.remote_port, entry.flow.local_port)
        self._signal.clear(octets)
        self._counters["opened"] += 1
        self._pass(Way.OPEN, entry.leg, bytes(octets))
        self.connections.mark(entry.flow, entry.epoch)

    def _pass(self, way: Way, leg: Leg, packet: bytes) -> None:
        self.passed.append(Passed(way, leg, packet))

    def _track(self, way: Way, plain: bytes, epoch: int | None) -> None:
        try:
            place = place_of(plain)
        except (NotEligible, PacketError):
            return
        if place.source_port is None:
            return
        flow = _flow(place, way)
        self.connections.track(flow, way)
        if epoch is not None:
            self.connections.mark(flow, epoch)

    def _entry(self, leg: Leg, flow: PortFlow) -> Entry | None:
        entry, end = self.entries.get((leg, flow), (None, 0.0))
        return entry if end > self._clock() else None

    def _entry_inward(self, leg: Leg, place: Place) -> Entry | None:
        sealed = _flow(place, Way.OPEN)
        key = (
            leg, sealed.local, sealed.remote, sealed.protocol, sealed.local_port,
            sealed.remote_port,
        )  # fmt: skip
        where = self._inward.get(key)
        return None if where is None else self._entry(*where)

    def _is_declined(self, leg: Leg, flow: PortFlow) -> bool:
        return self._declined.get((leg, flow), 0.0) > self._clock()

    def _remove(self, place: tuple[Leg, PortFlow]) -> None:
        entry, _ = self.entries.pop(place, (None, 0.0))
        if entry is not None:
            self._inward.pop(_inward(entry), None)

    def _expire(self) -> None:
        now = self._clock()
        for place in [place for place, (_, end) in self.entries.items() if end <= now]:
            self._remove(place)

    def _wanted(self, packet: bytes, leg: Leg) -> bool:
        wanted = Sst.ONLY if leg is Leg.OUTSIDE else Sst.INNER
        assert self._table is not None
        return self._table.lookup(_selectors(packet)).rule.sst is wanted

    def _required(self, packet: bytes, leg: Leg) -> bool:
        assert self._table is not None
        rule = self._table.lookup(_selectors(packet)).rule
        return self._wanted(packet, leg) and rule.sst_strength is SstStrength.REQUIRED


def _selectors(packet: bytes) -> Flow:
    return flow_of(packet)


def _has_ports(packet: bytes) -> bool:
    try:
        return flow_of(packet).protocol in PORTED
    except PacketError:
        return False


def _inward(entry: Entry) -> _Inward:
    flow = entry.flow
    return (
        entry.leg, flow.local, flow.remote, flow.protocol, entry.sealed_local, entry.sealed_remote,
    )  # fmt: skip


def _flow(place: Place, way: Way) -> PortFlow:
    """The flow of a packet, from our side; a later fragment's has no ports."""
    source, destination = _address(place.source), _address(place.destination)
    ports = place.source_port or 0, place.destination_port or 0
    if way is Way.SEAL:
        return PortFlow(source, destination, place.protocol, *ports)
    return PortFlow(destination, source, place.protocol, ports[1], ports[0])


def _address(packed: bytes) -> IPAddress:
    return IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)


def _rewrite(octets: bytearray, place: Place, source_port: int, destination_port: int) -> None:
    """Put ports in, and the transport checksum right, as nft does it."""
    offset = place.offset
    old = bytes(octets[offset : offset + 4])
    _TWO_PORTS.pack_into(octets, offset, source_port, destination_port)
    where = offset + CHECKSUM[place.protocol]
    check = _WORD.unpack_from(octets, where)[0]
    if place.protocol == UDP and check == 0:
        return
    check = updated_checksum(check, old, octets[offset : offset + 4])
    if place.protocol == UDP or (place.protocol == TCP and check == 0):
        check = check or 0xFFFF  # sst.md section 14.1
    _WORD.pack_into(octets, where, check)
