"""The doors between the rooms of port encryption: values, and what stands behind what.

    packets -> plane (nftables maps, queue) -> Caught -> Sealing (sans IO) -> orders -> plane
                                                            |  ^
                                       keys from DNS, keys from IKE, probes of the path

The plane rewrites flows that it knows by itself, in the kernel; what it does not know it hands up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Protocol

from policy.rule import Sst, SstStrength
from policy.table import PolicyTable

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

PROBE_MAGIC = bytes.fromhex("b35c535354706264")
"""The first octets of the payload of a probe: the plane knows one by them, flagged or not."""


class SstError(Exception):
    """What was asked for can't be had; the message names the key, file or command."""


class Algorithm(IntEnum):
    """The number in the DNS record, in the tweak and in the IKE attribute."""

    FF1_AES_128 = 1
    FF1_AES_256 = 2

    @property
    def key_length(self) -> int:
        """Octets of a key."""
        return 16 if self is Algorithm.FF1_AES_128 else 32


ALGORITHMS = {"aes128": Algorithm.FF1_AES_128, "aes256": Algorithm.FF1_AES_256}
"""By the name in the configuration."""


@dataclass(frozen=True, slots=True)
class PortKey:
    """A key that both ends of a path hold; the same for both directions."""

    algorithm: Algorithm
    octets: bytes = field(repr=False)


class Leg(Enum):
    """Where a packet is while its ports are encrypted."""

    TUNNEL = "tunnel"  # in the datapath's device: placement ``inner``
    OUTSIDE = "outside"  # on an outside interface: placements ``only`` and ``outer``


class Way(Enum):
    SEAL = "seal"
    OPEN = "open"


class Reason(Enum):
    """Why the plane hands a packet up."""

    UNKNOWN_FLOW = "unknown flow"  # no entry: to be sealed by policy, by request or as an answer
    QUOTE = "quote"  # an ICMP error that quotes ports to be opened, or to be sealed
    FRAGMENT = "fragment"  # IPv4, and the flag would be lost
    PROBE = "probe"  # a probe of the path, whether its flag is still there or not


@dataclass(frozen=True, slots=True)
class Caught:
    """A packet that the plane holds until ``release`` or ``drop``.

    ``packet``: all of it, from the IP header on.  ``asked``: the sender asked for it.  ``sticky``:
    of a connection of which a packet was opened or sealed before; ``epoch``, 0 to 3: of the key
    that it was born with, if that is known.  ``flagged``: whether it came with the flag.
    """

    number: int
    way: Way
    leg: Leg
    reason: Reason
    packet: bytes = field(repr=False)
    asked: bool = False
    sticky: bool = False
    epoch: int | None = None
    flagged: bool = False


