"""One field of many packets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oegw.datapath.userspace.core.columns import (
    alike,
    alike_lanes,
    counted,
    lanes,
    packed,
    rising,
)


@given(
    first=st.integers(0, 2**33),
    step=st.sampled_from([0, 1, 1448]),
    count=st.integers(1, 64),
    bits=st.sampled_from([16, 32]),
)
def test_counted(first: int, step: int, count: int, bits: int) -> None:
    expected = tuple((first + index * step) % 2**bits for index in range(count))
    assert counted(first, step, count, bits) == expected


@given(
    width=st.sampled_from([2, 4, 8, 12, 16]),
    step=st.integers(-100, 100),
    count=st.integers(1, 100),
)
def test_lanes(width: int, step: int, count: int) -> None:
    first = 10000
    expected = b"".join((first + index * step).to_bytes(width, "big") for index in range(count))
    assert lanes(width, first, step, count) == expected


def test_columns_are_in_network_byte_order() -> None:
    assert rising("H", 0xFFFE, 1, 2).tobytes() == b"\xff\xfe\xff\xff"
    assert rising("I", 1, -1, 2).tobytes() == b"\0\0\0\1\0\0\0\0"
    assert packed("H", [1, 0xFFFF]).tobytes() == b"\0\1\xff\xff"
    assert packed("I", [1, 2]).tobytes() == b"\0\0\0\1\0\0\0\2"
    row = bytearray(16)
    memoryview(row).cast("I")[1::2] = packed("I", [1, 2])
    assert row == b"\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\2"


@pytest.mark.parametrize("width", [1, 3, 40])
@pytest.mark.parametrize("wrong", range(8))
def test_how_many_are_alike(width: int, wrong: int) -> None:
    due = bytes(index % 251 for index in range(7 * width))
    for place in range(wrong * width, min(wrong * width + width, len(due))):
        column = bytearray(due)
        column[place] ^= 1
        assert alike_lanes(width, column, due) == wrong
        numbers = [column[at : at + width] for at in range(0, len(due), width)]
        expected = [due[at : at + width] for at in range(0, len(due), width)]
        assert alike(numbers, expected) == wrong
    assert alike_lanes(width, due, bytearray(due)) == 7
