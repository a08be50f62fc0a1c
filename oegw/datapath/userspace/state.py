"""What an SA must not forget when a worker dies: in memory that outlives every worker.

The control process makes the memory (a memfd), hands it to its workers and reads it: usage and
counters need no question, and a worker's successor goes on where it ended.  The layout is
that of `record.py`.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import sys

from oegw.datapath.userspace.record import (
    EXPIRED,
    RECORD,
    RING_SIZE,
    SOFTENED,
    Record,
    private_record,
    record_size,
    ring_size,
)

__all__ = ["CHUNK", "EXPIRED", "SOFTENED", "Chunks", "Memory", "Record", "private_record"]

CHUNK = 2**20  # octets; no record crosses from one into the next


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
        chunk = self.chunk(offset // CHUNK)
        return Record(chunk, offset % CHUNK, offset, self._lock if shared else None)

    def _lock(self, offset: int, held: bool) -> None:
        """By the kernel, which lets go of it when a worker dies."""
        command = fcntl.LOCK_EX if held else fcntl.LOCK_UN
        fcntl.lockf(self.descriptor, command, RECORD, offset)


class Memory(Chunks):
    """The control process's side: it gives records out, and takes them back."""

    def __init__(self) -> None:
        super().__init__(os.memfd_create("oegw-sa", os.MFD_CLOEXEC))
        self._end = 0
        self._free: dict[int, list[int]] = {}

    def allocate(self, window: int = 0) -> int:
        """The offset of a new record, all zero but for the size of its ring; ``window`` in
        packets, 0 for an outbound SA.  Raises OSError if there is no memory."""
        size = record_size(window)
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
            chunk[at + RING_SIZE : at + RING_SIZE + 4] = ring_size(window).to_bytes(
                4, sys.byteorder
            )
        return offset

    def free(self, offset: int, window: int = 0) -> None:
        """``window`` as at ``allocate``.  No worker may use the record any more."""
        size = record_size(window)
        self._free.setdefault(size, []).append(offset)
