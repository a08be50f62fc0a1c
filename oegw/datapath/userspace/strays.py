"""Packets that came to the wrong socket, and go on to the right one.

The filters of `filters.py` choose a socket for a datagram.  But where the kernel joined many of one
sender (UDP_GRO), it asks for the first of them only; behind it there may be an IKE message, or ESP
of an SA that another opening worker has.  These go through a pair of Unix sockets to whom they are
for: seldom, and a little later than the others.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from struct import Struct
from typing import NamedTuple

from oegw.datapath.interface import DatapathError

_HEAD = Struct("!BBH")  # octets of an address, traffic class, port
_LARGEST = 65536 + 64
_BUFFER = 4 * 2**20  # octets that wait at most


class Stray(NamedTuple):
    """A datagram of ESP in UDP, or of IKE beside it."""

    payload: bytes | memoryview
    source: bytes  # packed
    port: int
    destination: bytes  # packed
    traffic_class: int

    def serialize(self) -> bytes:
        head = _HEAD.pack(len(self.source), self.traffic_class, self.port)
        return b"".join((head, self.source, self.destination, self.payload))

    @classmethod
    def parse(cls, octets: bytes) -> Stray:
        """What another process of ours made by ``serialize``."""
        length, traffic_class, port = _HEAD.unpack_from(octets)
        middle = _HEAD.size + length
        end = middle + length
        source, destination = octets[_HEAD.size : middle], octets[middle:end]
        return cls(octets[end:], source, port, destination, traffic_class)


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
    """What an opening worker does with them: ``index`` is its own number."""

    def __init__(self, beginnings: tuple[int, ...], index: int) -> None:
        self._beginnings = beginnings
        self._workers = len(beginnings) - 1
        self._index = index

    def place(self, payload: bytes | memoryview) -> int | None:
        """For whom an ESP datagram is, or an IKE message; None: for this worker."""
        first = int.from_bytes(payload[:4], "big")
        if len(payload) < 4:
            return None
        place = first % self._workers if first else self._workers
        return None if place == self._index else place

    def send(self, place: int, stray: Stray) -> bool:
        """Whether it was taken."""
        try:
            os.write(self._beginnings[place], stray.serialize())
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
