"""The datapath as the mind has it: it runs in the hands; this stands behind the same door."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from oegw.datapath.interface import (
    Capability,
    DatapathError,
    DatapathEvent,
    IPAddress,
    KeyingDatagram,
    SaKey,
    SecurityAssociation,
    UdpEncapsulation,
    Usage,
    WorkerReport,
)
from oegw.datapath.userspace.keyingsocket import KeyingDescriptors, KeyingSockets
from oegw.powers.orders import (
    Ask,
    CloseDatapath,
    CountDatapath,
    InstallSa,
    ListWorkers,
    MendDatapath,
    MoveSa,
    PreferSa,
    ReadUsage,
    RemoveSa,
    SendKeying,
    StartDatapath,
    TakeKeying,
)
from oegw.powers.tohands import HandsGone, ToHands


class DistantDatapath:
    """See `interface.Datapath`.  Where it has sockets of its own for IKE at its port, they are
    handed over, and the hands see nothing of it."""

    def __init__(self, hands: ToHands) -> None:
        self._hands = hands
        self._keying: KeyingSockets | None = None

    async def start(self, listener: Callable[[DatapathEvent], None]) -> Capability:
        self._hands.listener = listener
        try:
            capability: Capability = await self._ask(StartDatapath())
            await self._take_keying()
        except BaseException:
            self._hands.listener = None
            raise
        return capability

    async def _take_keying(self) -> None:
        taken, descriptors = await self._hands.ask_for_gifts(
            TakeKeying(), lambda taken: bool(taken.versions)
        )
        if not descriptors:
            return
        number = len(taken.versions)
        sockets = dict(zip(taken.versions, descriptors, strict=False))
        beginnings, end = tuple(descriptors[number:-1]), descriptors[-1]
        given = KeyingDescriptors(sockets, beginnings, end)
        self._keying = KeyingSockets.adopt(given, self._keying_received)

    def _keying_received(self, datagram: KeyingDatagram) -> None:
        if self._hands.listener is not None:
            self._hands.listener(datagram)

    async def close(self) -> None:
        self._hands.listener = None
        if self._keying is not None:
            self._keying.close()
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
        if self._keying is not None:
            self._keying.send(data, source, destination, port)
            return
        self._hands.tell(SendKeying(data, source, destination, port))

    async def mend(self) -> tuple[str, ...]:
        gone: tuple[str, ...] = (await self._ask(MendDatapath())).gone
        return gone

    async def usage(self) -> dict[SaKey, Usage]:
        usage: dict[SaKey, Usage] = (await self._ask(ReadUsage())).usage
        return usage

    async def counters(self) -> dict[str, int]:
        counters: dict[str, int] = (await self._ask(CountDatapath())).counters
        if self._keying is not None:
            return dict(Counter(counters) + self._keying.counters())
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
