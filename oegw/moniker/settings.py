"""The settings of ``[moniker]``, as frozen values with their defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from oegw.moniker.interface import IPAddress
from oegw.moniker.wire import DEFAULT_PORT

IPNetwork = IPv4Network | IPv6Network

DEFAULT_SOCKET = Path("/run/oegw/moniker.sock")


@dataclass(frozen=True, slots=True)
class Grant:
    """``user`` (a user's name, or ``@`` and a group's) may register ``service`` (a pattern with
    ``*`` and ``?``) in ``namespace``."""

    user: str
    service: str = "*"
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class ServiceRule:
    """One line of the policy by service name; the first that matches decides.

    ``service``, ``namespace``: patterns (namespace ``-``: the system's).  ``clients``, ``hosts``:
    prefixes; empty: all.  ``encrypted``: only for questions that came encrypted.
    """

    allow: bool
    service: str = "*"
    namespace: str = "*"
    clients: tuple[IPNetwork, ...] = ()
    hosts: tuple[IPNetwork, ...] = ()
    encrypted: bool = False
    origin: str = ""


@dataclass(frozen=True, slots=True)
class HostSettings:
    """A host behind this gateway that may ask for leases, or that namespaces are forwarded to.

    ``key``: 32 octets of its X25519 public key; None: it can't ask.  ``leases``: how many at a
    time.
    """

    name: str
    addresses: tuple[IPAddress, ...]
    key: bytes | None = None
    namespaces: tuple[str, ...] = ()
    leases: int = 256
    port: int = DEFAULT_PORT


@dataclass(frozen=True, slots=True)
class FirewallSettings:
    """``deny``: what comes from outside reaches no host inside, and no registered service of this
    box, without a lease.  ``outside``: interfaces; empty: those of ``[interfaces]``.  ``tunnel``:
    the tunnel's interface, ``[datapath] tunnel_interface``; what comes out of it comes from
    outside.  ``allow``: what is let through to hosts inside without a lease, as matches of the nft
    language (``ip daddr 192.2.0.80 tcp dport 443``).  ``keep``: at a stop the rules stay, without
    leases."""

    deny: bool = False
    outside: tuple[str, ...] = ()
    tunnel: str = "oegw0"
    allow: tuple[str, ...] = ()
    keep: bool = True


@dataclass(frozen=True, slots=True)
class GatewayInFront:
    """The gateway that this host asks for leases.  ``key``: 32 octets; None: from the DNS."""

    address: IPAddress
    key: bytes | None = None
    port: int = DEFAULT_PORT


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """What applications of this host may ask for (MK-17).  ``encrypt``: ``"never"``, ``"prefer"``
    (if the far host has a key) or ``"require"``."""

    rules: tuple[ServiceRule, ...] = ()
    encrypt: str = "prefer"


@dataclass(frozen=True, slots=True)
class Found:
    """A gateway that agreed to be asked by `oegw moniker find`, and may ask: ``key`` is the TSIG
    key's file of both.

    ``name``: the zone below which it tells its services, its `ExportSettings.zone`.  ``inside``: a
    host of ours, whose services we tell to the gateways outside, and theirs to it.
    """

    name: str
    address: IPAddress
    key: Path
    port: int = 5300
    inside: bool = False


@dataclass(frozen=True, slots=True)
class ExportSettings:
    """DNS-SD of exported services.  ``zone``: below which they are, None: not by DNS.  ``listen``:
    address and port of our responder.  ``multicast``: interfaces on which mDNS tells them.
    ``host``: the name of this box, whose addresses are in the DNS; None: its host name, in the
    zone, where the responder tells its addresses."""

    zone: str | None = None
    listen: tuple[tuple[IPAddress, int], ...] = ()
    multicast: tuple[str, ...] = ()
    public: bool = False  # anybody may ask the responder; else only those with a key of `peers`
    peers: tuple[Found, ...] = ()
    host: str | None = None


@dataclass(frozen=True, slots=True)
class MonikerSettings:
    """All of it.  ``present``: the configuration has the table, so `oegw run` starts the daemon.

    ``listing``: who may list all services: ``"local"`` (this host's users) or ``"all"``.
    ``clear``: who is answered in clear: ``"all"`` or ``"local"``.  ``lease``: seconds of a lease,
    and the answer's TTL.
    """

    present: bool = False
    port: int = DEFAULT_PORT
    addresses: tuple[IPAddress, ...] = ()
    socket: Path = DEFAULT_SOCKET
    private_key: Path | None = None
    listing: str = "local"
    clear: str = "all"
    lease: int = 60
    queries: float = 20.0  # a second from one source, with ten times as many at once
    services: int = 256  # of one user; root's have no limit of their own
    grants: tuple[Grant, ...] = ()
    rules: tuple[ServiceRule, ...] = ()
    hosts: tuple[HostSettings, ...] = ()
    gateway: GatewayInFront | None = None
    firewall: FirewallSettings = field(default_factory=FirewallSettings)
    client: ClientSettings = field(default_factory=ClientSettings)
    export: ExportSettings = field(default_factory=ExportSettings)


def restart_notes(old: MonikerSettings, new: MonikerSettings) -> list[str]:
    """What of the new settings a daemon that began by ``old`` does not take over."""
    return [
        f"[moniker] {name} changed: takes effect at the next restart of its daemon"
        for name in ("port", "addresses", "socket", "services", "gateway", "firewall", "export")
        if getattr(new, name) != getattr(old, name)
    ]
