"""What the gateway wants done: imperative, frozen.  `daemon.Daemon` executes them in order."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv6Address

from cryptography.hazmat.primitives.asymmetric import rsa

from ike.events import Identity, TransportAddress, TunnelRequest
from oegw.datapath.interface import SaKey, SecurityAssociation, UdpEncapsulation
from oegw.decision import Question
from policy.flow import IPNetwork
from policy.rule import Scope

IPAddress = IPv4Address | IPv6Address


class Verdict(Enum):
    """What the kernel does with packets of a scope."""

    CLEAR = "clear"  # pass on as they are
    DENY = "deny"  # drop
    REFUSE = "refuse"  # drop, and say so by ICMP (RFC 4322 section 3.1.4)
    TUNNEL = "tunnel"  # hand to the datapath


class Assurance(Enum):
    """How well we know who sent what comes out of a tunnel."""

    CONFIGURED = "configured"
    SECURE = "secure"  # opportunistic, by records that DNSSEC vouches for
    INSECURE = "insecure"  # opportunistic, without


@dataclass(frozen=True, slots=True)
class Command:
    """Base of all commands."""


@dataclass(frozen=True, slots=True)
class StartLookup(Command):
    """Find gateways for ``address`` by TXT at its reverse name; answered by ``LookupEnded``.

    ``with_keys``: also fetch KEY records for gateways whose TXT has no key.  An initiator does
    without: it looks them up while it negotiates.
    ``purpose`` is for the trace: ``"gateway"`` (5B), ``"authority"`` (5G2), or ``"own"`` for what
    the DNS says of ourselves.  ``ours``: it may use what the resolver's budget keeps from
    strangers: for tunnels that are up, and our own affairs.
    """

    lookup: int
    address: IPAddress
    with_keys: bool = False
    purpose: str = "gateway"
    ours: bool = False


@dataclass(frozen=True, slots=True)
class StartKeyLookup(Command):
    """Find KEY records of ``identity``; answered by ``KeyLookupEnded``.

    ``purpose`` is for the trace: ``"peer-key"`` (5F), ``"gateway-key"``, ``"own"``,
    ``"contact"``.  ``ours``: see ``StartLookup``.
    """

    lookup: int
    identity: Identity
    purpose: str = "peer-key"
    ours: bool = False


@dataclass(frozen=True, slots=True)
class StartPeerLookup(Command):
    """Find the addresses of a configured peer by ``name``, and the KEY records of ``identity``.

    Either may be None: then it is known already.  Answered by ``PeerLookupEnded``.
    """

    lookup: int
    name: str | None
    identity: Identity | None


@dataclass(frozen=True, slots=True)
class StartDecision(Command):
    """Ask all decision points about a connection; answered by ``DecisionsEnded``."""

    lookup: int
    question: Question


@dataclass(frozen=True, slots=True)
class CancelLookup(Command):
    lookup: int


@dataclass(frozen=True, slots=True)
class StartNegotiation(Command):
    """Order a tunnel from the keying core; ``tunnel`` is our number for it."""

    tunnel: int
    request: TunnelRequest


@dataclass(frozen=True, slots=True)
class ProvidePeerKeys(Command):
    channel: int
    keys: tuple[rsa.RSAPublicKey, ...]


@dataclass(frozen=True, slots=True)
class RefusePeerKeys(Command):
    channel: int
    reason: str


@dataclass(frozen=True, slots=True)
class AcceptTunnel(Command):
    """``sst``: with port encryption inside, which the peer offered."""

    tunnel: int
    sst: bool = False


@dataclass(frozen=True, slots=True)
class RefuseTunnel(Command):
    tunnel: int
    reason: str


@dataclass(frozen=True, slots=True)
class ConfirmInbound(Command):
    """The inbound SA is in place: the keying core may send its reply."""

    tunnel: int


@dataclass(frozen=True, slots=True)
class CloseTunnel(Command):
    tunnel: int


@dataclass(frozen=True, slots=True)
class CloseChannels(Command):
    """Close the keying channels with a gateway that have no tunnels any more."""

    remote: IPAddress


@dataclass(frozen=True, slots=True)
class GreetPeer(Command):
    """Begin a new keying channel with the peer of ``request``, whatever there is."""

    request: TunnelRequest


@dataclass(frozen=True, slots=True)
class DisownSpi(Command):
    """Tell the peer under a keying channel with it that we do not receive on ``spi``."""

    local: IPAddress
    remote: IPAddress
    spi: int


@dataclass(frozen=True, slots=True)
class QueryUsage(Command):
    """Read the SAs' counters; answered by ``UsageReported``."""


