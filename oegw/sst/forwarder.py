"""A DNS forwarder, so that the gateway sees the names that hosts ask for (SST-31, SST-32).

Hosts name it as their resolver; it passes their questions on to the gateway's resolvers and the
answers back, unchanged.  Beside a question for addresses it asks for the SST keys of the name, and
gives the answer only when the directory knows them, or after a moment: so the first packet to that
address has its ports encrypted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dnsrecords.resolver import Resolver
from oegw.sst.directory import KeyDirectory
from oegw.sst.interface import IPAddress, IPNetwork
from oegw.trace import Trace


class Forwarder:
    """``listen``: address and port.  ``servers``: the gateway's resolvers, asked with ``mark`` set.

    ``clients``: networks whose hosts may ask, beside this box itself; others get no answer.
    ``resolver`` looks keys up, if ``wanted()``; ``directory`` is told of them.  ``clock``: that of
    ``directory``.
    """

    def __init__(
        self,
        listen: tuple[IPAddress, int],
        servers: Sequence[IPAddress],
        clients: Sequence[IPNetwork],
        resolver: Resolver,
        directory: KeyDirectory,
        trace: Trace,
        *,
        wanted: Callable[[], bool],
        clock: Callable[[], float],
        mark: int | None = None,
        port: int = 53,
    ) -> None:
        raise NotImplementedError

    async def start(self) -> None:
        """Listen by UDP and TCP.  Raises SstError: the address is taken, or not ours."""
        raise NotImplementedError

    async def close(self) -> None:
        """Stop listening; questions under way are given up."""
        raise NotImplementedError

    def snapshot(self) -> dict[str, Any]:
        """For ``oegw status``."""
        raise NotImplementedError
