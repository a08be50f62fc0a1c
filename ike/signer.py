"""RSA signatures of phase 1.  The only holder of the private key, where that is in this process.

RFC 2409 section 5.1: the hash is padded as PKCS #1 block type 1 and encrypted
with the private key, without the DigestInfo that names the hash.
"""

from __future__ import annotations

from typing import Any, Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import padding, rsa, utils

from ike.constants import RSA_LONGEST, RSA_SHORTEST
from ike.errors import WrongSignature

_AS_IT_IS: Any = utils.NoDigestInfo()  # the stubs of ``verify`` do not know it yet


class Signing(Protocol):
    """What signs for us; the key may be in another process."""

    def sign(self, digest: bytes) -> bytes:
        """The signature over HASH_I or HASH_R, as long as the modulus."""


class Signer:
    """Signs; never decrypts, and never tells its key."""

    __slots__ = ("_private_key",)

    def __init__(self, private_key: rsa.RSAPrivateKey) -> None:
        self._private_key = private_key

    def sign(self, digest: bytes) -> bytes:
        """The signature over HASH_I or HASH_R, as long as the modulus."""
        return self._private_key.sign(digest, padding.PKCS1v15(), utils.NoDigestInfo())


def signer_of(key: rsa.RSAPrivateKey | Signing) -> Signing:
    """What signs with ``key``, or is what signs."""
    return Signer(key) if isinstance(key, rsa.RSAPrivateKey) else key


def _counted(number: int) -> str:
    return "the one key" if number == 1 else f"any of the {number} keys"


def verifying_key(
    keys: tuple[rsa.RSAPublicKey, ...], signature: bytes, digest: bytes
) -> rsa.RSAPublicKey:
    """The first of ``keys`` under which ``signature`` is over ``digest``.

    Raises ``WrongSignature`` if it is none.  A signature must be exactly as long as
    the modulus; keys of outlandish size are passed over.
    """
    for key in keys:
        if not RSA_SHORTEST <= key.key_size <= RSA_LONGEST:
            continue
        if len(signature) != (key.key_size + 7) // 8:
            continue
        try:
            key.verify(signature, digest, padding.PKCS1v15(), _AS_IT_IS)
        except (InvalidSignature, UnsupportedAlgorithm, ValueError):
            continue
        return key
    raise WrongSignature(f"not signed with {_counted(len(keys))} that we know of this peer")
