"""Files that a process of another user is to read and write become that user's.

What is done is no more than the names of the configuration say: a file that is not there yet is
made, a directory of others' files stays as it is.  It is done while processes of that user run,
which may have been taken over: where that user could put something else in the place of a name,
nothing is done by that name, and the user can make what is missing itself.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
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
        for log in files.logs:
            _directory(log.parent, user, 0o750)
            _made(log, user)
            mine.append(log)
        _chown([*mine, *files.secrets], user)
    except OSError as error:
        raise FileNotGivenError(f"{error.filename}: {error.strerror}") from error


def _directory(path: Path, user: User, mode: int) -> None:
    """A directory that is missing is made for the user; one that is called as we are becomes the
    user's.  Any other stays as it is, /root above all."""
    if not _only_ours(path.parent, user):
        return
    if not path.exists():
        path.mkdir(mode=mode, parents=True)
        path.chmod(mode)
        os.chown(path, user.uid, user.gid)
        return
    if path.name == _OURS and path.stat().st_uid == os.geteuid():
        os.chown(path, user.uid, user.gid)


def _made(path: Path, user: User) -> None:
    if _only_ours(path.parent, user) and not path.exists():
        with suppress(FileExistsError):  # a link that leads nowhere: who needs it says so
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640))


def _chown(paths: Iterable[Path], user: User) -> None:
    """Plain files of ours, never what a link leads to, nor what has another name as well: a user
    may give any file one more, where the kernel lets it (fs.protected_hardlinks)."""
    for path in paths:
        if not _only_ours(path.parent.parent, user):
            continue
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            continue  # it is not there, or no file: who needs it says so
        try:
            status = os.fstat(descriptor)
            ours = status.st_uid == os.geteuid() and status.st_nlink == 1
            if stat.S_ISREG(status.st_mode) and ours:
                os.fchown(descriptor, user.uid, user.gid)
        finally:
            os.close(descriptor)


def _only_ours(path: Path, user: User) -> bool:
    """Whether ``user`` can't change what stands at ``path``, nor what it or a link in it leads
    through.  What is not there yet counts as its parent."""
    here = path.resolve()
    places = {path, *path.parents, here, *here.parents}
    return not any(_may_change(each, user) for each in places)


def _may_change(directory: Path, user: User) -> bool:
    try:
        status = directory.stat()
    except FileNotFoundError:
        return False
    if status.st_uid == user.uid:
        return True
    if status.st_mode & stat.S_ISVTX:  # in a directory such as /tmp each keeps its own
        return False
    by_group = status.st_gid == user.gid and status.st_mode & stat.S_IWGRP
    return bool(by_group or status.st_mode & stat.S_IWOTH)
