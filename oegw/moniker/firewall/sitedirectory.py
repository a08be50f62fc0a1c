"""The site directory: questions for a namespace that is on a host behind this gateway (MK-14)."""

from __future__ import annotations

from collections.abc import Sequence

from oegw.moniker.firewall.leasedesk import LeaseDesk
from oegw.moniker.firewall.ownfirewall import OwnFirewall, Permit, permit_all
from oegw.moniker.interface import Opening
from oegw.moniker.settings import HostSettings
from oegw.moniker.steps import AskHost
from oegw.moniker.wire import Answer, Refusal
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

    async def ask(self, step: AskHost, seconds: int) -> tuple[Answer | Refusal, Opening | None]:
        """What the host says, and for an Answer the port of ours that leads to the service.

        The port is one of the address that was asked, for at most ``seconds``, for exactly the
        client that asked.  Both go to `Answering.forwarded`.  Raises LeaseRefused.
        """
        raise NotImplementedError

    def reload(self, hosts: Sequence[HostSettings], permit: Permit = permit_all) -> None:
        """Other hosts, other rules."""
        raise NotImplementedError
