"""Packets become a super-packet (GRO)."""

from __future__ import annotations

from oegw.packet.ip import Buffer


class Joiner:
    """Packets in, in their order; frames out.

    Only neighbours are joined, and only what is exactly next: with the same headers, and after its
    checksums were verified.  A packet that is wrong goes on alone and as it is: its receiver
    judges it, as if there were no tunnel.
    """

    def __init__(self, offloads: bool, joins_udp: bool) -> None:
        """``offloads``: whether frames begin with a virtio header; without, nothing is joined.
        ``joins_udp``: whether the device takes super-packets of UDP (UDP_L4)."""
        raise NotImplementedError

    def add(self, packet: Buffer) -> None:
        """The next packet; its octets may not change until ``clear``."""
        raise NotImplementedError

    def append(self, packet: Buffer) -> None:
        """The next packet goes alone."""
        raise NotImplementedError

    def frames(self) -> list[tuple[list[Buffer], int]]:
        """What was made since ``clear``: the parts of each frame, and how many packets it has."""
        raise NotImplementedError

    def clear(self) -> None:
        raise NotImplementedError
