"""The settings of ``[socks]``, as frozen values with their defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from oegw.socks5.codes import DEFAULT_PORT
from oegw.socks5.wire import IPAddress

IPNetwork = IPv4Network | IPv6Network

DEFAULT_SOCKET = Path("/run/oegw/socks.sock")


@dataclass(frozen=True, slots=True)
class Listener:
    """``authentication``: ``"none"`` or ``"password"``.  ``interface``: only what comes in by it is
    accepted; None where who asks is authenticated, or on loopback.  ``encrypted``: all flows of its
    clients must be (`interface.Demand`)."""

    address: IPAddress
    port: int = DEFAULT_PORT
    authentication: str = "none"
    interface: str | None = None
    encrypted: bool = False


@dataclass(frozen=True, slots=True)
class User:
    """``password``: a hash, as `oegw socks password` prints it.  ``connections``: None: as
    `Limits.client`."""

    name: str
    password: str = field(repr=False)
    encrypted: bool = False
    connections: int | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the access rules; the first of which all keys match decides.  Empty: all.

    ``commands``: ``"connect"``, ``"bind"``, ``"udp"``, ``"associate"``.  ``clients``,
    ``destinations``: prefixes; the latter are compared with the address that is used, after names
    and IDs are resolved (SK-23).  Loopback and link-local are opened only by a destination that
    lies within them, this box's other addresses by any but ``0.0.0.0/0`` and ``::/0``.  ``names``:
    patterns with ``*``; a rule with names matches what was asked for by name only, or by an ID of a
    name.  ``ports``: ranges, both ends included.  ``encrypted``: what it allows must be.
    """

    allow: bool
    commands: tuple[str, ...] = ()
    clients: tuple[IPNetwork, ...] = ()
    users: tuple[str, ...] = ()
    destinations: tuple[IPNetwork, ...] = ()
    names: tuple[str, ...] = ()
    ports: tuple[tuple[int, int], ...] = ()
    encrypted: bool = False
    origin: str = ""  # "socks.rule[2]"


@dataclass(frozen=True, slots=True)
class AddressIdSettings:
    """``scope``: ``"client"`` (address and user) or ``"connection"``.  ``reply``: what a dedicated
    ADDRESS ASSOCIATE with ADR.PREF is answered: ``"address"`` (the address or name itself) or
    ``"id"`` (an ID, whose preference later replies heed).  Seconds: ``idle`` and ``lifetime`` of an
    ID that nothing uses, ``quarantine`` before its number may be another's, ``lockout`` after
    ``failures`` unknown IDs within ``window``."""

    scope: str = "client"
    reply: str = "address"
    idle: float = 600.0
    lifetime: float = 86400.0
    quarantine: float = 600.0
    per_scope: int = 1024
    total: int = 65536
    failures: int = 8
    window: float = 60.0
    lockout: float = 60.0
    refresh: bool = True  # the same destination asked twice has the same ID (SK-21)


@dataclass(frozen=True, slots=True)
class UdpSettings:
    """``filtering``: whose datagrams reach the client (SK-8): ``"address"`` (an address that it
    has sent to), ``"port"`` (that very port of it), ``"any"``.  ``idle``: seconds after which a
    destination is forgotten.  ``resolutions``: names that one association may have resolved at a
    time (SK-44)."""

    filtering: str = "address"
    idle: float = 300.0
    destinations: int = 256
    resolutions: int = 16


@dataclass(frozen=True, slots=True)
class Limits:
    """``total``, ``client``: connections at a time, of all and of one client's address or user.
    ``negotiating``: of them, those that have not been answered yet, in all; ``associations``:
    of one client.  Seconds: ``handshake`` until the request is there, ``connect`` until the
    destination answers, ``bind`` until the peer comes, ``idle`` of a relayed connection (0: for
    ever)."""

    total: int = 16384
    client: int = 1024
    negotiating: int = 1024
    associations: int = 64
    handshake: float = 10.0
    connect: float = 30.0
    bind: float = 300.0
    idle: float = 0.0


@dataclass(frozen=True, slots=True)
class SocksSettings:
    """All of it.  ``present``: the configuration has the table, so `oegw run` starts the server.

    ``listeners``: empty: the addresses of the inside interfaces, and loopback.  ``outgoing``: own
    addresses that flows leave with, at most one of each family; none: as the routing table says.
    ``advertise``: what clients are told in place of our address, at most one of each family (behind
    somebody else's NAT).  ``prefer``: the family that is tried first, ``"6"`` or ``"4"``.
    """

    present: bool = False
    socket: Path = DEFAULT_SOCKET
    listeners: tuple[Listener, ...] = ()
    users: tuple[User, ...] = ()
    rules: tuple[Rule, ...] = ()
    outgoing: tuple[IPAddress, ...] = ()
    advertise: tuple[IPAddress, ...] = ()
    prefer: str = "6"
    confirm_names: bool = True  # a reverse name counts only if it leads back to the address
    ids: AddressIdSettings = field(default_factory=AddressIdSettings)
    udp: UdpSettings = field(default_factory=UdpSettings)
    limits: Limits = field(default_factory=Limits)

    @property
    def demands_encryption(self) -> bool:
        """Whether some flows may leave encrypted only."""
        return (
            any(listener.encrypted for listener in self.listeners)
            or any(user.encrypted for user in self.users)
            or any(rule.encrypted for rule in self.rules)
        )


def restart_notes(old: SocksSettings, new: SocksSettings) -> list[str]:
    """What of the new settings a server that began by ``old`` does not take over."""
    return [
        f"[socks] {name} changed: takes effect at the next restart of its server"
        for name in ("socket", "ids")
        if getattr(new, name) != getattr(old, name)
    ]