@dataclass(frozen=True, slots=True)
class ReportExpiring(Command):
    """Tell the keying core that a soft limit of the tunnel was reached."""

    tunnel: int


@dataclass(frozen=True, slots=True)
class ReportTraffic(Command):
    """Tell the keying core when the tunnel was last used, in monotonic seconds."""

    tunnel: int
    received: float | None
    sent: float | None


@dataclass(frozen=True, slots=True)
class ReportPeerMoved(Command):
    """Tell the keying core that an authenticated ESP packet came from elsewhere."""

    tunnel: int
    remote: TransportAddress


@dataclass(frozen=True, slots=True)
class InstallSa(Command):
    """``after``: seconds to wait before.  ``assurance``: of what it carries, if it is inbound."""

    tunnel: int
    sa: SecurityAssociation
    after: float = 0.0
    assurance: Assurance | None = None


@dataclass(frozen=True, slots=True)
class MoveSa(Command):
    """Give an SA other outer addresses and ports; ``key`` is its name before."""

    tunnel: int
    key: SaKey
    source: IPAddress
    destination: IPAddress
    encapsulation: UdpEncapsulation


@dataclass(frozen=True, slots=True)
class PreferSa(Command):
    """Of the outbound SAs of a pair, ``key`` sends from now on; nothing answers."""

    tunnel: int
    key: SaKey


@dataclass(frozen=True, slots=True)
class SealTunnel(Command):
    """Ports of what goes through a tunnel are encrypted with ``key``; what comes sealed with it is
    opened from now on, what leaves is sealed from ``SendSealed`` on.  Said before the inbound
    SA is installed."""

    tunnel: int
    local: IPNetwork
    remote: IPNetwork
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class SendSealed(Command):
    """Of the tunnels of its pair this one sends from now on, and the peer has the key.

    Said when its outbound SA is installed, and again when it is preferred to another one.
    """

    tunnel: int


@dataclass(frozen=True, slots=True)
class SendUnsealed(Command):
    """Another tunnel of the pair sends from now on, whose peer has no key: this one's seals
    nothing until the next ``SendSealed``.  What comes is opened as before."""

    tunnel: int


@dataclass(frozen=True, slots=True)
class UnsealTunnel(Command):
    """The tunnel is gone, and what was under way on it, too."""

    tunnel: int


@dataclass(frozen=True, slots=True)
class ShieldGateway(Command):
    """Encrypt the ports of IKE and ESP in UDP between us and a gateway; answered by
    ``GatewayShielded``."""

    tunnel: int
    local: IPAddress
    remote: IPAddress


@dataclass(frozen=True, slots=True)
class UnshieldGateway(Command):
    """No tunnel with that gateway needs it any more."""

    local: IPAddress
    remote: IPAddress


@dataclass(frozen=True, slots=True)
class RemoveSa(Command):
    key: SaKey


@dataclass(frozen=True, slots=True)
class InstallPolicy(Command):
    """Put a verdict for ``scope`` into the kernel, for ``lifespan`` seconds (None: until removed).

    ``drop_clear_inbound``: also drop clear packets that arrive from outside for this pair.
    """

    scope: Scope
    verdict: Verdict
    lifespan: float | None
    drop_clear_inbound: bool = False


@dataclass(frozen=True, slots=True)
class RemovePolicy(Command):
    """Forget the verdict for ``scope``: its packets are trapped again."""

    scope: Scope


@dataclass(frozen=True, slots=True)
class ReleaseHeld(Command):
    """Let held packets go on, in this order, in clear or into the datapath."""

    packets: tuple[int, ...]
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class DiscardHeld(Command):
    packets: tuple[int, ...]
    trigger: str  # why, for the counter
