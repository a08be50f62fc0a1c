"""What happens to the gateway: past tense, frozen.  `gateway.Gateway` takes them in.

Events of the keying core (`ike.events`) and of the datapath
(`oegw.datapath.interface`) reach the gateway as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

from dnsrecords.outcome import GatewayOutcome, KeyOutcome
from oegw.datapath.interface import SaKey
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
class SaInstalled(Event):
    """The answer to ``InstallSa``."""

    tunnel: int
    key: SaKey


@dataclass(frozen=True, slots=True)
class SaInstallFailed(Event):
    tunnel: int
    key: SaKey
    reason: str
