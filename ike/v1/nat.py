"""NAT traversal, RFC 3947: which side is behind a network address translator.

In messages 3 and 4 each side sends hashes of the addresses and ports of the datagram as
it sees them: first of the destination, then of its own.  Whoever gets the message
compares them with what the datagram says.  These payloads are not authenticated
(section 8): a forger can bring ESP into UDP or keep it out, and nothing worse.

Who wants ESP in UDP though there is no NAT lets the peer find one: the hash of its own address
is another one than the specification says.  Ours is made of the same address, so that a peer of
our kind sees both, the wish and whether there is a NAT; to all others it does not fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ike.algorithms import HashAlgorithm
from ike.constants import NAT_PORT
from ike.events import Encapsulation, EncapsulationReason, TransportAddress, UdpPorts
from ike.v1.payloads import NatDiscovery

_LEAST = 2  # payloads: one of the destination, one of the source

# Our choice.
_WISH = b"ESP in UDP"  # what is hashed behind the own address by who wants it without a NAT


@dataclass(frozen=True, slots=True)
class Path:
    """Where datagrams go between two sides, seen from ours."""

    local: TransportAddress
    remote: TransportAddress

    def floated(self) -> Path:
        """Both ports moved to 4500 (RFC 3947 section 4), unless ours is there already.

        Then the peer's is whatever its translator made of it.
        """
        if self.local.port == NAT_PORT:
            return self
        return Path(replace(self.local, port=NAT_PORT), replace(self.remote, port=NAT_PORT))

    @property
    def outbound_ports(self) -> UdpPorts:
        return UdpPorts(self.local.port, self.remote.port)

    @property
    def inbound_ports(self) -> UdpPorts:
        return UdpPorts(self.remote.port, self.local.port)


@dataclass(frozen=True, slots=True)
class NatFindings:
    """What messages 3 and 4 have shown.

    ``known``: both sides know NAT traversal.  ``here``, ``there``: our side, the peer's
    side is behind a NAT.  ``ours``: how we want ESP to go.  ``wished``: the peer wants it in UDP
    though there may be no NAT.  ``blocked``: phase 1 got through on port 500 only.  ``agreed``: how
    the peer itself has its ESP, once an authenticated quick mode showed it.
    """

    known: bool = False
    here: bool = False
    there: bool = False
    ours: Encapsulation = Encapsulation.AUTO
    wished: bool = False
    blocked: bool = False
    agreed: bool | None = None

    @property
    def encapsulated(self) -> bool:
        """Whether ESP goes in UDP."""
        if self.agreed is not None:
            return self.agreed
        return self.known and (
            self.here or self.there or self.forced or (self.optional and not self.blocked)
        )

    @property
    def forced(self) -> bool:
        """Whether we have ESP in UDP, and not otherwise."""
        return self.ours is Encapsulation.UDP

    @property
    def optional(self) -> bool:
        """Whether ESP would go in UDP for no other reason than that somebody likes it better."""
        return not (self.here or self.there or self.forced) and (
            self.wished or self.ours is Encapsulation.UDP_IF_POSSIBLE
        )

    @property
    def reason(self) -> EncapsulationReason:
        """Why ``encapsulated`` is as it is."""
        if self.agreed is not None:
            return EncapsulationReason.PROPOSED
        if self.ours is Encapsulation.ESP:
            return EncapsulationReason.ORDERED
        if not self.known:
            return EncapsulationReason.NOT_KNOWN
        if self.here or self.there:
            return EncapsulationReason.NAT_HERE if self.here else EncapsulationReason.NAT_THERE
        if self.forced:
            return EncapsulationReason.ORDERED
        if self.optional and self.blocked:
            return EncapsulationReason.BLOCKED
        if self.ours is Encapsulation.UDP_IF_POSSIBLE:
            return EncapsulationReason.PREFERRED
        return EncapsulationReason.PEER_PREFERS if self.wished else EncapsulationReason.NO_NAT

    def acceptable(self, path: Path) -> tuple[bool, ...]:
        """Whether a peer's quick mode may have ESP in UDP, the expected first.

        Messages 3 and 4 could be forged; quick mode can't, so a peer that saw other ones
        than we did gets its way.  UDP needs port 4500.
        """
        expected = self.encapsulated
        if not self.known or self.forced:
            return (expected,)
        other = not expected
        return (expected, other) if not other or path.local.port == NAT_PORT else (expected,)

    @property
    def follows(self) -> bool:
        """Whether the peer's address may change: never for the side behind the NAT (section 7)."""
        return self.there and not self.here


NO_NAT = NatFindings()


def _address_hash(
    hash_: HashAlgorithm, cookies: tuple[bytes, bytes], end: TransportAddress, wish: bytes = b""
) -> bytes:
    """HASH(CKY-I | CKY-R | IP | Port), RFC 3947 section 3.2."""
    return hash_.digest(*cookies, end.address.packed, end.port.to_bytes(2, "big"), wish)


def discovery_payloads(
    hash_: HashAlgorithm,
    cookies: tuple[bytes, bytes],
    path: Path,
    wished: bool,
) -> list[NatDiscovery]:
    """Ours for message 3 or 4.

    ``wished``: the hash of our own address is another one, so that the peer finds a NAT
    before us, or sees the wish, and both sides encapsulate.
    """
    destination = _address_hash(hash_, cookies, path.remote)
    source = _address_hash(hash_, cookies, path.local, _WISH if wished else b"")
    return [NatDiscovery(destination), NatDiscovery(source)]


def findings(
    hash_: HashAlgorithm,
    cookies: tuple[bytes, bytes],
    path: Path,
    payloads: Sequence[NatDiscovery],
    ours: Encapsulation,
) -> NatFindings:
    """What the peer's payloads say about the datagram that came on ``path``.

    A peer that sends none, or only one, does not know NAT traversal after all.
    """
    if len(payloads) < _LEAST:
        return NatFindings(ours=ours)
    sources = [payload.octets for payload in payloads[1:]]
    wished = _address_hash(hash_, cookies, path.remote, _WISH) in sources
    return NatFindings(
        known=True,
        here=payloads[0].octets != _address_hash(hash_, cookies, path.local),
        there=not wished and _address_hash(hash_, cookies, path.remote) not in sources,
        ours=ours,
        wished=wished,
    )
