"""Messages and attributes of netlink, as octets.  Pure."""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct

# Specification values: linux/netlink.h, linux/netfilter/nfnetlink.h.
NETFILTER = 12  # NETLINK_NETFILTER
REQUEST, DUMP, INTERRUPTED = 0x1, 0x300, 0x10
ERROR, DONE = 2, 3
HEADER = Struct("=IHHII")  # length, kind, flags, number, port
NFGENMSG = 4  # octets before the attributes
CODE = Struct("=i")
_ATTRIBUTE = Struct("=HH")
_KIND_MASK = 0x3FFF


def message(kind: int, flags: int, number: int, body: bytes) -> bytes:
    return HEADER.pack(HEADER.size + len(body), kind, flags, number, 0) + body


def messages(octets: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Of netlink: kind, flags, number and what follows the header."""
    place = 0
    while place + HEADER.size <= len(octets):
        length, kind, flags, number, _ = HEADER.unpack_from(octets, place)
        if length < HEADER.size:
            return
        yield kind, flags, number, octets[place + HEADER.size : place + length]
        place += length + 3 & ~3


def attributes(octets: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and value of each attribute."""
    place = 0
    while place + _ATTRIBUTE.size <= len(octets):
        length, kind = _ATTRIBUTE.unpack_from(octets, place)
        if length < _ATTRIBUTE.size:
            return
        yield kind & _KIND_MASK, octets[place + _ATTRIBUTE.size : place + length]
        place += length + 3 & ~3


def attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)
