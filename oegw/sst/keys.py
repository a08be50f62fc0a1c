"""The file of our X25519 key: made, read, and moved aside when it is changed."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from oegw.keyfile import KeyFileAbsent, KeyFileError, read_pem, write_secret
from oegw.sst.statickey import StaticKey, WeakPeerKey

__all__ = [
    "KeyFileAbsent",
    "KeyFileError",
    "StaticKey",
    "WeakPeerKey",
    "generate",
    "read_private",
    "roll",
]


def generate(path: Path) -> StaticKey:
    """Make a key and write it, mode 0600, PEM, PKCS #8; a file that is there is never replaced.

    Raises KeyFileError.
    """
    return _write(path, force=False)


def _write(path: Path, *, force: bool) -> StaticKey:
    private = X25519PrivateKey.generate()
    octets = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    try:
        write_secret(path, octets, force=force)
    except KeyFileError as error:
        if isinstance(error.__context__, FileExistsError):
            raise KeyFileError(f"{path}: exists already; a key is never replaced") from None
        raise
    return StaticKey(private.private_bytes_raw())


def read_private(path: Path) -> StaticKey:
    """The key in the PEM file at ``path``.

    Raises KeyFileError: missing, accessible to group or world, no X25519 key, or encrypted.
    """
    key = read_pem(path)
    if not isinstance(key, X25519PrivateKey):
        raise KeyFileError(f"{path}: is not an X25519 key; oegw sst keygen makes one")
    return StaticKey(key.private_bytes_raw())


def roll(path: Path) -> tuple[StaticKey, Path]:
    """Make another key in the place of the one at ``path``, which stays as ``PATH.old``.

    Returns the new key and where the old one is, for ``[sst] old_keys``.  There is a key at
    ``path`` at each moment, and a call that was broken off can be repeated.  Raises KeyFileError;
    then the old key is where it was.
    """
    read_private(path)
    old = path.with_name(f"{path.name}.old")
    made = False
    try:
        if not (old.exists() and old.samefile(path)):  # else a call was broken off here
            old.hardlink_to(path)
            made = True
        return _write(path, force=True), old
    except FileExistsError:
        raise KeyFileError(
            f"{old}: exists already; is that key still in sst.old_keys? Withdraw it, or move it"
        ) from None
    except KeyFileError:
        if made:
            old.unlink(missing_ok=True)
        raise
    except OSError as error:
        raise KeyFileError(f"{old}: {error.strerror}") from error
