"""Datagrams from an outer socket, many with each system call: for the pure core's ``fill``."""

from __future__ import annotations

from typing import NamedTuple


class Datagram(NamedTuple):
    """``payload`` is one ESP packet, or with UDP_GRO several of ``size`` octets (the last may be
    shorter) of one sender.  A view, good until the next ``receive``."""

    payload: memoryview
    size: int
    source: bytes  # packed
    port: int  # 0 for plain ESP
    destination: bytes  # packed; empty if the kernel did not say
    traffic_class: int


class Receiver:
    """The buffers of one opening worker: one for all its sockets."""

    def __init__(self, frames: int = 128) -> None:
        raise NotImplementedError

    def receive(self, descriptor: int, version: int, encapsulated: bool) -> list[Datagram]:
        """What waits in the socket, without waiting, up to the bounds of a batch; empty if nothing
        does.  An IPv4 header (raw sockets give it) is taken off.  Raises OSError."""
        raise NotImplementedError
