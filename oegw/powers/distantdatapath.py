"""The datapath as the mind has it: it runs in the hands; this stands behind the same door."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from oegw.datapath.interface import (
    Capability,
    DatapathError,
    DatapathEvent,
    IPAddress,
    SaKey,
    SecurityAssociation,
    UdpEncapsulation,
    Usage,
    WorkerReport,
)
from oegw.powers.orders import (
    Ask,
    CloseDatapath,
    CountDatapath,
    InstallSa,
    ListWorkers,
    MoveSa,
    PreferSa,
    ReadUsage,
    RemoveSa,
    SendKeying,
    StartDatapath,
)
from oegw.powers.tohands import HandsGone, ToHands


class DistantDatapath:
    """See `interface.Datapath`."""

    def __init__(self, hands: ToHands) -> None:
        self._hands = hands

    async def start(self, listener: Callable[[DatapathEvent], None]) -> Capability:
        self._hands.listener = listener
        try:
            capability: Capability = await self._ask(StartDatapath())
        except BaseException:
            self._hands.listener = None
            raise
        return capability

    async def close(self) -> None:
        self._hands.listener = None
        await self._ask(CloseDatapath())

    async def install(self, sa: SecurityAssociation) -> None:
        await self._ask(InstallSa(sa))

    async def remove(self, key: SaKey) -> Usage | None:
        usage: Usage | None = (await self._ask(RemoveSa(key))).usage
        return usage

    async def move(
        self,
        key: SaKey,
        source: IPAddress,
        destination: IPAddress,
        encapsulation: UdpEncapsulation | None,
    ) -> SaKey:
        moved: SaKey = (await self._ask(MoveSa(key, source, destination, encapsulation))).key
        return moved

    async def prefer(self, key: SaKey) -> None:
        await self._ask(PreferSa(key))

    def send_keying(
        self, data: bytes, source: IPAddress, destination: IPAddress, port: int
    ) -> None:
        self._hands.tell(SendKeying(data, source, destination, port))

    async def usage(self) -> dict[SaKey, Usage]:
        usage: dict[SaKey, Usage] = (await self._ask(ReadUsage())).usage
        return usage

    async def counters(self) -> dict[str, int]:
        counters: dict[str, int] = (await self._ask(CountDatapath())).counters
        return counters

    def workers(self) -> tuple[WorkerReport, ...]:
        try:
            reports: tuple[WorkerReport, ...] = self._hands.call(ListWorkers()).reports
        except HandsGone:
            return ()
        return reports

    async def _ask(self, order: Ask) -> Any:
        """Raises DatapathError."""
        try:
            return await self._hands.ask(order)
        except HandsGone as error:
            raise DatapathError(str(error)) from None
