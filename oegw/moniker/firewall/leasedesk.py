"""The gateway's end of the lease protocol: hosts behind it ask for ports to be opened (MK-18)."""

from __future__ import annotations

import time
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Sequence

from oegw.moniker.firewall.ownfirewall import OwnFirewall, Permit, permit_all
from oegw.moniker.interface import IPAddress
from oegw.moniker.settings import HostSettings
from oegw.sst.statickey import StaticKey
from oegw.trace import Trace


class LeaseDesk:
    """Serves the hosts' connections.  The daemon's TCP listener reads a connection's first line;
    if `handshake.is_hello` says that it is a host's, it hands the connection over."""

    def __init__(
        self,
        key: StaticKey,
        hosts: Sequence[HostSettings],
        firewall: OwnFirewall,
        *,
        trace: Trace,
        permit: Permit = permit_all,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        raise NotImplementedError

    async def serve(self, line: str, reader: StreamReader, writer: StreamWriter) -> None:
        """A connection whose first line was ``line`` (without CRLF), until it ends.

        Never raises; closes the writer.
        """
        raise NotImplementedError

    async def close(self) -> None:
        """All connections end; leases live until the firewall's end."""
        raise NotImplementedError

    def reload(self, hosts: Sequence[HostSettings], permit: Permit = permit_all) -> None:
        """Connections of hosts that changed or are gone end."""
        raise NotImplementedError

    def connected(self) -> list[str]:
        """The names of the hosts that have a connection, for the status."""
        raise NotImplementedError

    async def ask(self, host: HostSettings, line: str, client: IPAddress) -> str | None:
        """Put a client's question to a host over its connection; None if it has none."""
        raise NotImplementedError
