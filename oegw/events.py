"""What happens to the gateway: past tense, frozen.  `gateway.Gateway` takes them in.

Events of the keying core (`ike.events`) and of the datapath
(`oegw.datapath.interface`) reach the gateway as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from dnsrecords.outcome import GatewayOutcome, KeyOutcome, PeerOutcome
from oegw.datapath.interface import SaKey, Usage
from oegw.decision import Replies
from policy.flow import Flow


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events."""


@dataclass(frozen=True, slots=True)
class PacketTrapped(Event):
    """Interception has no verdict for this packet and keeps it as ``packet`` (a number)."""

    flow: Flow
    packet: int
    size: int  # octets, IP header included


@dataclass(frozen=True, slots=True)
class LookupEnded(Event):
    """The answer to ``StartLookup``."""

    lookup: int
    outcome: GatewayOutcome


@dataclass(frozen=True, slots=True)
class KeyLookupEnded(Event):
    """The answer to ``StartKeyLookup``."""

    lookup: int
    outcome: KeyOutcome


@dataclass(frozen=True, slots=True)
class PeerLookupEnded(Event):
    """The answer to ``StartPeerLookup``."""

    lookup: int
    outcome: PeerOutcome


@dataclass(frozen=True, slots=True)
class DecisionsEnded(Event):
    """The answer to ``StartDecision``: the replies of all points, in their order."""

    lookup: int
    replies: Replies


Answer: TypeAlias = LookupEnded | KeyLookupEnded | PeerLookupEnded | DecisionsEnded


@dataclass(frozen=True, slots=True)
class UsageReported(Event):
    """The counters of all SAs, read now and then."""

    usage: Mapping[SaKey, Usage]


@dataclass(frozen=True, slots=True)
class SaInstalled(Event):
    """The answer to ``InstallSa``."""

    tunnel: int
    key: SaKey


@dataclass(frozen=True, slots=True)
class SaInstallFailed(Event):
    """The other answer to ``InstallSa``."""

    tunnel: int
    key: SaKey
    reason: str


@dataclass(frozen=True, slots=True)
class SaMoveFailed(Event):
    """``MoveSa`` was refused, and the SA is as before; it has no answer if all is well.

    ``key`` is the name before.
    """

    tunnel: int
    key: SaKey
    reason: str


@dataclass(frozen=True, slots=True)
class GatewayShielded(Event):
    """Answer to ``ShieldGateway``: None, or why the ports stay as they are."""

    tunnel: int
    reason: str | None
