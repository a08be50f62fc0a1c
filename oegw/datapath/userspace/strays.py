"""Packets that came to the wrong socket go on to the right one.

The filters of `filters.py` choose a socket for a datagram.  But where the kernel joined many of one
sender (UDP_GRO), it asks for the first of them only; behind it there may be an IKE message.  And a
peer that moved sends from an address that is another worker's.  These go through a pair of
Unix sockets to whom they are for: seldom, and a little later than the others.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from struct import Struct
from typing import NamedTuple

from oegw.datapath.interface import DatapathError

_HEAD = Struct("!BBBBH")  # octets of an address, in UDP or not, hops, traffic class, port
_LARGEST = 65536 + 64
_BUFFER = 4 * 2**20  # octets that wait at most
# Our choice.  To the worker of the sender, to that of the SA, and back if the SA goes there now.
_MOST_HOPS = 3


class Stray(NamedTuple):
    """An ESP packet, or an IKE message beside it.  ``hops``: so often it was sent on."""

    payload: bytes | memoryview
    source: bytes  # packed
    port: int
    destination: bytes  # packed
    traffic_class: int
    encapsulated: bool = True
    hops: int = 0

    @property
    def spi(self) -> int | None:
        """0 if it is the non-ESP marker; None: too short for any."""
        return int.from_bytes(self.payload[:4], "big") if len(self.payload) >= 4 else None

    def serialize(self) -> bytes:
        length = len(self.source)
        head = _HEAD.pack(length, self.encapsulated, self.hops, self.traffic_class, self.port)
        return b"".join((head, self.source, self.destination, self.payload))

    @classmethod
    def parse(cls, octets: bytes) -> Stray:
        """What another process of ours made by ``serialize``."""
        length, encapsulated, hops, traffic_class, port = _HEAD.unpack_from(octets)
        middle = _HEAD.size + length
        end = middle + length
        source, destination = octets[_HEAD.size : middle], octets[middle:end]
        return cls(octets[end:], source, port, destination, traffic_class, bool(encapsulated), hops)


class StrayPaths:
    """One for each opening worker, and the last for the keying: opened and kept by the control
    process.  ``ends``: where they come out.  Raises DatapathError."""

    def __init__(self, workers: int) -> None:
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        try:
            for _ in range(workers + 1):
                pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                self._pairs.append(pair)
                for each in pair:
                    each.setblocking(False)
                pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        except OSError as error:
            self.close()
            raise DatapathError(f"sockets between workers: {error.strerror}") from None

    @property
    def beginnings(self) -> tuple[int, ...]:
        """The descriptors to send them to; a worker inherits all."""
        return tuple(beginning.fileno() for beginning, _ in self._pairs)

    @property
    def ends(self) -> tuple[int, ...]:
        """The descriptors to read from; a worker inherits its own."""
        return tuple(end.fileno() for _, end in self._pairs)

    def close(self) -> None:
        for pair in self._pairs:
            for each in pair:
                each.close()


class StrayDesk:
    """Where they are sent on, by their beginnings."""

    def __init__(self, beginnings: tuple[int, ...]) -> None:
        self.beginnings = beginnings
        self.workers = len(beginnings) - 1
        self.keying = self.workers  # its place, behind theirs

    def send(self, place: int, stray: Stray) -> bool:
        """Whether it was taken."""
        if stray.hops >= _MOST_HOPS:
            return False
        try:
            os.write(self.beginnings[place], stray._replace(hops=stray.hops + 1).serialize())
        except OSError:
            return False
        return True


def received(end: int, most: int) -> list[Stray]:
    """What came, up to ``most``."""
    found: list[Stray] = []
    with suppress(BlockingIOError):
        while len(found) < most:
            found.append(Stray.parse(os.read(end, _LARGEST)))
    return found
