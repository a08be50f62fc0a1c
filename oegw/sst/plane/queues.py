"""The two queues: packets by number, and back to the kernel with our marks."""

from __future__ import annotations

import socket
from collections.abc import Callable

from oegw.intercept.nfqueue import HeldPacket, numbered_queue
from oegw.packet.ip import PacketError
from oegw.sst.interface import Caught, Leg, Listener, Way
from oegw.sst.plane.catching import Catching
from oegw.sst.plane.marks import PlaneMarks
from oegw.sst.plane.settings import PlaneSettings
from oegw.sst.signal import Signal
from oegw.trace import Trace

# Specification value: linux/netfilter.h, NF_INET_LOCAL_OUT.
_LOCAL_OUT = 3

LegOfQuote = Callable[[bytes], Leg]
"""Of an error that this box wrote itself: on which leg the packet quoted is sealed."""


class Queues:
    """What waits for an answer of ours.  What is neither released nor dropped, `close` drops."""

    def __init__(
        self,
        settings: PlaneSettings,
        listener: Listener,
        trace: Trace,
        mtus: Callable[[str], int | None],
        leg_of_quote: LegOfQuote,
    ) -> None:
        self._settings = settings
        self._listener = listener
        self._trace = trace
        self._mtus = mtus
        self._leg_of_quote = leg_of_quote
        self._marks = PlaneMarks(settings.sst.mark_mask)
        self._catching = Catching(self._marks, Signal.of(settings.sst))
        self._held: dict[int, tuple[HeldPacket, Caught]] = {}
        self._number = 0
        first, length = settings.sst.queue, settings.queue_length
        self.both = (
            numbered_queue(first, length, self._take_to_open, self._said, whole=True),
            numbered_queue(first + 1, length, self._take_to_seal, self._said, whole=True),
        )

    def open(self) -> None:
        """Raises InterceptError; then none is open."""
        try:
            for queue in self.both:
                queue.open()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for number in tuple(self._held):
            self.drop(number)
        for queue in self.both:
            queue.close()

    def caught(self, number: int) -> Caught | None:
        """A packet that still waits."""
        found = self._held.get(number)
        return None if found is None else found[1]

    def release(self, number: int, packet: bytes | None, epoch: int | None) -> None:
        """``packet`` is final; else the rules behind the queue have the last word."""
        found = self._held.pop(number, None)
        if found is None:
            return
        held, _ = found
        marks = self._marks
        mark = held.get_mark()
        if packet is None:
            bits = mark & (marks.request | marks.fragment)
        else:
            held.set_payload(packet)
            bits = marks.done
            if epoch is not None:
                bits |= marks.keyed | marks.epoch(epoch)
        held.set_mark(mark & marks.rest | bits)
        held.accept()

    def drop(self, number: int) -> None:
        found = self._held.pop(number, None)
        if found is not None:
            found[0].drop()

    def counters(self) -> dict[str, int]:
        """What waits here, and what found no room."""
        counted = {"held": len(self._held), "queue_buffer_overflows": 0}
        for queue in self.both:
            counted["queue_buffer_overflows"] += queue.overflows
            for name, packets in queue.dropped().items():
                counted[name] = counted.get(name, 0) + packets
        return counted

    def _said(self, words: str) -> None:
        self._trace.event("sst", "queue_buffer_small", reason=words)

    def _take_to_open(self, held: HeldPacket, octets: bytes) -> None:
        if held.hook == _LOCAL_OUT:
            leg = self._leg_of_quote(octets)
        else:
            leg = self._leg(_name(held.indev))
        self._take(held, octets, Way.OPEN, leg, None)

    def _take_to_seal(self, held: HeldPacket, octets: bytes) -> None:
        way = _name(held.outdev)
        self._take(held, octets, Way.SEAL, self._leg(way), self._mtus(way))

    def _take(self, held: HeldPacket, octets: bytes, way: Way, leg: Leg, mtu: int | None) -> None:
        self._number += 1
        number = self._number
        try:
            caught = self._catching.caught(number, way, leg, octets, held.get_mark(), mtu)
        except PacketError as error:
            held.drop()
            self._trace.drop("sst", error.trigger, way=way.value, leg=leg.value)
            return
        self._held[number] = held, caught
        try:
            self._listener(caught)
        except Exception:
            self.drop(number)
            raise

    def _leg(self, interface: str) -> Leg:
        return Leg.TUNNEL if interface == self._settings.tunnel_interface else Leg.OUTSIDE


def _name(index: int) -> str:
    """The interface may be gone by now."""
    try:
        return socket.if_indextoname(index)
    except OSError:
        return ""