@dataclass(frozen=True, slots=True)
class PortFlow:
    """A flow with ports, from our side outwards: ``local`` may be a host behind us."""

    local: IPAddress
    remote: IPAddress
    protocol: int
    local_port: int
    remote_port: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One flow of the fast path, both directions of it.

    Outwards ``flow``'s ports become ``sealed_local`` and ``sealed_remote``; inwards those, swapped,
    become the real ones.  ``epoch``: 0 to 3, of the key.  ``lifespan`` in seconds.
    """

    leg: Leg
    flow: PortFlow
    sealed_local: int
    sealed_remote: int
    epoch: int
    lifespan: float


@dataclass(frozen=True, slots=True)
class Wish:
    """What the policy says of a flow.  ``secure``: only keys that DNSSEC vouches for will do."""

    sst: Sst
    strength: SstStrength
    secure: bool = False


Listener = Callable[[Caught], None]


class Plane(Protocol):
    """What the core tells rules, maps and queues in the kernel.

    Two rules are about who could otherwise read ports by what we answer:

    - A packet that was opened, and that connection tracking then calls invalid or does not track,
      is dropped.  What answers it, a reset or an ICMP error, would have no connection that says
      that it was opened, and so would leave in clear: whoever plays a sealed SYN-ACK again would
      read its ports in the answer.
    - An answer (of a connection that came in) is not sealed because of the policy, if nothing of
      its connection came sealed.  Where port encryption is required it is dropped, else it leaves
      in clear: its ports were read on the way in.  Sealed it would tell whoever sent packets with
      a peer's address, and ports of his choice, what these ports are sealed as.  Shielded pairs are
      an exception.
    """

    def enter(self, entry: Entry) -> bool:
        """Put a flow into the fast path, in place of what is there for it.  False: there is no
        room; its packets are handed up one by one."""

    def decline(self, leg: Leg, flow: PortFlow, lifespan: float) -> None:
        """Let a flow go on unsealed for so many seconds, though it was wanted."""

    def forget(self, leg: Leg, remote: IPAddress | None = None) -> None:
        """Forget all flows, entered and declined, to one host or all."""

    def shield(self, local: IPAddress, remote: IPAddress) -> None:
        """Seal what we send ourselves between two gateways, IKE and ESP in UDP (``outer``)."""

    def unshield(self, local: IPAddress, remote: IPAddress) -> None:
        """No longer."""

    def release(self, number: int, packet: bytes | None = None, epoch: int | None = None) -> None:
        """Let a packet go on: as it is, through the fast path if there is an entry for it now; or
        as ``packet``, which is final.

        Without an entry, what was to be sealed leaves as it is where port encryption is
        opportunistic, and is dropped where it is required; what was to be opened goes on as it is.
        ``epoch``, 0 to 3: of the key that ``packet`` was sealed or opened with; its connection is
        sticky from now on, as those of entries are."""

    def drop(self, number: int) -> None:
        """Drop a packet."""


class RunningPlane(Plane, Protocol):
    """A plane with its life: `plane.kernel.NftPlane`, and its twin."""

    async def start(self, table: PolicyTable, listener: Listener) -> None:
        """Replace what an earlier run left, in one transaction.  Raises SstError, and then the
        kernel is as before."""

    async def replace_policy(self, table: PolicyTable) -> None:
        """Other rules; entries stay.  Raises SstError, and then the rules are as before."""

    async def mend(self) -> tuple[str, ...]:
        """Put back rules that somebody else took away, with the entries that last; returns what was
        gone.  Raises SstError."""

    async def mend_jump(self, thorough: bool) -> tuple[str, ...]:
        """As `oegw.intercept.interface.Interception.mend_jump`.  Raises SstError."""

    def residue(self) -> str:
        """What `close` will leave, as nft text; nothing before `start`."""

    async def close(self) -> None:
        """Remove all but what keeps traffic that requires port encryption from leaving without."""

    def counters(self) -> dict[str, int]:
        """Packets by fate, read from the kernel: ``{"sealed": 3, "opened": 2, ...}``."""


class TunnelPorts(Protocol):
    """What the shell of the gateway has done by port encryption: inside of tunnels, and around
    them.  `service.SstService` does it."""

    def tunnel_keyed(self, tunnel: int, local: IPNetwork, remote: IPNetwork, key: bytes) -> None:
        """``SealTunnel``: ``key`` opens what comes from ``remote`` to ``local`` from now on.

        16 octets, of ``Algorithm.FF1_AES_128``.  Several tunnels of one pair may have the same key,
        or each its own: what comes may be sealed with any of them.
        """

    def send_sealed(self, tunnel: int) -> None:
        """``SendSealed``: this tunnel's key seals new flows of its pair from now on."""

    def send_unsealed(self, tunnel: int) -> None:
        """``SendUnsealed``: this tunnel's key seals no more, until ``send_sealed``."""

    def tunnel_closed(self, tunnel: int) -> None:
        """``UnsealTunnel``: forget the tunnel.

        A flow that was born with its key keeps it while another tunnel of the pair has one
        (SST-35); the key is retired as an epoch is.
        """

    async def shield(self, local: IPAddress, remote: IPAddress) -> str | None:
        """``ShieldGateway``: seal IKE and ESP in UDP between two gateways.

        Returns None, or why the ports stay as they are: no key, a path that does not keep the
        flag.  Returns the same for a pair that is shielded already.
        """

    def unshield(self, local: IPAddress, remote: IPAddress) -> None:
        """``UnshieldGateway``: no longer."""

    def came_shielded(self, local: IPAddress, remote: IPAddress) -> bool:
        """Whether IKE or ESP in UDP of ``remote`` came with its ports sealed of late, and so is
        answered sealed."""


class PathState(Enum):
    """What is known of the path to a peer's gateway, for one address family."""

    UNKNOWN = "unknown"  # not probed, or the probes are under way
    WORKS = "works"
    STRIPPED = "stripped"  # packets arrive without the flag
    DROPPED = "dropped"  # flagged packets don't arrive, others do
    SILENT = "silent"  # the peer does not answer at all
