"""Registered services for tests of what is told of them."""

from __future__ import annotations

from itertools import count
from typing import Any

from oegw.moniker.interface import Entry, Owner, Service
from oegw.moniker.names import Version

_numbers = count(1)


def entry(
    service: str = "starwars",
    version: str = "1",
    *,
    transport: str = "tcp",
    port: int = 28403,
    families: str = "46",
    exported: bool = True,
    **more: Any,
) -> Entry:
    """An exported service; ``more``: fields of `Service`."""
    told = Service(
        service, Version.parse(version), transport, port, families, exported=exported, **more
    )
    return Entry(next(_numbers), told, Owner(4711, 1000, 1000, "alice"), 0.0)
