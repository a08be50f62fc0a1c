"""Ones' complement sums, with GMP and without."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.utils import checksum

from oegw.datapath.userspace.core import summing
from oegw.datapath.userspace.core.summing import pieces_of, sum_of, with_sum

SIZES = [0, 1, 2, 3, 255, 256, 257, 258, 260, 262, 264, 265, 1336, 1348, 1401, 65535]


@pytest.fixture(params=["gmp", "python"], autouse=True, scope="module")
def by(request: pytest.FixtureRequest) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "python":
            patch.setattr(summing, "remainder", None)
        yield request.param


def same(total: int, octets: bytes) -> bool:
    """Scapy's checksum is the complement of the sum, and all of it is 0 modulo 0xFFFF."""
    return (total + checksum(octets)) % 0xFFFF == 0


def test_gmp_is_there(by: str) -> None:
    """Debian's coreutils need it; without, this machine's figures of speed say something else."""
    assert (summing.remainder is not None) == (by == "gmp")


@pytest.mark.parametrize("size", SIZES)
def test_a_sum(size: int) -> None:
    octets = random.Random(size).randbytes(size)
    assert same(sum_of(octets), octets)
    assert same(sum_of(memoryview(bytearray(b"x" + octets))[1:]), octets)


@pytest.mark.parametrize("octet", [0, 255])
def test_a_sum_of_extremes(octet: int) -> None:
    assert sum_of(bytes([octet]) * 1400) % 0xFFFF == 0


@given(
    size=st.sampled_from([*range(250, 270), *range(1330, 1350)]),
    gap=st.sampled_from([0, 1, 76]),
    count=st.integers(1, 64),
    start=st.integers(0, 60),
    seed=st.integers(0, 99),
)
def test_pieces(size: int, gap: int, count: int, start: int, seed: int) -> None:
    stride = size + gap
    octets = random.Random(seed).randbytes(start + count * stride - gap)
    pieces, sums = pieces_of(memoryview(octets), start, size, stride, count)
    assert list(pieces) == [
        octets[place : place + size] for place in range(start, len(octets), stride)
    ]
    assert len(sums) == count
    assert all(same(total, piece) for total, piece in zip(sums, pieces, strict=True))


@pytest.mark.parametrize("size", [0, 1, 254, 255, 256, 257, 260, 1344, 1346, 1368])
@pytest.mark.parametrize("wrong", [0, 1, 8, 9])
def test_how_many_have_a_sum(size: int, wrong: int) -> None:
    source = random.Random(size)
    pieces = []
    for _ in range(9):
        octets = bytearray(source.randbytes(size))
        if size > 1:
            octets[:2] = bytes(2)
            octets[:2] = ((0x1234 - sum_of(octets)) % 0xFFFF).to_bytes(2, "big")
        pieces.append(bytes(octets))
    due = 0x1234 if size > 1 else sum_of(pieces[0])
    if size > 1 and wrong < 9:
        pieces[wrong] = pieces[wrong][:-1] + bytes((pieces[wrong][-1] ^ 1,))
    row = b"front" + b"between".join(pieces)
    found = with_sum(row, 5, size, size + 7, 9, due)
    alone = [sum_of(piece) % 0xFFFF == due % 0xFFFF for piece in pieces]
    assert found == (alone.index(False) if False in alone else 9)
    assert size < 2 or found == wrong
    assert with_sum(row, 5, size, size + 7, found, due - 0xFFFF) == found
