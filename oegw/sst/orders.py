"""What `sealing.Sealing` wants done besides what it tells the plane: imperative, frozen."""

from __future__ import annotations

from dataclasses import dataclass, field

from oegw.sst.interface import IPAddress


@dataclass(frozen=True, slots=True)
class Order:
    """Base of all orders."""


@dataclass(frozen=True, slots=True)
class AskKeys(Order):
    """Find the SST keys of an address; answered by ``keys_found``, ``keys_absent`` or
    ``keys_unanswered``.  ``ours``: for flows that are under way, not for a stranger."""

    address: IPAddress
    ours: bool


@dataclass(frozen=True, slots=True)
class SendProbe(Order):
    """Send a whole IP packet, with the gateway's own mark, without looking at it."""

    source: IPAddress
    destination: IPAddress
    packet: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class TellShielded(Order):
    """The answer to ``shield``: None, or why the ports stay as they are."""

    request: int
    reason: str | None
