"""The plane in nftables and NFQUEUE: stands behind `interface.Plane`."""

from __future__ import annotations

import time
from collections.abc import Callable

from oegw.sst.interface import Entry, IPAddress, Leg, Listener, PortFlow
from oegw.sst.plane.settings import PlaneSettings, checked
from oegw.trace import Trace
from policy.table import PolicyTable


class NftPlane:
    """One nftables table, two queues, and where nft has no ``queue`` an iptables rule per hook.

    ``clock`` gives monotonic seconds.  Raises SstError for settings that can't work.
    """

    def __init__(
        self,
        settings: PlaneSettings,
        trace: Trace,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = checked(settings)
        self._trace = trace
        self._clock = clock

    async def start(self, table: PolicyTable, listener: Listener) -> None:
        raise NotImplementedError

    async def replace_policy(self, table: PolicyTable) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError

    def enter(self, entry: Entry) -> bool:
        raise NotImplementedError

    def decline(self, leg: Leg, flow: PortFlow, lifespan: float) -> None:
        raise NotImplementedError

    def forget(self, leg: Leg, remote: IPAddress | None = None) -> None:
        raise NotImplementedError

    def shield(self, local: IPAddress, remote: IPAddress) -> None:
        raise NotImplementedError

    def unshield(self, local: IPAddress, remote: IPAddress) -> None:
        raise NotImplementedError

    def release(self, number: int, packet: bytes | None = None, epoch: int | None = None) -> None:
        raise NotImplementedError

    def drop(self, number: int) -> None:
        raise NotImplementedError

    def counters(self) -> dict[str, int]:
        raise NotImplementedError
