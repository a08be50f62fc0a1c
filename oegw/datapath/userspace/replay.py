"""The anti-replay window, with 64-bit sequence numbers (RFC 4303 section 3.4.3, appendix A)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oegw.datapath.userspace.record import RING, Record, ring_size

if TYPE_CHECKING:
    from mmap import mmap

_LOW = 0xFFFFFFFF
_LAST = 0xFFFFFFFFFFFFFFFF


class ReplayWindow:
    """Which of the last ``size`` sequence numbers were seen, in the record of an SA (`state.py`).

    ``candidate`` and ``fresh`` change nothing; ``accept`` and ``accept_run`` do, and are called
    only after the packets were authenticated, and before they are delivered.
    """

    __slots__ = ("_bits", "_extended", "_record", "_size")

    def __init__(self, record: Record, size: int, extended: bool) -> None:
        self._record = record
        self._size = size
        self._extended = extended
        self._bits = ring_size(size)

    @property
    def top(self) -> int:
        """The highest number accepted."""
        return self._record.sequence

    def candidate(self, low: int) -> int:
        """The full number of a packet that shows the 32 bits ``low`` (RFC 4303 appendix A2.2).

        Negative if there is none: it would lie before the first subspace.
        """
        if not self._extended:
            return low
        top_high, top_low = self.top >> 32, self.top & _LOW
        bottom = top_low - self._size + 1
        if bottom >= 0:  # case A: the window lies within one subspace
            high = top_high if low >= bottom else top_high + 1
        else:  # case B: it spans two
            high = top_high - 1 if low >= bottom + _LOW + 1 else top_high
        return high << 32 | low

    def fresh(self, sequence: int) -> bool:
        """Whether ``sequence`` is neither seen nor too old to tell.  0 is never sent."""
        top = self._record.sequence
        if sequence > top:
            return sequence <= (_LAST if self._extended else _LOW)
        if sequence <= 0 or top - sequence >= self._size:
            return False
        bit = sequence % self._bits
        return not self._record.memory[self._record.at + RING + (bit >> 3)] >> (bit & 7) & 1

    def accept(self, sequence: int) -> None:
        """Remember a fresh ``sequence``."""
        self.accept_run(sequence, 1)

    def accept_run(self, first: int, count: int) -> None:
        """Remember ``count`` fresh numbers from ``first`` on: one, or all beyond the top."""
        record, bits = self._record, self._bits
        memory, ring = record.memory, record.at + RING
        top, last = record.sequence, first + count - 1
        if last > top:
            # In this order: a death in between makes the window forget what was never delivered.
            record.sequence = last
            if first - top > bits:
                memory[ring : ring + (bits + 7) // 8] = bytes(
                    (bits + 7) // 8
                )  # a jump over all of it
            else:
                _change(memory, ring, bits, top + 1, first - top - 1, False)
        if count == 1:
            bit = first % bits
            memory[ring + (bit >> 3)] |= 1 << (bit & 7)
        else:
            _change(memory, ring, bits, max(first, last - bits + 1), min(count, bits), True)


def _change(memory: mmap, ring: int, bits: int, first: int, count: int, value: bool) -> None:
    """Set ``count`` bits from that of the number ``first`` on, at most all, to ``value``."""
    start = first % bits
    while count > 0:
        span = min(count, bits - start)
        low, high = ring + (start >> 3), ring + (start + span + 7 >> 3)
        mask = ((1 << span) - 1) << (start & 7)
        before = int.from_bytes(memory[low:high], "little")
        after = before | mask if value else before & ~mask
        memory[low:high] = after.to_bytes(high - low, "little")
        count -= span
        start = 0
