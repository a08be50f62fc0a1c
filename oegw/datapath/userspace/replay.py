"""The anti-replay window, with 64-bit sequence numbers (RFC 4303 section 3.4.3, appendix A)."""

from __future__ import annotations

_LOW = 0xFFFFFFFF


class ReplayWindow:
    """Which of the last ``size`` sequence numbers were seen.

    ``candidate`` and ``fresh`` change nothing; ``accept`` does, and is called only after the
    packet was authenticated.
    """

    __slots__ = ("_extended", "_mask", "_seen", "_size", "top")

    def __init__(self, size: int, extended: bool) -> None:
        self._size = size
        self._extended = extended
        self._mask = (1 << size) - 1
        self.top = 0  # the highest number accepted
        self._seen = 0  # bit i: top - i was accepted

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
        if sequence > self.top:
            return sequence <= (0xFFFFFFFFFFFFFFFF if self._extended else _LOW)
        age = self.top - sequence
        return sequence > 0 and age < self._size and not self._seen >> age & 1

    def accept(self, sequence: int) -> None:
        """Remember a fresh ``sequence``."""
        ahead = sequence - self.top
        if ahead > 0:
            # A jump over the whole window forgets it; never shift by what a peer chooses.
            shifted = self._seen << ahead & self._mask if ahead < self._size else 0
            self._seen = shifted | 1
            self.top = sequence
        else:
            self._seen |= 1 << -ahead
