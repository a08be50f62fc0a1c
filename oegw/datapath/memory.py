"""A datapath without packets: for tests of the gateway, and for a dry run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from oegw.datapath.checks import check_sa
from oegw.datapath.interface import (
    Capability,
    DatapathError,
    DatapathEvent,
    DatapathFailed,
    IPAddress,
    SaKey,
    SecurityAssociation,
    UdpEncapsulation,
    Usage,
)
from oegw.datapath.userspace.transform import CIPHERS


@dataclass(slots=True)
class _Installed:
    sa: SecurityAssociation
    usage: Usage


class MemoryDatapath:
    """Keeps what it is given.  A test plays the traffic: ``carry``, ``report``, ``fail``."""

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
        self._listener = None
        self._installed.clear()

    async def install(self, sa: SecurityAssociation) -> None:
        self._require_running()
        check_sa(sa)
        if sa.key in self._installed:
            raise DatapathError(f"SA {sa.spi:#010x}: one with this SPI and destination exists")
        self._installed[sa.key] = _Installed(sa, Usage(0, 0, None))

    async def remove(self, key: SaKey) -> Usage | None:
        self._require_running()
        installed = self._installed.pop(key, None)
        return installed.usage if installed else None

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
        del self._installed[key]
        self._installed[moved.key] = _Installed(moved, installed.usage)
        return moved.key

    def send_keying(
        self, data: bytes, source: IPAddress, destination: IPAddress, port: int
    ) -> None:
        if self._listener is None:
            self._counters["drop_keying"] += 1
            return
        self.keying_sent.append((data, source, destination, port))

    async def usage(self) -> dict[SaKey, Usage]:
        self._require_running()
        return {key: installed.usage for key, installed in self._installed.items()}

    async def counters(self) -> dict[str, int]:
        self._require_running()
        return dict(self._counters)

    # What the world does to it.

    @property
    def installed(self) -> dict[SaKey, SecurityAssociation]:
        """The SAs, oldest first."""
        return {key: installed.sa for key, installed in self._installed.items()}

    def carry(self, key: SaKey, octets: int, now: float) -> None:
        """One packet of ``octets`` went through the SA ``key``."""
        installed = self._installed[key]
        usage = installed.usage
        installed.usage = Usage(usage.packets + 1, usage.bytes + octets, now)
        self._counters[f"esp_{key.direction.value}_packets"] += 1
        self._counters[f"esp_{key.direction.value}_octets"] += octets

    def report(self, event: DatapathEvent) -> None:
        """Tell the listener something."""
        self._require_running()
        assert self._listener is not None
        self._listener(event)

    def fail(self, reason: str) -> None:
        """Stop working, as a datapath whose process died."""
        self.report(DatapathFailed(reason))
        self._listener = None
        self._installed.clear()

    def _require_running(self) -> None:
        if self._listener is None:
            raise DatapathError("the datapath does not run")
