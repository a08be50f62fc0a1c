"""The worker inbound: ``python -m oegw.datapath.userspace.opening CONTROL``.

From its sockets to the tunnel device, in batches: the core does what is ordinary, the engine what
needs care.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

from oegw.datapath.interface import (
    DatapathError,
    DatapathEvent,
    Direction,
    IPAddress,
    SaExpired,
    SaKey,
    SecurityAssociation,
    UdpEncapsulation,
)
from oegw.datapath.userspace.core.choice import choose
from oegw.datapath.userspace.core.flows import key_of
from oegw.datapath.userspace.core.interface import Unchecked, Unopened
from oegw.datapath.userspace.core.virtio import HEADER
from oegw.datapath.userspace.counters import CounterPage
from oegw.datapath.userspace.engine import Deliver, EngineSettings
from oegw.datapath.userspace.equipment import Equipment
from oegw.datapath.userspace.gathering import Gathering
from oegw.datapath.userspace.homes import Homes
from oegw.datapath.userspace.inbound import InboundEngine
from oegw.datapath.userspace.offloads import Offload
from oegw.datapath.userspace.outside import KEEPALIVE, Handle
from oegw.datapath.userspace.record import Record
from oegw.datapath.userspace.strays import Stray, StrayDesk, received
from oegw.datapath.userspace.vainreading import PATIENT, VainReading
from oegw.datapath.userspace.worker import CannotGoOnError, run

# Our choices.
_STRAYS_PER_TURN = 64
_TURNS_OF_STRAYS = 64  # before an SA goes: more do not wait


class Opening:
    """See `worker.Duty`."""

    def __init__(self, equipment: Equipment, counters: CounterPage) -> None:
        settings = EngineSettings(equipment.mtu, equipment.dont_fragment)
        choice = choose(equipment.core)
        self.core = choice.name, choice.reason, choice.libraries
        self._core = choice.opening(equipment.virtio, equipment.uso, os.urandom)
        self._engine = InboundEngine(settings, os.urandom, counters)
        self.events: list[DatapathEvent] = self._engine.events
        self.measured: list[tuple[IPAddress, int]] = []  # it sends nothing, and measures nothing
        self.lost: list[Offload] = []  # nor does it lose what the kernel joins
        self._counters = counters
        self._device = equipment.device
        self._strays = StrayDesk(equipment.strays)
        self._stray_end = equipment.stray
        self._homes = Homes(equipment.index)
        self._empty_header = bytes(HEADER.size) if equipment.virtio else b""
        self._vain = VainReading()  # the loop's
        self._gathering = Gathering(counters.gather_from)
        self._loop = self._core.loop(self._device, equipment.outer, counters, self._gathering)
        self.loop: Callable[[int], None] | None = self._run_loop if self._loop else None
        self.attended = self._loop.attended if self._loop else ()
        self.turns: dict[int, Callable[[], None]] = {}
        if self._loop is None:
            self.turns = {handle.descriptor: self._turn_of(handle) for handle in equipment.outer}
        if equipment.stray >= 0:
            self.turns[equipment.stray] = self._stray_turn

    # Control.

    def install(self, sa: SecurityAssociation, record: Record) -> None:
        if sa.direction is not Direction.INBOUND:
            raise DatapathError(f"SA {sa.spi:#010x}: it does not receive")
        added = self._engine.install(sa, record)
        try:
            self._core.install(added)
        except BaseException:
            self._engine.remove(sa.key)
            raise
        waited = self._homes.installed(sa.key)
        if waited:
            self._open_strays(waited)

    def set_home(self, key: SaKey, home: int | None) -> None:
        self._homes.set(key, home)

    def remove(self, key: SaKey) -> None:
        for _ in range(_TURNS_OF_STRAYS if self._stray_end >= 0 else 0):
            # If it moves to another worker, that one sends nothing more, and these came before.
            if not self._take_strays():
                break
        removed = self._engine.remove(key)
        if removed is not None:
            self._core.remove(removed)

    def move(
        self,
        key: SaKey,
        source: IPAddress,
        destination: IPAddress,
        encapsulation: UdpEncapsulation | None,
    ) -> None:
        before = self._engine.find(key)
        if before is None:
            raise DatapathError(f"SA {key.spi:#010x}: there is none to move")
        self._core.remove(before)  # its name may be another then
        self._engine.move(key, source, destination, encapsulation)
        self._core.install(before)

    def prefer(self, key: SaKey) -> None:
        raise DatapathError(f"SA {key.spi:#010x}: there is none to send by")

    def set_path_mtu(self, peer: IPAddress, mtu: int) -> None:
        self._engine.set_path_mtu(peer, mtu)

    def begin(self) -> None:
        self._gathering.begin()

    # Packets.

    def _turn_of(self, outer: Handle) -> Callable[[], None]:
        core, counters, gathering = self._core, self._counters, self._gathering
        descriptor, version, encapsulated = outer.descriptor, outer.version, outer.encapsulated
        vain = VainReading()

        def turn() -> None:
            try:
                filled = core.fill(descriptor, version, encapsulated)
            except OSError as error:  # an ICMP error of something that we sent, or a lasting one
                counters["drop_in_socket"] += 1
                _wait_or_give_up(vain, error)
                return
            vain.read()
            if not filled:
                return
            now = time.monotonic()
            while (care := core.open(now)) is not None:
                self._care(care, encapsulated, now)
            # Who asks on account of a packet finds it counted.
            packets = self._count()
            lost = core.deliver(self._device)
            if lost:
                counters["drop_in_device"] += lost
            self._look(now)
            gathering.came(max(filled, packets), now)  # behind what they wait for

        return turn

    def _run_loop(self, polled: int) -> None:
        """The core's turns, and in between what it hands back."""
        loop = self._loop
        assert loop is not None
        while not self.events:
            try:
                said = loop.turn(polled)
            except OSError as error:
                if loop.errors() <= PATIENT + 1:
                    self._vain.read()  # it could be, since the last time
                _wait_or_give_up(self._vain, error)
                return  # who controls us is heard in between
            if said is False:
                return
            now = time.monotonic()
            if said is True:
                self._look(now)
            else:
                self._care(*said, now)

    def _care(self, care: Unopened | Unchecked, encapsulated: bool, now: float) -> None:
        engine = self._engine
        if isinstance(care, Unchecked):
            sa, next_header, payload, outer_class = care
            for action in engine.checked(sa, next_header, payload, outer_class):
                assert isinstance(action, Deliver)
                self._core.append(action.packet)
                key = key_of(payload)
                if key is not None:
                    self._core.learn(key, sa)
            return
        payload, source, port, destination, outer_class = care
        if encapsulated and payload == KEEPALIVE:
            # It says nothing of any SA (RFC 3948 section 4): whoever likes may send it.
            self._counters["keepalives"] += 1
            return
        if self._went_on(Stray(*care, encapsulated)):
            return
        source_port = port if encapsulated else None
        for action in engine.inbound(payload, source, destination, outer_class, source_port, now):
            assert isinstance(action, Deliver)
            self._core.append(action.packet)

    def _went_on(self, came: Stray) -> bool:
        """Whether it was not for this worker, or not yet; then it goes to whom it is for, waits,
        or is lost.  What nobody has an SA for stays here."""
        spi = came.spi
        if spi is None or self._engine.has(spi, came.destination):
            return False
        if came.encapsulated and spi == 0:
            place: int | None = self._strays.keying
        else:
            if self._homes.awaits(spi, came.destination):
                if not self._homes.hold(spi, came):
                    self._counters["drop_in_stray"] += 1
                return True
            place = self._homes.of(spi, came.destination)
        if place is None:
            return False
        if not self._strays.send(place, came):
            self._counters["drop_in_stray"] += 1
        return True

    def _stray_turn(self) -> None:
        self._take_strays()

    def _take_strays(self) -> bool:
        """What came to another socket than ours; whether there was anything."""
        came = received(self._stray_end, _STRAYS_PER_TURN)
        self._open_strays([each for each in came if not self._went_on(each)])
        return bool(came)

    def _open_strays(self, strays: list[Stray]) -> None:
        now = time.monotonic()
        for payload, source, port, destination, outer_class, encapsulated, _ in strays:
            for action in self._engine.inbound(
                payload, source, destination, outer_class, port if encapsulated else None, now
            ):
                assert isinstance(action, Deliver)
                try:
                    os.writev(self._device, (self._empty_header, action.packet))
                except OSError:
                    self._counters["drop_in_device"] += 1
        self._count()
        self._look(now)

    def _count(self) -> int:
        """The packets that were carried since the last time."""
        counters, counted = self._counters, self._core.counted()
        for name, count in counted.items():
            counters[name] += count
        return counted.get("esp_in_packets", 0)

    def _look(self, now: float) -> None:
        """What else the core saw in this batch."""
        for sa, peer in self._core.moved():
            self._engine.moved(sa, peer, now)
        for sa in self._core.softened():
            if sa.soften():
                self.events.append(SaExpired(sa.key, hard=False))


def _wait_or_give_up(vain: VainReading, error: OSError) -> None:
    number, now = error.errno or 0, time.monotonic()
    pause = vain.failed(number, now)
    reason = vain.reason(number, now)
    if reason is not None:
        raise CannotGoOnError(reason)
    if pause:
        time.sleep(pause)


if __name__ == "__main__":
    run(sys.argv[1:], Opening)
