"""On which CPUs a worker runs, and when: all workers of a gateway on one, and at once, while
packets come one by one; on all that they may, and without interrupting others, while packets come
in crowds.

A packet goes from process to process, and each wakes the next.  On the same CPU that takes a few
microseconds; another one that sleeps takes some fifty to wake, and is what the kernel prefers.
While packets come alone one CPU has time for all of that, and while they do not, nobody sleeps.
Then who is woken would interrupt another worker, for a few packets and with cold caches; as
SCHED_BATCH it waits until that one has to wait or has had its time, and finds more of them.

From when on they gather is a word of memory that all workers of the gateway share: whoever meets a
crowd, or finds that CPU busy with other things, puts it off, and the others see that with their
next packet.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

# Our choices; crowd.c has the first four too.
MANY = 64  # packets that came in crowds
PERIOD = 50_000_000  # nanoseconds, within which they did
CALM = 250_000_000  # after the last crowd: then the workers gather
LOOK = 64  # turns between two looks at how long the worker had to wait
LATE = 4  # times as long as it runs it waits to: others have the CPU
AVOIDED = 10_000_000_000  # then it is left to them so long

_SCHEDSTAT = Path("/proc/thread-self/schedstat")


class Gathering:
    """Of one worker.  ``gather_from`` is the memory that all share: monotonic nanoseconds."""

    def __init__(self, gather_from: memoryview) -> None:
        self.gather_from = gather_from
        self._gathered = False
        self._packets = self._since = self._turns = 0
        self._began = False
        self._patient = False  # SCHED_BATCH, by us
        self._home: int | None = None  # while gathered
        self._allowed: set[int] = set()
        self._spent = 0, 0

    def begin(self) -> None:
        """This process is a worker, and may be moved from CPU to CPU from now on."""
        self._began = True
        self.place(self._gathered)

    def came(self, packets: int, now: float) -> None:
        """So many were found waiting, and are done."""
        moment = round(now * 1e9)
        if packets > 1:
            if moment - self._since > PERIOD:
                self._since, self._packets = moment, 0
            self._packets += packets
            if self._packets >= MANY:
                self._put_off(moment + CALM)
        gathered = moment >= self.gather_from[0]
        self._turns += 1
        if gathered != self._gathered or (gathered and self._turns >= LOOK):
            self._gathered = gathered
            self._turns = 0
            self.place(gathered)

    def place(self, gathered: bool) -> None:
        """Run on one CPU and at once, or on all that this process may and patiently.  True is said
        again and again.

        Where the kernel refuses it, the worker stays where it is, or as it was.
        """
        if not self._began:
            return
        with suppress(OSError):
            self._be_patient(not gathered)
        with suppress(OSError):
            if not gathered:
                self._spread()
            elif self._home is None:
                self._gather()
            elif self._is_late():
                self._put_off(time.monotonic_ns() + AVOIDED)

    def _be_patient(self, patient: bool) -> None:
        """Unless somebody gave this process another policy than processes usually have."""
        if patient and os.sched_getscheduler(0) == os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
            self._patient = True
        elif self._patient and not patient:
            self._patient = False
            if os.sched_getscheduler(0) == os.SCHED_BATCH:
                os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))

    def _gather(self) -> None:
        allowed = os.sched_getaffinity(0)
        home = min(allowed)
        if len(allowed) > 1:
            os.sched_setaffinity(0, {home})
        self._home, self._allowed = home, allowed
        self._spent = _spent()

    def _spread(self) -> None:
        home, self._home = self._home, None
        # If somebody said otherwise meanwhile, that stays.
        if home is not None and os.sched_getaffinity(0) == {home}:
            os.sched_setaffinity(0, self._allowed)

    def _is_late(self) -> bool:
        """Whether it had to wait for the CPU, since the last look."""
        before, self._spent = self._spent, _spent()
        ran, waited = self._spent[0] - before[0], self._spent[1] - before[1]
        return waited > ran * LATE

    def _put_off(self, until: int) -> None:
        if until > self.gather_from[0]:
            self.gather_from[0] = until


def _spent() -> tuple[int, int]:
    """Nanoseconds run, and waited to; zeros if this kernel does not say."""
    try:
        ran, waited, _ = _SCHEDSTAT.read_text(encoding="ascii").split()
    except OSError:
        return 0, 0
    return int(ran), int(waited)
