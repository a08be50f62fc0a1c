"""Our six bits of the packet mark, and of the connection mark (``sst.mark_mask``).

    bit   packet mark                                              connection mark
    0     the sender asked for port encryption                     sticky: opened or sealed before
    1     waiting: it came in fragments; done: the epoch is known  -
    2-3   state: none, waiting, waiting and sticky, done           -
    4-5   epoch of the key                                         epoch of the key

A mark is the only thing about a packet that survives reassembly and the queue.
"""

from __future__ import annotations

from dataclasses import dataclass

BITS = 6


@dataclass(frozen=True, slots=True)
class PlaneMarks:
    """The values of our bits, shifted into place; ``mask`` has six neighbouring ones."""

    mask: int

    @property
    def unit(self) -> int:
        return self.mask & -self.mask

    @property
    def rest(self) -> int:
        """The bits that are others'."""
        return 0xFFFFFFFF ^ self.mask

    @property
    def request(self) -> int:
        """Its sender asked: the socket option sets it, as does a code point from inside."""
        return self.unit

    @property
    def fragment(self) -> int:
        """It came in fragments, with the flag if it is to be opened."""
        return self.unit << 1

    @property
    def keyed(self) -> int:
        """With ``done``: the bits of the epoch say something."""
        return self.unit << 1

    @property
    def state(self) -> int:
        """The two bits of ``waiting``, ``waiting_sticky`` and ``done``."""
        return self.unit * 12

    @property
    def waiting(self) -> int:
        """On its way into the queue."""
        return self.unit * 4

    @property
    def waiting_sticky(self) -> int:
        """On its way into the queue; its connection's epoch is in the bits of the epoch."""
        return self.unit * 8

    @property
    def done(self) -> int:
        """Sealed or opened, or to be left as it is."""
        return self.unit * 12

    @property
    def epochs(self) -> int:
        """The two bits of the epoch, in packet and connection mark."""
        return self.unit * 48

    def epoch(self, number: int) -> int:
        """The bits for an epoch, 0 to 3."""
        return self.unit * 16 * number

    def epoch_of(self, mark: int) -> int:
        return (mark & self.epochs) // (self.unit * 16)

    @property
    def sticky(self) -> int:
        """In the connection mark."""
        return self.unit
