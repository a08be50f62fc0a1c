"""Columns: one field of many packets that come one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from struct import Struct
from typing import Literal

from oegw.packet.ip import Buffer

Form = Literal["H", "I"]
"""Of numbers in network byte order, as memoryviews have it."""

_WIDTH: dict[Form, int] = {"H": 2, "I": 4}


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


def rising(form: Form, first: int, step: int, count: int) -> memoryview:
    """The same as a column."""
    return memoryview(lanes(_WIDTH[form], first, step, count)).cast(form)


def packed(form: Form, numbers: Sequence[int]) -> memoryview:
    """Numbers as a column."""
    return memoryview(_packing(form, len(numbers)).pack(*numbers)).cast(form)


@lru_cache(maxsize=512)
def _packing(form: Form, count: int) -> Struct:
    return Struct(f"!{count}{form}")


@lru_cache(maxsize=512)
def _ones_and_ramp(width: int, count: int) -> tuple[int, int]:
    """Numbers of ``count`` lanes of so many octets, as large as they are: 1 in each; and 0, 1, 2,
    from the first on, which is the most significant."""
    ones = (1).to_bytes(width, "big") * count
    ramp = b"".join(lane.to_bytes(width, "big") for lane in range(count))
    return int.from_bytes(ones, "big"), int.from_bytes(ramp, "big")


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
