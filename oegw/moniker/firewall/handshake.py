"""How a host and its gateway begin the lease protocol.  Stub of the first minutes."""

from __future__ import annotations

from oegw.moniker.wire import PROTOCOL

HELLO = f"{PROTOCOL} L "


def is_hello(line: str) -> bool:
    """Whether the first line of a connection is a host's that wants to ask for leases."""
    return line.startswith(HELLO)
