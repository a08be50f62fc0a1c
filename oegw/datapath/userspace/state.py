"""What an SA must not forget when a worker dies: in memory that outlives every worker.

The control process makes the memory (a memfd), hands it to its workers and reads it: usage and
counters need no question, and a worker's successor goes on where it ended.

The record of an SA, in the machine's byte order, at an offset that is a multiple of 64:

    0   u64  sequence   outbound: the last number taken; inbound: the highest accepted
    8   u64  packets
    16  u64  octets     of plaintext, as RFC 4301 counts lifetimes
    24  u64  last used  monotonic nanoseconds; 0: never
    32  u8   softened   1: the soft limit was reached, and said
    33  u8   expired    1: the hard limit was; it carries nothing more
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

import fcntl
import mmap
import os
from struct import Struct

RECORD = 64
CHUNK = 2**20  # octets; no record crosses from one into the next

SEQUENCE, PACKETS, OCTETS, LAST_USED, RING_SIZE, RING = 0, 8, 16, 24, 36, 64
SOFTENED, EXPIRED = 32, 33  # where each stands

_U64 = Struct("=Q")
_U32 = Struct("=I")
_USED = Struct("=QQQQ")


def ring_size(window: int) -> int:
    """The bits of the ring of a window of so many packets."""
    return 1 << (window - 1).bit_length()


class Chunks:
    """The memory, mapped piece by piece as it is asked for, so that what is mapped never moves."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._chunks: dict[int, mmap.mmap] = {}

    def chunk(self, number: int) -> mmap.mmap:
        mapped = self._chunks.get(number)
        if mapped is None:
            mapped = mmap.mmap(self.descriptor, CHUNK, offset=number * CHUNK)
            self._chunks[number] = mapped
        return mapped

    def record(self, offset: int, shared: bool = False) -> Record:
        """``shared``: several workers take numbers from it."""
        return Record(self.chunk(offset // CHUNK), offset, self.descriptor if shared else -1)


class Memory(Chunks):
    """The control process's side: it gives records out, and takes them back."""

    def __init__(self) -> None:
        super().__init__(os.memfd_create("oegw-sa", os.MFD_CLOEXEC))
        self._end = 0
        self._free: dict[int, list[int]] = {}

    def allocate(self, window: int = 0) -> int:
        """The offset of a new record, all zero but for the size of its ring; ``window`` in
        packets, 0 for an outbound SA.  Raises OSError if there is no memory."""
        size = RECORD + (max(ring_size(window) // 8, RECORD) if window else 0)
        free = self._free.get(size)
        if free:
            offset = free.pop()
        else:
            offset = self._end
            if offset // CHUNK != (offset + size - 1) // CHUNK:
                offset = (offset // CHUNK + 1) * CHUNK
            os.ftruncate(self.descriptor, (offset // CHUNK + 1) * CHUNK)
            self._end = offset + size
        chunk, at = self.chunk(offset // CHUNK), offset % CHUNK
        chunk[at : at + size] = bytes(size)
        if window:
            _U32.pack_into(chunk, at + RING_SIZE, ring_size(window))
        return offset

    def free(self, offset: int, window: int = 0) -> None:
        """``window`` as at ``allocate``.  No worker may use the record any more."""
        size = RECORD + (max(ring_size(window) // 8, RECORD) if window else 0)
        self._free.setdefault(size, []).append(offset)


class Record:
    """One SA's."""

    __slots__ = ("_lock", "at", "memory", "offset")

    def __init__(self, memory: mmap.mmap, offset: int, lock: int = -1) -> None:
        self.memory = memory
        self.offset = offset  # in all of the memory
        self.at = offset % CHUNK
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
        return _USED.unpack_from(self.memory, self.at)  # type: ignore[return-value]

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
        if self._lock >= 0:
            fcntl.lockf(self._lock, fcntl.LOCK_EX, RECORD, self.offset)
        try:
            sequence, packets, counted, _ = self.used
            if sequence + numbers > last:
                return None
            nanoseconds = int(now * 1e9)
            _USED.pack_into(
                self.memory,
                self.at,
                sequence + numbers,
                packets + numbers,
                counted + octets,
                nanoseconds,
            )
            return sequence + 1
        finally:
            if self._lock >= 0:
                fcntl.lockf(self._lock, fcntl.LOCK_UN, RECORD, self.offset)

    def count(self, octets: int, now: float) -> None:
        """One packet was received."""
        sequence, packets, counted, _ = self.used
        _USED.pack_into(
            self.memory, self.at, sequence, packets + 1, counted + octets, int(now * 1e9)
        )
