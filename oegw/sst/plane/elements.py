"""Which elements of which maps stand for a flow.  Pure."""

from __future__ import annotations

from struct import Struct

from oegw.sst.interface import Entry, Leg, PortFlow
from oegw.sst.plane.names import declined, inwards, outwards
from oegw.sst.plane.rewriting import EPOCH
from oegw.sst.plane.wire import Message, delete_element, new_element

_TAIL = Struct("!B3xH2xH2x")  # protocol, port, port: each fills a register
_TWO_PORTS = Struct("!HH")


def entered(table: str, entry: Entry) -> list[Message]:
    """The commands that put a flow into the fast path."""
    flow, family = entry.flow, entry.flow.local.version
    outward = _datum(entry.sealed_local, entry.sealed_remote, entry.epoch)
    inward = _datum(flow.remote_port, flow.local_port, entry.epoch)
    return [
        new_element(table, outwards(entry.leg, family), outward_key(flow), entry.lifespan, outward),
        new_element(table, inwards(entry.leg, family), inward_key(entry), entry.lifespan, inward),
    ]


def removed(table: str, entry: Entry) -> list[Message]:
    """The commands that take it out again; each fails if the element has timed out."""
    family = entry.flow.local.version
    return [
        delete_element(table, outwards(entry.leg, family), outward_key(entry.flow)),
        delete_element(table, inwards(entry.leg, family), inward_key(entry)),
    ]


def now_declined(table: str, leg: Leg, flow: PortFlow, lifespan: float) -> Message:
    return new_element(table, declined(leg, flow.local.version), outward_key(flow), lifespan)


def no_longer_declined(table: str, leg: Leg, flow: PortFlow) -> Message:
    """Fails if the element has timed out."""
    return delete_element(table, declined(leg, flow.local.version), outward_key(flow))


def outward_key(flow: PortFlow) -> bytes:
    """What a packet of the flow shows when it leaves, before it is sealed."""
    return (
        flow.local.packed
        + flow.remote.packed
        + _TAIL.pack(flow.protocol, flow.local_port, flow.remote_port)
    )


def inward_key(entry: Entry) -> bytes:
    """What a sealed packet of the flow shows when it arrives."""
    flow = entry.flow
    return (
        flow.remote.packed
        + flow.local.packed
        + _TAIL.pack(flow.protocol, entry.sealed_remote, entry.sealed_local)
    )


def _datum(source: int, destination: int, epoch: int) -> bytes:
    return _TWO_PORTS.pack(source, destination) + EPOCH.pack(epoch)
