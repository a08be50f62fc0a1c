"""What the coordinator wants to know of others: the DNS, and decision points.

A look-up is a task, and its answer comes back as an event.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from dnsrecords.lookup import GatewayLookup, KeyLookup
from dnsrecords.outcome import (
    GatewayOutcome,
    KeyOutcome,
    PeerFound,
    PeerOutcome,
    SstKeyOutcome,
)
from dnsrecords.peer import PeerLookup
from dnsrecords.resolver import Resolver
from dnsrecords.sstlookup import SstKeyLookup
from oegw import commands as do
from oegw import events as happened
from oegw.gateway import Gateway
from oegw.settings import Settings
from oegw.trace import Trace
from policy.flow import IPAddress

if TYPE_CHECKING:
    from oegw.decisionpoint import DecisionPoints

Asking = do.StartLookup | do.StartKeyLookup | do.StartPeerLookup | do.StartDecision

# What a look-up is for, (5B), (5F), (5G2) or ourselves: the resolver's tasks inherit it from ours.
PURPOSE: ContextVar[str] = ContextVar("purpose", default="")


class Lookups:
    """``feed`` gives the gateway an event, ``spawn`` makes a task, ``say`` tells the operator."""

    def __init__(
        self,
        settings: Settings,
        resolver: Resolver,
        mark: int,
        gateway: Gateway,
        trace: Trace,
        feed: Callable[[happened.Event], None],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        say: Callable[[str, str], None],
    ) -> None:
        """Raises PointError, which is an OSError."""
        self._records = tuple(kind.upper() for kind in settings.dns.records)
        self._resolver = resolver
        self._mark = mark
        self._gateway = gateway
        self._trace = trace
        self._feed = feed
        self._spawn = spawn
        self._say = say
        self._under_way: dict[int, asyncio.Task[None]] = {}
        self._points = self._made(settings)

    def start(self, command: Asking) -> None:
        self._under_way[command.lookup] = self._spawn(self._run(command))

    def cancel(self, number: int) -> None:
        if number in self._under_way:
            self._under_way.pop(number).cancel()

    async def sst_key(self, address: IPAddress, ours: bool) -> SstKeyOutcome:
        PURPOSE.set("sst-key")
        lookup = SstKeyLookup(address, self._gateway.may_look_up)
        outcome: SstKeyOutcome = await self._resolver.run(lookup, ours=ours)
        return outcome

    async def _run(self, command: Asking) -> None:
        event = await self._answer(command)
        self._under_way.pop(command.lookup, None)
        self._feed(event)

    async def _answer(self, command: Asking) -> happened.Event:
        match command:
            case do.StartLookup(lookup=number):
                return happened.LookupEnded(number, await self._gateway_of(command))
            case do.StartKeyLookup(lookup=number):
                return happened.KeyLookupEnded(number, await self._keys_of(command))
            case do.StartPeerLookup(lookup=number):
                return happened.PeerLookupEnded(number, await self._peer_of(command))
            case do.StartDecision(lookup=number, question=question):
                points = self._points
                replies = await points.ask(question) if points is not None else ()
                return happened.DecisionsEnded(number, replies)

    async def _gateway_of(self, command: do.StartLookup) -> GatewayOutcome:
        lookup = GatewayLookup(
            command.address,
            random.SystemRandom().shuffle,
            with_keys=command.with_keys,
            may_ask=self._gateway.may_look_up,
            records=self._records,
        )
        PURPOSE.set(command.purpose)
        outcome: GatewayOutcome = await self._resolver.run(lookup, ours=command.ours)
        return outcome

    async def _keys_of(self, command: do.StartKeyLookup) -> KeyOutcome:
        PURPOSE.set(command.purpose)
        lookup = KeyLookup(command.identity, self._records)
        outcome: KeyOutcome = await self._resolver.run(lookup, ours=command.ours)
        return outcome

    async def _peer_of(self, command: do.StartPeerLookup) -> PeerOutcome:
        PURPOSE.set("peer")
        lookup = PeerLookup(command.name, command.identity, self._records)
        outcome: PeerOutcome = await self._resolver.run(lookup, ours=True)
        return outcome

    # Decision points.

    async def points_of(self, settings: Settings, before: Settings) -> DecisionPoints | None:
        """Those of other settings, to be used or not.  Raises PointError, which is an OSError."""
        if settings.decision_points == before.decision_points:
            return self._points
        return await asyncio.to_thread(self._made, settings)

    def use(self, points: DecisionPoints | None) -> None:
        """From now on these are asked."""
        if points is not self._points and self._points is not None:
            self._spawn(self._close_later(self._points))
        self._points = points

    def decision_points(self) -> list[dict[str, Any]]:
        """What `oegw status` says of them."""
        return [] if self._points is None else self._points.rows()

    def forget_opinions(self) -> None:
        if self._points is not None:
            self._points.forget()

    async def close(self) -> None:
        if self._points is not None:
            await self._points.close()

    def _made(self, settings: Settings) -> DecisionPoints | None:
        """The shell that asks them.  Raises PointError, which is an OSError."""
        if not settings.decision_points:
            return None
        from oegw.decisionpoint import DecisionPoints  # a HTTP client takes a while to import

        return DecisionPoints(
            settings.decision_points, self._mark, self._addresses_of, self._trace, time.monotonic,
            lambda text: self._say("decision", text),
        )  # fmt: skip

    async def _addresses_of(self, name: str) -> tuple[IPAddress, ...]:
        PURPOSE.set("decision-point")
        outcome: PeerOutcome = await self._resolver.run(PeerLookup(name, None))
        return outcome.addresses if isinstance(outcome, PeerFound) else ()

    async def _close_later(self, points: DecisionPoints) -> None:
        """Those of an old policy, when nobody waits for them any more."""
        await asyncio.sleep(points.patience)
        await points.close()
