"""The replay window against a naive model: a set of everything accepted."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from oegw.datapath.userspace.record import Record, private_record
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


def test_a_run_is_the_same_as_one_by_one() -> None:
    source = random.Random(7)
    for size in (32, 64, 100, 1024):
        one, run = (ReplayWindow(private_record(size), size, True) for _ in range(2))
        for _ in range(300):
            first = one.top + 1 + source.choice((0, 0, 0, 1, 7, 40, 1000, 3000))
            count = source.choice((1, 2, 8, 45, 64, 130, 1500))
            for sequence in range(first, first + count):
                one.accept(sequence)
            run.accept_run(first, count)
            late = one.top - source.randrange(1, size)
            if one.fresh(late):
                one.accept(late)
                run.accept(late)
            assert one.top == run.top
            for sequence in range(max(one.top - size - 5, 0), one.top + 5):
                assert one.fresh(sequence) == run.fresh(sequence)


def test_a_worker_that_dies_while_its_window_moves() -> None:
    """The order of what is written: at every moment, nothing that was delivered is fresh."""

    class Witness(bytearray):
        """Memory that is looked at before each change."""

        def __setitem__(self, place: object, value: object) -> None:
            check()
            super().__setitem__(place, value)  # type: ignore[arg-type,index,call-overload]
            check()

    original = private_record(64)
    memory = Witness(original.memory[:])
    window = ReplayWindow(Record(memory, 0, 0), 64, True)  # type: ignore[arg-type]
    delivered: set[int] = set()

    def check() -> None:
        assert not any(window.fresh(sequence) for sequence in delivered)

    source = random.Random(3)
    top = 0
    for _ in range(60):
        first, count = top + source.choice((1, 1, 2, 9, 200)), source.choice((1, 5, 64, 100))
        window.accept_run(first, count)
        top = first + count - 1
        delivered.update(range(max(first, top - 300), top + 1))
        check()
