"""What the plane says of a packet that came out of a queue.  Pure."""

from __future__ import annotations

from dataclasses import dataclass

from oegw.packet.ip import ICMP, ICMPV6, UDP, layout_of
from oegw.sst.interface import PROBE_MAGIC, Caught, Leg, Reason, Way
from oegw.sst.plane.marks import PlaneMarks
from oegw.sst.signal import Signal

# Specification values: RFC 791 section 3.1, RFC 768.
_FRAGMENT_FIELD = slice(6, 8)
_DONT_FRAGMENT = 0x4000
_FRAGMENTED = 0x3FFF
_UDP_HEADER = 8


@dataclass(frozen=True, slots=True)
class Catching:
    """Reads packets that strangers wrote; ``caught`` raises PacketError for what can't be read."""

    marks: PlaneMarks
    signal: Signal

    def caught(
        self, number: int, way: Way, leg: Leg, packet: bytes, mark: int, mtu: int | None
    ) -> Caught:
        """``mark``: that the packet has; ``mtu``: of the interface that it would leave by."""
        marks = self.marks
        sticky = way is Way.SEAL and mark & marks.state == marks.waiting_sticky
        gathered = bool(mark & marks.fragment)
        return Caught(
            number,
            way,
            leg,
            _reason(way, leg, packet, gathered=gathered, mtu=mtu),
            packet,
            asked=way is Way.SEAL and bool(mark & marks.request),
            sticky=sticky,
            epoch=marks.epoch_of(mark) if sticky else None,
            flagged=self.signal.flagged(packet) or (way is Way.OPEN and gathered),
        )


def _reason(way: Way, leg: Leg, packet: bytes, *, gathered: bool, mtu: int | None) -> Reason:
    version, length, protocol, offset, *_ = layout_of(packet)
    if protocol in (ICMP, ICMPV6):
        return Reason.QUOTE
    if way is Way.OPEN:
        payload = offset + _UDP_HEADER
        probes = leg is Leg.OUTSIDE and protocol == UDP
        if probes and packet[payload : payload + len(PROBE_MAGIC)] == PROBE_MAGIC:
            return Reason.PROBE
        return Reason.UNKNOWN_FLOW
    if version == 4:
        field = int.from_bytes(packet[_FRAGMENT_FIELD], "big")
        too_long = (
            protocol == UDP and not field & _DONT_FRAGMENT and mtu is not None and length > mtu
        )
        if gathered or field & _FRAGMENTED or too_long:
            return Reason.FRAGMENT
    return Reason.UNKNOWN_FLOW
