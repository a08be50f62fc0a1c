"""Port encryption as the daemon sees it: plane, keys, probes, timers around `sealing.Sealing`."""

from __future__ import annotations

from collections.abc import Callable

from oegw.sst.interface import IPAddress, IPNetwork
from policy.table import PolicyTable

Shielded = Callable[[int, str | None], None]
"""Called with a tunnel, and None or why the ports of its gateways stay as they are."""


class SstService:
    """What `daemon.Daemon` holds where `[sst]` or a rule switches port encryption on."""

    async def start(self, table: PolicyTable) -> None:
        """Rules, queues and sockets.  Raises SstError, and then the kernel is as before."""
        raise NotImplementedError

    async def replace_policy(self, table: PolicyTable) -> None:
        """Another policy: flows stay, what was declined is asked again.  Raises SstError."""
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError

    def prepare(self, local: IPAddress, remote: IPAddress) -> None:
        """Look the key up, and probe the path, for a flow that will come in a moment."""
        raise NotImplementedError

    def tunnel_keyed(self, tunnel: int, local: IPNetwork, remote: IPNetwork, key: bytes) -> None:
        """`commands.SealTunnel`."""
        raise NotImplementedError

    def send_sealed(self, tunnel: int) -> None:
        """`commands.SendSealed`."""
        raise NotImplementedError

    def tunnel_closed(self, tunnel: int) -> None:
        """`commands.UnsealTunnel`."""
        raise NotImplementedError

    def shield(self, tunnel: int, local: IPAddress, remote: IPAddress) -> None:
        """`commands.ShieldGateway`; ``shielded`` is called, soon or after a look-up and a probe."""
        raise NotImplementedError

    def unshield(self, local: IPAddress, remote: IPAddress) -> None:
        """`commands.UnshieldGateway`."""
        raise NotImplementedError

    def forget(self, network: IPNetwork) -> int:
        """Forget the keys and flows of hosts, the declined ones too; returns of how many hosts."""
        raise NotImplementedError

    def counters(self) -> dict[str, int]:
        """Of the plane; what the core counts is in the trace."""
        raise NotImplementedError
