"""What the supervisor of a service is told of its life: datagrams of sd_notify(3), no library.

Who is told of a watchdog (WATCHDOG_USEC) has to hear from us within that time.  It does from the
event loop, and only while the gateway says that it is well: one that hangs, or has failed, is
started again, and meanwhile the rules in the kernel let nothing protected out.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

_SHARE = 3  # our choice: pings in the time of the watchdog, so that one may be late


class Service:
    """``address``: of the supervisor's socket; without one nobody is told.
    ``watchdog``: seconds within which it wants to hear from us; 0 for never."""

    def __init__(
        self, address: str = "", watchdog: float = 0.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        # unix(7): @ stands for the octet 0 of a name that is in no file system
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._interval = watchdog / _SHARE
        self._clock = clock
        self._ping: asyncio.TimerHandle | None = None

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Service:
        """As ``environment`` says (sd_watchdog_enabled(3)).

        WATCHDOG_PID is not looked at: the process that knows whether the gateway is well may be a
        child of the one that was started.
        """
        microseconds = environment.get("WATCHDOG_USEC", "")
        watchdog = int(microseconds) / 1e6 if microseconds.isdecimal() else 0.0
        return cls(environment.get("NOTIFY_SOCKET", ""), watchdog)

    def ready(self, status: str) -> None:
        """The start, or a reload, is over."""
        self._tell("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """Until `ready`."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={int(self._clock() * 1e6)}")

    def stopping(self) -> None:
        """The end has begun; there are no pings any more."""
        if self._ping is not None:
            self._ping.cancel()
        self._tell("STOPPING=1", "STATUS=stopping")

    def attend(self, well: Callable[[], bool], status: Callable[[], str]) -> None:
        """From now on, ping from this event loop while ``well``; ``status`` is one line."""
        if not (self._address and self._interval):
            return
        if well():
            self._tell("WATCHDOG=1", f"STATUS={status()}")
        loop = asyncio.get_running_loop()
        self._ping = loop.call_later(self._interval, self.attend, well, status)

    def _tell(self, *lines: str) -> None:
        """Without waiting: a supervisor that does not read does not hold us up."""
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, suppress(OSError):
            sender.setblocking(False)
            sender.sendto("\n".join(lines).encode(), self._address)
