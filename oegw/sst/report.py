"""What `oegw status` tells of port encryption."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dnsrecords.trust import Trust
from oegw.sst.books import Fate
from oegw.sst.interface import Algorithm, IPAddress, IPNetwork, PathState
from oegw.sst.relations import KeySource


@dataclass(frozen=True, slots=True)
class PathReport:
    """The way to one gateway.  ``since`` and ``last_probe`` are seconds ago; ``day``: the epoch of
    new flows of ours, ``peer_day`` of the peer's; ``used``: flows go by it."""

    gateway: IPAddress
    family: int
    state: PathState
    since: float
    last_probe: float | None
    day: int | None
    algorithm: Algorithm | None
    peer_day: int | None
    source: KeySource
    trust: Trust
    key: str
    used: bool


@dataclass(frozen=True, slots=True)
class TunnelReport:
    """``sending``: what leaves through it is sealed, too."""

    tunnel: int
    local: IPNetwork
    remote: IPNetwork
    sending: bool


@dataclass(frozen=True, slots=True)
class Report:
    """``hosts``: remote hosts with a key that we know; ``held``: packets that wait; ``questions``:
    hosts that the DNS is being asked about; ``fates``: what the latest flow of a pair got."""

    paths: tuple[PathReport, ...]
    tunnels: tuple[TunnelReport, ...]
    shields: tuple[tuple[IPAddress, IPAddress], ...]
    hosts: int
    held: int
    questions: int
    fates: Mapping[tuple[IPAddress, IPAddress], Fate]
