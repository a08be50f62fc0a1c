"""When a process ends, however many children hold its connection (MK-22): one pidfd for each."""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
from collections.abc import Callable

# Specification: pidfd_getfd(2), whose number is the same on all machines, as those of all calls
# that are newer than 2019.
SYS_PIDFD_GETFD = 438

_libc = ctypes.CDLL(None, use_errno=True)


def copied(pid: int, descriptor: int) -> socket.socket:
    """The socket that process ``pid`` has by ``descriptor``, in this process.  Raises OSError."""
    pidfd = os.pidfd_open(pid)
    try:
        copy = _libc.syscall(SYS_PIDFD_GETFD, pidfd, descriptor, 0)
        if copy < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
    finally:
        os.close(pidfd)
    os.set_inheritable(copy, False)
    return socket.socket(fileno=copy)


class Processes:
    """``ended`` is told the number of each watched process as soon as it has ended."""

    def __init__(self, ended: Callable[[int], None]) -> None:
        self._ended = ended
        self._pidfds: dict[int, int] = {}  # by process
        self._holders: dict[int, int] = {}  # how many asked for it, by process

    def __len__(self) -> int:
        return len(self._pidfds)

    def watch(self, pid: int, pidfd: int) -> None:
        """Watch a process, by a descriptor that is ours from now on; each call needs one of
        `leave`."""
        self._holders[pid] = self._holders.get(pid, 0) + 1
        if pid in self._pidfds:
            os.close(pidfd)
            return
        self._pidfds[pid] = pidfd
        asyncio.get_running_loop().add_reader(pidfd, self._over, pid)

    def leave(self, pid: int) -> None:
        """One who asked for it needs it no more."""
        if pid not in self._holders:
            return
        self._holders[pid] -= 1
        if not self._holders[pid]:
            self._forget(pid)

    def close(self) -> None:
        for pid in tuple(self._pidfds):
            self._forget(pid)

    def _over(self, pid: int) -> None:
        self._forget(pid)
        self._ended(pid)

    def _forget(self, pid: int) -> None:
        del self._holders[pid]
        pidfd = self._pidfds.pop(pid)
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)
