"""What a gateway sends, asks and keeps grows with the number of its peers, and not faster."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.mesh import plot
from tests.mesh.mesh import MEASURES, Counts, Line, run

# Of the largest value: how far a count may be from a straight line.
STRAIGHT = 0.03
# How much more the last peer may cost than the first ones did on average.
DEARER = 1.10


def assert_linear(measured: Sequence[Counts]) -> None:
    peers = [counts.peers for counts in measured]
    for name, of in MEASURES.items():
        values = [of(counts) for counts in measured]
        line = Line.through(peers, values)
        assert line.error <= STRAIGHT, f"{name} {values} is no straight line"
        assert values[-1] / peers[-1] <= DEARER * values[0] / peers[0], f"{name}: {values}"


def assert_whole(counts: Counts) -> None:
    """Each pair is keyed, once, and nothing else is left."""
    assert counts.failures == 0
    assert counts.retransmissions == 0
    assert counts.tunnels == counts.connections == counts.peers
    assert counts.associations == 2 * counts.peers


@pytest.mark.parametrize("crossing", [False, True], ids=["one begins", "both begin"])
def test_a_small_mesh(crossing: bool) -> None:
    measured = [run(size, crossing) for size in (4, 8, 12)]
    for counts in measured:
        assert_whole(counts)
    assert_linear(measured)


def test_the_line_sees_a_square() -> None:
    """The bound is one: a count that grows with the square of the peers is not let through."""
    squared = [Counts(n, *[float((n - 1) ** 2)] * 7, 0, 0, 1.0) for n in (5, 10, 15, 20)]
    with pytest.raises(AssertionError, match="no straight line"):
        assert_linear(squared)


def test_the_page_has_its_numbers() -> None:
    text = (plot.DOCS / "mesh.md").read_text(encoding="utf-8")
    assert "mesh.svg" in text
    for size in plot.SIZES:
        assert f"\n| {size} | " in text
    assert (plot.DOCS / "mesh.svg").read_text(encoding="utf-8").startswith("<svg ")
    [row, *_] = [line for line in text.splitlines() if line.startswith("| 10 | ")]
    written = [float(cell) for cell in row.strip("| ").split(" | ")[1 : 1 + len(MEASURES)]]
    counts = run(10)
    for name, value in zip(MEASURES, written, strict=True):
        assert value == pytest.approx(MEASURES[name](counts), rel=0.1), f"{name}: plot it anew"


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_hundred_gateways() -> None:
    measured = [run(size) for size in plot.SIZES]
    for counts in measured:
        assert_whole(counts)
    assert_linear(measured)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_forty_gateways_that_all_begin_at_once() -> None:
    measured = [run(size, crossing=True) for size in (10, 20, 40)]
    for counts in measured:
        assert_whole(counts)
    assert_linear(measured)
