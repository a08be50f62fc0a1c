"""Columns: one field of many packets that come one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from struct import Struct
from typing import Literal

from oegw.packet.ip import Buffer

_FORMS: dict[int, Literal["H", "I"]] = {2: "H", 4: "I"}  # of struct and of memoryviews


def counted(first: int, step: int, count: int, bits: int) -> tuple[int, ...]:
    """``count`` numbers from ``first`` on, ``step`` apart, in fields of so many bits."""
    mask = (1 << bits) - 1
    first &= mask
    if not step:
        return (first,) * count
    numbers = range(first, first + count * step, step)
    if numbers[-1] <= mask:
        return tuple(numbers)
    return tuple([number & mask for number in numbers])


def lanes(width: int, first: int, step: int, count: int) -> bytes:
    """``count`` numbers of ``width`` octets each, in network byte order, from ``first`` on and
    ``step`` apart: all of them made as one.  None may pass the ends of its lane."""
    ones, ramp = _ones_and_ramp(width, count)
    return (first * ones + step * ramp).to_bytes(width * count, "big")


def packed(width: int, numbers: Sequence[int]) -> bytes:
    """Numbers of 2 or 4 octets each, in network byte order."""
    return _packing(width, len(numbers)).pack(*numbers)


def lay_column(octets: bytearray, at: int, apart: int, column: bytes) -> None:
    """Write numbers of 2 octets each, or 4 where all are at multiples of 4, to where they belong in
    ``octets``: the first at ``at``, the next ``apart`` octets behind."""
    width = len(column) * apart // len(octets)
    form = _FORMS[width]
    memoryview(octets).cast(form)[at // width :: apart // width] = memoryview(column).cast(form)


@lru_cache(maxsize=512)
def _packing(width: int, count: int) -> Struct:
    return Struct(f"!{count}{_FORMS[width]}")


@lru_cache(maxsize=512)
def _ones_and_ramp(width: int, count: int) -> tuple[int, int]:
    """Numbers of ``count`` lanes of so many octets, as large as they are: 1 in each; and 0, 1, 2,
    from the first on, which is the most significant."""
    ones = sum(1 << 8 * width * lane for lane in range(count))
    ramp = sum(count - 1 - lane << 8 * width * lane for lane in range(count))
    return ones, ramp


def alike(column: Sequence[object], due: Sequence[object]) -> int:
    """How many are as they are due, from the first on."""
    if column == due:
        return len(column)
    pairs = enumerate(zip(column, due, strict=True))
    return next((index for index, (each, its) in pairs if each != its), len(column))


def alike_lanes(width: int, column: Buffer, due: Buffer) -> int:
    """The same for lanes of ``width`` octets."""
    if column == due:
        return len(column) // width
    different = int.from_bytes(column, "big") ^ int.from_bytes(due, "big")
    return (8 * len(column) - different.bit_length()) // (8 * width)
