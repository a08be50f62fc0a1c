"""A datapath without packets: for tests of the gateway, and for a dry run."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from oegw.datapath.checks import check_sa
from oegw.datapath.interface import (
    Capability,
    DatapathError,
    DatapathEvent,
    DatapathFailed,
    Direction,
    IPAddress,
    SaExpired,
    SaKey,
    SecurityAssociation,
    UdpEncapsulation,
    Usage,
    WorkerReport,
)
from oegw.datapath.userspace.transform import CIPHERS


@dataclass(slots=True)
class _Installed:
    sa: SecurityAssociation
    usage: Usage = field(default_factory=lambda: Usage(0, 0, None))
    softened: bool = False
    expired: bool = False
    timers: list[asyncio.TimerHandle] = field(default_factory=list)

    def cancel_timers(self) -> None:
        for timer in self.timers:
            timer.cancel()


class MemoryDatapath:
    """Keeps what it is given.  A test plays the traffic: ``carry``, ``report``, ``fail``.

    What the peers' packets would tell it (PeerAddressChanged, KeyingDatagram,
    UnknownSpiReceived), the test reports; what follows from its own SAs (SaExpired) it says itself.
    """

    def __init__(self) -> None:
        self._installed: dict[SaKey, _Installed] = {}
        self._counters: Counter[str] = Counter()
        self._listener: Callable[[DatapathEvent], None] | None = None
        self.keying_sent: list[tuple[bytes, IPAddress, IPAddress, int]] = []

    async def start(self, listener: Callable[[DatapathEvent], None]) -> Capability:
        if self._listener is not None:
            raise DatapathError("the datapath runs already")
        self._listener = listener
        return Capability("memory", "asked for", tuple(CIPHERS), udp_encapsulation=True)

    async def close(self) -> None:
        self._stop()

    async def install(self, sa: SecurityAssociation) -> None:
        self._require_running()
        check_sa(sa)
        if sa.key in self._installed:
            raise DatapathError(f"SA {sa.spi:#010x}: one with this SPI and destination exists")
        installed = self._installed[sa.key] = _Installed(sa)
        loop = asyncio.get_running_loop()
        for seconds, expire in (
            (sa.soft_seconds, self._soften),
            (sa.hard_seconds, self._expire),
        ):
            if seconds is not None:
                installed.timers.append(loop.call_later(seconds, expire, installed))

    async def remove(self, key: SaKey) -> Usage | None:
        self._require_running()
        installed = self._installed.pop(key, None)
        if installed is None:
            return None
        installed.cancel_timers()
        return installed.usage

    async def move(
        self,
        key: SaKey,
        source: IPAddress,
        destination: IPAddress,
        encapsulation: UdpEncapsulation | None,
    ) -> SaKey:
        self._require_running()
        installed = self._installed.get(key)
        if installed is None:
            raise DatapathError(f"SA {key.spi:#010x}: there is none to move")
        moved = replace(
            installed.sa, source=source, destination=destination, encapsulation=encapsulation
        )
        check_sa(moved)
        if moved.key != key and moved.key in self._installed:
            raise DatapathError(f"SA {key.spi:#010x}: one with this SPI and destination exists")
        installed.sa = moved
        # Under its new name, and no younger than before.
        self._installed = {each.sa.key: each for each in self._installed.values()}
        return moved.key

    async def prefer(self, key: SaKey) -> None:
        self._require_running()
        installed = self._installed.get(key)
        if installed is None or key.direction is not Direction.OUTBOUND:
            raise DatapathError(f"SA {key.spi:#010x}: there is none to send by")
        if installed.expired:
            raise DatapathError(f"SA {key.spi:#010x}: it has expired")
        self._installed[key] = self._installed.pop(key)

    def send_keying(
        self, data: bytes, source: IPAddress, destination: IPAddress, port: int
    ) -> None:
        if self._listener is None or source.version != destination.version:
            self._counters["drop_keying"] += 1
            return
        self.keying_sent.append((data, source, destination, port))

    async def mend(self) -> tuple[str, ...]:
        return ()

    async def usage(self) -> dict[SaKey, Usage]:
        self._require_running()
        return {key: installed.usage for key, installed in self._installed.items()}

    async def counters(self) -> dict[str, int]:
        self._require_running()
        return dict(self._counters)

    def workers(self) -> tuple[WorkerReport, ...]:
        return ()

    # What the world does to it.

    @property
    def installed(self) -> dict[SaKey, SecurityAssociation]:
        """The SAs, oldest first; one that was preferred counts as new."""
        return {key: installed.sa for key, installed in self._installed.items()}

    def sender(self, sa: SecurityAssociation) -> SaKey | None:
        """Which of the outbound SAs with the selectors of ``sa`` sends."""
        wanted = sa.source_selector, sa.destination_selector
        fit = [
            each
            for each in self._installed.values()
            if each.sa.direction is Direction.OUTBOUND
            and not each.expired
            and (each.sa.source_selector, each.sa.destination_selector) == wanted
        ]
        configured = [each for each in fit if each.sa.configured]
        return (configured or fit)[-1].sa.key if fit else None

    def carry(self, key: SaKey, octets: int, now: float) -> None:
        """One packet of ``octets`` went through the SA ``key``."""
        installed = self._installed[key]
        sa, usage, direction = installed.sa, installed.usage, key.direction.value
        if sa.hard_bytes is not None and usage.bytes + octets > sa.hard_bytes:
            self._expire(installed)
        if installed.expired:
            self._counters[f"drop_{direction}_expired"] += 1
            return
        installed.usage = Usage(usage.packets + 1, usage.bytes + octets, now)
        self._counters[f"esp_{direction}_packets"] += 1
        self._counters[f"esp_{direction}_octets"] += octets
        if sa.soft_bytes is not None and installed.usage.bytes >= sa.soft_bytes:
            self._soften(installed)

    def report(self, event: DatapathEvent) -> None:
        """Tell the listener something."""
        self._require_running()
        assert self._listener is not None
        self._listener(event)

    def fail(self, reason: str) -> None:
        """Stop working, as a datapath whose process died."""
        self.report(DatapathFailed(reason))
        self._stop()

    def _stop(self) -> None:
        self._listener = None
        for installed in self._installed.values():
            installed.cancel_timers()
        self._installed.clear()

    def _soften(self, installed: _Installed) -> None:
        if not installed.softened and not installed.expired:
            installed.softened = True
            self.report(SaExpired(installed.sa.key, hard=False))

    def _expire(self, installed: _Installed) -> None:
        if not installed.expired:
            installed.expired = True
            self.report(SaExpired(installed.sa.key, hard=True))

    def _require_running(self) -> None:
        if self._listener is None:
            raise DatapathError("the datapath does not run")
