"""Our static key for port encryption, and what it has in common with a peer's (SST-31).

Both public keys are in the DNS, so both ends compute the same secret without a packet
(static-static Diffie-Hellman, X25519 of RFC 7748), and keys of it by HKDF with SHA-256 (RFC 5869):

    port key    salt "SST1", info LOWER HIGHER ALGORITHM [DAY]
    probe key   salt "SST1", info "probe" LOWER HIGHER

LOWER and HIGHER are the two public keys in the order of their octets, ALGORITHM is one octet, DAY
four octets (`epochs`), absent where epochs are off.  So it is the same key in both directions.

It also opens what a stranger seals to it (HPKE, RFC 9180): questions of Moniker; and it is the
identity of both ends of Moniker's lease protocol.  Labels of HPKE, and salt and info of HKDF, keep
the uses apart.
"""

from __future__ import annotations

from hashlib import sha256

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, hpke, serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from dnsrecords.errors import RecordError
from dnsrecords.sstkey import KEY_OCTETS, check_encoding
from oegw.sst.interface import Algorithm, PortKey, SstError

# Specification: design page, section 14.5.
SALT = b"SST1"
DAY_OCTETS = 4

# Our choices.
PROBE_INFO = b"probe"
PROBE_KEY_OCTETS = 32
KEY_ID_OCTETS = 8
_HPKE = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.CHACHA20_POLY1305)


class WeakPeerKey(SstError):  # noqa: N818  (it names the fact)
    """With this public key there is no secret that only two know."""

    trigger = "sst_peer_key_weak"


class NotOpened(SstError):  # noqa: N818  (it names the fact)
    """What was sealed to us can't be opened, whatever is wrong with it."""

    trigger = "sst_not_opened"


def key_id(public_key: bytes) -> bytes:
    """What a public key is called where 32 octets are too long: 8 octets of its SHA-256."""
    return sha256(public_key).digest()[:KEY_ID_OCTETS]


def sealed_to(public_key: bytes, plain: bytes, info: bytes) -> bytes:
    """``plain`` for the owner of ``public_key`` only: HPKE's encapsulated key and ciphertext.

    Raises ValueError for a public key that can't be used.
    """
    check_encoding(public_key)
    return _HPKE.encrypt(plain, X25519PublicKey.from_public_bytes(public_key), info)


class StaticKey:
    """An X25519 private key.  ``public``: 32 octets; ``key_id``: 8."""

    __slots__ = ("_private", "key_id", "public")

    def __init__(self, private: bytes) -> None:
        """``private``: 32 octets.  Raises ValueError for any other number."""
        if len(private) != KEY_OCTETS:
            raise ValueError(f"a private key of {len(private)} octets")
        self._private = X25519PrivateKey.from_private_bytes(private)
        self.public = self._private.public_key().public_bytes(
            serialization.Encoding.Raw, serialization.PublicFormat.Raw
        )
        self.key_id = key_id(self.public)

    def __repr__(self) -> str:
        return f"StaticKey({self.key_id.hex()})"

    def port_key(self, peer_public: bytes, algorithm: Algorithm, day: int | None) -> PortKey:
        """The key for ports that we share with the owner of ``peer_public``.

        ``day``: days since 1970 (`epochs.day_of`), None where epochs are off.  Raises WeakPeerKey.
        """
        info = self._both(peer_public) + bytes([algorithm])
        if day is not None:
            info += day.to_bytes(DAY_OCTETS, "big")
        return PortKey(algorithm, self._derived(peer_public, info, algorithm.key_length))

    def probe_key(self, peer_public: bytes) -> bytes:
        """The key of 32 octets that probes of the path are authenticated with.

        Raises WeakPeerKey.
        """
        info = PROBE_INFO + self._both(peer_public)
        return self._derived(peer_public, info, PROBE_KEY_OCTETS)

    def session_keys(
        self,
        peer_public: bytes,
        ephemeral: StaticKey,
        peer_ephemeral: bytes,
        *,
        salt: bytes,
        info: bytes,
        length: int,
    ) -> bytes:
        """Keys that the owner of ``peer_public`` and we share in one connection only.

        HKDF over two secrets: of both static keys, and of both made for the connection, so that who
        gets a static key later can't read what went before.  Raises WeakPeerKey.
        """
        secrets = self._shared(peer_public) + ephemeral._shared(peer_ephemeral)
        return HKDF(hashes.SHA256(), length, salt, info).derive(secrets)

    def opened(self, sealed: bytes, info: bytes) -> bytes:
        """The reverse of `sealed_to`.  Raises NotOpened."""
        try:
            return _HPKE.decrypt(sealed, self._private, info)
        except (InvalidTag, ValueError):
            raise NotOpened("it is not sealed to this key, or was changed") from None

    def _both(self, peer_public: bytes) -> bytes:
        return b"".join(sorted((self.public, peer_public)))

    def _derived(self, peer_public: bytes, info: bytes, length: int) -> bytes:
        return HKDF(hashes.SHA256(), length, SALT, info).derive(self._shared(peer_public))

    def _shared(self, peer_public: bytes) -> bytes:
        if peer_public == self.public:
            raise WeakPeerKey("the peer's public key is our own")
        try:
            check_encoding(peer_public)
            # It refuses the secret that is zero (RFC 7748 section 6.1): points of small order.
            return self._private.exchange(X25519PublicKey.from_public_bytes(peer_public))
        except (RecordError, ValueError) as error:
            raise WeakPeerKey(f"the peer's public key can't be used: {error}") from None
