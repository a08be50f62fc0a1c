"""The rules that look a flow up, and rewrite it.  Pure: they go into chains that the table has.

An element's key is what the packet shows: addresses, protocol, ports; its datum both new ports
and the epoch.  So one look finds both, and one write changes both.

    known, first   is there an entry for what leaves?
    stick_out      the connection mark says that it is sealed, and with which epoch
    seal, open     ports are rewritten; one chain for each place of a checksum
    stick_in       the same as stick_out for what was opened, once it has a connection
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct

from oegw.sst.interface import Leg
from oegw.sst.plane import wire
from oegw.sst.plane.marks import PlaneMarks
from oegw.sst.plane.names import FAMILIES, chain, inwards, outwards
from oegw.sst.plane.wire import Message

# Specification values: where addresses are (RFC 791, RFC 8200) and checksums (RFC 9293, RFC 768).
_ADDRESSES = {4: (12, 16, 4), 6: (8, 24, 16)}  # source, destination, octets of each
CHECKSUMS = {"tcp": 16, "udp": 6, "bare": None}
"""Chains by where the checksum is; a UDP checksum of 0 says that there is none, and stays."""

EPOCHS = range(4)
EPOCH = Struct("=I")
_PORTS, _EPOCH = 0, 1  # registers of the datum
_SCRATCH = 2
# Where the datum goes if its epoch is compared.  nft lists a comparison only of what it knows to be
# in the register, and knows of one word of a datum: it is shown the first word of the header.
_STUCK = 12


def rules(table: str, marks: PlaneMarks) -> list[Message]:
    """All of them."""
    return [message for leg in Leg for f in FAMILIES for message in _rules(table, marks, leg, f)]


def chains() -> list[str]:
    """The chains that they go into."""
    names = ("known", "first", "stick_out", "stick_in")
    kinds = tuple(f"{way}_{kind}" for way in ("seal", "open") for kind in CHECKSUMS)
    return [chain(name, leg, f) for leg in Leg for f in FAMILIES for name in (*names, *kinds)]


def _rules(table: str, marks: PlaneMarks, leg: Leg, family: int) -> Iterator[Message]:
    def rule(name: str, expressions: list[bytes]) -> Message:
        return wire.new_rule(table, chain(name, leg, family), expressions)

    leaving = [*_key(family), wire.look_up(outwards(leg, family), 0, _PORTS)]
    arriving = [*_key(family), wire.look_up(inwards(leg, family), 0, _PORTS)]
    shown = wire.load_network(0, 4, _STUCK + _EPOCH)
    left = [shown, *_key(family), wire.look_up(outwards(leg, family), 0, _STUCK)]
    arrived = [
        shown,
        *_key(family, reverse=True),
        wire.look_up(outwards(leg, family), 0, _STUCK),
    ]
    rewrite = chain("rewrite", leg, family)
    yield rule("known", [*leaving, wire.go_to("pass")])
    yield rule("first", [*leaving, wire.go_to(chain("stick_out", leg, family))])
    for epoch in EPOCHS:
        stick = _stick(marks, epoch)
        yield rule("stick_out", [*left, *stick, wire.go_to(rewrite)])
        yield rule("stick_in", [*arrived, *stick, wire.go_to("unmark")])
    yield rule("stick_out", [wire.go_to(rewrite)])  # without a connection
    for kind, checksum in CHECKSUMS.items():
        write = wire.write_ports(_PORTS, checksum)
        yield rule(f"seal_{kind}", [*leaving, write, wire.go_to(f"sealed{family}")])
        yield rule(f"open_{kind}", [*arriving, write, wire.go_to(f"opened{family}")])


def _key(family: int, *, reverse: bool = False) -> list[bytes]:
    """Address, address, protocol, port, port, each on a register's border; from register 0 on."""
    source, destination, length = _ADDRESSES[family]
    ends = [(source, 0), (destination, 2)]
    if reverse:
        ends.reverse()
    (first, first_port), (second, second_port) = ends
    width = length // 4
    return [
        wire.load_network(first, length, 0),
        wire.load_network(second, length, width),
        wire.load_protocol(2 * width),
        wire.load_transport(first_port, 2, 2 * width + 1),
        wire.load_transport(second_port, 2, 2 * width + 2),
    ]


def _stick(marks: PlaneMarks, epoch: int) -> list[bytes]:
    """If the entry is of this epoch: write it into the connection mark."""
    return [
        wire.compare(_STUCK + _EPOCH, EPOCH.pack(epoch)),
        wire.load_connection_mark(_SCRATCH),
        wire.mask(_SCRATCH, marks.rest, marks.sticky | marks.epoch(epoch)),
        wire.store_connection_mark(_SCRATCH),
    ]
