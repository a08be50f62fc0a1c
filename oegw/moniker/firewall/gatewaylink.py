"""The host's end of the lease protocol: one connection to the gateway's daemon, kept."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from oegw.moniker.interface import IPAddress, Lease, Opening
from oegw.moniker.settings import GatewayInFront
from oegw.sst.statickey import StaticKey
from oegw.trace import Trace

Answering = Callable[[str, IPAddress], Awaitable[str]]
"""Answers a question's line from a client that asked the gateway (MK-14), with a line."""

FindKey = Callable[[IPAddress], Awaitable[bytes | None]]
"""The X25519 public key of a host in the DNS, where the configuration doesn't have it."""


class AskGateway:
    """Asks the gateway in front for each lease.  Without a connection every lease is refused with
    code ``gateway``; it connects again by itself."""

    def __init__(
        self,
        gateway: GatewayInFront,
        key: StaticKey,
        *,
        trace: Trace,
        answering: Answering | None = None,
        find_key: FindKey | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        raise NotImplementedError

    async def start(self) -> None:
        """Begin to connect; doesn't wait for it."""
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError

    @property
    def connected(self) -> bool:
        """Whether the gateway would hear us now."""
        raise NotImplementedError

    async def guard(self, transport: str, port: int) -> None:
        """The gateway denies by default: nothing to do."""
        raise NotImplementedError

    async def open(self, lease: Lease) -> Opening:
        """Raises LeaseRefused, with the gateway's code and words or ``gateway``."""
        raise NotImplementedError

    async def end(self, host: IPAddress | None, transport: str, port: int) -> None:
        """Tell the gateway that the service ended."""
        raise NotImplementedError
