"""NAT traversal, RFC 3947: which side is behind a network address translator.

In messages 3 and 4 each side sends hashes of the addresses and ports of the datagram as
it sees them: first of the destination, then of its own.  Whoever gets the message
compares them with what the datagram says.  These payloads are not authenticated
(section 8): a forger can bring ESP into UDP or keep it out, and nothing worse.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ike.algorithms import HashAlgorithm
from ike.constants import NAT_PORT
from ike.events import TransportAddress, UdpPorts
from ike.v1.payloads import NatDiscovery

_LEAST = 2  # payloads: one of the destination, one of the source


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
    side is behind a NAT.  ``forced``: we said so though nobody is.  ``agreed``: how the
    peer itself has its ESP, once an authenticated quick mode showed it.
    """

    known: bool = False
    here: bool = False
    there: bool = False
    forced: bool = False
    agreed: bool | None = None

    @property
    def encapsulated(self) -> bool:
        """Whether ESP goes in UDP."""
        if self.agreed is not None:
            return self.agreed
        return self.here or self.there or self.forced

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
    hash_: HashAlgorithm, cookies: tuple[bytes, bytes], end: TransportAddress
) -> bytes:
    """HASH(CKY-I | CKY-R | IP | Port), RFC 3947 section 3.2."""
    return hash_.digest(*cookies, end.address.packed, end.port.to_bytes(2, "big"))


def discovery_payloads(
    hash_: HashAlgorithm,
    cookies: tuple[bytes, bytes],
    path: Path,
    forced: bool,
    random_octets: Callable[[int], bytes],
) -> list[NatDiscovery]:
    """Ours for message 3 or 4.

    ``forced``: the hash of our own address is a random one, so that the peer finds a NAT
    before us and both sides encapsulate.
    """
    destination = _address_hash(hash_, cookies, path.remote)
    source = random_octets(hash_.length) if forced else _address_hash(hash_, cookies, path.local)
    return [NatDiscovery(destination), NatDiscovery(source)]


def findings(
    hash_: HashAlgorithm,
    cookies: tuple[bytes, bytes],
    path: Path,
    payloads: Sequence[NatDiscovery],
    forced: bool,
) -> NatFindings:
    """What the peer's payloads say about the datagram that came on ``path``.

    A peer that sends none, or only one, does not know NAT traversal after all.
    """
    if len(payloads) < _LEAST:
        return NO_NAT
    sources = [payload.octets for payload in payloads[1:]]
    return NatFindings(
        known=True,
        here=payloads[0].octets != _address_hash(hash_, cookies, path.local),
        there=_address_hash(hash_, cookies, path.remote) not in sources,
        forced=forced,
    )
