"""A random port, bound at once and held (MK-3, MK-23, MK-24)."""

from __future__ import annotations

import socket

from oegw.moniker.transports import Transport


def hold(transport: Transport, families: str = "46", *, shared: bool = False) -> socket.socket:
    """A socket bound to a random port, not listening.

    ``families``: ``"4"``, ``"6"`` or ``"46"`` (one socket for both where the host has IPv6).
    ``shared``: SO_REUSEADDR, so that another program may listen on the port while this one holds
    it.  Raises NoPortLeft, TransportUnavailable.
    """
    raise NotImplementedError
