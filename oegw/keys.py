"""The gateway's own RSA key: made, written and read so that nobody else gets hold of it."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from dnsrecords.rsakey import MAX_MODULUS_BITS
from oegw.keyfile import MAX_FILE, KeyFileAbsent, KeyFileError, read_pem, write_secret

__all__ = [
    "DEFAULT_BITS",
    "EXPONENT",
    "MAX_FILE",
    "MIN_BITS",
    "KeyFileAbsent",
    "KeyFileError",
    "generate",
    "read_private",
    "write_private",
]

# Specification: the usual exponent; FreeS/WAN's 3 invites forgeries.
EXPONENT = 65537

# Our choices: 128 bits of strength until 2030 and after, and the least that counts as safe until
# then (NIST SP 800-57).  Of others we take less: 1024 bits, as those of the draft's time have.
DEFAULT_BITS = 3072
MIN_BITS = 2048


def generate(bits: int = DEFAULT_BITS) -> rsa.RSAPrivateKey:
    """A new key.  Raises ValueError if ``bits`` are too few, or more than peers take."""
    if not MIN_BITS <= bits <= MAX_MODULUS_BITS:
        raise ValueError(f"{bits} bits are not within {MIN_BITS} to {MAX_MODULUS_BITS}")
    return rsa.generate_private_key(EXPONENT, bits)


def write_private(path: Path, key: rsa.RSAPrivateKey, *, force: bool = False) -> None:
    """Write ``key`` with mode 0600, as a whole or not at all.

    A file that is there already is replaced with ``force`` only.  The directory
    is made if only that is missing.  Raises KeyFileError.
    """
    octets = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    write_secret(path, octets, force=force)


def read_private(path: Path) -> rsa.RSAPrivateKey:
    """The key in the PEM file at ``path``, PKCS #8 or traditional.

    Raises KeyFileError: missing, accessible to group or world, no RSA key,
    encrypted, too short, or longer than peers take.
    """
    key = read_pem(path)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise KeyFileError(f"{path}: is not an RSA key")
    if key.key_size < MIN_BITS:
        raise KeyFileError(
            f"{path}: an RSA key of {key.key_size} bits is too short: {MIN_BITS} are the least; "
            f"oegw keygen makes one of {DEFAULT_BITS}"
        )
    if key.key_size > MAX_MODULUS_BITS:
        raise KeyFileError(
            f"{path}: an RSA key of {key.key_size} bits; peers take {MAX_MODULUS_BITS} at most"
        )
    return key
