"""What the daemon tells the world of exported services: by DNS, and by mDNS on links."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from oegw.moniker.interface import Entry
from oegw.moniker.settings import MonikerSettings
from oegw.trace import Trace


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

    @staticmethod
    def wanted(settings: MonikerSettings) -> bool:
        export = settings.export
        return bool(export.multicast or (export.zone and export.listen))

    async def start(self) -> None:
        """Raises MonikerError: an address is taken, a key can't be read, zeroconf is missing."""
        raise NotImplementedError

    async def close(self) -> None:
        """Goodbyes are sent; never raises."""
        raise NotImplementedError

    def snapshot(self) -> dict[str, Any]:
        """For ``oegw moniker status``."""
        raise NotImplementedError
