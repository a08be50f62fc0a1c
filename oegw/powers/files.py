"""Files that a process of another user is to read and write become that user's.

What is done is no more than the names of the configuration say: a file that is not there yet is
made, a directory of others' files stays as it is.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from oegw.powers.dropping import User

_OURS = "oegw"  # a directory of this name is for us alone
_DATABASE = ("", "-wal", "-shm", ".corrupt")  # SQLite's files, and what `statefile` sets aside


class FileNotGivenError(Exception):
    """The user could not use a file; the message names it."""


@dataclass(frozen=True, slots=True)
class Files:
    """``state``: a database.  ``logs``: files that are appended to.  ``sockets``: where others
    listen.  ``secrets``: private keys that only the user itself may read."""

    state: Path
    logs: tuple[Path, ...]
    sockets: tuple[Path, ...]
    secrets: tuple[Path, ...]


def give(files: Files, user: User) -> None:
    """Raises FileNotGivenError."""
    try:
        _directory(files.state.parent, user, 0o700)
        for path in dict.fromkeys(each.parent for each in files.sockets):
            _directory(path, user, 0o755)
        mine = [files.state.with_name(files.state.name + suffix) for suffix in _DATABASE]
        for path in files.logs:
            if path.parent.is_dir():
                _directory(path.parent, user, 0o750)
                _made(path)
                mine.append(path)
        _chown([*mine, *files.secrets], user)
    except OSError as error:
        raise FileNotGivenError(f"{error.filename}: {error.strerror}") from error


def _directory(path: Path, user: User, mode: int) -> None:
    """A directory that is missing is made for the user; one that is ours becomes the user's."""
    if not path.exists():
        path.mkdir(mode=mode, parents=True)
        path.chmod(mode)
        os.chown(path, user.uid, user.gid)
        return
    status = path.stat()
    private = not stat.S_IMODE(status.st_mode) & 0o077
    if status.st_uid == os.geteuid() and (private or path.name == _OURS):
        os.chown(path, user.uid, user.gid)


def _made(path: Path) -> None:
    if not path.exists():
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640))


def _chown(paths: Iterable[Path], user: User) -> None:
    """Plain files of ours, and never what a link leads to."""
    for path in paths:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            continue  # it is not there, or no file: who needs it says so
        try:
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
                os.fchown(descriptor, user.uid, user.gid)
        finally:
            os.close(descriptor)
