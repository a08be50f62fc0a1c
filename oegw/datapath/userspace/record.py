"""The record of an SA: what it must not forget when a worker dies.

In the machine's byte order, at an offset that is a multiple of 64 (`state.py` has the memory):

    0   u64  sequence   outbound: the last number taken; inbound: the highest accepted
    8   u64  packets
    16  u64  octets     of plaintext, as RFC 4301 counts lifetimes
    24  u64  last used  monotonic nanoseconds; 0: never
    32  u8   softened   1: the soft limit was reached, and said
    33  u8   expired    1: the hard limit was; it carries nothing more
    34  u16  zero
    36  u32  ring       inbound: its size in bits, a power of two, at least the window's
    40  24 octets, zero
    64  inbound: the ring; bit ``sequence % ring`` says whether that number was accepted

Numbers are taken from ``sequence`` before they are used, all that a frame needs at once, so a death
in between loses numbers and repeats none.  A window moves in this order: ``sequence``, then the
bits that it passed over are cleared, then the bit is set; so a death in between makes it forget
what was never delivered, or refuse what it need not, and never accept a replay.

The two flags have an octet each, since the control process sets them too (its clock, the limits
of seconds): neither side can lose what the other sets in the same moment.

One worker writes the record of an inbound SA.  Of an outbound one several may: ``take`` is one step
for all of them (an atomic addition in the compiled core, a lock of the record in pure Python;
all workers of a datapath have the same core).
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from struct import Struct

RECORD = 64
SEQUENCE, PACKETS, OCTETS, LAST_USED, RING_SIZE, RING = 0, 8, 16, 24, 36, 64
SOFTENED, EXPIRED = 32, 33  # where each stands

_U64 = Struct("=Q")
_U32 = Struct("=I")
_USED = Struct("=QQQQ")
_COUNTED = Struct("=QQQ")  # packets, octets, last used


def ring_size(window: int) -> int:
    """The bits of the ring of a window of so many packets."""
    return 1 << (window - 1).bit_length()


def record_size(window: int) -> int:
    """The octets of a record; ``window`` in packets, 0 for an outbound SA."""
    return RECORD + (max(ring_size(window) // 8, RECORD) if window else 0)


Lock = Callable[[int, bool], None]
"""Called with the offset of a record: nobody else takes numbers from it from True to False."""


class Record:
    """One SA's.  ``lock``: several workers take numbers from it."""

    __slots__ = ("_lock", "at", "memory", "offset")

    def __init__(self, memory: mmap.mmap, at: int, offset: int, lock: Lock | None = None) -> None:
        self.memory = memory
        self.at = at
        self.offset = offset  # in all of the memory
        self._lock = lock

    @property
    def sequence(self) -> int:
        return int(_U64.unpack_from(self.memory, self.at)[0])

    @sequence.setter
    def sequence(self, value: int) -> None:
        _U64.pack_into(self.memory, self.at, value)

    @property
    def used(self) -> tuple[int, int, int, int]:
        """Sequence, packets, octets, last used in nanoseconds."""
        return _USED.unpack_from(self.memory, self.at)

    def flag(self, which: int) -> bool:
        """``which``: SOFTENED or EXPIRED."""
        return self.memory[self.at + which] != 0

    def set_flag(self, which: int) -> bool:
        """Whether it was not set before."""
        before = self.memory[self.at + which]
        self.memory[self.at + which] = 1
        return not before

    def take(self, numbers: int, octets: int, now: float, last: int) -> int | None:
        """Take the next sequence numbers, for packets of so many octets in all: the first of them;
        None, and nothing is taken, if one would be greater than ``last``."""
        if self._lock is not None:
            self._lock(self.offset, True)
        try:
            sequence, packets, counted, _ = _USED.unpack_from(self.memory, self.at)
            if sequence + numbers > last:
                return None
            _USED.pack_into(
                self.memory,
                self.at,
                sequence + numbers,
                packets + numbers,
                counted + octets,
                int(now * 1e9),
            )
            return int(sequence) + 1
        finally:
            if self._lock is not None:
                self._lock(self.offset, False)

    def count(self, packets: int, octets: int, now: float) -> None:
        """So many packets were received."""
        before, counted, _ = _COUNTED.unpack_from(self.memory, self.at + PACKETS)
        _COUNTED.pack_into(
            self.memory, self.at + PACKETS, before + packets, counted + octets, int(now * 1e9)
        )


def private_record(window: int = 0) -> Record:
    """A record of a process's own, which dies with it: for tests.  ``window`` as in `Memory`."""
    memory = mmap.mmap(-1, record_size(window))
    if window:
        _U32.pack_into(memory, RING_SIZE, ring_size(window))
    return Record(memory, 0, 0)
