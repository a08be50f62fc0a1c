"""The guard on disk: what keeps protected traffic in between a boot and the daemon's start.

It is the text of what a stop leaves in the kernel, written at each start and each change of the
policy.  A unit loads it before the network, with `nft` alone (`deploy/guard`).
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from oegw.keyfile import KeyFileError, write_secret

COMPLETE = "# complete\n"
HEAD = """\
# Written by oegw at each start and each change of its policy: do not edit.
# oegw-guard.service loads it before the network; oegw guard --remove takes it away.
"""


def save(path: Path, *tables: str) -> str:
    """Write the text of ``tables``, as a whole or not at all, and wait for the disk.

    The last line is a mark: an empty file would load as well, and open everything.  What another
    user has put in its place is not loaded (`deploy/guard`), so it is written anew.
    Returns what went wrong, for the operator, or nothing.
    """
    octets = (HEAD + "".join(tables) + COMPLETE).encode()
    if _is_there(path, octets):
        return ""
    try:
        _make_room(path)
        write_secret(path, octets, force=True)
    except (KeyFileError, OSError) as error:
        return f"warning: the guard for the next boot is not saved: {error}"
    return ""


def _make_room(path: Path) -> None:
    """A link, pipe or socket in its place is nothing to be kept.  Raises OSError."""
    with suppress(FileNotFoundError, NotADirectoryError):
        if stat.S_IFMT(path.lstat().st_mode) in (stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK):
            path.unlink()


def _is_there(path: Path, octets: bytes) -> bool:
    """As a file of ours.  The directory may be another user's, and so a link may stand there, or
    what has no end."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False  # not there, or not to be read: written anew
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        ours = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
        return ours and status.st_size == len(octets) and file.read(len(octets)) == octets
