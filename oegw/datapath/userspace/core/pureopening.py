"""The opening core in pure Python: the reference, and the fallback."""

from __future__ import annotations

from oegw.datapath.userspace.core.interface import Moved, Unchecked, Unopened
from oegw.datapath.userspace.esp import InboundSa
from oegw.datapath.userspace.transform import Random
from oegw.packet.ip import Buffer


class PureOpeningCore:
    """See `OpeningCore`.  ``offloads``: frames begin with a virtio header; ``joins_udp``: the
    device takes super-packets of UDP.  ``random``: the source of a CBC stream's first block."""

    name = "python"

    def __init__(self, offloads: bool, joins_udp: bool, random: Random) -> None:
        raise NotImplementedError

    def install(self, sa: InboundSa) -> None:
        raise NotImplementedError

    def remove(self, sa: InboundSa) -> None:
        raise NotImplementedError

    def refresh(self, sa: InboundSa) -> None:
        raise NotImplementedError

    def learn(self, key: bytes, sa: InboundSa) -> None:
        raise NotImplementedError

    def fill(self, outer: int, version: int, encapsulated: bool) -> int:
        raise NotImplementedError

    def open(self, now: float) -> Unopened | Unchecked | None:
        raise NotImplementedError

    def append(self, packet: Buffer) -> None:
        raise NotImplementedError

    def deliver(self, device: int) -> int:
        raise NotImplementedError

    def counted(self) -> dict[str, int]:
        raise NotImplementedError

    def moved(self) -> list[Moved]:
        raise NotImplementedError

    def softened(self) -> list[InboundSa]:
        raise NotImplementedError
