"""The door of every datapath: what it is given, what it says, what it can do.

The gateway owns these types; `memory`, `userspace` and `xfrm` stand
behind them and pass the same contract tests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Protocol

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network


class Direction(Enum):
    INBOUND = "in"
    OUTBOUND = "out"


class DatapathError(Exception):
    """A request that the datapath refused; nothing of it remains installed."""


@dataclass(frozen=True, slots=True)
class Selector:
    """One side of an SA's traffic; protocol 0 is any, port 0 is any (RFC 4301 4.4.1.1)."""

    network: IPNetwork
    protocol: int = 0
    port: int = 0


@dataclass(frozen=True, slots=True)
class UdpEncapsulation:
    """ESP in UDP (RFC 3948), ports as seen on the wire by this side."""

    source_port: int = 4500
    destination_port: int = 4500


@dataclass(frozen=True, slots=True)
class SaKey:
    """What names an SA: the receiver's SPI and address (RFC 4301 4.1), and our direction."""

    direction: Direction
    spi: int
    destination: IPAddress


@dataclass(frozen=True, slots=True)
class SecurityAssociation:
    """One ESP SA in tunnel mode (RFC 4303), as ``ike.EspSa`` says it plus what is local to us.

    ``source``/``destination`` are the outer addresses, the selectors the inner
    ones, both in the direction of travel.  ``hard_bytes``/``soft_bytes`` count
    plaintext; ``hard_seconds``/``soft_seconds`` count from the installation;
    ``replay_window`` is in packets.  ``configured``: of a configured tunnel, which comes before
    opportunistic ones of overlapping selectors.
    """

    direction: Direction
    spi: int
    source: IPAddress
    destination: IPAddress
    source_selector: Selector
    destination_selector: Selector
    cipher: str
    encryption_key: bytes = field(repr=False)
    integrity: str | None
    integrity_key: bytes = field(repr=False)
    extended_sequence_numbers: bool = False
    replay_window: int = 1024
    encapsulation: UdpEncapsulation | None = None
    soft_bytes: int | None = None
    hard_bytes: int | None = None
    soft_seconds: int | None = None
    hard_seconds: int | None = None
    configured: bool = False

    @property
    def key(self) -> SaKey:
        return SaKey(self.direction, self.spi, self.destination)


@dataclass(frozen=True, slots=True)
class Usage:
    """Counters of one SA; ``last_used`` is the monotonic time of the last packet, or None."""

    packets: int
    bytes: int
    last_used: float | None


@dataclass(frozen=True, slots=True)
class Capability:
    """What this datapath is and can do, for ``status``."""

    name: str  # "userspace", "kernel", "memory"
    reason: str  # why it was chosen
    ciphers: tuple[str, ...]
    udp_encapsulation: bool
    core: str = ""  # of the hot loop: "compiled" or "python"; empty where there is none of ours
    core_reason: str = ""  # why this one runs
    libraries: tuple[tuple[str, str, str], ...] = ()
    """What they do for it, their names, and why no faster one does, if there might be one."""
    offloads: tuple[tuple[str, bool, str], ...] = ()  # each: name, whether in use, why or why not
    workers: int = 0  # processes for each direction

    @property
    def prefers_udp(self) -> bool:
        """Whether ESP is faster in UDP than as protocol 50: in user space segments can be sent and
        received together there, and the kernel hands each packet to one worker only."""
        return self.name == "userspace" and self.udp_encapsulation


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """One process that moves packets, as ``status`` shows it."""

    name: str  # "sealing 0": what it does, and which of several it is
    pid: int | None  # None: its successor is being started
    restarts: int
    core: str
    core_reason: str  # another than at the start if the compiled core kept crashing
    without: tuple[tuple[str, str], ...] = ()  # offloads that failed while it ran: name, why
    libraries: tuple[tuple[str, str, str], ...] = ()  # as `Capability` has them


@dataclass(frozen=True, slots=True)
class DatapathEvent:
    """Base of what a datapath reports by itself."""


@dataclass(frozen=True, slots=True)
class SaExpired(DatapathEvent):
    """A limit of bytes, seconds or sequence numbers was reached; after ``hard`` the SA carries
    nothing more."""

    key: SaKey
    hard: bool


@dataclass(frozen=True, slots=True)
class UnknownSpiReceived(DatapathEvent):
    """An ESP packet without an SA (RFC 4322 3.2.6): unauthenticated, at most 1/s per peer."""

    source: IPAddress
    destination: IPAddress
    spi: int


@dataclass(frozen=True, slots=True)
class PeerAddressChanged(DatapathEvent):
    """An authenticated packet of the inbound SA ``key`` came from another address or UDP port than
    the SA says (RFC 3947 section 7).  The SA itself is left as it is; see ``Datapath.move``."""

    key: SaKey
    address: IPAddress
    port: int


@dataclass(frozen=True, slots=True)
class KeyingDatagram(DatapathEvent):
    """A UDP payload other than ESP arrived at the port of ESP in UDP: IKE behind a non-ESP marker
    (RFC 3948 section 2.2), whole, marker included.  Keepalives are not reported."""

    data: bytes = field(repr=False)
    local: IPAddress
    remote: IPAddress
    remote_port: int


@dataclass(frozen=True, slots=True)
class DatapathFailed(DatapathEvent):
    """The datapath stopped working, and carries nothing: no clear packet leaves."""

    reason: str


class Datapath(Protocol):
    """ESP in tunnel mode.  A replaced outbound SA stays installed until it is removed;
    of several with the same selectors the newest sends (make before break), unless ``prefer`` has
    chosen another since."""

    async def start(self, listener: Callable[[DatapathEvent], None]) -> Capability:
        """Prepare the datapath.  Raises DatapathError, and then leaves nothing behind."""

    async def close(self) -> None:
        """Undo ``start``."""

    async def install(self, sa: SecurityAssociation) -> None:
        """Install one SA.  Returns once packets will be processed.  Raises DatapathError."""

    async def remove(self, key: SaKey) -> Usage | None:
        """Remove one SA and return its last counters; None if there was none."""

    async def move(
        self,
        key: SaKey,
        source: IPAddress,
        destination: IPAddress,
        encapsulation: UdpEncapsulation | None,
    ) -> SaKey:
        """Give an SA other outer addresses and ports; counters, sequence numbers and replay window
        go on.  Returns its new name.  Raises DatapathError, and then the SA is as before."""

    async def prefer(self, key: SaKey) -> None:
        """Of several outbound SAs with the same selectors, ``key`` sends from now on, until a newer
        one is installed or another preferred (RFC 4322 section 8).  Raises DatapathError if there
        is no such outbound SA, or if it has expired; then nothing has changed."""

    def send_keying(
        self, data: bytes, source: IPAddress, destination: IPAddress, port: int
    ) -> None:
        """Send a UDP payload from the port of ESP in UDP: IKE with its non-ESP marker, or a
        keepalive.  What can't be sent is lost, and counted as ``drop_keying``."""

    async def mend(self) -> tuple[str, ...]:
        """Look whether what leads packets here is in the kernel, and put back what somebody else
        took away.  Returns what that was.  Raises DatapathError if it can't be put back."""

    async def usage(self) -> dict[SaKey, Usage]:
        """The counters of all SAs."""

    async def counters(self) -> dict[str, int]:
        """Drops by trigger and totals, e.g. ``{"esp_in_packets": 3, "drop_in_replay": 1}``."""

    def workers(self) -> tuple[WorkerReport, ...]:
        """The processes that move packets; none where the kernel does."""
