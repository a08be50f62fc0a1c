"""The worker outbound: ``python -m oegw.datapath.userspace.sealing CONTROL``.

From its queue of the tunnel device to the Internet, in batches: the core does what is ordinary, the
engine what needs care.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable

from oegw.datapath.interface import (
    DatapathError,
    DatapathEvent,
    Direction,
    IPAddress,
    SaKey,
    SecurityAssociation,
    UdpEncapsulation,
)
from oegw.datapath.userspace.core.choice import choose
from oegw.datapath.userspace.core.cutting import cut
from oegw.datapath.userspace.core.flows import key_of
from oegw.datapath.userspace.core.interface import Frame, Run
from oegw.datapath.userspace.counters import CounterPage
from oegw.datapath.userspace.engine import (
    EngineSettings,
    RefreshPathMtu,
    SendEsp,
    SendIcmp,
)
from oegw.datapath.userspace.equipment import Equipment
from oegw.datapath.userspace.esp import OutboundSa
from oegw.datapath.userspace.gathering import Gathering
from oegw.datapath.userspace.offloads import Offload
from oegw.datapath.userspace.outbound import OutboundEngine
from oegw.datapath.userspace.outside import IcmpSocket, OuterSocket, PathProbe, Way
from oegw.datapath.userspace.record import Record
from oegw.datapath.userspace.worker import CannotGoOnError, run


class Sealing:
    """See `worker.Duty`."""

    def __init__(self, equipment: Equipment, counters: CounterPage) -> None:
        settings = EngineSettings(equipment.mtu, equipment.dont_fragment)
        choice = choose(equipment.core)
        self.core = choice.name, choice.reason, choice.libraries
        self._core = choice.sealing(equipment.virtio, os.urandom)
        self._engine = OutboundEngine(settings, os.urandom, counters)
        self.events: list[DatapathEvent] = self._engine.events
        self.measured: list[tuple[IPAddress, int]] = []
        self.lost: list[Offload] = []
        self._told: dict[IPAddress, int] = {}  # what the control process knows of paths
        self._counters = counters
        self._packets = counters.place("esp_out_packets")
        self._octets = counters.place("esp_out_octets")
        self._device = equipment.device
        self._mtu = equipment.mtu
        outer = [OuterSocket.adopt(handle, self.lost) for handle in equipment.outer]
        self._outer = {(each.version, each.encapsulated): each for each in outer}
        versions = {each.version for each in outer}
        self._icmp = {version: IcmpSocket(version, equipment.mark) for version in versions}
        self._paths = {version: PathProbe(version, equipment.mark) for version in versions}
        self._began = False
        self._gathering = Gathering(counters.gather_from)
        self._loop = self._core.loop(self._device, counters, self._gathering)
        self.loop: Callable[[int], None] | None = self._run_loop if self._loop else None
        self.attended = self._loop.attended if self._loop else ()
        self.turns: dict[int, Callable[[], None]] = {}
        if self._loop is None:
            self.turns[self._device] = self._turn

    # Control.

    def install(self, sa: SecurityAssociation, record: Record) -> None:
        if sa.direction is not Direction.OUTBOUND:
            raise DatapathError(f"SA {sa.spi:#010x}: it does not send")
        added = self._engine.install(sa, record)
        try:
            self._core.install(added)
        except BaseException:
            self._engine.remove(sa.key)
            raise
        self._core.forget()
        if self._began:
            self._measure(sa)

    def remove(self, key: SaKey) -> None:
        removed = self._engine.remove(key)
        if removed is not None:
            self._core.remove(removed)
            self._core.forget()
            self._forget_path(key)

    def move(
        self,
        key: SaKey,
        source: IPAddress,
        destination: IPAddress,
        encapsulation: UdpEncapsulation | None,
    ) -> None:
        moved = self._engine.move(key, source, destination, encapsulation)
        self._core.refresh(moved)
        self._forget_path(key)
        if self._began:
            self._measure(moved.sa)

    def prefer(self, key: SaKey) -> None:
        self._engine.prefer(key)
        self._core.forget()

    def set_path_mtu(self, peer: IPAddress, mtu: int) -> None:
        if self._engine.sends_to(peer):
            self._told[peer] = mtu
            self._take_path_mtu(peer, mtu)

    def set_home(self, key: SaKey, home: int | None) -> None:
        raise DatapathError(f"SA {key.spi:#010x}: it is asked for where none is received")

    def begin(self) -> None:
        self._began = True
        self._gathering.begin()
        for sa in self._engine.one_for_each_peer():
            self._measure(sa.sa)

    # Packets.

    def _turn(self) -> None:
        """One batch: what comes meanwhile, waiting tells, and costs no more than a vain read."""
        core = self._core
        try:
            frames = core.fill(self._device)
        except OSError as error:
            self._not_read(error)
            return
        if not frames:
            return
        now = time.monotonic()
        packets = 0
        care: int | None = 0
        while care is not None:
            runs, care = core.seal(now)
            for each in runs:
                self._send_run(each, now)
                packets += each.count
            if care is not None:
                self._care(core.frame(care), now)
        self._gathering.came(max(frames, packets), now)  # behind what they wait for

    def _run_loop(self, polled: int) -> None:
        """The core's turns, and in between what it hands back."""
        loop = self._loop
        assert loop is not None
        while not (self.events or self.measured or self.lost):
            try:
                said = loop.turn(polled)
            except OSError as error:
                self._not_read(error)
                continue
            if said is None:
                return
            for outer in self._outer.values():
                outer.forget_options()
            now = time.monotonic()
            if isinstance(said, int):
                self._care(self._core.frame(said), now)
                continue
            self._send_run(said, now)
            sa = said.sa
            way: Way = sa.way or self._way_of(sa)
            loop.way(sa, way.until(sa.mtu_until))

    def _not_read(self, error: OSError) -> None:
        if error.errno == errno.EBADFD:
            raise CannotGoOnError("the tunnel device is gone") from None
        self._counters["drop_out_device"] += 1

    def _send_run(self, each: Run, now: float) -> None:
        sa, counters = each.sa, self._counters
        self._packets[0] += each.count
        self._octets[0] += each.octets
        way: Way = sa.way or self._way_of(sa)
        sent, error = way.outer.send_run(each, way)
        if self._engine.carried(sa, now):
            self._measure(sa.sa)
        if not error:
            return
        lost = each.count - sent
        if error == errno.EMSGSIZE:
            counters["drop_out_path_mtu"] += lost
            self._measure(sa.sa)
            # Now the engine knows, and tells the senders.  Of a frame that was sent in part, that
            # part goes twice, under other numbers: seldom, and no harm to who gets it.
            for index in range(each.first, each.last + 1):
                self._care(self._core.frame(index), now)
        elif error == errno.EAGAIN:
            counters["drop_out_queue"] += lost
        else:
            counters["drop_out_socket"] += lost

    def _care(self, frame: Frame, now: float) -> None:
        """Each packet of a frame through the engine; the core learns whose flow it is.

        One answer says to the sender of a super-packet all that there is to say.
        """
        counters, learned = self._counters, False
        answered = counters["icmp_too_big"]
        packets = cut(frame.header, frame.packet)
        if not packets:
            counters["drop_out_frame"] += 1
        for packet in packets:
            sa = self._outbound(packet, now, counters["icmp_too_big"] == answered)
            if sa is None or learned:
                continue
            learned = True
            key = key_of(packet)
            if key is not None:
                self._core.learn(key, sa)

    def _outbound(self, packet: bytes, now: float, answers: bool) -> OutboundSa | None:
        """The SA that the packet was sent by."""
        sa, fits = self._execute(packet, now, answers)
        if not fits:
            # The path got narrower: now the engine knows, and tells the sender.
            sa, _ = self._execute(packet, now, answers)
        return sa

    def _execute(self, packet: bytes, now: float, answers: bool) -> tuple[OutboundSa | None, bool]:
        """Do what the engine says: the SA of what was sent, and False if that did not fit the path,
        which is measured now."""
        sa, fits = None, True
        for action in self._engine.outbound(packet, now, answers):
            if isinstance(action, SendEsp):
                sa = action.sa
                fits = self._send(action)
            elif isinstance(action, SendIcmp):
                try:
                    self._icmp[action.version].send(action.destination, action.message)
                except OSError:
                    self._counters["drop_icmp"] += 1
            elif isinstance(action, RefreshPathMtu):
                self._measure(action.sa.sa)
        return sa, fits

    def _send(self, send: SendEsp) -> bool:
        way: Way = send.sa.way or self._way_of(send.sa)
        try:
            way.outer.send(send.payload, way.from_, way.to, send.traffic_class, send.dont_fragment)
        except BlockingIOError:
            self._counters["drop_out_queue"] += 1
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                self._counters["drop_out_path_mtu"] += 1
                before = send.sa.mtu
                self._measure(send.sa.sa)
                return send.sa.mtu >= before
            self._counters["drop_out_socket"] += 1
        return True

    def _way_of(self, sa: OutboundSa) -> Way:
        encapsulation = sa.sa.encapsulation
        outer = self._outer[sa.sa.destination.version, encapsulation is not None]
        port = encapsulation.destination_port if encapsulation else 0
        way = outer.way(sa.sa.source, sa.sa.destination, port)
        sa.way = way
        return way

    def _measure(self, sa: SecurityAssociation) -> None:
        peer = sa.destination
        mtu = self._paths[peer.version].mtu(sa.source, peer) or self._mtu
        self._take_path_mtu(peer, mtu)
        if self._told.get(peer, self._mtu) != mtu:
            self._told[peer] = mtu
            self.measured.append((peer, mtu))

    def _forget_path(self, key: SaKey) -> None:
        if not self._engine.sends_to(key.destination):
            self._told.pop(key.destination, None)

    def _take_path_mtu(self, peer: IPAddress, mtu: int) -> None:
        for sa in self._engine.set_path_mtu(peer, mtu, time.monotonic()):
            self._core.refresh(sa)


if __name__ == "__main__":
    run(sys.argv[1:], Sealing)
