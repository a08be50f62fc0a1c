"""Longest-prefix match over many lists of prefixes at once, as a sorted list of cells.

The address space is cut where some prefix begins or ends.  What lies between
two cuts is a cell: all its addresses are in the same prefixes.  These prefixes
are the cell's *chain*: from the longest to the shortest, a prefix length and
the numbers of the lists that hold that prefix.  Neighbouring cells of the same
chain are one.  So one bisection finds both what matches an address and how far
around it the same matches.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, MutableSequence
from dataclasses import dataclass

Level = tuple[int, tuple[int, ...]]
"""A prefix length, and the numbers of the lists in which this prefix is."""

NO_PREFIX = 0
"""The chain of addresses that are in no list."""

_NUMBER_BITS = 32
_NUMBER_MASK = (1 << _NUMBER_BITS) - 1


@dataclass(frozen=True, slots=True)
class Cells:
    """``starts[i]`` is the first address of cell ``i``, and ``chains[i]`` its chain."""

    width: int
    starts: MutableSequence[int]
    chains: MutableSequence[int]
    levels: list[tuple[Level, ...]]  # by chain

    def find(self, address: int) -> int:
        """The number of the cell that holds an address."""
        return bisect_right(self.starts, address) - 1

    def block_length(self, cell: int, address: int) -> int:
        """The length of the shortest prefix of ``address`` that is inside its cell."""
        # The prefix must be longer than what the address has in common with
        # either neighbour of the cell.
        length = 0
        if cell:
            length = self.width + 1 - (address ^ (self.starts[cell] - 1)).bit_length()
        if cell + 1 < len(self.starts):
            above = self.width + 1 - (address ^ self.starts[cell + 1]).bit_length()
            length = max(length, above)
        return length


def cut(width: int, lists: Iterable[tuple[int, Iterable[int]]]) -> Cells:
    """Cut the address space of ``width`` bits by numbered lists of prefix keys.

    Takes time in proportion to n log n, and keeps two numbers for each cell.
    """
    prefixes: list[int] = []
    for number, keys in lists:
        prefixes.extend(key << _NUMBER_BITS | number for key in keys)
    prefixes.sort()

    starts: MutableSequence[int] = array("Q", [0]) if width <= 64 else [0]
    chains: MutableSequence[int] = array("I", [NO_PREFIX])
    levels: list[tuple[Level, ...]] = [()]
    known: dict[tuple[int, int, tuple[int, ...]], int] = {}
    open_prefixes: list[tuple[int, int]] = []  # the first address after it, its chain
    chain = NO_PREFIX

    def begin(start: int, chain: int) -> None:
        if starts[-1] == start:
            starts.pop()
            chains.pop()
        if not chains or chains[-1] != chain:
            starts.append(start)
            chains.append(chain)

    def close_prefixes(until: int, chain: int) -> int:
        while open_prefixes and open_prefixes[-1][0] <= until:
            after = open_prefixes.pop()[0]
            chain = open_prefixes[-1][1] if open_prefixes else NO_PREFIX
            begin(after, chain)
        return chain

    position = 0
    count = len(prefixes)
    while position < count:
        key = prefixes[position] >> _NUMBER_BITS
        numbers: tuple[int, ...] = (prefixes[position] & _NUMBER_MASK,)
        position += 1
        while position < count and prefixes[position] >> _NUMBER_BITS == key:
            numbers = (*numbers, prefixes[position] & _NUMBER_MASK)
            position += 1
        start, length = key >> 8, key & 0xFF
        if open_prefixes and open_prefixes[-1][0] <= start:
            chain = close_prefixes(start, chain)
        inner = known.get((chain, length, numbers))
        if inner is None:
            outer = levels[chain]
            if outer and outer[0][1] == numbers:
                # The same lists again: whatever they say, the outer prefix says it too.
                inner = chain
            else:
                inner = len(levels)
                levels.append(((length, numbers), *outer))
            known[chain, length, numbers] = inner
        chain = inner
        begin(start, chain)
        open_prefixes.append((start + (1 << width - length), chain))
    close_prefixes((1 << width) - 1, chain)
    return Cells(width, starts, chains, levels)
