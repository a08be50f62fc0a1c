"""The replay window against a naive model: a set of everything accepted."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from oegw.datapath.userspace.record import private_record
from oegw.datapath.userspace.replay import ReplayWindow


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([32, 64, 1024]),
    st.booleans(),
    st.sampled_from([0, 2**31, 2**32 - 1500, 2**32 - 5, 2**33 - 700, 2**40]),
    st.lists(st.integers(-1200, 1500), max_size=120),
)
def test_window_is_a_set_of_the_last(
    size: int, extended: bool, start: int, steps: list[int]
) -> None:
    if not extended:
        start %= 2**31
    window = ReplayWindow(private_record(size), size, extended)
    seen: set[int] = set()
    top = 0
    if start:
        # Walk there in jumps that a peer may make: less than half a subspace each.
        while top < start:
            top = min(top + 2**31, start)
            assert window.candidate(top & 0xFFFFFFFF) == top
            assert window.fresh(top)
            window.accept(top)
            seen = {top}
    for step in steps:
        sequence = max(top + step, 1)
        if not extended and sequence > 2**32 - 1:
            continue
        too_old = sequence <= top - size
        candidate = window.candidate(sequence & 0xFFFFFFFF)
        if too_old:
            # Without its upper half it cannot be told from one of the next subspace;
            # the ICV, which covers that half, tells.  Never is it taken for itself.
            assert candidate != sequence or not window.fresh(candidate)
            continue
        assert candidate == sequence
        assert window.fresh(sequence) == (sequence not in seen)
        if sequence not in seen:
            window.accept(sequence)
            seen.add(sequence)
            top = max(top, sequence)


def test_limits() -> None:
    plain = ReplayWindow(private_record(1024), 1024, False)
    assert not plain.fresh(0)
    assert plain.fresh(2**32 - 1)
    assert not plain.fresh(2**32)
    extended = ReplayWindow(private_record(1024), 1024, True)
    assert not extended.fresh(extended.candidate(0))
    assert not extended.fresh(extended.candidate(2**32 - 1))  # before the first subspace
    assert extended.fresh(2**64 - 1)
    assert not extended.fresh(2**64)
