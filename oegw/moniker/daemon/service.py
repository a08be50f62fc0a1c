"""The daemon as a whole: what it is made of, its start, its end, and new rules in between."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from oegw.moniker.settings import MonikerSettings
from oegw.trace import Trace


class Daemon:
    """Everything of one daemon, in one event loop.

    ``settings.port`` 0 is a free port, the same for TCP and UDP, which `port` tells after
    `start` (for tests).  ``settings.addresses`` empty: all of this host's, IPv4 and IPv6.
    """

    def __init__(self, settings: MonikerSettings, trace: Trace) -> None: ...

    @property
    def port(self) -> int:
        """On which questions are answered.  0 before `start`."""
        raise NotImplementedError

    async def start(self) -> None:
        """Raises OSError, KeyFileError, MonikerError; then nothing is left behind."""
        raise NotImplementedError

    async def close(self) -> None:
        """End all.  Never raises."""
        raise NotImplementedError

    async def reload(self, settings: MonikerSettings) -> list[str]:
        """Take new rules, grants, hosts and limits; notes say what takes effect at a restart."""
        raise NotImplementedError

    def status(self) -> Mapping[str, Any]:
        """The object that the request ``status`` is answered with."""
        raise NotImplementedError
