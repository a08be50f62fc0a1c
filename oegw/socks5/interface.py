"""The doors between the parts of the SOCKS server, and to whom it is handed by.

The room imports neither Moniker nor the gateway: names are resolved by a `Resolver`, and what a
flow must fulfil before it may leave is known to a `Dialler`.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from oegw.socks5.terms import TCP, UDP, Demand, Refused, Resolved, Scope
from oegw.socks5.wire import IPAddress

__all__ = [
    "TCP",
    "UDP",
    "Demand",
    "Dialler",
    "Refused",
    "Relay",
    "Relayed",
    "Resolved",
    "Resolver",
    "Scope",
    "Transferred",
]


class Resolver(Protocol):
    """The server's view of names.  Raises `Refused` (usually HOST_UNREACHABLE)."""

    async def resolve(self, name: str, transport: str) -> Resolved: ...

    async def name_of(self, address: IPAddress) -> str:
        """The reverse question (SK-36)."""
        ...


class Dialler(Protocol):
    """What the gateway has a say in.  Twins: none, on a host without a gateway; the gateway's."""

    async def allow(
        self, destination: IPAddress, port: int, transport: str, demand: Demand
    ) -> None:
        """Before anything is sent to the destination.  May wait until it is encrypted.

        Raises Refused.
        """
        ...

    def prepare(self, sock: socket.socket, demand: Demand) -> None:
        """A socket of ours, before it is bound or connected.  Raises OSError."""
        ...


@dataclass(frozen=True, slots=True)
class Transferred:
    """How a relayed connection went.  ``reason``: ``"ended"``, ``"reset"``, ``"idle"``,
    ``"closed"`` (by us)."""

    to_destination: int  # octets
    to_client: int
    reason: str


class Relayed(Protocol):
    """A connection that is being relayed."""

    def close(self) -> None:
        """End it; ``ended`` is told."""
        ...


class Relay(Protocol):
    """Moves octets between pairs of connected TCP sockets, without asyncio, until both directions
    have ended (a half-closed connection goes on in the other direction)."""

    def begin(
        self,
        client: socket.socket,
        destination: socket.socket,
        early: bytes,
        idle: float,
        ended: Callable[[Transferred], None],
    ) -> Relayed:
        """Takes both sockets (non-blocking) over, and closes them; their options are as they are.

        ``early``: what came behind the request; it goes to the destination first.  ``idle``:
        seconds without an octet either way after which it ends; 0: never.  ``ended`` is called
        once, in the event loop that called `begin`.
        """
        ...

    def close(self) -> None:
        """End all, and what moves them."""
        ...
