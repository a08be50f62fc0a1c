"""Where rows of packets end that came one behind the other, as their headers say."""

from __future__ import annotations

import pytest

from oegw.datapath.userspace.core.decrypting import row_ends

A, B = 0x80000001, 0x80000002
SIZE = 20


def packets(*headers: tuple[int, int]) -> bytes:
    """Of SPIs and low sequence numbers."""
    return b"".join(
        spi.to_bytes(4, "big") + low.to_bytes(4, "big") + bytes(SIZE - 8) for spi, low in headers
    )


@pytest.mark.parametrize(
    ("headers", "ends"),
    [
        ([(A, 1)], [1]),
        ([(A, 1), (A, 2), (A, 3)], [3]),
        ([(A, 1), (B, 1), (A, 2), (B, 2)], [1, 2, 3, 4]),
        ([(A, 1), (A, 2), (B, 7), (B, 8), (A, 3)], [2, 4, 5]),
        ([(A, 1), (A, 1), (A, 3), (A, 2)], [1, 2, 3, 4]),  # twice, left out, overtaken
        ([(A, 0xFFFFFFFF), (A, 0), (A, 1)], [1, 3]),  # the low half begins anew
        ([(A, 0xFFFFFFFE), (A, 0xFFFFFFFF), (B, 0), (B, 1)], [2, 4]),  # alike, as one number
    ],
)
@pytest.mark.parametrize("behind", [0, 7, SIZE - 1])
def test_a_row_is_of_one_sa_and_numbered_one_by_one(
    headers: list[tuple[int, int]], ends: list[int], behind: int
) -> None:
    payload = memoryview(packets(*headers) + bytes(behind))
    assert list(row_ends(payload, SIZE)) == [SIZE * end for end in ends]


@pytest.mark.parametrize("size", [1, 7])
def test_what_has_no_header_is_no_row(size: int) -> None:
    assert list(row_ends(memoryview(bytes(5 * size)), size)) == [0]
    assert list(row_ends(memoryview(b""), 0)) == [0]
