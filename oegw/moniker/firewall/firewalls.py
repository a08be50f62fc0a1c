"""All that the daemon needs of this room, made from its settings."""

from __future__ import annotations

import time
from collections.abc import Callable

from oegw.moniker.firewall.gatewaylink import Answering, FindKey
from oegw.moniker.firewall.leasedesk import LeaseDesk
from oegw.moniker.firewall.openers import AllOf, AskGateway, NoFirewall, OwnFirewall, RunningOpener
from oegw.moniker.firewall.ownfirewall import remove_what_was_left
from oegw.moniker.firewall.sitedirectory import SiteDirectory
from oegw.moniker.settings import MonikerSettings
from oegw.sst.statickey import StaticKey
from oegw.trace import Trace


class Firewalls:
    """``opener``: opens ports for clients of services of this host, whatever is in between.
    ``desk``: for hosts that ask us, None without a key or without hosts that have one.
    ``directory``: None without hosts that have namespaces.  ``link``: to the gateway in front.
    """

    def __init__(
        self,
        settings: MonikerSettings,
        *,
        key: StaticKey | None,
        trace: Trace,
        answering: Answering | None = None,
        find_key: FindKey | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``answering``: our own answer to a question that the gateway in front passes on.
        ``find_key``: of the gateway in front, if the configuration doesn't have its key.
        """
        self._trace = trace
        own = None
        if settings.firewall.deny or settings.hosts:
            own = OwnFirewall(settings.firewall, settings.hosts, trace=trace, clock=clock)
        openers: list[RunningOpener] = [own] if own else []
        self.link: AskGateway | None = None
        if settings.gateway is not None and key is not None:
            self.link = AskGateway(
                settings.gateway, key, trace=trace, answering=answering, find_key=find_key
            )
            openers.append(self.link)
        self.own = own
        self.opener: RunningOpener = (
            openers[0] if len(openers) == 1 else AllOf(openers) if openers else NoFirewall()
        )
        self.desk: LeaseDesk | None = None
        self.directory: SiteDirectory | None = None
        if own is None:
            return
        if key is not None and any(host.key for host in settings.hosts):
            self.desk = LeaseDesk(key, settings.hosts, own, trace=trace, rules=settings.rules)
        if any(host.namespaces for host in settings.hosts):
            self.directory = SiteDirectory(settings.hosts, own, self.desk, trace=trace)

    async def start(self) -> None:
        """Raises FirewallError."""
        if self.own is None:
            await remove_what_was_left(self._trace)
        await self.opener.start()

    async def reload(self, settings: MonikerSettings, key: StaticKey | None = None) -> list[str]:
        """Other hosts, other rules, perhaps another key; notes say what takes effect at a restart.

        Raises FirewallError; then everything is as it was.
        """
        if self.own is not None:
            await self.own.reload(settings.hosts)
        if self.desk is not None:
            self.desk.reload(settings.hosts, settings.rules, key)
        if self.directory is not None:
            self.directory.reload(settings.hosts)
        if self.link is not None and key is not None:
            self.link.take_key(key)
        keys = any(host.key for host in settings.hosts) and self.desk is None
        namespaces = any(host.namespaces for host in settings.hosts) and self.directory is None
        return [
            f"[moniker] the first host with {what} is served from the next restart on"
            for what, missing in (("a key", keys), ("namespaces", namespaces))
            if missing
        ]

    async def close(self) -> None:
        """The desk first: what it ends, the firewall still hears of."""
        if self.desk is not None:
            await self.desk.close()
        await self.opener.close()
