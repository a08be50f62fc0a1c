"""Packets become a super-packet (GRO)."""

from __future__ import annotations

from oegw.datapath.userspace.core.train import Train, train_of
from oegw.datapath.userspace.core.virtio import NONE
from oegw.packet.ip import Buffer

Parts = list[Buffer]
"""A frame, in pieces that are written together."""


class Joiner:
    """Packets in, in their order; frames out.

    Only neighbours are joined, and only what is exactly next: with the same headers, and after the
    checksums of both were verified.  A packet that is wrong goes on alone and as it is: its
    receiver judges it, as if there were no tunnel.

    Alike are all fields but lengths, checksums, TCP's sequence number and PSH; the IPv4
    identification counts up, or with DF may stay.  TCP has ACK and perhaps ECE, and no other flag
    but PSH, which only the last has.  All have as much payload as the first but the last, which
    may have less, but not none.  UDP has a checksum.
    """

    def __init__(self, offloads: bool, joins_udp: bool) -> None:
        """``offloads``: whether frames begin with a virtio header; without, nothing is joined.
        ``joins_udp``: whether the device takes super-packets of UDP (UDP_L4)."""
        self._offloads = offloads
        self._joins_udp = joins_udp
        self._frames: list[tuple[Parts, int]] = []
        self._last: Buffer | None = None  # to which the next packet may be joined
        self._train: Train | None = None  # or that

    def add(self, packet: Buffer) -> None:
        """The next packet, an ordinary one; its octets may not change until ``clear``."""
        size = len(packet)
        if not self.extend(packet, 0, size, size, 1):
            self.begin(packet)

    def begin(self, packet: Buffer) -> None:
        """The same for a packet that ``extend`` could not join."""
        self._close()
        if self._offloads:
            self._last = packet
        else:
            self._frames.append(([packet], 1))

    def extend(
        self, octets: Buffer, place: int, size: int, stride: int, count: int, behind: bytes = b""
    ) -> int:
        """How many of the next packets, a row as `train.py` has it, could be joined to what is
        before them.  With others nothing was done."""
        train = self._train
        if train is None:
            last = self._last
            # Most that are not next show it here.
            if (
                last is None
                or octets[place : place + 1] != last[:1]
                or octets[place + 20 : place + 24] != last[20:24]
            ):
                return 0
            train = train_of(last, self._joins_udp, octets, place)
        following = train.follow(octets, place, size, stride, count, behind) if train else 0
        if not train or not following:
            return 0
        self._train, self._last = train, None
        taken = train.take(octets, place, size, stride, following)
        # There is no room for the others: what was found of them holds all the same.
        while following - taken > 1:
            self._close()
            start = place + taken * stride
            train = self._train = train.another(bytes(octets[start : start + size]))
            start += stride
            taken += 1 + train.take(octets, start, size, stride, following - taken - 1)
        if train.ended:
            self._close()
        return taken

    def append(self, packet: Buffer) -> None:
        """The next packet goes alone."""
        self._close()
        self._alone(packet)

    def frames(self) -> list[tuple[Parts, int]]:
        """What was made since ``clear``: the parts of each frame, and how many packets it has."""
        self._close()
        return self._frames

    def clear(self) -> None:
        self._last = self._train = None
        self._frames = []

    def _alone(self, packet: Buffer) -> None:
        self._frames.append(([NONE, packet] if self._offloads else [packet], 1))

    def _close(self) -> None:
        if self._last is not None:
            self._alone(self._last)
            self._last = None
        elif self._train is not None:
            payloads = self._train.payloads
            self._frames.append(([self._train.header(), *payloads], len(payloads)))
            self._train = None
