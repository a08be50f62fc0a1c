"""The socket option by which an application asks for port encryption (draft section 4).

Imported by applications: it needs nothing but the standard library, and no right but that to have
a socket.  `oegw sst enable` brings the option to a host.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import Any, Protocol

# Specification: ours.  Linux has the same number for multicast routing (MRT_INIT), which is for
# raw sockets only; on TCP and UDP sockets the kernel itself refuses it.
SST = 200  # at level IPPROTO_IP, and IPPROTO_IPV6 for sockets of that family; an int, 0 or 1

_LEVELS = {
    int(socket.AF_INET): socket.IPPROTO_IP,
    int(socket.AF_INET6): socket.IPPROTO_IPV6,  # also where it speaks to IPv4-mapped addresses
}
_ABSENT = (errno.ENOPROTOOPT, errno.EOPNOTSUPP)  # the latter where Linux can route multicast


class SstUnavailable(OSError):  # noqa: N818  (it names the fact)
    """This socket can't ask for port encryption; the message says why."""


class Socket(Protocol):
    """What is needed of a socket; asyncio's has it too."""

    @property
    def family(self) -> int: ...

    def setsockopt(self, level: int, option: int, value: int, /) -> None: ...

    def getsockopt(self, level: int, option: int, /) -> int: ...


def enable(sock: Socket | Any, on: bool = True) -> None:
    """Ask for port encryption of what ``sock`` sends, or no longer (SST-24, SST-26).

    For TCP and UDP, before ``connect``, the first ``sendto`` or ``listen``; sockets that a
    listening one accepts inherit it.  A flow whose ports are encrypted goes on like that when its
    socket no longer asks.  Raises SstUnavailable if the host does not have the option or the
    socket is of another kind.
    """
    level = _level(sock)
    try:
        sock.setsockopt(level, SST, int(on))
    except OSError as error:
        raise _explained(error) from error


def enabled(sock: Socket | Any) -> bool:
    """Whether ``sock`` asks for port encryption.  Raises SstUnavailable."""
    level = _level(sock)
    try:
        return sock.getsockopt(level, SST) == 1
    except OSError as error:
        raise _explained(error) from error


def _level(sock: Socket) -> int:
    level = _LEVELS.get(int(sock.family))
    if level is None:
        raise SstUnavailable(
            errno.EAFNOSUPPORT, "port encryption is for sockets of AF_INET and AF_INET6"
        )
    return level


def _explained(error: OSError) -> OSError:
    if error.errno in _ABSENT:
        return SstUnavailable(
            errno.ENOPROTOOPT,
            "this socket can't ask for port encryption: either it is neither TCP nor UDP, or the "
            "host does not have the option, which root brings by 'oegw sst enable'",
        )
    number = error.errno or errno.EIO
    return OSError(number, f"asking for port encryption: {os.strerror(number)}")
