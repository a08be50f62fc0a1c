"""What there is to know of the box, as values.  Pure; `reading` fills them in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path
from typing import Any

from policy.flow import IPAddress

IPInterface = IPv4Interface | IPv6Interface


@dataclass(frozen=True, slots=True)
class Link:
    """``lasting``: addresses that nobody lent us; ``lent``: those with a lifetime."""

    name: str
    mtu: int
    kind: str = ""
    lasting: tuple[IPInterface, ...] = ()
    lent: tuple[IPInterface, ...] = ()

    @property
    def addresses(self) -> tuple[IPInterface, ...]:
        return (*self.lasting, *self.lent)

    def has(self, version: int) -> bool:
        """An address of this family that is good beyond the link."""
        return any(
            each.version == version and not each.ip.is_link_local and not each.ip.is_loopback
            for each in self.addresses
        )


@dataclass(frozen=True, slots=True)
class RoutingRule:
    """A rule of policy routing; ``protocol`` says who made it, ``inverted`` that it begins with
    ``not``."""

    version: int
    priority: int
    table: int
    mark: int = 0
    mask: int = 0
    protocol: int = 0
    inverted: bool = False


@dataclass(frozen=True, slots=True)
class Routing:
    """``tables``: for each family and routing table the interfaces of its default routes;
    ``refusing``: those whose packets an unreachable route refuses."""

    rules: tuple[RoutingRule, ...] = ()
    tables: Mapping[tuple[int, int], tuple[str, ...]] = field(default_factory=dict)
    refusing: frozenset[tuple[int, int]] = frozenset()
    neighbours: tuple[tuple[str, IPAddress], ...] = ()  # interface, address


@dataclass(frozen=True, slots=True)
class Process:
    """A process in this network namespace."""

    number: int
    name: str
    words: tuple[str, ...] = ()
    unit: str = ""  # of systemd
    parent: int = 0  # its number

    @property
    def ours(self) -> bool:
        """Whether its command line is one of ours."""
        return any(
            word.rpartition("/")[2] == "oegw" or word.startswith("oegw.") for word in self.words
        )


@dataclass(frozen=True, slots=True)
class UdpSocket:
    """Who is bound to a port; ``owners`` is empty where we may not see that."""

    address: str
    port: int
    owners: tuple[Process, ...] = ()


@dataclass(frozen=True, slots=True)
class IptablesRule:
    """A rule as ``iptables-save`` lists it.  ``program``: the one that changes it."""

    program: str
    table: str
    chain: str
    words: tuple[str, ...]  # after -A CHAIN


@dataclass(frozen=True, slots=True)
class XfrmItem:
    """A state or policy of IPsec in the kernel, as the words that delete it."""

    what: str  # state, policy
    words: str
    interface_id: int = 0

    @property
    def deletion(self) -> str:
        return f"ip xfrm {self.what} delete {self.words}"


@dataclass(frozen=True, slots=True)
class Kernel:
    """What it offers; each text says why not, and is empty if it does."""

    release: str
    no_tun: str = ""
    tun_node: bool = True
    no_esp: str = ""
    no_queue: str = ""
    no_core: str = ""
    no_ports_option: str = ""


@dataclass(frozen=True, slots=True)
class Clock:
    """Seconds since 1970.  ``earliest``: no right clock shows less, because of ``evidence``."""

    now: float
    earliest: float
    evidence: str
    synchronised: bool


@dataclass(frozen=True, slots=True)
class Place:
    """A file or directory; ``mode`` is None if it is not there."""

    path: Path
    mode: int | None = None
    owner: int = 0
    directory: bool = False
    free: int | None = None  # octets, on its file system


@dataclass(frozen=True, slots=True)
class Files:
    """``key_fault``: why the key can't be used; ``state_fault``: the same of the state's file."""

    configuration: Place
    key: Place
    key_fault: str
    state: Place
    state_directory: Place
    state_fault: str = ""


@dataclass(frozen=True, slots=True)
class Daemon:
    """The gateway that runs: what it says of itself, or why it says nothing.

    ``hangs``: somebody is there and does not answer; ``complains``: it answers, by an error.
    ``unit``: it was started by systemd.  ``number``: of its process, 0 if that is not known.
    """

    status: Mapping[str, Any] | None
    reason: str = ""
    hangs: bool = False
    complains: bool = False
    unit: str = ""
    number: int = 0

    @property
    def runs(self) -> bool:
        return self.status is not None or self.hangs or self.complains


@dataclass(frozen=True, slots=True)
class Host:
    """``installed``: our unit is; ``flushing``: the file that empties all rules at each start of
    the nftables service, which is enabled."""

    installed: bool = False
    systemd: bool = False
    flushing: str = ""
    time_service: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """``tracked`` flows of at most ``trackable``; None where the kernel does not track."""

    receive_buffer: int | None = None
    tracked: int | None = None
    trackable: int | None = None
