"""The site directory: questions for a namespace that is on a host behind this gateway (MK-14)."""

from __future__ import annotations

from collections.abc import Sequence

from oegw.moniker.firewall.leasedesk import LeaseDesk
from oegw.moniker.firewall.ownfirewall import OwnFirewall, Permit, permit_all
from oegw.moniker.interface import IPAddress
from oegw.moniker.settings import HostSettings
from oegw.moniker.wire import Answer, Query, Refusal
from oegw.trace import Trace


class SiteDirectory:
    """Asks the host that has the namespace, and forwards a port of our own to the service."""

    def __init__(
        self,
        hosts: Sequence[HostSettings],
        firewall: OwnFirewall,
        desk: LeaseDesk | None,
        *,
        trace: Trace,
        permit: Permit = permit_all,
    ) -> None:
        raise NotImplementedError

    def host_of(self, namespace: str) -> HostSettings | None:
        """The host whose ``namespaces`` has ``namespace``."""
        raise NotImplementedError

    async def ask(
        self,
        query: Query,
        *,
        client: IPAddress,
        asked: IPAddress,
        seconds: int,
        encrypted: bool = False,
    ) -> Answer | Refusal:
        """The answer for ``client``, who asked our address ``asked``.

        Its port is one of ``asked``, for at most ``seconds``.  Never raises.
        """
        raise NotImplementedError

    def reload(self, hosts: Sequence[HostSettings], permit: Permit = permit_all) -> None:
        """Other hosts, other rules."""
        raise NotImplementedError
