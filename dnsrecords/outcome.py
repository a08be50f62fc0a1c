"""What a lookup ends with.  Each class of failure has its own type: they differ in what follows."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import rsa

from dnsrecords.address import IPAddress as IPAddress
from dnsrecords.sstkey import SstKey
from dnsrecords.trust import Trust


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway that may speak for the address looked up.

    ``address`` is None if the delegation names it by domain name (``fqdn``)
    only: enough to verify an initiator, not to find a gateway.  ``keys`` are
    those of the TXT record, or of the gateway's KEY records if it had none.
    ``keyless``: one of its TXT records has no key, so that any key of the
    gateway's KEY records will do.  ``trust`` is that of what had to be asked for it beyond the
    delegation, its keys and its addresses: SECURE if that was nothing.
    """

    precedence: int
    address: IPAddress | None
    fqdn: str | None
    keys: tuple[rsa.RSAPublicKey, ...]
    keyless: bool = False
    trust: Trust = Trust.SECURE


@dataclass(frozen=True, slots=True)
class GatewaysFound:
    """In the order to be tried: precedence ascending, ties in random order.

    ``trust`` is that of the delegations.
    """

    gateways: tuple[Gateway, ...]
    ttl: float
    trust: Trust


@dataclass(frozen=True, slots=True)
class KeysFound:
    keys: tuple[rsa.RSAPublicKey, ...]
    ttl: float
    trust: Trust


@dataclass(frozen=True, slots=True)
class SstKeysFound:
    """Keys for port encryption, by precedence, and among equals in an order of our own."""

    keys: tuple[SstKey, ...]
    ttl: float
    trust: Trust


@dataclass(frozen=True, slots=True)
class NamesFound:
    """What the reverse zone calls an address: in lower case, without last dot."""

    names: tuple[str, ...]
    ttl: float
    trust: Trust


@dataclass(frozen=True, slots=True)
class PeerFound:
    """Where a peer known by name is, and its keys; empty is what was not asked for."""

    addresses: tuple[IPAddress, ...]
    keys: tuple[rsa.RSAPublicKey, ...]
    ttl: float
    trust: Trust


@dataclass(frozen=True, slots=True)
class NothingFound:
    """The DNS says there is no record; hold this for ``ttl`` seconds (SOA MINIMUM)."""

    ttl: float
    detail: str


@dataclass(frozen=True, slots=True)
class Unanswered:
    """The DNS said nothing in time."""

    detail: str


@dataclass(frozen=True, slots=True)
class Malformed:
    """A record meant for us that can't be read, or an answer that DNSSEC calls bogus: deny."""

    detail: str
    ttl: float


GatewayOutcome = GatewaysFound | NothingFound | Unanswered | Malformed
KeyOutcome = KeysFound | NothingFound | Unanswered | Malformed
SstKeyOutcome = SstKeysFound | NothingFound | Unanswered | Malformed
NameOutcome = NamesFound | NothingFound | Unanswered | Malformed
PeerOutcome = PeerFound | NothingFound | Unanswered | Malformed
