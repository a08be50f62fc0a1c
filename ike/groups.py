"""Finite-field Diffie-Hellman, the only place that knows how it is computed.

``cryptography`` announces the end of its support for these groups, so its use
is confined to ``_native_pair``; without it the same numbers come from ``pow``,
some twenty times slower.  Where ``cryptography`` makes the pair, its own
generator draws the secret exponent; otherwise ``random_octets`` does.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType

from ike.constants import KEY_PAIRS_KEPT
from ike.errors import InternalRefusal, InvalidKeyExchange
from ike.registry import Group

_library: ModuleType | None
try:
    from cryptography.hazmat.primitives.asymmetric import dh as _library
except ImportError:  # announced for a future release
    _library = None

# RFC 2409 section 6.2, RFC 3526 sections 2 to 4.  The generator of all is 2.
_MODP_1024 = int(
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74"
    "020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F1437"
    "4FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED"
    "EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE65381FFFFFFFFFFFFFFFF",
    16,
)
_MODP_1536 = int(
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74"
    "020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F1437"
    "4FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED"
    "EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF05"
    "98DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB"
    "9ED529077096966D670C354E4ABC9804F1746C08CA237327FFFFFFFFFFFFFFFF",
    16,
)
_MODP_2048 = int(
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74"
    "020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F1437"
    "4FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED"
    "EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF05"
    "98DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB"
    "9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B"
    "E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF695581718"
    "3995497CEA956AE515D2261898FA051015728E5A8AACAA68FFFFFFFFFFFFFFFF",
    16,
)
_MODP_3072 = int(
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74"
    "020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F1437"
    "4FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED"
    "EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF05"
    "98DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB"
    "9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B"
    "E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF695581718"
    "3995497CEA956AE515D2261898FA051015728E5A8AAAC42DAD33170D04507A33"
    "A85521ABDF1CBA64ECFB850458DBEF0A8AEA71575D060C7DB3970F85A6E1E4C7"
    "ABF5AE8CDB0933D71E8C94E04A25619DCEE3D2261AD2EE6BF12FFA06D98A0864"
    "D87602733EC86A64521F2B18177B200CBBE117577A615D6C770988C0BAD946E2"
    "08E24FA074E5AB3143DB5BFCE0FD108E4B82D120A93AD2CAFFFFFFFFFFFFFFFF",
    16,
)

GENERATOR = 2
EXPONENT_OCTETS = 48  # with ``pow``: 384 bits, twice the strength of the largest group (RFC 3526 8)


@dataclass(frozen=True, slots=True)
class ModpGroup:
    number: Group
    name: str
    prime: int = field(repr=False)
    length: int  # octets of the prime, to which every value is padded (RFC 2409 section 5)

    def check(self, public: bytes) -> int:
        """The peer's public value as a number.

        Raises ``InvalidKeyExchange`` unless it is exactly ``length`` octets and lies
        strictly between 1 and p - 1, which leaves out the values that make the
        secret predictable.
        """
        if len(public) != self.length:
            raise InvalidKeyExchange(f"{len(public)} octets, {self.name} has {self.length}")
        value = int.from_bytes(public, "big")
        if not 1 < value < self.prime - 1:
            raise InvalidKeyExchange(f"degenerate value for {self.name}")
        return value


GROUPS: dict[int, ModpGroup] = {
    group.number: group
    for group in (
        ModpGroup(Group.MODP_1024, "modp-1024", _MODP_1024, 128),
        ModpGroup(Group.MODP_1536, "modp-1536", _MODP_1536, 192),
        ModpGroup(Group.MODP_2048, "modp-2048", _MODP_2048, 256),
        ModpGroup(Group.MODP_3072, "modp-3072", _MODP_3072, 384),
    )
}


@dataclass(frozen=True, slots=True)
class KeyPair:
    """An ephemeral key pair.  ``public`` is padded on the left to the length of the group."""

    group: ModpGroup
    public: bytes
    _exchange: Callable[[int], bytes] = field(repr=False)

    def shared_secret(self, peer_public: bytes) -> bytes:
        """g^xy, padded to the length of the group.

        Raises ``InvalidKeyExchange`` for what ``ModpGroup.check`` refuses.
        """
        value = self.group.check(peer_public)
        try:
            secret = self._exchange(value)
        except ValueError as error:  # the library judges subgroup membership too
            raise InternalRefusal(str(error)) from error
        return secret.rjust(self.group.length, b"\0")


def generate(group: ModpGroup, random_octets: Callable[[int], bytes]) -> KeyPair:
    """A fresh key pair."""
    if _library is not None:
        return _native_pair(group, _library)
    return portable_pair(group, random_octets)


def _native_pair(group: ModpGroup, library: ModuleType) -> KeyPair:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        numbers = library.DHParameterNumbers(group.prime, GENERATOR)
        private = numbers.parameters().generate_private_key()
        public = private.public_key().public_numbers().y

    def exchange(value: int) -> bytes:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            peer = library.DHPublicNumbers(value, numbers).public_key()
            secret: bytes = private.exchange(peer)
        return secret

    return KeyPair(group, public.to_bytes(group.length, "big"), exchange)


def portable_pair(group: ModpGroup, random_octets: Callable[[int], bytes]) -> KeyPair:
    """A key pair computed with ``pow`` alone."""
    exponent = int.from_bytes(random_octets(EXPONENT_OCTETS), "big") | 1 << 255
    public = pow(GENERATOR, exponent, group.prime)

    def exchange(value: int) -> bytes:
        return pow(value, exponent, group.prime).to_bytes(group.length, "big")

    return KeyPair(group, public.to_bytes(group.length, "big"), exchange)


class KeyPairStock:
    """A few key pairs made in idle moments, each handed out once.

    Only groups that were asked for before are stocked.
    """

    def __init__(self, random_octets: Callable[[int], bytes]) -> None:
        self._random_octets = random_octets
        self._kept: dict[Group, deque[KeyPair]] = {}

    def take(self, group: ModpGroup) -> KeyPair:
        """A pair nobody else gets."""
        kept = self._kept.setdefault(group.number, deque())
        return kept.popleft() if kept else generate(group, self._random_octets)

    def want(self, group: ModpGroup) -> None:
        """Have ``refill`` keep pairs of this group."""
        self._kept.setdefault(group.number, deque())

    def refill(self) -> bool:
        """Make at most one pair; says whether one was missing."""
        for number, kept in self._kept.items():
            if len(kept) < KEY_PAIRS_KEPT:
                kept.append(generate(GROUPS[number], self._random_octets))
                return True
        return False
