"""Packets of a flow that has an entry, and that the kernel's rules leave alone.  Pure.

Fragments that shall be sealed all the same (``fragments = "try"``) are sealed here, too.

Behind a routing header or destination options, addresses may not be those of the ends; the rules
see only that there is such a header.  Here it is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Protocol, cast

from oegw.packet.ip import TCP, UDP, PacketError
from oegw.sst.interface import Caught, Entry, Leg, PortFlow, Reason, Way
from oegw.sst.packet import open_in_place, seal_in_place
from oegw.sst.permutation import NotEligible, Permutation
from oegw.sst.place import Place, place_of
from oegw.sst.signal import Signal, rewrite_octet

# Specification values: RFC 8200 section 3; RFC 791 section 3.1.
_NEXT_HEADER = 6
_FRAGMENT_FIELD = 6
_DONT_FRAGMENT = 0x40


class Known(Protocol):
    """The flows that have an entry."""

    def of(self, leg: Leg, flow: PortFlow) -> Entry | None: ...
    def of_sealed(
        self, leg: Leg, local: bytes, remote: bytes, protocol: int, ports: tuple[int, int]
    ) -> Entry | None: ...


def rewritten(
    caught: Caught, flows: Known, signal: Signal, *, tries: bool = False
) -> tuple[bytes, int] | None:
    """The packet as its entry wants it, and the entry's epoch.  ``tries``: fragments as well.

    None: the rules can do that themselves, or there is no entry, or it is not eligible.
    """
    packet = caught.packet
    match caught.reason:
        case Reason.UNKNOWN_FLOW if packet[0] >> 4 == 6 and packet[_NEXT_HEADER] not in (TCP, UDP):
            pass
        case Reason.FRAGMENT if tries:
            pass
        case _:
            return None
    try:
        place = place_of(packet)
        entry = _entry(caught, place, flows)
        if entry is None:
            return None
        changed = bytearray(packet)
        # What a permutation does for a key, an entry does for its one flow.
        ports = cast(Permutation, _OneFlow(entry))
        rewrite = seal_in_place if caught.way is Way.SEAL else open_in_place
        rewrite(changed, place, ports, signal)
    except (PacketError, NotEligible):
        return None
    return bytes(changed), entry.epoch


def fragmentable(packet: bytes) -> bytes:
    """An IPv4 packet without DF: it is sealed although it will be fragmented."""
    if packet[0] >> 4 != 4:
        return packet
    changed = bytearray(packet)
    rewrite_octet(changed, 0, _FRAGMENT_FIELD, packet[_FRAGMENT_FIELD] & ~_DONT_FRAGMENT)
    return bytes(changed)


def _entry(caught: Caught, place: Place, flows: Known) -> Entry | None:
    if place.source_port is None or place.destination_port is None:
        return None
    if caught.way is Way.OPEN:
        ports = place.destination_port, place.source_port
        return flows.of_sealed(caught.leg, place.destination, place.source, place.protocol, ports)
    source, destination = ip_address(place.source), ip_address(place.destination)
    flow = PortFlow(source, destination, place.protocol, place.source_port, place.destination_port)
    return flows.of(caught.leg, flow)


@dataclass(frozen=True, slots=True)
class _OneFlow:
    entry: Entry

    def seal_ports(self, *_: object) -> tuple[int, int]:
        return self.entry.sealed_local, self.entry.sealed_remote

    def open_ports(self, *_: object) -> tuple[int, int]:
        return self.entry.flow.remote_port, self.entry.flow.local_port
