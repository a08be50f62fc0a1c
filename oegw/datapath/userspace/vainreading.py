"""What an outer socket that cannot be read means for the worker that reads it."""

from __future__ import annotations

import errno
import os

# Errors of the kernel or of what keeps watch over its system calls.  Whatever somebody's ICMP
# makes a socket say is none of them: nobody out there can end a worker.
_FOR_GOOD = frozenset(
    (errno.ENOSYS, errno.EPERM, errno.EBADF, errno.ENOTSOCK, errno.EINVAL, errno.EFAULT)
)

# Our choices.
PATIENT = 32  # errors one after the other, before there are pauses
PAUSE = 0.01  # seconds
GIVES_UP = 5.0  # seconds with nothing but errors that last


class VainReading:
    """Of one socket: errors one after the other, with nothing read in between."""

    def __init__(self) -> None:
        self._errors = 0
        self._since: float | None = None  # as long as none but lasting ones came

    def read(self) -> None:
        """The socket could be read, or had nothing."""
        self._errors = 0
        self._since = None

    def failed(self, number: int, now: float) -> float:
        """How long to pause, for the poll that tells of the socket would tell of it again at
        once."""
        self._errors += 1
        if number not in _FOR_GOOD:
            self._since = None
        elif self._since is None:
            self._since = now
        return PAUSE if self._errors > PATIENT else 0.0

    def reason(self, number: int, now: float) -> str | None:
        """Why neither this worker nor a successor can go on, if so."""
        if self._since is None or now - self._since < GIVES_UP:
            return None
        return f"an outer socket cannot be read: {os.strerror(number)}"
