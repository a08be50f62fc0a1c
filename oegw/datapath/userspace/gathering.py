"""On which CPUs a worker runs: all workers of a gateway on one while packets come one by one, on
all that they may while packets come in crowds.

A packet goes from process to process, and each wakes the next.  On the same CPU that takes a few
microseconds; another one that sleeps takes some fifty to wake, and is what the kernel prefers.
While packets come alone one CPU has time for all of that, and while they do not, nobody sleeps.

Whoever meets a crowd says when, in a word of memory that all workers of the gateway share, and the
others see that with their next packet.
"""

from __future__ import annotations

import os
from contextlib import suppress

# Our choices; crowd.c has them too.
MANY = 64  # packets that came in crowds
PERIOD = 50_000_000  # nanoseconds, within which they did
CALM = 250_000_000  # after the last crowd: then the workers gather again


class Gathering:
    """Of one worker.  ``last_crowd`` is the memory that all share: monotonic nanoseconds."""

    def __init__(self, last_crowd: memoryview) -> None:
        self.last_crowd = last_crowd
        self._gathered = False
        self._packets = 0
        self._since = 0
        self._began = False
        self._allowed: set[int] = set()

    def begin(self) -> None:
        """This process is a worker, and may be moved from CPU to CPU from now on."""
        self._began = True

    def came(self, packets: int, now: float) -> None:
        """So many were found waiting, and are done."""
        moment = round(now * 1e9)
        last = self.last_crowd
        if packets > 1:
            if moment - self._since > PERIOD:
                self._since, self._packets = moment, 0
            self._packets += packets
            if self._packets >= MANY:
                last[0] = moment
        gathered = moment - last[0] >= CALM  # another one's moment may be a little later
        if gathered != self._gathered:
            self._gathered = gathered
            self.place(gathered)

    def place(self, gathered: bool) -> None:
        """Run on one CPU, or on all.  Where that is refused, the worker stays where it is."""
        if not self._began:
            return
        with suppress(OSError):
            now = os.sched_getaffinity(0)
            if gathered:
                self._allowed = now
                os.sched_setaffinity(0, {min(now)})
            elif self._allowed and now == {min(self._allowed)}:
                # Else somebody said otherwise meanwhile, and that stays.
                os.sched_setaffinity(0, self._allowed)
