"""The sealing core in pure Python: the reference, and the fallback."""

from __future__ import annotations

from oegw.datapath.userspace.core.interface import Frame, Run
from oegw.datapath.userspace.esp import OutboundSa
from oegw.datapath.userspace.transform import Random


class PureSealingCore:
    """See `SealingCore`.  ``offloads``: frames begin with a virtio header.  ``random``: the
    source of CBC's blocks, one for each packet, in the packets' order."""

    name = "python"

    def __init__(self, offloads: bool, random: Random) -> None:
        raise NotImplementedError

    def install(self, sa: OutboundSa) -> None:
        raise NotImplementedError

    def remove(self, sa: OutboundSa) -> None:
        raise NotImplementedError

    def refresh(self, sa: OutboundSa) -> None:
        raise NotImplementedError

    def learn(self, key: bytes, sa: OutboundSa) -> None:
        raise NotImplementedError

    def forget(self) -> None:
        raise NotImplementedError

    def fill(self, device: int) -> int:
        raise NotImplementedError

    def seal(self, now: float) -> tuple[list[Run], int | None]:
        raise NotImplementedError

    def frame(self, index: int) -> Frame:
        raise NotImplementedError
