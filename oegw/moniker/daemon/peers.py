"""Who is at the other end of a Unix socket, by the kernel's word (MK-21)."""

from __future__ import annotations

import os
import pwd
import socket
import struct
from pathlib import Path

from oegw.moniker.interface import Owner

# Of the Linux headers; Python's socket module does not know it yet.
SO_PEERPIDFD = 77  # asm-generic/socket.h, since Linux 6.5

_CREDENTIALS = struct.Struct("iII")  # struct ucred


def peer_of(connection: socket.socket) -> Owner:
    """The process that connected, as it was then.  Raises OSError."""
    octets = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(octets)
    return Owner(pid, uid, gid, user_name(uid))


def user_name(uid: int) -> str:
    """The name of a user; of one that has none, the number."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def process_of(connection: socket.socket, peer: Owner) -> int:
    """A descriptor of that process (pidfd), to be closed by the caller.

    Raises OSError: the process is gone, or it is not in our PID namespace (pid 0).
    """
    if not peer.pid:
        raise ProcessLookupError("the process is in another PID namespace")
    try:
        return connection.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD)
    except OSError:
        return _opened(peer)


def _opened(peer: Owner) -> int:
    """For kernels without SO_PEERPIDFD.

    The number may have gone to another process since; that it is one of the same user is checked,
    so that at worst a user's own process is taken for another of the same user.
    """
    pidfd = os.pidfd_open(peer.pid)
    try:
        facts = Path(f"/proc/{peer.pid}/status").read_text(encoding="ascii", errors="replace")
        users = next(line.split()[1:] for line in facts.splitlines() if line.startswith("Uid:"))
        if str(peer.uid) not in users:
            raise ProcessLookupError(f"process {peer.pid} is gone")
        return pidfd
    except BaseException:
        os.close(pidfd)
        raise
