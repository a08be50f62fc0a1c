"""What the daemon tells the world of exported services: by DNS, and by mDNS on links."""

from __future__ import annotations

import asyncio
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from dnsrecords.dnssd import Labels
from dnsrecords.errors import RecordError
from oegw.moniker.discovery.addresses import own_addresses
from oegw.moniker.discovery.browsing import Peer
from oegw.moniker.discovery.multicast import Multicast
from oegw.moniker.discovery.naming import Instances, tellable
from oegw.moniker.discovery.responder import Responder
from oegw.moniker.discovery.zone import Zone, labels_of
from oegw.moniker.interface import Entry, IPAddress
from oegw.moniker.names import MonikerError
from oegw.moniker.settings import ExportSettings, MonikerSettings
from oegw.trace import Trace

# Our choices.
LOOK_SECONDS = 1.0  # between two looks at what is registered
MAX_EXPORTED = 1024


class ExportImpossible(MonikerError):  # noqa: N818  (it names the fact)
    """The settings can't be followed; the text names the key."""


class Export:
    """``entries``: all that are registered; asked at most once a second.

    Made by the daemon if `settings.export` says anything (`wanted`).
    """

    def __init__(
        self, settings: MonikerSettings, entries: Callable[[], Iterable[Entry]], trace: Trace
    ) -> None:
        self._settings = settings
        self._entries = entries
        self._trace = trace
        self._host = host_of(settings.export)
        self._instances = Instances(self._host[0])
        self._named: dict[str, Entry] = {}
        self._looked: float | None = None
        self._zone: Zone | None = None
        self._serial = int(time.time())
        self._responder: Responder | None = None
        self._multicast: Multicast | None = None
        self._task: asyncio.Task[None] | None = None

    @staticmethod
    def wanted(settings: MonikerSettings) -> bool:
        export = settings.export
        return bool(export.multicast or (export.zone and export.listen))

    async def start(self) -> None:
        """Raises MonikerError: an address is taken, a key can't be read, zeroconf is missing."""
        export = self._settings.export
        if export.multicast:
            self._multicast = Multicast(export.multicast, self._host[0], self._trace)
        if export.zone and export.listen:
            self._responder = Responder(
                export.listen,
                self.zone,
                [Peer(found) for found in export.peers],
                self._trace,
                public=export.public,
                clock=time.monotonic,
            )
            await self._responder.start()
        if self._multicast is not None:
            self._task = asyncio.get_running_loop().create_task(self._tell(self._multicast))

    async def close(self) -> None:
        """Goodbyes are sent; never raises."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        if self._multicast is not None:
            await self._multicast.close()
        if self._responder is not None:
            await self._responder.close()

    def snapshot(self) -> dict[str, Any]:
        """For ``oegw moniker status``."""
        self._look()
        answer: dict[str, Any] = {"services": len(self._named)}
        if self._responder is not None:
            answer["zone"] = self._settings.export.zone
            answer |= self._responder.snapshot()
        if self._multicast is not None:
            answer |= self._multicast.snapshot()
        return answer

    @property
    def places(self) -> list[tuple[IPAddress, int]]:
        """Where the responder listens."""
        return [] if self._responder is None else self._responder.places

    def zone(self) -> Zone:
        """What there is now, looked at no more than once a second."""
        self._look()
        if self._zone is None:
            domain = labels_of(self._settings.export.zone or "local")
            addresses = told_addresses(self._settings)
            self._zone = Zone(domain, self._host, addresses, self._named, self._serial)
        return self._zone

    def _look(self) -> None:
        now = time.monotonic()
        if self._looked is not None and now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        exported = [each for each in self._entries() if each.service.exported]
        fitting = [each for each in exported if tellable(each.service)]
        if len(fitting) < len(exported):
            self._trace.drop("moniker", "discovery_name_long", services=len(exported))
        if len(fitting) > MAX_EXPORTED:
            self._trace.drop("moniker", "discovery_too_many", services=len(fitting))
        named = self._instances.named(fitting[:MAX_EXPORTED])
        if named != self._named:
            self._named, self._zone = named, None
            self._serial += 1

    async def _tell(self, multicast: Multicast) -> None:
        while True:
            self._look()
            await multicast.tell(self._named)
            await asyncio.sleep(LOOK_SECONDS)


def host_of(export: ExportSettings) -> Labels:
    """The name of this box in what is told.  Raises ExportImpossible."""
    try:
        if export.host is not None:
            return labels_of(export.host)
        own = platform.node().partition(".")[0] or "localhost"
        return (own, *labels_of(export.zone or "local"))
    except RecordError as error:
        raise ExportImpossible(f"moniker.export: {error}") from None


def told_addresses(settings: MonikerSettings) -> Sequence[IPAddress]:
    """The addresses of this box that are told: as configured, else what the responder listens on,
    else all that others can use."""
    if settings.addresses:
        return settings.addresses
    listen = [address for address, _ in settings.export.listen if not address.is_unspecified]
    return listen or own_addresses()
