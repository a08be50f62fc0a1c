"""What the keying core tells its shell (past tense) and what it is asked for.

All values are frozen.  Handles are opaque integers: ``channel`` names a keying
channel (phase 1 SA), ``tunnel`` a pair of phase 2 SAs under negotiation or up.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from cryptography.hazmat.primitives.asymmetric import rsa

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network
Identity = IPAddress | str
"""A phase 1 identity: an address, or a domain name without trailing dot (RFC 2407 4.6.2)."""


@dataclass(frozen=True, slots=True)
class TransportAddress:
    """One end of a datagram: address and UDP port."""

    address: IPAddress
    port: int = 500


@dataclass(frozen=True, slots=True)
class Datagram:
    """A message on its way out, without UDP header."""

    data: bytes
    local: TransportAddress
    remote: TransportAddress


@dataclass(frozen=True, slots=True)
class TrafficSelector:
    """One side of a tunnel, as a quick mode ID payload says it.  0 means any protocol, any port."""

    network: IPNetwork
    protocol: int = 0
    port: int = 0


class Encapsulation(Enum):
    """How ESP packets go from gateway to gateway."""

    AUTO = "auto"  # what ``Endpoint.prefer_udp`` says; else ESP, in UDP where a NAT is (RFC 3947)
    ESP = "esp"  # never in UDP: NAT traversal is not offered
    UDP = "udp"  # always in UDP, as if there were a NAT
    UDP_IF_POSSIBLE = "udp if possible"  # in UDP with every peer that knows NAT traversal


class EncapsulationReason(Enum):
    """Why ESP goes in UDP, or does without."""

    ORDERED = "the configuration says so"
    NAT_HERE = "there is a NAT before us"
    NAT_THERE = "there is a NAT before the peer, or it says so"
    PREFERRED = "it is faster here"
    PEER_PREFERS = "the peer wants it"
    NO_NAT = "there is no NAT"
    NOT_KNOWN = "the peer does without NAT traversal"
    BLOCKED = "UDP port 4500 is blocked"
    PROPOSED = "the peer proposed it so"


@dataclass(frozen=True, slots=True)
class TunnelRequest:
    """Order to negotiate one tunnel, over a keying channel that exists or is made for it.

    ``peer_keys``: the RSA keys any of which may authenticate the peer; empty if they are still
    being looked up: ``PeerKeyNeeded`` asks for them once the peer has signed.
    ``identity``: what we call ourselves; None means what ``Configuration`` says.
    ``peer_identity``: what the peer must call itself; None means its address.
    ``encapsulation``: as in ``Configuration``; None means what stands there.
    ``replaces``: the tunnel that this one is the successor of (rekey); both carry traffic until
    the core closes the old one.
    ``sst``: offer port encryption inside the tunnel, and a key for it; a peer that does not know it
    negotiates as without.
    A keying channel is reused only if it was authenticated with one of
    ``peer_keys`` (if they are empty: with one that the shell gave for the peer's identity), runs
    between the same addresses, and has us under the same identity.
    """

    local: IPAddress
    remote: IPAddress
    local_selector: TrafficSelector
    remote_selector: TrafficSelector
    peer_keys: tuple[rsa.RSAPublicKey, ...]
    peer_identity: Identity | None = None
    encapsulation: Encapsulation | None = None
    replaces: int | None = None
    identity: Identity | None = None
    sst: bool = False


@dataclass(frozen=True, slots=True)
class UdpPorts:
    """ESP in UDP (RFC 3948): the ports in the direction of travel, as this side sees them."""

    source: int
    destination: int


@dataclass(frozen=True, slots=True)
class EspSa:
    """One direction of a tunnel, ready to install (RFC 4303).

    ``spi`` is the receiver's, 256 to 2**32-1.  ``cipher`` is one of
    ``"aes-gcm-16"``, ``"aes-cbc"``, ``"3des-cbc"``; ``integrity`` is one of
    ``"hmac-sha2-256-128"``, ``"hmac-sha1-96"``, ``"hmac-md5-96"``, or None with
    aes-gcm-16, whose ``encryption_key`` ends with the 4 octets of salt (RFC 4106
    section 8.1).  ``lifetime_seconds`` counts from now; ``lifetime_bytes`` of None is
    no limit.  ``ports`` of None means plain ESP.
    """

    spi: int
    source: IPAddress
    destination: IPAddress
    source_selector: TrafficSelector
    destination_selector: TrafficSelector
    cipher: str
    encryption_key: bytes = field(repr=False)
    integrity: str | None
    integrity_key: bytes = field(repr=False)
    extended_sequence_numbers: bool
    lifetime_seconds: int
    lifetime_bytes: int | None
    ports: UdpPorts | None = None


DEAD_PEER = "dead peer"
"""The reason of ``TunnelClosed`` when dead peer detection has given the peer up (RFC 3706)."""


class Failure(Enum):
    """Why a negotiation ended (RFC 4322 section 3.2.5 keeps these classes apart)."""

    SILENCE = "silence"  # nothing came back
    REFUSED = "refused"  # phase 1 stood; phase 2 unanswered or refused by an authenticated notify
    NO_PROPOSAL = "no_proposal"  # phase 1: nothing in common
    NO_KEY = "no_key"  # the shell could not say with which keys the peer signs
    BAD_SIGNATURE = "bad_signature"
    WRONG_IDENTITY = "wrong_identity"
    MALFORMED = "malformed"  # the peer broke the protocol
    LIMIT = "limit"  # our own limit of work under way
    CANCELLED = "cancelled"  # closed from our side


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events."""


@dataclass(frozen=True, slots=True)
class MessageSent(Event):
    """A message was handed to ``datagrams_to_send`` (name ``"MM1"`` .. ``"QM3"``, ``"INFO"``)."""

    channel: int
    name: str
    local: TransportAddress
    remote: TransportAddress
    size: int
    retransmission: bool


@dataclass(frozen=True, slots=True)
class MessageReceived(Event):
    """A message of the exchange was accepted in its state."""

    channel: int
    name: str
    remote: TransportAddress
    size: int


@dataclass(frozen=True, slots=True)
class MessageDropped(Event):
    """Something arrived that was not taken; ``trigger`` names the reason, for counters."""

    trigger: str
    remote: TransportAddress
    detail: str = ""


@dataclass(frozen=True, slots=True)
class PeerKeyNeeded(Event):
    """Answer with ``provide_peer_keys`` or ``peer_keys_unavailable``.

    Raised when message 5 has shown ``identity``.  If we are ``initiator``: message 6, which has
    shown the identity that was expected, and the request came without keys.
    """

    channel: int
    identity: Identity
    remote: TransportAddress
    initiator: bool = False


@dataclass(frozen=True, slots=True)
class ExchangeStarted(Event):
    """We are responder and message 1 was accepted: a key lookup for ``remote`` may begin early."""

    channel: int
    local: TransportAddress
    remote: TransportAddress


@dataclass(frozen=True, slots=True)
class KeyingChannelEstablished(Event):
    """Phase 1 is up, both sides authenticated."""

    channel: int
    local: TransportAddress
    remote: TransportAddress
    identity: Identity
    key: rsa.RSAPublicKey
    initiator: bool  # whether we were it
    proposal: str  # "modern: aes-cbc-256 hmac-sha2-256 modp-3072", for status
    seconds: float  # from first to last message


@dataclass(frozen=True, slots=True)
class KeyingChannelClosed(Event):
    channel: int
    reason: str


@dataclass(frozen=True, slots=True)
class TunnelProposed(Event):
    """We are responder of quick mode.  Answer with ``accept_tunnel`` or ``refuse_tunnel``.

    ``sst``: the peer offers port encryption inside the tunnel, among its proposals.
    ``translated``: phase 1 has found a NAT before the peer, or the peer pretends that there is one.
    """

    tunnel: int
    channel: int
    identity: Identity
    key: rsa.RSAPublicKey
    local: TransportAddress
    remote: TransportAddress
    local_selector: TrafficSelector
    remote_selector: TrafficSelector
    sst: bool = False
    translated: bool = False


@dataclass(frozen=True, slots=True)
class InboundSaEstablished(Event):
    """Install this SA, then call ``confirm_inbound``: our reply waits (RFC 4322 11.2, 5O).

    ``sst_key``: 16 octets, the same for both sides and both directions, if port encryption inside
    the tunnel was agreed upon; what is sealed with it may arrive from now on.
    ``translated``: phase 1 has found a NAT on the path, before us or before the peer.  Only the
    side that began it knows: a peer of another kind that forces ESP into UDP pretends to be behind
    one.
    ``encapsulation``: why ESP goes in UDP, or does without.
    """

    tunnel: int
    sa: EspSa
    sst_key: bytes | None = field(default=None, repr=False)
    translated: bool = False
    encapsulation: EncapsulationReason = EncapsulationReason.NO_NAT


@dataclass(frozen=True, slots=True)
class OutboundSaEstablished(Event):
    """The tunnel may carry traffic: install this SA and switch to it."""

    tunnel: int
    sa: EspSa


@dataclass(frozen=True, slots=True)
class TunnelClosed(Event):
    """Remove both SAs: Delete received, lifetime over, or closed from our side."""

    tunnel: int
    reason: str


@dataclass(frozen=True, slots=True)
class TunnelExpiring(Event):
    """The tunnel's life is nearly over: order a successor (``TunnelRequest.replaces``).

    Or let it end.  Said when the margin before the end begins (with jitter, the initiator
    first), or when the shell reported a soft limit; again every 10 s for a minute, then every
    minute, until a successor is up.
    """

    tunnel: int


@dataclass(frozen=True, slots=True)
class TunnelPreferred(Event):
    """Send on this tunnel rather than on another one between the same selectors.

    Both sides had begun one at the same time; the other, though younger, ends soon.
    """

    tunnel: int


@dataclass(frozen=True, slots=True)
class PeerMoved(Event):
    """An authenticated packet came from a new address or port (RFC 3947 section 7).

    The SAs of these tunnels must lead there from now on.
    """

    channel: int
    remote: TransportAddress
    tunnels: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SpiRefused(Event):
    """INVALID-SPI came: the peer does not know the SPI that we send with, and may have restarted.

    Unless ``authenticated``, anybody may have sent it: a hint (RFC 4322 section 3.2.6).
    """

    remote: TransportAddress
    spi: int
    authenticated: bool


@dataclass(frozen=True, slots=True)
class ContactBegun(Event):
    """The first tunnel with this peer is up: remember it on disk, for Initial-Contact."""

    identity: Identity


@dataclass(frozen=True, slots=True)
class ContactEnded(Event):
    """The last tunnel with this peer is gone, and the peer was told or knows."""

    identity: Identity


@dataclass(frozen=True, slots=True)
class NegotiationFailed(Event):
    """No tunnel comes of this one."""

    tunnel: int
    reason: Failure
    detail: str
