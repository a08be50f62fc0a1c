"""The doors between the parts of Moniker: what is registered, and how a port is opened."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

from oegw.moniker.names import SYSTEM, MonikerError, Version

IPAddress = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that registered, as the kernel says (SO_PEERCRED).  ``user``: the name of uid."""

    pid: int
    uid: int
    gid: int
    user: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where services of this host are: a port of a transport, in IPv4, IPv6 or both (``families``),
    at one address or at all (None)."""

    transport: str
    port: int
    families: str = "46"
    address: IPAddress | None = None


@dataclass(frozen=True, slots=True)
class Service:
    """What is registered.  ``port`` is proven by the socket that came along.

    ``families``: ``"4"``, ``"6"``, ``"46"``.  ``weight``: among instances of the same name and
    version, 1 to 1000.  ``tcpmux``: connections may be handed over by the daemon (RFC 1078).
    ``exported``: may be told by DNS-SD.  ``text``: DNS-SD's TXT strings, ``key=value``.
    ``address``: the one that the socket is bound to, at which alone the service is told (else who
    holds a port of 127.0.0.1 could have another's port opened); None: all of the host's.
    """

    service: str
    version: Version
    transport: str
    port: int
    families: str
    namespace: str = SYSTEM
    weight: int = 100
    sst: bool = False
    tcpmux: bool = False
    exported: bool = False
    text: tuple[str, ...] = ()
    address: IPAddress | None = None

    @property
    def place(self) -> Place:
        return Place(self.transport, self.port, self.families, self.address)


@dataclass(frozen=True, slots=True)
class Entry:
    """``number``: the daemon's, never used twice while it runs."""

    number: int
    service: Service
    owner: Owner
    since: float  # the daemon's monotonic clock


@dataclass(frozen=True, slots=True)
class Lease:
    """For ``seconds``, ``client`` may open connections to ``port`` of ``host``.

    ``host`` is an address of the host with the service, of the family that the client uses.
    ``encrypted``: the question came encrypted; the gateway's policy may ask for that.
    """

    client: IPAddress
    host: IPAddress
    transport: str
    port: int
    seconds: int
    service: str
    namespace: str = SYSTEM
    encrypted: bool = False


@dataclass(frozen=True, slots=True)
class Opening:
    """Where the client finds it: another port than the lease's where the gateway forwards."""

    port: int
    seconds: int


class LeaseRefused(MonikerError):  # noqa: N818  (it names the fact)
    """The port was not opened; ``code`` is one of `wire.Code`'s values."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class Opener(Protocol):
    """Opens ports for clients.  Twins: no firewall at all; our own firewall; a gateway asked for
    it."""

    async def guard(self, place: Place) -> None:
        """A service of this host is there now: it is closed but for leases.  Never raises."""
        ...

    async def open(self, lease: Lease) -> Opening:
        """Raises LeaseRefused."""
        ...

    async def end(self, place: Place) -> None:
        """No service of this host is there any more: its leases end, and it is not guarded.

        Connections that are established live on.  Never raises.
        """
        ...
