"""A listening Unix socket at a path: one process for each, and its mode from the first moment."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class AddressTaken(Exception):  # noqa: N818  (it names the fact)
    """Somebody lives at the path, or it is no socket; the text names it."""


def listen(path: Path, mode: int, backlog: int) -> socket.socket:
    """A socket listening at ``path``; the directory is made if it is missing, open to all.

    A socket whose process died is replaced.  Raises OSError and AddressTaken.
    """
    if not path.parent.exists():
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.parent.chmod(0o755)  # whatever the umask took away: the socket's mode decides
    with _locked(path.parent):  # two daemons that start at once must not replace each other
        _clear(path)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            os.fchmod(listening.fileno(), mode)  # Linux gives it to the file that bind makes
            listening.bind(os.fspath(path))
            path.chmod(mode)
            listening.listen(backlog)
            listening.setblocking(False)
        except BaseException:
            listening.close()
            raise
        return listening


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _clear(path: Path) -> None:
    """Remove the socket of a daemon that died."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise AddressTaken(f"{path}: there is something that is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as visitor:
        visitor.settimeout(0)  # a living daemon accepts at once, or has a full queue
        try:
            visitor.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:
            pass
    raise AddressTaken(f"{path}: another oegw is running there")
