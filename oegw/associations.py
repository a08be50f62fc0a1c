"""Commands about SAs: the datapath takes its time, and what comes of it is told as an event."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from oegw import commands as do
from oegw import events as happened
from oegw.datapath.interface import Datapath, DatapathError, SaKey, SecurityAssociation
from oegw.intercept.interface import InterceptError, Interception
from oegw.trace import Trace
from policy.rule import PortRange, Scope

REMOVAL_PAUSES = (1.0, 10.0, 60.0)  # seconds until an SA is removed once more, if it was refused


class Associations:
    """``feed`` gives the gateway an event."""

    def __init__(
        self,
        datapath: Datapath,
        interception: Interception,
        trace: Trace,
        feed: Callable[[happened.Event], None],
    ) -> None:
        self._datapath = datapath
        self._interception = interception
        self._trace = trace
        self._feed = feed

    async def install(self, command: do.InstallSa) -> None:
        sa = command.sa
        if command.after:
            await asyncio.sleep(command.after)
        installing = asyncio.create_task(self._datapath.install(sa))
        if command.assurance is not None:
            await asyncio.sleep(0)  # the datapath and nftables work side by side
            self._assure(sa, command.assurance)
        try:
            await installing
        except DatapathError as error:
            self._forget_assurance(sa.key)
            self._feed(happened.SaInstallFailed(command.tunnel, sa.key, str(error)))
            return
        self._trace.event(
            "sa", "installed", direction=sa.direction.value, spi=f"{sa.spi:08x}",
            source=sa.source, destination=sa.destination, tunnel=command.tunnel,
        )  # fmt: skip
        self._feed(happened.SaInstalled(command.tunnel, sa.key))

    async def move(self, command: do.MoveSa) -> None:
        try:
            key = await self._datapath.move(
                command.key, command.source, command.destination, command.encapsulation
            )
        except DatapathError as error:
            self._feed(happened.SaMoveFailed(command.tunnel, command.key, str(error)))
            return
        self._trace.event(
            "sa", "moved", direction=key.direction.value, spi=f"{key.spi:08x}",
            source=command.source, destination=command.destination, tunnel=command.tunnel,
        )  # fmt: skip

    async def prefer(self, command: do.PreferSa) -> None:
        key = command.key
        try:
            await self._datapath.prefer(key)
        except DatapathError as error:  # it was removed meanwhile, and others send
            self._trace.drop("sa", "prefer_failed", spi=f"{key.spi:08x}", detail=str(error))
            return
        self._trace.event(
            "sa", "preferred", spi=f"{key.spi:08x}", destination=key.destination,
            tunnel=command.tunnel,
        )  # fmt: skip

    def _assure(self, sa: SecurityAssociation, assurance: do.Assurance) -> None:
        """Its packets will be marked, from the first on."""
        source, destination = sa.source_selector, sa.destination_selector
        scope = Scope(
            source.network,
            destination.network,
            source.protocol or None,
            PortRange.of(source.port),
            PortRange.of(destination.port),
        )
        try:
            self._interception.assure(sa.key, scope, assurance)
        except InterceptError as error:  # its packets come without a mark, as those in clear
            self._trace.drop("policy", "not_assured", scope=scope, detail=str(error))

    def _forget_assurance(self, key: SaKey) -> None:
        try:
            self._interception.forget_assurance(key)
        except InterceptError as error:
            self._trace.drop("policy", "assurance_left", spi=f"{key.spi:08x}", detail=str(error))

    async def remove(self, command: do.RemoveSa) -> None:
        key = command.key
        self._forget_assurance(key)
        for pause in (*REMOVAL_PAUSES, None):
            try:
                usage = await self._datapath.remove(key)
                break
            except DatapathError as error:
                self._trace.drop("sa", "remove_failed", spi=f"{key.spi:08x}", detail=str(error))
            if pause is None:
                return
            await asyncio.sleep(pause)
        self._trace.event(
            "sa", "removed", direction=key.direction.value, spi=f"{key.spi:08x}",
            packets=usage.packets if usage else 0, bytes=usage.bytes if usage else 0,
        )  # fmt: skip
