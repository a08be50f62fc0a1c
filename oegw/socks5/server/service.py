"""The server as a whole: what it is made of, its start, its end, and new rules in between."""

from __future__ import annotations

from typing import Any

from oegw.socks5.interface import Dialler, Relay, Resolver
from oegw.socks5.settings import SocksSettings
from oegw.trace import Trace


class Server:
    """All of it, in one event loop.

    ``settings.listeners``: who starts the server has filled in the addresses of inside interfaces;
    none at all means loopback.  ``relay`` is closed with the server.
    """

    def __init__(
        self,
        settings: SocksSettings,
        resolver: Resolver,
        dialler: Dialler,
        relay: Relay,
        trace: Trace,
    ) -> None:
        raise NotImplementedError

    @property
    def ports(self) -> tuple[int, ...]:
        """Of the listeners, in the order of the settings: port 0 is the kernel's choice."""
        raise NotImplementedError

    async def start(self) -> None:
        """Listen.  Raises OSError and AddressTaken."""
        raise NotImplementedError

    async def close(self) -> None:
        """End all connections, and the relay."""
        raise NotImplementedError

    async def reload(
        self,
        settings: SocksSettings,
        resolver: Resolver | None = None,
        dialler: Dialler | None = None,
    ) -> list[str]:
        """New rules, users and limits, for new requests.  Returns notes for the operator."""
        raise NotImplementedError

    def snapshot(self) -> dict[str, Any]:
        """For status and metrics, JSON's types only::

        {"pid": int, "started": seconds since 1970, "socket": path,
         "listeners": [{"address", "port", "authentication", "interface", "encrypted",
                        "listening": bool}],
         "connections": {"negotiating", "relayed", "binding", "associations"},
         "users": {name: connections}, "clients": {address: connections},  # the first 100
         "octets": {"to_destination", "to_client"},
         "ids": AddressIds.snapshot(), "counters": {name: count}}
        """
        raise NotImplementedError
