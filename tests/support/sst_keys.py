"""SST keys for tests: public keys that differ, and records of them."""

from __future__ import annotations

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from dnsrecords.outcome import IPAddress
from dnsrecords.sstkey import SstKey


def public_key(number: int) -> bytes:
    """The public key of the private key that is this number."""
    private = X25519PrivateKey.from_private_bytes(number.to_bytes(32, "big"))
    return private.public_key().public_bytes(
        serialization.Encoding.Raw, serialization.PublicFormat.Raw
    )


def sst_key(
    gateway: IPAddress, number: int = 1, *, precedence: int = 10, algorithm: int = 1
) -> SstKey:
    return SstKey(precedence, gateway, algorithm, public_key(number))
