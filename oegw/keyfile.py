"""Files of secrets: written as a whole or not at all, read only if nobody else gets at them."""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

MAX_FILE = 65536  # octets, our choice; an RSA key of 8192 bits takes 6,400


class KeyFileError(Exception):
    """A file of a private key that can't be used; the message names it."""


class KeyFileAbsent(KeyFileError):  # noqa: N818  (it names the fact)
    """The file does not exist, or this user may not read it."""


def write_secret(path: Path, octets: bytes, *, force: bool = False) -> None:
    """Write ``octets`` with mode 0600; else as `write_whole`."""
    write_whole(path, octets, 0o600, force=force)


def write_whole(path: Path, octets: bytes, mode: int, *, force: bool = False) -> None:
    """Write ``octets``, as a whole or not at all.

    A file that is there already is replaced with ``force`` only.  The directory
    is made if only that is missing.  Raises KeyFileError.
    """
    if not path.name:
        raise KeyFileError(f"{path}: is a directory")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(mode=0o755, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(descriptor, mode)  # whatever the umask took away
                file.write(octets)
                file.flush()
                os.fsync(descriptor)
            if force:
                if path.exists() and not path.is_file():  # not /dev/null to be replaced
                    raise KeyFileError(f"{path}: is not a regular file")
                temporary.replace(path)
            else:
                path.hardlink_to(temporary)  # unlike a rename, it fails if the name is taken
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()
        sync_directory(path.parent)
    except FileExistsError:
        raise KeyFileError(f"{path}: exists already; it is replaced only with --force") from None
    except PermissionError as error:
        raise KeyFileAbsent(f"{path}: {error.strerror}") from error
    except (OSError, ValueError) as error:
        raise KeyFileError(f"{path}: {getattr(error, 'strerror', None) or error}") from error


def sync_directory(path: Path) -> None:
    """Wait until the names in a directory are on disk.  Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_secret(path: Path) -> bytes:
    """What is in a file.  Raises KeyFileError: missing, too long, accessible to group or world."""
    try:
        # Not to be stopped by a FIFO in the file's place.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            # Judged on the open file, so that nobody can change it in between.
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise KeyFileError(f"{path}: is not a regular file")
            mode = stat.S_IMODE(status.st_mode)
            if mode & 0o077:
                raise KeyFileError(
                    f"{path}: mode {mode:04o} lets others at the private key; "
                    f"chmod 600 it, and think about a new key"
                )
            octets = file.read(MAX_FILE + 1)
    except (FileNotFoundError, PermissionError) as error:
        raise KeyFileAbsent(f"{path}: {error.strerror}") from error
    except (OSError, ValueError) as error:
        raise KeyFileError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if len(octets) > MAX_FILE:
        raise KeyFileError(f"{path}: is too long for a private key")
    return octets


def read_pem(path: Path) -> PrivateKeyTypes:
    """The private key, of whatever kind, in a PEM file.  Raises KeyFileError."""
    octets = read_secret(path)
    try:
        return serialization.load_pem_private_key(octets, password=None)
    except TypeError:
        raise KeyFileError(
            f"{path}: the key is encrypted; nobody could give the passphrase at a start"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        # Not the library's text: it is long, and might quote the file.
        raise KeyFileError(f"{path}: is not a private key in PEM form") from None
