"""Columns: one field of many packets that come one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


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


def alike(column: Sequence[Any], due: Sequence[Any]) -> int:
    """How many are as they are due, from the first on."""
    if column == due:
        return len(column)
    pairs = enumerate(zip(column, due, strict=True))
    return next((index for index, (each, its) in pairs if each != its), len(column))
